"""Verifying: boot id on the Node, Ready, a fresh kubelet Lease, hardening, hooks; then the cordon goes. Pure.

It fails closed: a node that is not verified keeps its cordon and its lock and keeps trying, because a late recovery
should still succeed. The hardening has to be no worse than before the reboot: what did not pass before is reported,
not held against the node.
"""

from __future__ import annotations

from dataclasses import replace

from agent.reboot.interfaces import HookStage
from agent.reboot.machine.decisions import Decision, Fetch, Query, Renew, StepHooks, Write, duration
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.rollback import roll_back
from agent.reboot.machine.transitions import drop_cordon_ownership, succeed
from agent.reboot.phases import Phase
from agent.reboot.state import Stamp, Verifying
from agent.reboot.status import StatusReason

NO_HEARTBEAT = "the kubelet has not renewed its Lease"  # each verification begins with that
_POLL_SECONDS = 3.0
_HOOK_POLL_SECONDS = 2.0


def verifying(inputs: Inputs, state: Verifying) -> Decision:
    """From another boot id to the removed cordon."""
    if state.boot == inputs.now.boot:
        return roll_back(inputs, state, "the boot id is the old one again")
    if inputs.mine is not None and inputs.renew_due:
        return _decision("renewing the lock", Renew(inputs.mine))
    if (dropped := drop_cordon_ownership(inputs, state)) is not None:
        return dropped
    elapsed = state.entered.elapsed(inputs.now)
    if elapsed is None:
        return _decision("booted again; verifying", Write(replace(state, entered=Stamp.of(inputs.now))))
    missing = _missing(inputs, state)
    if isinstance(missing, Query):
        return _decision("verifying", Fetch(missing))
    if missing:
        return _unverified(inputs, state, missing, late=elapsed > inputs.policy.verify_timeout)
    return _hooks(inputs, state) or succeed(inputs, state)


def _missing(inputs: Inputs, state: Verifying) -> Query | str:
    """What is not verified yet, cheapest first; a Query when it has to be fetched."""
    node = inputs.node
    if node is None or node.boot_id != inputs.now.boot:
        return "the Node does not show the new boot id"
    if not node.ready:
        return "the Node is not Ready"
    hardening = inputs.hardening
    if hardening is None:
        return Query.HARDENING
    if hardening.verified is None:
        return f"hardening unknown: {hardening.problem}"
    if hardening.failing > state.failing:
        return f"the node is not hardened: {hardening.problem}"
    if inputs.heartbeat is None:
        return Query.HEARTBEAT
    return "" if inputs.heartbeat else NO_HEARTBEAT


def _hooks(inputs: Inputs, state: Verifying) -> Decision | None:
    if not inputs.policy.hooks.post_reboot:
        return None
    hook = inputs.hooks.get(HookStage.POST_REBOOT)
    if hook is not None and hook.done:
        return None
    failed = hook is not None and bool(hook.error)
    if hook is not None and failed and inputs.hooks_failed_seconds < inputs.policy.retry_after:
        return _unverified(inputs, state, f"a postReboot hook failed: {hook.error}", late=True)
    step = StepHooks(HookStage.POST_REBOOT, again=failed)
    return replace(_decision("running the postReboot hooks", step), wait_seconds=_HOOK_POLL_SECONDS)


def _unverified(inputs: Inputs, state: Verifying, missing: str, *, late: bool) -> Decision:
    """Waits; past the timeout reports it once, and keeps waiting with lock and cordon."""
    if late and not state.error:
        error = f"rebooted, but not verified within {duration(inputs.policy.verify_timeout)}: {missing}"
        write = Write(replace(state, error=error))
        return Decision(Phase.VERIFYING, StatusReason.VERIFICATION_FAILED, f"verification failed: {error}", write)
    if state.error:
        text = f"verification failed; still missing: {missing}"
        return Decision(Phase.VERIFYING, StatusReason.VERIFICATION_FAILED, text, wait_seconds=_POLL_SECONDS)
    until = state.entered.wall + inputs.policy.verify_timeout
    return replace(_decision(f"verifying: {missing}"), wait_seconds=_POLL_SECONDS, until=until)


def _decision(text: str, action: Renew | Write | Fetch | StepHooks | None = None) -> Decision:
    return Decision(Phase.VERIFYING, StatusReason.VERIFYING, text, action)
