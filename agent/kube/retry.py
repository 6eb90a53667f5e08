"""How long and how often a request is tried, and the delays in between.

Which requests may be sent twice at all is decided in request.py.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up. seconds: one deadline for the whole request, waits included. attempts: at most."""

    seconds: float = 30.0
    attempts: int = 100
    connect_seconds: float = 4.0
    read_seconds: float = 15.0  # an eviction that meets a conflict is answered only after ten
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 8.0


class Backoff:
    """Delays that double up to a limit, each drawn between half and the whole, so that nodes spread."""

    def __init__(self, first_seconds: float, longest_seconds: float, chance: random.Random) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._chance = chance
        self._tries = 0

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now. at_least: what the server requested; up to a quarter is added at random."""
        whole = min(self._longest, self._first * 2.0 ** min(self._tries, 16))
        self._tries += 1
        delay = self._chance.uniform(whole / 2, whole)
        return delay if at_least is None else max(delay, at_least * self._chance.uniform(1.0, 1.25))

    def reset(self) -> None:
        self._tries = 0
