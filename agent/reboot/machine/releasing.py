"""Releasing: the cordon is gone; the lock is released after its delay, then the state is cleared. Pure."""

from __future__ import annotations

from agent.reboot.machine import announcements
from agent.reboot.machine.decisions import Decision, Release, Renew, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.transitions import reset
from agent.reboot.phases import Phase
from agent.reboot.state import Outcome, Releasing, Stamp
from agent.reboot.status import StatusReason


def releasing(inputs: Inputs, state: Releasing) -> Decision:
    """After success or abort: either rests before the next drain, and only a reboot makes that longer."""
    succeeded = state.outcome is Outcome.SUCCEEDED
    reason = StatusReason.RELEASING if succeeded else StatusReason.ABORTED
    text = "rebooted and verified" if succeeded else f"aborted: {state.error}"
    mine = inputs.mine
    if mine is None:
        kept = {} if succeeded else {"failures": state.failures, "aborted": True, "last_cause": state.last_cause}
        write = Write(reset(state, done=Stamp.of(inputs.now), **kept))
        return Decision(Phase.RELEASING, reason, text, write, announcements=announcements.released(inputs, state))
    delay = inputs.policy.lock.release_delay
    elapsed = state.entered.elapsed(inputs.now)
    rest = delay - elapsed if succeeded and elapsed is not None else 0.0
    if rest <= 0:
        return Decision(Phase.RELEASING, reason, f"{text}; releasing the lock", Release(mine, rebooted=succeeded))
    if inputs.renew_due:
        return Decision(Phase.RELEASING, reason, "renewing the lock", Renew(mine))
    return Decision(
        Phase.RELEASING,
        reason,
        f"{text}; the lock is released after lock.releaseDelay",
        wait_seconds=min(rest, inputs.policy.lock.lease_duration / 6),
        until=state.entered.wall + delay,
    )
