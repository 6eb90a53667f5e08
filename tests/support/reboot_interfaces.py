"""The coordinator's ports to a simulated machine, one small class each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.reboot.cluster import LeaseView, NodePatch, NodeView
from agent.reboot.interfaces import (
    Announcement,
    BlockerResult,
    CycleResult,
    Drained,
    DrainMode,
    HardeningReading,
    HookProgress,
    HookStage,
    Progress,
    SentinelReading,
    Tick,
)
from tests.support.reboot_machine import SimMachine


@dataclass(frozen=True, slots=True)
class ClusterOf:
    """The cluster port of a machine."""

    machine: SimMachine

    def node(self) -> NodeView | None:
        return self.machine.call("node", self.machine.node)

    def patch_node(self, patch: NodePatch, version: str) -> NodeView:
        return self.machine.patch_node(patch, version)

    def leases(self, names: Sequence[str], *, follow: bool) -> tuple[LeaseView, ...]:  # noqa: ARG002
        return self.machine.call("leases", lambda: self.machine.read_leases(names))

    def put_lease(self, lease: LeaseView) -> LeaseView:
        return self.machine.put_lease(lease)

    def mark_lease(self, lease: LeaseView, by: str) -> LeaseView:
        return self.machine.put_lease(replace(lease, stuck=by))

    def members(self) -> Iterator[NodeView]:
        return self.machine.members()

    def count(self) -> int:
        return self.machine.count()

    def can_patch_lease(self, name: str) -> bool:
        return self.machine.can_patch_lease(name)

    def uid_of(self, node: str) -> str | None:
        return self.machine.uid_of(node)

    def heartbeat(self) -> str:
        return self.machine.heartbeat()


@dataclass(frozen=True, slots=True)
class SentinelOf:
    machine: SimMachine

    def read(self) -> SentinelReading:
        return self.machine.read_sentinel()


@dataclass(frozen=True, slots=True)
class HardeningOf:
    machine: SimMachine

    def read(self) -> HardeningReading:
        verified = self.machine.verified
        return HardeningReading(verified, "" if verified else "modprobe/sctp", failing=int(verified is False))


@dataclass(frozen=True, slots=True)
class BlockerOf:
    machine: SimMachine
    name: str = "prometheus"
    late: bool = True

    def check(self) -> BlockerResult:
        return self._result(self.machine.blocked_by or self.machine.alerts_of_drain)

    def check_after_drain(self, _drained: Drained) -> BlockerResult:
        return self._result(self.machine.blocked_by)

    def _result(self, by: str) -> BlockerResult:
        return BlockerResult(bool(by), by)


@dataclass(frozen=True, slots=True)
class DrainOf:
    machine: SimMachine

    def step(self, mode: DrainMode, may_continue: Callable[[], bool]) -> Progress:
        return replace(self.machine.drain_step(mode, may_continue), mode=mode)

    def has_changed(self) -> bool:
        return False

    def reset(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class HooksOf:
    machine: SimMachine

    def step(self, stage: HookStage, cycle: str) -> HookProgress:
        return self.machine.run_hooks(stage, cycle)

    def reset(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class RebooterOf:
    machine: SimMachine

    def reboot(self) -> None:
        self.machine.call("reboot", self.machine.reboot)


@dataclass(frozen=True, slots=True)
class ReporterOf:
    machine: SimMachine

    def tick(self, tick: Tick) -> None:
        pass

    def writing(self) -> None:
        pass

    def event(self, announcement: Announcement) -> None:
        self.machine.call("event", lambda: self.machine.heard(announcement))

    def flush(self, seconds: float, *, notifications: bool = False) -> None:  # noqa: ARG002 - trouble decides how long it takes
        self.machine.call("event", lambda: None)

    def cycle_ended(self, result: CycleResult) -> None:
        self.machine.has_ended(result)
