"""What holds a pending reboot back: opt-out, an unknown sentinel, the minimum gap, hardening, blockers, budget. Pure.

A Decision with a Fetch is a question; any other Decision is an answer; None means that nothing holds it back.
"""

from __future__ import annotations

from agent.reboot.interfaces import BlockerResult
from agent.reboot.machine.decisions import Decision, Fetch, Query
from agent.reboot.machine.inputs import Inputs, Slot
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason

POLL_SECONDS = 300.0


def known_blocker(inputs: Inputs) -> Decision | None:
    """What is known without a request."""
    if inputs.skip:
        return _blocked("skip", StatusReason.OPTED_OUT, f"opted out: {inputs.skip}")
    if not inputs.required:
        text = f"unknown whether a reboot is required: {inputs.sentinel.problem}"
        return _blocked("unknown", StatusReason.SENTINEL_UNKNOWN, text)
    if inputs.node is not None and inputs.node.removal:
        text = f"the node is about to be removed ({inputs.node.removal})"
        return _blocked("removal", StatusReason.BLOCKED, text)
    if inputs.gap_seconds > 0:
        return _blocked("gap", StatusReason.MINIMUM_GAP, "minimum gap after the pool's last reboot", inputs.gap_seconds)
    return None


def held_back(inputs: Inputs) -> Decision | None:
    """The above, the hardening and the configured blockers."""
    if (known := known_blocker(inputs)) is not None:
        return known
    if inputs.hardening is None:
        return _fetch(Query.HARDENING, "reading the hardening status")
    if inputs.hardening.verified is None:
        text = f"unknown whether the node is hardened: {inputs.hardening.problem}"
        return _blocked("unknown", StatusReason.HARDENING_UNKNOWN, text)
    if inputs.blockers is None:
        return _fetch(Query.BLOCKERS, "checking the blockers")
    return blocked_by(inputs.blockers) if inputs.blockers.blocked else None


def over_budget(inputs: Inputs, slot: Slot) -> Decision | None:
    """The pool's maxUnavailable and the slots that may be used."""
    if inputs.budget is None:
        return _fetch(Query.BUDGET, "counting the pool's unavailable nodes")
    if not inputs.budget.fits or slot.index >= inputs.budget.slots:
        return _blocked("budget", StatusReason.MAX_UNAVAILABLE, f"blocked by {inputs.budget.why}")
    return None


def forbidden(inputs: Inputs, slot: Slot) -> Decision | None:
    """A Lease that can be created but not patched could never be renewed or released."""
    if slot.view.version:
        return None
    if inputs.may_patch_lock is None:
        return _fetch(Query.LOCK_RIGHTS, "checking the rights on the lock")
    if not inputs.may_patch_lock:
        text = f"RBAC does not allow to patch the lock: leases {slot.view.name}"
        return _blocked("forbidden", StatusReason.LOCK_FORBIDDEN, text)
    return None


def refused_cordon(inputs: Inputs) -> Decision | None:
    """A cordon that RBAC or admission refuses: the lock would be held without an end, and the pool would wait."""
    if not inputs.cordon_refused:
        return None
    return _blocked("forbidden", StatusReason.BLOCKED, f"the cordon is refused: {inputs.cordon_refused}")


def blocked_by(result: BlockerResult) -> Decision:
    """A blocker's answer as a decision."""
    return _blocked(result.name, result.reason, f"blocked by {result.by}", result.again_seconds)


def as_result(decision: Decision) -> BlockerResult:
    """And the other way round: kept as what the last attempt came to nothing for."""
    seconds = decision.postpone_seconds
    return BlockerResult(True, decision.sentence, seconds, name=decision.blocked_by, reason=decision.reason)


def _fetch(query: Query, text: str) -> Decision:
    return Decision(Phase.WAITING, StatusReason.ACQUIRING_LOCK, text, Fetch(query))


def _blocked(name: str, reason: StatusReason, sentence: str, again_seconds: float = 0.0) -> Decision:
    return Decision(
        Phase.BLOCKED,
        reason,
        sentence,
        wait_seconds=min(again_seconds, POLL_SECONDS) if again_seconds > 0 else POLL_SECONDS,
        blocked_by=name,
        postpone=True,
        postpone_seconds=again_seconds,
    )
