"""The steps that several phases share: entering a phase, rolling back, giving up quietly, lifting our own cordon.

Pure, as the machine is. The one rule that lives here: a cordon is lifted only when it is ours by our note and nobody
else owns it by the server's book.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from agent.config.schema import Reboot
from agent.reboot.cluster import FIELD_MANAGER
from agent.reboot.interfaces import CycleResult, Outcome
from agent.reboot.machine.inputs import Decision, Inputs, Write
from agent.reboot.state import NodeState, Phase, Stamp

_DAY_SECONDS = 86400.0


def backoff_seconds(policy: Reboot, failures: int) -> float:
    """`retryAfter`, doubled with each failure in a row, at most a day."""
    return min(_DAY_SECONDS, policy.retry_after * 2.0 ** min(max(failures - 1, 0), 30))


def fence_seconds(policy: Reboot) -> float:
    """How old a look, and the note that the node goes down, may be when the command is given.

    `rebootTimeout` counts from that note: a command given long after it would be called failed, and the lock given
    away, while the node goes down.
    """
    return min(policy.lock.lease_duration, policy.reboot_timeout) / 4


def enter(seen: Inputs, state: NodeState, phase: Phase) -> NodeState:
    """The note with another phase, stamped with this moment."""
    marks = (*(mark for mark in state.marks if mark[0] != phase.value), (phase.value, round(seen.now.wall, 3)))
    return replace(state, phase=phase, entered=Stamp.of(seen.now), marks=marks)


def owns_cordon(seen: Inputs, state: NodeState) -> bool:
    """Whether there is a cordon, and it is ours to lift."""
    node = seen.node
    if node is None or not state.cordoned or not node.unschedulable:
        return False
    return not is_foreign(seen)


def is_foreign(seen: Inputs) -> bool:
    """By the server's book somebody else set the cordon that stands now."""
    node = seen.node
    return node is not None and node.unschedulable and node.unschedulable_by not in ("", FIELD_MANAGER)


def drop_cordon_ownership(seen: Inputs, state: NodeState) -> Decision | None:
    """A cordon that somebody lifted, or lifted and set again, is theirs; written down while it can still be seen."""
    if not state.cordoned or seen.node is None:
        return None
    if seen.node.unschedulable and not is_foreign(seen):
        return None
    text = "somebody else changed the cordon: it is theirs now"
    return Decision(state.phase, text, Write(replace(state, cordoned=False)))


def roll_back(seen: Inputs, state: NodeState, error: str, *, lost: bool = False) -> Decision:
    """The cycle has failed: our cordon off, the failure and the back-off written down, all in one patch."""
    lift = owns_cordon(seen, state)
    rolled = replace(
        enter(seen, state, Phase.FAILED),
        failures=state.failures + 1,
        error=error,
        cordoned=False,
        uncordoned=lift,
        lost=lost,
        outcome=Outcome.FAILED,
    )
    ended = _ended(Outcome.FAILED, rolled)
    return Decision(Phase.FAILED, f"failed: {error}", Write(rolled, cordon=False if lift else None, ended=ended))


def abort(seen: Inputs, state: NodeState, why: str) -> Decision:
    """Given up without anything having gone wrong."""
    lift = owns_cordon(seen, state)
    rolled = replace(
        enter(seen, state, Phase.RELEASING),
        error=why,
        cordoned=False,
        uncordoned=lift,
        outcome=Outcome.ABORTED,
    )
    ended = _ended(Outcome.ABORTED, rolled)
    return Decision(Phase.RELEASING, f"given up: {why}", Write(rolled, cordon=False if lift else None, ended=ended))


def succeed(seen: Inputs, state: NodeState) -> Decision:
    """Proved: our cordon off, history and the loop guard written, all in one patch."""
    lift = owns_cordon(seen, state)
    proved = replace(
        enter(seen, state, Phase.RELEASING),
        failures=0,
        error="",
        cordoned=False,
        uncordoned=lift,
        lost=seen.mine is None,
        guard=seen.sentinel.stamp if seen.sentinel.required else None,
        outcome=Outcome.SUCCEEDED,
    )
    write = Write(
        proved,
        cordon=False if lift else None,
        labels=seen.policy.node_labels.after,
        finished=True,
        ended=_ended(Outcome.SUCCEEDED, proved),
    )
    return Decision(Phase.VERIFYING, "proved well", write)


def reset(state: NodeState) -> NodeState:
    """What is kept when nothing is wanted any more."""
    return NodeState(guard=state.guard, streak=state.streak, done=state.done)


def _ended(outcome: Outcome, state: NodeState) -> CycleResult:
    """Durations by wall clock: for metrics and people only."""
    marks = state.marks
    phases = tuple((name, max(0.0, after - at)) for (name, at), (_, after) in pairwise(marks))
    return CycleResult(outcome, sum(seconds for _, seconds in phases), phases)
