"""A permanent refusal of any call at any step: no cordon of the agent outlives its deadlines, and later all ends well.

Only the patch of the own Node is left out: without it nothing can be done about a cordon.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.annotations import REBOOT_SKIP
from agent.config import schema
from agent.config.choices import OnTimeout
from agent.config.schema import Reboot
from agent.event_reasons import Reason
from agent.reboot.cluster import NodeView
from agent.reboot.machine import announcements
from agent.reboot.machine.inputs import Inputs
from agent.reboot.state import Now, RolledBack, Stamp
from agent.reboot.status import StatusReason
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_replay import Path, is_put_back, play
from tests.support.reboot_trouble import CommandFate, Crash, Trouble, away, refused
from tests.support.reboot_world import World

HOOKS = (schema.Hook(command=("/bin/true",), timeout=10.0),)
POLICY = Reboot(
    max_unavailable="2",
    drain=schema.Drain(timeout=60.0),
    hooks=schema.Hooks(pre_drain=HOOKS, pre_reboot=HOOKS, post_reboot=HOOKS),
    reboot_timeout=120.0,
    verify_timeout=120.0,
    retry_after=3600.0,
)
LEASE = "node-hardening-reboot-workers-0"
REFUSED_SECONDS = 1200.0  # longer than all the timeouts of a cycle together
KINDS = ("leases", "put_lease", "evict", "list_nodes", "count", "review", "get_node", "get_heartbeat")
MOMENTS = (Reason.REBOOT_LOCK_ACQUIRED, Reason.NODE_CORDONED, Reason.DRAINED, Reason.REBOOTING)


class Refusal(Trouble):
    """From a moment of n0's cycle on its calls of one kind are refused, for a time; with a restart at that moment."""

    def __init__(self, kind: str, *, restarts: bool, status: int = 403, seconds: float = REFUSED_SECONDS) -> None:
        self.kind, self.status, self.seconds = kind, status, seconds
        self.crashes = restarts
        self.begins = float("inf")

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - Trouble's signature
        if machine.name != "n0" or not self.begins <= machine.world.now < self.begins + self.seconds:
            return
        if self.crashes:
            self.crashes = False
            raise Crash
        if kind == self.kind:
            raise refused(self.status)


@pytest.mark.parametrize("on_timeout", list(OnTimeout))
@pytest.mark.parametrize("restarts", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_cordon_outlives_a_refusal(kind: str, moment: Reason, restarts: bool, on_timeout: OnTimeout) -> None:
    """Before the end of the refusal the cordon is gone; after it the lock is free and the node idle."""
    trouble = Refusal(kind, restarts=restarts)
    cordoned: list[bool] = []

    def begin(world: World, reason: str) -> None:
        if reason == moment and trouble.begins == float("inf"):
            trouble.begins = world.now
            end = world.now + REFUSED_SECONDS - 1.0
            world.at(end, lambda: cordoned.append(world.nodes["n0"].unschedulable))

    policy = replace(POLICY, drain=schema.Drain(timeout=60.0, on_timeout=on_timeout))
    world = play(Path("refused", policy, is_put_back, on_event=begin, settle_seconds=20_000.0), trouble)
    assert cordoned == [False]
    is_put_back(world)
    assert not world.machines["n0"].wanted


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.parametrize(
    ("ends", "foreign"),
    [
        ("succeeds", False),
        ("succeeds", True),
        ("is rolled back", False),
        ("is rolled back", True),
        ("is aborted", False),
    ],
)
@pytest.mark.parametrize("bad", [{"example.com/bad"}, {"example.com/bad", "example.com/good", "example.com/busy"}])
def test_a_refused_key_does_not_keep_a_cycle_from_its_end(bad: set[str], ends: str, foreign: bool, status: int) -> None:
    """Cordon and lock go, the other keys are written, and an Event names each that is refused, once."""
    marks = {"before": {"example.com/busy": "yes"}, "after": {"example.com/bad": "1", "example.com/good": "2"}}
    policy = replace(POLICY, node_labels=schema.NodeLabels(**marks), node_annotations=schema.NodeAnnotations(**marks))

    def act(world: World) -> None:
        world.refusal = status
        if foreign:
            world.human_cordons("n0", cordon=True)

    def at_last(world: World, reason: str) -> None:
        if reason != (Reason.NODE_CORDONED if ends == "is aborted" else Reason.REBOOTING):
            return
        world.refused_keys |= bad
        if ends == "is aborted":
            world.annotate("n0", REBOOT_SKIP, "by a user")
        elif ends == "is rolled back":
            world.machines["n0"].fate = CommandFate.FAILS

    world = play(Path("keys", policy, is_put_back, act=act, on_event=at_last, settle_seconds=900.0), Trouble())
    node = world.nodes["n0"]
    assert [lease.name for lease in world.leases.values() if lease.holder] == []
    assert node.unschedulable is foreign
    refused_after = bad if ends == "succeeds" else bad - {"example.com/bad", "example.com/good"}
    left = {"example.com/busy": "yes"} if "example.com/busy" in bad else {}
    after = {key: value for key, value in marks["after"].items() if key not in bad} if ends == "succeeds" else {}
    assert node.labels == left | after
    assert {key: value for key, value in node.annotations.items() if key.startswith("example.com")} == left | after
    said = [one.message for one in world.books.events.values() if one.reason is Reason.NODE_KEY_REFUSED]
    assert len(said) == 2 * len(refused_after)
    assert all(any(f" {key} " in text for text in said) for key in refused_after)


def test_a_right_that_is_missing_is_not_the_fault_of_a_key() -> None:
    """No patch of the Node is allowed for a time: afterwards the cycle ends with every key in its place."""
    labels = schema.NodeLabels(after={"example.com/a": "1"})
    trouble = Refusal("patch_node", restarts=False)

    def rebooted(world: World, reason: str) -> None:
        if reason == Reason.REBOOTING:
            trouble.begins = world.now

    world = play(
        Path("rights", replace(POLICY, node_labels=labels), is_put_back, on_event=rebooted, settle_seconds=9000.0),
        trouble,
    )
    is_put_back(world)
    assert world.nodes["n0"].labels == {"example.com/a": "1"}
    assert Reason.NODE_KEY_REFUSED not in [one.reason for one in world.books.events.values()]


def test_a_cordon_that_is_refused_does_not_hold_the_lock() -> None:
    """By an admission policy that does not know the policy's labels, say: the pool continues, and it is reported."""

    def act(world: World) -> None:
        world.forbidden_cordons.add("n0")
        world.machines["n1"].want("first")
        world.at(5000.0, world.forbidden_cordons.clear)
        world.at(4999.0, lambda: seen.append((world.machines["n1"].boots, world.nodes["n0"].unschedulable)))

    seen: list[tuple[int, bool]] = []
    world = play(Path("refused", POLICY, is_put_back, act=act, settle_seconds=20_000.0), Trouble())
    is_put_back(world)
    assert seen == [(1, False)]
    assert world.machines["n0"].boots == 1
    released = [said.message for said in world.books.events.values() if "released unused" in said.message]
    assert released
    assert all("the cordon is refused" in text and "403" in text for text in released)


class LostRelease(Trouble):
    """The first release of n0's lock gets no answer. is_done: the API server had done it."""

    def __init__(self, *, is_done: bool) -> None:
        self.is_done, self.hits = is_done, 0

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - a Trouble
        if not self.is_done and kind == "put_lease" and machine.world.forbidden_cordons:
            lease = machine.world.leases.get(LEASE)
            if lease is not None and lease.holder == machine.identity:
                machine.world.forbidden_cordons.clear()
                self.hits += 1
                raise away(ambiguous=True)

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:  # noqa: ARG002 - a Trouble
        if self.is_done and kind == "put_lease" and not machine.world.leases[LEASE].holder:
            machine.world.forbidden_cordons.clear()
            self.hits += 1
            if self.hits == 1:
                raise away(ambiguous=True)


@pytest.mark.parametrize("is_done", [True, False])
def test_the_release_of_an_unused_lock_is_announced_when_it_was_seen(is_done: bool) -> None:
    """Its answer was lost: the next read of the Lease shows whether it was done, and only then there is an Event."""

    def act(world: World) -> None:
        world.forbidden_cordons.add("n0")

    trouble = LostRelease(is_done=is_done)
    world = play(Path("lost release", POLICY, is_put_back, act=act, nodes=1, settle_seconds=20_000.0), trouble)
    is_put_back(world)
    assert trouble.hits
    released = [said.message for said in world.books.events.values() if "released unused" in said.message]
    assert len(released) == int(is_done)


def test_no_lock_counts_as_released_while_it_is_unknown() -> None:
    """Of no Lease that could be read: nothing was seen, whatever the last process did."""
    state = RolledBack(cycle="c", since=1.0, entered=Stamp("b", 1.0, 1.0), lease=LEASE, error="e")
    node = NodeView("n0", "u", "1")
    inputs = Inputs(policy=POLICY, now=Now("b", 2.0, 2.0), node=node, state=state, lock_problem="403")
    assert announcements.released(inputs, state) == ()
    inputs.lock_problem = ""
    assert [one.reason for one in announcements.released(inputs, state)] == [Reason.REBOOT_LOCK_RELEASED]


def reason_of(machine: SimMachine) -> StatusReason:
    """What its last tick reported."""
    assert machine.last_tick is not None
    return machine.last_tick.status.reason


@pytest.mark.parametrize("status", [429, 500])
def test_an_api_server_that_fails_for_a_while_does_not_cost_the_lock(status: int) -> None:
    """A control plane that restarts answers so: the lock is renewed in time, and no lack of rights is reported."""
    trouble = Refusal("put_lease", restarts=False, status=status, seconds=35.0)
    reported: set[str] = set()

    def act(world: World) -> None:
        world.machines["n0"].pdb_until = 150.0
        world.at(10.0, lambda: world.machines["n1"].want("second"))

    def cordoned(world: World, reason: str) -> None:
        if reason == Reason.NODE_CORDONED and trouble.begins == float("inf"):
            trouble.begins = world.now + 15.0
            for second in range(15, 60):
                world.at(world.now + second, lambda: reported.add(reason_of(world.machines["n0"])))

    policy = replace(POLICY, drain=schema.Drain(timeout=600.0), hooks=schema.Hooks())
    world = play(Path("restart", policy, is_put_back, act=act, on_event=cordoned, settle_seconds=3000.0), trouble)
    is_put_back(world)
    assert [machine.boots for machine in world.machines.values()] == [1, 1]
    assert Reason.REBOOT_FAILED not in world.books.reasons()
    assert StatusReason.LOCK_FORBIDDEN not in reported
