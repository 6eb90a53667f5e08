"""The Events of a cycle, made from what is written down: equal steps give equal keys.

Each process says again what the last written step means before it goes on, so that a crash between the step and its
Event loses nothing; the key makes a repetition harmless. Nothing here sends.
"""

from __future__ import annotations

from agent.event_reasons import Reason
from agent.reboot.cluster import LeaseView
from agent.reboot.interfaces import About, Announcement, Outcome
from agent.reboot.machine.inputs import Inputs, Slot, duration
from agent.reboot.state import NodeState, Phase


def required(state: NodeState) -> Announcement:
    """The wish was written down."""
    why = f"asked for: {state.requested}" if state.requested else state.reason
    return _node(state, Reason.REBOOT_REQUIRED, "A reboot is required" + (f" ({why})" if why else ""))


def blocked(state: NodeState, name: str, by: str) -> Announcement:
    """Something holds the reboot back; said once a blocker and cycle."""
    return _node(state, Reason.REBOOT_BLOCKED, f"The reboot waits: {by}", name)


def acquired(state: NodeState, lease: LeaseView) -> tuple[Announcement, ...]:
    """The lock is ours; how we came by it."""
    detail = f"{lease.name}-{lease.transitions}"
    if lease.taken_from:
        text = f"{lease.holder.rpartition('/')[0]} took the lock over from {lease.taken_from}"
        return (_lease(state, lease.name, Reason.REBOOT_LOCK_TAKEN_OVER, text, detail),)
    text = f"{lease.holder.rpartition('/')[0]} has the lock"
    return (_lease(state, lease.name, Reason.REBOOT_LOCK_ACQUIRED, text, detail),)


def cordoned(state: NodeState) -> tuple[Announcement, ...]:
    """Only a cordon of ours is told."""
    return (_node(state, Reason.NODE_CORDONED, "Cordoned for the reboot"),) if state.cordoned else ()


def drain_blocked(state: NodeState, by: str) -> Announcement:
    """One refusing disruption budget, or one misconfiguration."""
    return _node(state, Reason.DRAIN_BLOCKED, f"The drain waits: {by}", by)


def drained(state: NodeState) -> Announcement:
    """The node is empty, or as empty as the policy wants it."""
    slowest = f", slowest {state.slowest}" if state.slowest else ""
    behind = f", {state.left} left behind past the deadline" if state.left else ""
    return _node(state, Reason.DRAINED, f"Drained: {state.pods} pods{behind}{slowest}")


def rebooting(state: NodeState) -> Announcement:
    """The last word before the command."""
    return _node(state, Reason.REBOOTING, "Rebooting" + (f" ({state.reason})" if state.reason else ""))


def failed(state: NodeState, detail: str = "") -> Announcement:
    """The one RebootFailed of a cycle's roll-back, or of a proof that takes too long."""
    return _node(state, Reason.REBOOT_FAILED, state.error, detail)


def uncordoned(state: NodeState) -> Announcement:
    """Our cordon is lifted."""
    return _node(state, Reason.NODE_UNCORDONED, "The cordon that the agent set is lifted")


def succeeded(state: NodeState, now_kernel: str, seconds: float) -> Announcement:
    """The proof holds."""
    return _node(
        state,
        Reason.REBOOT_SUCCEEDED,
        f"Rebooted and proved well in {duration(seconds)}; kernel {state.kernel or 'unknown'} before, {now_kernel} now",
    )


def released(state: NodeState) -> tuple[Announcement, ...]:
    """The lock is free again; nothing when it was lost or never ours."""
    if state.lost or not state.lease:
        return ()
    return (_lease(state, state.lease, Reason.REBOOT_LOCK_RELEASED, "The lock is released"),)


def given_back(state: NodeState, lease: LeaseView, why: str) -> Announcement:
    """The lock was taken, and given back before anything was done."""
    detail = f"{lease.name}-{lease.transitions}"
    return _lease(state, lease.name, Reason.REBOOT_LOCK_RELEASED, f"The lock is released unused: {why}", detail)


def stuck(seen: Inputs, slot: Slot) -> tuple[Announcement, ...]:
    """Only who marked the lease says it."""
    if seen.node is None or slot.view.stuck != seen.node.name:
        return ()
    text = f"{slot.holder} holds the lock, went down to reboot and did not come back; the pool waits"
    name = slot.view.name
    return (Announcement(Reason.REBOOT_LOCK_STUCK, text, f"{name}-{slot.view.transitions}-stuck", About.LEASE, name),)


def events_for_phase(state: NodeState, now_kernel: str) -> tuple[Announcement, ...]:
    """What the written step means by itself."""
    match state.phase:
        case Phase.WANTED:
            return (required(state),)
        case Phase.CORDONED | Phase.DRAINING:
            return cordoned(state)
        case Phase.REBOOTING:
            return (drained(state),)
        case Phase.VERIFYING:
            said = (rebooting(state),) if _was_commanded(state) else ()
            return (*said, failed(state, "proof")) if state.error else said
        case Phase.FAILED:
            return (failed(state), *((uncordoned(state),) if state.uncordoned else ()))
        case Phase.RELEASING:
            told = (uncordoned(state),) if state.uncordoned else ()
            if state.outcome is Outcome.SUCCEEDED:
                return (succeeded(state, now_kernel, _seconds(state)), *told)
            return told
        case _:
            return ()


def _was_commanded(state: NodeState) -> bool:
    return any(name == Phase.REBOOTING for name, _ in state.marks)


def _seconds(state: NodeState) -> float:
    return max(0.0, state.marks[-1][1] - state.marks[0][1]) if state.marks else 0.0


def _node(state: NodeState, reason: Reason, message: str, detail: str = "") -> Announcement:
    return Announcement(reason, message, f"{state.cycle}-{reason}" + (f"-{detail}" if detail else ""))


def _lease(state: NodeState, name: str, reason: Reason, message: str, detail: str = "") -> Announcement:
    key = f"{state.cycle}-{reason}" + (f"-{detail}" if detail else "")
    return Announcement(reason, message, key, About.LEASE, name)
