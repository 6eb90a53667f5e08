"""A person frees the lock in the middle of a cycle: its holder ends well by the rules that it has anyway.

At each step, and then once more with every call disturbed. The world checks at each act that nothing is done without
the right to the lock; what is freed between the fence and the command is the risk that `unlock` names, not tried here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.config import schema
from agent.config.schema import Reboot
from agent.event_reasons import Reason
from agent.reboot.lock.lease import freed
from agent.reboot.state import Phase
from tests.support.reboot_replay import Disturbance, OneDisturbance, Path, disturbances, is_put_back, play
from tests.support.reboot_world import World

POLICY = Reboot(
    max_unavailable="2",
    drain=schema.Drain(timeout=60.0),
    reboot_timeout=120.0,
    verify_timeout=120.0,
    retry_after=120.0,
)
LEASE = "node-hardening-reboot-workers-0"


def _unlock(world: World) -> None:
    lease = world.leases[LEASE]
    if lease.holder:
        world.set_lease(freed(lease, world.now), "a person")


def _at(moment: Reason, after_seconds: float = 0.0) -> Callable[[World, str], None]:
    """Frees the lock once, at the first such Event of n0 or so long after it."""

    def on_event(world: World, reason: str) -> None:
        if reason != moment or "done" in world.nodes["n0"].labels:
            return
        world.nodes["n0"] = replace(world.nodes["n0"], labels={"done": ""})
        if after_seconds:
            world.at(world.now + after_seconds, lambda: _unlock(world))
        else:
            _unlock(world)

    return on_event


def _ends_well(world: World) -> None:
    """Whatever became of the first try: rebooted just once, uncordoned, and the lock is nobody's."""
    is_put_back(world)
    assert sum(1 for _, name in world.books.boots if name == "n0") == 1
    assert not world.machines["n0"].wanted
    assert world.phase_of("n0") is Phase.IDLE
    assert not world.leases[LEASE].holder


PATHS = [
    Path("with-the-lock-just-taken", POLICY, _ends_well, on_event=_at(Reason.REBOOT_LOCK_ACQUIRED)),
    Path("cordoned", POLICY, _ends_well, on_event=_at(Reason.NODE_CORDONED)),
    Path("drained", POLICY, _ends_well, on_event=_at(Reason.DRAINED)),
    Path("down", POLICY, _ends_well, on_event=_at(Reason.REBOOTING, after_seconds=30.0)),
    Path("proved", POLICY, _ends_well, on_event=_at(Reason.REBOOT_SUCCEEDED)),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_undisturbed(path: Path) -> None:
    """What was not begun is begun again after the back-off; what went down is finished without the lock."""
    world = play(path, OneDisturbance(-1, None))
    path.check(world)
    lost = [said for said in world.books.events.values() if "the lock was lost" in said.message]
    assert bool(lost) is (path.name not in ("down", "proved"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_disturbed_at_every_call(path: Path) -> None:
    """A crash before or after each call, a lost answer, a 409: the same end."""
    wanted = {Disturbance.CRASH_BEFORE, Disturbance.CRASH_AFTER, Disturbance.LOST_ANSWER, Disturbance.CONFLICT}
    wrong = []
    for number, disturbance, kind in disturbances(replace(path, only=tuple(wanted))):
        try:
            path.check(play(path, OneDisturbance(number, disturbance)))
        except AssertionError as error:
            wrong.append(f"call {number} ({kind}), {disturbance.name}: {str(error)[:200]}")
    assert wrong == []
