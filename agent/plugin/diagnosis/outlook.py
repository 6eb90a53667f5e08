"""When a pool's last pending node will be done, calculated from the windows and the durations of its reboots.

Pure: moments are seconds since the epoch. A reboot may only begin while a window is open and may end outside of it, as
in the daemon. It refuses to give a moment that is unknown: windows that never open, an end that is years away.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from agent.config.schema import Window
from agent.reboot.blockers.window import closes_at, is_open, next_opening

HAND_OVER_SECONDS = 3.0  # from a released lock to the next node's cordon; docs/performance.md
HORIZON_SECONDS = 366 * 86400.0
_CAUTIOUS_SHARE = 0.9
_WEEK_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a node's policy decides when it may begin. release_seconds: how long it then keeps its lock."""

    windows: tuple[Window, ...] = ()
    release_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Roll:
    """What one pool has to do.

    pending: how many nodes have not begun, by the rules that they have. under_way: seconds since each of the others
    took its lock. slots: how many may be in a cycle at the same time. gap_seconds: least time between the end of one
    and the lock of the next. last_reboot: moment, 0 for never.
    """

    pending: Mapping[Rules, int]
    under_way: tuple[float, ...] = ()
    slots: int = 1
    gap_seconds: float = 0.0
    last_reboot: float = 0.0


@dataclass(frozen=True, slots=True)
class CycleTime:
    """How long a cycle takes, by so many that were recorded. typical: the median. cautious: the 90th percentile."""

    recorded: int
    typical: float
    cautious: float


@dataclass(frozen=True, slots=True)
class Finish:
    """When the last one is done. at: a moment, None when unknown, with the reason in `why`."""

    at: float | None
    why: str = ""


def cycle_time(seconds: Sequence[float]) -> CycleTime | None:
    """What recorded cycles say about the next; None when there are none."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    return CycleTime(len(ranked), median(ranked), ranked[math.ceil(_CAUTIOUS_SHARE * len(ranked)) - 1])


def finish(roll: Roll, cycle_seconds: float, now: float) -> Finish:
    """When the last node of the roll is done, if every cycle takes so long. Raises ZoneInfoNotFoundError."""
    last = now
    for _, end in cycles(roll, cycle_seconds, now):
        if end == math.inf:
            return Finish(None, "the windows never open")
        if end - now > HORIZON_SECONDS:
            return Finish(None, "that is more than a year away")
        last = max(last, end)
    return Finish(last)


def cycles(roll: Roll, cycle_seconds: float, now: float) -> Iterator[tuple[float, float]]:
    """(begin, end) of every cycle, in the order in which they begin; those under way first.

    Where the windows never open again, one last cycle without an end.
    """
    ends = []
    for elapsed in roll.under_way:
        end = now + max(0.0, cycle_seconds - elapsed)
        ends.append(end)
        yield now - elapsed, end
    # Of more than there are slots, as many have to end first as are too many.
    free = [now] * max(0, roll.slots - len(ends)) + sorted(ends)[-roll.slots :]
    heapq.heapify(free)
    last_ends = [roll.last_reboot, *ends]
    begin = now
    queue = _Queue(roll.pending, now)
    while queue:
        begin, rules = queue.pop(max(begin, heapq.heappop(free)), roll.gap_seconds, last_ends)
        if begin == math.inf:
            yield begin, begin
            return
        end = begin + cycle_seconds + rules.release_seconds
        heapq.heappush(free, end + HAND_OVER_SECONDS)
        last_ends = [one for one in last_ends if one + roll.gap_seconds > begin] + [end]
        yield begin, end


class _Queue:
    """Nodes that have not begun. The next is one that may begin first."""

    def __init__(self, pending: Mapping[Rules, int], now: float) -> None:
        self._groups = [(rules, Calendar(rules.windows)) for rules in pending]
        self._left = list(pending.values())
        # A begin that was calculated for a group before: it can only become later.
        self._begins = [(now, number) for number, left in enumerate(self._left) if left > 0]

    def __len__(self) -> int:
        return len(self._begins)

    def pop(self, moment: float, gap: float, ends: Sequence[float]) -> tuple[float, Rules]:
        """When the next node begins, not before this moment, and its rules. Moments must not descend."""
        while True:
            earlier, number = heapq.heappop(self._begins)
            rules, calendar = self._groups[number]
            begin = _first_begin(max(moment, earlier), gap, ends, calendar)
            if self._begins and begin > max(moment, self._begins[0][0]):
                heapq.heappush(self._begins, (begin, number))
                continue
            self._left[number] -= 1
            if self._left[number]:
                heapq.heappush(self._begins, (begin, number))
            return begin, rules


def _first_begin(begin: float, gap: float, ends: Sequence[float], calendar: Calendar) -> float:
    """The first moment from `begin` on that gap and windows allow; infinite when there is none."""
    begin = _rested(begin, gap, ends)
    while begin < math.inf and (opened := calendar.open_from(begin)) > begin:
        begin = _rested(opened, gap, ends)
    return begin


def _rested(begin: float, gap: float, ends: Sequence[float]) -> float:
    """The first moment from `begin` on that is at least the gap after every end before it."""
    if gap > 0:
        for end in sorted(ends):
            if end <= begin < end + gap:
                begin = end + gap
    return begin


class Calendar:
    """The windows: the interval that was found last answers most lookups."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = tuple(windows)
        self._opens = math.inf
        self._closes = -math.inf

    def open_from(self, moment: float) -> float:
        """The first moment from this one on at which a window is open; infinite when none ever is."""
        if not self._windows:
            return moment
        if not self._opens <= moment < self._closes:
            opens: float | None = moment if is_open(self._windows, moment) else next_opening(self._windows, moment)
            if opens is None:
                return math.inf
            closes = closes_at(self._windows, opens)
            self._opens, self._closes = opens, opens + _WEEK_SECONDS if closes is None else closes
        return max(moment, self._opens)
