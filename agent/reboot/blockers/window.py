"""When a reboot may begin: windows by day, time of day and time zone, and blackout dates.

A window is an interval between two moments: it opens when the clock on the wall first shows `start` on one of its days,
and closes when that clock next shows `end` for the first time, on the next day where `end` is not later than `start`.
A start or end that a clock change skips is the moment of the change. So an hour that comes twice never opens a window
twice, one that is left out never moves a window, and whole days leave no gap at midnight. A blackout is whole days.
Pure; moments are seconds since the epoch. It refuses to know the machine's own time zone.
"""

from __future__ import annotations

import calendar
import itertools
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from agent.config.choices import Weekday, WeekOfMonth
from agent.config.schema import Blackout, Window
from agent.reboot.interfaces import BlockerResult, Clock
from agent.text import sanitize

_DAYS = tuple(Weekday)  # Monday first, as date.weekday() counts
_WEEKS = tuple(WeekOfMonth)  # first to fifth, then last
_WEEK_SECONDS = 7 * 86400
# 29 February on a given weekday comes every 28 years, and once after 40; what comes later does not come.
_FARTHEST_DAYS = 41 * 366


def is_open(windows: Sequence[Window], now: float, blackouts: Sequence[Blackout] = ()) -> bool:
    """Whether any window is open. No windows at all: always, but in a blackout. Raises ZoneInfoNotFoundError."""
    if blackout_at(blackouts, now) is not None:
        return False
    return not windows or any(opens <= now < closes for window in windows for opens, closes in _near(window, now))


def next_opening(windows: Sequence[Window], now: float, blackouts: Sequence[Blackout] = ()) -> float | None:
    """The first moment after now at which a window opens, or a blackout in an open one ends; None: never."""
    if not windows:
        ends = _after_blackouts(blackouts, now)
        return ends if ends is not None and ends > now else None
    found = (_first_opening(window, now, blackouts) for window in windows)
    return min((opens for opens in found if opens is not None), default=None)


def closes_at(windows: Sequence[Window], now: float, blackouts: Sequence[Blackout] = ()) -> float | None:
    """When no window is open any more: now, when none is; None when that is more than a week away."""
    starts = [start for one in blackouts if (start := _next_start(one, now)) is not None]
    limit = now if blackout_at(blackouts, now) is not None else min(starts, default=float("inf"))
    until = now if windows else float("inf")
    near = sorted(found for window in windows for found in itertools.islice(_intervals(window, now), 10))
    for opens, closes in near:
        if opens <= until:
            until = max(until, closes)
    until = min(until, limit)
    return until if until - now <= _WEEK_SECONDS else None


def blackout_at(blackouts: Sequence[Blackout], now: float) -> Blackout | None:
    """The blackout that holds now. Raises ZoneInfoNotFoundError."""
    return next((one for one in blackouts if _is_blacked_out(one, _day(now, one.timezone))), None)


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ZoneInfoNotFoundError where the machine has no data for it."""
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _day(now: float, timezone: str) -> date:
    return datetime.fromtimestamp(now, zone(timezone)).date()


def _near(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """The intervals that may hold this moment: a window that opened yesterday may still be open, none lasts longer."""
    return itertools.takewhile(lambda interval: interval[0] <= now, _intervals(window, now))


def _intervals(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """Every (opening, closing) from yesterday on, in order, empty ones left out."""
    where = zone(window.timezone)
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    today = _day(now, window.timezone)
    for offset in range(-1, _FARTHEST_DAYS):
        day = today + timedelta(days=offset)
        if not _is_day_of(window, day):
            continue
        opens = first_occurrence(day, start, where)
        closes = first_occurrence(day + timedelta(days=1) if end <= start else day, end, where)
        if opens < closes:
            yield opens, closes


def _is_day_of(window: Window, day: date) -> bool:
    if _DAYS[day.weekday()] not in window.days:
        return False
    if window.days_of_month and day.day not in window.days_of_month:
        return False
    last = day.day + 7 > calendar.monthrange(day.year, day.month)[1]
    nth = _WEEKS[(day.day - 1) // 7]
    return not window.weeks or nth in window.weeks or (last and WeekOfMonth.LAST in window.weeks)


def _first_opening(window: Window, now: float, blackouts: Sequence[Blackout]) -> float | None:
    for opens, closes in _intervals(window, now):
        begins = _after_blackouts(blackouts, opens)
        if begins is None:
            return None
        # A blackout that begins and ends while the window is open lets it open a second time.
        again = _after_blackouts(blackouts, now) if opens <= now < closes else None
        for moment in (begins, again):
            if moment is not None and now < moment < closes:
                return moment
    return None


def _after_blackouts(blackouts: Sequence[Blackout], now: float) -> float | None:
    """The first moment from now on without a blackout; None where they never leave one."""
    moment = now
    for _ in range(_FARTHEST_DAYS):
        holds = blackout_at(blackouts, moment)
        if holds is None:
            return moment
        moment = first_occurrence(_day(moment, holds.timezone) + timedelta(days=1), time(), zone(holds.timezone))
    return None


def _next_start(blackout: Blackout, now: float) -> float | None:
    """When a blackout begins, within a week from now."""
    today = _day(now, blackout.timezone)
    for offset in range(1, 9):
        day = today + timedelta(days=offset)
        begins = first_occurrence(day, time(), zone(blackout.timezone))
        # Where a time zone crosses the date line it skips a whole day: Pacific/Apia had no 2011-12-30.
        if _is_blacked_out(blackout, day) and _day(begins, blackout.timezone) == day:
            return begins
    return None


def _is_blacked_out(blackout: Blackout, day: date) -> bool:
    """Dates compare as text. Those without a year may go around its end."""
    start, end = blackout.start, blackout.end or blackout.start
    shown = day.isoformat()[-len(start) :]
    return start <= shown <= end if start <= end else shown >= start or shown <= end


def first_occurrence(day: date, at: time, where: tzinfo) -> float:
    """When the wall clock first shows this time of this day; a skipped one is the moment of the clock change."""
    local = datetime.combine(day, at)
    first = local.replace(tzinfo=where, fold=0).timestamp()
    if datetime.fromtimestamp(first, where).replace(tzinfo=None) == local:
        return first
    # In a gap, fold=0 reckons with the offset before it and lands behind the change, fold=1 the other way round.
    # Source: PEP 495, "Invalid time". The change lies in between, on a whole second.
    before, after = int(local.replace(tzinfo=where, fold=1).timestamp()), int(first)
    old = datetime.fromtimestamp(before, where).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, where).utcoffset() == old:
            before = middle
        else:
            after = middle
    return float(after)


class WindowBlocker:
    """Blocks while no window is open. Asked before the lock and before the cordon: a drain under way continues."""

    name = "window"
    late = False

    def __init__(self, windows: Sequence[Window], blackouts: Sequence[Blackout], clock: Clock) -> None:
        self._windows = tuple(windows)
        self._blackouts = tuple(blackouts)
        self._clock = clock

    def check(self) -> BlockerResult:
        """Names the next opening, in the time zone of its window."""
        now = self._clock.wall()
        try:
            if is_open(self._windows, now, self._blackouts):
                return BlockerResult(blocked=False)
            why = self._reason(now)
            opening = next_opening(self._windows, now, self._blackouts)
            if opening is None:
                return BlockerResult(blocked=True, by=f"{why}, and no window opens after it")
            shown = datetime.fromtimestamp(opening, self._zone_of(opening, now)).strftime("%a %Y-%m-%d %H:%M %Z")
        except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError, OverflowError) as error:
            return BlockerResult(blocked=True, by=f"windows unknown: {error}")
        return BlockerResult(blocked=True, by=f"{why}: the next opens {shown}", again_seconds=opening - now)

    def _zone_of(self, opening: float, now: float) -> tzinfo:
        """The time zone of the window that opens then, or of the blackout that ends."""
        names = [one.timezone for one in self._windows if _first_opening(one, now, self._blackouts) == opening]
        return zone((names or [one.timezone for one in self._blackouts])[0])

    def _reason(self, now: float) -> str:
        blackout = blackout_at(self._blackouts, now)
        if blackout is None:
            return "windows"
        dates = blackout.start + (f" to {blackout.end}" if blackout.end else "")
        return f"blackout {dates}" + (f" ({sanitize(blackout.reason, 80)})" if blackout.reason else "")
