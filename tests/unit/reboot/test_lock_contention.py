"""Many waiters, one lock: a release costs tens of requests, and everybody gets it in the end."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.contention import LockContention
from agent.reboot.machine.inputs import Slot

DURATION = 60.0
LIST_SECONDS = 0.15  # reading the pool and swapping the lease
PAGE_SECONDS = 0.25  # reading each further page of the pool
WATCH_SECONDS = 0.1  # until all others have seen the swap


def _slot(*, holder: str = "", transitions: int = 0, waited: float = 0.0, unseen: float = 0.0, index: int = 0) -> Slot:
    phase = LeasePhase.HELD if holder else LeasePhase.NONE
    view = LeaseView(f"lease-{index}", "1", holder, phase, transitions=transitions, waited=waited)
    return Slot(view, index, ours=False, unseen_seconds=unseen)


def _release(
    rooms: dict[int, LockContention], waited: dict[int, float], last: float, turn: int, size: int = 5000
) -> tuple[int, int, float]:
    """One release among these waiters: who wins, how many asked, and after how long."""
    slot = _slot(transitions=turn, waited=last)
    moments = [(rooms[n].turn([slot], 0.0, pool_size=size, waited=waited[n]).in_seconds, n) for n in rooms]
    heapq.heapify(moments)
    first, winner = moments[0]
    seen_by_all = first + LIST_SECONDS + PAGE_SECONDS * ((size - 1) // 500) + WATCH_SECONDS
    asked = sum(1 for at, _ in moments if at < seen_by_all)
    return winner, asked, first


@pytest.mark.parametrize(("count", "size"), [(2, 3), (20, 500), (500, 500), (2, 5000), (200, 5000), (5000, 5000)])
def test_a_release_costs_tens_of_requests_however_many_wait(count: int, size: int) -> None:
    """A constant handful asks, whether 2 or 5,000 wait; the lock is never idle for long, where a pool is counted in
    one page, and for less than a reboot takes in any."""
    rng = random.Random(3)
    asked, firsts = [], []
    for turn in range(40 if count < 500 else 8):
        rooms = {n: LockContention(random.Random(rng.random()), DURATION) for n in range(count)}
        _, some, first = _release(rooms, dict.fromkeys(rooms, 100.0), 50.0, turn, size)
        asked.append(some)
        firsts.append(first)
    assert sum(asked) / len(asked) < 10
    assert max(asked) < 40
    assert max(firsts) < (4.0 if size <= 500 else 30.0)


def test_two_hundred_waiters_are_all_served() -> None:
    """Each release takes one of them away: after two hundred nobody waits any more."""
    rng = random.Random(5)
    rooms = {n: LockContention(random.Random(rng.random()), DURATION) for n in range(200)}
    served = []
    asked = 0
    for turn in range(200):
        winner, some, _ = _release(rooms, dict.fromkeys(rooms, 100.0 * (turn + 1)), 100.0 * turn, turn)
        asked += some
        served.append(winner)
        del rooms[winner]
    assert sorted(served) == list(range(200))
    assert asked / 200 < 10


def test_none_starves_although_new_waiters_keep_coming() -> None:
    """Those who have waited longer than the last winner had draw from the early half: twenty old ones go first,
    although each release brings a newcomer."""
    rng = random.Random(8)
    rooms = {n: LockContention(random.Random(rng.random()), DURATION) for n in range(20)}
    since = dict.fromkeys(rooms, 0.0)
    winners: list[int] = []
    last = 0.0
    for turn in range(200):
        now = 300.0 * (turn + 1)
        waited = {n: now - since[n] for n in rooms}
        winner, _, _ = _release(rooms, waited, last, turn)
        last = waited[winner]
        winners.append(winner)
        del rooms[winner], since[winner]
        newcomer = 1000 + turn
        rooms[newcomer] = LockContention(random.Random(rng.random()), DURATION)
        since[newcomer] = now
    assert {n for n in winners if n < 20} == set(range(20))


def test_in_a_small_cluster_the_lock_is_asked_for_within_a_second() -> None:
    """Three nodes: no wait that a person would notice."""
    for seed in range(200):
        room = LockContention(random.Random(seed), DURATION)
        assert room.turn([_slot()], 0.0, pool_size=3, waited=0.0).in_seconds < 1.0
        newcomer = LockContention(random.Random(seed), DURATION)
        assert newcomer.turn([_slot(waited=500.0)], 0.0, pool_size=3, waited=0.0).in_seconds < 1.0


def test_a_moment_once_drawn_stays_until_the_lease_changes() -> None:
    """Looking again does not draw again: who looks often has no better chance."""
    room = LockContention(random.Random(1), DURATION)
    first = room.turn([_slot()], 100.0, pool_size=5000, waited=10.0)
    later = room.turn([_slot()], 100.2, pool_size=5000, waited=10.2)
    assert first.in_seconds - later.in_seconds == pytest.approx(0.2)
    due = room.turn([_slot()], 100.0 + first.in_seconds, pool_size=5000, waited=12.0)
    assert due.now


def test_a_held_lock_is_looked_after_only_when_its_holder_was_silent() -> None:
    """Nothing to ask for before the lease's whole duration has gone without a sign of life."""
    room = LockContention(random.Random(1), DURATION)
    busy = room.turn([_slot(holder="a/1", unseen=10.0)], 0.0, pool_size=10, waited=0.0)
    assert (busy.now, busy.slot) == (False, None)
    assert busy.in_seconds == pytest.approx(50.1)
    silent = room.turn([_slot(holder="a/1", unseen=61.0)], 51.0, pool_size=10, waited=51.0)
    assert silent.slot is not None
    assert 0.0 <= silent.in_seconds <= 30.0


def test_looking_after_a_silent_holder_is_spread_over_the_whole_pool() -> None:
    """Five thousand waiters look after a rebooting holder a few times a second together, not all at once."""
    moments = Counter(
        int(
            LockContention(random.Random(seed), DURATION)
            .turn([_slot(holder="a/1", unseen=61.0)], 0.0, pool_size=5000, waited=0.0)
            .in_seconds
        )
        for seed in range(5000)
    )
    assert max(moments.values()) < 20


def test_a_turn_that_came_to_nothing_comes_again_later() -> None:
    """A blocker without an end is asked again soon, then about every quarter of a minute; one with an end after it."""
    room = LockContention(random.Random(1), DURATION)
    room.turn([_slot()], 0.0, pool_size=3, waited=0.0)
    wait = room.postpone(1.0, pool_size=3)
    assert 1.0 <= wait <= 3.0
    assert not room.turn([_slot()], 1.0, pool_size=3, waited=1.0).now
    assert room.turn([_slot()], 1.0 + wait, pool_size=3, waited=1.0 + wait).now
    waits = [room.postpone(10.0 + number, pool_size=3) for number in range(6)]
    assert waits[0] < waits[-1]
    assert 7.5 <= waits[-1] <= 22.5
    known = room.postpone(100.0, pool_size=3, seconds=3600.0)
    assert 3600.0 <= known <= 3602.0
    assert not room.turn([_slot(transitions=9)], 200.0, pool_size=3, waited=200.0).now


def test_a_free_slot_comes_before_a_silent_holders() -> None:
    """With two slots the free one is asked for, whatever its number."""
    room = LockContention(random.Random(1), DURATION)
    turn = room.turn([_slot(holder="a/1", unseen=99.0), _slot(index=1)], 0.0, pool_size=3, waited=0.0)
    assert turn.slot is not None
    assert turn.slot.index == 1


def test_why_a_turn_came_to_nothing_is_known_until_the_lock_changes_hands() -> None:
    """So that the sentence goes on naming the blocker, instead of a lock that is free."""
    room = LockContention(random.Random(1), DURATION)
    room.turn([_slot()], 0.0, pool_size=3, waited=0.0)
    room.postpone(1.0, pool_size=3, refused="blocked by the pause", refused_by="pause")
    turn = room.turn([_slot()], 1.5, pool_size=3, waited=1.5)
    assert (turn.refused, turn.refused_by) == ("blocked by the pause", "pause")
    assert room.turn([_slot(transitions=1)], 2.0, pool_size=3, waited=2.0).refused == ""


def test_a_big_pool_asks_again_rarely_each() -> None:
    """Five thousand that a pause holds back ask a few times a second together from the first refusal on."""
    moments = [LockContention(random.Random(seed), DURATION).postpone(0.0, pool_size=5000) for seed in range(5000)]
    assert max(Counter(int(moment) for moment in moments).values()) < 30
