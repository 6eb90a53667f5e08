"""The eviction queue: who is tried when, so that a refusal costs little and nobody is forgotten."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.selector import parse
from agent.reboot.drain.eviction_queue import (
    LONGEST_WATCHED_RETRY_SECONDS,
    PERMANENT_SECONDS,
    WATCHED_RETRY_SECONDS,
    EvictionQueue,
)
from agent.reboot.drain.filters import Pod
from agent.reboot.drain.pdb import Budget

BUDGET = Budget("shop", "web", selector=parse("app=web"))


def some(count: int, app: str = "web") -> dict[str, Pod]:
    return {f"{app}{number}": Pod("shop", f"{app}-{number}", f"{app}{number}", {"app": app}) for number in range(count)}


def queue_of(going: dict[str, Pod], now: float = 0.0) -> EvictionQueue:
    queue = EvictionQueue(random.Random(1))
    queue.update(going, now)
    return queue


def tries(queue: EvictionQueue, now: float) -> list[str]:
    """Everything that is due now, each refused by the budget."""
    found = []
    while (entry := queue.next_to_evict(now)) is not None:
        entry.asked(now)
        queue.refused(entry, BUDGET, now, None)
        found.append(entry.pod.uid)
    return found


def test_a_budget_is_asked_once_however_many_pods_it_holds() -> None:
    """A hundred pods under one exhausted budget cost one request each five seconds, by turns."""
    queue = queue_of(some(100))
    assert tries(queue, 0.0) == ["web0"]
    assert tries(queue, 4.9) == []
    later = [uid for now in range(7, 707, 7) for uid in tries(queue, float(now))]
    assert len(later) <= 100
    assert len(set(later)) == len(later)


def test_a_budget_that_lets_one_go_is_asked_for_the_next_at_once() -> None:
    """Until it refuses again."""
    going = some(5)
    queue = queue_of(going)
    tries(queue, 0.0)
    gone = []
    for _ in range(3):
        entry = queue.next_to_evict(10.0)
        assert entry is not None
        entry.asked(10.0)
        queue.accepted(entry, 10.0)
        gone.append(entry.pod.uid)
    assert gone == ["web1", "web2", "web3"]
    assert tries(queue, 10.0) == ["web4"]
    assert queue.next_to_evict(10.0) is None


def test_pods_of_other_budgets_do_not_wait() -> None:
    """Only what the budget is known to cover is held back."""
    queue = queue_of({**some(3), **some(2, "zoo")})
    first = queue.next_to_evict(0.0)
    assert first is not None
    assert first.pod.uid == "web0"
    first.asked(0.0)
    queue.refused(first, BUDGET, 0.0, None)
    rest = []
    while (entry := queue.next_to_evict(0.0)) is not None:
        entry.asked(0.0)
        queue.accepted(entry, 0.0)
        rest.append(entry.pod.uid)
    assert rest == ["zoo0", "zoo1"]


@given(st.integers(0, 2**32), st.floats(0, 60) | st.none())
def test_a_refusal_is_tried_again_after_five_to_nineteen_seconds(seed: int, asked: float | None) -> None:
    """With jitter, slower after a minute, never sooner than the API server asks; and never without end in between."""
    queue = EvictionQueue(random.Random(seed))
    queue.update(some(1), 0.0)
    now = 0.0
    for _ in range(40):
        entry = queue.next_to_evict(now)
        assert entry is not None
        entry.asked(now)
        queue.refused(entry, BUDGET, now, asked)
        wait = queue.next_due(now)
        assert max(5.0, asked or 0.0) <= wait <= max(18.75, (asked or 0.0) * 1.25)
        now += wait


def test_what_no_waiting_resolves_is_tried_again_only_after_minutes() -> None:
    """An operator may resolve it meanwhile."""
    queue = queue_of(some(1))
    entry = queue.next_to_evict(0.0)
    assert entry is not None
    entry.asked(0.0)
    queue.mark_permanent(entry, "two budgets", 0.0)
    assert queue.next_to_evict(PERMANENT_SECONDS - 1) is None
    assert queue.entries["web0"].permanent == "two budgets"
    assert queue.next_to_evict(2 * PERMANENT_SECONDS) is entry


def test_deleting_is_not_held_back_by_what_held_evictions_back() -> None:
    """Past the deadline each pod is deleted once, refusals forgotten."""
    queue = queue_of(some(3))
    tries(queue, 0.0)
    permanent = queue.entries["web2"]
    queue.mark_permanent(permanent, "two budgets", 0.0)
    queue.begin_deleting()
    deleted = []
    while (entry := queue.next_to_delete(1.0, shortens_grace=False)) is not None:
        entry.asked(1.0)
        entry.is_deleted = True
        queue.accepted(entry, 1.0)
        deleted.append(entry.pod.uid)
    assert deleted == ["web0", "web1", "web2"]
    assert queue.pdb_queues == {}


def test_the_slowest_pod_is_remembered_and_the_gone_are_counted() -> None:
    """From the first request to its end."""
    going = some(2)
    queue = queue_of(going)
    for _ in range(2):
        entry = queue.next_to_evict(0.0)
        assert entry is not None
        entry.asked(0.0)
        queue.accepted(entry, 0.0)
    queue.update({"web1": going["web1"]}, 3.0)
    queue.update({}, 9.0)
    assert queue.slowest == (9.0, "shop/web-1")
    assert (len(queue.seen), len(queue.evicted), queue.entries) == (2, 2, {})


def test_a_pod_that_terminates_for_another_reason_leaves_its_budgets_queue() -> None:
    """Nothing is asked about it any more, and the budget is not named as blocking."""
    going = some(1)
    queue = queue_of(going)
    tries(queue, 0.0)
    assert len(queue.pdb_queues) == 1
    pod = Pod("shop", "web-0", "web0", {"app": "web"}, terminating_since=5.0)
    queue.update({"web0": pod}, 5.0)
    assert queue.pdb_queues == {}
    assert queue.next_to_evict(1000.0) is None


WATCHED = Budget("shop", "web", selector=parse("app=web"), allowed=0, version="7")


def refuse(queue: EvictionQueue, budget: Budget, now: float) -> None:
    entry = queue.next_to_evict(now)
    assert entry is not None
    entry.asked(now)
    queue.refused(entry, budget, now, None)


def test_a_watched_budget_is_tried_when_it_allows_and_not_by_the_clock() -> None:
    """A status that allows nothing is no reason to try; one that allows, and a deleted budget, is."""
    queue = queue_of(some(3))
    refuse(queue, WATCHED, 0.0)
    assert queue.next_to_evict(WATCHED_RETRY_SECONDS - 1) is None
    queue.refresh_budgets(lambda _: Budget("shop", "web", allowed=0, version="8"), 1.0)
    assert queue.next_to_evict(1.0) is None
    queue.refresh_budgets(lambda _: Budget("shop", "web", allowed=1, version="9"), 2.0)
    entry = queue.next_to_evict(2.0)
    assert entry is not None
    entry.asked(2.0)
    queue.accepted(entry, 2.0)
    assert queue.next_to_evict(2.0) is None  # the one disruption is spent
    queue.refresh_budgets(lambda _: Budget("shop", "web", allowed=1, version="9"), 3.0)
    assert queue.next_to_evict(3.0) is None
    queue.refresh_budgets(lambda _: None, 4.0)
    assert queue.next_to_evict(4.0) is not None


def test_a_budget_that_allows_again_when_it_is_read_is_tried_immediately_and_once() -> None:
    """Its controller may be faster than the first read: no later change of its status would be seen."""
    queue = queue_of(some(3))
    allowing = replace(WATCHED, allowed=1, version="8")
    refuse(queue, allowing, 0.0)
    refuse(queue, allowing, 0.0)
    assert queue.next_to_evict(WATCHED_RETRY_SECONDS - 1) is None
    assert queue.next_to_evict(1.25 * LONGEST_WATCHED_RETRY_SECONDS) is not None


def test_a_watched_budget_that_allows_several_is_not_asked_for_more() -> None:
    """Two disruptions are two evictions, without a refusal in between."""
    queue = queue_of(some(4))
    refuse(queue, WATCHED, 0.0)
    queue.refresh_budgets(lambda _: Budget("shop", "web", allowed=2, version="8"), 1.0)
    gone = 0
    while (entry := queue.next_to_evict(1.0)) is not None:
        entry.asked(1.0)
        queue.accepted(entry, 1.0)
        gone += 1
    assert gone == 2


@given(st.integers(0, 2**32))
def test_a_watched_budget_is_still_tried_seldom(seed: int) -> None:
    """Pods that are not ready may go although the budget allows nothing, and its status does not show that."""
    queue = EvictionQueue(random.Random(seed))
    queue.update(some(1), 0.0)
    now = 0.0
    for _ in range(20):
        refuse(queue, WATCHED, now)
        wait = queue.next_due(now)
        assert WATCHED_RETRY_SECONDS <= wait <= 1.25 * LONGEST_WATCHED_RETRY_SECONDS
        now += wait


def test_a_refusal_by_a_webhook_is_deferred_ever_longer_and_stops_no_other_pod() -> None:
    """Up to a minute; its words stay with the pod until the next try."""
    queue = queue_of(some(2))
    entry = queue.entries["web0"]
    now, waits = 0.0, []
    for _ in range(5):
        entry.asked(now)
        queue.defer(entry, 15.0, now, "shop/web-0: denied")
        waits.append(entry.next_at - now)
        now = entry.next_at
    assert entry.trouble == "shop/web-0: denied"
    assert waits[0] <= 1.25 * 15
    assert waits[1] >= 30
    assert max(waits) <= 75
    other = queue.next_to_evict(0.0)
    assert other is not None
    assert other.pod.uid == "web1"


@pytest.mark.parametrize("terminates", [True, False])
def test_critical_and_storage_pods_wait_until_all_others_are_gone(terminates: bool) -> None:
    """Also while the last workload still terminates: its volume may need the driver that goes after it."""
    last = {"csi": Pod("kube-system", "csi", "csi", evict_last=True)}
    queue = queue_of({**last, **some(1)})
    entry = queue.next_to_evict(0.0)
    assert entry is not None
    assert entry.pod.uid == "web0"
    entry.asked(0.0)
    queue.accepted(entry, 0.0)
    gone = Pod("shop", "web-0", "web0", {"app": "web"}, terminating_since=0.0)
    queue.update({**last, "web0": gone} if terminates else last, 1.0)
    following = queue.next_to_evict(1.0)
    assert (following is None) is terminates


def test_a_budget_that_was_never_read_is_not_taken_for_deleted() -> None:
    """Its name may have been read wrong out of a message: the pace of the clock holds."""
    queue = queue_of(some(1))
    refuse(queue, BUDGET, 0.0)
    queue.refresh_budgets(lambda _: None, 1.0)
    assert queue.next_to_evict(1.0) is None
