"""Five thousand real coordinators wait for one lock: what a release costs the API server, in virtual time.

A page of nodes takes its time, and others go on meanwhile: a tick that lists nodes runs in a thread of its own, one
thread at a time. What a wait watches, its Node and the lease, costs no request.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from agent.config.schema import Reboot
from agent.reboot.cluster import MEMBERS_A_PAGE, LeasePhase, LeaseView, NodeView
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.lock.pools import WORKERS, lease_names
from tests.support.reboot_agent import dependencies_of
from tests.support.reboot_interfaces import ClusterOf
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import Trouble
from tests.support.reboot_world import World

LEASE = lease_names(WORKERS, 1)[0]
PAGE_SECONDS = 0.25  # for 500 Nodes, from the API server to values in Python; an assumption
WATCHED = ("node", "leases")


class _Lists(BaseException):
    """The tick is about to list nodes: it has done nothing yet, and begins anew where it can be held up."""


class _Tick:
    """A tick that others overtake. `go_on` runs it until it takes time or is over."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.seconds = 0.0
        self.over = False
        self._may, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._run = run
        self.thread = threading.Thread(target=self._body, daemon=True)
        self.thread.start()

    def _body(self) -> None:
        self._may.acquire()
        try:
            self._run()
        finally:
            self.over = True
            self._done.release()

    def go_on(self) -> None:
        """For the thread that keeps the time."""
        self._may.release()
        self._done.acquire()

    def take(self, seconds: float) -> None:
        """For the tick itself."""
        self.seconds = seconds
        self._done.release()
        self._may.acquire()


class Crowd(Trouble):
    """The waiters. asked: requests by kind since `release`, pages of nodes among them."""

    def __init__(self, count: int) -> None:
        self.asked: Counter[str] = Counter()
        self._counts = False
        self._underway: dict[threading.Thread, _Tick] = {}
        self.world = World(trouble=self)
        holder = self.world.add_machine("holder")
        view = LeaseView(
            LEASE, "", holder.identity, LeasePhase.HELD, duration_seconds=60, transitions=1, pool_size=count
        )
        self.world.set_lease(view, "holder")
        rng = random.Random(4)
        policy = Reboot()
        for number in range(count):
            machine = self.world.add_machine(f"n{number:04}")
            machine.wanted = True
            rooms = replace(dependencies_of(machine, random.Random(rng.random())), cluster=_Paged(machine, self))
            self._start(machine, policy, rooms, rng.uniform(0.0, 1.0))
        self.world.pass_time(20.0)
        assert all(machine.waits for machine in self.world.machines.values() if machine.agent)

    def _start(self, machine: SimMachine, policy: Reboot, rooms: Dependencies, after: float) -> None:
        machine.start_agent(Coordinator(policy, rooms).tick, after=after)
        tick = machine.tick

        def overtaken() -> None:
            try:
                tick()
            except _Lists:
                machine.busy_epoch = -1
                underway = _Tick(tick)
                self._underway[underway.thread] = underway
                self._go_on(underway)

        machine.tick = overtaken  # type: ignore[method-assign]

    def _go_on(self, tick: _Tick) -> None:
        tick.go_on()
        if not tick.over:
            self.world.at(self.world.now + tick.seconds, lambda: self._go_on(tick))

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - see Trouble
        if self._counts and kind not in WATCHED:
            self.asked[kind] += 1

    def page(self) -> None:
        """One page of nodes is asked for. Raises _Lists where the tick cannot be held up."""
        tick = self._underway.get(threading.current_thread())
        if tick is None:
            raise _Lists
        self.asked["page"] += 1
        tick.take(PAGE_SECONDS)

    def release(self) -> float:
        """The holder gives the lock back. Seconds until somebody has it; who is counting then goes on."""
        began = self.world.now
        self._counts = True
        free = replace(self.world.leases[LEASE], holder="", phase=LeasePhase.NONE, renewed="later")
        self.world.set_lease(free, "holder")
        while not self.world.leases[LEASE].holder:
            self.world.step()
        taken = self.world.now - began
        winner = self.world.leases[LEASE].holder.partition("/")[0]
        self.world.machines[winner].stop_agent()  # what it does with the lock is another matter
        self.world.pass_time(1.0)
        return taken


@dataclass(frozen=True, slots=True)
class _Paged(ClusterOf):
    """The cluster port, with pages of nodes that take their time."""

    crowd: Crowd

    def members(self) -> Iterator[NodeView]:
        views = list(self.machine.world.nodes.values())
        for begin in range(0, len(views), MEMBERS_A_PAGE):
            self.crowd.page()
            yield from views[begin : begin + MEMBERS_A_PAGE]


def test_a_release_costs_tens_of_requests_with_five_thousand_waiting() -> None:
    """Counting the pool takes long there: few begin before the first one has done, and they stop when it has."""
    crowd = Crowd(5000)
    seconds = crowd.release()
    assert 0 < sum(crowd.asked.values()) < 100, crowd.asked
    assert seconds < 30.0


def test_a_small_pool_hands_the_lock_over_within_two_seconds() -> None:
    """One page is counted in no time, so that nobody need hold back for long."""
    crowd = Crowd(20)
    assert crowd.release() < 2.0
    assert sum(crowd.asked.values()) < 20
