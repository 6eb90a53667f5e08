"""Which policy a node uses while a changed one is being rolled out. Pure: values and a clock in, values out.

A node that has a last policy never takes one that a canary refused, unless a user promotes it; a node without one takes
what there is, so that nothing here delays its first hardening. Every wait that a user has to end has an Event. Each
time is held against this node's own clock: a forged one neither shortens the soak time nor ends it in the future.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.config.groups import Rollout

MOST_CANARIES = 50
STUCK_SECONDS = 3600.0
_AHEAD_SECONDS = 300.0  # by which clocks may differ; a report from later than that could postpone the end at every poll
_BASELINE_LIMIT = 500
# With a finding that begins so the policy was not applied: it is never excused because it was there before.
_NOT_APPLIED = ("agent/", "policy/config")


class Verdict(StrEnum):
    """What a canary reports about the policy that it runs."""

    VERIFIED = "verified"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Phase(StrEnum):
    """How far the rollout is, as the condition's reason: stable codes."""

    CURRENT = "Current"
    WAITING = "WaitingForCanaries"
    SOAKING = "Soaking"
    FAILED = "CanaryFailed"
    NONE = "NoCanaries"
    MANY = "TooManyCanaries"
    ABORTED = "Aborted"


class Order(StrEnum):
    """What a user decided about a policy."""

    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Assessment:
    """A node's own verdict. revision: of the policy that it is about. since: epoch seconds of the verdict.

    failing: what did not pass in the last pass under an accepted policy; baseline: what did not when this one came.
    """

    revision: str = ""
    verdict: Verdict = Verdict.UNKNOWN
    since: float = 0.0
    failing: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """A policy that this node has and has not accepted. Times in epoch seconds of this node.

    since: when it was first seen here. unwell: when a canary was last seen that was not well. seen: the canaries then.
    refused_by: a canary that failed it. announced: the Event about being stuck was sent.
    """

    target: str
    since: float
    phase: Phase = Phase.WAITING
    unwell: float = 0.0
    seen: tuple[str, ...] = ()
    refused_by: str = ""
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Canary:
    """What a node that matches the selector reports. ready_since: 0 while it is not Ready."""

    name: str
    revision: str
    verdict: Verdict
    since: float
    ready_since: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One poll. more: there are canaries beside those listed. order: what a user decided about the pending policy."""

    canaries: tuple[Canary, ...]
    more: bool = False
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What follows. take: the pending policy is accepted. wait_seconds: until the soak time ends; None: it waits.

    waits_for: canaries that are not well; in the soak time the one that became so last. announce: this node is stuck,
    for an Event.
    """

    pending: Pending
    take: bool = False
    wait_seconds: float | None = None
    waits_for: tuple[str, ...] = ()
    announce: bool = False


def stage(
    pending: Pending | None, *, newest: str, accepted: str | None, rollout: Rollout, now: float
) -> Pending | None:
    """What is held back of a policy that was just read; None: it is accepted. newest, accepted: revisions."""
    if accepted in (None, newest) or rollout.urgent or not rollout.canary:
        return None
    return pending if pending is not None and pending.target == newest else Pending(newest, now)


def runs_pending(pending: Pending, *, is_canary: bool) -> bool:
    """Whether the node runs the policy that is being tried."""
    return is_canary and pending.phase is not Phase.ABORTED


def judge(
    before: Assessment, revision: str, *, failed: Collection[str], unknown: Collection[str], tried: bool, now: float
) -> Assessment:
    """The verdict after a pass under a policy: what failed under the last accepted one is not its fault.

    tried: it is not accepted yet, and a failure stays one until the policy changes. Something unknown is neither
    verified nor failed.
    """
    is_same = before.revision == revision
    baseline = before.baseline if is_same else before.failing
    new_failed, new_unknown = set(failed).difference(baseline), set(unknown).difference(baseline)
    verdict = Verdict.FAILED if new_failed else Verdict.UNKNOWN if new_unknown else Verdict.VERIFIED
    if is_same and tried and before.verdict is Verdict.FAILED:
        verdict = Verdict.FAILED
    since = before.since if is_same and verdict is before.verdict else now
    found = {*failed, *unknown}
    is_applied = not any(one.startswith(_NOT_APPLIED) for one in found)
    failing = tuple(sorted(found)[:_BASELINE_LIMIT]) if is_applied and not tried else before.failing
    return Assessment(revision, verdict, since, failing, baseline)


def decide(pending: Pending, soak_seconds: float, seen: Observation | None, now: float) -> Step:
    """What follows from a poll of the canaries; None: the API server did not answer, and nothing changes."""
    if seen is None:
        return Step(pending)
    if seen.order is Order.PROMOTE:
        return Step(pending, take=True)
    if seen.order is Order.ABORT or pending.phase is Phase.ABORTED:
        return Step(replace(pending, phase=Phase.ABORTED))
    names = tuple(sorted(one.name for one in seen.canaries))
    refused = next((one.name for one in seen.canaries if _refuses(one, pending)), pending.refused_by)
    waits_for = tuple(sorted(one.name for one in seen.canaries if not _is_well(one, pending, now)))
    gone = set(pending.seen).difference(names)
    unwell = now if waits_for or gone or not names else min(pending.unwell, now)
    pending = replace(pending, seen=names, refused_by=refused, unwell=unwell)
    held = (
        Phase.FAILED if refused else Phase.MANY if seen.more else Phase.NONE if not names
        else Phase.WAITING if waits_for else None
    )  # fmt: skip
    if held is not None:
        return _held(pending, held, waits_for, now - pending.since)
    begun = {one.name: min(max(one.since, one.ready_since), now) for one in seen.canaries}
    left = max(pending.since, unwell, *begun.values()) + soak_seconds - now
    if left <= 0:
        return Step(pending, take=True)
    latest = max(begun, key=lambda name: begun[name])
    step = _held(pending, Phase.SOAKING, (latest,), now - pending.since - soak_seconds)
    return replace(step, wait_seconds=left)


def _held(pending: Pending, phase: Phase, waits_for: tuple[str, ...], late_seconds: float) -> Step:
    """A canary that failed has sent its Event already."""
    is_stuck = phase is not Phase.FAILED and late_seconds >= STUCK_SECONDS and not pending.announced
    pending = replace(pending, phase=phase, announced=pending.announced or is_stuck)
    return Step(pending, waits_for=waits_for, announce=is_stuck)


def _refuses(canary: Canary, pending: Pending) -> bool:
    return canary.revision == pending.target and canary.verdict is Verdict.FAILED


def _is_well(canary: Canary, pending: Pending, now: float) -> bool:
    is_verified = canary.revision == pending.target and canary.verdict is Verdict.VERIFIED
    return is_verified and 0 < canary.ready_since <= now + _AHEAD_SECONDS >= canary.since
