"""From the cordon to the reboot command: hooks, drain, the last questions, the fence.

Pure, as the machine is. Everything here happens under the lock and in the boot in which the node was cordoned; it
refuses to go on when either is gone. Before the fence a way back is always open; behind it only time or another boot id
tell what became of the command.
"""

from __future__ import annotations

from dataclasses import replace

from agent.config.schema import Hook, Mode, OnTimeout
from agent.reboot.interfaces import Announcement, DrainMode, HookStage, Progress
from agent.reboot.machine import announcements
from agent.reboot.machine.inputs import (
    Command,
    Decision,
    FenceAndReboot,
    Fetch,
    Inputs,
    Query,
    Renew,
    Slot,
    StepDrain,
    StepHooks,
    Write,
    duration,
)
from agent.reboot.machine.transitions import abort, drop_cordon_ownership, enter, fence_seconds, roll_back
from agent.reboot.state import NodeState, Phase, Stamp

_HOOK_POLL_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 15.0
_WATCH_SECONDS = 10.0


def cordoned(seen: Inputs, state: NodeState) -> Decision:
    """Cordoned, nothing evicted yet: the hooks before the drain, then the drain's delay."""
    if (interrupted := _interrupted(seen, state)) is not None:
        return interrupted
    if (hooked := _hooks(seen, state, HookStage.PRE_DRAIN, seen.policy.hooks.pre_drain)) is not None:
        return hooked
    rest = seen.policy.drain.delay - _elapsed(seen, state)
    if rest > 0:
        text = f"cordoned: drains in {duration(rest)}"
        return Decision(Phase.CORDONED, text, wait_seconds=min(rest, _patience(seen)))
    return Decision(Phase.CORDONED, "begins to drain", Write(enter(seen, state, Phase.DRAINING)), after="draining")


def draining(seen: Inputs, state: NodeState) -> Decision:
    """Empties the node, to the deadline and what the policy says then; after that the last questions."""
    if (interrupted := _interrupted(seen, state)) is not None:
        return interrupted
    progress = seen.progress
    timeout = seen.policy.drain.timeout
    late = _elapsed(seen, state) > timeout
    if progress is None or not progress.done:
        if not late:
            return _step(seen, progress, DrainMode.EVICT)
        match seen.policy.drain.on_timeout:
            case OnTimeout.ABORT:
                return roll_back(seen, state, f"the drain did not end within {duration(timeout)}{_left(progress)}")
            case OnTimeout.DELETE:
                if _elapsed(seen, state) > 2 * timeout:
                    return roll_back(seen, state, f"pods stay although they were deleted{_left(progress)}")
                return _step(seen, progress, DrainMode.DELETE)
            case OnTimeout.FORCE:
                pass
    return _drained(seen, state, progress, late=_elapsed(seen, state) > 2 * timeout)


def rebooting(seen: Inputs, state: NodeState) -> Decision:
    """Written down that the node goes down: the fence and the command, then waiting for another boot id."""
    if state.boot != seen.now.boot:
        return _came_back(seen, state)
    if seen.command is Command.REFUSED:
        return roll_back(seen, state, f"the reboot command failed: {seen.command_error}")
    mine = seen.mine
    known_not_given = (mine is not None and not mine.fenced) or seen.command is Command.NOT_GIVEN
    if known_not_given:
        return _before_the_fence(seen, state, mine)
    if (disowned := drop_cordon_ownership(seen, state)) is not None:
        return disowned
    told = (announcements.rebooting(state),) if mine is not None else ()
    timeout = seen.policy.reboot_timeout
    elapsed = seen.command_seconds if seen.command_seconds is not None else _elapsed(seen, state)
    if elapsed > timeout:
        error = f"still the same boot {duration(timeout)} after the reboot command"
        return replace(roll_back(seen, state, error, lost=mine is None), said=told)
    text = f"rebooting since {duration(elapsed)}"
    return Decision(Phase.REBOOTING, text, wait_seconds=min(_WATCH_SECONDS, timeout - elapsed + 0.1), said=told)


def _before_the_fence(seen: Inputs, state: NodeState, mine: Slot | None) -> Decision:
    """The command was certainly not given yet, so everything may still be taken back."""
    if (stopped := _stopped(seen, state, mine)) is not None or mine is None:
        return stopped or roll_back(seen, state, "the lock was lost", lost=True)
    if not seen.wants:
        return roll_back(seen, state, f"drained, but {_last_no(seen)}")
    if _elapsed(seen, state) > fence_seconds(seen.policy):
        if (question := _question(seen)) is not None:
            return question
        if by := _last_no(seen):
            return roll_back(seen, state, f"drained, but {by}")
        text = "the way to the reboot took long: its clock starts again"
        return Decision(Phase.REBOOTING, text, Write(replace(state, entered=Stamp.of(seen.now))))
    return Decision(Phase.REBOOTING, "gives the reboot command", FenceAndReboot(mine, announcements.rebooting(state)))


# -- what ends a cycle before the command ------------------------------------------------------------------------------


def _interrupted(seen: Inputs, state: NodeState) -> Decision | None:
    """Another boot, a lost lock, a person's hand, or a renewal that is due."""
    if state.boot != seen.now.boot:
        return _came_back(seen, state)
    if (stopped := _stopped(seen, state, seen.mine)) is not None:
        return stopped
    if seen.mine is not None and seen.renew_due:
        return Decision(state.phase, "renews the lock", Renew(seen.mine))
    return None


def _stopped(seen: Inputs, state: NodeState, mine: Slot | None) -> Decision | None:
    if mine is None:
        return roll_back(seen, state, "the lock was lost", lost=True)
    if seen.node is not None and not seen.node.unschedulable:
        return roll_back(seen, state, "somebody uncordoned the node")
    if seen.skip:
        return abort(seen, state, f"opted out on the node: {seen.skip}")
    if seen.denies:
        return abort(seen, state, "no longer required")
    if seen.policy.mode is not Mode.ENFORCE:
        return abort(seen, state, f"reboot.mode is {seen.policy.mode.value} now")
    return drop_cordon_ownership(seen, state)


def _came_back(seen: Inputs, state: NodeState) -> Decision:
    """Another boot id: the node did reboot, whoever asked for it."""
    text = "another boot id: proves the node"
    return Decision(
        Phase.REBOOTING, text, Write(enter(seen, state, Phase.VERIFYING)), after="verifying: another boot id"
    )


# -- the drain ---------------------------------------------------------------------------------------------------------


def _step(seen: Inputs, progress: Progress | None, mode: DrainMode) -> Decision:
    text = "draining"
    told: tuple[Announcement, ...] = ()
    wait = _ASK_AGAIN_SECONDS
    blocked_by = ""
    if progress is not None:
        text = f"draining {progress.total - progress.left} of {progress.total}{_left(progress)}"
        refusals = (*progress.blocked_by, *progress.misconfigured)
        told = tuple(announcements.drain_blocked(seen.state, by) for by in refusals) if seen.state else ()
        blocked_by = "drain" if refusals else ""
        wait = progress.wait_seconds
    if mode is DrainMode.DELETE:
        text = f"{text}; past the deadline, deletes"
    begins_to_delete = mode is DrainMode.DELETE and progress is not None and progress.mode is not mode
    if not seen.drain_due and not begins_to_delete:
        wait = min(wait, _patience(seen))
        return Decision(Phase.DRAINING, text, wait_seconds=wait, blocked_by=blocked_by, said=told)
    return Decision(Phase.DRAINING, text, StepDrain(mode), wait_seconds=0.0, blocked_by=blocked_by, said=told)


def _left(progress: Progress | None) -> str:
    return "" if progress is None else progress.left_text


def _drained(seen: Inputs, state: NodeState, progress: Progress | None, *, late: bool) -> Decision:
    """Empty: delay, hooks, then everything that may still say no. What says no too long ends the cycle."""
    empty = progress is not None and progress.done
    rest = seen.policy.delay - (seen.drained_seconds if empty else _elapsed(seen, state) - seen.policy.drain.timeout)
    if rest > 0:
        text = f"drained: reboots in {duration(rest)}"
        return Decision(Phase.DRAINING, text, wait_seconds=min(rest, _patience(seen)))
    if (hooked := _hooks(seen, state, HookStage.PRE_REBOOT, seen.policy.hooks.pre_reboot)) is not None:
        return hooked
    if (question := _question(seen)) is not None:
        return question
    if by := _last_no(seen):
        if late:
            return roll_back(seen, state, f"drained, but {by}")
        name = (seen.late_gate.name if seen.late_gate else "") or "unknown"
        return Decision(
            Phase.DRAINING,
            f"drained, but {by}",
            wait_seconds=min(_ASK_AGAIN_SECONDS, _patience(seen)),
            blocked_by=name,
            said=(announcements.blocked(state, name, by),),
        )
    going = enter(seen, state, Phase.REBOOTING)
    if progress is not None:
        going = replace(going, pods=progress.evicted, left=progress.left, slowest=progress.slowest)
    return Decision(Phase.DRAINING, "drained: goes down to reboot", Write(going))


def _question(seen: Inputs) -> Decision | None:
    """What has to be asked before the last no can be told."""
    if seen.proof is None:
        return Decision(Phase.DRAINING, "looks at the hardening", Fetch(Query.PROOF))
    if seen.late_gate is None:
        return Decision(Phase.DRAINING, "asks the blockers again", Fetch(Query.LATE_GATE))
    return None


def _last_no(seen: Inputs) -> str:
    if not seen.wants:
        return f"cannot tell whether a reboot is required: {seen.sentinel.problem}"
    if seen.proof is not None and seen.proof.verified is None:
        return f"cannot tell whether the node is hardened: {seen.proof.problem}"
    if seen.late_gate is not None and seen.late_gate.blocked:
        return f"blocked by {seen.late_gate.by}"
    return ""


# -- shared ------------------------------------------------------------------------------------------------------------


def _hooks(seen: Inputs, state: NodeState, stage: HookStage, hooks: tuple[Hook, ...]) -> Decision | None:
    """None when the stage has nothing more to do."""
    if not hooks:
        return None
    progress = seen.hooks.get(stage)
    if progress is not None and progress.done:
        return None
    if progress is not None and progress.error:
        return roll_back(seen, state, f"a {stage.value} hook failed: {progress.error}")
    return Decision(state.phase, f"runs the {stage.value} hooks", StepHooks(stage), wait_seconds=_HOOK_POLL_SECONDS)


def _elapsed(seen: Inputs, state: NodeState) -> float:
    """Since the phase was entered. A stamp of another boot counts as old: what it limits has to end."""
    elapsed = state.entered.elapsed(seen.now) if state.entered else None
    return elapsed if elapsed is not None else float("inf")


def _patience(seen: Inputs) -> float:
    """The longest sleep that still renews the lease in time."""
    return seen.policy.lock.lease_duration / 6
