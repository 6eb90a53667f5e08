"""One path of the reboot, replayed with one disturbance at every single call: crash, lost answer, 409, API away.

A path is played once undisturbed to count its calls; then once for each call and kind of disturbance. After each the
agent is started again as the kubelet would, and the path has to come to the same good end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from agent.config.schema import Reboot
from agent.reboot.phases import Phase
from tests.support.reboot_agent import Agents
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import Crash, Trouble, away, conflict
from tests.support.reboot_world import World

_SETTLE_SECONDS = 3000.0
_READS_A_PHASE = 3


class Disturbance(Enum):
    """What happens at the one call. OUTAGE: the API server stays away for some time from that call on."""

    CRASH_BEFORE = "the process dies before the call"
    CRASH_AFTER = "the process dies after the call"
    AWAY = "the API server is away at the call"
    OUTAGE = "the API server is away from the call on, for two minutes"
    LOST_ANSWER = "the call is done and its answer lost"
    CONFLICT = "a 409 at the write"
    HANG = "the process hangs for longer than the lease lasts"


class OneDisturbance(Trouble):
    """At the call with this number, and at no other."""

    def __init__(self, number: int, kind: Disturbance | None) -> None:
        self.number = number
        self.kind = kind
        self.calls = 0
        self.hit = False
        self.writes: list[bool] = []
        self.kinds: list[str] = []
        self.places: list[tuple[str, Phase, bool]] = []
        self._away_until = 0.0

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if machine.name != "n0":
            return
        remote = kind not in ("event", "reboot")
        if remote and machine.world.now < self._away_until:
            raise away()
        self.calls += 1
        self.writes.append(write)
        self.kinds.append(kind)
        self.places.append((kind, machine.world.phase_of(machine.name), write))
        if self.calls - 1 != self.number:
            return
        self.hit = True
        match self.kind:
            case Disturbance.CRASH_BEFORE:
                raise Crash
            case Disturbance.AWAY if remote:
                raise away()
            case Disturbance.OUTAGE if remote:
                self._away_until = machine.world.now + 120.0
                raise away()
            case Disturbance.CONFLICT if write and kind != "evict":
                raise conflict()
            case Disturbance.HANG:
                machine.world.pass_time(100.0)
            case _:
                pass

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if machine.name != "n0" or self.calls - 1 != self.number or machine.world.now < self._away_until:
            return
        if self.kind is Disturbance.CRASH_AFTER:
            raise Crash
        if self.kind is Disturbance.LOST_ANSWER and kind not in ("event", "reboot"):
            raise away(ambiguous=write)


@dataclass(slots=True)
class Path:
    """What happens on node n0, and how it has to end whatever disturbs it.

    act: sets the stage before the sentinel appears. events: reactions, called with each Event's reason as it is heard.
    """

    name: str
    policy: Reboot
    check: Callable[[World], None]
    act: Callable[[World], None] = lambda _: None
    on_event: Callable[[World, str], None] = lambda _world, _reason: None
    nodes: int = 2
    wants: bool = True
    settle_seconds: float = _SETTLE_SECONDS
    only: tuple[Disturbance, ...] = field(default=tuple(Disturbance))


def play(path: Path, trouble: Trouble, *, logs: bool = False) -> World:
    """The world after the path was played."""
    world = World(trouble=trouble)
    if logs:
        world.log = []
    rng = random.Random(7)
    agents = Agents(path.policy, rng)
    for index in range(path.nodes):
        machine = world.add_machine(f"n{index}")
        machine.overheard = lambda announcement: path.on_event(world, announcement.reason.value)  # type: ignore[method-assign]
        agents.on(machine)
    path.act(world)
    if path.wants:
        world.machines["n0"].want("first")
    world.pass_time(path.settle_seconds)
    return world


def disturbances(path: Path) -> Iterator[tuple[int, Disturbance, str]]:
    """Every call of the undisturbed path with every disturbance that makes sense there.

    Polling repeats itself: of reads in one phase the first few are enough, of writes and acts none is left out.
    """
    undisturbed = OneDisturbance(-1, None)
    path.check(play(path, undisturbed))
    met: Counter[tuple[str, Phase, bool]] = Counter()
    for number, (kind, write) in enumerate(zip(undisturbed.kinds, undisturbed.writes, strict=True)):
        place = undisturbed.places[number]
        met[place] += 1
        if not write and kind != "reboot" and met[place] > _READS_A_PHASE:
            continue
        for disturbance in path.only:
            remote = kind not in ("event", "reboot")
            if disturbance is Disturbance.CONFLICT and (not write or not remote):
                continue
            if disturbance in (Disturbance.AWAY, Disturbance.OUTAGE, Disturbance.LOST_ANSWER) and not remote:
                continue
            yield number, disturbance, kind


def is_put_back(world: World) -> None:
    """What holds after every path: notes idle, no lock held, no cordon of ours."""
    for name, view in world.nodes.items():
        assert (name, world.phase_of(name)) == (name, Phase.IDLE)
        assert (name, view.unschedulable and view.unschedulable_by != "kubectl-cordon") == (name, False)
    assert [lease.name for lease in world.leases.values() if lease.holder] == []
