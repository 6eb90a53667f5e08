"""The margins of time that keep two nodes from being down together: each test fails when its margin is gone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.config import schema
from agent.config.choices import OnTimeout
from agent.config.schema import Reboot
from tests.support.reboot_agent import Agents
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import Trouble, away
from tests.support.reboot_world import World

POLICY = Reboot(drain=schema.Drain(timeout=120.0), reboot_timeout=300.0, verify_timeout=300.0)
DELETES = replace(POLICY, drain=schema.Drain(timeout=120.0, on_timeout=OnTimeout.DELETE))


def _machine(policy: Reboot = POLICY, trouble: Trouble | None = None) -> SimMachine:
    """A node whose agent runs and that needs a reboot."""
    world = World(trouble=trouble)
    machine = world.add_machine("n0")
    Agents(policy, random.Random(1)).on(machine)
    world.pass_time(2.0)
    machine.want("linux-image")
    return machine


class _SlowCall(Trouble):
    """One call of a kind takes long: the `number`th, counted from when the drain has begun."""

    def __init__(self, kind: str, number: int, seconds: float) -> None:
        self.kind, self.number, self.seconds = kind, number, seconds
        self.seen = 0
        self.writes_after: list[str] = []

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if self.seen >= self.number and write:
            self.writes_after.append(kind)
        if kind == self.kind and machine.world.books.evictions:
            self.seen += 1
            if self.seen == self.number:
                machine.world.pass_time(self.seconds)


def test_no_pod_is_evicted_once_two_thirds_of_the_lease_have_passed_without_renewal() -> None:
    """Others may take a Lease after 60 s. An eviction that took 41 s is followed by a renewal, not by an eviction."""
    trouble = _SlowCall("evict", 1, seconds=41.0)
    machine = _machine(trouble=trouble)
    machine.world.pass_time(200.0)
    assert trouble.writes_after[:2] == ["put_lease", "evict"]
    assert len(machine.world.books.boots) == 1


def test_pods_are_evicted_in_a_row_while_the_lease_is_fresh() -> None:
    """The other side of the same margin: 39 s are no reason to stop."""
    trouble = _SlowCall("evict", 1, seconds=39.0)
    machine = _machine(trouble=trouble)
    machine.world.pass_time(200.0)
    assert trouble.writes_after[:1] == ["evict"]


class _SlowFirstEventAfterTheFence(Trouble):
    """The first Event that follows the first fence takes longer than a quarter of the lease to be delivered."""

    def __init__(self) -> None:
        self.fences: list[float] = []
        self.hung = False

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - the interface
        if kind == "put_lease" and any(lease.phase == "rebooting" for lease in machine.world.leases.values()):
            self.fences.append(machine.world.now)
        if kind == "event" and self.fences and not self.hung:
            self.hung = True
            machine.world.pass_time(16.0)


def test_the_reboot_command_is_not_given_when_the_way_from_the_fence_took_long() -> None:
    """The node fences the Lease again and gives the command straight behind that."""
    trouble = _SlowFirstEventAfterTheFence()
    machine = _machine(trouble=trouble)
    machine.world.pass_time(60.0)
    ((command, _),) = machine.world.books.commands
    assert command - max(fence for fence in trouble.fences if fence <= command) < 15.0


def test_pods_are_deleted_for_a_second_timeout_before_the_drain_is_given_up() -> None:
    """drain.onTimeout delete: evictions that a budget refuses become deletions at the first timeout."""
    machine = _machine(DELETES)
    machine.pdb_until = 1e9
    machine.world.pass_time(600.0)
    assert len(machine.world.books.boots) == 1


def test_pods_that_cannot_be_deleted_end_the_drain_at_twice_the_timeout() -> None:
    """Not before, and not much later: the node is uncordoned, and nothing has rebooted."""

    class NoPodGoes(Trouble):
        def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - the interface
            if kind == "evict":
                raise away()

    machine = _machine(DELETES, NoPodGoes())
    cordoned = []
    for seconds in (220.0, 60.0):
        machine.world.pass_time(seconds)
        cordoned.append(machine.world.nodes["n0"].unschedulable)
    assert cordoned == [True, False]
    assert machine.world.books.commands == []


@pytest.mark.parametrize(("blocked_seconds", "reboots"), [(180.0, 1), (300.0, 0)])
def test_a_drained_node_waits_for_a_blocker_until_twice_the_timeout(blocked_seconds: float, reboots: int) -> None:
    """A blocker that appears during the drain and ends before that delays the reboot, and costs no second drain."""
    machine = _machine(replace(POLICY, delay=3.0))
    machine.world.pass_time(2.0)
    machine.blocked_by = "alert QueueFull"
    machine.world.pass_time(blocked_seconds)
    machine.blocked_by = ""
    machine.world.pass_time(30.0)
    assert len(machine.world.books.commands) == reboots
    assert machine.world.nodes["n0"].unschedulable is bool(reboots)
