"""When a reboot may begin: windows by weekday, time of day and time zone.

A window is an interval between two moments: it opens when the clock on the wall first shows `start` on one of its days,
and closes when that clock next shows `end` for the first time, on the next day where `end` is not later than `start`.
A start or end that a clock change skips is the moment of the change. So an hour that comes twice never opens a window
twice, one that is left out never moves a window, and whole days leave no gap at midnight.
Pure; moments are seconds since the epoch. It refuses to know the machine's own time zone.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from agent.config.schema import Weekday, Window
from agent.reboot.ports import Clock, Verdict

_DAYS = tuple(Weekday)  # Monday first, as date.weekday() counts
# A window that opened yesterday may still be open; none lasts longer than a day.
_DAYS_BACK = 1
# A window of one weekday that a clock change leaves out comes a week later.
_DAYS_AHEAD = 15


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether any window is open. No windows at all: always. Raises ZoneInfoNotFoundError."""
    return not windows or any(opens <= now < closes for opens, closes in _around(windows, now))


def next_opening(windows: Sequence[Window], now: float) -> float | None:
    """The first moment after now at which a window opens; None when there are no windows."""
    return min((opens for opens, _ in _around(windows, now) if opens > now), default=None)


def closes_at(windows: Sequence[Window], now: float) -> float | None:
    """When no window is open any more: now, when none is; None when that is more than a week away."""
    if not windows:
        return None
    until = now
    for opens, closes in sorted(_around(windows, now)):
        if opens <= until:
            until = max(until, closes)
    return until if until - now <= 7 * 86400 else None


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ZoneInfoNotFoundError where the machine has no data for it."""
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _around(windows: Sequence[Window], now: float) -> Iterator[tuple[float, float]]:
    """Every (opening, closing) that may matter at this moment, empty ones left out."""
    for window in windows:
        where = zone(window.timezone)
        today = datetime.fromtimestamp(now, where).date()
        start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
        for offset in range(-_DAYS_BACK, _DAYS_AHEAD):
            day = today + timedelta(days=offset)
            if _DAYS[day.weekday()] not in window.days:
                continue
            opens = moment_of(day, start, where)
            closes = moment_of(day + timedelta(days=1) if end <= start else day, end, where)
            if opens < closes:
                yield opens, closes


def moment_of(day: date, at: time, where: tzinfo) -> float:
    """When the wall clock first shows this time of this day; a skipped one is the moment of the clock change."""
    wanted = datetime.combine(day, at)
    first = wanted.replace(tzinfo=where, fold=0).timestamp()
    if datetime.fromtimestamp(first, where).replace(tzinfo=None) == wanted:
        return first
    # In a gap, fold=0 reckons with the offset before it and lands behind the change, fold=1 the other way round.
    # Source: PEP 495, "Invalid time". The change lies in between, on a whole second.
    before, after = int(wanted.replace(tzinfo=where, fold=1).timestamp()), int(first)
    old = datetime.fromtimestamp(before, where).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, where).utcoffset() == old:
            before = middle
        else:
            after = middle
    return float(after)


class WindowBlocker:
    """Blocks while no window is open. Asked before the lock and before the cordon: a drain under way goes on."""

    name = "window"
    late = False

    def __init__(self, windows: Sequence[Window], clock: Clock) -> None:
        self._windows = tuple(windows)
        self._clock = clock

    def check(self) -> Verdict:
        """Says when the next window opens, in that window's own time zone."""
        now = self._clock.wall()
        try:
            if is_open(self._windows, now):
                return Verdict(blocked=False)
            opening = next_opening(self._windows, now)
        except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError, OverflowError) as error:
            return Verdict(blocked=True, by=f"windows that cannot be told: {error}")
        if opening is None:
            return Verdict(blocked=True, by="windows that do not open")
        return Verdict(blocked=True, by=f"windows: the next opens {self._shown(opening)}", again_seconds=opening - now)

    def _shown(self, opening: float) -> str:
        window = next(one for one in self._windows if any(opens == opening for opens, _ in _around([one], opening)))
        return datetime.fromtimestamp(opening, zone(window.timezone)).strftime("%a %Y-%m-%d %H:%M %Z")
