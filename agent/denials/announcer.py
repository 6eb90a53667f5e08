"""Which denials become an Event on their pod: the first of a row, then at most one in ten minutes, few for a node.

Pure. A container that is refused all day must not fill the API server's etcd with Events about it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from agent.denials.table import ROWS, Key

EVERY_SECONDS: Final = 600.0
AN_HOUR: Final = 60  # Events of a node
_HOUR_SECONDS = 3600.0


class Announcer:
    """Decides; in memory for as many rows as there are."""

    def __init__(self) -> None:
        self._last: dict[Key, float] = {}
        self._recent: deque[float] = deque(maxlen=AN_HOUR)

    def is_due(self, key: Key, now: float) -> bool:
        """Whether this denial is announced. now: monotonic seconds."""
        if now - self._last.get(key, -_HOUR_SECONDS) < EVERY_SECONDS:
            return False
        if len(self._recent) == AN_HOUR and now - self._recent[0] < _HOUR_SECONDS:
            return False
        self._last.pop(key, None)
        self._last[key] = now
        if len(self._last) > ROWS:
            del self._last[next(iter(self._last))]
        self._recent.append(now)
        return True
