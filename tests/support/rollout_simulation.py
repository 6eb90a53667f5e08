"""A thousand nodes and a policy that changes: random schedules over the pure decision, and the invariants.

Nodes look as agent/daemon does, with its back-off. A schedule is its seed: `python -m tests.support.rollout_simulation
SEED`. Every policy is drawn to be good or bad for each canary; canaries vanish and come, labels change, the API server
is away, agents restart, the policy changes in the middle.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.config.groups import Rollout
from agent.config.selector import parse
from agent.daemon.rollout_thread import LONGEST_SECONDS, next_poll_seconds
from agent.kube.retry import Backoff
from agent.rollout import reports
from agent.rollout.decision import (
    STUCK_SECONDS,
    Assessment,
    Canary,
    Observation,
    Order,
    Pending,
    Phase,
    Verdict,
    decide,
    judge,
    runs_pending,
    stage,
)

SOAK = 1800.0
_PASS = 300.0
_TROUBLES = ("away", "vanish", "vanish", "silence", "heal", "relabel", "restart", "promote", "abort", "none")


@dataclass(slots=True)
class Node:
    """One agent: what it remembers (through its disk's text at a restart), runs and has sent."""

    name: str
    is_canary: bool
    accepted: str | None = None
    pending: Pending | None = None
    own: Assessment = field(default_factory=Assessment)
    running: str = ""
    mounted: str = ""
    events: list[tuple[float, str]] = field(default_factory=list)
    backoff: Backoff | None = None
    looks: int = 0
    token: int = 0  # of the look that is planned; another one replaced it
    seen_refusal: set[tuple[str, str]] = field(default_factory=set)


class Violation(AssertionError):
    """An invariant that does not hold, with the schedule that shows it."""


class World:
    """Time, nodes and policies. bad: which policies fail on which canaries; promoted, aborted: what users decided."""

    def __init__(self, seed: int, nodes: int = 1000, canaries: int = 5) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.policy, self.number = "0" * 12, 0
        self.bad: dict[str, set[str]] = {}
        self.orders: dict[str, Order] = {}
        self.away_until = 0.0
        self.requests = 0
        self.refused_at: dict[str, list[tuple[float, str]]] = {}
        self.silent: set[str] = set()
        self.verified_at: dict[tuple[str, str], float] = {}
        self.mounted_at: dict[tuple[str, str], float] = {}
        self.changed_at = self.now
        self.events: list[tuple[float, int, str, str, int]] = []
        self.count = 0
        self.nodes = {f"n{number}": Node(f"n{number}", number < canaries) for number in range(nodes)}
        for node in self.nodes.values():
            self.later(self.rng.uniform(0, 60), "read", node.name)

    def later(self, seconds: float, what: str, node: str = "", token: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, what, node, token))

    # -- what happens ----------------------------------------------------------------------------------------------

    def change(self, *, bad: float) -> str:
        """A new policy reaches every node within a minute, as the kubelet syncs; bad: the chance for each canary."""
        self.number += 1
        self.policy, self.changed_at = f"{self.number:012x}", self.now
        self.bad[self.policy] = {one.name for one in self.canaries() if self.rng.random() < bad}
        for node in self.nodes.values():
            self.later(self.rng.uniform(0, 60), "read", node.name)
        return self.policy

    def canaries(self) -> Iterator[Node]:
        return (one for one in self.nodes.values() if one.is_canary)

    def heal(self) -> None:
        """What failed passes now: it was not the policy, or a user has repaired the canary."""
        self.bad[self.policy] = set()
        for node in self.canaries():
            self.later(self.rng.uniform(0, _PASS), "pass", node.name)

    def vanish(self) -> None:
        """A canary is deleted: by the autoscaler, or because it failed."""
        some = sorted(one.name for one in self.canaries() if one.own.verdict is Verdict.FAILED)
        some = some or sorted(one.name for one in self.canaries())
        if some:
            del self.nodes[self.rng.choice(some)]

    def silence(self) -> None:
        """The agent of a canary does nothing any more."""
        self.silent |= {self.rng.choice(some)} if (some := sorted(one.name for one in self.canaries())) else set()

    def relabel(self) -> None:
        """A node becomes a canary, or stops being one."""
        node = self.nodes[self.rng.choice(sorted(self.nodes))]
        node.is_canary = not node.is_canary
        self.later(self.rng.uniform(0, 2), "read", node.name)

    def restart(self) -> None:
        """Everything but the disk is gone."""
        node = self.nodes[self.rng.choice(sorted(self.nodes))]
        node.pending, node.own = reports.remembered(reports.written(node.pending, node.own))
        node.backoff = None
        self.later(self.rng.uniform(0, 30), "read", node.name)

    def run(self, seconds: float) -> None:
        """Until so much later; the invariants are checked with each step."""
        ends = self.now + seconds
        steps: dict[str, Callable[[Node, int], None]] = {
            "read": self.read, "pass": self.passed, "look": self.look,
        }  # fmt: skip
        while self.events and self.events[0][0] <= ends:
            self.now, _, what, name, token = heapq.heappop(self.events)
            if (node := self.nodes.get(name)) is not None and name not in self.silent:
                steps[what](node, token)
        self.now = ends

    # -- what an agent does ----------------------------------------------------------------------------------------

    def read(self, node: Node, _token: int = 0) -> None:
        """As Staging.choose."""
        node.mounted = self.policy
        self.mounted_at.setdefault((node.mounted, node.name), self.now)
        rollout = Rollout(canary=parse("canary"), soak=SOAK)
        before = node.pending
        node.pending = stage(before, newest=node.mounted, accepted=node.accepted, rollout=rollout, now=self.now)
        if node.pending is None:
            self.take(node, node.mounted)
        elif runs_pending(node.pending, is_canary=node.is_canary):
            node.running = node.mounted
        else:
            assert node.accepted is not None
            node.running = node.accepted
        self.later(self.rng.uniform(0, 5), "pass", node.name)
        if node.pending is not None and (before is None or before.target != node.pending.target or not node.backoff):
            node.backoff = Backoff(30.0, LONGEST_SECONDS, self.rng)
            self.plan(node, node.backoff.next())

    def plan(self, node: Node, seconds: float) -> None:
        node.token += 1
        self.later(seconds, "look", node.name, node.token)

    def take(self, node: Node, policy: str) -> None:
        """Accepts it. Checked against what happened, not against what the node remembers of it."""
        promoted = self.orders.get(policy) is Order.PROMOTE
        if node.accepted not in (None, policy) and not promoted:
            self.check_taken(node, policy)
        node.accepted, node.running, node.pending = policy, policy, None

    def check_taken(self, node: Node, policy: str) -> None:
        """No canary refused it that the node knows or could know of; every canary has it well for the soak time."""
        known = [
            at for at, name in self.refused_at.get(policy, ())
            if (name in self.nodes and self.nodes[name].is_canary) or (policy, name) in node.seen_refusal
        ]  # fmt: skip
        if known:
            raise Violation(f"{node.name} took {policy}, which a canary refused at {known}")
        times = [self.verified_at.get((policy, one.name), self.now) for one in self.canaries()]
        waited = self.now - max((*times, self.mounted_at[policy, node.name]))
        if not times or waited < SOAK:
            raise Violation(f"{node.name} took {policy} after {waited:.0f} s, with {len(times)} canaries")

    def passed(self, node: Node, _token: int = 0) -> None:
        """A pass of the loop: what fails is known from the draw."""
        failed = {"x"} if node.name in self.bad.get(node.running, ()) else set()
        tried = node.pending is not None and node.running == node.pending.target
        before = node.own
        node.own = judge(before, node.running, failed=failed, unknown=(), tried=tried, now=self.now)
        if failed:
            self.verified_at.pop((node.running, node.name), None)
        else:
            self.verified_at.setdefault((node.running, node.name), self.now)
        is_new = before.verdict is not Verdict.FAILED or before.revision != node.running
        if tried and node.is_canary and node.own.verdict is Verdict.FAILED and is_new:
            node.events.append((self.now, "PolicyFailedOnCanary"))
            self.refused_at.setdefault(node.running, []).append((self.now, node.name))

    def look(self, node: Node, token: int) -> None:
        """As Rollouts: a list and a ConfigMap."""
        if node.pending is None or token != node.token or node.backoff is None:
            return
        node.looks += 1
        self.requests += 2
        seen = None if self.now < self.away_until else self.observed(node.pending.target)
        step = decide(node.pending, SOAK, seen, self.now)
        node.pending = step.pending
        for one in seen.canaries if seen else ():
            if one.verdict is Verdict.FAILED and one.revision == node.pending.target:
                node.seen_refusal.add((one.revision, one.name))
        if step.announce:
            node.events.append((self.now, "PolicyRolloutStuck"))
        if step.take:
            self.take(node, step.pending.target)
            return
        if step.pending.phase is Phase.ABORTED and node.running == step.pending.target:
            self.read(node)
        self.plan(node, next_poll_seconds(step, SOAK, node.backoff, self.rng))

    def observed(self, target: str) -> Observation:
        canaries = tuple(
            Canary(one.name, one.running, one.own.verdict if one.own.revision == one.running else Verdict.UNKNOWN,
                   one.own.since, 1.0)
            for one in self.canaries()
        )  # fmt: skip
        return Observation(canaries[:50], len(canaries) > 50, self.orders.get(target))

    # -- what has to hold ------------------------------------------------------------------------------------------

    def check_quiet(self) -> None:
        """After days of quiet: everyone has the policy, or an Event says why not."""
        held = [one for one in self.nodes.values() if one.pending is not None and one.name not in self.silent]
        if not held:
            return
        told = [event for one in self.nodes.values() for event in one.events if event[0] >= self.changed_at]
        if self.orders.get(self.policy) is None and not told and not self.refused_at.get(self.policy):
            phases = sorted({one.pending.phase for one in held if one.pending})
            raise Violation(f"{len(held)} nodes hold {self.policy} back without an Event: {phases}")


def schedule(seed: int, nodes: int = 1000) -> World:
    """One random schedule: half a day of trouble, then quiet."""
    world = World(seed, nodes, canaries=seed % 6)
    world.run(600)
    for _ in range(world.rng.randint(1, 4)):
        world.change(bad=world.rng.choice([0.0, 0.0, 0.3]))
        for _ in range(world.rng.randint(0, 6)):
            world.run(world.rng.uniform(10, 2400))
            trouble = world.rng.choice(_TROUBLES)
            if trouble == "away":
                world.away_until = world.now + world.rng.uniform(60, 4000)
            elif trouble in ("promote", "abort"):
                world.orders.setdefault(world.policy, Order(trouble))
            elif trouble != "none":
                getattr(world, trouble)()
    world.away_until = 0.0
    world.run(STUCK_SECONDS + SOAK + 4 * LONGEST_SECONDS)
    world.check_quiet()
    return world


if __name__ == "__main__":
    made = schedule(int(sys.argv[1]))
    sys.stdout.write(f"{made.requests} requests, {made.refused_at}\n")
