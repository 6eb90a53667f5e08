"""The reboot's state machine: one set of inputs in, one decision out. Pure.

Level-triggered: nothing is remembered between two calls, so that a crash after any action is just the next call by
another process. It refuses to guess: what is unknown (sentinel, blockers, hardening, its own state) never reboots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.reboot.machine.cordoned import cordoned
from agent.reboot.machine.decisions import Decision, Fetch, Query, Release, Write
from agent.reboot.machine.draining import draining
from agent.reboot.machine.idle import idle
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.pending import pending
from agent.reboot.machine.rebooting import rebooting
from agent.reboot.machine.releasing import releasing
from agent.reboot.machine.rolled_back import rolled_back
from agent.reboot.machine.verifying import verifying
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, NodeState, Verifying
from agent.reboot.status import StatusReason

# Each takes the class of its phase (state.CLASSES).
_BY_PHASE: Mapping[Phase, Callable[[Inputs, Any], Decision]] = {
    Phase.IDLE: idle,
    Phase.PENDING: pending,
    Phase.CORDONED: cordoned,
    Phase.DRAINING: draining,
    Phase.REBOOTING: rebooting,
    Phase.VERIFYING: verifying,
    Phase.RELEASING: releasing,
    Phase.ROLLED_BACK: rolled_back,
}
_RETRY_SECONDS = 3.0
_POLL_SECONDS = 300.0  # nothing to wait for but events; they wake the daemon


def decide(inputs: Inputs) -> Decision:
    """What to do next, and why. Never raises for anything that a cluster or a node may show."""
    if inputs.node is None:
        text = "the Node object does not exist"
        return Decision(Phase.UNKNOWN, StatusReason.API_UNREACHABLE, text, wait_seconds=_POLL_SECONDS)
    if inputs.state is None:
        text = f"the annotation reboot-state is malformed ({inputs.state_problem}); remove it to start from scratch"
        return Decision(
            Phase.UNKNOWN, StatusReason.STATE_UNREADABLE, text, wait_seconds=_POLL_SECONDS, blocked_by="unknown"
        )
    decision = _BY_PHASE[inputs.state.phase](inputs, inputs.state)
    if _needs_no_lock(inputs.state, decision):
        return decision
    if inputs.lock_problem:
        text = f"the lock cannot be read: {inputs.lock_problem}"
        return Decision(inputs.state.phase, StatusReason.API_UNREACHABLE, text, wait_seconds=_RETRY_SECONDS)
    if inputs.spare is not None:
        text = "releasing a second slot of the lock"
        return Decision(Phase.LOCKED, StatusReason.RELEASING, text, Release(inputs.spare))
    return decision


def _needs_no_lock(state: NodeState, decision: Decision) -> bool:
    """All that may be done while the lock is unknown: verify, end the cycle, or leave the cordon to its new owner."""
    if isinstance(state, Verifying) or decision.action == Fetch(Query.SHUTDOWN):
        return True
    if not isinstance(decision.action, Write):
        return False
    after = decision.action.state
    if isinstance(after, Attempt) and not isinstance(after, Verifying):
        return isinstance(state, Attempt) and state.cordoned > after.cordoned
    return True
