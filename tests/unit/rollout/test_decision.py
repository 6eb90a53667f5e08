"""What a node does with a changed policy, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config.groups import Rollout
from agent.config.selector import Selector, parse
from agent.rollout.decision import (
    STUCK_SECONDS,
    Assessment,
    Canary,
    Observation,
    Order,
    Pending,
    Phase,
    Verdict,
    decide,
    judge,
    runs_pending,
    stage,
)

OLD, NEW = "a" * 12, "b" * 12
CANARY = Rollout(canary=parse("canary=true"), soak=600.0)
WAITS = Pending(NEW, 1000.0)


def canary(name: str = "c1", **other: object) -> Canary:
    """One that verified the new policy at 1100 s."""
    return replace(Canary(name, NEW, Verdict.VERIFIED, 1100.0, 1.0), **other)  # type: ignore[arg-type]


def seen(*canaries: Canary, order: Order | None = None, more: bool = False) -> Observation:
    return Observation(canaries, more, order)


# -- what is held back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "rollout"),
    [
        (None, CANARY),  # a node without a last policy is hardened first
        (NEW, CANARY),
        (OLD, replace(CANARY, urgent=True)),
        (OLD, replace(CANARY, canary=Selector())),
    ],
)
def test_a_policy_is_taken_where_nothing_holds_it_back(accepted: str | None, rollout: Rollout) -> None:
    assert stage(None, newest=NEW, accepted=accepted, rollout=rollout, now=5.0) is None


def test_a_changed_policy_waits_and_a_second_change_waits_from_the_beginning() -> None:
    first = stage(None, newest=NEW, accepted=OLD, rollout=CANARY, now=1000.0)
    assert first == WAITS
    refused = replace(WAITS, refused_by="c1", phase=Phase.FAILED)
    assert stage(refused, newest=NEW, accepted=OLD, rollout=CANARY, now=2000.0) == refused
    assert stage(refused, newest="c" * 12, accepted=OLD, rollout=CANARY, now=2000.0) == Pending("c" * 12, 2000.0)
    assert stage(refused, newest=OLD, accepted=OLD, rollout=CANARY, now=2000.0) is None


def test_only_canaries_try_it_and_an_abort_brings_them_back() -> None:
    assert runs_pending(WAITS, is_canary=True)
    assert not runs_pending(WAITS, is_canary=False)
    assert not runs_pending(replace(WAITS, phase=Phase.ABORTED), is_canary=True)


# -- a look at the canaries --------------------------------------------------------------------------------------------


def test_it_is_taken_once_every_canary_has_verified_it_for_the_soak_time() -> None:
    second = canary("c2", since=1300.0)
    step = decide(WAITS, 600.0, seen(canary(), second), 1400.0)
    assert (step.take, step.pending.phase, step.wait_seconds) == (False, Phase.SOAKING, 500.0)
    assert decide(step.pending, 600.0, seen(canary(), second), 1900.0).take


@pytest.mark.parametrize(
    "bad",
    [
        canary("c2", revision=OLD),
        canary("c2", verdict=Verdict.UNKNOWN),
        canary("c2", ready_since=0.0),
        canary("c2", revision=""),
    ],
)
def test_a_canary_that_is_not_well_holds_it_and_begins_the_soak_time_again(bad: Canary) -> None:
    step = decide(WAITS, 600.0, seen(canary(), bad), 5000.0)
    assert (step.take, step.pending.phase, step.waits_for) == (False, Phase.WAITING, ("c2",))
    step = decide(step.pending, 600.0, seen(canary(), canary("c2")), 5100.0)
    assert (step.pending.phase, step.wait_seconds) == (Phase.SOAKING, 500.0)


def test_a_failure_stops_it_also_when_the_canary_recovers_or_is_gone() -> None:
    step = decide(WAITS, 600.0, seen(canary(), canary("c2", verdict=Verdict.FAILED)), 1200.0)
    assert (step.pending.phase, step.pending.refused_by, step.announce) == (Phase.FAILED, "c2", False)
    for later in (seen(canary(), canary("c2")), seen(canary())):
        step = decide(step.pending, 600.0, later, 99_000.0)
        assert (step.take, step.pending.phase) == (False, Phase.FAILED)


def test_a_failure_of_another_policy_is_none_of_this_one() -> None:
    step = decide(WAITS, 600.0, seen(canary(revision=OLD, verdict=Verdict.FAILED)), 1200.0)
    assert step.pending.phase is Phase.WAITING


def test_a_user_decides_over_everything() -> None:
    refused = replace(WAITS, refused_by="c1", phase=Phase.FAILED)
    assert decide(refused, 600.0, seen(order=Order.PROMOTE), 1200.0).take
    step = decide(refused, 600.0, seen(canary(), order=Order.ABORT), 1200.0)
    assert step.pending.phase is Phase.ABORTED
    step = decide(step.pending, 600.0, seen(canary()), 99_000.0)
    assert (step.take, step.pending.phase) == (False, Phase.ABORTED)
    assert decide(step.pending, 600.0, seen(order=Order.PROMOTE), 99_000.0).take


@pytest.mark.parametrize(
    ("look", "phase"),
    [(seen(), Phase.NONE), (seen(canary(), more=True), Phase.MANY), (seen(canary(revision=OLD)), Phase.WAITING)],
)
def test_what_only_a_user_can_end_is_announced_once(look: Observation, phase: Phase) -> None:
    step = decide(WAITS, 600.0, look, 1000.0 + STUCK_SECONDS - 1)
    assert (step.pending.phase, step.announce) == (phase, False)
    step = decide(step.pending, 600.0, look, 1000.0 + STUCK_SECONDS)
    assert step.announce
    assert not decide(step.pending, 600.0, look, 90_000.0).announce


def test_nothing_changes_while_the_api_server_is_away() -> None:
    step = decide(WAITS, 600.0, None, 90_000.0)
    assert (step.take, step.pending, step.wait_seconds) == (False, WAITS, None)


def test_a_canary_that_is_gone_begins_the_soak_time_again() -> None:
    step = decide(WAITS, 600.0, seen(canary(), canary("c2")), 1600.0)
    step = decide(step.pending, 600.0, seen(canary()), 1800.0)
    assert (step.take, step.wait_seconds) == (False, 600.0)


def test_a_forged_time_neither_shortens_nor_postpones_the_soak_time_forever() -> None:
    """It runs from this node's own first look at the policy at the earliest, and from now at the latest."""
    assert decide(WAITS, 600.0, seen(canary(since=0.0)), 1500.0).wait_seconds == 100.0
    assert decide(WAITS, 600.0, seen(canary(since=1600.0)), 1500.0).wait_seconds == 600.0
    for forged in (canary(since=4e9), replace(canary(), ready_since=4e9)):
        step = decide(WAITS, 600.0, seen(forged), 90_000.0)
        assert (step.pending.phase, step.waits_for, step.announce) == (Phase.WAITING, (forged.name,), True)


def test_a_canary_that_begins_the_soak_time_again_and_again_is_announced_by_name() -> None:
    pending, announced = WAITS, list[tuple[object, ...]]()
    for now in range(1000, 9000, 400):
        step = decide(pending, 600.0, seen(canary(), canary("again", since=now - 1.0)), now)
        pending = step.pending
        announced += [(now, *step.waits_for)] if step.announce else []
    assert announced == [(5400, "again")]


# -- the verdict -------------------------------------------------------------------------------------------------------


def verdict(before: Assessment, failed: set[str], unknown: set[str] = frozenset(), *, tried: bool = True) -> Assessment:  # type: ignore[assignment]
    return judge(before, NEW, failed=failed, unknown=unknown, tried=tried, now=50.0)


def test_what_failed_before_is_not_the_new_policys_fault() -> None:
    before = judge(Assessment(), OLD, failed={"x"}, unknown={"y"}, tried=False, now=1.0)
    assert before.verdict is Verdict.FAILED
    assert verdict(before, {"x"}, {"y"}).verdict is Verdict.VERIFIED
    assert verdict(before, {"x", "z"}).verdict is Verdict.FAILED
    assert verdict(before, set(), {"z"}).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("check", ["agent/pass", "agent/modprobe", "policy/config"])
def test_a_pass_that_could_not_apply_the_last_policy_excuses_nothing(check: str) -> None:
    """Neither the same for the next one, which says nothing about it, nor what the pass did not come to check."""
    before = judge(Assessment(), OLD, failed={"x"}, unknown=set(), tried=False, now=1.0)
    before = judge(before, OLD, failed=set(), unknown={check}, tried=False, now=2.0)
    assert verdict(before, set(), {check}).verdict is Verdict.UNKNOWN
    assert verdict(before, {"x"}).verdict is Verdict.VERIFIED


def test_a_failure_stays_one_while_the_policy_is_tried() -> None:
    failed = verdict(Assessment(), {"x"})
    assert verdict(failed, set()).verdict is Verdict.FAILED
    assert verdict(failed, set(), tried=False).verdict is Verdict.VERIFIED
    assert judge(failed, OLD, failed=set(), unknown=set(), tried=True, now=60.0).verdict is Verdict.VERIFIED


def test_what_a_refused_policy_broke_is_the_fault_of_the_next_one_too() -> None:
    """A correction that does not correct must not pass because the mistake was there before it."""
    before = judge(Assessment(), OLD, failed=set(), unknown=set(), tried=False, now=1.0)
    refused = verdict(before, {"x"})
    assert judge(refused, "c" * 12, failed={"x"}, unknown=set(), tried=True, now=60.0).verdict is Verdict.FAILED


def test_the_time_of_a_verdict_is_when_it_became_so() -> None:
    first = verdict(Assessment(), set())
    assert judge(first, NEW, failed=set(), unknown=set(), tried=True, now=90.0).since == 50.0
    assert judge(first, NEW, failed={"x"}, unknown=set(), tried=True, now=90.0).since == 90.0
