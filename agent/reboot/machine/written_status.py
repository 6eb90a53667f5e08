"""The status that goes with a written state, in the same patch: true from the moment of the write. Pure."""

from __future__ import annotations

from agent.config.choices import Mode
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.transitions import backoff_seconds
from agent.reboot.machine.verifying import NO_HEARTBEAT
from agent.reboot.state import (
    Cordoned,
    Draining,
    Idle,
    NodeState,
    Outcome,
    Pending,
    Rebooting,
    Releasing,
    RolledBack,
    Verifying,
)
from agent.reboot.status import StatusReason

Written = tuple[StatusReason, str, float]


def written_status(inputs: Inputs, state: NodeState) -> Written:
    """Reason, sentence and `until` (wall seconds, 0 for none)."""
    policy = inputs.policy
    match state:
        case Pending():
            why = f"requested: {state.requested}" if state.requested else state.packages
            return StatusReason.ACQUIRING_LOCK, "reboot required" + (f" ({why})" if why else ""), 0.0
        case Cordoned():
            return StatusReason.CORDONED, "cordoned", 0.0
        case Draining():
            return StatusReason.DRAINING, "draining", state.entered.wall + policy.drain.timeout
        case Rebooting():
            until = state.entered.wall + policy.reboot_timeout + policy.verify_timeout
            return StatusReason.REBOOTING, "rebooting", until
        case Verifying() if state.error:
            return StatusReason.VERIFICATION_FAILED, f"verification failed: {state.error}", 0.0
        case Verifying():
            return StatusReason.VERIFYING, f"verifying: {NO_HEARTBEAT}", state.entered.wall + policy.verify_timeout
        case Releasing() if state.outcome is Outcome.SUCCEEDED:
            return StatusReason.RELEASING, "rebooted and verified", 0.0
        case Releasing():
            return StatusReason.ABORTED, f"aborted: {state.error}", 0.0
        case RolledBack():
            rest = backoff_seconds(policy, state.failures, repeated=state.repeated)
            return StatusReason.ROLLED_BACK, f"rolled back: {state.error}", state.entered.wall + rest
        case _:
            return _idle(inputs, state)


def _idle(inputs: Inputs, state: NodeState) -> Written:
    if inputs.policy.mode is Mode.OFF:
        return StatusReason.MODE_OFF, "reboot.mode is off", 0.0
    if isinstance(state, Idle) and state.guard is not None:
        return StatusReason.SENTINEL_UNCHANGED, "still required after a verified reboot", 0.0
    return StatusReason.NOT_REQUIRED, "not required", 0.0
