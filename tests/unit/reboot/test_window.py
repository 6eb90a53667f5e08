"""Windows across midnight and across clock changes, held against a clock on the wall that is read minute by minute."""

from __future__ import annotations

import zoneinfo
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import accumulate, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.config.choices import Weekday, WeekOfMonth
from agent.config.schema import Blackout, Window
from agent.reboot.blockers.window import WindowBlocker, closes_at, first_occurrence, is_open, next_opening
from tests.support.rooms import Clocks

DAYS = tuple(Weekday)
# Each has something of its own: half-hour and two-hour changes, changes at midnight, quarter-hour offsets, a date that
# was left out, and dates around which the clock changes.
CHANGES = {
    "Europe/Berlin": (date(2024, 3, 31), date(2024, 10, 27)),
    "America/New_York": (date(2024, 3, 10), date(2024, 11, 3)),
    "Australia/Lord_Howe": (date(2024, 10, 6), date(2024, 4, 7)),
    "Antarctica/Troll": (date(2024, 3, 31), date(2024, 10, 27)),
    "America/Sao_Paulo": (date(2017, 10, 15), date(2018, 2, 18)),
    "Asia/Beirut": (date(2024, 3, 31), date(2024, 10, 27)),
    "Africa/Cairo": (date(2024, 4, 26), date(2024, 11, 1)),
    "Africa/Casablanca": (date(2024, 3, 10), date(2024, 4, 14)),
    "Pacific/Chatham": (date(2024, 9, 29), date(2024, 4, 7)),
    "Pacific/Apia": (date(2011, 12, 30), date(2011, 4, 2)),
    "America/St_Johns": (date(2005, 4, 3), date(2005, 10, 30)),
    "Asia/Kathmandu": (date(2024, 3, 31), date(2024, 10, 27)),
    "UTC": (date(2024, 3, 31), date(2024, 10, 27)),
}
if not zoneinfo.available_timezones():
    pytest.skip("this machine has no time zone data", allow_module_level=True)

zones = st.sampled_from(sorted(CHANGES))
times = st.builds(time, st.integers(0, 23), st.integers(0, 59)) | st.sampled_from(
    [time(0), time(1), time(1, 59), time(2), time(2, 30), time(3), time(23, 59)]
)


def spelled(at: time) -> str:
    return at.strftime("%H:%M")


@st.composite
def windows(draw: st.DrawFn, name: str | None = None) -> Window:
    days = draw(st.sets(st.sampled_from(DAYS), min_size=1))
    return Window(
        days=tuple(day for day in DAYS if day in days),
        start=spelled(draw(times)),
        end=spelled(draw(times)),
        timezone=name or draw(zones),
    )


near_changes = st.sampled_from([(name, near) for name, both in CHANGES.items() for near in both])


@st.composite
def moments(draw: st.DrawFn, near: date) -> float:
    """Whole minutes within four days of a date."""
    midnight = datetime.combine(near, time(), UTC)
    return (midnight + timedelta(minutes=draw(st.integers(-4 * 1440, 4 * 1440)))).timestamp()


def minutes(naive: datetime) -> int:
    """Of a clock on the wall, since some beginning."""
    return int((naive - datetime.min).total_seconds()) // 60  # noqa: DTZ901 - a clock on the wall has no zone


@cache
def wall_clock(name: str, near: date) -> tuple[int, array[int]]:
    """The latest time that the clock on the wall has shown, for each minute of some weeks around a date.

    First the moment of the first minute, then the clock.
    """
    where = zoneinfo.ZoneInfo(name)
    start = int((datetime.combine(near, time(), UTC) - timedelta(days=11)).timestamp())
    shown = (
        minutes(datetime.fromtimestamp(now, where).replace(tzinfo=None)) for now in range(start, start + 22 * 86400, 60)
    )
    return start, array("q", accumulate(shown, max))


def first_shown(name: str, near: date, wanted: datetime) -> float:
    """The first minute at which the clock shows the time, or has leapt over it."""
    start, clock = wall_clock(name, near)
    return float(start + 60 * bisect_left(clock, minutes(wanted)))


@given(near_changes, st.integers(-1, 1), times)
def test_a_moment_is_when_the_wall_clock_first_shows_it(change: tuple[str, date], offset: int, at: time) -> None:
    """Also where the clock shows it twice or leaps over it, in zones with odd changes."""
    name, near = change
    day = near + timedelta(days=offset)
    assert first_occurrence(day, at, zoneinfo.ZoneInfo(name)) == first_shown(name, near, datetime.combine(day, at))


@given(near_changes, st.data())
def test_a_window_is_open_as_the_wall_clock_says(change: tuple[str, date], data: st.DataObject) -> None:
    """From the first showing of its start on one of its days to the next first showing of its end."""
    name, near = change
    window = data.draw(windows(name))
    now = data.draw(moments(near))
    day = datetime.fromtimestamp(now, UTC).date()
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    expected = False
    for offset in range(-3, 3):
        opened = day + timedelta(days=offset)
        if DAYS[opened.weekday()] in window.days:
            closed = opened + timedelta(days=1) if end <= start else opened
            opens = first_shown(name, near, datetime.combine(opened, start))
            expected |= opens <= now < first_shown(name, near, datetime.combine(closed, end))
    assert is_open([window], now) is expected


def sampled(first: float, end: float) -> Iterator[float]:
    """Some dozens of moments from the first on, before the end."""
    step = max(60, int(end - first) // 20)
    return (float(now) for now in range(int(first), int(end), step))


@given(near_changes, st.data())
def test_the_next_opening_opens_and_nothing_opens_before(change: tuple[str, date], data: st.DataObject) -> None:
    """Waiting until then is neither too short nor too long."""
    name, near = change
    some = data.draw(st.lists(windows(name), min_size=1, max_size=3))
    now = data.draw(moments(near))
    opening = next_opening(some, now)
    assert opening is not None
    assert now < opening <= now + 15 * 86400
    assert is_open(some, opening)
    if not is_open(some, now):
        assert not any(is_open(some, between) for between in sampled(now, opening))


@given(near_changes, st.data())
def test_a_window_stays_open_until_it_closes(change: tuple[str, date], data: st.DataObject) -> None:
    """`closes_at` is the end of the last of the windows that follow each other without a gap."""
    name, near = change
    some = data.draw(st.lists(windows(name), min_size=1, max_size=3))
    now = data.draw(moments(near))
    assume(is_open(some, now))
    closing = closes_at(some, now)
    until = now + 7 * 86400 if closing is None else closing
    assert all(is_open(some, between) for between in sampled(now, until))
    if closing is not None:
        assert is_open(some, closing - 1)
        assert not is_open(some, closing)


@given(near_changes, st.data())
def test_whole_days_leave_no_gap(change: tuple[str, date], data: st.DataObject) -> None:
    """Days of 23, 24 and 25 hours, and a date that was left out, all end where the next one begins."""
    name, near = change
    window = Window(timezone=name)
    now = data.draw(moments(near))
    assert is_open([window], now)
    assert closes_at([window], now) is None


def at(name: str, text: str) -> float:
    """A local time that comes once, as a moment."""
    return datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(name)).timestamp()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_day_of_a_window_across_midnight_is_the_day_on_which_it_opens() -> None:
    """Friday's window is still open on Saturday's small hours; Saturday has none."""
    friday = Window(days=(Weekday.FRI,), start="22:00", end="04:00", timezone="Europe/Berlin")
    assert is_open([friday], at("Europe/Berlin", "2024-05-03 22:00"))
    assert is_open([friday], at("Europe/Berlin", "2024-05-04 03:59"))
    assert not is_open([friday], at("Europe/Berlin", "2024-05-04 04:00"))
    assert not is_open([friday], at("Europe/Berlin", "2024-05-04 23:00"))
    assert not is_open([friday], at("Europe/Berlin", "2024-05-03 03:00"))


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("01:00", "04:00", "2024-03-31 00:00", "2024-03-31 02:00"),  # two hours long instead of three
        ("02:30", "04:00", "2024-03-31 01:00", "2024-03-31 02:00"),  # opens when 02:30 was leapt over
        ("01:00", "02:30", "2024-03-31 00:00", "2024-03-31 01:00"),  # and closes so
    ],
)
def test_in_spring_a_skipped_time_is_the_moment_of_the_change(start: str, end: str, opens: str, closes: str) -> None:
    """Berlin, 2024-03-31: 02:00 becomes 03:00 at 01:00 UTC."""
    window = Window(start=start, end=end, timezone="Europe/Berlin")
    assert not is_open([window], utc(opens) - 1)
    assert is_open([window], utc(opens))
    assert closes_at([window], utc(opens)) == utc(closes)


def test_in_spring_a_window_within_the_skipped_hour_is_left_out() -> None:
    """There is no such time on that day; the next day has it again."""
    window = Window(start="02:15", end="02:45", timezone="Europe/Berlin")
    assert not any(is_open([window], utc("2024-03-31 00:00") + minute * 60) for minute in range(24 * 60))
    assert next_opening([window], utc("2024-03-31 00:00")) == utc("2024-04-01 00:15")


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("22:00", "04:00", "2024-10-26 20:00", "2024-10-27 03:00"),  # an hour longer
        ("02:15", "02:45", "2024-10-27 00:15", "2024-10-27 00:45"),  # once, not twice
        ("02:30", "03:30", "2024-10-27 00:30", "2024-10-27 02:30"),
        ("01:00", "02:30", "2024-10-26 23:00", "2024-10-27 00:30"),
    ],
)
def test_in_autumn_a_time_that_comes_twice_counts_once(start: str, end: str, opens: str, closes: str) -> None:
    """Berlin, 2024-10-27: 03:00 becomes 02:00 at 01:00 UTC. A window ends when its end is first shown."""
    window = Window(start=start, end=end, timezone="Europe/Berlin")
    assert not is_open([window], utc(opens) - 1)
    assert is_open([window], utc(opens))
    assert closes_at([window], utc(opens)) == utc(closes)
    assert not is_open([window], utc(closes))


def test_without_windows_it_is_always_open() -> None:
    """No window means no restriction, and there is nothing to wait for."""
    assert is_open([], 0.0)
    assert next_opening([], 0.0) is None
    assert closes_at([], 0.0) is None


def test_a_closed_window_closes_now() -> None:
    """Nothing is left of it."""
    window = Window(days=(Weekday.MON,), start="10:00", end="11:00")
    assert closes_at([window], utc("2024-05-07 10:30")) == utc("2024-05-07 10:30")


def test_openings_follow_each_other() -> None:
    """Asking again at each opening walks through the week."""
    window = Window(days=(Weekday.MON, Weekday.THU), start="22:00", end="04:00", timezone="Europe/Berlin")
    now, found = utc("2024-05-06 00:00"), []
    for _ in range(4):
        opening = next_opening([window], now)
        assert opening is not None
        found.append(opening)
        now = opening
    shown = [datetime.fromtimestamp(one, zoneinfo.ZoneInfo("Europe/Berlin")).strftime("%a %d %H:%M") for one in found]
    assert shown == ["Mon 06 22:00", "Thu 09 22:00", "Mon 13 22:00", "Thu 16 22:00"]
    assert all(first < second for first, second in pairwise(found))


def test_the_blocker_says_when_the_next_window_opens_in_its_own_time_zone() -> None:
    """People read local time; the daemon sleeps until then."""
    clock = Clocks(epoch=utc("2024-05-07 10:00"))
    blocker = WindowBlocker([Window(start="22:00", end="04:00", timezone="Europe/Berlin")], [], clock)
    verdict = blocker.check()
    assert (verdict.blocked, verdict.by) == (True, "windows: the next opens Tue 2024-05-07 22:00 CEST")
    clock.sleep(verdict.again_seconds)
    assert blocker.check().blocked is False
    assert (blocker.name, blocker.late) == ("window", False)


def test_a_time_zone_that_cannot_be_looked_up_blocks() -> None:
    """An image without time zone data must not reboot nodes at noon."""
    verdict = WindowBlocker([Window(timezone="Atlantis/Capital")], [], Clocks()).check()
    assert verdict.blocked is True
    assert "Atlantis/Capital" in verdict.by


# -- days of a month ---------------------------------------------------------------------------------------------------

CALENDAR = st.dates(date(2024, 1, 1), date(2040, 12, 31))


def noon(day: date) -> float:
    return datetime.combine(day, time(12), UTC).timestamp()


@given(CALENDAR, st.sets(st.sampled_from(tuple(WeekOfMonth)), min_size=1))
def test_a_week_of_the_month_is_counted_by_its_weekday(day: date, weeks: set[WeekOfMonth]) -> None:
    """The second Tuesday is the second Tuesday that the month has, whatever day it began with."""
    same = [one for number in range(1, 32) if (one := _day_of(day, number)) and one.weekday() == day.weekday()]
    nth = tuple(WeekOfMonth)[same.index(day)]
    expected = nth in weeks or (day == same[-1] and WeekOfMonth.LAST in weeks)
    assert is_open([Window(weeks=tuple(weeks))], noon(day)) is expected


def _day_of(month: date, number: int) -> date | None:
    try:
        return month.replace(day=number)
    except ValueError:
        return None


@given(CALENDAR, st.sets(st.integers(1, 31), min_size=1))
def test_a_day_of_the_month_opens_by_its_number(day: date, days: set[int]) -> None:
    """And only then."""
    assert is_open([Window(days_of_month=tuple(days))], noon(day)) is (day.day in days)


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        (Window(days=(Weekday.TUE,), weeks=(WeekOfMonth.SECOND,)), "2026-11-12", "2026-12-08"),
        (Window(days=(Weekday.FRI,), weeks=(WeekOfMonth.LAST,)), "2026-11-28", "2026-12-25"),
        (Window(days=(Weekday.MON,), weeks=(WeekOfMonth.FIFTH,)), "2026-12-01", "2027-03-29"),
        (Window(days_of_month=(31,)), "2027-01-31 12:00", "2027-03-31"),
        (Window(days=(Weekday.FRI,), days_of_month=(13,)), "2026-11-14", "2027-08-13"),
        (Window(days=(Weekday.MON,), days_of_month=(29,), weeks=(WeekOfMonth.FIFTH,)), "2027-04-01", "2027-11-29"),
    ],
)
def test_the_next_opening_is_found_however_far_it_is(window: Window, now: str, opens: str) -> None:
    """Months ahead."""
    assert next_opening([window], utc(now)) == utc(opens)


def test_a_window_that_never_opens_has_no_next_opening() -> None:
    """No month has a fifth week that begins on its first day; the blocker says so instead of searching without end."""
    never = Window(days_of_month=(1,), weeks=(WeekOfMonth.FIFTH,))
    assert next_opening([never], utc("2026-01-01")) is None
    verdict = WindowBlocker([never], [], Clocks()).check()
    assert (verdict.blocked, verdict.again_seconds) == (True, 0.0)


# -- blackouts ---------------------------------------------------------------------------------------------------------


@given(CALENDAR, CALENDAR, CALENDAR, st.booleans())
def test_a_blackout_holds_on_its_dates_and_no_others(first: date, last: date, day: date, yearly: bool) -> None:
    """Both ends included; without a year it holds every year, and may go around the year's end."""
    if not yearly and last < first:
        first, last = last, first
    cut = 5 if yearly else 0
    blackout = Blackout(start=first.isoformat()[cut:], end=last.isoformat()[cut:])
    if yearly:
        start, end, shown = ((one.month, one.day) for one in (first, last, day))
        expected = start <= shown <= end if start <= end else not end < shown < start
    else:
        expected = first <= day <= last
    assert is_open([], noon(day), [blackout]) is not expected


@given(st.data())
def test_the_next_opening_lies_in_a_window_and_in_no_blackout(data: st.DataObject) -> None:
    """And nothing is open before it."""
    name, near = data.draw(near_changes)
    some = data.draw(st.lists(windows(name), max_size=2))
    start = near + timedelta(days=data.draw(st.integers(-5, 5)))
    end = start + timedelta(days=data.draw(st.integers(0, 5)))
    dark = [Blackout(start=start.isoformat(), end=end.isoformat(), timezone=data.draw(zones))]
    now = data.draw(moments(near))
    opening = next_opening(some, now, dark)
    if is_open(some, now, dark):
        closing = closes_at(some, now, dark)
        until = now + 7 * 86400 if closing is None else closing
        assert all(is_open(some, between, dark) for between in sampled(now, until))
        assert closing is None or not is_open(some, closing, dark)
    else:
        assert opening is not None
        assert opening > now
        assert is_open(some, opening, dark)
        assert not any(is_open(some, between, dark) for between in sampled(now, opening))


def test_a_blackout_of_a_day_that_its_time_zone_skips_closes_nothing() -> None:
    """Samoa crossed the date line: after 2011-12-29 came 2011-12-31."""
    skipped = Blackout(start="2011-12-30", timezone="Pacific/Apia")
    assert closes_at([], utc("2011-12-30 00:00"), [skipped]) is None
    both = Blackout(start="2011-12-30", end="2011-12-31", timezone="Pacific/Apia")
    assert closes_at([], utc("2011-12-30 00:00"), [both]) == utc("2011-12-30 10:00")


def test_a_blackout_is_named_with_its_dates_and_reason() -> None:
    """And when the node may reboot again, in the time zone that the blackout is written in."""
    clock = Clocks(epoch=utc("2026-12-24 12:00"))
    freeze = Blackout(start="12-20", end="01-02", reason="year end", timezone="Europe/Berlin")
    verdict = WindowBlocker([], [freeze], clock).check()
    assert verdict.by == "blackout 12-20 to 01-02 (year end): the next opens Sun 2027-01-03 00:00 CET"
    clock.sleep(verdict.again_seconds)
    assert WindowBlocker([], [freeze], clock).check().blocked is False


def test_a_blackout_without_an_end_of_its_own_is_one_day() -> None:
    """`start` alone."""
    dark = [Blackout(start="2026-12-24")]
    assert [is_open([], utc(f"2026-12-{day} 12:00"), dark) for day in (23, 24, 25)] == [True, False, True]


def test_a_year_of_blackouts_never_opens() -> None:
    """Said so, and not searched without end."""
    verdict = WindowBlocker([], [Blackout(start="01-01", end="12-31")], Clocks()).check()
    assert verdict.by == "blackout 01-01 to 12-31, and no window opens after it"
