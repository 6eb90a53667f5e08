"""What the coordinator does and says, one situation a test, over a cluster in memory and virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.annotations import FIELD_MANAGER, REBOOT_HISTORY, REBOOT_REQUEST, REBOOT_SKIP, REBOOT_STATE
from agent.config import schema
from agent.config.choices import Mode, OnLostHolder
from agent.config.schema import Reboot
from agent.errors import HostError
from agent.event_reasons import Reason
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.interfaces import HookStage, SentinelReading, Tick
from agent.reboot.lock.lease import Lock
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, NodeState, Outcome, decode, keys_of
from agent.reboot.status import StatusReason as R
from agent.text import parse_rfc3339
from tests.support.reboot_agent import Agents
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import CommandFate, Trouble, conflict, refused
from tests.support.reboot_world import World

POLICY = Reboot(
    max_unavailable="3",
    drain=schema.Drain(timeout=120.0),
    reboot_timeout=300.0,
    verify_timeout=300.0,
    retry_after=600.0,
)
LEASE = "node-hardening-reboot-workers-0"


def _world(policy: Reboot = POLICY, *names: str, trouble: Trouble | None = None) -> World:
    world = World(trouble=trouble)
    agents = Agents(policy, random.Random(1))
    for name in names or ("n0",):
        agents.on(world.add_machine(name))
    world.pass_time(2.0)
    return world


def _tick(world: World, name: str = "n0") -> Tick:
    tick = world.machines[name].last_tick
    assert tick is not None
    return tick


def _lease(world: World, holder: str, phase: LeasePhase = LeasePhase.HELD, pool_size: int = 0) -> None:
    """A lease that somebody without an agent here holds."""
    world.renewed[LEASE] = world.now
    lease = LeaseView(LEASE, holder=holder, phase=phase, duration_seconds=60, transitions=1, pool_size=pool_size)
    world.set_lease(lease, "nobody")


def _restart(machine: SimMachine) -> None:
    machine.stop_agent()
    machine.crashed()


def _note(world: World, name: str = "n0") -> NodeState:
    return decode(world.nodes[name].annotations.get(REBOOT_STATE, ""))


# -- what never reboots ------------------------------------------------------------------------------------------------


def test_an_idle_node_asks_nobody_anything() -> None:
    """Its leases are looked at once, when the process starts; from then on nothing is requested but its own Node."""
    world = _world()
    calls: list[str] = []
    machine = world.machines["n0"]
    original = machine.call

    def counted(kind: str, effect: Callable[[], object], *, write: bool = False) -> object:
        calls.append(kind)
        return original(kind, effect, write=write)

    machine.call = counted  # type: ignore[method-assign,assignment]
    for _ in range(5):
        machine.wake()
        world.pass_time(10.0)
    assert set(calls) == {"node"}  # which comes from a watch
    assert (_tick(world).status.phase, _tick(world).status.reason) == ("idle", R.NOT_REQUIRED)


def test_an_unknown_sentinel_never_reboots() -> None:
    """Cannot tell is said, and nothing is taken."""
    world = _world()
    machine = world.machines["n0"]
    machine.sentinel_unknown = True
    machine.wake()
    world.pass_time(600.0)
    assert world.leases == {}
    tick = _tick(world)
    assert (tick.status.required, tick.status.blocked_by) == (None, "unknown")
    assert (tick.status.reason, "no such folder" in tick.status.sentence) == (R.SENTINEL_UNKNOWN, True)


def test_a_sentinel_that_raises_is_unknown() -> None:
    """An error of the host is no answer."""
    world = _world()
    machine = world.machines["n0"]

    def broken() -> SentinelReading:
        raise HostError("cannot read /var/run: permission denied")

    machine.read_sentinel = broken  # type: ignore[method-assign]
    machine.wake()
    world.pass_time(60.0)
    assert "permission denied" in _tick(world).status.sentence
    assert world.leases == {}


def test_a_sentinel_that_becomes_unknown_in_the_drain_holds_the_reboot_until_it_is_rolled_back() -> None:
    """The node is drained, but not rebooted on what is not known."""
    world = _world(replace(POLICY, delay=5.0))
    machine = world.machines["n0"]
    machine.want("s")
    world.pass_time(3.0)
    assert _note(world).phase is Phase.DRAINING
    machine.sentinel_unknown = True
    world.pass_time(60.0)
    assert (_tick(world).status.phase, _tick(world).status.reason) == ("draining", R.SENTINEL_UNKNOWN)
    world.pass_time(250.0)
    assert world.books.commands == []
    assert (_note(world).phase, world.nodes["n0"].unschedulable) == (Phase.ROLLED_BACK, False)


def test_unknown_hardening_never_reboots() -> None:
    """Neither before the lock nor after the drain."""
    world = _world()
    machine = world.machines["n0"]
    machine.verified = None
    machine.want("s")
    world.pass_time(300.0)
    assert world.books.cordons == []
    assert (_tick(world).status.phase, _tick(world).status.blocked_by) == ("blocked", "unknown")
    machine.verified = True
    world.pass_time(300.0)
    assert len(world.books.boots) == 1


def test_hardening_that_is_known_to_fail_does_not_hold_the_reboot() -> None:
    """A loaded module is only gone after a reboot: refusing would never mend it."""
    world = _world()
    machine = world.machines["n0"]
    machine.verified = False
    world.machines["n0"].want("s")
    world.pass_time(100.0)
    assert len(world.books.commands) == 1


def test_a_note_that_cannot_be_read_stops_everything_and_says_so() -> None:
    """A newer agent's note, or a person's: nothing is done on a misread one."""
    world = _world()
    world.annotate("n0", REBOOT_STATE, '{"v":9,"phase":"draining"}')
    world.machines["n0"].want("s")
    world.pass_time(600.0)
    assert world.leases == {}
    assert "version 9" in _tick(world).status.sentence
    assert _tick(world).status.reason is R.STATE_UNREADABLE
    world.annotate("n0", REBOOT_STATE, None)
    world.pass_time(600.0)
    assert len(world.books.boots) == 1


def test_audit_says_what_it_would_do_and_takes_nothing() -> None:
    """No lock, no cordon, no note."""
    world = _world(replace(POLICY, mode=Mode.AUDIT))
    machine = world.machines["n0"]
    assert (_tick(world).status.mode, _tick(world).status.reason) == ("audit", R.NOT_REQUIRED)
    machine.want("s")
    world.pass_time(600.0)
    assert (world.leases, world.books.cordons, REBOOT_STATE in world.nodes["n0"].annotations) == ({}, [], False)
    assert _tick(world).status.reason is R.WOULD_REBOOT
    machine.blocked_by = "alert Down"
    machine.wake()
    world.pass_time(1.0)
    assert (_tick(world).status.reason, "alert Down" in _tick(world).status.sentence) == (R.BLOCKED_BY_ALERTS, True)
    machine.sentinel_unknown = True
    machine.wake()
    world.pass_time(1.0)
    assert _tick(world).status.reason is R.SENTINEL_UNKNOWN


def test_switched_off_it_is_silent() -> None:
    """mode: off looks at nothing that anybody would have to answer."""
    world = _world(replace(POLICY, mode=Mode.OFF))
    world.machines["n0"].want("s")
    world.pass_time(100.0)
    assert (_tick(world).status.reason, world.leases) == (R.MODE_OFF, {})


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.OFF])
def test_a_policy_that_stops_enforcing_gives_back_what_was_taken(mode: Mode) -> None:
    """In the drain, and while it waits: cordon off, lock free, note gone."""
    world = _world(POLICY, "n0", "n1")
    world.machines["n0"].pdb_until = 1e9
    world.machines["n0"].want("s")
    world.pass_time(20.0)
    world.machines["n1"].want("s")
    world.pass_time(5.0)
    assert (_note(world, "n0").phase, _note(world, "n1").phase) == (Phase.DRAINING, Phase.PENDING)
    quiet = Agents(replace(POLICY, mode=mode), random.Random(1))
    for machine in world.machines.values():
        machine.stop_agent()
        quiet.on(machine)
    world.pass_time(30.0)
    assert [view.unschedulable for view in world.nodes.values()] == [False, False]
    assert not world.leases[LEASE].holder
    assert [_note(world, name).phase for name in world.nodes] == [Phase.IDLE, Phase.IDLE]
    assert [ended.outcome for _, ended in world.books.ended] == [Outcome.ABORTED]


class _NoLeases(Trouble):
    is_on = False

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002
        if self.is_on and kind == "leases":
            raise refused(403)


def test_leases_that_could_not_be_read_do_not_concern_a_node_without_a_cycle() -> None:
    """A user removes the state, and the mode is off: the Leases are not read any more, so they are not unknown."""
    trouble = _NoLeases()
    world, agents = World(trouble=trouble), Agents(POLICY, random.Random(1))
    agents.on(world.add_machine("n0"))
    world.machines["n0"].pdb_until = 1e9
    world.machines["n0"].want("s")
    world.pass_time(20.0)
    trouble.is_on = True
    world.pass_time(10.0)
    assert (_note(world).phase, _tick(world).status.reason) == (Phase.DRAINING, R.API_UNREACHABLE)
    agents.policy = replace(POLICY, mode=Mode.OFF)
    world.set_node(replace(world.nodes["n0"], annotations={}))
    world.pass_time(30.0)
    assert (_note(world).phase, _tick(world).status.reason) == (Phase.IDLE, R.MODE_OFF)


def test_a_cordon_that_waits_for_the_lock_to_be_renewed_is_not_shown_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lock, "is_fresh", lambda *_: False)
    world = _world()
    world.machines["n0"].want("s")
    world.pass_time(5.0)
    assert not world.nodes["n0"].unschedulable
    assert _tick(world).status.phase is Phase.LOCKED


def test_opted_out_waits_and_says_why() -> None:
    """The annotation's value is the reason that is shown."""
    world = _world()
    world.annotate("n0", REBOOT_SKIP, "disk is being replaced")
    world.machines["n0"].want("s")
    world.pass_time(600.0)
    assert world.books.cordons == []
    assert (_tick(world).status.reason, "disk is being replaced" in _tick(world).status.sentence) == (R.OPTED_OUT, True)
    assert _tick(world).status.blocked_by == "skip"
    world.annotate("n0", REBOOT_SKIP, None)
    world.pass_time(120.0)
    assert len(world.books.commands) == 1


def test_a_blocker_is_asked_again_before_the_reboot() -> None:
    """An alert that the drain itself sets off holds the reboot; it goes on when the alert is over."""
    world = _world(replace(POLICY, delay=3.0))
    machine = world.machines["n0"]
    machine.want("s")
    world.pass_time(2.0)
    assert _note(world).phase is Phase.DRAINING
    machine.blocked_by = "alert QueueFull"
    world.pass_time(60.0)
    assert world.books.commands == []
    assert (_tick(world).status.reason, _tick(world).status.blocked_by) == (R.BLOCKED_BY_ALERTS, "prometheus")
    machine.blocked_by = ""
    world.pass_time(30.0)
    assert len(world.books.commands) == 1


# -- the lock ----------------------------------------------------------------------------------------------------------


def test_a_holder_whose_node_is_gone_is_replaced_at_once_even_while_it_reboots() -> None:
    """Once the lease is old enough to be looked after: a Node that is gone comes back as another one."""
    world = _world()
    _lease(world, "gone/uid-gone", LeasePhase.REBOOTING)
    world.machines["n0"].want("s")
    world.pass_time(150.0)
    assert world.books.reasons().count(Reason.REBOOT_LOCK_TAKEN_OVER) == 1
    assert len(world.books.commands) == 1


@pytest.mark.parametrize("size", [1, 60, 61, 100_000])
def test_a_pool_size_that_another_node_made_up_delays_nothing(size: int) -> None:
    """The lease is taken over as soon as with the true size, whose attempts are spread over half a duration."""
    world = _world()
    _lease(world, "gone/uid-gone", LeasePhase.REBOOTING, size)
    world.machines["n0"].want("s")
    world.pass_time(150.0)
    assert world.books.reasons().count(Reason.REBOOT_LOCK_TAKEN_OVER) == 1


def test_a_holder_with_another_uid_is_another_node() -> None:
    """The same name after a re-installation does not hold its predecessor's lock."""
    world = _world(POLICY, "n0", "n1")
    _lease(world, "n1/an-older-uid", LeasePhase.REBOOTING)
    world.machines["n0"].want("s")
    world.pass_time(150.0)
    assert len(world.books.commands) == 1


def test_a_silent_holder_that_has_not_fenced_is_replaced_after_the_leases_duration() -> None:
    """It cannot reboot any more: its own compare-and-swap would fail."""
    world = _world(POLICY, "n0", "n1")
    world.machines["n1"].stop_agent()
    _lease(world, "n1/uid-n1")
    world.machines["n0"].want("s")
    world.pass_time(55.0)
    assert world.leases[LEASE].holder == "n1/uid-n1"
    assert _tick(world).status.holder == "n1"
    world.pass_time(60.0)
    assert len(world.books.commands) == 1


def test_how_long_the_lock_is_held_is_told_by_its_holder_and_by_who_waits() -> None:
    """And by nobody else; a drain that a budget holds up says that too, for an alert that asks how long."""
    world = _world(POLICY, "n0", "n1", "n2")
    world.machines["n0"].pdb_until = 1e9
    world.machines["n0"].want("s")
    world.pass_time(10.0)
    world.machines["n1"].want("s")
    world.pass_time(60.0)
    taken = parse_rfc3339(world.leases[LEASE].acquired)
    assert taken > 0
    assert [_tick(world, name).lock_since for name in ("n0", "n1", "n2")] == [taken, taken, 0.0]
    assert (_tick(world, "n0").status.blocked_by, _tick(world, "n1").status.holder) == ("drain", "n0")
    world.machines["n0"].pdb_until = 0.0
    world.pass_time(3600.0)
    assert [_tick(world, name).lock_since for name in ("n0", "n1", "n2")] == [0.0, 0.0, 0.0]


def test_a_lock_that_somebody_wrote_by_hand_has_an_unknown_age() -> None:
    """0, as the metric has it, rather than no tick at all."""
    world = _world(POLICY, "n0", "n1")
    _lease(world, "n1/uid-n1")
    world.machines["n0"].want("s")
    world.pass_time(20.0)
    assert (_tick(world).status.holder, _tick(world).lock_since) == ("n1", 0.0)


def test_a_holder_that_went_down_keeps_the_lock_and_on_call_is_told_once() -> None:
    """However many wait: one Event, on the lease, and a flag for the metrics."""
    world = _world(POLICY, "n0", "n1", "n2", "n3")
    world.machines["n3"].stop_agent()
    _lease(world, "n3/uid-n3", LeasePhase.REBOOTING)
    for name in ("n0", "n1", "n2"):
        world.machines[name].want("s")
    world.pass_time(500.0)
    assert world.books.reasons().count(Reason.REBOOT_LOCK_STUCK) == 0
    world.pass_time(600.0)
    assert world.books.reasons().count(Reason.REBOOT_LOCK_STUCK) == 1
    stuck = next(said for said in world.books.events.values() if said.reason is Reason.REBOOT_LOCK_STUCK)
    assert (stuck.lease, stuck.message.split()[0]) == (LEASE, "n3")
    assert _tick(world).stuck
    assert (_tick(world).status.reason, _tick(world).status.holder) == (R.HOLDER_LOST, "n3")
    world.pass_time(86400.0)
    assert world.leases[LEASE].holder == "n3/uid-n3"
    assert world.books.commands == []


@pytest.mark.parametrize(("down_seconds", "late"), [(500.0, False), (1500.0, True)])
def test_a_node_that_comes_back_late_announces_it_itself_where_no_other_waited(down_seconds: float, late: bool) -> None:
    """A pool of one has no waiter that could report its lock as stuck: one Event on the Lease when the node is back."""
    world = _world()
    machine = world.machines["n0"]
    machine.down_seconds = down_seconds
    machine.want("s")
    world.pass_time(3000.0)
    assert _tick(world).status.phase is Phase.IDLE
    stuck = [said for said in world.books.events.values() if said.reason is Reason.REBOOT_LOCK_STUCK]
    assert [(said.lease, said.message.startswith("n0 went down to reboot and came back after ")) for said in stuck] == (
        [(LEASE, True)] if late else []
    )


@pytest.mark.parametrize(("shutdown_seconds", "is_awaited"), [(500.0, True), (5000.0, False)])
def test_an_unknown_shutdown_is_waited_for_and_not_without_end(shutdown_seconds: float, is_awaited: bool) -> None:
    """A shutdown ends systemctl too: no answer after rebootTimeout is not "no", for one rebootTimeout more."""
    world = _world()
    machine = world.machines["n0"]
    machine.shutdown_seconds, machine.shutdown_unknown = shutdown_seconds, True
    machine.want("s")
    world.pass_time(450.0)
    assert "unknown whether the system is shutting down" in _tick(world).status.sentence
    assert world.leases[LEASE].holder == "n0/uid-n0"
    world.pass_time(450.0)
    assert (world.books.reasons().count(Reason.REBOOT_FAILED) == 0) is is_awaited
    assert world.leases[LEASE].holder == ""


def test_a_waiter_that_reported_the_holder_is_not_repeated_by_it() -> None:
    """One Event a stuck lock, whoever saw it first."""
    world = _world(POLICY, "n0", "n1")
    world.machines["n0"].down_seconds = 1500.0
    world.machines["n0"].want("s")
    world.pass_time(100.0)
    world.machines["n1"].want("s")
    world.pass_time(5000.0)
    assert [name for _, name in world.books.boots] == ["n0", "n1"]
    assert world.books.reasons().count(Reason.REBOOT_LOCK_STUCK) == 1


def test_on_lost_holder_release_gives_a_lost_holder_up_after_the_timeouts() -> None:
    """What on-call does by hand otherwise."""
    world = _world(replace(POLICY, lock=schema.Lock(on_lost_holder=OnLostHolder.RELEASE)), "n0", "n1")
    world.machines["n1"].stop_agent()
    _lease(world, "n1/uid-n1", LeasePhase.REBOOTING)
    world.machines["n0"].want("s")
    world.pass_time(580.0)
    assert world.leases[LEASE].holder == "n1/uid-n1"
    world.machines["n1"].going_down = False
    world.gives_lost_holders_up = True
    world.pass_time(200.0)
    assert len(world.books.commands) == 1


class _HangsInTheDrain(Trouble):
    """The first look at the lease in the drain takes longer than two thirds of its duration."""

    def __init__(self) -> None:
        self.hung = False
        self.after_it: list[str] = []

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if self.hung and write:
            self.after_it.append(kind)
        in_drain = machine.world.phase_of(machine.name) is Phase.DRAINING
        if kind == "leases" and in_drain and not self.hung:
            self.hung = True
            machine.world.pass_time(45.0)


def test_nothing_is_evicted_on_a_lease_that_others_may_have_taken() -> None:
    """A process that hung says first that it is alive; only when that holds does it go on to evict."""
    trouble = _HangsInTheDrain()
    world = _world(trouble=trouble)
    world.machines["n0"].want("s")
    world.pass_time(100.0)
    assert trouble.after_it[:3] == ["put_lease", "evict", "evict"]


def test_two_slots_taken_by_mistake_become_one() -> None:
    """A second one is given back."""
    policy = replace(POLICY, concurrency=2)
    world = _world(policy)
    machine = world.machines["n0"]
    for number in range(2):
        name = f"node-hardening-reboot-workers-{number}"
        world.renewed[name] = world.now
        lease = LeaseView(name, holder=machine.identity, phase=LeasePhase.HELD, duration_seconds=60, cycle="x")
        world.set_lease(lease, "n0")
    machine.want("s")
    world.pass_time(1000.0)
    assert [lease.holder for lease in world.leases.values()] == ["", ""]
    assert len(world.books.boots) == 1


def test_a_lock_without_a_use_is_given_back_when_the_process_starts() -> None:
    """The note was removed by hand while the lock was held."""
    world = _world()
    _lease(world, world.machines["n0"].identity)
    _restart(world.machines["n0"])
    world.pass_time(60.0)
    assert world.leases[LEASE].holder == ""


def test_the_minimum_gap_is_kept_although_a_remote_clock_runs_ahead() -> None:
    """last-reboot is another node's wall time: one that lies in the future costs one gap at most."""
    world = _world(replace(POLICY, blockers=schema.Blockers(minimum_gap=200.0)))
    machine = world.machines["n0"]
    world.set_lease(LeaseView(LEASE, last_reboot=machine.wall() + 50_000.0), "nobody")
    machine.want("s")
    world.pass_time(190.0)
    assert (_tick(world).status.blocked_by, world.books.cordons) == ("gap", [])
    world.pass_time(60.0)
    assert len(world.books.commands) == 1


def test_a_full_budget_is_told_and_waited_for() -> None:
    """Somebody else's cordon counts; when it is lifted the reboot goes on."""
    world = _world(replace(POLICY, max_unavailable="1"), "n0", "n1")
    world.human_cordons("n1", cordon=True)
    world.machines["n0"].want("s")
    world.pass_time(60.0)
    assert (_tick(world).status.reason, "n1" in _tick(world).status.sentence) == (R.MAX_UNAVAILABLE, True)
    assert _tick(world).status.blocked_by == "budget"
    assert world.books.reasons().count(Reason.REBOOT_BLOCKED) == 1
    world.human_cordons("n1", cordon=False)
    world.pass_time(60.0)
    assert len(world.books.commands) == 1


class _LosesTwice(Trouble):
    """Another writer is faster at the first two writes of the Node."""

    def __init__(self) -> None:
        self.lost = 0

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - the interface
        if kind == "patch_node" and self.lost < 2:
            self.lost += 1
            raise conflict()


def test_a_write_that_loses_twice_says_so_and_is_done_all_the_same() -> None:
    """One lost race is no news; a second one in a row is shown."""
    world = World(trouble=_LosesTwice())
    Agents(POLICY, random.Random(1)).on(world.add_machine("n0"))
    world.log = []
    world.machines["n0"].want("s")
    world.pass_time(200.0)
    assert sum("another writer was faster" in line for line in world.log) == 1
    assert len(world.books.boots) == 1


# -- what is left on the Node ------------------------------------------------------------------------------------------


def test_a_person_may_ask_for_a_reboot_through_the_same_path() -> None:
    """The annotation is answered once, and taken away with the proof."""
    world = _world()
    world.annotate("n0", REBOOT_REQUEST, "new firmware\n")
    world.pass_time(300.0)
    assert len(world.books.boots) == 1
    assert REBOOT_REQUEST not in world.nodes["n0"].annotations
    (entry,) = json.loads(world.nodes["n0"].annotations[REBOOT_HISTORY])
    assert entry["reason"] == "new firmware "
    world.pass_time(5000.0)
    assert len(world.books.boots) == 1


def test_taint_and_labels_come_and_go_with_the_cycle() -> None:
    """The taint while it waits, labels at the beginning and after a good end; others' taints stay."""
    labels = schema.NodeLabels(before={"example.com/state": "rebooting"}, after={"example.com/state": "rebooted"})
    world = _world(replace(POLICY, prefer_no_schedule_taint="example.com/soon", node_labels=labels))
    theirs = {"key": "example.com/soon", "effect": "NoSchedule"}
    world.set_node(replace(world.nodes["n0"], taints=(theirs,)))
    machine = world.machines["n0"]
    machine.blocked_by = "alert Down"
    machine.want("s")
    world.pass_time(30.0)
    assert [taint["effect"] for taint in world.nodes["n0"].taints] == ["NoSchedule", "PreferNoSchedule"]
    machine.blocked_by = ""
    machine.pdb_until = world.now + 80.0
    world.pass_time(60.0)
    assert _note(world).phase is Phase.DRAINING
    assert [taint["effect"] for taint in world.nodes["n0"].taints] == ["NoSchedule"]
    assert world.nodes["n0"].labels == {"example.com/state": "rebooting"}
    world.pass_time(400.0)
    assert world.nodes["n0"].labels == {"example.com/state": "rebooted"}


@pytest.mark.parametrize("mode", Mode)
def test_a_taint_whose_state_was_removed_goes_too(mode: Mode) -> None:
    """A user removes the state of a pending reboot, which is not required any more; others' taints stay. Nothing else
    was put on the Node: the label of the last reboot stays. Not in the modes in which a taint of that key is another's,
    as kured's is while it still reboots the nodes."""
    labels = schema.NodeLabels(before={"example.com/state": "rebooting"}, after={"example.com/state": "rebooted"})
    policy = replace(POLICY, prefer_no_schedule_taint="example.com/soon", node_labels=labels)
    world = _world(policy)
    theirs = {"key": "example.com/other", "effect": "PreferNoSchedule"}
    world.set_node(replace(world.nodes["n0"], taints=(theirs,), labels={"example.com/state": "rebooted"}))
    machine = world.machines["n0"]
    machine.blocked_by = "alert Down"
    machine.want("s")
    world.pass_time(30.0)
    tainted = world.nodes["n0"].taints
    assert len(tainted) == 2
    machine.stop_agent()
    machine.wanted = False
    world.annotate("n0", REBOOT_STATE, None)
    Agents(replace(policy, mode=mode), random.Random(1)).on(machine)
    world.pass_time(400.0)
    assert world.nodes["n0"].taints == ((theirs,) if mode is Mode.ENFORCE else tainted)
    assert world.nodes["n0"].labels == {"example.com/state": "rebooted"}


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ends", ["succeeds", "is aborted", "is rolled back"])
def test_keys_that_the_policy_loses_in_mid_cycle_go_with_its_end(ends: str, restarts: bool) -> None:
    """What `before` put on the Node is in the state, so it is removed by whichever process ends the cycle."""
    busy = {"example.com/busy": "yes", "node.kubernetes.io/exclude-from-external-load-balancers": "true"}
    marks = schema.NodeLabels(before=busy), schema.NodeAnnotations(before=busy)
    world = World()
    agents = Agents(replace(POLICY, node_labels=marks[0], node_annotations=marks[1]), random.Random(1))
    agents.on(world.add_machine("n0", {"theirs": "1"}))
    machine = world.machines["n0"]
    machine.pdb_until = world.now + 80.0
    machine.want("s")
    world.pass_time(60.0)
    assert (_note(world).phase, world.nodes["n0"].labels) == (Phase.DRAINING, {"theirs": "1", **busy})
    agents.policy = POLICY
    if restarts:
        _restart(machine)
    if ends == "is aborted":
        world.annotate("n0", REBOOT_SKIP, "by a user")
    elif ends == "is rolled back":
        machine.fate = CommandFate.FAILS
    world.pass_time(400.0)
    assert not world.nodes["n0"].unschedulable
    assert world.nodes["n0"].labels == {"theirs": "1"}
    assert not busy.keys() & world.nodes["n0"].annotations.keys()


def test_a_forged_state_removes_no_label_that_a_kubelet_may_not_change() -> None:
    """The state is on the Node, which a compromised kubelet can write; some of the labels it cannot."""
    world = _world()
    role = {
        "node-role.kubernetes.io/control-plane": "",
        "zone.node-restriction.kubernetes.io/a": "1",
        "x.k8s.io/y": "2",
    }
    world.set_node(replace(world.nodes["n0"], labels=role))
    machine = world.machines["n0"]
    machine.pdb_until = world.now + 80.0
    machine.want("s")
    world.pass_time(60.0)
    note = _note(world)
    assert isinstance(note, Attempt)
    world.annotate("n0", REBOOT_STATE, replace(note, keys=keys_of(role, ())).encode())
    world.pass_time(400.0)
    assert (machine.boots, world.nodes["n0"].labels) == (1, role)


def test_hooks_run_in_their_places_once_a_cycle() -> None:
    """Before the drain, before the reboot, after the proof."""
    hook = (schema.Hook(command=("/bin/true",)),)
    world = _world(replace(POLICY, hooks=schema.Hooks(pre_drain=hook, pre_reboot=hook, post_reboot=hook)))
    machine = world.machines["n0"]
    machine.want("s")
    world.pass_time(400.0)
    assert [stage for stage, _ in machine.hooks_run] == list(HookStage)
    assert len({cycle for _, cycle in machine.hooks_run}) == 1


def test_a_hook_after_the_reboot_that_fails_keeps_lock_and_cordon_and_is_tried_again() -> None:
    """Fail closed, say it once, and end well when the hook does."""
    hook = (schema.Hook(command=("/bin/true",)),)
    world = _world(replace(POLICY, hooks=schema.Hooks(post_reboot=hook), retry_after=120.0))
    machine = world.machines["n0"]
    machine.fate_of_hooks[HookStage.POST_REBOOT] = "exit code 7"
    machine.want("s")
    world.pass_time(600.0)
    assert world.nodes["n0"].unschedulable
    assert world.leases[LEASE].holder == machine.identity
    assert world.books.reasons().count(Reason.REBOOT_FAILED) == 1
    assert "exit code 7" in _tick(world).status.sentence
    machine.fate_of_hooks.clear()
    world.pass_time(300.0)
    assert (world.nodes["n0"].unschedulable, world.leases[LEASE].holder) == (False, "")
    assert world.books.reasons().count(Reason.REBOOT_SUCCEEDED) == 1


def test_a_cordon_of_ours_without_its_note_is_lifted() -> None:
    """Somebody removed the note in the middle of a cycle: by the server's book the cordon is ours."""
    world = _world()
    world.set_node(replace(world.nodes["n0"], unschedulable=True, unschedulable_by=FIELD_MANAGER))
    world.machines["n0"].wake()
    world.pass_time(10.0)
    assert not world.nodes["n0"].unschedulable


@pytest.mark.parametrize("refused_keys", [frozenset[str](), {"example.com/busy"}])
def test_a_cordon_without_its_note_goes_with_the_policys_keys(refused_keys: frozenset[str]) -> None:
    """They came in the same patch; one that is refused does not keep the cordon."""
    world = _world(
        replace(POLICY, node_labels=schema.NodeLabels(before={"example.com/busy": "1", "example.com/b": "1"}))
    )
    labels = {"example.com/busy": "1", "example.com/b": "1", "theirs": "1"}
    world.refused_keys |= refused_keys
    world.set_node(replace(world.nodes["n0"], unschedulable=True, unschedulable_by=FIELD_MANAGER, labels=labels))
    world.machines["n0"].wake()
    world.pass_time(30.0)
    assert not world.nodes["n0"].unschedulable
    assert world.nodes["n0"].labels.keys() == {"theirs", *refused_keys}
    assert world.books.reasons().count(Reason.NODE_KEY_REFUSED) == len(refused_keys)


def test_a_proof_that_takes_too_long_is_told_once_and_still_ends_well() -> None:
    """RebootFailed, the lock stays; what is missing is in the sentence."""
    world = _world()
    machine = world.machines["n0"]
    machine.want("s")
    world.pass_time(30.0)
    machine.verified = False
    world.pass_time(800.0)
    assert world.books.reasons().count(Reason.REBOOT_FAILED) == 1
    assert _tick(world).status.reason is R.VERIFICATION_FAILED
    assert "modprobe/sctp" in _tick(world).status.sentence
    assert world.leases[LEASE].holder == machine.identity
    machine.verified = True
    world.pass_time(60.0)
    assert world.books.reasons().count(Reason.REBOOT_SUCCEEDED) == 1
    assert world.leases[LEASE].holder == ""


def test_a_reboot_by_somebody_else_in_the_drain_is_proved_like_our_own() -> None:
    """Another boot id is a reboot, whoever gave the command."""
    world = _world()
    machine = world.machines["n0"]
    machine.pdb_until = 1e9
    machine.want("s")
    world.pass_time(20.0)
    machine.power_off()
    world.pass_time(200.0)
    assert world.books.commands == []
    assert world.books.reasons().count(Reason.REBOOT_SUCCEEDED) == 1
    assert not world.nodes["n0"].unschedulable
    assert world.leases[LEASE].holder == ""


def test_another_boot_during_the_proof_begins_it_again() -> None:
    """The clock of the proof starts anew, and the end is the same."""
    world = _world()
    machine = world.machines["n0"]
    machine.want("s")
    world.pass_time(30.0)
    machine.verified = False
    world.pass_time(90.0)
    assert _note(world).phase is Phase.VERIFYING
    machine.power_off()
    machine.verified = True
    world.pass_time(300.0)
    assert (machine.boots, _note(world).phase) == (2, Phase.IDLE)


def test_a_command_that_gave_no_answer_is_waited_for() -> None:
    """It may well have worked: nothing is rolled back before rebootTimeout."""
    world = _world()
    machine = world.machines["n0"]
    machine.fate = CommandFate.HANGS
    machine.want("s")
    world.pass_time(300.0)
    assert world.books.reasons().count(Reason.REBOOT_FAILED) == 0
    assert world.books.reasons().count(Reason.REBOOT_SUCCEEDED) == 1


def test_the_end_of_a_cycle_is_counted_once_with_its_durations() -> None:
    """For `reboots by outcome` and the histograms of phases."""
    world = _world()
    world.machines["n0"].want("s")
    world.pass_time(300.0)
    ((name, ended),) = world.books.ended
    assert (name, ended.outcome) == ("n0", Outcome.SUCCEEDED)
    assert [phase for phase, _ in ended.phases] == ["cordoned", "draining", "rebooting", "verifying"]
    assert ended.seconds == pytest.approx(sum(seconds for _, seconds in ended.phases))


def test_no_node_object_no_act() -> None:
    """A Node that is gone: nothing is touched, and nothing breaks."""
    world = _world()
    world.nodes.pop("n0")
    world.machines["n0"].want("s")
    world.pass_time(600.0)
    assert _tick(world).status.phase is Phase.UNKNOWN
    assert world.leases == {}
