"""What one pass over the node may cost: bytes, directory entries, listings, processes, values and seconds.

Everything on a node may be as large, as many or as slow as an attacker likes. A pass makes one budget and reads through
`Host.within(budget)`; what goes over it raises BudgetExceeded, which becomes an unknown finding with that reason. It
refuses to be extended: a pass that has spent its budget reads nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from agent.errors import HostError

ARGUMENTS_BYTES = 64 << 10  # a command line, or a file of arguments
CONFIG_BYTES = 512 << 10  # a YAML or JSON configuration file; a ConfigMap holds 1 MiB at most
UNIT_BYTES = 64 << 10
CERTIFICATE_BYTES = 64 << 10
PASS_SECONDS = 10.0


class Resource(StrEnum):
    """What is counted, as a message names it."""

    BYTES = "bytes"
    ENTRIES = "directory entries"
    LISTINGS = "directories"
    PROCESSES = "processes"
    VALUES = "configuration values"


LIMITS: Mapping[Resource, int] = {
    Resource.BYTES: 8 << 20,
    Resource.ENTRIES: 16_384,
    Resource.LISTINGS: 512,
    Resource.PROCESSES: 65_536,
    Resource.VALUES: 40_000,
}


class BudgetExceeded(HostError):
    """One pass would read more than it may. The message names the limit and what was to be read."""


class Budget:
    """The budget of one pass, used by one thread. limits: per resource. seconds: from now on, by a monotonic clock."""

    def __init__(
        self, limits: Mapping[Resource, int] = LIMITS, *, seconds: float = PASS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._left = dict(limits)
        self._limits = limits
        self._seconds, self._clock = seconds, clock
        self._deadline = clock() + seconds

    def spend(self, resource: Resource, amount: int, what: str) -> None:
        """Takes `amount` for reading `what`. Raises BudgetExceeded."""
        self.check_time(what)
        self._left[resource] -= amount
        if self._left[resource] < 0:
            raise BudgetExceeded(f"{what}: not read, one pass reads at most {self._limits[resource]} {resource.value}")

    def check_time(self, what: str) -> None:
        """Raises BudgetExceeded when the pass has taken too long."""
        if self._clock() > self._deadline:
            raise BudgetExceeded(f"{what}: not read, one pass takes at most {self._seconds:g} s")
