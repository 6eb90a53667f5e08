"""The rollout over a thousand nodes in simulated time; see tests/support/rollout_simulation.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.rollout.decision import Order, Verdict
from tests.support.rollout_simulation import SOAK, World, schedule


@pytest.mark.parametrize("seed", range(40))
def test_random_schedules_keep_the_invariants(seed: int) -> None:
    """Never a policy that a canary is known to have refused; never held back without an Event."""
    schedule(seed, nodes=60)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_thousand_nodes_keep_them_too(seed: int) -> None:
    schedule(seed)


def test_a_good_policy_reaches_a_thousand_nodes_with_few_requests_after_the_soak_time() -> None:
    world = World(1)
    world.run(300)
    policy = world.change(bad=0.0)
    world.run(SOAK - 60)
    assert {one.running for one in world.nodes.values() if not one.is_canary} == {"0" * 12}
    world.run(1200)
    assert {one.accepted for one in world.nodes.values()} == {policy}
    assert max(one.looks for one in world.nodes.values()) <= 8
    assert not any(one.events for one in world.nodes.values())


def test_a_bad_policy_stays_on_the_canaries_with_one_event_each_and_few_requests() -> None:
    world = World(1, nodes=200)
    world.run(300)
    policy = world.change(bad=1.0)
    world.run(6 * 3600)
    others = [one for one in world.nodes.values() if not one.is_canary]
    assert {one.running for one in others} == {"0" * 12}
    assert not any(one.events for one in others)
    assert all(len(one.events) == 1 for one in world.canaries())
    # A look is two requests, at most every five to ten minutes once the back-off has grown.
    assert world.requests <= len(world.nodes) * 2 * (6 * 12 + 8)
    world.orders[policy] = Order.ABORT
    world.run(1300)
    assert {one.running for one in world.nodes.values()} == {"0" * 12}
    world.orders[policy] = Order.PROMOTE
    world.run(1300)
    assert {one.accepted for one in world.nodes.values()} == {policy}


def test_a_refusal_that_no_node_saw_when_it_happened_still_counts() -> None:
    """The API server is away until the canary has recovered: its report has to hold what it found."""
    world = World(1, nodes=50)
    world.run(300)
    world.away_until = world.now + 1200
    world.change(bad=1.0)
    world.run(600)
    world.heal()
    world.run(6 * 3600)
    assert {one.running for one in world.nodes.values() if not one.is_canary} == {"0" * 12}


def test_a_canary_that_reports_nothing_holds_the_others_with_an_event_each() -> None:
    world = World(1, nodes=50)
    world.run(300)
    world.silence()
    world.change(bad=0.0)
    world.run(6 * 3600)
    others = [one for one in world.nodes.values() if not one.is_canary]
    assert {one.running for one in others} == {"0" * 12}
    assert {tuple(what for _, what in one.events) for one in others} == {("PolicyRolloutStuck",)}


def test_nothing_is_requested_while_nothing_is_held_back() -> None:
    world = World(2)
    world.run(86400)
    assert world.requests == 0


def test_a_canary_that_lies_holds_the_others_for_the_soak_time_at_least_and_never_for_good() -> None:
    """It can stop a rollout, which a user promotes; it cannot shorten one that another canary has to verify."""
    world = World(5, nodes=50)
    world.run(300)
    policy = world.change(bad=0.0)
    world.run(300)
    liar = next(world.canaries())
    liar.own = replace(liar.own, revision=policy, verdict=Verdict.FAILED, since=4e9)
    world.run(7200)
    assert {one.running for one in world.nodes.values() if not one.is_canary} == {"0" * 12}
    world.orders[policy] = Order.PROMOTE
    world.run(1300)
    assert {one.accepted for one in world.nodes.values()} == {policy}
