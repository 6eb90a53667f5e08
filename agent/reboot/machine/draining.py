"""Draining: empties the node, to the deadline and what the policy requires then; after that the last checks. Pure.

A check after the drain never counts what the drain itself caused: only what is new and not ours blocks, and a blocker
that became unreachable keeps its answer of before the drain, for as long as the drain may take.
"""

from __future__ import annotations

from dataclasses import replace

from agent.config.choices import OnTimeout
from agent.reboot.interfaces import Announcement, DrainMode, HookStage
from agent.reboot.machine import announcements
from agent.reboot.machine.decisions import Decision, Fetch, Query, StepDrain, Write, duration
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.interruptions import hooks_of, hooks_seconds, interrupted, renewal_seconds
from agent.reboot.machine.rollback import roll_back
from agent.reboot.machine.transitions import elapsed_in, enter
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, Draining, Rebooting
from agent.reboot.status import StatusReason

_CHECK_AGAIN_SECONDS = 15.0


def draining(inputs: Inputs, state: Draining) -> Decision:
    """From the first eviction to the state `rebooting`."""
    policy = inputs.policy
    limit = 2 * policy.drain.timeout + policy.delay + hooks_seconds(policy.hooks.pre_reboot) + policy.drain.timeout
    if (ended := interrupted(inputs, state, limit, _expired(inputs, state))) is not None:
        return ended
    progress = inputs.progress
    late = elapsed_in(inputs, state) > policy.drain.timeout
    if progress is None or not progress.done:
        if not late:
            return _step(inputs, state, DrainMode.EVICT)
        if policy.drain.on_timeout is OnTimeout.DELETE:
            return _step(inputs, state, DrainMode.DELETE)
    return _drained(inputs, state)


def _expired(inputs: Inputs, state: Draining) -> Decision | None:
    """The drain's own deadline, by `onTimeout`."""
    progress, drain = inputs.progress, inputs.policy.drain
    if progress is not None and progress.done:
        return None
    elapsed = elapsed_in(inputs, state)
    left = progress.left_text if progress is not None else ""
    if drain.on_timeout is OnTimeout.ABORT and elapsed > drain.timeout:
        text = f"the drain did not end within {duration(drain.timeout)}{left}"
        return roll_back(inputs, state, text)
    if drain.on_timeout is OnTimeout.DELETE and elapsed > 2 * drain.timeout:
        return roll_back(inputs, state, f"pods are still there although they were deleted{left}")
    return None


def _step(inputs: Inputs, state: Draining, mode: DrainMode) -> Decision:
    progress = inputs.progress
    text, reason, blocked = "draining", StatusReason.DRAINING, ""
    events: tuple[Announcement, ...] = ()
    wait = _CHECK_AGAIN_SECONDS
    if progress is not None:
        text = f"draining: {progress.total - progress.left} of {progress.total} done{progress.left_text}"
        refusals = (*progress.blocked_by, *progress.misconfigured)
        events = tuple(announcements.drain_blocked(state, by) for by in refusals)
        if refusals:
            reason, blocked = StatusReason.DRAIN_BLOCKED, "drain"
        wait = progress.wait_seconds
    if mode is DrainMode.DELETE:
        text = f"{text}; past drain.timeout, deleting"
    begins_to_delete = mode is DrainMode.DELETE and progress is not None and progress.mode is not mode
    is_due = inputs.drain_due or begins_to_delete
    limit = inputs.policy.drain.timeout * (2 if mode is DrainMode.DELETE else 1)
    return Decision(
        Phase.DRAINING,
        reason,
        text,
        StepDrain(mode) if is_due else None,
        wait_seconds=0.0 if is_due else min(wait, renewal_seconds(inputs)),
        until=state.entered.wall + limit,
        blocked_by=blocked,
        announcements=events,
    )


def _drained(inputs: Inputs, state: Draining) -> Decision:
    """Empty: delay, hooks, then everything that may still block. What blocks for too long ends the cycle."""
    policy, progress = inputs.policy, inputs.progress
    empty = progress is not None and progress.done
    elapsed = elapsed_in(inputs, state)
    rest = policy.delay - (inputs.drained_seconds if empty else elapsed - policy.drain.timeout)
    if rest > 0:
        text = "drained; reboots after reboot.delay"
        wait = min(rest, renewal_seconds(inputs))
        return Decision(Phase.DRAINING, StatusReason.DRAINED, text, wait_seconds=wait, until=inputs.now.wall + rest)
    if (hooked := hooks_of(inputs, state, HookStage.PRE_REBOOT, policy.hooks.pre_reboot)) is not None:
        return hooked
    if (question := last_question(inputs)) is not None:
        return question
    if (blocker := last_blocker(inputs, state)) is not None:
        if elapsed > 2 * policy.drain.timeout:
            return roll_back(inputs, state, f"drained, but {blocker.sentence}", cause=blocker.blocked_by)
        text = f"drained, but {blocker.sentence}"
        events = (announcements.blocked(state, blocker.blocked_by, blocker.sentence),)
        wait = min(_CHECK_AGAIN_SECONDS, renewal_seconds(inputs))
        return replace(blocker, sentence=text, wait_seconds=wait, announcements=events)
    going = enter(inputs, state, Rebooting, requested=inputs.request)
    if progress is not None:
        going = replace(going, pods=progress.evicted, left=progress.left, slowest=progress.slowest)
    return Decision(Phase.DRAINING, StatusReason.DRAINED, "drained; rebooting", Write(going))


def last_question(inputs: Inputs) -> Decision | None:
    """What has to be fetched before `last_blocker` can answer."""
    for value, query in ((inputs.hardening, Query.HARDENING), (inputs.late_blockers, Query.LATE_BLOCKERS)):
        if value is None:
            return Decision(Phase.DRAINING, StatusReason.DRAINED, "drained; checking the blockers", Fetch(query))
    return None


def last_blocker(inputs: Inputs, state: Attempt) -> Decision | None:
    """What blocks after the drain, as a decision without an action."""
    if not inputs.required:
        text = f"unknown whether a reboot is required: {inputs.sentinel.problem}"
        return Decision(Phase.DRAINING, StatusReason.SENTINEL_UNKNOWN, text, blocked_by="unknown")
    if inputs.hardening is not None and inputs.hardening.verified is None:
        text = f"unknown whether the node is hardened: {inputs.hardening.problem}"
        return Decision(Phase.DRAINING, StatusReason.HARDENING_UNKNOWN, text, blocked_by="unknown")
    late = inputs.late_blockers
    if late is None or not late.blocked:
        return None
    if late.unknown and elapsed_in(inputs, state) <= inputs.policy.drain.timeout:
        return None  # it did not block before the drain, and may be what the drain evicted
    return Decision(Phase.DRAINING, late.reason, f"blocked by {late.by}", blocked_by=late.name)
