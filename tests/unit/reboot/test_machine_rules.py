"""The machine's rules over anything that can be seen, consistent or not: it always answers, and never breaks a rule."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.annotations import FIELD_MANAGER, REBOOT_SKIP
from agent.config import schema
from agent.config.choices import Mode, OnLostHolder, OnTimeout
from agent.config.schema import Reboot
from agent.reboot.cluster import LeasePhase, LeaseView, NodeView
from agent.reboot.interfaces import (
    BlockerResult,
    HardeningReading,
    HookProgress,
    HookStage,
    Progress,
    SentinelReading,
)
from agent.reboot.machine.decide import decide
from agent.reboot.machine.decisions import (
    Acquire,
    FenceAndReboot,
    Fetch,
    Query,
    Release,
    Renew,
    StepDrain,
    StepHooks,
    Write,
)
from agent.reboot.machine.inputs import Budget, Command, Inputs, LockAttempt, Slot
from agent.reboot.phases import EDGES, STORED, Phase
from agent.reboot.state import (
    CLASSES,
    Attempt,
    Draining,
    Finished,
    Idle,
    NodeState,
    Now,
    Outcome,
    Pending,
    Rebooting,
    RolledBack,
    Stamp,
    Verifying,
)

HOOKS = (schema.Hook(command=("/bin/true",)),)
ALL_HOOKS = schema.Hooks(pre_drain=HOOKS, pre_reboot=HOOKS, post_reboot=HOOKS)
NOW = Now("boot-1", 1000.0, 1_700_000_000.0)
FRESH = Stamp("boot-1", 995.0, 1.0)
STAMPS = (FRESH, Stamp("boot-1", 10.0, 1.0), Stamp("boot-0", 999.0, 1.0))
ME = "n0/u0"
MAYBE = (True, False, None)
UNLOCKED = (Phase.PENDING, Phase.IDLE, Phase.ROLLED_BACK)

# Everything as it is in a cycle that goes well: what is drawn below goes wrong from here.
POLICY = Reboot(drain=schema.Drain(timeout=60.0))
LEASE = LeaseView("lease-0", "1", ME, LeasePhase.HELD, cycle="c1")
NODE = NodeView("n0", "u0", "1", unschedulable=True, unschedulable_by=FIELD_MANAGER, ready=True, boot_id="boot-1")
STATE = {"cycle": "c1", "boot": "boot-1", "cordoned": True, "lease": "lease-0", "entered": FRESH}
BLOCKED = BlockerResult(blocked=True, name="prometheus", by="alert")
GOOD_ANSWERS = {
    "blockers": BlockerResult(blocked=False),
    "late_blockers": BlockerResult(blocked=False),
    "budget": Budget(fits=True, why="", pool_size=3, slots=1),
    "holder_gone": False,
    "may_patch_lock": True,
    "hardening": HardeningReading(verified=True),
    "heartbeat": True,
    "shutting_down": False,
}

POLICY_CHANGES: dict[str, tuple[object, ...]] = {
    "mode": tuple(Mode),
    "drain": tuple(schema.Drain(timeout=60.0, on_timeout=what) for what in OnTimeout),
    "lock": (schema.Lock(on_lost_holder=OnLostHolder.RELEASE), schema.Lock(release_delay=60.0)),
    "hooks": (ALL_HOOKS,),
    "delay": (5.0,),
    "prefer_no_schedule_taint": ("example.com/soon",),
}
STATE_CHANGES: dict[str, tuple[object, ...]] = {
    "cycle": ("c2",),
    "requested": ("please",),
    "boot": ("boot-0", "boot-1"),
    "cordoned": (False,),
    "entered": STAMPS,
    "failures": (3,),
    "failing": (2,),
    "error": ("broken",),
    "lost": (True,),
    "guard": ("s1", "s2"),
    "done": (*STAMPS, None),
    "outcome": tuple(Outcome),
    "cause": ("prometheus", "not-rebooted"),
    "last_cause": ("prometheus",),
    "repeated": (True,),
    "aborted": (True,),
}
NODE_CHANGES: dict[str, tuple[object, ...]] = {
    "unschedulable": (False,),
    "unschedulable_by": ("", "kubectl-cordon"),
    "ready": MAYBE,
    "boot_id": ("boot-0",),
    "annotations": ({REBOOT_SKIP: "no"},),
    "removal": ("taint karpenter.sh/disrupted",),
}
LEASE_CHANGES: dict[str, tuple[object, ...]] = {
    "holder": ("", "n1/u1"),
    "version": ("",),
    "phase": tuple(LeasePhase),
    "cycle": ("c2",),
    "stuck": ("n0",),
}
INPUT_CHANGES: dict[str, tuple[object, ...]] = {
    "node": (None,),
    "state": (None,),
    "renew_due": (True,),
    "lock_problem": ("forbidden",),
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
    "blockers": (None, BLOCKED),
    "late_blockers": (None, BLOCKED, replace(BLOCKED, unknown=True)),
    "budget": (None, Budget(fits=False, why="full", pool_size=3, slots=1), Budget(True, "", 3, 0)),
    "holder_gone": (None, True),
    "may_patch_lock": (None, False),
    "hardening": (None, HardeningReading(None), HardeningReading(verified=False, failing=1)),
    "heartbeat": (None, False),
    "shutting_down": (None, True),
}


def _changes(draw: st.DrawFn, table: dict[str, tuple[object, ...]], most: int) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(table)), max_size=most, unique=True))
    return {name: draw(st.sampled_from(table[name])) for name in names}


def _state(phase: Phase, changes: dict[str, Any]) -> NodeState:
    """A state of the phase, with what of the changes it can have."""
    known = {one.name for one in fields(CLASSES[phase])}
    boot = "boot-0" if phase is Phase.VERIFYING else "boot-1"
    values = {**STATE, "boot": boot, **changes}
    return CLASSES[phase](**{key: value for key, value in values.items() if key in known})


@st.composite
def inputs_drawn(draw: st.DrawFn) -> Inputs:
    """A cycle that goes well in some phase, with a few things changed, whether they go together or not."""
    phase = draw(st.sampled_from(sorted(STORED)))
    holds = draw(st.booleans()) if phase in UNLOCKED else True
    lease = replace(LEASE, holder=ME if holds else "", phase=LeasePhase.HELD if holds else LeasePhase.NONE)
    lease = replace(lease, **_changes(draw, LEASE_CHANGES, 1))
    node = replace(NODE, unschedulable=phase not in UNLOCKED)
    node = replace(node, **_changes(draw, NODE_CHANGES, 1))
    unseen = draw(st.sampled_from((0.0, 61.0, 5000.0)))
    slot = Slot(lease, 0, ours=lease.holder == ME, unseen_seconds=unseen)
    inputs = Inputs(
        policy=replace(POLICY, **_changes(draw, POLICY_CHANGES, 1)),
        now=NOW,
        node=node,
        state=_state(phase, _changes(draw, STATE_CHANGES, 3)),
        slots=(slot,),
        mine=slot if slot.ours else None,
        sentinel=SentinelReading(required=True, stamp="s2"),
        attempt=LockAttempt(now=draw(st.booleans()), in_seconds=1.0, slot=None if slot.ours else slot),
        progress=draw(st.sampled_from((None, Progress(total=3, done=True)))),
        new_cycle="c3",
        command_error="exit code 1",
        **GOOD_ANSWERS,  # type: ignore[arg-type]
    )
    for name, value in _changes(draw, INPUT_CHANGES, 2).items():
        setattr(inputs, name, value)
    return inputs


INPUTS = inputs_drawn()


def it_always_answers_with_a_sentence(inputs: Inputs) -> None:
    """Whatever is seen: a phase, a sentence, and either something to do or a time to look again."""
    decision = decide(inputs)
    assert decision.sentence
    assert decision.action is not None or decision.wait_seconds > 0 or decision.postpone


def equal_looks_give_equal_decisions(inputs: Inputs) -> None:
    """Nothing is remembered between two calls."""
    assert decide(inputs) == decide(replace(inputs))


def the_command_comes_only_behind_everything_else(inputs: Inputs) -> None:
    """Lock, cordon, state, request, policy: without any one of them there is no reboot."""
    decision = decide(inputs)
    if not isinstance(decision.action, FenceAndReboot):
        return
    assert inputs.policy.mode is Mode.ENFORCE
    assert inputs.mine is not None
    assert decision.action.slot is inputs.mine
    assert isinstance(inputs.state, Rebooting)
    assert inputs.state.boot == inputs.now.boot
    assert inputs.node is not None
    assert inputs.node.unschedulable
    assert not inputs.skip
    assert inputs.required
    assert not inputs.mine.fenced or inputs.command is Command.NOT_GIVEN


def a_cordon_is_lifted_only_when_it_is_ours(inputs: Inputs) -> None:
    """By our note and not against the server's book, or by the server's book alone when there is no note."""
    decision = decide(inputs)
    if not isinstance(decision.action, Write) or decision.action.cordon is not False:
        return
    assert inputs.node is not None
    assert inputs.node.unschedulable
    assert inputs.node.unschedulable_by in ("", FIELD_MANAGER)
    is_leftover = isinstance(inputs.state, Idle) and inputs.node.unschedulable_by == FIELD_MANAGER
    assert (isinstance(inputs.state, Attempt) and inputs.state.cordoned) or is_leftover


def no_step_forgets_a_cordon_of_ours(inputs: Inputs) -> None:
    """A state that says `cordoned` is followed by one that does not only together with the uncordon, or when the cordon
    is gone or another user's."""
    action = decide(inputs).action
    if not isinstance(action, Write) or not isinstance(inputs.state, Attempt) or inputs.node is None:
        return
    is_ours = inputs.node.unschedulable and inputs.node.unschedulable_by in ("", FIELD_MANAGER)
    keeps = isinstance(action.state, Attempt) and action.state.cordoned
    assert keeps or action.cordon is False or not is_ours or not inputs.state.cordoned


def what_ends_without_its_lock_is_written_so(inputs: Inputs) -> None:
    """Whatever else ended it: the lock of another node is never announced as released."""
    action = decide(inputs).action
    if isinstance(action, Write) and isinstance(inputs.state, Attempt) and isinstance(action.state, Finished):
        assert action.state.lost is inputs.is_lock_lost


def only_a_lease_of_this_node_is_renewed_fenced_or_released(inputs: Inputs) -> None:
    """That of another holder is acquired by the rules of taking over, or not written."""
    action = decide(inputs).action
    if isinstance(action, Renew | FenceAndReboot | Release):
        assert action.slot.ours


def every_write_moves_along_an_edge(inputs: Inputs) -> None:
    """phases.TRANSITIONS is the whole truth about what follows what."""
    action = decide(inputs).action
    if isinstance(action, Write):
        assert inputs.state is not None
        assert (inputs.state.phase, action.state.phase) in EDGES


def no_cordon_outlives_its_deadlines(inputs: Inputs) -> None:
    """Long past every timeout a cordoned node before its command does one thing only: it gives up. No call that may be
    refused comes before."""
    if not isinstance(inputs.state, Attempt) or inputs.state.boot != inputs.now.boot or inputs.node is None:
        return
    may_be_down = inputs.state.phase is Phase.REBOOTING and inputs.command is not Command.NOT_GIVEN
    if may_be_down or inputs.state.phase is Phase.VERIFYING:
        return
    late = Now("boot-1", 1_000_000.0, NOW.wall)
    action = decide(replace(inputs, now=late, progress=None, renew_due=True, spare=inputs.mine)).action
    assert isinstance(action, Write)
    assert not isinstance(action.state, Attempt) or action.state.cordoned is not inputs.state.cordoned


def an_unreadable_lock_allows_giving_up_alone(inputs: Inputs) -> None:
    """Beside verifying, and leaving the cordon to its new owner; and not even that where the reboot command may have
    been given: silence is all that is known then."""
    unreadable = replace(inputs, lock_problem="forbidden")
    action = decide(unreadable).action
    if isinstance(inputs.state, Verifying) or action is None or action == Fetch(Query.SHUTDOWN):
        return
    assert isinstance(action, Write)
    if isinstance(action.state, Attempt):
        assert isinstance(inputs.state, Attempt)
        is_booted = isinstance(action.state, Verifying) and inputs.state.boot != inputs.now.boot
        assert is_booted or action.state == replace(inputs.state, cordoned=False)
        return
    if isinstance(inputs.state, Rebooting) and inputs.state.boot == inputs.now.boot:
        elapsed = inputs.state.entered.elapsed(inputs.now)
        since = inputs.command_seconds if inputs.command_seconds is not None else elapsed
        is_over = since is None or since > inputs.policy.reboot_timeout
        assert is_over or inputs.command in (Command.NOT_GIVEN, Command.REFUSED)


def off_ends_where_audit_ends(inputs: Inputs) -> None:
    """A mode is a transition like any other: both take back the same."""
    ends = []
    for mode in (Mode.AUDIT, Mode.OFF):
        action = decide(replace(inputs, policy=replace(inputs.policy, mode=mode))).action
        ends.append((type(action), getattr(getattr(action, "state", None), "phase", None)))
    if not isinstance(inputs.state, Idle):
        assert ends[0] == ends[1]


def no_drain_is_repeated_for_the_same_answer(inputs: Inputs) -> None:
    """Blocked after the drain for the second time: within a day only a user's new request begins another cycle."""
    state = inputs.state
    if not isinstance(state, Idle | RolledBack) or not state.repeated or inputs.policy.mode is not Mode.ENFORCE:
        return
    since = state.done if isinstance(state, Idle) else state.entered
    is_new = inputs.request and (isinstance(state, Idle) or inputs.request != state.requested)
    action = decide(inputs).action
    if since is not None and since.boot == inputs.now.boot and not is_new:
        assert not isinstance(action, Write) or not isinstance(action.state, Pending)


def the_lock_is_taken_only_when_nothing_stands_against_it(inputs: Inputs) -> None:
    """Gate, budget, hardening, opt-out, gap and turn; from a holder only by the rules of taking over."""
    decision = decide(inputs)
    if not isinstance(decision.action, Acquire):
        return
    slot = decision.action.slot
    assert inputs.policy.mode is Mode.ENFORCE
    assert inputs.attempt.now
    assert inputs.blockers is not None
    assert not inputs.blockers.blocked
    assert inputs.budget is not None
    assert inputs.budget.fits
    assert inputs.hardening is not None
    assert inputs.hardening.verified is not None
    assert not inputs.skip
    assert inputs.required
    assert inputs.gap_seconds == 0
    silent = slot.unseen_seconds > inputs.policy.lock.lease_duration
    given_up = (
        inputs.policy.lock.on_lost_holder is OnLostHolder.RELEASE
        and slot.unseen_seconds > inputs.policy.reboot_timeout + inputs.policy.verify_timeout
    )
    assert slot.free or inputs.holder_gone or (given_up if slot.fenced else silent)


def pods_are_evicted_only_under_the_lock_in_the_boot_of_the_cordon(inputs: Inputs) -> None:
    """And never with a renewal due, without the cordon, or against an opt-out."""
    decision = decide(inputs)
    if not isinstance(decision.action, StepDrain):
        return
    assert inputs.mine is not None
    assert isinstance(inputs.state, Draining)
    assert inputs.state.boot == inputs.now.boot
    assert inputs.node is not None
    assert inputs.node.unschedulable
    assert not inputs.renew_due
    assert not inputs.skip
    assert inputs.policy.mode is Mode.ENFORCE


def looking_comes_to_an_end(inputs: Inputs) -> None:
    """Each question is asked at most once: with all answers there the machine does not ask on."""
    inputs.blockers = inputs.blockers or BlockerResult(blocked=False)
    inputs.late_blockers = inputs.late_blockers or BlockerResult(blocked=False)
    inputs.budget = inputs.budget or Budget(fits=True, why="", pool_size=1, slots=1)
    inputs.holder_gone = bool(inputs.holder_gone)
    inputs.hardening = inputs.hardening or HardeningReading(None)
    inputs.may_patch_lock = inputs.may_patch_lock is not False
    inputs.shutting_down = bool(inputs.shutting_down)
    inputs.heartbeat = bool(inputs.heartbeat)
    assert not isinstance(decide(inputs).action, Fetch)


RULES = (
    it_always_answers_with_a_sentence,
    equal_looks_give_equal_decisions,
    the_command_comes_only_behind_everything_else,
    a_cordon_is_lifted_only_when_it_is_ours,
    no_step_forgets_a_cordon_of_ours,
    what_ends_without_its_lock_is_written_so,
    only_a_lease_of_this_node_is_renewed_fenced_or_released,
    every_write_moves_along_an_edge,
    no_cordon_outlives_its_deadlines,
    off_ends_where_audit_ends,
    no_drain_is_repeated_for_the_same_answer,
    an_unreadable_lock_allows_giving_up_alone,
    the_lock_is_taken_only_when_nothing_stands_against_it,
    pods_are_evicted_only_under_the_lock_in_the_boot_of_the_cordon,
    looking_comes_to_an_end,
)


@settings(max_examples=800, deadline=None)
@given(INPUTS)
def test_no_rule_is_broken_whatever_is_seen(inputs: Inputs) -> None:
    """Each of the rules above holds for every decision; the last one fills in what was not looked at."""
    for rule in RULES:
        rule(inputs)


def test_a_command_that_is_refused_after_the_lock_was_lost_releases_no_lock() -> None:
    """The lock has another holder by now: it is neither written nor announced as released."""
    taken = Slot(replace(LEASE, holder="n1/u1"), 0, ours=False, unseen_seconds=1.0)
    inputs = Inputs(
        policy=POLICY, now=NOW, node=NODE, state=_state(Phase.REBOOTING, {}), slots=(taken,), command=Command.REFUSED
    )
    for rule in RULES[:-1]:
        rule(inputs)
    rolled = decide(inputs).action
    assert isinstance(rolled, Write)
    after = decide(replace(inputs, state=rolled.state))
    assert not isinstance(after.action, Release | Renew | FenceAndReboot)
    assert [one.reason for one in after.announcements] == []


def test_the_looks_reach_the_actions_that_matter() -> None:
    """The rules are not vacuous: the actions that matter are decided on by some of the looks."""
    reached = set()

    @settings(max_examples=1000, deadline=None, database=None, derandomize=True)
    @given(INPUTS)
    def collect(inputs: Inputs) -> None:
        reached.add(type(decide(inputs).action))

    collect()
    assert {Acquire, FenceAndReboot, Release, Renew, StepDrain, StepHooks, Write} <= reached


@pytest.mark.slow
def test_every_edge_is_reached() -> None:
    """The table has no edge that the machine never takes."""
    reached = set()

    @settings(max_examples=6000, deadline=None, database=None, derandomize=True)
    @given(INPUTS)
    @example(
        Inputs(POLICY, NOW, NODE, Idle(guard="s1"), sentinel=SentinelReading(required=False)),
    )
    def collect(inputs: Inputs) -> None:
        action = decide(inputs).action
        if isinstance(action, Write) and inputs.state is not None:
            reached.add((inputs.state.phase, action.state.phase))

    collect()
    assert reached == EDGES
