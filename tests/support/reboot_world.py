"""A small cluster in memory and in virtual time, behind the coordinator's ports: compare-and-swap, watches, machines.

It stands for the API server, the kubelets and the hardware. What may go wrong at a call is decided by a Trouble that is
handed in, so that the crash replays and the random simulation run over the same world. It keeps the books that the
invariants are checked against, from the outside: who cordoned what, who evicted, who went down and under which lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, TypeVar

from agent.errors import CommandFailed, CommandTimeout
from agent.kube.errors import Conflict, NotFound, Operation, Unreachable
from agent.reboot.cluster import FIELD_MANAGER, STATE, LeasePhase, LeaseView, Member, NodePatch, NodeView
from agent.reboot.ports import (
    Announcement,
    DrainMode,
    Ended,
    HookProgress,
    HookStage,
    Progress,
    ProofReading,
    SentinelReading,
    Tick,
    Verdict,
)
from agent.reboot.state import Phase, decode

T = TypeVar("T")
_OPERATION = Operation("GET", "any", "any", "the simulated API server", "/")
HUMAN = "kubectl-cordon"


class Crash(BaseException):
    """The agent's process dies at this very point."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Trouble:
    """What goes wrong at a call. This one lets everything pass."""

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        """Before the effect; raises what the caller gets instead."""

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        """After the effect; what is raised here is a lost answer, or a crash that follows the effect."""

    def is_stale(self, machine: SimMachine) -> bool:
        """Whether a watched read is behind."""
        return machine.reads_late


def away(*, ambiguous: bool = False) -> Unreachable:
    """The API server does not answer."""
    return Unreachable(_OPERATION, "connection refused", ambiguous=ambiguous)


def conflict() -> Conflict:
    """A 409."""
    return Conflict(_OPERATION, "the object has been modified", status=409, reason="Conflict")


class CommandFate(Enum):
    """What the next reboot command does."""

    WORKS = auto()
    FAILS = auto()
    HANGS = auto()
    NOTHING = auto()


@dataclass(slots=True)
class Books:
    """What happened, as an outsider saw it."""

    cordons: list[tuple[float, str]] = field(default_factory=list)
    evictions: int = 0
    commands: list[tuple[float, str]] = field(default_factory=list)
    boots: list[tuple[float, str]] = field(default_factory=list)
    events: dict[str, Announcement] = field(default_factory=dict)
    heard: list[tuple[float, str, Announcement]] = field(default_factory=list)
    ended: list[tuple[str, Ended]] = field(default_factory=list)
    requests: int = 0
    ticks: int = 0

    def reasons(self) -> list[str]:
        """Reasons of all Events as the API server has them (a key twice is one), in order."""
        return [announcement.reason.value for announcement in self.events.values()]


class World:
    """Virtual time, nodes and leases."""

    def __init__(self, *, slots: int = 1, trouble: Trouble | None = None) -> None:
        self.now = 0.0
        self.slots = slots
        self.trouble = trouble or Trouble()
        self.nodes: dict[str, NodeView] = {}
        self.older_nodes: dict[str, tuple[float, NodeView]] = {}
        self.leases: dict[str, LeaseView] = {}
        self.older_leases: dict[str, tuple[float, str, LeaseView]] = {}
        self.renewed: dict[str, float] = {}
        self.machines: dict[str, SimMachine] = {}
        self.books = Books()
        self.log: list[str] | None = None
        self.trusts_versions = True  # False is a broken API server, to prove that we would notice
        self.gives_lost_holders_up = False  # the policy `onLostHolder: release`
        self._revision = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    # -- time ----------------------------------------------------------------------------------------------------------

    def at(self, when: float, run: Callable[[], None]) -> None:
        """Something happens at that moment."""
        self._sequence += 1
        heapq.heappush(self._events, (max(when, self.now), self._sequence, run))

    def step(self) -> bool:
        """The next thing happens; False when nothing is left."""
        if not self._events:
            return False
        when, _, run = heapq.heappop(self._events)
        self.now = max(self.now, when)
        run()
        return True

    def pass_time(self, seconds: float) -> None:
        """Everything that happens within so many seconds."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.step()
        self.now = max(self.now, end)

    def note(self, text: str) -> None:
        """A line for who replays a schedule."""
        if self.log is not None:
            self.log.append(f"{self.now:10.2f} {text}")

    # -- objects -------------------------------------------------------------------------------------------------------

    def revision(self) -> str:
        """The next resourceVersion."""
        self._revision += 1
        return str(self._revision)

    def add_machine(self, name: str, labels: Mapping[str, str] | None = None) -> SimMachine:
        """A node that is up, Ready and without any wish."""
        machine = SimMachine(self, name, f"uid-{name}")
        self.machines[name] = machine
        self.nodes[name] = NodeView(
            name, machine.uid, self.revision(), ready=True, boot_id=machine.boot_id(), labels=dict(labels or {})
        )
        return machine

    def set_node(self, view: NodeView) -> NodeView:
        """A write that has passed."""
        old = self.nodes.get(view.name)
        view = replace(view, version=self.revision())
        if old is not None:
            self.older_nodes[view.name] = (self.now, old)
        self.nodes[view.name] = view
        return view

    def human_cordons(self, name: str, *, cordon: bool) -> None:
        """`kubectl cordon` and `uncordon`; both do nothing where it is so already."""
        view = self.nodes.get(name)
        if view is None or view.unschedulable == cordon:
            return
        self.note(f"{name}: a human {'cordons' if cordon else 'uncordons'}")
        self.set_node(replace(view, unschedulable=cordon, unschedulable_by=HUMAN if cordon else ""))
        self.machines[name].wake()

    def annotate(self, name: str, key: str, value: str | None) -> None:
        """`kubectl annotate node`."""
        view = self.nodes[name]
        annotations = {k: v for k, v in view.annotations.items() if k != key}
        if value is not None:
            annotations[key] = value
        self.set_node(replace(view, annotations=annotations))
        self.machines[name].wake()

    def set_lease(self, lease: LeaseView, by: str) -> LeaseView:
        """A write that has passed; whoever waits for the pool's lock is woken by its watch."""
        old = self.leases.get(lease.name)
        lease = replace(lease, version=self.revision())
        if old is not None:
            self.older_leases[lease.name] = (self.now, by, old)
        self.leases[lease.name] = lease
        if old is None or (old.holder, old.phase, old.stuck) != (lease.holder, lease.phase, lease.stuck):
            self.note(f"{lease.name}: {lease.holder or 'free'} {lease.phase.value}")
            for machine in self.machines.values():
                if machine.name != by and machine.waits:
                    machine.wake()
        return lease

    def phase_of(self, name: str) -> Phase:
        """What the node's note says."""
        view = self.nodes.get(name)
        return decode(view.annotations.get(STATE, "")).phase if view else Phase.UNKNOWN

    def pool_down(self, machine: SimMachine) -> list[str]:
        """Machines of the same pool that went, or are going, down because we said so."""
        return [m.name for m in self.machines.values() if m.going_down and m.pool == machine.pool]


class SimMachine:
    """One node's hardware, kubelet and agent process, and the agent's ports to all of it."""

    def __init__(self, world: World, name: str, uid: str) -> None:
        self.world = world
        self.name = name
        self.uid = uid
        self.pool = "workers"
        self.boots = 0
        self.booted_at = 0.0
        self.wall_offset = 1_700_000_000.0
        self.up = True
        self.going_down = False
        self.epoch = 0  # of the agent's process; a scheduled tick of an older one is void
        self.busy_epoch = -1
        self.waits = False
        self.agent: Callable[[], Tick] | None = None
        self.next_tick = float("inf")
        self.wanted = False
        self.sentinel_unknown = False
        self.stamp = ""
        self.sticky_sentinel = False
        self.fate = CommandFate.WORKS
        self.fate_of_hooks: dict[HookStage, str] = {}
        self.hooks_run: list[tuple[HookStage, str]] = []
        self.down_seconds = 60.0
        self.shutdown_seconds = 5.0
        self.kubelet_seconds = 5.0
        self.pods = 2
        self.pods_left = 2
        self.pdb_until = 0.0
        self.verified: bool | None = True
        self.blocked_by = ""
        self.last_tick: Tick | None = None
        self.last_write = 0.0
        self.has_kubelet = True
        self.reads_late = False
        self.is_late = False

    @property
    def identity(self) -> str:
        """As the holder of a lease."""
        return f"{self.name}/{self.uid}"

    # -- the agent's process -------------------------------------------------------------------------------------------

    def start_agent(self, agent: Callable[[], Tick], after: float = 0.0) -> None:
        """A new process."""
        self.epoch += 1
        self.agent = agent
        self.next_tick = float("inf")
        self.is_late = False
        self.schedule(after)

    def stop_agent(self) -> None:
        """The process is gone."""
        self.epoch += 1
        self.agent = None
        self.waits = False
        self.next_tick = float("inf")

    def schedule(self, after: float) -> None:
        """A tick after so many seconds, unless one comes earlier anyway."""
        when = self.world.now + after
        if self.agent is None or when >= self.next_tick:
            return
        self.next_tick = when
        epoch = self.epoch
        self.world.at(when, lambda: self._due(epoch, when))

    def wake(self, after: float = 0.05) -> None:
        """Something that the daemon watches has changed."""
        self.schedule(after)

    def _due(self, epoch: int, when: float) -> None:
        if epoch != self.epoch or when != self.next_tick:
            return
        self.next_tick = float("inf")
        if self.busy_epoch == epoch:  # the process hangs in a call: it ticks when that is over
            self.is_late = True
            return
        self.tick()

    def tick(self) -> Tick | None:
        """One tick of the process; None when it died in it."""
        agent, epoch = self.agent, self.epoch
        if agent is None:
            return None
        self.busy_epoch = epoch
        self.world.books.ticks += 1
        try:
            tick = agent()
        except Crash:
            if epoch == self.epoch:
                self.stop_agent()
                self.crashed()
            return None
        if epoch != self.epoch:
            return None
        self.busy_epoch = -1
        if self.world.log is not None and (self.last_tick is None or self.last_tick.sentence != tick.sentence):
            self.world.note(f"{self.name}: [{tick.phase}] {tick.sentence}")
        self.last_tick = tick
        self.waits = tick.phase in ("waiting", "blocked", "wanted")
        if tick.phase != "idle" or tick.wait_seconds == 0:
            self.schedule(max(tick.wait_seconds, 0.01))
        if self.is_late:
            self.is_late = False
            self.schedule(0.01)
        return tick

    def crashed(self) -> None:
        """What follows a crash; the simulation starts another process."""

    # -- hardware ------------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """From one moment to the next."""
        if not self.up:
            return
        self.world.note(f"{self.name}: down")
        self.up = False
        self.has_kubelet = False
        self.stop_agent()
        boots = self.boots
        self.world.at(self.world.now + 50.0, lambda: self._not_ready(boots))
        self.world.at(self.world.now + self.down_seconds, self.power_on)

    def _not_ready(self, boots: int) -> None:
        """The node lifecycle controller's grace period."""
        view = self.world.nodes.get(self.name)
        if view is not None and (not self.has_kubelet or self.boots != boots) and not self.has_kubelet:
            self.world.set_node(replace(view, ready=None))

    def power_on(self) -> None:
        """Another boot."""
        self.world.note(f"{self.name}: up")
        self.up = True
        self.boots += 1
        self.booted_at = self.world.now
        self.world.books.boots.append((self.world.now, self.name))
        self.pods_left = self.pods
        if not self.sticky_sentinel:
            self.wanted = False
        boots = self.boots
        self.world.at(self.world.now + self.kubelet_seconds, lambda: self._kubelet_up(boots))

    def _kubelet_up(self, boots: int) -> None:
        if self.boots != boots or not self.up:
            return
        self.going_down = False
        self.has_kubelet = True
        view = self.world.nodes.get(self.name)
        if view is not None and view.uid == self.uid:
            self.world.set_node(replace(view, ready=True, boot_id=self.boot_id()))
        self.came_up()

    def came_up(self) -> None:
        """The kubelet runs: the simulation starts the agent."""

    def want(self, stamp: str) -> None:
        """The sentinel appears."""
        self.wanted = True
        self.stamp = stamp
        self.wake(0.1)

    # -- the ports: clock, machine, sentinel, proof, blocker -----------------------------------------------------------

    def monotonic(self) -> float:
        return self.world.now - self.booted_at

    def wall(self) -> float:
        return self.world.now + self.wall_offset

    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boots}"

    def kernel_release(self) -> str:
        return f"6.1.0-{self.boots}"

    def read_sentinel(self) -> SentinelReading:
        if self.sentinel_unknown:
            return SentinelReading(None, problem="no such folder")
        return SentinelReading(True, "linux-image", self.stamp) if self.wanted else SentinelReading(False)

    # -- the port: cluster ---------------------------------------------------------------------------------------------

    def call(self, kind: str, effect: Callable[[], T], *, write: bool = False) -> T:
        """One request, with all that may go wrong with it."""
        self.world.books.requests += 1
        epoch = self.epoch
        self.world.trouble.before(self, kind, write=write)
        if epoch != self.epoch:
            raise Crash
        found = effect()
        self.world.trouble.after(self, kind, write=write)
        if epoch != self.epoch:
            raise Crash
        return found

    def node(self) -> NodeView | None:
        view = self.world.nodes.get(self.name)
        if view is not None and self.world.trouble.is_stale(self):
            at, older = self.world.older_nodes.get(self.name, (0.0, view))
            if self.last_write < at > self.world.now - 5.0:
                return older
        return view

    def patch_node(self, patch: NodePatch, version: str) -> NodeView:
        return self.call("patch_node", lambda: self._patch_node(patch, version), write=True)

    def _patch_node(self, patch: NodePatch, version: str) -> NodeView:
        view = self.world.nodes.get(self.name)
        if view is None:
            raise NotFound(_OPERATION, "no such node", status=404, reason="NotFound")
        if view.version != version and self.world.trusts_versions:
            raise conflict()
        self.last_write = self.world.now
        annotations = dict(view.annotations)
        _merge(annotations, patch.annotations)
        labels = dict(view.labels)
        _merge(labels, patch.labels)
        changed = replace(view, annotations=annotations, labels=labels)
        if patch.taints is not None:
            changed = replace(changed, taints=patch.taints)
        if patch.unschedulable is not None and patch.unschedulable != view.unschedulable:
            changed = self._cordoned(changed, view, cordon=patch.unschedulable)
        return self.world.set_node(changed)

    def _cordoned(self, changed: NodeView, view: NodeView, *, cordon: bool) -> NodeView:
        if not cordon and view.unschedulable_by != FIELD_MANAGER:
            raise Violation(f"{self.name}: the cordon of {view.unschedulable_by} was undone")
        if cordon:
            self.world.books.cordons.append((self.world.now, self.name))
        self.world.note(f"{self.name}: {'cordoned' if cordon else 'uncordoned'} by the agent")
        return replace(changed, unschedulable=cordon, unschedulable_by=FIELD_MANAGER if cordon else "")

    def read_leases(self, names: Sequence[str]) -> tuple[LeaseView, ...]:
        found = []
        stale = self.world.trouble.is_stale(self)
        for name in names:
            lease = self.world.leases.get(name) or LeaseView(name)
            if stale and name in self.world.older_leases:
                at, by, older = self.world.older_leases[name]
                if by != self.name and at > max(self.last_write, self.world.now - 5.0):
                    lease = older
            found.append(lease)
        return tuple(found)

    def put_lease(self, lease: LeaseView) -> LeaseView:
        return self.call("put_lease", lambda: self._put_lease(lease), write=True)

    def _put_lease(self, lease: LeaseView) -> LeaseView:
        stored = self.world.leases.get(lease.name)
        if (stored.version if stored else "") != lease.version and self.world.trusts_versions:
            raise conflict()
        self.last_write = self.world.now
        if stored is not None and stored.holder and lease.holder not in ("", stored.holder):
            self._check_takeover(stored, lease)
        if lease.holder == self.identity:
            self.world.renewed[lease.name] = self.world.now
        return self.world.set_lease(lease, self.name)

    def _check_takeover(self, stored: LeaseView, lease: LeaseView) -> None:
        """Only from who is gone for good, or was silent for the whole duration and cannot be on its way down."""
        name, _, uid = stored.holder.rpartition("/")
        view = self.world.nodes.get(name)
        if view is None or view.uid != uid:
            return
        if stored.phase is LeasePhase.REBOOTING and not self.world.gives_lost_holders_up:
            raise Violation(f"{lease.holder} took the lock from {name}, which may be on its way down")
        silent = self.world.now - self.world.renewed[stored.name]
        if silent < stored.duration_seconds:
            raise Violation(f"{lease.holder} took the lock from {name}, which was heard {silent:.0f} s ago")

    def members(self) -> Iterator[Member]:
        views = self.call("list_nodes", lambda: list(self.world.nodes.values()))
        return (Member(v.name, v.uid, bool(v.ready), v.unschedulable, v.labels) for v in views)

    def count(self) -> int:
        return self.call("count", lambda: len(self.world.nodes))

    def uid_of(self, node: str) -> str | None:
        def read() -> str | None:
            view = self.world.nodes.get(node)
            return view.uid if view else None

        return self.call("get_node", read)

    def heartbeat(self) -> str:
        def read() -> str:
            if not self.has_kubelet:
                return f"{self.boots}-0"
            return f"{self.boots}-{int((self.world.now - self.booted_at) / 10.0)}"

        return self.call("get_heartbeat", read)

    # -- the ports: drain, hooks, power, reporter ----------------------------------------------------------------------

    def drain_step(self, mode: DrainMode, may_go_on: Callable[[], bool]) -> Progress:
        blocked = self.world.now < self.pdb_until
        while self.pods_left and may_go_on() and (not blocked or mode is DrainMode.DELETE):
            self.check_lock("evicts")
            self.call("evict", self._evict, write=True)
        left = self.pods_left
        return Progress(
            total=self.pods,
            left=left,
            evicted=self.pods - left,
            waiting_for=tuple(f"shop/web-{i}" for i in range(left)),
            blocked_by=("shop/web (Deployment web)",) if left and blocked else (),
            done=not left,
            wait_seconds=5.0 if not blocked else 20.0,
        )

    def _evict(self) -> None:
        self.world.books.evictions += 1
        self.pods_left = max(0, self.pods_left - 1)

    def check_lock(self, act: str) -> LeaseView:
        """No act on the node without the lock, by the server's book."""
        for lease in self.world.leases.values():
            if lease.holder == self.identity:
                return lease
        raise Violation(f"{self.name} {act} without the lock")

    def reboot(self) -> None:
        world = self.world
        lease = self.check_lock("reboots")
        if lease.phase is not LeasePhase.REBOOTING:
            raise Violation(f"{self.name} reboots behind a lock that is not fenced")
        others = [name for name in world.pool_down(self) if name != self.name]
        if len(others) + 1 > world.slots:
            raise Violation(f"{self.name} goes down while {', '.join(others)} is down: {world.slots} slots")
        world.books.commands.append((world.now, self.name))
        fate, self.fate = self.fate, CommandFate.WORKS
        world.note(f"{self.name}: reboot command {fate.name}")
        if fate is CommandFate.FAILS:
            raise CommandFailed(("/usr/bin/systemctl", "reboot"), 1, "Failed to connect to bus")
        if fate is not CommandFate.NOTHING:
            self.going_down = True
            boots = self.boots
            world.at(world.now + self.shutdown_seconds, lambda: self.power_off() if self.boots == boots else None)
        if fate is CommandFate.HANGS:
            raise CommandTimeout(("/usr/bin/systemctl", "reboot"), "no answer within 30 s")

    def run_hooks(self, stage: HookStage, cycle: str) -> HookProgress:
        self.hooks_run.append((stage, cycle))
        error = self.fate_of_hooks.get(stage, "")
        return HookProgress(done=not error, error=error)

    def heard(self, announcement: Announcement) -> None:
        self.world.books.heard.append((self.world.now, self.name, announcement))
        if announcement.key not in self.world.books.events:
            self.world.books.events[announcement.key] = announcement
            self.world.note(f"{self.name}: EVENT {announcement.reason.value}: {announcement.message}")
            self.overheard(announcement)

    def overheard(self, announcement: Announcement) -> None:
        """Somebody reads the Event: the simulation's people react to some."""

    def has_ended(self, ended: Ended) -> None:
        self.world.books.ended.append((self.name, ended))


def _merge(into: dict[str, Any], patch: Mapping[str, str | None]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value


# -- the machine's fronts, one small class each ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterOf:
    """The cluster port of a machine."""

    machine: SimMachine

    def node(self) -> NodeView | None:
        return self.machine.call("node", self.machine.node)

    def patch_node(self, patch: NodePatch, version: str) -> NodeView:
        return self.machine.patch_node(patch, version)

    def leases(self, names: Sequence[str]) -> tuple[LeaseView, ...]:
        return self.machine.call("leases", lambda: self.machine.read_leases(names))

    def put_lease(self, lease: LeaseView) -> LeaseView:
        return self.machine.put_lease(lease)

    def members(self) -> Iterator[Member]:
        return self.machine.members()

    def count(self) -> int:
        return self.machine.count()

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
class ProofOf:
    machine: SimMachine

    def read(self) -> ProofReading:
        return ProofReading(self.machine.verified, "" if self.machine.verified else "modprobe/sctp")


@dataclass(frozen=True, slots=True)
class BlockerOf:
    machine: SimMachine
    name: str = "prometheus"
    late: bool = True

    def check(self) -> Verdict:
        return Verdict(bool(self.machine.blocked_by), self.machine.blocked_by)


@dataclass(frozen=True, slots=True)
class DrainOf:
    machine: SimMachine

    def step(self, mode: DrainMode, may_go_on: Callable[[], bool]) -> Progress:
        return replace(self.machine.drain_step(mode, may_go_on), mode=mode)

    def emptied(self) -> bool:
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
class PowerOf:
    machine: SimMachine

    def reboot(self) -> None:
        self.machine.call("reboot", self.machine.reboot)


@dataclass(frozen=True, slots=True)
class ReporterOf:
    machine: SimMachine

    def tick(self, tick: Tick) -> None:
        pass

    def event(self, announcement: Announcement) -> None:
        self.machine.call("event", lambda: self.machine.heard(announcement))

    def flush(self, seconds: float, *, people: bool = False) -> None:  # noqa: ARG002 - trouble decides how long it takes
        self.machine.call("event", lambda: None)

    def ended(self, ended: Ended) -> None:
        self.machine.has_ended(ended)
