"""The steps that several phases share: entering a phase, succeeding, resetting. Pure.

The one rule that lives here: a cordon is removed only when it is ours by our state and managedFields names no other
owner.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, TypeVar

from agent.annotations import FIELD_MANAGER
from agent.config.schema import Reboot
from agent.reboot.interfaces import CycleResult
from agent.reboot.machine.decisions import Decision, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.phases import Phase
from agent.reboot.state import Attempt, Cycle, Idle, NodeState, Outcome, Releasing, RolledBack, Stamp
from agent.reboot.status import StatusReason

NOT_REBOOTED = "not-rebooted"  # a cause that another try may well end
REPEATED = "blocked after the drain for the second time, so it is not repeated (a reboot request overrides this)"
_DAY_SECONDS = 86400.0
# Labels that no kubelet may change: a forged state must not make the agent remove them.
# https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
_PROTECTED_LABEL = re.compile(r"(?!(?:node|kubelet)\.kubernetes\.io/)(?:[^/]+\.)?(?:kubernetes|k8s)\.io/")
C = TypeVar("C", bound=Cycle)


def backoff_seconds(policy: Reboot, failures: int, *, repeated: bool = False) -> float:
    """`retryAfter`, doubled with each failure in a row, at most a day; a day where the drain would only be repeated."""
    if repeated:
        return _DAY_SECONDS
    return min(_DAY_SECONDS, policy.retry_after * 2.0 ** min(max(failures - 1, 0), 30))


def fence_seconds(policy: Reboot) -> float:
    """How old the inputs, and the state `rebooting`, may be when the command is given.

    `rebootTimeout` counts from that state: a command given long after it would be called failed, and the lock released,
    while the node goes down.
    """
    return min(policy.lock.lease_duration, policy.reboot_timeout) / 4


def enter(inputs: Inputs, state: Cycle, kind: type[C], **changes: Any) -> C:
    """The cycle in another phase from this moment on: it keeps all that both phases have, but for the changes."""
    names = {one.name for one in fields(kind)}
    kept = {one.name: getattr(state, one.name) for one in fields(state) if one.name in names}
    kept["entered"] = Stamp.of(inputs.now)
    if "marks" in names:
        marks = (mark for mark in kept.get("marks", ()) if mark[0] is not kind.phase)
        kept["marks"] = (*marks, (kind.phase, round(inputs.now.wall, 3)))
    return kind(**{**kept, **changes})


def elapsed_in(inputs: Inputs, state: Cycle) -> float:
    """Seconds since the phase began. A stamp of another boot counts as old: what it limits has to end."""
    elapsed = state.entered.elapsed(inputs.now)
    return elapsed if elapsed is not None else float("inf")


def owns_cordon(inputs: Inputs, state: Attempt) -> bool:
    """Whether there is a cordon, and it is ours to remove."""
    node = inputs.node
    return node is not None and state.cordoned and node.unschedulable and not is_foreign(inputs)


def is_foreign(inputs: Inputs) -> bool:
    """By managedFields another user set the cordon that stands now."""
    node = inputs.node
    return node is not None and node.unschedulable and node.unschedulable_by not in ("", FIELD_MANAGER)


def drop_cordon_ownership(inputs: Inputs, state: Attempt) -> Decision | None:
    """A cordon that a user removed, or removed and set again, is theirs; written down while it can still be seen."""
    if not state.cordoned or inputs.node is None:
        return None
    if inputs.node.unschedulable and not is_foreign(inputs):
        return None
    text = "another user changed the cordon and owns it now"
    return Decision(state.phase, StatusReason.CORDONED, text, Write(replace(state, cordoned=False)))


def succeed(inputs: Inputs, state: Attempt) -> Decision:
    """Verified: our cordon off, history and the loop guard written, all in one patch."""
    removes = owns_cordon(inputs, state)
    guard = inputs.sentinel.stamp if inputs.sentinel.required else None
    verified = enter(
        inputs, state, Releasing, failures=0, error="", uncordoned=removes, lost=inputs.is_lock_lost, guard=guard
    )
    cordon, ended = False if removes else None, result(Outcome.SUCCEEDED, verified)
    write = restore(inputs, state, Write(verified, cordon=cordon, finished=True, result=ended), succeeded=True)
    return Decision(Phase.VERIFYING, StatusReason.VERIFYING, "verified", write)


def restore(inputs: Inputs, state: NodeState, write: Write, *, succeeded: bool = False) -> Write:
    """What `before` put on the Node for the cycle goes; `after` joins it, or replaces it, when the cycle succeeded."""
    labels, notes = inputs.policy.node_labels, inputs.policy.node_annotations
    put_on = dict(state.keys) if isinstance(state, Attempt) else {}
    found = (key for key in put_on.get("labels", "").split() if not _PROTECTED_LABEL.match(key))
    return replace(
        write,
        labels={**dict.fromkeys((*found, *labels.before)), **(labels.after if succeeded else {})},
        annotations={
            **dict.fromkeys((*put_on.get("annotations", "").split(), *notes.before)),
            **(notes.after if succeeded else {}),
        },
    )


def reset(state: NodeState, **changes: Any) -> Idle:
    """What is kept when no reboot is pending any more."""
    guard = state.guard if isinstance(state, Idle | Releasing) else None
    return replace(Idle(guard=guard, streak=state.streak, done=state.done), **changes)


def result(outcome: Outcome, state: Releasing | RolledBack) -> CycleResult:
    """Durations by wall clock: for metrics and display only."""
    phases = tuple((name.value, max(0.0, after - at)) for (name, at), (_, after) in pairwise(state.marks))
    return CycleResult(outcome, sum(seconds for _, seconds in phases), phases)
