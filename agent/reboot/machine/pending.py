"""Pending: a reboot is required. Blocked, waiting for the lock, or with the lock and about to cordon. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.config.choices import Mode, OnLostHolder
from agent.reboot.interfaces import Announcement
from agent.reboot.machine import announcements
from agent.reboot.machine.blocked import (
    POLL_SECONDS,
    blocked_by,
    forbidden,
    held_back,
    known_blocker,
    over_budget,
    refused_cordon,
)
from agent.reboot.machine.decisions import Acquire, Decision, Fetch, MarkStuck, Query, Release, Renew, Write
from agent.reboot.machine.inputs import Inputs, Slot
from agent.reboot.machine.transitions import enter, reset
from agent.reboot.phases import Phase
from agent.reboot.state import Cordoned, Pending, keys_of
from agent.reboot.status import StatusReason


def pending(inputs: Inputs, state: Pending) -> Decision:
    """What is no longer required is reverted first; then the lock."""
    mine = inputs.mine
    if mine is not None and (mine.view.cycle != state.cycle or mine.fenced):
        text = "releasing a lock of another cycle"
        return Decision(Phase.PENDING, StatusReason.RELEASING, text, Release(mine))
    if (ended := _ended(inputs, state)) is not None:
        return ended
    if state.taint != inputs.policy.prefer_no_schedule_taint:
        key = inputs.policy.prefer_no_schedule_taint
        write = Write(replace(state, taint=key), taint=key)
        return Decision(Phase.PENDING, StatusReason.ACQUIRING_LOCK, "the taint's key changed", write)
    if mine is None:
        return _without_lock(inputs, state)
    if inputs.renew_due:
        decision = Decision(Phase.LOCKED, StatusReason.ACQUIRING_LOCK, "renewing the lock", Renew(mine))
    else:
        decision = _with_lock(inputs, state, mine)
    return replace(decision, announcements=announcements.acquired(state, mine.view))


def _ended(inputs: Inputs, state: Pending) -> Decision | None:
    """No longer required, or no longer enforced: the lock and the state go."""
    mode = inputs.policy.mode
    if mode is not Mode.ENFORCE:
        reason, text = StatusReason.MODE_OFF, f"reboot.mode is {mode.value}"
        if mode is Mode.AUDIT:
            reason = StatusReason.WOULD_REBOOT
    elif inputs.not_required:
        reason, text = StatusReason.NOT_REQUIRED, "no longer required"
    else:
        return None
    if inputs.mine is not None:
        return Decision(Phase.PENDING, reason, f"{text}; releasing the lock", Release(inputs.mine))
    # As after a roll-back: a retry whose sentinel flickers is still one.
    calm = reset(state, failures=state.failures, last_cause=state.last_cause)
    return Decision(Phase.IDLE, reason, text, Write(calm))


def _with_lock(inputs: Inputs, state: Pending, mine: Slot) -> Decision:
    """Everything is checked again, now that no other node can begin."""
    blocker = refused_cordon(inputs) or held_back(inputs) or over_budget(inputs, mine)
    if blocker is not None:
        if isinstance(blocker.action, Fetch):
            return blocker
        released = announcements.released_unused(state, mine.view, blocker.sentence)
        return replace(
            blocker, action=Release(mine, announcement=released), sentence=f"{blocker.sentence}; releasing the lock"
        )
    node = inputs.node
    foreign = node is not None and node.unschedulable
    failing = inputs.hardening.failing if inputs.hardening is not None else 0
    labels, notes = inputs.policy.node_labels.before, inputs.policy.node_annotations.before
    begun = enter(
        inputs, state, Cordoned, requested=inputs.request, boot=inputs.now.boot, cordoned=not foreign,
        lease=mine.view.name, kernel=inputs.kernel, failing=failing, keys=keys_of(labels, notes),
    )  # fmt: skip
    text = "the node is cordoned by another user and stays so" if foreign else "cordoning the node"
    write = Write(begun, cordon=None if foreign else True, labels=labels, annotations=notes)
    return Decision(Phase.LOCKED, StatusReason.ACQUIRING_LOCK, text, write)


def _without_lock(inputs: Inputs, state: Pending) -> Decision:
    if (known := known_blocker(inputs)) is not None:
        # No request was made, so none has to be spaced; what ends by the clock ends for all nodes together.
        return replace(known, announcements=_blocked(state, known), postpone=known.postpone_seconds > 0)
    attempt = inputs.attempt
    if attempt.slot is None or not attempt.now:
        return _waiting(inputs, attempt.in_seconds)
    if not attempt.slot.free:
        if inputs.holder_gone is None:
            text = f"checking on the lock's holder {attempt.slot.holder}"
            return Decision(Phase.WAITING, StatusReason.WAITING_FOR_LOCK, text, Fetch(Query.HOLDER))
        if not _may_take_over(inputs, attempt.slot):
            return _lost_holder(inputs, attempt.slot)
    blocker = held_back(inputs) or forbidden(inputs, attempt.slot) or over_budget(inputs, attempt.slot)
    if blocker is not None:
        if isinstance(blocker.action, Fetch):
            return blocker
        return replace(blocker, announcements=_blocked(state, blocker))
    pool_size = inputs.budget.pool_size if inputs.budget else 0
    acquire = Acquire(attempt.slot, state.cycle, max(0.0, inputs.now.wall - state.since), pool_size)
    return Decision(Phase.WAITING, StatusReason.ACQUIRING_LOCK, "acquiring the lock", acquire)


def _blocked(state: Pending, blocker: Decision) -> tuple[Announcement, ...]:
    return (announcements.blocked(state, blocker.blocked_by, blocker.sentence),)


def _waiting(inputs: Inputs, in_seconds: float) -> Decision:
    wait = min(max(in_seconds, 0.0), POLL_SECONDS)
    attempt = inputs.attempt
    if attempt.slot is not None and attempt.slot.free:
        if attempt.refused is not None:
            # The same words as when it was refused: only the try is spaced.
            blocked = blocked_by(attempt.refused)
            return replace(blocked, sentence=attempt.refused.by, wait_seconds=wait, postpone=False)
        return Decision(Phase.WAITING, StatusReason.ACQUIRING_LOCK, "lock free; acquiring", wait_seconds=wait)
    busy = [slot for slot in inputs.slots if not slot.free]
    lost = [slot for slot in busy if slot.fenced and slot.unseen_seconds > _lost_after_seconds(inputs)]
    text = f"waiting for the lock held by {', '.join(slot.holder for slot in busy[:3])}"
    if lost:
        text += f"; {lost[0].holder} went down to reboot and did not come back"
    return Decision(
        Phase.WAITING,
        StatusReason.HOLDER_LOST if lost else StatusReason.WAITING_FOR_LOCK,
        text,
        wait_seconds=wait,
        holder=busy[0].holder if busy else "",
        announcements=tuple(event for slot in busy if slot.view.stuck for event in announcements.stuck(inputs, slot)),
    )


def _lost_after_seconds(inputs: Inputs) -> float:
    return inputs.policy.reboot_timeout + inputs.policy.verify_timeout


def _may_take_over(inputs: Inputs, slot: Slot) -> bool:
    """Of a Lease that this process has not seen change for its whole duration.

    A holder in phase held is fenced by its own compare-and-swap; one that may be rebooting is left alone unless its
    Node is gone permanently, or the policy gives it up after the timeouts.
    """
    if inputs.holder_gone:
        return True
    if not slot.fenced:
        return slot.unseen_seconds > inputs.policy.lock.lease_duration
    given_up = slot.unseen_seconds > _lost_after_seconds(inputs)
    return given_up and inputs.policy.lock.on_lost_holder is OnLostHolder.RELEASE


def _lost_holder(inputs: Inputs, slot: Slot) -> Decision:
    waiting = replace(_waiting(inputs, POLL_SECONDS), postpone=True)
    if slot.fenced and slot.unseen_seconds > _lost_after_seconds(inputs) and not slot.view.stuck:
        return replace(waiting, action=MarkStuck(slot))
    return waiting
