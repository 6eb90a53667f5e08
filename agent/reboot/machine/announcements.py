"""The Events of a cycle, made from the written state: equal steps give equal keys. Pure; nothing here sends.

Each process announces what the last written step means before it continues, so that a crash between the step and its
Event loses nothing; the key makes a repetition harmless.
"""

from __future__ import annotations

import re
from dataclasses import replace

from agent.event_reasons import Reason
from agent.reboot.cluster import LeaseView
from agent.reboot.interfaces import Announcement
from agent.reboot.machine.decisions import duration
from agent.reboot.machine.inputs import Inputs, Slot
from agent.reboot.phases import Phase
from agent.reboot.state import (
    Attempt,
    Cordoned,
    Cycle,
    Draining,
    Finished,
    NodeState,
    Outcome,
    Pending,
    Rebooting,
    Releasing,
    RolledBack,
    Verifying,
)

_KERNEL_PACKAGE = re.compile(r"\b(linux-image|linux-base|kernel)\b")


def blocked(state: Cycle, name: str, by: str) -> Announcement:
    """Something holds the reboot back; once a blocker and cycle."""
    return _node(state, Reason.REBOOT_BLOCKED, f"The reboot waits: {by}", name)


def held(state: NodeState, name: str, by: str) -> Announcement:
    """The same before a cycle begins, once a blocker after each cycle."""
    ended = f"{state.done.wall:.0f}" if state.done else "never"
    return Announcement(Reason.REBOOT_BLOCKED, f"The reboot waits: {by}", f"{ended}-{Reason.REBOOT_BLOCKED}-{name}")


def acquired(state: Cycle, lease: LeaseView) -> tuple[Announcement, ...]:
    """The lock is ours; how it was acquired."""
    reason, what = Reason.REBOOT_LOCK_ACQUIRED, "acquired the lock"
    if lease.taken_from:
        reason, what = Reason.REBOOT_LOCK_TAKEN_OVER, f"took the lock over from {lease.taken_from}"
    text = f"{lease.holder.rpartition('/')[0]} {what}"
    return (_lease(state, lease.name, reason, text, f"{lease.name}-{lease.transitions}"),)


def drain_blocked(state: Cycle, by: str) -> Announcement:
    """One refusing disruption budget, or one misconfiguration."""
    return _node(state, Reason.DRAIN_BLOCKED, f"The drain waits: {by}", by)


def rebooting(state: Cycle) -> Announcement:
    """The last one before the command."""
    return _node(state, Reason.REBOOTING, "Rebooting" + (f" ({state.packages})" if state.packages else ""))


def released(inputs: Inputs, state: Finished) -> tuple[Announcement, ...]:
    """The lock was read and is not ours any more; nothing when it was lost before, or never ours."""
    if state.lost or not state.lease or not inputs.is_lock_lost:
        return ()
    return (_lease(state, state.lease, Reason.REBOOT_LOCK_RELEASED, "The lock is released"),)


def released_unused(state: Cycle, lease: LeaseView, why: str) -> Announcement:
    """The lock was acquired, and released before anything was done."""
    detail = f"{lease.name}-{lease.transitions}"
    return _lease(state, lease.name, Reason.REBOOT_LOCK_RELEASED, f"The lock is released unused: {why}", detail)


def key_refused(cycle: str, kind: str, key: str, why: str) -> Announcement:
    """A key of nodeLabels or nodeAnnotations that the end of the cycle leaves as it is."""
    text = f"The {kind} {key} of the policy is left as it is: {why}"
    return Announcement(Reason.NODE_KEY_REFUSED, text, f"{cycle}-{Reason.NODE_KEY_REFUSED}-{kind}-{key}")


def stuck(inputs: Inputs, slot: Slot) -> tuple[Announcement, ...]:
    """Only the node that marked the Lease announces it."""
    if inputs.node is None or slot.view.stuck != inputs.node.name:
        return ()
    return _stuck(slot, f"{slot.holder} holds the lock, went down to reboot and did not come back; the pool waits")


def back_late(inputs: Inputs, state: Attempt) -> tuple[Announcement, ...]:
    """The holder announces it itself where no other node waited: in a pool of one, and at the end of a roll."""
    mine, away_seconds = inputs.mine, inputs.now.wall - state.entered.wall
    limit_seconds = inputs.policy.reboot_timeout + inputs.policy.verify_timeout
    if not isinstance(state, Rebooting) or mine is None or mine.view.stuck or away_seconds <= limit_seconds:
        return ()
    return _stuck(mine, f"{mine.holder} went down to reboot and came back after {duration(away_seconds)}; verifying")


def _stuck(slot: Slot, text: str) -> tuple[Announcement, ...]:
    lease = slot.view
    key = f"{lease.name}-{lease.cycle}-{lease.transitions}-stuck"
    return (Announcement(Reason.REBOOT_LOCK_STUCK, text, key, lease.name),)


def events_for_phase(state: NodeState, now_kernel: str) -> tuple[Announcement, ...]:
    """What the written state means by itself."""
    match state:
        case Pending():
            why = f"requested: {state.requested}" if state.requested else state.packages
            return (_node(state, Reason.REBOOT_REQUIRED, "A reboot is required" + (f" ({why})" if why else "")),)
        case Cordoned() | Draining():
            return (_node(state, Reason.NODE_CORDONED, "Cordoned for the reboot"),) if state.cordoned else ()
        case Rebooting():
            return (_drained(state),)
        case Verifying():
            return _verifying(state)
        case RolledBack():
            return (_node(state, Reason.REBOOT_FAILED, state.error), *_uncordoned(state))
        case Releasing() if state.outcome is Outcome.SUCCEEDED:
            return (_succeeded(state, now_kernel), *_uncordoned(state))
        case Releasing():
            return _uncordoned(state)
        case _:
            return ()


def _drained(state: Rebooting) -> Announcement:
    """The node is empty, or as empty as the policy wants it."""
    slowest = f", slowest {state.slowest}" if state.slowest else ""
    left = f", {state.left} left past the deadline" if state.left else ""
    return _node(state, Reason.DRAINED, f"Drained: {state.pods} pods{left}{slowest}")


def _verifying(state: Verifying) -> tuple[Announcement, ...]:
    """The reboot, where the agent gave the command; RebootFailed once verification takes too long."""
    commanded = any(phase is Phase.REBOOTING for phase, _ in state.marks)
    events = (rebooting(state),) if commanded else ()
    return (*events, _node(state, Reason.REBOOT_FAILED, state.error, "verification")) if state.error else events


def _uncordoned(state: Finished) -> tuple[Announcement, ...]:
    return (_node(state, Reason.NODE_UNCORDONED, "The agent's cordon is removed"),) if state.uncordoned else ()


def _succeeded(state: Releasing, now_kernel: str) -> Announcement:
    seconds = max(0.0, state.marks[-1][1] - state.marks[0][1]) if state.marks else 0.0
    kernels = f"kernel {state.kernel or 'unknown'} before, {now_kernel or 'unknown'} now"
    if state.kernel == now_kernel != "" and _KERNEL_PACKAGE.search(state.packages):
        kernels = (
            f"the kernel is still {now_kernel} although {state.packages} asked for the reboot: check the boot loader"
        )
    return _node(state, Reason.REBOOT_SUCCEEDED, f"Rebooted and verified in {duration(seconds)}; {kernels}")


def _node(state: Cycle, reason: Reason, message: str, detail: str = "") -> Announcement:
    return Announcement(reason, message, f"{state.cycle}-{reason}" + (f"-{detail}" if detail else ""))


def _lease(state: Cycle, name: str, reason: Reason, message: str, detail: str = "") -> Announcement:
    return replace(_node(state, reason, message, detail), lease=name)
