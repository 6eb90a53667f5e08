"""Rolled back: the lock is released immediately, the next attempt comes after the back-off. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.config.choices import Mode
from agent.reboot.machine import announcements
from agent.reboot.machine.blocked import POLL_SECONDS
from agent.reboot.machine.decisions import Decision, Release, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.transitions import NOT_REBOOTED, REPEATED, backoff_seconds, enter, reset
from agent.reboot.phases import Phase
from agent.reboot.state import Pending, RolledBack, Stamp
from agent.reboot.status import StatusReason


def rolled_back(inputs: Inputs, state: RolledBack) -> Decision:
    """To the next attempt, or to idle when none is needed."""
    if inputs.mine is not None:
        return _decision("rolled back; releasing the lock", Release(inputs.mine))
    return replace(_unlocked(inputs, state), announcements=announcements.released(inputs, state))


def _unlocked(inputs: Inputs, state: RolledBack) -> Decision:
    elapsed = state.entered.elapsed(inputs.now)
    if state.entered.boot != inputs.now.boot and state.cause == NOT_REBOOTED:
        # The machine went down after all: the reboot is recorded, and the back-off counts from it.
        done = reset(state, done=Stamp.of(inputs.now))
        return _decision("rebooted after all", Write(done, finished=True))
    if inputs.not_required or inputs.policy.mode is not Mode.ENFORCE:
        # The back-off outlives the request: a sentinel that flickers must not drain the node again immediately.
        kept = {"failures": state.failures, "last_cause": state.cause, "repeated": state.repeated}
        calm = reset(state, done=state.entered, **kept)
        return _decision("no longer required", Write(calm))
    if elapsed is None:
        # Another boot or a snapshot: its clock cannot say how long ago that was, so the whole back-off begins again.
        return _decision(f"rolled back: {state.error}", Write(replace(state, entered=Stamp.of(inputs.now))))
    asked = bool(inputs.request) and inputs.request != state.requested
    seconds = backoff_seconds(inputs.policy, state.failures, repeated=state.repeated)
    if inputs.required and (elapsed >= seconds or asked):
        return _again(inputs, state)
    text = f"rolled back: {state.error}"
    if state.repeated:
        text += f"; {REPEATED}"
    wait = POLL_SECONDS
    if elapsed < seconds:
        wait = min(seconds - elapsed, POLL_SECONDS)
    elif not inputs.required:
        text = f"{text}; unknown whether a reboot is still required: {inputs.sentinel.problem}"
    return replace(_decision(text), wait_seconds=wait, until=state.entered.wall + seconds, blocked_by="backoff")


def _again(inputs: Inputs, state: RolledBack) -> Decision:
    again = enter(
        inputs, state, Pending, cycle=inputs.new_cycle, packages=inputs.sentinel.reason, requested=inputs.request,
        done=state.entered, last_cause=state.cause, taint=inputs.policy.prefer_no_schedule_taint,
    )  # fmt: skip
    return Decision(Phase.PENDING, StatusReason.ACQUIRING_LOCK, "trying again", Write(again, taint=again.taint))


def _decision(text: str, action: Release | Write | None = None) -> Decision:
    return Decision(Phase.ROLLED_BACK, StatusReason.ROLLED_BACK, text, action)
