"""What the emulated controllers share: they are notified of changes, and run once when several came together."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from agent.sandbox.catalog import Resource
from agent.sandbox.registry import Registry
from agent.sandbox.store import Change

DELAY_SECONDS = 0.02


class Controller(ABC):
    """Runs ``reconcile`` shortly after anything of ``resources`` changed; changes that come meanwhile are one."""

    def __init__(self, registry: Registry, resources: Iterable[Resource]) -> None:
        """Nothing runs before ``start``."""
        self._registry = registry
        self._resources = tuple(resources)
        self._timer: asyncio.TimerHandle | None = None
        self._closers: list[Callable[[], None]] = []

    def start(self) -> None:
        """Listen, and look once."""
        self._closers = [self._registry.store.listen(resource, self.heard) for resource in self._resources]
        self._look_soon()

    def close(self) -> None:
        """Listen no more."""
        for closer in self._closers:
            closer()
        if self._timer is not None:
            self._timer.cancel()

    @abstractmethod
    def reconcile(self) -> None:
        """Bring the cluster to what it should be."""

    def heard(self, change: Change) -> None:  # noqa: ARG002 - those that override it look at the change
        """Something changed; overridden where not every change matters."""
        self._look_soon()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._run)

    def _run(self) -> None:
        self._timer = None
        self.reconcile()
