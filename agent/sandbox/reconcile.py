"""What the emulated controllers share: they are notified of changes, and run once when several came together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from agent.sandbox.catalog import Resource
from agent.sandbox.store import Change, Store

DELAY_SECONDS = 0.02


class Reconciler:
    """Runs ``act`` shortly after anything of ``resources`` changed; changes that come meanwhile are one."""

    def __init__(
        self,
        store: Store,
        resources: Iterable[Resource],
        act: Callable[[], None],
        relevant: Callable[[Change], bool] = lambda _: True,
    ) -> None:
        """``relevant`` leaves out the changes that cannot matter. Nothing runs before ``start``."""
        self._store = store
        self._resources = tuple(resources)
        self._act = act
        self._relevant = relevant
        self._timer: asyncio.TimerHandle | None = None
        self._closers: list[Callable[[], None]] = []

    def start(self) -> None:
        """Listen, and look once."""
        self._closers = [self._store.listen(resource, self._heard) for resource in self._resources]
        self.poke()

    def close(self) -> None:
        """Listen no more."""
        for closer in self._closers:
            closer()
        if self._timer is not None:
            self._timer.cancel()

    def poke(self) -> None:
        """Look soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._run)

    def _heard(self, change: Change) -> None:
        if self._relevant(change):
            self.poke()

    def _run(self) -> None:
        self._timer = None
        self._act()
