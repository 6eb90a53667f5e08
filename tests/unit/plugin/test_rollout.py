"""Which revision of a policy is the newest: the plugin knows the policy, the nodes its profiles."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.plugin.commands.rollout import Fleet
from agent.rollout.decision import Phase

POLICY, OLD = "a" * 12, "b" * 12
ONE, TWO, THREE = (f"{POLICY}-{number * 8}" for number in "123")


def held(
    number: int, target: str, phase: Phase = Phase.WAITING, *, back: bool = True
) -> Counter[tuple[str, Phase, bool]]:
    return Counter({(target, phase, back): number})


@pytest.mark.parametrize(
    ("running", "targets", "newest"),
    [
        ({}, Counter(), POLICY),
        ({OLD: 9}, Counter(), POLICY),  # no node has seen it
        ({POLICY: 9}, Counter(), POLICY),  # no profiles
        ({ONE: 9, TWO: 1}, Counter(), ONE),
        ({ONE: 9}, held(8, TWO) + held(1, TWO, back=False), TWO),  # the profiles alone have changed
        ({ONE: 9}, held(8, TWO) + held(1, THREE), TWO),  # one node writes what it likes
        ({ONE: 9}, held(9, OLD), ONE),  # they wait for a policy that has been replaced
    ],
)
def test_the_newest_is_what_most_nodes_wait_for(
    running: dict[str, int], targets: Counter[tuple[str, Phase, bool]], newest: str
) -> None:
    assert Fleet(POLICY, Counter(running), targets).newest == newest


def test_nodes_that_wait_for_another_revision_are_counted_apart() -> None:
    fleet = Fleet(POLICY, Counter({ONE: 9}), held(5, TWO) + held(3, TWO, Phase.FAILED) + held(2, THREE))
    assert fleet.pending == {Phase.WAITING: 5, Phase.FAILED: 3}
    assert fleet.others == 2
    assert fleet.is_undecided


def test_a_canary_that_tries_it_is_undecided_and_holds_nothing_back() -> None:
    fleet = Fleet(POLICY, Counter({TWO: 1, ONE: 9}), held(1, TWO, back=False))
    assert not fleet.pending
    assert fleet.is_undecided
