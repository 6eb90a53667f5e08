"""A small cluster in memory and in virtual time, behind the coordinator's ports: compare-and-swap, watches, machines.

It stands for the API server, the kubelets and the hardware. What may go wrong at a call is decided by a Trouble that is
handed in, so that the crash replays and the random simulation run over the same world. It keeps the books that the
invariants are checked against, from the outside: who cordoned what, who evicted, who went down and under which lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.annotations import REBOOT_STATE
from agent.kube.errors import Operation
from agent.reboot.cluster import LeaseView, NodeView
from agent.reboot.phases import Phase
from agent.reboot.state import decode
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import Books, Trouble

_OPERATION = Operation("GET", "any", "any", "the simulated API server", "/")
HUMAN = "kubectl-cordon"


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
        self.forbidden_leases: set[str] = set()
        self.forbidden_cordons: set[str] = set()
        self.refused_keys: set[str] = set()  # labels and annotations of Nodes
        self.refusal = 422  # its status
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
        self.machines[name].cordoned_at = None
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

    def delete_lease(self, name: str) -> None:
        """`kubectl delete lease`."""
        self.leases.pop(name)
        self.older_leases.pop(name, None)
        for machine in self.machines.values():
            if machine.waits:
                machine.wake()

    def phase_of(self, name: str) -> Phase:
        """What the node's note says."""
        view = self.nodes.get(name)
        return decode(view.annotations.get(REBOOT_STATE, "")).phase if view else Phase.UNKNOWN

    def pool_down(self, machine: SimMachine) -> list[str]:
        """Machines of the same pool that went, or are going, down because we said so."""
        return [m.name for m in self.machines.values() if m.going_down and m.pool == machine.pool]
