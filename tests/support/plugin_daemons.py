"""The fronts that a staged daemon works with: the daemon's own reporter, and a machine that looks like Debian.

Nothing of the format of what is shown is written here; the daemon's NodeReporter does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from structlog.testing import capture_logs

from agent.daemon.reboot_thread import NodeReporter
from agent.reboot.interfaces import Announcement, CycleResult, DrainMode, Progress, SentinelReading, Tick
from agent.reboot.status import BudgetRef
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.report.notify import Notifier
from agent.report.publisher import NodePublisher
from tests.support.reboot_machine import SimMachine

NAMESPACE = "node-hardening"
_SLOWEST_SECONDS = 40.0


class Captured:
    """A publisher that keeps what the node should show."""

    def __init__(self) -> None:
        self.parts: dict[str, NodeView] = {}

    def offer(self, part: str, shown: NodeView) -> None:
        """As NodePublisher's."""
        self.parts[part] = shown

    def record(self, _event: object) -> None:
        """Events are not looked at here."""


class Spoken:
    """A machine's reporter: the daemon's own NodeReporter, behind it a Captured."""

    def __init__(self, machine: SimMachine) -> None:
        self.captured = Captured()
        self.machine = machine
        publisher: NodePublisher = self.captured  # type: ignore[assignment] # NodeReporter uses these two calls
        self._reporter = NodeReporter(
            publisher, Metrics(), Notifier(()), node=machine.name, namespace=NAMESPACE, clock=machine
        )

    def tick(self, tick: Tick) -> None:
        """Shown as the daemon shows it."""
        with capture_logs():
            self._reporter.tick(tick)

    def writing(self) -> None:
        """Nothing waits to be written."""

    def event(self, announcement: Announcement) -> None:
        """To the world's books."""
        self.machine.heard(announcement)

    def flush(self, seconds: float, *, notifications: bool = False) -> None:
        """Nothing is queued."""

    def cycle_ended(self, result: CycleResult) -> None:
        """To the world's books."""
        self.machine.has_ended(result)


@dataclass(frozen=True, slots=True)
class SentinelOf:
    """The sentinel with packages for a reason, as unattended-upgrades leaves it."""

    machine: SimMachine

    def read(self) -> SentinelReading:
        """The machine's."""
        found = self.machine.read_sentinel()
        return replace(found, reason=self.machine.stamp) if found.required else found


class DrainOf:
    """The machine's drain, whose last pod takes its time."""

    def __init__(self, machine: SimMachine) -> None:
        self._machine = machine
        self._began: float | None = None

    def step(self, mode: DrainMode, may_continue: Callable[[], bool]) -> Progress:
        """The machine's, with the slowest pod as the real one tells it."""
        machine = self._machine
        began = self._began = machine.world.now if self._began is None else self._began
        found = machine.drain_step(mode, may_continue) if machine.world.now >= began + _SLOWEST_SECONDS else None
        if found is None or machine.world.now < machine.pdb_until:
            held = machine.drain_step(mode, lambda: False)
            budgets = (BudgetRef("shop", "web", "Deployment web"),) if machine.world.now < machine.pdb_until else ()
            return replace(held, left=held.total, evicted=0, mode=mode, budgets=budgets)
        slowest = f"shop/web-1 {machine.world.now - began:.0f} s"
        return replace(found, mode=mode, slowest=slowest if found.done else "")

    def has_changed(self) -> bool:
        """Never before the next step."""
        return False

    def reset(self) -> None:
        """The cycle is over."""
        self._began = None


@dataclass(frozen=True, slots=True)
class KernelOf:
    """A machine's own answers, with kernels that are called as Debian calls them."""

    machine: SimMachine

    def boot_id(self) -> str:
        """The machine's."""
        return self.machine.boot_id()

    def kernel_release(self) -> str:
        """Another one with each boot."""
        return kernel_of(self.machine)

    def is_shutting_down(self) -> bool:
        """Never before it is down."""
        return False


def kernel_of(machine: SimMachine) -> str:
    """The kernel that a machine runs."""
    return f"6.1.0-{25 + machine.boots}-amd64"
