"""A reboot command that fails: one RebootFailed, one roll-back, and no second drain within the back-off.

kured, tried on the same fault, drained the node three times within ten minutes.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from agent.annotations import REBOOT_STATE
from agent.config import schema
from agent.config.schema import Reboot
from agent.event_reasons import Reason
from agent.reboot.machine.transitions import NOT_REBOOTED
from agent.reboot.phases import Phase
from agent.reboot.state import NodeState, RolledBack, decode
from agent.reboot.status import StatusReason
from tests.support.reboot_agent import Agents
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import CommandFate, Trouble
from tests.support.reboot_world import World

POLICY = Reboot(retry_after=600.0, drain=schema.Drain(timeout=300.0))


class _AlwaysFails:
    """Every reboot command of the machine fails."""

    def __init__(self, machine: SimMachine) -> None:
        self.machine = machine

    def again(self) -> None:
        self.machine.fate = CommandFate.FAILS
        self.machine.world.at(self.machine.world.now + 1.0, self.again)


def _node_whose_command_fails(policy: Reboot = POLICY, *, trouble: Trouble | None = None) -> tuple[World, SimMachine]:
    world = World(trouble=trouble)
    machine = world.add_machine("n0")
    Agents(policy, random.Random(1)).on(machine)
    _AlwaysFails(machine).again()
    machine.want("first")
    return world, machine


def _count(world: World, reason: Reason) -> int:
    return world.books.reasons().count(reason.value)


def _note(world: World) -> NodeState:
    return decode(world.nodes["n0"].annotations[REBOOT_STATE])


def test_one_failure_one_roll_back_no_second_drain_within_the_back_off() -> None:
    """Within ten minutes of the failure nothing is drained again, whatever restarts meanwhile."""
    world, machine = _node_whose_command_fails()
    world.pass_time(60.0)
    evicted = world.books.evictions
    assert evicted == machine.pods
    for _ in range(8):  # the process ends and starts again, as kured's did
        machine.stop_agent()
        machine.crashed()
        world.pass_time(60.0)
    assert _count(world, Reason.REBOOT_FAILED) == 1
    assert _count(world, Reason.NODE_UNCORDONED) == 1
    assert [name for _, name in world.books.cordons] == ["n0"]
    assert (world.books.evictions, len(world.books.commands)) == (evicted, 1)
    assert not world.nodes["n0"].unschedulable
    assert all(not lease.holder for lease in world.leases.values())
    assert machine.last_tick is not None
    assert machine.last_tick.status.reason is StatusReason.ROLLED_BACK
    assert "the reboot command failed: systemctl" in machine.last_tick.status.sentence


def test_each_failure_doubles_the_back_off_up_to_a_day() -> None:
    """10 min, 20 min, 40 min … and never more than a day between two attempts."""
    world, _ = _node_whose_command_fails()
    world.pass_time(12 * 86400.0)
    cordons = [at for at, _ in world.books.cordons]
    gaps = [second - first for first, second in pairwise(cordons)]
    wanted = [min(86400.0, 600.0 * 2**n) for n in range(len(gaps))]
    assert [pytest.approx(want, abs=30.0) for want in wanted] == gaps
    assert gaps[-1] > 86000.0
    assert _count(world, Reason.REBOOT_FAILED) == len(cordons)


def test_the_back_off_survives_a_clock_that_jumps() -> None:
    """It is measured on the monotonic clock: a wall clock set a day ahead brings no drain forward."""
    world, machine = _node_whose_command_fails()
    world.pass_time(60.0)
    machine.wall_offset += 86400.0
    machine.stop_agent()
    machine.crashed()
    world.pass_time(400.0)
    assert len(world.books.cordons) == 1


def test_the_back_off_begins_again_after_another_boot() -> None:
    """A boot in between makes the old stamp worthless; the node is not drained at once because of that."""
    world, machine = _node_whose_command_fails()
    world.pass_time(60.0)
    machine.sticky_sentinel = True
    machine.power_off()
    world.pass_time(590.0)
    assert machine.boots == 1
    assert len(world.books.cordons) == 1
    assert _note(world).phase is Phase.ROLLED_BACK
    world.pass_time(600.0)
    assert len(world.books.cordons) == 2


def test_a_reboot_that_comes_after_the_roll_back_is_recorded() -> None:
    """The command was given and the machine stayed up too long: still a failure as long as it does, a reboot later."""
    world = World()
    machine = world.add_machine("n0")
    Agents(replace(POLICY, reboot_timeout=60.0), random.Random(1)).on(machine)
    machine.fate = CommandFate.NOTHING
    machine.want("first")
    world.pass_time(300.0)
    state = _note(world)
    assert isinstance(state, RolledBack)
    assert state.cause == NOT_REBOOTED
    machine.power_off()
    world.pass_time(300.0)
    after = _note(world)
    assert after.phase is Phase.IDLE
    assert after.done is not None
    assert len(world.books.commands) == 1


def test_a_sentinel_that_flickers_does_not_end_the_back_off() -> None:
    """Gone for a moment after the failure and there again: the node still waits."""
    world, machine = _node_whose_command_fails()
    world.pass_time(60.0)
    machine.wanted = False
    machine.wake()
    world.pass_time(5.0)
    assert _note(world).phase is Phase.IDLE
    machine.want("second")
    world.pass_time(500.0)
    assert len(world.books.cordons) == 1
    world.pass_time(700.0)
    assert len(world.books.cordons) == 2


def test_a_retry_whose_sentinel_flickers_is_still_a_retry() -> None:
    """Gone for a moment while the second attempt waits: its failure is the second in a row, and waits twice as long."""
    world, machine = _node_whose_command_fails()
    world.pass_time(60.0)
    machine.blocked_by = "alert Down"
    world.pass_time(700.0)
    assert (_note(world).phase, _note(world).failures) == (Phase.PENDING, 1)
    machine.wanted = False
    machine.wake()
    world.pass_time(5.0)
    assert _note(world).phase is Phase.IDLE
    machine.blocked_by = ""
    machine.want("second")
    world.pass_time(400.0)
    assert (_note(world).phase, _note(world).failures) == (Phase.ROLLED_BACK, 2)


def test_a_sentinel_that_comes_during_the_back_off_leaves_one_event() -> None:
    """Required again soon after a reboot: until when it waits is in an Event, once, although nothing has begun."""
    world = World()
    machine = world.add_machine("n0")
    Agents(replace(POLICY, retry_after=600.0), random.Random(1)).on(machine)
    machine.want("first")
    world.pass_time(200.0)
    assert len(world.books.boots) == 1
    assert _count(world, Reason.REBOOT_BLOCKED) == 0
    machine.want("second")
    for _ in range(5):
        machine.wake()
        world.pass_time(30.0)
    assert machine.last_tick is not None
    assert machine.last_tick.status.reason is StatusReason.BACKING_OFF
    (blocked,) = [said for said in world.books.events.values() if said.reason is Reason.REBOOT_BLOCKED]
    assert blocked.message.startswith("The reboot waits: required again soon after the last reboot; backing off (until")
    world.pass_time(1500.0)
    assert len(world.books.boots) == 2


def test_a_sentinel_that_comes_back_after_each_reboot_slows_down() -> None:
    """A boot script that always asks for a reboot: no endless loop at full speed but ever slower, down to one a day.

    The guard stops one that is there when the node is proved; this one appears later.
    """
    world = World()
    machine = world.add_machine("n0")
    Agents(replace(POLICY, retry_after=600.0), random.Random(1)).on(machine)

    def asks_again() -> None:
        machine.want(f"boot-{machine.boots}")
        world.at(world.now + 400.0, asks_again)

    asks_again()
    world.pass_time(2 * 86400.0)
    assert 4 <= len(world.books.boots) <= 12
    gaps = [second - first for (first, _), (second, _) in pairwise(world.books.boots)]
    assert gaps == sorted(gaps)
