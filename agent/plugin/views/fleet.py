"""The fleet: worst first, and the few lines below the table that sum it up. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from agent.config import Config
from agent.config.choices import Mode
from agent.model import Severity
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import FindingRow, NodeRow, with_locks
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis.advice import command, kubectl
from agent.plugin.views import table
from agent.plugin.views.table import Cell
from agent.reboot.phases import Phase
from agent.report.compliance import ComplianceStatus
from agent.terminal import Style

_SEVERITIES = {severity: rank for rank, severity in enumerate(Severity)}
_COMPLIANCE = {ComplianceStatus.FAILED: 0, ComplianceStatus.NON_COMPLIANT: 1, None: 2, ComplianceStatus.UNKNOWN: 3}
_NUMBERS = re.compile(r"([0-9]+)")
NO_AGENT = "no agent"
SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that `status` shows. rows: worst first. Made by `fleet`."""

    rows: tuple[NodeRow, ...]
    locks: tuple[Lock, ...]
    pause: Pause
    rules: Policy
    namespace: str
    now: float
    locks_problem: str = ""

    @property
    def stuck(self) -> tuple[Lock, ...]:
        """Locks whose holder went down and did not come back."""
        return tuple(lock for lock in self.locks if self.is_stuck(lock))

    def is_stuck(self, lock: Lock) -> bool:
        """See Lock.is_stuck."""
        return lock.is_stuck(self.now, self.rules.reboot)

    @property
    def is_well(self) -> bool:
        """Every node is hardened and alive, and no lock is stuck. A reboot that waits its turn is no trouble."""
        in_trouble = bool(self.stuck or self.rules.problem or self.locks_problem)
        return not in_trouble and not any(is_trouble(row) for row in self.rows)


def fleet(
    rows: Iterable[NodeRow],
    locks: Sequence[Lock],
    *,
    pause: Pause,
    rules: Policy,
    namespace: str,
    now: float,
    locks_problem: str = "",
) -> Fleet:
    """The fleet in order, with what its Leases know of its nodes."""
    joined = [with_locks(row, locks) for row in rows]
    stuck = {lock.holder_uid for lock in locks if lock.is_stuck(now, rules.reboot)}
    # Whoever holds a stuck lock keeps everyone else from continuing.
    joined.sort(key=lambda row: (row.uid not in stuck, *_rank(row)))
    return Fleet(tuple(joined), tuple(locks), pause, rules, namespace, now, locks_problem)


def is_trouble(row: NodeRow) -> bool:
    """Needs attention: not hardened, not alive, or a reboot that failed or is unknown."""
    return (not row.is_well and not _is_on_its_way(row)) or row.phase in (Phase.ROLLED_BACK, Phase.UNKNOWN)


def is_quiet(row: NodeRow) -> bool:
    """Nothing to report: hardened, and nothing pending."""
    return not is_trouble(row) and not row.wants_reboot and not row.cordoned and not row.config_problem


def _is_on_its_way(row: NodeRow) -> bool:
    """Down or coming up in its own reboot: NotReady is expected."""
    return row.phase in (Phase.REBOOTING, Phase.VERIFYING) and row.compliance is ComplianceStatus.HARDENED


def _rank(row: NodeRow) -> tuple[int, int, float, list[int | str]]:
    """What needs attention, then what is under way, then who waits (the longest first), then the rest by name."""
    severity = _SEVERITIES[row.worst.severity] if row.worst else len(_SEVERITIES)
    name: list[int | str] = [int(part) if part.isdecimal() else part for part in _NUMBERS.split(row.name[:80])]
    waits = row.since or float("inf")
    if row.compliance in _COMPLIANCE:
        return _COMPLIANCE[row.compliance], severity, 0.0, name
    if row.phase is Phase.ROLLED_BACK or (row.ready is not True and not _is_on_its_way(row)):
        return 4, 0, 0.0, name
    if row.phase is Phase.UNKNOWN:
        return 5, 0, 0.0, name
    if row.is_disrupted or row.phase in (Phase.LOCKED, Phase.RELEASING):
        return 6, 0, waits, name
    if row.wants_reboot:
        return 7, 0, waits, name
    return 8, 0, 0.0, name


# -- cells -------------------------------------------------------------------------------------------------------------


def hardened(row: NodeRow) -> Cell:
    """The node in one word."""
    word = _word(row)
    colours = {ComplianceStatus.HARDENED.value: table.GOOD}
    colours |= dict.fromkeys((ComplianceStatus.UNKNOWN.value, SILENT, NO_AGENT), table.WARN)
    return Cell(word, colours.get(word, table.BAD))


def _word(row: NodeRow) -> str:
    """Its compliance; what a silent node's agent reported last is no pass today."""
    if row.compliance is None:
        return NO_AGENT
    is_silent = row.compliance is ComplianceStatus.HARDENED and row.ready is not True
    return SILENT if is_silent else row.compliance.value


def finding(row: NodeRow) -> Cell:
    """The worst finding and how many more."""
    if row.worst is None:
        return Cell("-", table.FAINT)
    more = row.failing + row.unknown + row.more - 1
    title = f" ({row.worst.title})" if row.worst.title else ""
    text = f"{row.worst.severity.value} {row.worst.id}{f' +{more}' if more else ''}{title}"
    return Cell(text, colour_of(row.worst))


def colour_of(one: FindingRow) -> str:
    """By severity."""
    return table.BAD if one.severity in (Severity.CRITICAL, Severity.HIGH) else table.WARN


def reboot(row: NodeRow, *, stuck: bool) -> Cell:
    """The phase in one word."""
    if stuck:
        return Cell("STUCK", table.BAD)
    if row.phase is None:
        return Cell("off" if row.mode else "-", table.FAINT)
    colours = {Phase.IDLE: table.FAINT, Phase.ROLLED_BACK: table.BAD}
    colours |= dict.fromkeys((Phase.UNKNOWN, Phase.BLOCKED), table.WARN)
    return Cell(row.phase.value, colours.get(row.phase, table.BUSY))


def condition(row: NodeRow) -> Cell:
    """Ready and cordon."""
    text = ("Ready" if row.ready is True else "NotReady") + (",cordoned" if row.cordoned else "")
    return Cell(text, "" if text == "Ready" else table.WARN)


# -- below the table ---------------------------------------------------------------------------------------------------


def counts(rows: Sequence[NodeRow]) -> dict[str, int]:
    """Nodes by status; `no agent` where none ever checked, `silent` where a hardened one does not report any more."""
    found = Counter(map(_word, rows))
    order = [ComplianceStatus.HARDENED.value, SILENT, *(one.value for one in ComplianceStatus), NO_AGENT]
    return {word: found[word] for word in order if found[word]}


def phases(rows: Sequence[NodeRow]) -> dict[str, int]:
    """Nodes with a reboot pending or under way, by phase."""
    found = Counter(row.phase.value for row in rows if row.phase is not None and row.phase is not Phase.IDLE)
    return {phase.value: found[phase.value] for phase in Phase if found[phase.value]}


def footer(seen: Fleet, style: Style) -> list[str]:
    """Counts, locks, pause, and problems of the agents and their configuration; each with its next step."""
    lines = [*_nodes(seen, style), *_agents(seen, style), *_reboots(seen, style)]
    for lock in seen.locks:
        lines += _lock(lock, seen, style)
    if seen.locks_problem:
        lines += _line(f"Locks: cannot be read: {seen.locks_problem}", style, table.WARN)
    if seen.pause.active:
        step = command("resume") if seen.pause.is_known else ""
        lines += _line(f"Reboots paused {seen.pause.sentence or 'until resumed'}", style, table.WARN, step)
    if seen.rules.problem:
        lines += _line(f"Policy: {seen.rules.problem}", style, table.WARN)
    held = sum(row.is_held_back for row in seen.rows)
    if held:
        text = f"Policy: a changed one is held back, {table.count(held, 'node keeps', 'nodes keep')} the last"
        lines += _line(text, style, step=command("rollout", "status"))
    if audited := _audited(seen.rules):
        where = " (by the changed policy, not where the last is kept)" if held else ""
        lines += _line(f"Audit mode, which reports and changes nothing: {', '.join(audited)}{where}", style)
    if rejected := [row.name for row in seen.rows if row.config_problem]:
        text = f"Policy: rejected by {table.count(len(rejected), 'node')}, last valid configuration in use"
        lines += _line(text, style, table.WARN, command("why", rejected[0]))
    if outdated := sum(row.is_outdated for row in seen.rows):
        lines += _line(f"Agents: {table.count(outdated, 'node')} with an agent too old to report details", style)
    return lines


def _audited(rules: Policy) -> list[str]:
    """The sections that the policy keeps from acting, as they would without it."""

    def acts(config: Config | None, name: str) -> bool:
        return getattr(getattr(config, name, None), "mode", Mode.ENFORCE) is not Mode.AUDIT

    names = [one.name for one in fields(Config)]
    return [name for name in names if acts(Config(), name) and not acts(rules.config, name)]


def _nodes(seen: Fleet, style: Style) -> list[str]:
    not_ready = _not_ready(seen)
    parts = [f"{number:,} {word}" for word, number in counts(seen.rows).items()]
    parts += [f"{not_ready:,} NotReady"] if not_ready else []
    text = f"{table.count(len(seen.rows), 'node')}: {', '.join(parts)}" if parts else "no nodes"
    return _line(text, style, table.GOOD if seen.is_well else table.BOLD)


def _not_ready(seen: Fleet) -> int:
    return sum(row.ready is not True for row in seen.rows)


def _agents(seen: Fleet, style: Style) -> list[str]:
    """Only where a Ready node has no ready agent: such a node keeps showing what its agent reported last."""
    ready, desired = seen.rules.agents or (0, 0)
    if desired - ready <= _not_ready(seen):
        return []
    text = f"Agents: {ready:,}/{desired:,} ready; the others' nodes show their last report"
    return _line(text, style, table.WARN, kubectl("-n", seen.namespace, "get", "pods", "-o", "wide"))


def _reboots(seen: Fleet, style: Style) -> list[str]:
    busy = phases(seen.rows)
    if not busy:
        return ["Reboots: none pending"]
    oldest = min((row.since for row in seen.rows if row.since and row.wants_reboot), default=0.0)
    since = f"; longest pending {table.since(oldest, seen.now)}" if oldest else ""
    return _line(f"Reboots: {', '.join(f'{number:,} {phase}' for phase, number in busy.items())}{since}", style)


def _lock(lock: Lock, seen: Fleet, style: Style) -> list[str]:
    if lock.is_free:
        return []
    if not lock.holder:
        text = f"Lock {lock.name}: held by {lock.shown_holder}"
        return _line(text, style, table.BAD, command("unlock", lock.name))
    if seen.is_stuck(lock):
        ago = table.since(lock.renewed, seen.now)
        text = f"Lock {lock.name}: STUCK, {lock.holder} went down to reboot {ago} ago and did not come back"
        return _line(text, style, table.BAD, command("why", lock.holder))
    holder = next((row for row in seen.rows if row.uid == lock.holder_uid), None)
    status = ""
    if holder is not None:
        status = ", rebooting" if holder.phase is Phase.REBOOTING else f": {holder.message}"
    return _line(f"Lock {lock.name}: {lock.holder} for {table.since(lock.acquired, seen.now)}{status}", style)


def _line(text: str, style: Style, colour: str = "", step: str = "") -> list[str]:
    """Wrapped and painted; a command is on a line of its own, to be pasted."""
    lines = [style.paint(line, colour) for line in style.wrap(text, indent=2)]
    return [*lines, *table.step(step, style)] if step else lines


# -- for programs ------------------------------------------------------------------------------------------------------


def document(seen: Fleet) -> dict[str, Any]:
    """The whole fleet, in the order of the table."""
    pause = seen.pause
    return {
        "nodes": [node(row) for row in seen.rows],
        "counts": counts(seen.rows),
        "reboots": phases(seen.rows),
        "locks": [_lock_document(lock, seen) for lock in seen.locks],
        "pause": {"active": pause.active, "until": pause.until, "reason": pause.reason, "by": pause.by},
        "policy": {"source": seen.rules.source, "problem": seen.rules.problem},
        "agents": {"ready": seen.rules.agents[0], "desired": seen.rules.agents[1]} if seen.rules.agents else None,
        "well": seen.is_well,
    }


def node(row: NodeRow) -> dict[str, Any]:
    """One node; what is unknown is null."""
    return {
        "node": row.name, "pool": row.pool, "ready": row.ready, "cordoned": row.cordoned, "kernel": row.kernel,
        "status": row.compliance, "silentSince": table.rfc3339(row.silent_since),
        "failing": row.failing, "unknown": row.unknown, "notListed": row.more,
        "worst": finding_document(row.worst) if row.worst else None, "reboot": reboot_document(row),
        "version": row.version, "policy": row.policy, "configProblem": row.config_problem,
    }  # fmt: skip


def reboot_document(row: NodeRow) -> dict[str, Any]:
    """What the node's reboot is at."""
    return {
        "phase": row.phase, "reason": row.reason, "required": row.required,
        "since": table.rfc3339(row.since), "until": table.rfc3339(row.until),
        "message": row.message, "failures": row.failures, "skip": row.skip, "requested": row.requested,
        "outdated": row.is_outdated,
    }  # fmt: skip


def finding_document(one: FindingRow) -> Mapping[str, str]:
    """A finding as it is on the Node."""
    return {
        "id": one.id, "title": one.title, "status": one.status, "severity": one.severity,
        "observed": one.observed, "expected": one.expected, "remediation": one.remediation,
    }  # fmt: skip


def _lock_document(lock: Lock, seen: Fleet) -> dict[str, Any]:
    held = not lock.is_free
    return {
        "lock": lock.name, "holder": lock.holder or None, "validHolder": bool(lock.holder) if held else None,
        "since": table.rfc3339(lock.acquired) if held else None,
        "renewed": table.rfc3339(lock.renewed) if held else None,
        "phase": lock.view.phase.value or None, "stuck": seen.is_stuck(lock),
        "lastReboot": table.rfc3339(lock.last_reboot),
    }  # fmt: skip
