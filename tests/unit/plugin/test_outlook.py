"""When the last waiting node will be done: calculated against a clock that is stepped through minute by minute."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.config.choices import Weekday
from agent.config.schema import Window
from agent.plugin.diagnosis.outlook import HAND_OVER_SECONDS, CycleTime, Finish, Roll, Rules, cycle_time, cycles, finish
from agent.reboot.blockers.window import is_open

NOW = datetime(2026, 3, 27, 12, 0, tzinfo=UTC).timestamp()  # a Friday; Berlin's clocks change on Sunday
MINUTE, HOUR = 60.0, 3600.0
NIGHT = Window(start="22:00", end="04:00", timezone="Europe/Berlin")

windows = st.lists(
    st.builds(
        Window,
        days=st.sets(st.sampled_from(list(Weekday)), min_size=1).map(tuple),
        start=st.sampled_from(["00:00", "01:30", "02:30", "12:00", "22:00"]),
        end=st.sampled_from(["00:00", "02:30", "04:00", "13:00"]),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    ),
    max_size=2,
).map(tuple)
# Each with a delay of its own, by which a cycle shows whose it is.
pendings = st.lists(st.tuples(windows, st.integers(0, 6)), max_size=2).map(
    lambda some: {Rules(given_, float(number)): left for number, (given_, left) in enumerate(some)}
)
rolls = st.builds(
    Roll,
    pending=pendings,
    under_way=st.lists(st.integers(0, 90).map(lambda m: m * MINUTE), max_size=3).map(tuple),
    slots=st.integers(1, 3),
    gap_seconds=st.integers(0, 120).map(lambda m: m * MINUTE),
    last_reboot=st.integers(0, 200).map(lambda m: NOW - m * MINUTE),
)
lengths = st.integers(1, 180).map(lambda m: m * MINUTE)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_without_windows_they_follow_each_other() -> None:
    """Ten nodes of six minutes in one slot: an hour and the hand-overs."""
    found = finish(Roll({Rules(): 10}), 6 * MINUTE, NOW)
    assert found == Finish(NOW + HOUR + 9 * HAND_OVER_SECONDS)


def test_one_that_is_under_way_is_waited_for() -> None:
    """Four of its ten minutes are over, so the next begins in six."""
    begun = [begin for begin, _ in cycles(Roll({Rules(): 1}, (4 * MINUTE,)), 10 * MINUTE, NOW)]
    assert begun == [NOW - 4 * MINUTE, NOW + 6 * MINUTE]


def test_one_that_takes_longer_than_any_may_be_done_immediately() -> None:
    """How much longer is unknown; the next one begins no earlier than now."""
    assert finish(Roll({Rules(): 1}, (HOUR,)), 10 * MINUTE, NOW).at == NOW + 10 * MINUTE


def test_what_does_not_fit_into_the_night_goes_into_the_next() -> None:
    """Six hours of window, forty minutes each: nine begin, the tenth the next night, which is an hour shorter."""
    begun = [begin for begin, _ in cycles(Roll({Rules((NIGHT,)): 10}), 40 * MINUTE - HAND_OVER_SECONDS, NOW)]
    assert begun[0] == at("2026-03-27T22:00+01:00")
    assert begun[8] == at("2026-03-28T03:20+01:00")
    assert begun[9] == at("2026-03-28T22:00+01:00")


def test_the_last_may_end_outside_of_its_window() -> None:
    """A window says when one may begin."""
    found = finish(Roll({Rules((NIGHT,)): 9}), 40 * MINUTE - HAND_OVER_SECONDS, NOW)
    assert found.at == at("2026-03-28T04:00+01:00") - 3


def test_nodes_that_may_begin_now_do_not_wait_for_those_that_may_at_night() -> None:
    """Nor are the latter behind them when the night comes; one that never may is the last."""
    night, never = Rules((NIGHT,)), Rules((Window(days=()),))
    begun = [begin for begin, _ in cycles(Roll({never: 1, night: 2, Rules(): 60}), 20 * MINUTE - 3, NOW)]
    assert begun[:2] == [NOW, NOW + 20 * MINUTE]
    assert begun[:62] == sorted(begun[:62])
    assert begun[62:] == [math.inf]
    assert finish(Roll({never: 1, Rules(): 1}), HOUR, NOW) == Finish(None, "the windows never open")


def test_a_gap_is_kept_after_the_last_reboot_and_between_two() -> None:
    """An hour from one's end to the next one's lock, in all slots together."""
    roll = Roll({Rules(): 2}, slots=2, gap_seconds=HOUR, last_reboot=NOW - 20 * MINUTE)
    assert list(cycles(roll, 10 * MINUTE, NOW)) == [
        (NOW + 40 * MINUTE, NOW + 50 * MINUTE),
        (NOW + 40 * MINUTE, NOW + 50 * MINUTE),
    ]


def test_what_cannot_be_told_is_not() -> None:
    """Windows that never open, and an end that is years away, name no moment."""
    never = Window(days=())
    rare = Window(days=(Weekday.MON,), start="10:00", end="10:01", timezone="UTC")
    assert finish(Roll({Rules((rare,)): 60}), HOUR, NOW) == Finish(None, "that is more than a year away")
    assert finish(Roll({Rules((never,)): 1}), HOUR, NOW) == Finish(None, "the windows never open")
    assert finish(Roll({Rules((never,)): 0}), HOUR, NOW) == Finish(NOW)


def rules_of(roll: Roll, length: float, cycle: tuple[float, float]) -> Rules:
    """Whose cycle that is."""
    return next(one for one in roll.pending if cycle[1] == cycle[0] + length + one.release_seconds)


@settings(max_examples=60, deadline=None)
@given(rolls, lengths)
def test_every_cycle_begins_in_a_window_and_behind_the_gap(roll: Roll, length: float) -> None:
    """Never more at the same time than slots, never within the gap, never with its windows closed; every node once."""
    known = list(cycles(roll, length, NOW))
    under_way, mine = known[: len(roll.under_way)], known[len(roll.under_way) :]
    assert Counter(rules_of(roll, length, one) for one in mine) == Counter(roll.pending)
    ends = [roll.last_reboot, *(end for _, end in under_way)]
    for begin, end in mine:
        assert begin >= NOW
        assert is_open(rules_of(roll, length, (begin, end)).windows, begin)
        assert not any(one <= begin < one + roll.gap_seconds for one in ends)
        ends.append(end)
    for begin, _ in mine:
        at_once = sum(1 for other, end in known if other <= begin < end)
        assert at_once <= max(roll.slots, len(roll.under_way))
    assert [begin for begin, _ in mine] == sorted(begin for begin, _ in mine)


@settings(max_examples=40, deadline=None)
@given(rolls, lengths)
@example(Roll({Rules(): 0, Rules((), 1.0): 4}, (MINUTE,), 2, MINUTE, NOW - MINUTE), 2 * MINUTE)  # a gap ends at :01
def test_no_cycle_could_begin_earlier(roll: Roll, length: float) -> None:
    """The next one begins at the first moment at which slot, gap and the windows of a waiting node allow it.

    That is a whole minute, at which windows open, or a moment at which a slot gets free or a gap ends.
    """
    known = list(cycles(roll, length, NOW))
    ends = [roll.last_reboot, *(end for _, end in known[: len(roll.under_way)])]
    busy_until = ends[1:]
    left = Counter(roll.pending)
    moment = NOW
    for begin, end in known[len(roll.under_way) :]:
        events = sorted({*busy_until, *(one + roll.gap_seconds for one in ends)})
        while not (
            sum(1 for one in busy_until if one > moment) < roll.slots
            and not any(one <= moment < one + roll.gap_seconds for one in ends)
            and any(is_open(one.windows, moment) for one, number in left.items() if number)
        ):
            moment = min([moment // MINUTE * MINUTE + MINUTE, *(one for one in events if one > moment)])
            if moment - NOW > 15 * 86400:
                return
        assert begin == moment
        left[rules_of(roll, length, (begin, end))] -= 1
        ends.append(end)
        busy_until.append(end + HAND_OVER_SECONDS)


@settings(max_examples=40, deadline=None)
@given(rolls, lengths, windows, st.integers(1, 5))
def test_more_to_do_never_ends_earlier(roll: Roll, length: float, given_: tuple[Window, ...], more: int) -> None:
    """One node more comes after all the others of its kind."""
    rules = Rules(given_)
    some, longer = (replace(roll, pending={rules: number}) for number in (2, 2 + more))
    first, second = finish(some, length, NOW).at, finish(longer, length, NOW).at
    assert second is None or (first is not None and second >= first)


def test_pace_is_the_median_and_the_slow_tenth() -> None:
    """Nothing seen is nothing known."""
    assert cycle_time([]) is None
    assert cycle_time([60.0]) == CycleTime(1, 60.0, 60.0)
    assert cycle_time([300.0, 60.0, 120.0, 90.0]) == CycleTime(4, 105.0, 300.0)
    assert cycle_time([float(n) for n in range(1, 21)]) == CycleTime(20, 10.5, 18.0)


@settings(max_examples=60)
@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=50))
def test_pace_lies_within_what_was_seen(seen: list[float]) -> None:
    """And the cautious one is never the faster."""
    pace = cycle_time(seen)
    assert pace is not None
    assert min(seen) <= pace.typical <= pace.cautious <= max(seen)
