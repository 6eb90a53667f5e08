"""What nodes report about a policy, what users decide about it, and what a node remembers, as text and back. Pure.

A Node's annotations and labels may be forged by that node: only of nodes that match the selector is anything read, and
what is malformed, too long or out of range is a canary that has not reported. A state that cannot be read is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent import annotations as keys
from agent.config.selector import Selector
from agent.model import Condition
from agent.report.node_status import NodeView
from agent.rollout.decision import MOST_CANARIES, Assessment, Canary, Observation, Order, Pending, Phase, Verdict
from agent.text import format_rfc3339, join_limited, parse_rfc3339, sanitize

ORDERS = "node-hardening-rollout"  # the ConfigMap that only users write
STATE_LIMIT_BYTES = 64 << 10
_NOTE_CHARACTERS = 1024
_REVISION = re.compile(r"([0-9a-f]{12})(-[0-9a-f]{8})?")  # of the policy, and of its profiles where it has any
_NOT_KEPT = "the node's disk keeps no copy of it: changed profiles are not held back here (log: policy_state_not_kept)"
_LATEST_SECONDS = 4102444800.0  # the year 2100


@dataclass(frozen=True, slots=True)
class Report:
    """What a Node's annotation holds. revision: of the policy in use. target: one that is held back, or empty.

    is_kept: the node has the policy and its profiles on its disk, so that it can hold back the next one.
    """

    revision: str = ""
    target: str = ""
    phase: Phase | None = None
    verdict: Verdict = Verdict.UNKNOWN
    since: float = 0.0
    is_kept: bool = True


def report(node: Mapping[str, Any]) -> Report:
    """The report on a Node; an empty one for whatever is missing or malformed."""
    note = _part(_part(node, "metadata"), "annotations").get(keys.ROLLOUT)
    data = _json(note, _NOTE_CHARACTERS) if isinstance(note, str) else {}
    return Report(
        revision(data.get("revision")), revision(data.get("target")),
        next((one for one in Phase if one == data.get("phase")), None),
        next((one for one in Verdict if one == data.get("verdict")), Verdict.UNKNOWN), _time(data.get("since")),
        data.get("kept") is not False,
    )  # fmt: skip


def canary(node: Mapping[str, Any], selector: Selector) -> Canary | None:
    """A Node as one of the canaries; None for one that does not match."""
    meta, status = _part(node, "metadata"), _part(node, "status")
    labels = {key: value for key, value in _part(meta, "labels").items() if isinstance(value, str)}
    if not selector.matches(labels) or not isinstance(meta.get("name"), str):
        return None
    listed = status.get("conditions")
    ready: Mapping[str, Any] = next((one for one in listed if _is_ready(one)), {}) if isinstance(listed, list) else {}
    found = report(node)
    since = _time(ready.get("lastTransitionTime"))
    return Canary(meta["name"], found.revision, found.verdict, found.since, max(since, 1.0) if ready else 0.0)


def observation(
    nodes: Iterable[Mapping[str, Any]], selector: Selector, orders: Mapping[str, Any], target: str
) -> Observation:
    """One poll. nodes: at most one more than there may be canaries. orders: the ConfigMap, empty for none."""
    found = [one for one in (canary(node, selector) for node in nodes) if one is not None]
    return Observation(tuple(found[:MOST_CANARIES]), len(found) > MOST_CANARIES, order(orders, target))


def order(orders: Mapping[str, Any], target: str) -> Order | None:
    """What a user decided about this policy; about another one, nothing."""
    data = _part(orders, "data")
    if not target or revision(data.get("revision")) != target:
        return None
    return next((one for one in Order if one == data.get("decision")), None)


def view(
    running: str, pending: Pending | None, own: Assessment, *, is_canary: bool, uses_canaries: bool,
    is_kept: bool = True,
) -> NodeView:  # fmt: skip
    """What the Node shows. running: the revision in use. is_kept: see Report.

    Nothing where no policy names canaries.
    """
    if not uses_canaries:
        return NodeView({keys.ROLLOUT: None})
    note: dict[str, Any] = {"v": 1, "revision": running}
    if pending is not None:
        note |= {"target": pending.target, "phase": pending.phase.value}
    if is_canary and own.revision == running:
        note |= {"verdict": own.verdict.value, "since": format_rfc3339(own.since)}
    if not is_kept:
        note["kept"] = False
    reason = pending.phase.value if pending is not None else Phase.CURRENT.value if is_kept else "NotKept"
    status = "True" if pending is None or running == pending.target else "False"
    condition = Condition(keys.CONDITION_POLICY, status, reason, sentence(running, pending, is_kept=is_kept))
    return NodeView({keys.ROLLOUT: json.dumps(note, separators=(",", ":"))}, conditions=(condition,))


def sentence(running: str, pending: Pending | None, *, is_kept: bool = True) -> str:
    """For users; nothing parses it. It changes with the phase alone, not with every look."""
    text = f"policy {running} is in force" + (f"; {_held(pending)}" if pending is not None else "")
    if pending is not None and running == pending.target:
        text = f"policy {running} is tried on this canary; {_held(pending)}"
    return text if is_kept else f"{text}; {_NOT_KEPT}"


def stuck(pending: Pending, waits_for: Sequence[str]) -> str:
    """The message of the Event about a rollout that does not get on."""
    names = f" ({join_limited(waits_for)})" if waits_for else ""
    return f"{_held(pending)}{names}; kubectl node-hardening rollout status, then promote or abort"


def _held(pending: Pending) -> str:
    why = {
        Phase.WAITING: "waits until it is verified on every canary",
        Phase.SOAKING: "is verified on every canary and waits for the soak time",
        Phase.FAILED: f"failed on canary {sanitize(pending.refused_by, 100)} and is not rolled out",
        Phase.NONE: "waits: no node matches rollout.canary",
        Phase.MANY: f"waits: more than {MOST_CANARIES} nodes match rollout.canary",
        Phase.ABORTED: "was aborted by a user",
    }
    return f"policy {pending.target} {why[pending.phase]}"


def written(pending: Pending | None, own: Assessment) -> str:
    """What a node remembers, for its disk."""
    return json.dumps({"v": 1, "pending": asdict(pending) if pending else None, "assessment": asdict(own)})


def remembered(text: str) -> tuple[Pending | None, Assessment]:
    """What a node remembered. Raises ValueError for anything else than what `written` writes."""
    try:
        data = json.loads(text)
        pending, own = data["pending"], data["assessment"]
        own = Assessment(**own | {key: tuple(map(str, own[key])) for key in ("failing", "baseline")})
        own = _checked(own, revision=revision(own.revision), verdict=Verdict(own.verdict))
        if pending is not None:
            pending = Pending(**pending | {"seen": tuple(map(str, pending["seen"]))})
            target, refused_by = revision(pending.target), str(pending.refused_by)
            pending = _checked(pending, target=target, phase=Phase(pending.phase), refused_by=refused_by)
            if pending.phase is Phase.CURRENT:
                raise ValueError(f"phase: {Phase.CURRENT} is of a policy in force, not of one that is held back")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"is not what this agent writes: {error}") from error
    return pending, own


def _checked(made: Any, **better: Any) -> Any:
    """With numbers for times: whatever a disk holds is compared with them later. Raises ValueError, TypeError."""
    if not all(0.0 <= getattr(made, name, 0.0) <= _LATEST_SECONDS for name in ("since", "unwell")):
        raise ValueError("a time is out of range")
    return replace(made, **better)


def revision(value: object) -> str:
    """A revision; empty for anything else."""
    return value if isinstance(value, str) and _REVISION.fullmatch(value) else ""


def policy_of(revision: str) -> str:
    """The policy's part of a revision, which is known without the nodes' profiles."""
    return revision.partition("-")[0]


def _is_ready(condition: object) -> bool:
    return isinstance(condition, dict) and condition.get("type") == "Ready" and condition.get("status") == "True"


def _time(value: object) -> float:
    try:
        found = parse_rfc3339(value) if isinstance(value, str) and len(value) < 40 else 0.0
    except ValueError:
        return 0.0
    return min(max(found, 0.0), _LATEST_SECONDS)


def _json(text: str, characters: int) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if len(text) <= characters else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    one = found.get(key)
    return one if isinstance(one, dict) else {}
