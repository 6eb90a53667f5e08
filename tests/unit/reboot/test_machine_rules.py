"""The machine's rules over anything that can be seen, consistent or not: it always answers, and never breaks a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import schema
from agent.config.schema import Mode, OnLostHolder, OnTimeout, Reboot
from agent.reboot.cluster import FIELD_MANAGER, SKIP, LeasePhase, LeaseView, NodeView
from agent.reboot.interfaces import HardeningReading, HookProgress, HookStage, Outcome, Progress, SentinelReading
from agent.reboot.machine.decide import decide
from agent.reboot.machine.inputs import (
    Acquire,
    Budget,
    Command,
    FenceAndReboot,
    Fetch,
    GateResult,
    Inputs,
    LockAttempt,
    Release,
    Renew,
    Slot,
    StepDrain,
    StepHooks,
    Write,
)
from agent.reboot.state import PERSISTED, NodeState, Now, Phase, Stamp

HOOKS = (schema.Hook(command=("/bin/true",)),)
ALL_HOOKS = schema.Hooks(pre_drain=HOOKS, pre_reboot=HOOKS, post_reboot=HOOKS)
NOW = Now("boot-1", 1000.0, 1_700_000_000.0)
FRESH = Stamp("boot-1", 995.0, 1.0)
STAMPS = (FRESH, Stamp("boot-1", 10.0, 1.0), Stamp("boot-0", 999.0, 1.0), None)
ME = "n0/u0"
MAYBE = (True, False, None)

# Everything as it is in a cycle that goes well: what is drawn below goes wrong from here.
POLICY = Reboot(drain=schema.Drain(timeout=60.0))
LEASE = LeaseView("lease-0", "1", ME, LeasePhase.HELD, cycle="c1")
NODE = NodeView("n0", "u0", "1", unschedulable=True, unschedulable_by=FIELD_MANAGER, ready=True, boot_id="boot-1")
STATE = NodeState(cycle="c1", boot="boot-1", cordoned=True, lease="lease-0", entered=FRESH)
GOOD_ANSWERS = {
    "gate": GateResult(blocked=False),
    "late_gate": GateResult(blocked=False),
    "budget": Budget(fits=True, why="", pool_size=3, slots=1),
    "holder_gone": False,
    "proof": HardeningReading(verified=True),
    "heartbeat": True,
}

POLICY_CHANGES: dict[str, tuple[object, ...]] = {
    "mode": tuple(Mode),
    "drain": tuple(schema.Drain(timeout=60.0, on_timeout=what) for what in OnTimeout),
    "lock": (schema.Lock(on_lost_holder=OnLostHolder.RELEASE), schema.Lock(release_delay=60.0)),
    "hooks": (ALL_HOOKS,),
    "delay": (5.0,),
}
STATE_CHANGES: dict[str, tuple[object, ...]] = {
    "cycle": ("c2",),
    "requested": ("please",),
    "boot": ("boot-0",),
    "cordoned": (False,),
    "entered": STAMPS,
    "failures": (3,),
    "error": ("broken",),
    "lost": (True,),
    "guard": ("s1",),
    "done": STAMPS,
    "outcome": tuple(Outcome),
}
NODE_CHANGES: dict[str, tuple[object, ...]] = {
    "unschedulable": (False,),
    "unschedulable_by": ("", "kubectl-cordon"),
    "ready": MAYBE,
    "boot_id": ("boot-0",),
    "annotations": ({SKIP: "no"},),
}
LEASE_CHANGES: dict[str, tuple[object, ...]] = {
    "holder": ("", "n1/u1"),
    "phase": tuple(LeasePhase),
    "cycle": ("c2",),
    "stuck": ("n0",),
}
SEEN_CHANGES: dict[str, tuple[object, ...]] = {
    "node": (None,),
    "state": (None,),
    "renew_due": (True,),
    "sentinel": tuple(SentinelReading(required, stamp=stamp) for required in MAYBE for stamp in ("s1", "s2")),
    "request": ("please",),
    "gap_seconds": (9.0,),
    "progress": (None, Progress(total=3, left=2), Progress(total=3, done=True)),
    "drain_due": (False,),
    "drained_seconds": (60.0,),
    "hooks": tuple(
        {stage: HookProgress(done, error)} for stage in HookStage for done, error in ((True, ""), (False, "1"))
    ),
    "command": tuple(Command),
    "command_seconds": (5.0, 5000.0),
    "gate": (None, GateResult(blocked=True, name="prometheus", by="alert")),
    "late_gate": (None, GateResult(blocked=True, name="prometheus", by="alert")),
    "budget": (None, Budget(fits=False, why="full", pool_size=3, slots=1), Budget(True, "", 3, 0)),
    "holder_gone": (None, True),
    "proof": (None, HardeningReading(None), HardeningReading(verified=False)),
    "heartbeat": (None, False),
}


def _changes(draw: st.DrawFn, table: dict[str, tuple[object, ...]], most: int) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(table)), max_size=most, unique=True))
    return {name: draw(st.sampled_from(table[name])) for name in names}


@st.composite
def looks(draw: st.DrawFn) -> Inputs:
    """A cycle that goes well in some phase, with a few things changed, whether they go together or not."""
    phase = draw(st.sampled_from(sorted(PERSISTED)))
    holds = draw(st.booleans()) if phase in (Phase.WANTED, Phase.IDLE, Phase.FAILED) else True
    lease = replace(LEASE, holder=ME if holds else "", phase=LeasePhase.HELD if holds else LeasePhase.NONE)
    lease = replace(lease, **_changes(draw, LEASE_CHANGES, 1))
    node = replace(NODE, unschedulable=phase not in (Phase.IDLE, Phase.WANTED, Phase.FAILED))
    node = replace(node, **_changes(draw, NODE_CHANGES, 1))
    boot = "boot-0" if phase is Phase.VERIFYING else "boot-1"
    state = replace(replace(STATE, phase=phase, boot=boot), **_changes(draw, STATE_CHANGES, 2))
    unseen = draw(st.sampled_from((0.0, 61.0, 5000.0)))
    slot = Slot(lease, 0, ours=lease.holder == ME, unseen_seconds=unseen)
    seen = Inputs(
        policy=replace(POLICY, **_changes(draw, POLICY_CHANGES, 1)),
        now=NOW,
        node=node,
        state=state,
        slots=(slot,),
        mine=slot if slot.ours else None,
        sentinel=SentinelReading(required=True, stamp="s2"),
        turn=LockAttempt(now=draw(st.booleans()), in_seconds=1.0, slot=None if slot.ours else slot),
        progress=draw(st.sampled_from((None, Progress(total=3, done=True)))),
        new_cycle="c3",
        command_error="exit code 1",
        **GOOD_ANSWERS,  # type: ignore[arg-type]
    )
    for name, value in _changes(draw, SEEN_CHANGES, 2).items():
        setattr(seen, name, value)
    return seen


SEEN = looks()


def it_always_answers_with_a_sentence(seen: Inputs) -> None:
    """Whatever is seen: a phase, a sentence, and either something to do or a time to look again."""
    decision = decide(seen)
    assert decision.sentence
    assert decision.action is not None or decision.wait_seconds > 0 or decision.postpone


def equal_looks_give_equal_decisions(seen: Inputs) -> None:
    """Nothing is remembered between two calls."""
    assert decide(seen) == decide(replace(seen))


def the_command_comes_only_behind_everything_else(seen: Inputs) -> None:
    """Lock, cordon, note, wish, policy: without any one of them there is no reboot."""
    decision = decide(seen)
    if not isinstance(decision.action, FenceAndReboot):
        return
    assert seen.policy.mode is Mode.ENFORCE
    assert seen.mine is not None
    assert decision.action.slot is seen.mine
    assert seen.state is not None
    assert (seen.state.phase, seen.state.boot) == (Phase.REBOOTING, seen.now.boot)
    assert seen.node is not None
    assert seen.node.unschedulable
    assert not seen.skip
    assert seen.wants
    assert not seen.mine.fenced or seen.command is Command.NOT_GIVEN


def a_cordon_is_lifted_only_when_it_is_ours(seen: Inputs) -> None:
    """By our note and not against the server's book, or by the server's book alone when there is no note."""
    decision = decide(seen)
    if not isinstance(decision.action, Write) or decision.action.cordon is not False:
        return
    assert seen.node is not None
    assert seen.state is not None
    assert seen.node.unschedulable
    assert seen.node.unschedulable_by in ("", FIELD_MANAGER)
    assert seen.state.cordoned or (seen.state.phase is Phase.IDLE and seen.node.unschedulable_by == FIELD_MANAGER)


def no_step_forgets_a_cordon_of_ours(seen: Inputs) -> None:
    """A note that says `cordoned` is followed by one that does not only together with the uncordon, or when the cordon
    is gone or somebody else's."""
    decision = decide(seen)
    if not isinstance(decision.action, Write) or seen.state is None or not seen.state.cordoned or seen.node is None:
        return
    if seen.state.phase in (Phase.IDLE, Phase.WANTED, Phase.RELEASING, Phase.FAILED):
        return  # never written with `cordoned`
    is_ours = seen.node.unschedulable and seen.node.unschedulable_by in ("", FIELD_MANAGER)
    assert decision.action.state.cordoned or decision.action.cordon is False or not is_ours


def the_lock_is_taken_only_when_nothing_stands_against_it(seen: Inputs) -> None:
    """Gate, budget, hardening, opt-out, gap and turn; from a holder only by the rules of taking over."""
    decision = decide(seen)
    if not isinstance(decision.action, Acquire):
        return
    slot = decision.action.slot
    assert seen.policy.mode is Mode.ENFORCE
    assert seen.turn.now
    assert seen.gate is not None
    assert not seen.gate.blocked
    assert seen.budget is not None
    assert seen.budget.fits
    assert seen.proof is not None
    assert seen.proof.verified is not None
    assert not seen.skip
    assert seen.wants
    assert seen.gap_seconds == 0
    silent = slot.unseen_seconds > seen.policy.lock.lease_duration
    given_up = (
        seen.policy.lock.on_lost_holder is OnLostHolder.RELEASE
        and slot.unseen_seconds > seen.policy.reboot_timeout + seen.policy.verify_timeout
    )
    assert slot.free or seen.holder_gone or (given_up if slot.fenced else silent)


def pods_are_evicted_only_under_the_lock_in_the_boot_of_the_cordon(seen: Inputs) -> None:
    """And never with a renewal due, without the cordon, or against an opt-out."""
    decision = decide(seen)
    if not isinstance(decision.action, StepDrain):
        return
    assert seen.mine is not None
    assert seen.state is not None
    assert seen.state.boot == seen.now.boot
    assert seen.node is not None
    assert seen.node.unschedulable
    assert not seen.renew_due
    assert not seen.skip
    assert seen.policy.mode is Mode.ENFORCE


def looking_comes_to_an_end(seen: Inputs) -> None:
    """Each question is asked at most once: with all answers there the machine does not ask on."""
    seen.gate = seen.gate or GateResult(blocked=False)
    seen.late_gate = seen.late_gate or GateResult(blocked=False)
    seen.budget = seen.budget or Budget(fits=True, why="", pool_size=1, slots=1)
    seen.holder_gone = bool(seen.holder_gone)
    seen.proof = seen.proof or HardeningReading(None)
    seen.heartbeat = bool(seen.heartbeat)
    assert not isinstance(decide(seen).action, Fetch)


RULES = (
    it_always_answers_with_a_sentence,
    equal_looks_give_equal_decisions,
    the_command_comes_only_behind_everything_else,
    a_cordon_is_lifted_only_when_it_is_ours,
    no_step_forgets_a_cordon_of_ours,
    the_lock_is_taken_only_when_nothing_stands_against_it,
    pods_are_evicted_only_under_the_lock_in_the_boot_of_the_cordon,
    looking_comes_to_an_end,
)


@settings(max_examples=800, deadline=None)
@given(SEEN)
def test_no_rule_is_broken_whatever_is_seen(seen: Inputs) -> None:
    """Each of the rules above holds for every decision; the last one fills in what was not looked at."""
    for rule in RULES:
        rule(seen)


def test_the_looks_reach_the_actions_that_matter() -> None:
    """The rules are not vacuous: the actions that matter are decided on by some of the looks."""
    reached = set()

    @settings(max_examples=1000, deadline=None, database=None, derandomize=True)
    @given(SEEN)
    def collect(seen: Inputs) -> None:
        reached.add(type(decide(seen).action))

    collect()
    assert {Acquire, FenceAndReboot, Release, Renew, StepDrain, StepHooks, Write} <= reached
