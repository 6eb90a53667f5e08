"""Rebooting: the fence and the command, then waiting for another boot id. Pure.

Before the fence everything can be reverted; behind it only time or another boot id show what became of the command.
"""

from __future__ import annotations

from dataclasses import replace

from agent.reboot.machine import announcements
from agent.reboot.machine.decisions import Decision, FenceAndReboot, Fetch, Query, Write, duration
from agent.reboot.machine.draining import last_blocker, last_question
from agent.reboot.machine.inputs import Command, Inputs, Slot
from agent.reboot.machine.interruptions import came_back
from agent.reboot.machine.rollback import roll_back, stopped_by
from agent.reboot.machine.transitions import NOT_REBOOTED, drop_cordon_ownership, elapsed_in, fence_seconds
from agent.reboot.phases import Phase
from agent.reboot.state import Rebooting, Stamp
from agent.reboot.status import StatusReason

_WATCH_SECONDS = 10.0


def rebooting(inputs: Inputs, state: Rebooting) -> Decision:
    """From the written state to another boot id, or to what shows that none will come."""
    if state.boot != inputs.now.boot:
        return came_back(inputs, state)
    if inputs.command is Command.REFUSED:
        return roll_back(inputs, state, f"the reboot command failed: {inputs.command_error}")
    mine = inputs.mine
    # A Lease that could not be read now decides nothing: the command may have been given since it was read last.
    is_unfenced = mine is not None and not mine.fenced and not inputs.lock_problem
    if is_unfenced or inputs.command is Command.NOT_GIVEN:
        return _before_fence(inputs, state, mine)
    if (dropped := drop_cordon_ownership(inputs, state)) is not None:
        return dropped
    events = (announcements.rebooting(state),) if mine is not None else ()
    return replace(_behind_fence(inputs, state), announcements=events)


def _behind_fence(inputs: Inputs, state: Rebooting) -> Decision:
    timeout = inputs.policy.reboot_timeout
    given = inputs.command_seconds
    going_down = may_go_down(inputs, given if given is not None else elapsed_in(inputs, state))
    if going_down is None:
        error = f"still the same boot {duration(timeout)} after the reboot command"
        return roll_back(inputs, state, error, cause=NOT_REBOOTED)
    return replace(going_down, until=state.entered.wall + timeout + inputs.policy.verify_timeout)


def may_go_down(inputs: Inputs, elapsed_seconds: float) -> Decision | None:
    """Waits while a command that may have been given so long ago may still end this boot; None when it does not."""
    timeout = inputs.policy.reboot_timeout
    wait, text = timeout - elapsed_seconds + 0.1, "rebooting"
    if elapsed_seconds > timeout:
        if inputs.shutting_down is None and not inputs.shutdown_problem:
            return Decision(Phase.REBOOTING, StatusReason.REBOOTING, text, Fetch(Query.SHUTDOWN))
        if not inputs.shutting_down and not (inputs.shutdown_problem and elapsed_seconds <= 2 * timeout):
            return None
        wait, text = _WATCH_SECONDS, "rebooting; the system is shutting down for longer than rebootTimeout"
        if inputs.shutdown_problem:
            text = f"rebooting; unknown whether the system is shutting down: {inputs.shutdown_problem}"
    return Decision(Phase.REBOOTING, StatusReason.REBOOTING, text, wait_seconds=min(_WATCH_SECONDS, wait))


def _before_fence(inputs: Inputs, state: Rebooting, mine: Slot | None) -> Decision:
    """The command was certainly not given yet."""
    if (stopped := stopped_by(inputs, state)) is not None or mine is None:
        return stopped or roll_back(inputs, state, "the lock was lost")
    elapsed = elapsed_in(inputs, state)
    # From when the phase began, also where the clock was started again: a fence may be refused for good.
    began = dict(state.marks).get(Phase.REBOOTING, state.entered.wall)
    if elapsed + state.entered.wall - began > inputs.policy.reboot_timeout + inputs.policy.drain.timeout:
        return roll_back(inputs, state, "the reboot command could not be given in time")
    if not inputs.required and (blocker := last_blocker(inputs, state)) is not None:
        return roll_back(inputs, state, f"drained, but {blocker.sentence}")
    if elapsed > fence_seconds(inputs.policy):
        if (question := last_question(inputs)) is not None:
            return question
        if (blocker := last_blocker(inputs, state)) is not None:
            return roll_back(inputs, state, f"drained, but {blocker.sentence}", cause=blocker.blocked_by)
        text = "the checks took long; starting the clock again"
        # On the wall clock of the mark, which may have been set since.
        entered = replace(Stamp.of(inputs.now), wall=round(state.entered.wall + elapsed, 3))
        restarted = Write(replace(state, entered=entered))
        return Decision(Phase.REBOOTING, StatusReason.REBOOTING, text, restarted)
    fence = FenceAndReboot(mine, announcements.rebooting(state))
    return Decision(Phase.REBOOTING, StatusReason.REBOOTING, "rebooting", fence)
