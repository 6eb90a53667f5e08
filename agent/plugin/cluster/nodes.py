"""What the agents report on their Nodes, read page by page into small rows.

A page of Node objects is dropped before the next one is requested, so that five thousand nodes cost a few MiB here. It
refuses to call anything hardened that is missing or malformed: no annotation is "no agent", a strange one "unknown".
What the reboot is at stands in `reboot-status` as data; no sentence is ever parsed.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from agent import annotations as keys
from agent.config.schema import Pool
from agent.errors import UsageError
from agent.kube import NODES, Kube
from agent.kube.errors import NotFound
from agent.model import Severity, Status
from agent.plugin.cluster import values
from agent.plugin.cluster.denials import denials_of
from agent.plugin.cluster.locks import Lock
from agent.reboot import status as reboot_status
from agent.reboot.kube.views import node_view
from agent.reboot.lock.pools import pool_of
from agent.reboot.phases import Phase
from agent.reboot.state import NodeState, decode
from agent.reboot.status import DrainStatus, StatusReason
from agent.report.compliance import ComplianceStatus
from agent.report.node_status import SILENT_SECONDS
from agent.rollout import reports

PAGE_SIZE = 500
# From the cordon to the uncordon.
DISRUPTED = frozenset({Phase.CORDONED, Phase.DRAINING, Phase.REBOOTING, Phase.VERIFYING})
UNDER_WAY = DISRUPTED | {Phase.LOCKED, Phase.RELEASING}
# Those that a node can be in after its Lease, or its state, recorded the reboot command.
_AFTER_THE_COMMAND = frozenset({Phase.REBOOTING, Phase.VERIFYING, Phase.RELEASING, Phase.ROLLED_BACK})
_FINDINGS_KEPT = 200
_REBOOTS_KEPT = 20
_PHASES_KEPT = 12
_NO_LABELS: Mapping[str, str] = MappingProxyType({})  # one for all rows


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding as it is on the Node; expected and remediation are empty where there was no space for them."""

    id: str
    status: Status
    severity: Severity
    observed: str = ""
    expected: str = ""
    remediation: str = ""
    title: str = ""

    @property
    def label(self) -> str:
        """Id and title."""
        return f"{self.id} ({self.title})" if self.title else self.id


@dataclass(frozen=True, slots=True)
class Reboot:
    """One verified reboot. at: epoch seconds, 0 if unknown. seconds: from cordon to uncordon; phases: in each."""

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

    ready: None when the kubelet does not report; what the agent reported is as old as that. compliance: None when
    no agent ever checked it. silent_since: of an agent whose last heartbeat is too old for its report to count;
    else 0. failing, unknown: findings, of which the Node lists all but `more`. worst: the first of them. phase,
    reason, message, since, until, failures, drain, mode: of `reboot-status` (since: when the phase began; before
    the lock, when the reboot was first required). phase is None while reboots are off or no agent reports.
    is_outdated: the agent is too old for that annotation: only phase and message are known. required: None when
    unknown. denials: kinds of call that profiles refuse its containers. These, findings, history and labels: empty
    unless requested. is_held_back: a changed policy is known to it and not in force, as a rollout decides.
    """

    name: str
    uid: str
    pool: str
    ready: bool | None
    cordoned: bool
    kernel: str
    compliance: ComplianceStatus | None
    silent_since: float
    worst: FindingRow | None
    failing: int
    unknown: int
    more: int
    phase: Phase | None
    reason: StatusReason | None
    required: bool | None
    since: float
    until: float
    message: str
    failures: int
    drain: DrainStatus | None
    mode: str
    is_outdated: bool
    skip: str
    requested: str
    version: str
    policy: str
    is_held_back: bool
    config_problem: str
    checks: tuple[FindingRow, ...] = ()
    findings: tuple[FindingRow, ...] = ()
    history: tuple[Reboot, ...] = ()
    denials: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)

    @property
    def is_well(self) -> bool:
        """Hardened, and the kubelet is alive to say so."""
        return self.compliance is ComplianceStatus.HARDENED and self.ready is True

    @property
    def wants_reboot(self) -> bool:
        """A reboot is pending or under way."""
        return self.required is True or self.phase not in (None, Phase.IDLE, Phase.UNKNOWN)

    @property
    def is_disrupted(self) -> bool:
        """In the part of a cycle in which the node takes no pods."""
        return self.phase in DISRUPTED


@dataclass(frozen=True, slots=True)
class Keep:
    """What a row holds besides what every table needs."""

    findings: bool = False
    history: bool = False
    checks: bool = False
    denials: bool = False
    labels: bool = False


def rows(
    kube: Kube,
    pool: Pool,
    *,
    selector: str = "",
    keep: Keep = Keep(),
    progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Iterator[NodeRow]:
    """Every node that the selector matches, in the server's order (by name).

    progress: called after each page with how many were read, and of how many; None where the server does not count.
    Raises KubeError.
    """
    listing = kube.list(NODES, label_selector=selector, page_size=PAGE_SIZE)
    done = 0
    for page in listing.pages():
        done += len(page)
        progress(done, None if listing.remaining is None else done + listing.remaining)
        # Taken out one by one: what was parsed is garbage immediately.
        page.reverse()
        while page:
            yield row(page.pop(), pool, keep)


def get(kube: Kube, name: str) -> dict[str, Any]:
    """One Node object. Raises UsageError when there is none, or `name` is no name of one; KubeError."""
    if not values.name(name):
        raise UsageError(f"{values.text(name, 80)!r} is no name of a node: kubectl get nodes lists them")
    try:
        return kube.get(NODES, name)
    except NotFound as error:
        raise UsageError(f"there is no node {name!r}: kubectl get nodes lists them") from error


def row(found: Mapping[str, Any], pool: Pool, keep: Keep = Keep()) -> NodeRow:
    """A Node object as a row. Pure; never raises for what users or other controllers wrote."""
    node = node_view(found)
    notes = node.annotations
    listed, more = findings(notes.get(keys.FINDINGS, ""))
    silent = silent_since(found)
    rollout = reports.report(found)
    info = values.part(found, "status", "nodeInfo")
    return NodeRow(
        name=values.name(node.name),
        uid=values.text(node.uid),
        pool=sys.intern(values.text(pool_of(node.labels, pool), 80)),
        ready=node.ready,
        cordoned=node.unschedulable,
        kernel=sys.intern(values.text(info.get("kernelVersion"), 80)),
        compliance=compliance(notes.get(keys.STATUS), is_silent=silent > 0),
        silent_since=silent,
        worst=listed[0] if listed else None,
        failing=sum(one.status is Status.FAIL for one in listed),
        unknown=sum(one.status is Status.UNKNOWN for one in listed),
        more=more,
        **_reboot_part(found, notes),
        skip=values.text(notes.get(keys.REBOOT_SKIP)),
        requested=values.text(notes.get(keys.REBOOT_REQUEST)),
        version=sys.intern(values.text(notes.get(keys.VERSION), 80)),
        policy=sys.intern(values.text(notes.get(keys.POLICY), 80)),
        is_held_back=bool(rollout.target) and rollout.target != rollout.revision,
        config_problem=sys.intern(values.text(notes.get(keys.CONFIG_PROBLEM))),
        checks=checks(notes.get(keys.CHECKS, "")) if keep.checks else (),
        findings=listed if keep.findings else (),
        history=history(notes.get(keys.REBOOT_HISTORY, "")) if keep.history else (),
        denials=seen.refused if keep.denials and (seen := denials_of(found)) else 0,
        labels=node.labels if keep.labels else _NO_LABELS,
    )


def _reboot_part(found: Mapping[str, Any], notes: Mapping[str, str]) -> dict[str, Any]:
    """What the reboot is at; the state in the same patch wins where the status is older."""
    text = notes.get(keys.REBOOT_STATUS, "")
    status = reboot_status.parse(text) if text else None
    if status is None:
        return _without_status(found, notes, is_malformed=bool(text))
    phase: Phase | None = status.phase
    reason = status.reason
    state = state_of(notes)
    if phase not in _AFTER_THE_COMMAND and state is not None and state.phase is Phase.REBOOTING:
        phase, reason = Phase.REBOOTING, StatusReason.REBOOTING
    if reason is StatusReason.MODE_OFF:
        phase = None
    return {
        "phase": phase, "reason": reason, "required": status.required, "since": values.timestamp(status.since),
        "until": values.timestamp(status.until), "message": values.text(status.message), "failures": status.failures,
        "drain": status.drain, "mode": status.mode, "is_outdated": False,
    }  # fmt: skip


def _without_status(found: Mapping[str, Any], notes: Mapping[str, str], *, is_malformed: bool) -> dict[str, Any]:
    """No agent, or an older one, whose state and sentence are all there is; or an annotation that nothing can read."""
    message = values.text(notes.get(keys.REBOOT))
    required = {"True": True, "False": False}.get(_condition(found, keys.CONDITION_REBOOT))
    state = state_of(notes)
    phase: Phase | None = None
    if is_malformed or (message and (state is None or (required is None and state.phase is Phase.IDLE))):
        phase = Phase.UNKNOWN
    elif message and state is not None:
        phase = Phase.PENDING if state.phase is Phase.IDLE and required else state.phase
    return {
        "phase": phase, "reason": None, "required": required, "since": 0.0, "until": 0.0, "message": message,
        "failures": 0, "drain": None, "mode": "", "is_outdated": bool(message) and not is_malformed,
    }  # fmt: skip


def with_locks(one: NodeRow, locks: Iterable[Lock]) -> NodeRow:
    """The row with what the Leases know: who holds one as rebooting was given the command, whatever it last wrote."""
    mine = next((lock for lock in locks if lock.is_rebooting and lock.holder_uid == one.uid and not lock.is_free), None)
    if mine is None or one.phase in _AFTER_THE_COMMAND:
        return one
    return replace(one, phase=Phase.REBOOTING, reason=StatusReason.REBOOTING, since=mine.renewed, until=0.0)


def compliance(text: str | None, *, is_silent: bool) -> ComplianceStatus | None:
    """The `status` annotation; a word that no agent of this version writes is unknown, and so is a silent agent's."""
    known = ComplianceStatus.UNKNOWN if is_silent else values.choice(ComplianceStatus, text, ComplianceStatus.UNKNOWN)
    return known if text else None


def silent_since(found: Mapping[str, Any]) -> float:
    """The agent's last heartbeat where the kubelet's is hours newer. Both are of the node's clock: ours is not read."""
    agent = values.timestamp(_condition(found, keys.CONDITION_HARDENED, "lastHeartbeatTime"))
    kubelet = values.timestamp(_condition(found, "Ready", "lastHeartbeatTime"))
    return agent if agent and kubelet - agent > SILENT_SECONDS else 0.0


def findings(text: str) -> tuple[tuple[FindingRow, ...], int]:
    """The `findings` annotation, worst first as the agent wrote it, and how many more it had no space for."""
    entries = values.entries(text)
    if entries is None:
        return (FindingRow("findings", Status.UNKNOWN, Severity.HIGH, "the annotation is malformed"),), 0
    more = int(sum(values.number(one.get("more")) for one in entries))
    listed = [one for one in entries if "id" in one]
    return tuple(_finding(one) for one in listed[:_FINDINGS_KEPT]), more + max(len(listed) - _FINDINGS_KEPT, 0)


@functools.lru_cache(maxsize=256)  # most nodes of a fleet have the same
def checks(text: str) -> tuple[FindingRow, ...]:
    """The `checks` annotation: what passed, and what was not judged, with the reason as what was observed."""
    document = values.mapping(text)
    found = [(Status.PASS, one, "") for one in values.texts(document.get("passed"))]
    for key, status in (("info", Status.INFO), ("notApplicable", Status.NOT_APPLICABLE)):
        found += [(status, one, values.text(reason)) for one, reason in values.part(document, key).items()]
    return tuple(
        FindingRow(sys.intern(values.text(one, 120)), status, Severity.INFO, reason)
        for status, one, reason in found[:_FINDINGS_KEPT]
    )


def state_of(notes: Mapping[str, str]) -> NodeState | None:
    """The `reboot-state` annotation; None when it cannot be read."""
    try:
        return decode(notes.get(keys.REBOOT_STATE, ""))
    except ValueError:
        return None


def history(text: str) -> tuple[Reboot, ...]:
    """The `reboot-history` annotation, newest first; what cannot be read is left out."""
    return tuple(_reboot(one) for one in (values.entries(text) or ())[:_REBOOTS_KEPT])


def _finding(entry: Mapping[str, Any]) -> FindingRow:
    return FindingRow(
        sys.intern(values.text(entry.get("id"), 120)),
        values.choice(Status, entry.get("status"), Status.UNKNOWN),
        values.choice(Severity, entry.get("severity"), Severity.HIGH),
        values.text(entry.get("observed")),
        values.text(entry.get("expected")),
        _remediation(values.text(entry.get("remediation"))),
        values.text(entry.get("title")),
    )


def _remediation(text: str) -> str:
    """As it is on the Node; never in the form of our commands, because anyone who can write the Node wrote it."""
    return f"the agent suggests: {text}" if text.startswith("kubectl") else text


def _reboot(entry: Mapping[str, Any]) -> Reboot:
    phases = list(values.part(entry, "phases").items())[:_PHASES_KEPT]
    return Reboot(
        at=values.timestamp(entry.get("at")),
        reason=values.text(entry.get("reason")),
        kernel_before=values.text(entry.get("kernelBefore"), 80),
        kernel_after=values.text(entry.get("kernelAfter"), 80),
        seconds=values.number(entry.get("seconds")),
        phases=tuple((values.text(name, 40), values.number(seconds)) for name, seconds in phases),
        pods=int(values.number(entry.get("pods"))),
        slowest=values.text(entry.get("slowestPod")),
    )


def _condition(found: Mapping[str, Any], kind: str, key: str = "status") -> str:
    """A value of one condition of a Node, empty when it is not there."""
    conditions = values.mappings(values.part(found, "status").get("conditions"))
    return next((values.text(one.get(key)) for one in conditions if one.get("type") == kind), "")
