"""What the agents show on their Nodes, read page by page into small rows.

A page of Node objects is let go before the next one is asked for, so that five thousand nodes cost a few MiB here. It
refuses to call anything well that is missing or cannot be read: no annotation is "no agent", a strange one "unknown".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from agent.config.schema import Pool
from agent.errors import UsageError
from agent.kube import NODES, Kube
from agent.kube.errors import NotFound
from agent.model import Severity, Status
from agent.reboot.cluster import HISTORY, REQUEST, SKIP
from agent.reboot.kube.views import node_view
from agent.reboot.lock.pools import pool_of
from agent.reboot.state import NodeState, Phase, decode
from agent.report import node_status
from agent.report.node_status import ComplianceStatus
from agent.text import parse_rfc3339

PAGE_SIZE = 500
T = TypeVar("T", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding as it stands on the Node; expected and remediation are empty where there was no room for them."""

    id: str
    status: Status
    severity: Severity
    observed: str = ""
    expected: str = ""
    remediation: str = ""

    @property
    def control(self) -> str:
        """The room that says it: what stands before the slash."""
        return self.id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Reboot:
    """One proven reboot. at: epoch seconds, 0 for unknown. seconds: from cordon to uncordon; phases: in each."""

    at: float
    reason: str
    kernel_before: str
    kernel_after: str
    seconds: float
    phases: tuple[tuple[str, float], ...]
    pods: int
    slowest: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node in a few hundred bytes.

    ready: None when the kubelet was not heard of; what the agent said is as old as that. standing: None when no agent
    ever looked. failing, unknown: findings, of which the Node lists all but `more`. worst: the first of them. phase:
    what the reboot is at, WAITING and BLOCKED told from the sentence; None while reboots are off or no agent is there.
    required: None when it cannot be told. since: epoch seconds when the reboot was first wanted, 0 for not. sentence:
    the agent's own words. findings, history: empty unless asked for.
    """

    name: str
    uid: str
    pool: str
    ready: bool | None
    cordoned: bool
    kernel: str
    standing: ComplianceStatus | None
    worst: FindingRow | None
    failing: int
    unknown: int
    more: int
    phase: Phase | None
    required: bool | None
    since: float
    sentence: str
    failures: int
    skip: str
    requested: str
    version: str
    policy: str
    config_problem: str
    findings: tuple[FindingRow, ...] = ()
    history: tuple[Reboot, ...] = ()

    @property
    def is_well(self) -> bool:
        """Hardened, as far as a live kubelet's node says."""
        return self.standing is ComplianceStatus.HARDENED and self.ready is True

    @property
    def wants_reboot(self) -> bool:
        """A reboot is asked for or under way."""
        return self.required is True or self.phase not in (None, Phase.IDLE, Phase.UNKNOWN)

    @property
    def is_down(self) -> bool:
        """In the part of a cycle in which the node takes no pods."""
        return self.phase in DISRUPTED


# From the cordon to the uncordon.
DISRUPTED = frozenset({Phase.CORDONED, Phase.DRAINING, Phase.REBOOTING, Phase.VERIFYING})


@dataclass(frozen=True, slots=True)
class Keep:
    """What a row holds besides what every table needs."""

    findings: bool = False
    history: bool = False


def rows(
    kube: Kube,
    pool: Pool,
    *,
    selector: str = "",
    keep: Keep = Keep(),
    progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Iterator[NodeRow]:
    """Every node that the selector takes, in the server's order (by name).

    progress: told after each page how many were read, and of how many; None where the server does not count. Raises
    KubeError.
    """
    listing = kube.list(NODES, label_selector=selector, page_size=PAGE_SIZE)
    done = 0
    for page in listing.pages():
        done += len(page)
        progress(done, None if listing.remaining is None else done + listing.remaining)
        # Taken out one by one: what was parsed is garbage at once.
        page.reverse()
        while page:
            yield row(page.pop(), pool, keep)


def get(kube: Kube, name: str) -> dict[str, Any]:
    """One Node object. Raises UsageError with names that come near when there is none, KubeError."""
    try:
        return kube.get(NODES, name)
    except NotFound as error:
        raise UsageError(f"there is no node {name!r}: kubectl get nodes has their names") from error


def row(found: Mapping[str, Any], pool: Pool, keep: Keep = Keep()) -> NodeRow:
    """A Node object as a row. Pure; never raises for what people or other controllers wrote."""
    node = node_view(found)
    notes = node.annotations
    listed, more = findings(notes.get(node_status.FINDINGS, ""))
    state, sentence = state_of(notes), notes.get(node_status.REBOOT, "")
    required = _required(found)
    info = _part(_part(found, "status"), "nodeInfo")
    return NodeRow(
        name=node.name,
        uid=node.uid,
        pool=sys.intern(pool_of(node.labels, pool)),
        ready=node.ready,
        cordoned=node.unschedulable,
        kernel=sys.intern(_text(info.get("kernelVersion"))),
        standing=standing(notes.get(node_status.STATUS)),
        worst=listed[0] if listed else None,
        failing=sum(one.status is Status.FAIL for one in listed),
        unknown=sum(one.status is Status.UNKNOWN for one in listed),
        more=more,
        phase=phase(state, sentence, required),
        required=required,
        since=state.since if state is not None and state.phase is not Phase.IDLE else 0.0,
        sentence=sentence,
        failures=state.failures if state is not None else 0,
        skip=notes.get(SKIP, ""),
        requested=notes.get(REQUEST, ""),
        version=sys.intern(notes.get(node_status.VERSION, "")),
        policy=sys.intern(notes.get(node_status.POLICY, "")),
        config_problem=sys.intern(notes.get(node_status.CONFIG_PROBLEM, "")),
        findings=listed if keep.findings else (),
        history=history(notes.get(HISTORY, "")) if keep.history else (),
    )


def standing(text: str | None) -> ComplianceStatus | None:
    """The `status` annotation; a word that no agent of this version writes is unknown."""
    if not text:
        return None
    try:
        return ComplianceStatus(text)
    except ValueError:
        return ComplianceStatus.UNKNOWN


def findings(text: str) -> tuple[tuple[FindingRow, ...], int]:
    """The `findings` annotation, worst first as the agent wrote it, and how many more it had no room for."""
    entries = _json_list(text)
    if entries is None:
        return (FindingRow("findings", Status.UNKNOWN, Severity.HIGH, "the annotation cannot be read"),), 0
    more = sum(one["more"] for one in entries if isinstance(one.get("more"), int))
    return tuple(_finding(one) for one in entries if "id" in one), more


def state_of(annotations: Mapping[str, str]) -> NodeState | None:
    """The `reboot-state` annotation; None when it cannot be read."""
    try:
        return decode(annotations.get(node_status.REBOOT_STATE, ""))
    except ValueError:
        return None


def phase(state: NodeState | None, sentence: str, required: bool | None) -> Phase | None:
    """Where the reboot is. What is not written down (waiting, blocked) is told from the sentence."""
    if not sentence:
        return None
    if state is None:
        return Phase.UNKNOWN
    if state.phase is Phase.WANTED:
        if sentence.startswith(("waiting for the lock", "the lock is free", "asks for the lock", "looks after")):
            return Phase.WAITING
        if sentence.startswith(("has the lock", "renews the lock")):
            return Phase.LOCKED
        return Phase.WANTED if sentence.startswith("required") else Phase.BLOCKED
    if state.phase is Phase.IDLE:
        if required is None:
            return Phase.UNKNOWN
        if required:
            return Phase.BLOCKED if sentence.startswith("required ") else Phase.WANTED
    return state.phase


def history(text: str) -> tuple[Reboot, ...]:
    """The `reboot-history` annotation, newest first; what cannot be read is left out."""
    return tuple(_reboot(one) for one in _json_list(text) or ())


def _finding(entry: Mapping[str, Any]) -> FindingRow:
    return FindingRow(
        sys.intern(_text(entry.get("id"))),
        _enum(Status, entry.get("status"), Status.UNKNOWN),
        _enum(Severity, entry.get("severity"), Severity.HIGH),
        _text(entry.get("observed")),
        _text(entry.get("expected")),
        _text(entry.get("remediation")),
    )


def _reboot(entry: Mapping[str, Any]) -> Reboot:
    phases = entry.get("phases")
    known = phases.items() if isinstance(phases, dict) else ()
    try:
        at = parse_rfc3339(_text(entry.get("at")))
    except ValueError:
        at = 0.0
    return Reboot(
        at=at,
        reason=_text(entry.get("reason")),
        kernel_before=_text(entry.get("kernelBefore")),
        kernel_after=_text(entry.get("kernelAfter")),
        seconds=_number(entry.get("seconds")),
        phases=tuple((name, _number(seconds)) for name, seconds in known),
        pods=int(_number(entry.get("pods"))),
        slowest=_text(entry.get("slowestPod")),
    )


def _required(found: Mapping[str, Any]) -> bool | None:
    words = {"True": True, "False": False}
    return words.get(condition(found, node_status.CONDITION_REBOOT).get("status", ""))


def condition(found: Mapping[str, Any], kind: str) -> Mapping[str, str]:
    """One condition of a Node, empty when it is not there."""
    conditions = _part(found, "status").get("conditions")
    some: Iterable[Any] = conditions if isinstance(conditions, list) else ()
    return next((one for one in some if isinstance(one, dict) and one.get("type") == kind), {})


def _json_list(text: str) -> list[dict[str, Any]] | None:
    """The mappings of a JSON list; None for what is none."""
    try:
        entries = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return None
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else None


def _enum(kind: type[T], value: object, other: T) -> T:
    try:
        return kind(str(value))
    except ValueError:
        return other


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 else 0.0
