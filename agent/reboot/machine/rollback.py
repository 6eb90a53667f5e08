"""Ends an attempt before it is verified: what rolls it back or aborts it in every phase, and how that is written. Pure.

What ends one phase only (a drain past its deadline, a reboot command that failed) is in that phase's module.
"""

from __future__ import annotations

from agent.config.choices import Mode
from agent.reboot.machine.decisions import Decision, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.transitions import NOT_REBOOTED, drop_cordon_ownership, enter, owns_cordon, restore, result
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, Outcome, Releasing, RolledBack
from agent.reboot.status import StatusReason


def stopped_by(inputs: Inputs, state: Attempt) -> Decision | None:
    """What users, the policy or other nodes changed meanwhile."""
    if inputs.is_lock_lost:
        return roll_back(inputs, state, "the lock was lost")
    if inputs.node is not None and not inputs.node.unschedulable:
        return roll_back(inputs, state, "the node was uncordoned by another user")
    if inputs.skip:
        return abort(inputs, state, f"opted out: {inputs.skip}")
    if inputs.not_required:
        return abort(inputs, state, "no longer required")
    if inputs.policy.mode is not Mode.ENFORCE:
        return abort(inputs, state, f"reboot.mode is {inputs.policy.mode.value}")
    return drop_cordon_ownership(inputs, state)


def roll_back(inputs: Inputs, state: Attempt, error: str, *, cause: str = "") -> Decision:
    """The cycle failed: our cordon off, the failure and the back-off written down, all in one patch.

    cause: a stable word for what must not be tried again the same way: after a second time the drain is not repeated.
    """
    removes = owns_cordon(inputs, state)
    repeated = cause not in ("", NOT_REBOOTED) and cause == state.last_cause
    rolled = enter(
        inputs, state, RolledBack, failures=state.failures + 1, error=error, uncordoned=removes,
        lost=inputs.is_lock_lost, cause=cause, repeated=repeated,
    )  # fmt: skip
    write = restore(
        inputs, state, Write(rolled, cordon=False if removes else None, result=result(Outcome.FAILED, rolled))
    )
    return Decision(Phase.ROLLED_BACK, StatusReason.ROLLED_BACK, f"rolled back: {error}", write)


def abort(inputs: Inputs, state: Attempt, why: str) -> Decision:
    """Ended without anything having gone wrong."""
    removes = owns_cordon(inputs, state)
    aborted = enter(inputs, state, Releasing, error=why, uncordoned=removes, outcome=Outcome.ABORTED)
    write = restore(
        inputs, state, Write(aborted, cordon=False if removes else None, result=result(Outcome.ABORTED, aborted))
    )
    return Decision(Phase.RELEASING, StatusReason.ABORTED, f"aborted: {why}", write)
