"""A package run writes the sentinel before it has ended: the sentinel has to stay unchanged for a while first.

The time is the agent's own monotonic clock since it first read this state, so a file's date decides nothing.
"""

from __future__ import annotations

from agent.reboot.interfaces import BlockerResult, Clock, Sentinel


class SettleBlocker:
    """Blocks until the sentinel has been the same for `sentinel.settle`, also when it changes during the drain."""

    name = "settle"
    late = True

    def __init__(self, sentinel: Sentinel, settle_seconds: float, clock: Clock) -> None:
        self._sentinel = sentinel
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._stamp = ""
        self._since = 0.0

    def check(self) -> BlockerResult:
        """Reads the sentinel. One that does not require a reboot (a request by annotation) has nothing to settle."""
        reading = self._sentinel.read()
        if not reading.required:
            self._stamp = ""
            return BlockerResult(blocked=False)
        now = self._clock.monotonic()
        if reading.stamp != self._stamp:
            self._stamp, self._since = reading.stamp, now
        rest = self._settle_seconds - (now - self._since)
        if rest <= 0:
            return BlockerResult(blocked=False)
        by = f"sentinel changed {now - self._since:.0f}s ago, has to stay unchanged for {self._settle_seconds:g}s"
        return BlockerResult(blocked=True, by=by, again_seconds=rest)
