"""Users who remove state and locks in mid-cycle, and clocks that are set: what holds all the same, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.annotations import REBOOT_STATE
from agent.config import schema
from agent.config.schema import Reboot, Window
from agent.event_reasons import Reason
from agent.reboot.blockers.window import WindowBlocker
from agent.reboot.cluster import LeasePhase
from agent.reboot.phases import Phase
from tests.support import reboot_agent
from tests.support.reboot_agent import Agents
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import CommandFate, Trouble, refused
from tests.support.reboot_world import World

POLICY = Reboot(
    max_unavailable="100%",
    drain=schema.Drain(timeout=120.0),
    reboot_timeout=300.0,
    verify_timeout=300.0,
    retry_after=600.0,
)
LEASE = "node-hardening-reboot-workers-0"


def _world(policy: Reboot = POLICY, names: tuple[str, ...] = ("n0", "n1")) -> World:
    world = World()
    agents = Agents(policy, random.Random(1))
    for name in names:
        agents.on(world.add_machine(name))
    world.pass_time(2.0)
    return world


def _going_down(world: World, *, shutdown_seconds: float = 60.0) -> SimMachine:
    """n0 was given the reboot command and takes so long to shut down; n1 needs a reboot too."""
    machine = world.machines["n0"]
    machine.shutdown_seconds = shutdown_seconds
    machine.want("s")
    while not world.books.commands:
        world.step()
    world.machines["n1"].want("s")
    world.pass_time(5.0)
    return machine


def _delete_lock(world: World) -> None:
    world.delete_lease(LEASE)


def _restart(machine: SimMachine) -> None:
    machine.stop_agent()
    machine.crashed()


@pytest.mark.parametrize("and_then", [lambda _world: None, lambda world: _restart(world.machines["n0"]), _delete_lock])
def test_a_node_on_its_way_down_keeps_cordon_and_lock_although_its_state_is_removed(
    and_then: Callable[[World], None],
) -> None:
    """Docs allow to remove the state at any time. The Lease and the machine still show that the command may have been
    given: no other node goes down meanwhile, also where the agent starts again, or the lock is deleted as well."""
    world = _world(replace(POLICY, max_unavailable="1"))
    machine = _going_down(world)
    world.annotate("n0", REBOOT_STATE, None)
    and_then(world)
    world.pass_time(40.0)
    assert machine.going_down
    assert world.nodes["n0"].unschedulable
    assert [who for _, who in world.books.commands] == ["n0"]
    world.pass_time(1200.0)
    assert [who for _, who in world.books.boots] == ["n0", "n1"]
    assert not any(view.unschedulable for view in world.nodes.values())
    assert not world.leases[LEASE].holder


def test_a_command_without_effect_holds_no_lock_for_longer_than_reboot_timeout_without_a_state() -> None:
    """Nothing came of the command, and the state that would have said so is gone: cordon and lock still end."""
    world = _world()
    world.machines["n0"].fate = CommandFate.NOTHING
    _going_down(world)
    world.annotate("n0", REBOOT_STATE, None)
    world.pass_time(POLICY.reboot_timeout / 2)
    assert world.leases[LEASE].phase is LeasePhase.REBOOTING
    world.machines["n0"].wanted = False
    world.pass_time(POLICY.reboot_timeout)
    assert not world.nodes["n0"].unschedulable
    assert [who for _, who in world.books.boots] == ["n1"]
    assert world.phase_of("n0") is Phase.IDLE


def test_a_node_that_was_down_keeps_nothing_for_another_reboot_timeout() -> None:
    """A user removes the state of a verification that does not end. Its lock was renewed since the boot: what was the
    boot of the command is still known, and nothing is waited for any more."""
    world = _world()
    machine = _going_down(world, shutdown_seconds=5.0)
    machine.verified = False
    world.pass_time(POLICY.verify_timeout + 200.0)
    assert world.phase_of("n0") is Phase.VERIFYING
    assert world.leases[LEASE].phase is LeasePhase.REBOOTING
    machine.wanted = False
    world.annotate("n0", REBOOT_STATE, None)
    world.pass_time(30.0)
    assert not world.nodes["n0"].unschedulable
    assert world.leases[LEASE].holder != machine.identity


# -- clocks ------------------------------------------------------------------------------------------------------------


NIGHT = Window(start="02:00", end="04:00")
NOON, NIGHTLY = 1_800_014_400.0, 1_800_068_400.0  # 2027-01-15T12:00:00Z and 2027-01-16T03:00:00Z


def _windowed(monkeypatch: pytest.MonkeyPatch) -> World:
    """n0 needs a reboot and may only at night; by its clock it is noon."""

    class Windowed(WindowBlocker):
        def __init__(self, machine: SimMachine) -> None:
            super().__init__((NIGHT,), (), machine)

    monkeypatch.setattr(reboot_agent, "BlockerOf", Windowed)
    world = World()
    machine = world.add_machine("n0")
    machine.wall_offset = NOON
    Agents(POLICY, random.Random(1)).on(machine)
    machine.want("s")
    world.pass_time(60.0)
    tick = machine.last_tick
    assert tick is not None
    assert "the next opens Sat 2027-01-16 02:00 UTC" in tick.status.sentence
    return world


def test_a_wait_until_a_window_shows_its_end_all_the_time_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node checks its clocks every few minutes meanwhile, and reports what it reported before."""
    world = _windowed(monkeypatch)
    machine, ticks = world.machines["n0"], world.books.ticks
    written = machine.last_write
    for _ in range(10):
        world.pass_time(600.0)
        assert machine.last_tick is not None
        assert machine.last_tick.status.until == pytest.approx(NIGHTLY - 3600.0, abs=10.0)
    assert world.books.ticks > ticks + 10
    assert machine.last_write == written


def test_a_window_that_the_corrected_clock_shows_as_open_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """NTP sets the clock after a boot with a wrong one: the wait until the window, by the wrong one, is over too."""
    world = _windowed(monkeypatch)
    world.machines["n0"].wall_offset = NIGHTLY
    world.pass_time(600.0)
    assert len(world.books.boots) == 1


@pytest.mark.parametrize("seconds", [-3600.0, -7200.0, 3600.0])
def test_a_window_is_waited_for_by_the_clock_as_it_was_set(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set back or forward during the wait: the reboot comes when the clock shows the window, and not before."""
    world = _windowed(monkeypatch)
    machine = world.machines["n0"]
    machine.wall_offset += seconds
    world.pass_time(14 * 3600.0 - seconds - 120.0)
    assert world.books.boots == []
    world.pass_time(900.0)
    assert len(world.books.boots) == 1


def test_a_clock_that_drifts_costs_no_wait_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that NTP slews by 500 ppm is right to the second at the window, too."""
    world = _windowed(monkeypatch)
    machine = world.machines["n0"]
    for _ in range(14 * 4):
        world.pass_time(900.0)
        machine.wall_offset += 0.45
    world.pass_time(300.0)
    assert len(world.books.boots) == 1


@pytest.mark.parametrize("seconds", [-1e8, 1e8])
def test_a_fence_that_is_refused_for_good_ends_by_no_wall_clock(seconds: float) -> None:
    """Set in the phase `rebooting`: the cordon ends when its time is over, neither earlier nor in three years."""
    trouble = _RefusesFence(seconds)
    world = World(trouble=trouble)
    machine = world.add_machine("n0")
    Agents(POLICY, random.Random(1)).on(machine)
    machine.want("s")
    world.pass_time(200.0)
    assert trouble.refused
    assert machine.wanted
    world.pass_time(POLICY.reboot_timeout + POLICY.drain.timeout + 100.0)
    assert not world.nodes["n0"].unschedulable
    assert world.phase_of("n0") is Phase.ROLLED_BACK
    ended = [said.message for _, _, said in world.books.heard if said.reason is Reason.REBOOT_FAILED]
    assert ended == ["the reboot command could not be given in time"]


class _RefusesFence(Trouble):
    """Admission denies the fence, and at the first refusal the wall clock is set."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.refused = 0

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002
        if kind == "put_lease" and machine.world.phase_of(machine.name) is Phase.REBOOTING:
            if not self.refused:
                machine.wall_offset += self.seconds
            self.refused += 1
            raise refused(403)
