"""Every path of a reboot, disturbed at every single call: it resumes or rolls back, and the invariants hold.

The invariants are checked by the world itself at each act: no reboot, eviction or takeover without the right to the
lock, no more nodes down than slots, nobody else's cordon undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from agent.annotations import REBOOT_HISTORY, REBOOT_SKIP
from agent.config import schema
from agent.config.choices import OnTimeout
from agent.config.schema import Reboot
from agent.event_reasons import Reason
from agent.reboot.cluster import LeasePhase
from agent.reboot.interfaces import HookStage
from agent.reboot.phases import Phase
from tests.support.reboot_replay import Disturbance, OneDisturbance, Path, disturbances, is_put_back, play
from tests.support.reboot_trouble import CommandFate, Violation
from tests.support.reboot_world import World

POLICY = Reboot(
    max_unavailable="2",
    drain=schema.Drain(timeout=60.0),
    reboot_timeout=120.0,
    verify_timeout=120.0,
    retry_after=120.0,
)
LEASE = "node-hardening-reboot-workers-0"
GOOD_CYCLE = [
    Reason.REBOOT_REQUIRED,
    Reason.REBOOT_LOCK_ACQUIRED,
    Reason.NODE_CORDONED,
    Reason.DRAINED,
    Reason.REBOOTING,
    Reason.REBOOT_SUCCEEDED,
    Reason.NODE_UNCORDONED,
    Reason.REBOOT_LOCK_RELEASED,
]


def _booted(world: World, name: str = "n0") -> int:
    return sum(1 for _, who in world.books.boots if who == name)


def _count(world: World, reason: Reason) -> int:
    return world.books.reasons().count(reason.value)


def _good_cycles(world: World) -> list[list[Reason]]:
    """The Events of each cycle that ended well, in the order in which they were first heard."""
    events = list(world.books.events.values())
    good = [said.key.partition("-")[0] for said in events if said.reason is Reason.REBOOT_SUCCEEDED]
    return [[said.reason for said in events if said.key.startswith(cycle)] for cycle in good]


def _rebooted_once(world: World) -> None:
    is_put_back(world)
    assert _booted(world) == 1
    assert not world.machines["n0"].wanted


def _success(world: World) -> None:
    _rebooted_once(world)
    assert REBOOT_HISTORY in world.nodes["n0"].annotations
    for cycle in _good_cycles(world):
        assert [reason for reason in cycle if reason in GOOD_CYCLE] == GOOD_CYCLE


def _failed_first(world: World) -> None:
    """The first cycle is rolled back, with its RebootFailed, before a second one ends well."""
    _rebooted_once(world)
    assert _count(world, Reason.REBOOT_FAILED) >= 1
    cordons = [at for at, name in world.books.cordons if name == "n0"]
    assert all(second - first >= POLICY.retry_after for first, second in pairwise(cordons))


def _steal_lock(world: World, reason: str) -> None:
    """Somebody gives our lock to another while we drain."""
    if _once(world, reason, Reason.NODE_CORDONED, "done"):
        lease = world.leases[LEASE]
        world.set_lease(replace(lease, holder="gone/uid-gone", phase=LeasePhase.HELD, transitions=99), "gone")


def _lost(world: World) -> None:
    """Rolled back: for the lock, or for a deadline that a long silence let pass before."""
    _rebooted_once(world)
    failures = [said.message for said in world.books.events.values() if said.reason is Reason.REBOOT_FAILED]
    assert any("the lock was lost" in text or "took longer than" in text for text in failures)


def _delete_node(world: World, reason: str) -> None:
    if reason == Reason.NODE_CORDONED and "n0" in world.nodes and world.nodes["n0"].unschedulable:
        world.nodes.pop("n0")


def _deleted(world: World) -> None:
    """Nothing is done for a node that is gone, and the others go on without it."""
    assert not [at for at, name in world.books.commands if name == "n0"]
    assert _booted(world, "n1") == 1
    assert world.phase_of("n1") is Phase.IDLE


def _both_want(world: World) -> None:
    world.machines["n1"].want("first")


def _once(world: World, reason: str, at: Reason, sign: str) -> bool:
    """True at the first such Event of n0 alone."""
    if reason != at or sign in world.nodes["n0"].labels:
        return False
    world.nodes["n0"] = replace(world.nodes["n0"], labels={sign: ""})
    return True


def _uncordon_while_draining(world: World, reason: str) -> None:
    if _once(world, reason, Reason.NODE_CORDONED, "done"):
        world.human_cordons("n0", cordon=False)


def _recordon_while_down(world: World, reason: str) -> None:
    if _once(world, reason, Reason.REBOOTING, "done"):
        world.human_cordons("n0", cordon=False)
        world.human_cordons("n0", cordon=True)


def _stays_cordoned(world: World) -> None:
    _rebooted_once(world)
    assert world.nodes["n0"].unschedulable
    assert world.nodes["n0"].unschedulable_by == "kubectl-cordon"


def _opt_out(world: World, reason: str) -> None:
    if _once(world, reason, Reason.NODE_CORDONED, "done"):
        world.annotate("n0", REBOOT_SKIP, "being looked at")


def _opted_out(world: World) -> None:
    assert world.books.commands == []
    assert not world.nodes["n0"].unschedulable
    assert world.phase_of("n0") is Phase.PENDING
    assert not world.leases[LEASE].holder


def _stuck_pods(world: World) -> None:
    world.machines["n0"].pdb_until = 1e9


def _pods_let_go_after_a_failure(world: World, reason: str) -> None:
    if reason == Reason.REBOOT_FAILED:
        world.machines["n0"].pdb_until = 0.0


def _fate(fate: CommandFate) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.machines["n0"].fate = fate

    return act


def _sticky(world: World) -> None:
    world.machines["n0"].sticky_sentinel = True


def _guarded(world: World) -> None:
    """One reboot, and then no other although the sentinel is still there."""
    is_put_back(world)
    assert _booted(world) == 1
    tick = world.machines["n0"].last_tick
    assert tick is not None
    assert tick.status.blocked_by == "guard"


def _cordoned_by_hand(world: World) -> None:
    world.human_cordons("n0", cordon=True)


def _hook_fails_once(stage: HookStage) -> Callable[[World], None]:
    def act(world: World) -> None:
        machine = world.machines["n0"]
        machine.fate_of_hooks[stage] = "exit code 1"
        world.at(200.0, machine.fate_of_hooks.clear)

    return act


def _unproved_for_a_while(world: World) -> None:
    machine = world.machines["n0"]

    def forget() -> None:
        machine.verified = None

    def know() -> None:
        machine.verified = True

    world.at(60.0, forget)
    world.at(260.0, know)


def _proved_late(world: World) -> None:
    """The failure of the proof is told, the lock is kept meanwhile, and the late end is a good one."""
    _rebooted_once(world)
    assert _count(world, Reason.REBOOT_SUCCEEDED) == 1


_HOOK = (schema.Hook(command=("/bin/true",)),)

PATHS = [
    Path("success", POLICY, _success),
    Path("two-nodes", POLICY, _success, act=_both_want),
    Path(
        "success-with-every-delay",
        replace(
            POLICY,
            delay=2.0,
            drain=schema.Drain(timeout=60.0, delay=2.0),
            lock=schema.Lock(release_delay=15.0),
            hooks=schema.Hooks(pre_drain=_HOOK, pre_reboot=_HOOK, post_reboot=_HOOK),
            prefer_no_schedule_taint="example.com/reboot-soon",
        ),
        _success,
    ),
    Path("drain-timeout-abort", POLICY, _failed_first, act=_stuck_pods, on_event=_pods_let_go_after_a_failure),
    Path(
        "drain-timeout-delete",
        replace(POLICY, drain=schema.Drain(timeout=60.0, on_timeout=OnTimeout.DELETE)),
        _rebooted_once,
        act=_stuck_pods,
    ),
    Path(
        "drain-timeout-force",
        replace(POLICY, drain=schema.Drain(timeout=60.0, on_timeout=OnTimeout.FORCE)),
        _rebooted_once,
        act=_stuck_pods,
    ),
    Path("lock-lost", POLICY, _lost, on_event=_steal_lock),
    Path("command-fails", POLICY, _failed_first, act=_fate(CommandFate.FAILS)),
    Path("command-gives-no-answer", POLICY, _rebooted_once, act=_fate(CommandFate.HANGS)),
    Path("reboot-does-not-happen", POLICY, _failed_first, act=_fate(CommandFate.NOTHING)),
    Path("sentinel-still-there", POLICY, _guarded, act=_sticky),
    Path("node-deleted", POLICY, _deleted, act=_both_want, on_event=_delete_node),
    Path("somebody-uncordons", POLICY, _failed_first, on_event=_uncordon_while_draining),
    Path("somebody-cordons-while-down", POLICY, _stays_cordoned, on_event=_recordon_while_down),
    Path("cordoned-by-hand-before", POLICY, _stays_cordoned, act=_cordoned_by_hand),
    Path("opted-out-in-the-middle", POLICY, _opted_out, on_event=_opt_out, settle_seconds=900.0),
    Path(
        "a-hook-before-the-drain-fails",
        replace(POLICY, hooks=schema.Hooks(pre_drain=_HOOK)),
        _failed_first,
        act=_hook_fails_once(HookStage.PRE_DRAIN),
    ),
    Path("proved-late", POLICY, _proved_late, act=_unproved_for_a_while),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_undisturbed(path: Path) -> None:
    """Each path comes to its end when nothing disturbs it."""
    path.check(play(path, OneDisturbance(-1, None)))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_disturbed_at_every_call(path: Path) -> None:
    """A crash before and after every call, the API away, a lost answer, a 409 at every write, a hang: the same end."""
    wrong = []
    played = 0
    for number, disturbance, kind in disturbances(path):
        trouble = OneDisturbance(number, disturbance)
        played += 1
        try:
            path.check(play(path, trouble))
        except (AssertionError, Violation) as error:
            wrong.append(f"call {number} ({kind}), {disturbance.name}: {str(error)[:200]}")
        assert trouble.hit
    assert wrong == []
    assert played > 40


def test_a_disturbance_disturbs() -> None:
    """The replay is not vacuous: a crash after the fence costs the cycle, and the next one ends well."""
    path = PATHS[0]
    undisturbed = OneDisturbance(-1, None)
    play(path, undisturbed)
    command = undisturbed.kinds.index("reboot")
    world = play(path, OneDisturbance(command, Disturbance.CRASH_BEFORE))
    assert _count(world, Reason.REBOOT_FAILED) == 1
    _rebooted_once(world)
