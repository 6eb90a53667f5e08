"""What ends a cycle between the cordon and the command, and the hooks around the drain: shared by its phases. Pure.

Deadlines come before anything that may be refused: whatever the API server forbids, a cordon of ours has an end.
"""

from __future__ import annotations

from agent.config.schema import Hook
from agent.reboot.interfaces import HookStage
from agent.reboot.machine import announcements
from agent.reboot.machine.decisions import Decision, Renew, StepHooks, Write, duration
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.rollback import roll_back, stopped_by
from agent.reboot.machine.transitions import elapsed_in, enter
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, Verifying
from agent.reboot.status import StatusReason

_HOOK_POLL_SECONDS = 2.0


def interrupted(
    inputs: Inputs, state: Attempt, limit_seconds: float, expired: Decision | None = None
) -> Decision | None:
    """Another boot, a lost lock, a user's change, the phase's deadline, then a renewal that is due.

    expired: what the phase decides when a deadline of its own is over.
    """
    if state.boot != inputs.now.boot:
        return came_back(inputs, state)
    if (stopped := stopped_by(inputs, state)) is not None:
        return stopped
    if expired is not None:
        return expired
    if elapsed_in(inputs, state) > limit_seconds:
        return roll_back(inputs, state, f"phase {state.phase.value} took longer than {duration(limit_seconds)}")
    if inputs.mine is not None and inputs.renew_due:
        reason = StatusReason.CORDONED if state.phase is Phase.CORDONED else StatusReason.DRAINING
        return Decision(state.phase, reason, "renewing the lock", Renew(inputs.mine))
    return None


def came_back(inputs: Inputs, state: Attempt) -> Decision:
    """Another boot id: the node did reboot, whoever asked for it."""
    text = "another boot id; verifying"
    verify, late = Write(enter(inputs, state, Verifying)), announcements.back_late(inputs, state)
    return Decision(Phase.REBOOTING, StatusReason.VERIFYING, text, verify, announcements=late)


def hooks_of(inputs: Inputs, state: Attempt, stage: HookStage, hooks: tuple[Hook, ...]) -> Decision | None:
    """None when the stage has nothing more to do."""
    if not hooks:
        return None
    progress = inputs.hooks.get(stage)
    if progress is not None and progress.done:
        return None
    if progress is not None and progress.error:
        return roll_back(inputs, state, f"a {stage.value} hook failed: {progress.error}")
    reason = StatusReason.CORDONED if state.phase is Phase.CORDONED else StatusReason.DRAINED
    text = f"running the {stage.value} hooks"
    return Decision(state.phase, reason, text, StepHooks(stage), wait_seconds=_HOOK_POLL_SECONDS)


def renewal_seconds(inputs: Inputs) -> float:
    """The longest sleep that still renews the Lease in time."""
    return inputs.policy.lock.lease_duration / 6


def hooks_seconds(hooks: tuple[Hook, ...]) -> float:
    """How long a stage's hooks may take altogether."""
    return sum(hook.timeout for hook in hooks)
