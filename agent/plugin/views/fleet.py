"""The fleet as people read it: worst first, and the few lines below that say how it stands. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.model import Severity
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import FindingRow, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.views import table as render
from agent.plugin.views.table import Cell
from agent.reboot.state import Phase
from agent.report.node_status import ComplianceStatus
from agent.terminal import Style, printable

_SEVERITIES = {severity: rank for rank, severity in enumerate(Severity)}
_NUMBERS = re.compile(r"(\d+)")
NO_AGENT = "no agent"
SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that `status` shows. rows: worst first."""

    rows: tuple[NodeRow, ...]
    locks: tuple[Lock, ...]
    pause: Pause
    rules: Policy
    namespace: str
    now: float
    locks_problem: str = ""

    @property
    def is_well(self) -> bool:
        """Every node is hardened and heard of, and no lock is stuck. A reboot that waits its turn is no trouble."""
        in_trouble = any(lock.is_stuck for lock in self.locks) or bool(self.rules.problem) or bool(self.locks_problem)
        return not in_trouble and not any(is_trouble(row) for row in self.rows)


def worst_first(rows: Iterable[NodeRow], held: Iterable[Lock] = ()) -> tuple[NodeRow, ...]:
    """What needs a person first, then what is under way, then who waits (the longest first), then the rest by name.

    held: locks; who holds a stuck one keeps everybody else from going on.
    """
    stuck = {lock.holder_uid for lock in held if lock.is_stuck}
    return tuple(sorted(rows, key=lambda row: (row.uid not in stuck, *_rank(row))))


def is_trouble(row: NodeRow) -> bool:
    """Somebody should look: not hardened, not heard of, or a reboot that failed or cannot be told."""
    return (not row.is_well and not _is_on_its_way(row)) or row.phase in (Phase.FAILED, Phase.UNKNOWN)


def is_quiet(row: NodeRow) -> bool:
    """Nothing to say: well, and nothing wanted."""
    return not is_trouble(row) and not row.wants_reboot and not row.cordoned and not row.config_problem


def _is_on_its_way(row: NodeRow) -> bool:
    """Down or coming up in its own reboot: not Ready is as it should be."""
    return row.phase in (Phase.REBOOTING, Phase.VERIFYING) and row.standing is ComplianceStatus.HARDENED


def _rank(row: NodeRow) -> tuple[int, int, float, list[int | str]]:
    severity = _SEVERITIES[row.worst.severity] if row.worst else len(_SEVERITIES)
    name: list[int | str] = [int(part) if part.isdecimal() else part for part in _NUMBERS.split(row.name)]
    waits = row.since or float("inf")
    if row.standing is ComplianceStatus.FAILED:
        return 0, severity, 0.0, name
    if row.standing is ComplianceStatus.NON_COMPLIANT:
        return 1, severity, 0.0, name
    if row.standing is None:
        return 2, 0, 0.0, name
    if row.standing is ComplianceStatus.UNKNOWN:
        return 3, severity, 0.0, name
    if row.phase is Phase.FAILED or (row.ready is not True and not _is_on_its_way(row)):
        return 4, 0, 0.0, name
    if row.phase is Phase.UNKNOWN:
        return 5, 0, 0.0, name
    if row.is_down or row.phase in (Phase.LOCKED, Phase.RELEASING):
        return 6, 0, waits, name
    if row.wants_reboot:
        return 7, 0, waits, name
    return 8, 0, 0.0, name


# -- cells -------------------------------------------------------------------------------------------------------------


def hardened(row: NodeRow) -> Cell:
    """The node in one word."""
    word = _word(row)
    colours = {ComplianceStatus.HARDENED.value: render.GOOD}
    colours |= dict.fromkeys((ComplianceStatus.UNKNOWN.value, SILENT, NO_AGENT), render.WARN)
    return Cell(word, colours.get(word, render.BAD))


def _word(row: NodeRow) -> str:
    """Its standing; what a silent node's agent said last is no pass today."""
    if row.standing is None:
        return NO_AGENT
    return SILENT if row.standing is ComplianceStatus.HARDENED and row.ready is not True else row.standing.value


def finding(row: NodeRow) -> Cell:
    """The worst finding and how many more."""
    if row.worst is None:
        return Cell("-", render.FAINT)
    more = row.failing + row.unknown + row.more - 1
    text = f"{row.worst.severity.value} {row.worst.id}" + (f" +{more}" if more else "")
    return Cell(text, colour_of(row.worst))


def colour_of(one: FindingRow) -> str:
    """By severity."""
    return render.BAD if one.severity in (Severity.CRITICAL, Severity.HIGH) else render.WARN


def reboot(row: NodeRow, stuck: bool) -> Cell:
    """The phase in one word."""
    if stuck:
        return Cell("STUCK", render.BAD)
    match row.phase:
        case None:
            return Cell("-", render.FAINT)
        case Phase.IDLE:
            return Cell("idle", render.FAINT)
        case Phase.FAILED:
            return Cell("failed", render.BAD)
        case Phase.UNKNOWN:
            return Cell("unknown", render.WARN)
        case Phase.BLOCKED:
            return Cell("blocked", render.WARN)
        case phase:
            return Cell(phase.value, "36")


def condition(row: NodeRow) -> Cell:
    """Ready and cordon, as kubectl has them."""
    word = "Ready" if row.ready is True else "NotReady"
    text = f"{word},cordoned" if row.cordoned else word
    return Cell(text, "" if text == "Ready" else render.WARN)


# -- below the table ---------------------------------------------------------------------------------------------------


def counts(rows: Sequence[NodeRow]) -> dict[str, int]:
    """Nodes by standing; `no agent` where none ever looked, `silent` where a hardened one is not heard of any more."""
    found = Counter(map(_word, rows))
    order = [ComplianceStatus.HARDENED.value, SILENT, *(standing.value for standing in ComplianceStatus), NO_AGENT]
    return {word: found[word] for word in order if found[word]}


def phases(rows: Sequence[NodeRow]) -> dict[str, int]:
    """Nodes that want a reboot, or are in one, by phase."""
    found = Counter(row.phase.value for row in rows if row.phase is not None and row.phase is not Phase.IDLE)
    return {phase.value: found[phase.value] for phase in Phase if found[phase.value]}


def footer(seen: Overview, style: Style) -> list[str]:
    """Counts, locks, pause, and what is wrong with the agents and their configuration; each with its next step."""
    lines = [*_nodes(seen, style), *_agents(seen, style), *_reboots(seen, style)]
    for lock in seen.locks:
        lines += _lock(lock, seen, style)
    if seen.locks_problem:
        lines += _line(f"Locks: cannot be read: {seen.locks_problem}", style, render.WARN)
    if seen.pause.active:
        text = seen.pause.sentence.removeprefix("the cluster's pause").strip() or "until somebody resumes"
        lines += _line(f"Paused {text}", style, render.WARN, "kubectl node-hardening resume")
    if seen.rules.problem:
        lines += _line(f"Policy: {seen.rules.problem}", style, render.WARN)
    refused = [row.name for row in seen.rows if row.config_problem]
    if refused:
        goes = "goes" if len(refused) == 1 else "go"
        text = f"Policy: refused by {render.count(len(refused), 'node')}, which {goes} on with the last good one"
        lines += _line(text, style, render.WARN, f"kubectl node-hardening why {refused[0]}")
    return lines


def _nodes(seen: Overview, style: Style) -> list[str]:
    known = counts(seen.rows)
    away = _away(seen)
    parts = [f"{number:,} {word}" for word, number in known.items()] + ([f"{away:,} not Ready"] if away else [])
    text = f"{render.count(len(seen.rows), 'node')}: {', '.join(parts)}" if parts else "no nodes"
    return _line(text, style, render.GOOD if seen.is_well else render.BOLD)


def _away(seen: Overview) -> int:
    return sum(row.ready is not True for row in seen.rows)


def _agents(seen: Overview, style: Style) -> list[str]:
    """Said only where a Ready node has no ready agent: such a node goes on showing what its agent said last."""
    ready, wanted = seen.rules.agents or (0, 0)
    if wanted - ready <= _away(seen):
        return []
    text = f"Agents: {ready:,} of {wanted:,} are ready; the others' nodes show what they said last"
    return _line(text, style, render.WARN, f"kubectl -n {seen.namespace} get pods -o wide")


def _reboots(seen: Overview, style: Style) -> list[str]:
    busy = phases(seen.rows)
    if not busy:
        return ["Reboots: none wanted"]
    oldest = min((row.since for row in seen.rows if row.since and row.wants_reboot), default=0.0)
    since = f", the longest for {render.since(oldest, seen.now)}" if oldest else ""
    return _line(f"Reboots: {', '.join(f'{number:,} {phase}' for phase, number in busy.items())}{since}", style)


def _lock(lock: Lock, seen: Overview, style: Style) -> list[str]:
    if lock.is_free:
        return []
    if lock.is_stuck:
        ago = render.since(lock.renewed, seen.now)
        text = f"Lock {lock.name}: STUCK, {lock.holder} went down to reboot {ago} ago and did not come back"
        return _line(text, style, render.BAD, f"kubectl node-hardening why {lock.holder}")
    holder = next((row for row in seen.rows if row.uid == lock.holder_uid), None)
    says = f": {holder.sentence}" if holder is not None else ""
    if holder is not None and holder.phase is Phase.REBOOTING:
        says = ", which went down to reboot"
    return _line(f"Lock {lock.name}: {lock.holder} for {render.since(lock.acquired, seen.now)}{says}", style)


def _line(text: str, style: Style, colour: str = "", step: str = "") -> list[str]:
    """Wrapped and painted; a command stands on a line of its own, to be pasted."""
    lines = [style.paint(line, colour) for line in style.wrap(printable(text), indent=2)]
    return [*lines, f"  {style.paint('->', render.FAINT)} {step}"] if step else lines


# -- for programs ------------------------------------------------------------------------------------------------------


def document(seen: Overview) -> dict[str, Any]:
    """The whole fleet, in the order of the table."""
    return {
        "nodes": [node(row) for row in seen.rows],
        "counts": counts(seen.rows),
        "reboots": phases(seen.rows),
        "locks": [_lock_document(lock) for lock in seen.locks],
        "pause": {
            "active": seen.pause.active,
            "until": seen.pause.until,
            "reason": seen.pause.reason,
            "by": seen.pause.by,
        },
        "policy": {"source": seen.rules.source, "problem": seen.rules.problem},
        "agents": {"ready": seen.rules.agents[0], "wanted": seen.rules.agents[1]} if seen.rules.agents else None,
        "well": seen.is_well,
    }


def node(row: NodeRow) -> dict[str, Any]:
    """One node; what is not known is null."""
    shown: dict[str, Any] = {
        "node": row.name,
        "pool": row.pool,
        "ready": row.ready,
        "cordoned": row.cordoned,
        "kernel": row.kernel,
        "status": row.standing.value if row.standing else None,
        "failing": row.failing,
        "unknown": row.unknown,
        "notListed": row.more,
        "worst": finding_document(row.worst) if row.worst else None,
        "reboot": {
            "phase": row.phase.value if row.phase else None,
            "required": row.required,
            "since": render.rfc3339(row.since),
            "sentence": row.sentence,
            "failures": row.failures,
            "skip": row.skip,
            "requested": row.requested,
        },
        "version": row.version,
        "policy": row.policy,
        "configProblem": row.config_problem,
    }
    return shown


def finding_document(one: FindingRow) -> Mapping[str, str]:
    """A finding as it stands on the Node."""
    return {
        "id": one.id,
        "status": one.status.value,
        "severity": one.severity.value,
        "observed": one.observed,
        "expected": one.expected,
        "remediation": one.remediation,
    }


def _lock_document(lock: Lock) -> dict[str, Any]:
    return {
        "lock": lock.name,
        "holder": lock.holder or None,
        "since": render.rfc3339(lock.acquired) if lock.holder else None,
        "renewed": render.rfc3339(lock.renewed) if lock.holder else None,
        "phase": lock.view.phase.value or None,
        "stuck": lock.is_stuck,
        "lastReboot": render.rfc3339(lock.view.last_reboot),
    }
