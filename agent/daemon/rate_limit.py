"""Limits how often a node that changes all the time starts a pass."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

_BURST = 10  # passes that may follow each other immediately
_WINDOW_SECONDS = 60.0
_SLOW_SECONDS = 5.0


class RateLimiter:
    """When the next pass may and must begin. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float], interval_seconds: float, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._recent: deque[float] = deque(maxlen=_BURST)
        self._due = 0.0
        self.interval_seconds = interval_seconds

    def began(self) -> None:
        """A pass begins. The next is due after the interval, plus or minus a tenth, so that nodes spread out."""
        now = self._clock()
        self._recent.append(now)
        self._due = now + self.interval_seconds * self._rng.uniform(0.9, 1.1)

    def until_due_seconds(self) -> float:
        """Until the next full pass."""
        return max(self._due - self._clock(), 0.0)

    def hold_seconds(self) -> float:
        """How long to delay a pass that a change started: zero, unless there were many lately."""
        now = self._clock()
        busy = len(self._recent) == _BURST and now - self._recent[0] < _WINDOW_SECONDS
        return max(self._recent[-1] + _SLOW_SECONDS - now, 0.0) if busy else 0.0
