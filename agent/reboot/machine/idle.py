"""Idle: no cycle. Starts one when a reboot is required, unless the last one came too soon before. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.annotations import FIELD_MANAGER
from agent.config.choices import Mode
from agent.reboot.machine import announcements
from agent.reboot.machine.blocked import POLL_SECONDS, held_back
from agent.reboot.machine.decisions import Decision, Release, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.rebooting import may_go_down
from agent.reboot.machine.transitions import REPEATED, backoff_seconds, restore
from agent.reboot.phases import Phase
from agent.reboot.state import Idle, NodeState, Pending, Stamp, bounded
from agent.reboot.status import StatusReason
from agent.text import format_rfc3339

_STREAK_SECONDS = 3600.0  # required again within this after a reboot is probably a loop


def idle(inputs: Inputs, state: NodeState) -> Decision:
    """Nothing of a cycle is left, or it is removed first."""
    if (going_down := _going_down(inputs)) is not None:
        return going_down
    if _is_cordon_left(inputs):
        write = restore(inputs, state, Write(state, cordon=False))
        return Decision(Phase.IDLE, StatusReason.RELEASING, "removing a leftover cordon of the agent", write)
    if _is_taint_left(inputs):
        return Decision(Phase.IDLE, StatusReason.RELEASING, "removing a leftover taint of the agent", Write(state))
    if inputs.mine is not None:
        return Decision(Phase.IDLE, StatusReason.RELEASING, "releasing an unused lock", Release(inputs.mine))
    if inputs.policy.mode is not Mode.ENFORCE:
        return _not_enforcing(inputs)
    if not inputs.required:
        return _not_required(inputs, state)
    if not inputs.request and (held := _held(inputs, state)) is not None:
        until = f" (until {format_rfc3339(held.until)})" if held.until else ""
        announcement = announcements.held(state, held.blocked_by, f"{held.sentence}{until}")
        return replace(held, announcements=(announcement,))
    return _start(inputs, state)


def _is_cordon_left(inputs: Inputs) -> bool:
    """By managedFields it is ours although no state records it: a user removed the state in mid-cycle."""
    node = inputs.node
    return node is not None and node.unschedulable and node.unschedulable_by == FIELD_MANAGER


def _is_taint_left(inputs: Inputs) -> bool:
    """Only a pending reboot puts it on the Node, and its state records it.

    In the other modes it may be kured's, which had the same key.
    """
    node = inputs.node
    if node is None or inputs.policy.mode is not Mode.ENFORCE:
        return False
    return node.taints_with("", {inputs.policy.prefer_no_schedule_taint}) is not None


def _going_down(inputs: Inputs) -> Decision | None:
    """The state was removed behind the fence: cordon and lock stay until the machine is down, or known to stay up.

    Without the lock, only the system itself shows that it is being shut down.
    """
    mine = inputs.mine
    if mine is not None and mine.fenced and mine.view.boot == inputs.now.boot:
        decision = may_go_down(inputs, mine.unseen_seconds)
    elif _is_cordon_left(inputs):
        decision = may_go_down(inputs, float("inf"))
    else:
        return None
    return replace(decision, sentence=f"{decision.sentence}; its state was removed") if decision is not None else None


def _not_required(inputs: Inputs, state: NodeState) -> Decision:
    if inputs.sentinel.required is None:
        return _sentinel_unknown(inputs)
    if isinstance(state, Idle) and state.guard is not None:
        cleared = Write(replace(state, guard=None))
        return Decision(Phase.IDLE, StatusReason.NOT_REQUIRED, "the sentinel is gone", cleared)
    if inputs.skip:
        text = f"not required; opted out: {inputs.skip}"
        return Decision(Phase.IDLE, StatusReason.OPTED_OUT, text, wait_seconds=POLL_SECONDS)
    return Decision(Phase.IDLE, StatusReason.NOT_REQUIRED, "not required", wait_seconds=POLL_SECONDS)


def _sentinel_unknown(inputs: Inputs) -> Decision:
    text = f"unknown whether a reboot is required: {inputs.sentinel.problem}"
    return Decision(Phase.UNKNOWN, StatusReason.SENTINEL_UNKNOWN, text, wait_seconds=POLL_SECONDS, blocked_by="unknown")


def _held(inputs: Inputs, state: NodeState) -> Decision | None:
    """A sentinel that stays, or comes back after each reboot: never a loop at full speed."""
    if isinstance(state, Idle) and state.guard is not None and state.guard == bounded(inputs.sentinel.stamp):
        text = "still required after a verified reboot; waiting until the sentinel goes or changes"
        return Decision(
            Phase.BLOCKED, StatusReason.SENTINEL_UNCHANGED, text, wait_seconds=POLL_SECONDS, blocked_by="guard"
        )
    rest = _rest_seconds(inputs, state)
    if rest <= 0:
        return None
    reason, text = StatusReason.BACKING_OFF, "required again soon after the last reboot; backing off"
    if isinstance(state, Idle) and state.aborted:
        text = "the last cycle was aborted; backing off before the next drain"
    elif isinstance(state, Idle) and state.repeated:
        text = REPEATED
    if inputs.skip:
        reason, text = StatusReason.OPTED_OUT, f"opted out: {inputs.skip}"
    return Decision(
        Phase.BLOCKED,
        reason,
        text,
        wait_seconds=min(rest, POLL_SECONDS),
        until=inputs.now.wall + rest,
        blocked_by="skip" if inputs.skip else "backoff",
    )


def _start(inputs: Inputs, state: NodeState) -> Decision:
    soon = _is_soon(inputs, state)
    rebooted = not state.failures and not (isinstance(state, Idle) and state.aborted)
    started = Pending(
        cycle=inputs.new_cycle,
        packages=inputs.sentinel.reason,
        requested=inputs.request,
        since=inputs.now.wall,
        entered=Stamp.of(inputs.now),
        failures=state.failures if soon else 0,
        streak=state.streak + int(rebooted) if soon else 0,
        done=state.done,
        last_cause=state.last_cause if soon and isinstance(state, Idle) else "",
        taint=inputs.policy.prefer_no_schedule_taint,
    )
    return Decision(Phase.PENDING, StatusReason.ACQUIRING_LOCK, "reboot required", Write(started, taint=started.taint))


def _is_soon(inputs: Inputs, state: NodeState) -> bool:
    """Required again soon after the last cycle, in the same boot."""
    elapsed = state.done.elapsed(inputs.now) if state.done else None
    return elapsed is not None and elapsed < max(_STREAK_SECONDS, 2 * _backoff(inputs, state))


def _backoff(inputs: Inputs, state: NodeState) -> float:
    repeated = isinstance(state, Idle) and state.repeated
    return backoff_seconds(inputs.policy, max(state.streak + 1, state.failures), repeated=repeated)


def _rest_seconds(inputs: Inputs, state: NodeState) -> float:
    """A sentinel that comes back after each reboot slows down to one reboot a day."""
    if not _is_soon(inputs, state) or state.done is None:
        return 0.0
    return _backoff(inputs, state) - (state.done.elapsed(inputs.now) or 0.0)


def _not_enforcing(inputs: Inputs) -> Decision:
    """Reports what it would do (audit), or nothing (off)."""
    if inputs.policy.mode is Mode.OFF:
        return Decision(Phase.IDLE, StatusReason.MODE_OFF, "reboot.mode is off", wait_seconds=POLL_SECONDS)
    if not inputs.required:
        unknown = inputs.sentinel.required is None
        decision = _sentinel_unknown(inputs) if unknown else _not_required(inputs, Idle())
        return replace(decision, sentence=f"audit: {decision.sentence}")
    blocker = held_back(inputs)
    if blocker is not None:
        return replace(blocker, sentence=f"audit: {blocker.sentence}", wait_seconds=POLL_SECONDS, postpone=False)
    text = "audit: would acquire the lock, drain and reboot"
    return Decision(Phase.PENDING, StatusReason.WOULD_REBOOT, text, wait_seconds=POLL_SECONDS)
