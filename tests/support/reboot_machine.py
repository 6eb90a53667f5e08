"""One simulated node: its hardware, its kubelet, its agent's process, and every call that the agent makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from agent.annotations import FIELD_MANAGER
from agent.errors import AgentError, CommandFailed, CommandTimeout, HostError
from agent.reboot.cluster import LeasePhase, LeaseView, NodePatch, NodeView
from agent.reboot.interfaces import (
    Announcement,
    CycleResult,
    DrainMode,
    HookProgress,
    HookStage,
    Progress,
    SentinelReading,
    Tick,
)
from agent.reboot.phases import Phase
from tests.support.reboot_trouble import CommandFate, Crash, Violation, conflict, not_found, refused

if TYPE_CHECKING:
    from tests.support.reboot_world import World

T = TypeVar("T")
_RETRY_SECONDS = 120.0  # an agent tries again within this whatever was refused
_EVICTIONS_OF_RETURNING = 2
_LEASE_SECONDS = 60.0


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
        self.shutdown_unknown = False
        self.kubelet_seconds = 5.0
        self.pods = 2
        self.pods_left = 2
        self.pdb_until = 0.0
        self.verified: bool | None = True
        self.alerts = ""  # fires while the node is cordoned by its agent: "about the node" or "elsewhere"
        self.returning = 0  # pods that their owner places here again
        self.evicted_again = 0
        self.cordoned_at: float | None = None
        self.deadline_seconds = float("inf")  # of a cordon, before the command
        self.unpatched_at = 0.0  # when the own Node could not be read or patched last
        self._blocked_by = ""
        self.last_tick: Tick | None = None
        self.last_write = 0.0
        self.has_kubelet = True
        self.lock_taken_at = float("-inf")  # by a user's hand: what was being evicted may end
        self.reads_late = False
        self.is_late = False

    @property
    def identity(self) -> str:
        """As the holder of a lease."""
        return f"{self.name}/{self.uid}"

    @property
    def blocked_by(self) -> str:
        """What fires, also after the drain and whatever it caused."""
        is_elsewhere = self.cordoned_at is not None and self.alerts == "elsewhere"
        return self._blocked_by or ("alert StorageDegraded" if is_elsewhere else "")

    @blocked_by.setter
    def blocked_by(self, by: str) -> None:
        self._blocked_by = by

    @property
    def alerts_of_drain(self) -> str:
        """What the cordon of the own agent sets off."""
        return "alert KubeNodeUnschedulable" if self.cordoned_at is not None and self.alerts else ""

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
        began = self.world.now
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
        if self.world.log is not None and (
            self.last_tick is None or self.last_tick.status.sentence != tick.status.sentence
        ):
            self.world.note(f"{self.name}: [{tick.status.phase}] {tick.status.sentence}")
        self.last_tick = tick
        self._check_deadline(tick, began)
        self.waits = tick.status.phase in (Phase.WAITING, Phase.BLOCKED, Phase.PENDING)
        if tick.status.phase is not Phase.IDLE or tick.wait_seconds < 300.0:  # idle nodes wait for events alone
            self.schedule(max(tick.wait_seconds, 0.01))
        if self.is_late:
            self.is_late = False
            self.schedule(0.01)
        return tick

    def _check_deadline(self, tick: Tick, began: float) -> None:
        """A cordon of the agent's that outlives its deadlines, although the Node could be patched."""
        if self.cordoned_at is None or tick.status.phase not in (Phase.CORDONED, Phase.DRAINING):
            return
        deadline = max(self.cordoned_at + self.deadline_seconds, self.unpatched_at + _RETRY_SECONDS)
        if began > deadline and self.world.nodes[self.name].unschedulable_by == FIELD_MANAGER:
            raise Violation(f"{self.name}'s cordon outlives its deadlines: {tick.status.sentence}")

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
        self.evicted_again = 0
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

    def is_shutting_down(self) -> bool:
        if self.shutdown_unknown:
            raise HostError("systemctl is-system-running: no state")
        return self.going_down

    def read_sentinel(self) -> SentinelReading:
        if self.sentinel_unknown:
            return SentinelReading(None, problem="no such folder")
        return SentinelReading(True, "linux-image", self.stamp) if self.wanted else SentinelReading(False)

    # -- the port: cluster ---------------------------------------------------------------------------------------------

    def call(self, kind: str, effect: Callable[[], T], *, write: bool = False) -> T:
        """One request, with all that may go wrong with it."""
        self.world.books.requests += 1
        epoch = self.epoch
        try:
            self.world.trouble.before(self, kind, write=write)
            if epoch != self.epoch:
                raise Crash
            found = effect()
            self.world.trouble.after(self, kind, write=write)
        except AgentError:
            if kind in ("node", "patch_node"):
                self.unpatched_at = self.world.now
            raise
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
            raise not_found("no such node")
        if view.version != version and self.world.trusts_versions:
            raise conflict()
        if patch.unschedulable and self.name in self.world.forbidden_cordons:
            raise refused(403)
        if self.world.refused_keys & (patch.labels.keys() | patch.annotations.keys()):
            raise refused(self.world.refusal)
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
        self.cordoned_at = self.world.now if cordon else None
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

    def members(self) -> Iterator[NodeView]:
        return iter(self.call("list_nodes", lambda: list(self.world.nodes.values())))

    def count(self) -> int:
        return self.call("count", lambda: len(self.world.nodes))

    def can_patch_lease(self, name: str) -> bool:
        return self.call("review", lambda: name not in self.world.forbidden_leases)

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

    def drain_step(self, mode: DrainMode, may_continue: Callable[[], bool]) -> Progress:
        blocked = self.world.now < self.pdb_until
        while self.pods_left and may_continue() and (not blocked or mode is DrainMode.DELETE):
            self.check_lock("evicts")
            self.call("evict", self._evict, write=True)
            if self.evicted_again:
                break  # it is here again with the next step
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
        if 0 < self.pods_left <= self.returning and self.evicted_again < _EVICTIONS_OF_RETURNING:
            self.evicted_again += 1
        else:
            self.pods_left = max(0, self.pods_left - 1)

    def check_lock(self, act: str) -> LeaseView:
        """No act on the node without the lock, by the server's book."""
        for lease in self.world.leases.values():
            if lease.holder == self.identity:
                return lease
        if act == "evicts" and self.world.now - self.lock_taken_at < _LEASE_SECONDS:
            return LeaseView("")
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

    def has_ended(self, ended: CycleResult) -> None:
        self.world.books.ended.append((self.name, ended))


def _merge(into: dict[str, Any], patch: Mapping[str, str | None]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value
