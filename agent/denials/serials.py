"""How many records the kernel made and this reader did not get, from the gaps in their serial numbers.

The kernel numbers every event, whatever type, and several records may share a number. Two processors may hand their
records over in the other order, so a number that comes late is taken off the count again. Exact for an overflow of the
socket and for the kernel's rate limit, which gives numbers to what it drops.
"""

from __future__ import annotations

_REMEMBERED = 4096
_LATEST = 1 << 31  # a step of more is the counter's wrap, or another boot


class Serials:
    """Counts. lost: events that were numbered and never came. newest: the last one that came; None before the first."""

    def __init__(self) -> None:
        self.lost = 0
        self.newest: int | None = None
        self._missing: dict[int, None] = {}

    def observe(self, serial: int) -> None:
        """One record's number. The first one is where counting begins."""
        newest = self.newest
        if newest is None or abs(serial - newest) >= _LATEST:
            self.newest = serial
            self._missing.clear()
        elif serial > newest:
            self.newest = serial
            if serial > newest + 1:
                self.lost += serial - newest - 1
                self._remember(range(max(newest + 1, serial - _REMEMBERED), serial))
        elif serial < newest and self._missing.pop(serial, 0) is None:
            self.lost -= 1

    def _remember(self, numbers: range) -> None:
        self._missing.update(dict.fromkeys(numbers))
        for old in list(self._missing)[: max(len(self._missing) - _REMEMBERED, 0)]:
            del self._missing[old]
