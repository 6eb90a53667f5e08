"""The drain's ledger: who is tried when, so that a refusal costs little and nobody is forgotten."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.reboot.drain.eviction_queue import FINAL_SECONDS, EvictionQueue
from agent.reboot.drain.filters import Pod
from agent.reboot.drain.pdb import Budget

BUDGET = Budget("shop", "web", selector={"matchLabels": {"app": "web"}})


def some(count: int, app: str = "web") -> dict[str, Pod]:
    return {f"{app}{number}": Pod("shop", f"{app}-{number}", f"{app}{number}", {"app": app}) for number in range(count)}


def ledger_of(going: dict[str, Pod], now: float = 0.0) -> EvictionQueue:
    ledger = EvictionQueue(random.Random(1))
    ledger.update(going, now)
    return ledger


def tries(ledger: EvictionQueue, now: float) -> list[str]:
    """Everything that is due now, each refused by the budget."""
    found = []
    while (entry := ledger.next_to_evict(now)) is not None:
        entry.asked(now)
        ledger.refused(entry, BUDGET, now, None)
        found.append(entry.pod.uid)
    return found


def test_a_budget_is_asked_once_however_many_pods_it_holds() -> None:
    """A hundred pods under one exhausted budget cost one request each five seconds, by turns."""
    ledger = ledger_of(some(100))
    assert tries(ledger, 0.0) == ["web0"]
    assert tries(ledger, 4.9) == []
    later = [uid for now in range(7, 707, 7) for uid in tries(ledger, float(now))]
    assert len(later) <= 100
    assert len(set(later)) == len(later)


def test_a_budget_that_lets_one_go_is_asked_for_the_next_at_once() -> None:
    """Until it refuses again."""
    going = some(5)
    ledger = ledger_of(going)
    tries(ledger, 0.0)
    gone = []
    for _ in range(3):
        entry = ledger.next_to_evict(10.0)
        assert entry is not None
        entry.asked(10.0)
        ledger.accepted(entry, 10.0)
        gone.append(entry.pod.uid)
    assert gone == ["web1", "web2", "web3"]
    assert tries(ledger, 10.0) == ["web4"]
    assert ledger.next_to_evict(10.0) is None


def test_pods_of_other_budgets_do_not_wait() -> None:
    """Only what the budget is known to cover is held back."""
    ledger = ledger_of({**some(3), **some(2, "zoo")})
    first = ledger.next_to_evict(0.0)
    assert first is not None
    assert first.pod.uid == "web0"
    first.asked(0.0)
    ledger.refused(first, BUDGET, 0.0, None)
    rest = []
    while (entry := ledger.next_to_evict(0.0)) is not None:
        entry.asked(0.0)
        ledger.accepted(entry, 0.0)
        rest.append(entry.pod.uid)
    assert rest == ["zoo0", "zoo1"]


@given(st.integers(0, 2**32), st.floats(0, 60) | st.none())
def test_a_refusal_is_tried_again_after_five_to_nineteen_seconds(seed: int, asked: float | None) -> None:
    """With jitter, slower after a minute, never sooner than the API server asks; and never without end in between."""
    ledger = EvictionQueue(random.Random(seed))
    ledger.update(some(1), 0.0)
    now = 0.0
    for _ in range(40):
        entry = ledger.next_to_evict(now)
        assert entry is not None
        entry.asked(now)
        ledger.refused(entry, BUDGET, now, asked)
        wait = ledger.next_due(now)
        assert max(5.0, asked or 0.0) <= wait <= max(18.75, (asked or 0.0) * 1.25)
        now += wait


def test_what_no_waiting_mends_is_tried_again_only_after_minutes() -> None:
    """Somebody may mend it by hand meanwhile."""
    ledger = ledger_of(some(1))
    entry = ledger.next_to_evict(0.0)
    assert entry is not None
    entry.asked(0.0)
    ledger.mark_permanent(entry, "two budgets", 0.0)
    assert ledger.next_to_evict(FINAL_SECONDS - 1) is None
    assert ledger.entries["web0"].final == "two budgets"
    assert ledger.next_to_evict(2 * FINAL_SECONDS) is entry


def test_deleting_is_not_held_back_by_what_held_evictions_back() -> None:
    """Past the deadline each pod is deleted once, refusals forgotten."""
    ledger = ledger_of(some(3))
    tries(ledger, 0.0)
    hopeless = ledger.entries["web2"]
    ledger.mark_permanent(hopeless, "two budgets", 0.0)
    ledger.begin_deleting()
    deleted = []
    while (entry := ledger.next_to_delete(1.0, shortens_grace=False)) is not None:
        entry.asked(1.0)
        entry.is_deleted = True
        ledger.accepted(entry, 1.0)
        deleted.append(entry.pod.uid)
    assert deleted == ["web0", "web1", "web2"]
    assert ledger.held == {}


def test_the_slowest_pod_is_remembered_and_the_gone_are_counted() -> None:
    """From the first request to its end."""
    going = some(2)
    ledger = ledger_of(going)
    for _ in range(2):
        entry = ledger.next_to_evict(0.0)
        assert entry is not None
        entry.asked(0.0)
        ledger.accepted(entry, 0.0)
    ledger.update({"web1": going["web1"]}, 3.0)
    ledger.update({}, 9.0)
    assert ledger.slowest == (9.0, "shop/web-1")
    assert (len(ledger.seen), len(ledger.evicted), ledger.entries) == (2, 2, {})


def test_a_pod_that_terminates_for_another_reason_leaves_its_budgets_queue() -> None:
    """Nothing is asked about it any more, and the budget is not named as blocking."""
    going = some(1)
    ledger = ledger_of(going)
    tries(ledger, 0.0)
    assert len(ledger.held) == 1
    pod = Pod("shop", "web-0", "web0", {"app": "web"}, terminating_since=5.0)
    ledger.update({"web0": pod}, 5.0)
    assert ledger.held == {}
    assert ledger.next_to_evict(1000.0) is None
