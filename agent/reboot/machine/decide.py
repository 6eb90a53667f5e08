"""The reboot's state machine: one look at everything in, one decision out. Pure.

Level-triggered: nothing is remembered between two calls, so that a crash after any action is just the next call by
another process. It refuses to guess: what is unknown (sentinel, blockers, hardening, its own note) never reboots. The
phases before the cordon are here; from the cordon to the command in underway.py; from another boot id to the released
lock in afterwards.py.
"""

from __future__ import annotations

from dataclasses import replace

from agent.config.schema import Mode, OnLostHolder
from agent.reboot.cluster import FIELD_MANAGER
from agent.reboot.interfaces import Announcement
from agent.reboot.machine import announcements
from agent.reboot.machine.afterwards import failed, releasing, verifying
from agent.reboot.machine.inputs import (
    Acquire,
    Decision,
    Fetch,
    Inputs,
    MarkStuck,
    Query,
    Release,
    Renew,
    Slot,
    Write,
    duration,
)
from agent.reboot.machine.transitions import backoff_seconds, reset
from agent.reboot.machine.underway import cordoned, draining, rebooting
from agent.reboot.state import NodeState, Phase, Stamp, tidy

_POLL_SECONDS = 300.0  # nothing to wait for but events; the daemon is woken by them
_STREAK_SECONDS = 3600.0  # wanted again within this after a reboot looks like a loop


def decide(seen: Inputs) -> Decision:
    """What to do next, and why. Never raises for anything that a cluster or a node may show."""
    if seen.node is None:
        return Decision(Phase.UNKNOWN, "the Node object is gone: nothing is done", wait_seconds=_POLL_SECONDS)
    if seen.state is None:
        text = f"the annotation reboot-state cannot be read ({seen.state_problem}); remove it to start anew"
        return Decision(Phase.UNKNOWN, text, wait_seconds=_POLL_SECONDS, blocked_by="unknown")
    return _decide(seen, seen.state)


def _decide(seen: Inputs, state: NodeState) -> Decision:
    if seen.spare is not None:
        return Decision(Phase.LOCKED, "gives back a second slot of the lock", Release(seen.spare))
    if seen.policy.mode is not Mode.ENFORCE and state.phase in (Phase.IDLE, Phase.WANTED):
        return _not_enforcing(seen, state)
    match state.phase:
        case Phase.WANTED:
            return _wanted(seen, state)
        case Phase.CORDONED:
            return cordoned(seen, state)
        case Phase.DRAINING:
            return draining(seen, state)
        case Phase.REBOOTING:
            return rebooting(seen, state)
        case Phase.VERIFYING:
            return verifying(seen, state)
        case Phase.RELEASING:
            return releasing(seen, state)
        case Phase.FAILED:
            return failed(seen, state)
        case _:
            return _idle(seen, state)


# -- nothing wanted ----------------------------------------------------------------------------------------------------


def _idle(seen: Inputs, state: NodeState) -> Decision:
    if seen.mine is not None:
        return Decision(Phase.IDLE, "gives back a lock that it has no use for", Release(seen.mine))
    node = seen.node
    if node is not None and node.unschedulable and node.unschedulable_by == FIELD_MANAGER:
        # By the server's book it is ours although no note says so: somebody removed the note in the middle of a cycle.
        return Decision(Phase.IDLE, "lifts a cordon of its own that no note speaks of", Write(state, cordon=False))
    if not seen.wants:
        if seen.sentinel.required is None:
            text = f"cannot tell whether a reboot is required: {seen.sentinel.problem}"
            return Decision(Phase.UNKNOWN, text, wait_seconds=_POLL_SECONDS, blocked_by="unknown")
        if state.guard is not None:
            return Decision(Phase.IDLE, "the sentinel is gone", Write(replace(state, guard=None)))
        return Decision(Phase.IDLE, "not required", wait_seconds=_POLL_SECONDS)
    if not seen.request:
        if state.guard is not None and state.guard == tidy(seen.sentinel.stamp):
            text = "required still after a proven reboot: not rebooted again until the sentinel goes or changes"
            return Decision(Phase.BLOCKED, text, wait_seconds=_POLL_SECONDS, blocked_by="guard")
        if (rest := _settling_seconds(seen, state)) > 0:
            text = f"required again soon after the last reboot: waits {duration(rest)}"
            return Decision(Phase.BLOCKED, text, wait_seconds=min(rest, _POLL_SECONDS), blocked_by="backoff")
    soon = _is_soon_again(seen, state)
    wanted = NodeState(
        phase=Phase.WANTED,
        cycle=seen.new_cycle,
        reason=seen.sentinel.reason,
        requested=seen.request,
        since=seen.now.wall,
        entered=Stamp.of(seen.now),
        failures=state.failures if soon else 0,
        streak=state.streak + (0 if state.failures else 1) if soon else 0,
        done=state.done,
    )
    return Decision(Phase.WANTED, _required(wanted), Write(wanted, taint=True))


def _is_soon_again(seen: Inputs, state: NodeState) -> bool:
    """Wanted again soon after the last cycle, in the same boot."""
    elapsed = state.done.elapsed(seen.now) if state.done else None
    return elapsed is not None and elapsed < max(_STREAK_SECONDS, 2 * _rest_seconds(seen, state))


def _rest_seconds(seen: Inputs, state: NodeState) -> float:
    return backoff_seconds(seen.policy, max(state.streak + 1, state.failures))


def _settling_seconds(seen: Inputs, state: NodeState) -> float:
    """A sentinel that comes back after each reboot slows down to one reboot a day instead of going round for ever."""
    if not _is_soon_again(seen, state) or state.done is None:
        return 0.0
    return _rest_seconds(seen, state) - (state.done.elapsed(seen.now) or 0.0)


def _required(state: NodeState) -> str:
    why = state.requested and f"asked for: {state.requested}"
    by = f" by {state.reason}" if state.reason else ""
    return f"required, {why}" if why else f"required{by}"


def _not_enforcing(seen: Inputs, state: NodeState) -> Decision:
    """Takes nothing, and gives back what an enforcing configuration took before."""
    mode = seen.policy.mode.value
    if seen.mine is not None:
        return Decision(Phase.IDLE, f"{mode}: gives the lock back", Release(seen.mine))
    if state.phase is Phase.WANTED:
        return Decision(Phase.IDLE, f"{mode}: takes its note away", Write(reset(state)))
    if seen.policy.mode is Mode.OFF:
        return Decision(Phase.IDLE, "off", wait_seconds=_POLL_SECONDS)
    if not seen.wants:
        unknown = seen.sentinel.required is None
        text = f"cannot tell: {seen.sentinel.problem}" if unknown else "not required"
        return Decision(Phase.UNKNOWN if unknown else Phase.IDLE, f"audit: {text}", wait_seconds=_POLL_SECONDS)
    blocker = _held_back(seen)
    if blocker is not None:
        return replace(blocker, sentence=f"audit: {blocker.sentence}", said=(), wait_seconds=_POLL_SECONDS)
    text = "audit: would ask for the lock, drain and reboot"
    return Decision(Phase.WANTED, text, wait_seconds=_POLL_SECONDS)


# -- wanted: before and with the lock ----------------------------------------------------------------------------------


def _wanted(seen: Inputs, state: NodeState) -> Decision:
    mine = seen.mine
    if mine is not None and (mine.view.cycle != state.cycle or mine.fenced):
        return Decision(Phase.WANTED, "gives back a lock of another cycle", Release(mine))
    if seen.denies:
        if mine is not None:
            return Decision(Phase.WANTED, "no longer required: gives the lock back", Release(mine))
        return Decision(Phase.WANTED, "no longer required", Write(reset(state)))
    if mine is None:
        return _asking(seen, state)
    if seen.renew_due:
        return Decision(Phase.LOCKED, "renews the lock", Renew(mine), said=announcements.acquired(state, mine.view))
    return replace(_locked(seen, state, mine), said=announcements.acquired(state, mine.view))


def _locked(seen: Inputs, state: NodeState, mine: Slot) -> Decision:
    """Everything is asked once more, now that nobody else can begin."""
    blocker = _held_back(seen) or _over_budget(seen, mine)
    if blocker is not None:
        if isinstance(blocker.action, Fetch):
            return blocker
        return Decision(
            Phase.BLOCKED,
            f"gives the lock back: {blocker.sentence}",
            Release(mine, said=announcements.given_back(state, mine.view, blocker.sentence)),
            blocked_by=blocker.blocked_by,
            postpone=True,
        )
    node = seen.node
    foreign = node is not None and node.unschedulable
    begun = replace(
        state,
        phase=Phase.CORDONED,
        boot=seen.now.boot,
        cordoned=not foreign,
        uncordoned=False,
        lease=mine.view.name,
        entered=Stamp.of(seen.now),
        kernel=seen.kernel,
        requested=seen.request,
        error="",
        marks=((Phase.CORDONED.value, round(seen.now.wall, 3)),),
    )
    text = "somebody else has cordoned the node; it will stay so" if foreign else "cordons the node"
    return Decision(
        Phase.LOCKED,
        text,
        Write(begun, cordon=None if foreign else True, labels=seen.policy.node_labels.before),
        after="" if foreign else "cordoned",
    )


def _asking(seen: Inputs, state: NodeState) -> Decision:
    if (closed := _closed_to_us(seen)) is not None:
        # Nobody was asked, so there is nothing to be asked less often; what ends by the clock ends for all at once.
        return replace(closed, said=_blocked_said(state, closed), postpone=closed.postpone_seconds > 0)
    turn = seen.turn
    if turn.slot is None or not turn.now:
        return _waiting(seen, turn.in_seconds)
    if not turn.slot.free:
        if seen.holder_gone is None:
            return Decision(Phase.WAITING, f"looks after {turn.slot.holder}", Fetch(Query.HOLDER))
        if not _may_take_over(seen, turn.slot):
            return _lost_holder(seen, turn.slot)
    blocker = _held_back(seen) or _over_budget(seen, turn.slot)
    if blocker is not None:
        return blocker if isinstance(blocker.action, Fetch) else replace(blocker, said=_blocked_said(state, blocker))
    return Decision(
        Phase.WAITING,
        "asks for the lock",
        Acquire(
            turn.slot,
            state.cycle,
            max(0.0, seen.now.wall - state.since),
            seen.budget.pool_size if seen.budget else 0,
            turn.slot.holder,
        ),
        after="has the lock",
    )


def _blocked_said(state: NodeState, blocker: Decision) -> tuple[Announcement, ...]:
    return (announcements.blocked(state, blocker.blocked_by, blocker.sentence),)


def _waiting(seen: Inputs, in_seconds: float) -> Decision:
    busy = [slot for slot in seen.slots if not slot.free]
    lost = [slot for slot in busy if slot.fenced and slot.unseen_seconds > _lost_after_seconds(seen)]
    told = tuple(event for slot in busy if slot.view.stuck for event in announcements.stuck(seen, slot))
    if seen.turn.slot is not None and seen.turn.slot.free:
        if seen.turn.refused:
            wait = min(max(in_seconds, 0.0), _POLL_SECONDS)
            return Decision(Phase.BLOCKED, seen.turn.refused, wait_seconds=wait, blocked_by=seen.turn.refused_by)
        text = f"the lock is free: asks in {duration(in_seconds)}"
    else:
        text = f"waiting for the lock held by {', '.join(slot.holder for slot in busy[:3])}"
        if lost:
            text += f"; {lost[0].holder} went down and did not come back"
    return Decision(
        Phase.WAITING,
        text,
        wait_seconds=min(max(in_seconds, 0.0), _POLL_SECONDS),
        holder=busy[0].holder if busy else "",
        stuck=bool(lost),
        said=told,
    )


def _lost_after_seconds(seen: Inputs) -> float:
    return seen.policy.reboot_timeout + seen.policy.verify_timeout


def _may_take_over(seen: Inputs, slot: Slot) -> bool:
    """Of a lease that this process has not seen change for its whole duration.

    A holder in phase held is fenced by its own compare-and-swap; one that may be rebooting is left alone unless its
    Node is gone for good, or the policy says to give it up after the timeouts.
    """
    if seen.holder_gone:
        return True
    if not slot.fenced:
        return slot.unseen_seconds > seen.policy.lock.lease_duration
    given_up = slot.unseen_seconds > _lost_after_seconds(seen)
    return given_up and seen.policy.lock.on_lost_holder is OnLostHolder.RELEASE


def _lost_holder(seen: Inputs, slot: Slot) -> Decision:
    waiting = replace(_waiting(seen, _POLL_SECONDS), postpone=True)
    if slot.fenced and slot.unseen_seconds > _lost_after_seconds(seen) and not slot.view.stuck:
        return replace(waiting, action=MarkStuck(slot))
    return waiting


# -- what holds back ---------------------------------------------------------------------------------------------------


def _closed_to_us(seen: Inputs) -> Decision | None:
    """What is known without asking anybody."""
    if seen.skip:
        return _blocked("skip", f"opted out on the node: {seen.skip}")
    if seen.node is not None and seen.node.removal:
        return _blocked("removal", f"the node is being removed: {seen.node.removal}")
    if not seen.wants:
        return _blocked("unknown", f"cannot tell whether a reboot is required: {seen.sentinel.problem}")
    if seen.gap_seconds > 0:
        return _blocked("gap", f"the pool rests after its last reboot: {duration(seen.gap_seconds)}", seen.gap_seconds)
    return None


def _held_back(seen: Inputs) -> Decision | None:
    """Opt-out, hardening and blockers. A Look is a question, anything else an answer."""
    if (closed := _closed_to_us(seen)) is not None:
        return closed
    if seen.proof is None:
        return Decision(Phase.WAITING, "looks at the hardening", Fetch(Query.PROOF))
    if seen.proof.verified is None:
        return _blocked("unknown", f"cannot tell whether the node is hardened: {seen.proof.problem}")
    if seen.gate is None:
        return Decision(Phase.WAITING, "asks the blockers", Fetch(Query.GATE))
    if seen.gate.blocked:
        return _blocked(seen.gate.name, f"blocked by {seen.gate.by}", seen.gate.again_seconds)
    return None


def _over_budget(seen: Inputs, slot: Slot) -> Decision | None:
    if seen.budget is None:
        return Decision(Phase.WAITING, "counts the pool", Fetch(Query.BUDGET))
    if not seen.budget.fits or slot.index >= seen.budget.slots:
        return _blocked("budget", f"blocked by {seen.budget.why}")
    return None


def _blocked(name: str, sentence: str, again_seconds: float = 0.0) -> Decision:
    return Decision(
        Phase.BLOCKED,
        sentence,
        wait_seconds=min(again_seconds, _POLL_SECONDS) if again_seconds > 0 else _POLL_SECONDS,
        blocked_by=name,
        postpone=True,
        postpone_seconds=again_seconds,
    )
