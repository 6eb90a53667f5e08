"""Random schedules over a reboot_world: faults at calls, refusals, crashes, power cuts, clocks, people; the invariants.

A schedule is its seed. To see one: `python -m tests.support.reboot_simulation SEED`. It has two parts: an hour or so in
which everything may go wrong, then quiet, in which everything that wants a reboot has to get it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from agent.annotations import REBOOT_REQUEST, REBOOT_SKIP, REBOOT_STATE
from agent.config import schema
from agent.config.choices import Mode, OnTimeout
from agent.config.schema import Reboot
from agent.event_reasons import Reason
from agent.reboot.cluster import LeasePhase
from agent.reboot.coordinator import Coordinator
from agent.reboot.interfaces import Announcement
from agent.reboot.lock.lease import freed
from agent.reboot.phases import Phase
from tests.support.reboot_agent import Agents, Make
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import CommandFate, Crash, Trouble, Violation, away, conflict, refused
from tests.support.reboot_world import World

TROUBLED_SECONDS = 3600.0
_QUIET_LIMIT_SECONDS = 3 * 86400.0
_TICKS_LIMIT = 12_000
_NESTING_LIMIT = 2
_DAY_SECONDS = 86400.0
_REFUSABLE = (
    "leases",
    "put_lease",
    "patch_node",
    "evict",
    "list_nodes",
    "count",
    "get_node",
    "review",
    "get_heartbeat",
)
# Longer than every deadline between cordon and command of every policy drawn here: a policy may change on the way.
_CORDON_SECONDS = 2 * (4 * 300.0 + 5.0 + 3.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one schedule came to: the violated invariant (empty: none) and a few figures."""

    seed: int
    violation: str
    ticks: int
    requests: int
    boots: int
    seconds: float
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of call of one node is refused for a time: RBAC, an admission policy, a webhook."""

    begins: float
    ends: float
    node: str
    kind: str
    status: int


class RandomTrouble(Trouble):
    """At each call: nothing mostly, else a 409, an API server away, a lost answer, a crash, or a long silence."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        self.rng = rng
        self.rate = rate
        self.outages: list[tuple[float, float, str]] = []
        self.refusals: list[Refusal] = []
        self.depth = 0
        self.on = True

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if not self.on:
            return
        now = machine.world.now
        quiet = kind in ("event", "reboot")  # these do not go to the API server, or never raise
        if not quiet and any(a <= now < b and who in ("", machine.name) for a, b, who in self.outages):
            raise away()
        for one in self.refusals:
            if one.kind == kind and one.begins <= now < one.ends and machine.name == one.node:
                machine.world.note(f"{machine.name}: {kind} is refused with {one.status}")
                raise refused(one.status)
        if self.rng.random() >= self.rate:
            return
        what = self.rng.random()
        if what < 0.25:
            machine.world.note(f"{machine.name}: crashes before {kind}")
            raise Crash
        if what < 0.5:
            self._silence(machine, kind)
        elif quiet:
            return
        elif what < 0.75 and write and kind != "evict":
            raise conflict()
        else:
            raise away()

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        if not self.on or self.rng.random() >= self.rate:
            return
        what = self.rng.random()
        if what < 0.4:
            machine.world.note(f"{machine.name}: crashes after {kind}")
            raise Crash
        if what < 0.6:
            self._silence(machine, kind)
        elif kind not in ("event", "reboot"):
            machine.world.note(f"{machine.name}: the answer to {kind} is lost")
            raise away(ambiguous=write)

    def is_stale(self, machine: SimMachine) -> bool:
        return self.on and (machine.reads_late or self.rng.random() < 0.05)

    def _silence(self, machine: SimMachine, kind: str) -> None:
        """The process, or the request, hangs while the world goes on; others' calls may hang within."""
        if self.depth >= _NESTING_LIMIT:
            return
        # A process that stands still for longer than rebootTimeout between its last look and the command cannot be
        # told from one that gave it: that alone is left out.
        seconds = self.rng.choice((0.02, 0.3, 2.0, 20.0, 90.0, 90.0 if kind == "reboot" else 400.0))
        machine.world.note(f"{machine.name}: hangs {seconds} s around {kind}")
        self.depth += 1
        try:
            machine.world.pass_time(seconds)
        finally:
            self.depth -= 1


def policy_of(rng: random.Random, slots: int, nodes: int) -> Reboot:
    """A policy of short times."""
    limit = rng.choice((str(slots), str(slots), "100%", str(nodes)))
    return Reboot(
        concurrency=slots,
        max_unavailable=limit,
        drain=schema.Drain(
            timeout=rng.choice((60.0, 300.0)),
            on_timeout=rng.choice(tuple(OnTimeout)),
            delay=rng.choice((0.0, 0.0, 3.0)),
        ),
        hooks=schema.Hooks(
            pre_drain=(schema.Hook(command=("/bin/true",)),) if rng.random() < 0.2 else (),
            post_reboot=(schema.Hook(command=("/bin/true",)),) if rng.random() < 0.2 else (),
        ),
        lock=schema.Lock(release_delay=rng.choice((0.0, 0.0, 15.0))),
        blockers=schema.Blockers(minimum_gap=rng.choice((0.0, 0.0, 60.0))),
        delay=rng.choice((0.0, 0.0, 5.0)),
        reboot_timeout=300.0,
        verify_timeout=300.0,
        retry_after=120.0,
        prefer_no_schedule_taint=rng.choice(("", "example.com/reboot-soon")),
    )


class Schedule:
    """One seed's world and what happens in it."""

    def __init__(self, seed: int, make: Make, *, trusts_versions: bool = True, logs: bool = False) -> None:
        rng = self.rng = random.Random(seed)
        count = rng.choice((2, 3, 3, 4, 4, 5, 6))
        slots = rng.choice((1, 1, 2))
        self.trouble = RandomTrouble(rng, rng.choice((0.0, 0.01, 0.03, 0.08)))
        self.world = World(slots=slots, trouble=self.trouble)
        self.world.trusts_versions = trusts_versions
        if logs:
            self.world.log = []
        self.policy = policy_of(rng, slots, count)
        self.agents = Agents(self.policy, rng, make)
        self.deleted: set[str] = set()
        self.reactive = rng.choice((0.0, 0.02, 0.1))
        for index in range(count):
            self._add(f"n{index}", control_plane=count > 3 and index == 0)
        self._plan()

    def _add(self, name: str, *, control_plane: bool) -> None:
        labels = {"node-role.kubernetes.io/control-plane": ""} if control_plane else {}
        machine = self.world.add_machine(name, labels)
        machine.pool = "control-plane" if control_plane else "workers"
        machine.pods = machine.pods_left = self.rng.randint(0, 3)
        machine.returning = self.rng.choice((0, 0, 0, 1))
        machine.deadline_seconds = _CORDON_SECONDS
        self._shuffle_clock(machine)
        self.agents.on(machine)
        restart = machine.came_up

        def came_up() -> None:
            self._shuffle_clock(machine)
            self._next_boot(machine)
            restart()

        machine.came_up = came_up  # type: ignore[method-assign]
        machine.overheard = lambda announcement: self._react(machine, announcement)  # type: ignore[method-assign]
        self._next_boot(machine)

    def _shuffle_clock(self, machine: SimMachine) -> None:
        machine.wall_offset = 1_700_000_000.0 + self.rng.choice((0.0, 0.0, 3.0, -7200.0, 9000.0, -1e8))

    def _next_boot(self, machine: SimMachine) -> None:
        """How the next reboot will go."""
        rng = self.rng
        machine.shutdown_seconds = rng.uniform(0.0, 60.0) if rng.random() < 0.9 else rng.uniform(300.0, 1200.0)
        machine.down_seconds = rng.uniform(10.0, 120.0)
        machine.kubelet_seconds = rng.uniform(1.0, 30.0)
        if not self.trouble.on:
            machine.fate = CommandFate.WORKS
            return
        if rng.random() < 0.1:
            machine.down_seconds = rng.uniform(400.0, 4000.0)
        machine.fate = rng.choices(tuple(CommandFate), (12, 2, 1, 1))[0]
        machine.sticky_sentinel = rng.random() < 0.05

    def _plan(self) -> None:
        """What happens to the nodes in the troubled hour, and that it ends."""
        rng, world = self.rng, self.world
        for machine in world.machines.values():
            for number in range(1 if rng.random() < 0.8 else 2):
                if rng.random() < 0.9:
                    when = rng.choice((5.0, rng.uniform(0.0, 900.0))) + number * 1200.0
                    world.at(when, lambda m=machine, n=number: m.want(f"stamp-{n}"))  # type: ignore[misc]
            if rng.random() < 0.3:
                machine.pdb_until = rng.uniform(0.0, TROUBLED_SECONDS)
            for _ in range(rng.choice((0, 0, 1, 3))):
                self._plan_a_mishap(machine, rng.uniform(0.0, TROUBLED_SECONDS))
            if rng.random() < 0.2:
                at = rng.choice((0.0, rng.uniform(0.0, 1200.0)))
                kind, status = rng.choice(_REFUSABLE), rng.choice((403, 422, 429))
                self.trouble.refusals.append(Refusal(at, at + rng.choice((60.0, 1200.0)), machine.name, kind, status))
            machine.alerts = rng.choices(("", "about the node", "elsewhere"), (17, 2, 1))[0]
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            world.at(rng.uniform(0.0, TROUBLED_SECONDS), self._reconfigure)
        if rng.random() < 0.4:
            for _ in range(rng.randint(1, 3)):
                at = rng.uniform(0.0, TROUBLED_SECONDS)
                who = rng.choice(("", *world.machines))
                self.trouble.outages.append((at, at + rng.choice((5.0, 70.0, 600.0)), who))
        world.at(TROUBLED_SECONDS, self._calm)

    def _reconfigure(self) -> None:
        """Another policy comes into force everywhere; what the invariants are checked against stays the same."""
        if not self.trouble.on:
            return
        rng = self.rng
        drawn = policy_of(rng, self.policy.concurrency, len(self.world.machines))
        mode = rng.choice((Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT, Mode.OFF))
        self.world.note(f"another policy: {mode.value}")
        self.agents.policy = replace(drawn, mode=mode, max_unavailable=self.policy.max_unavailable)
        for machine in self.world.machines.values():
            machine.wake()

    def _react(self, machine: SimMachine, announcement: Announcement) -> None:
        """Now and then an Event is followed by somebody's hand, so that it falls into the middle of a cycle."""
        if self.trouble.on and announcement.reason is not Reason.REBOOT_BLOCKED and self.rng.random() < self.reactive:
            self._plan_a_mishap(machine, self.world.now + self.rng.choice((0.0, 0.02, 1.0, 20.0)))

    def _plan_a_mishap(self, machine: SimMachine, at: float) -> None:
        world, name = self.world, machine.name
        mishaps: list[Callable[[], None]] = [
            lambda: world.human_cordons(name, cordon=True),
            lambda: world.human_cordons(name, cordon=False),
            machine.power_off,
            lambda: self._flicker_sentinel(machine),
            lambda: self._kill(machine),
            lambda: self._set(machine, "sentinel_unknown", value=True),
            lambda: self._set(machine, "verified", value=self.rng.choice((None, False))),
            lambda: self._set(machine, "blocked_by", value="alert KubeNodeNotReady"),
            lambda: self._skip(name, "being looked at"),
            lambda: self._human_twice(name),
            lambda: self._remove_state(machine),
            lambda: self._take_lock(machine),
            lambda: self._set_clock(machine),
            lambda: self._request(machine),
        ]
        if len(world.machines) > 2 and self.rng.random() < 0.3:
            mishaps.append(lambda: self._delete(machine))
        mishap = self.rng.choice(mishaps)
        world.at(at, lambda: mishap() if self.trouble.on else None)  # calm is for good

    def _set(self, machine: SimMachine, what: str, *, value: object) -> None:
        setattr(machine, what, value)

    def _skip(self, name: str, reason: str | None) -> None:
        if name in self.world.nodes:
            self.world.annotate(name, REBOOT_SKIP, reason)

    def _human_twice(self, name: str) -> None:
        """Lifts whatever cordon there is and sets one of her own."""
        self.world.human_cordons(name, cordon=False)
        self.world.human_cordons(name, cordon=True)

    def _remove_state(self, machine: SimMachine) -> None:
        """As docs/reboots.md allows at any moment; the back-off is forgotten with it."""
        if machine.name in self.world.nodes:
            self.world.note(f"{machine.name}: a user removes its state ({self.world.phase_of(machine.name)})")
            self.world.books.overridden.append((self.world.now, machine.name))
            self.world.annotate(machine.name, REBOOT_STATE, None)

    def _take_lock(self, machine: SimMachine) -> None:
        """`unlock --force`, or the Lease deleted, while the holder cannot be on its way down."""
        world = self.world
        for lease in list(world.leases.values()):
            is_back = machine.has_kubelet and world.phase_of(machine.name) is Phase.VERIFYING
            if lease.holder != machine.identity or (lease.phase is LeasePhase.REBOOTING and not is_back):
                continue
            machine.lock_taken_at = world.now
            if self.rng.random() < 0.5:
                world.note(f"{machine.name}: {lease.name} is deleted by a user")
                world.delete_lease(lease.name)
            else:
                world.note(f"{machine.name}: {lease.name} is taken by a user")
                world.set_lease(freed(lease, world.now), "a user")

    def _set_clock(self, machine: SimMachine) -> None:
        """The wall clock alone: NTP after a boot with a wrong clock, or a user."""
        seconds = self.rng.choice((-1e8, -86400.0, -600.0, 600.0, 86400.0, 1e8))
        self.world.note(f"{machine.name}: its wall clock is set by {seconds:.0f} s")
        machine.wall_offset = max(0.0, machine.wall_offset + seconds)

    def _request(self, machine: SimMachine) -> None:
        """Another reboot is requested, or the request is taken back; a new one overrides the back-off."""
        if machine.name not in self.world.nodes:
            return
        text = self.rng.choice((None, f"by a user, {self.world.now:.0f}"))
        self.world.note(f"{machine.name}: reboot request {text}")
        self.world.books.overridden.append((self.world.now, machine.name))
        self.world.annotate(machine.name, REBOOT_REQUEST, text)

    def _flicker_sentinel(self, machine: SimMachine) -> None:
        machine.wanted = not machine.wanted
        machine.stamp = f"flicker-{self.world.now}"
        machine.wake()

    def _kill(self, machine: SimMachine) -> None:
        if machine.agent is not None:
            self.world.note(f"{machine.name}: agent killed")
            machine.stop_agent()
            machine.crashed()

    def _delete(self, machine: SimMachine) -> None:
        """The Node is deleted and the machine with it."""
        self.world.note(f"{machine.name}: deleted")
        machine.stop_agent()
        machine.up = machine.has_kubelet = machine.going_down = False
        machine.boots += 1000
        machine.power_on = machine.crashed = machine.came_up = lambda: None  # type: ignore[method-assign]
        self.deleted.add(machine.name)
        self.world.nodes.pop(machine.name, None)

    def _calm(self) -> None:
        """Everything works from here on."""
        self.world.note("calm")
        self.trouble.on = False
        self.trouble.outages.clear()
        self.trouble.refusals.clear()
        self.agents.policy = replace(self.agents.policy, mode=Mode.ENFORCE)
        keeps_cordons = self.policy.max_unavailable == "100%"
        for machine in self.world.machines.values():
            if machine.name in self.deleted:
                continue
            machine.sentinel_unknown = machine.sticky_sentinel = False
            machine.verified, machine.blocked_by, machine.pdb_until, machine.alerts = True, "", 0.0, ""
            machine.fate = CommandFate.WORKS
            machine.shutdown_seconds = min(machine.shutdown_seconds, 60.0)
            self._skip(machine.name, None)
            if self.world.nodes[machine.name].unschedulable_by == "kubectl-cordon" and not keeps_cordons:
                self.world.human_cordons(machine.name, cordon=False)
            machine.wake()

    # -- the end -------------------------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Nobody wants anything and everything is put back."""
        for name, machine in self.world.machines.items():
            if name in self.deleted:
                continue
            if not machine.has_kubelet or machine.agent is None or machine.last_tick is None:
                return False
            if self.world.phase_of(name) is not Phase.IDLE:
                return False
            if machine.wanted and machine.last_tick.status.blocked_by != "guard":
                return False
        return all(not lease.holder or self._is_of_deleted(lease.holder) for lease in self.world.leases.values())

    def _is_of_deleted(self, holder: str) -> bool:
        return holder.partition("/")[0] in self.deleted

    def run(self) -> str:
        """The violated invariant, empty when all hold."""
        world = self.world
        try:
            self._run_to_the_end()
            self._check_books()
        except Violation as violation:
            world.note(f"VIOLATION {violation}")
            return str(violation)
        return ""

    def _run_to_the_end(self) -> None:
        world = self.world
        while world.step():
            if not self.trouble.on and self.is_settled():
                return
            if world.now > _QUIET_LIMIT_SECONDS or world.books.ticks > _TICKS_LIMIT:
                raise Violation(f"unsettled after {world.now:.0f} s, {world.books.ticks} ticks: {self._unsettled()}")
        raise Violation(f"stands still: {self._unsettled()}")

    def _unsettled(self) -> str:
        nodes = "; ".join(
            f"{name} {world_phase.value} ({machine.last_tick.status.sentence if machine.last_tick else 'no tick'})"
            for name, machine in self.world.machines.items()
            if (world_phase := self.world.phase_of(name)) is not Phase.IDLE or machine.wanted
        )
        holders = ", ".join(f"{lease.name}: {lease.holder}" for lease in self.world.leases.values() if lease.holder)
        return f"{nodes}; locks {holders or 'free'}"

    def _check_books(self) -> None:
        world, books = self.world, self.world.books
        for name, view in world.nodes.items():
            if view.unschedulable and view.unschedulable_by != "kubectl-cordon":
                raise Violation(f"{name} is left cordoned by us")
            if view.taints and not world.machines[name].wanted:
                raise Violation(f"{name} is left tainted by us")
        booted = books.boots
        for name in world.machines:
            cordons = [at for at, who in books.cordons if who == name]
            if len(cordons) > 30:
                raise Violation(f"{name} was drained {len(cordons)} times")
            for first, second in pairwise(cordons):
                if any(who == name and first <= at <= second for at, who in (*booted, *books.overridden)):
                    continue
                if second - first < self.policy.retry_after:
                    raise Violation(
                        f"{name} was drained again {second - first:.0f} s later without a reboot in between"
                    )
            self._check_repeated_drains(name)
        for lease in world.leases.values():
            if lease.phase is LeasePhase.REBOOTING and not self._is_of_deleted(lease.holder):
                raise Violation(f"{lease.name} is left fenced")

    def _check_repeated_drains(self, name: str) -> None:
        """The same answer after the drain ends two drains in a row in one boot, and no third one within a day."""
        in_a_row: list[float] = []
        reset_by = (*self.world.books.boots, *self.world.books.overridden)
        known: set[str] = set()
        for at, who, said in self.world.books.heard:
            if who != name or said.key in known or said.reason not in (Reason.REBOOT_FAILED, Reason.REBOOT_SUCCEEDED):
                continue
            known.add(said.key)
            in_a_row = [*in_a_row, at] if said.message.startswith("drained, but blocked by") else []
            booted = any(who == name and in_a_row and in_a_row[0] < boot <= at for boot, who in reset_by)
            in_a_row = in_a_row[-1:] if booted else in_a_row
            if len(in_a_row) > 2 and in_a_row[-1] - in_a_row[-2] < _DAY_SECONDS:
                raise Violation(f"{name} was drained again for the same answer: {said.message}")


def run(seed: int, make: Make = Coordinator, *, trusts_versions: bool = True, logs: bool = False) -> Outcome:
    """One schedule."""
    schedule = Schedule(seed, make, trusts_versions=trusts_versions, logs=logs)
    violation = schedule.run()
    world = schedule.world
    return Outcome(
        seed,
        violation,
        world.books.ticks,
        world.books.requests,
        len(world.books.boots),
        world.now,
        tuple(world.log or ()),
    )


def main(seeds: list[str]) -> None:
    """Tells each schedule line by line."""
    for seed in seeds:
        outcome = run(int(seed), logs=True)
        sys.stdout.write("\n".join((*outcome.log, str(replace(outcome, log=())), "")))


if __name__ == "__main__":
    main(sys.argv[1:])
