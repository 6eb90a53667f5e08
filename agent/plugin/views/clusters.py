"""Several clusters: each reduced to a row, the worst first, and the line that sums them up. Pure.

A cluster that could not be read is named with the reason, and never counts as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.advice import kubectl
from agent.plugin.views import fleet, table
from agent.plugin.views.fleet import Fleet
from agent.plugin.views.table import Cell, Column
from agent.report.compliance import ComplianceStatus
from agent.terminal import Style

_NODES_KEPT = 20
_STEPS_SHOWN = 5
_BAD = (ComplianceStatus.FAILED.value, ComplianceStatus.NON_COMPLIANT.value)


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster in a few kilobytes. error: why it could not be read, empty when it was.

    attention: the first of the `troubled` nodes that need it. numbers: nodes, hardened, not hardened, unknown, reboots.
    """

    context: str
    error: str = ""
    is_well: bool = False
    message: str = ""
    numbers: tuple[int, ...] = (0,) * 5
    counts: tuple[tuple[str, int], ...] = ()
    attention: tuple[NodeRow, ...] = ()
    troubled: int = 0

    @property
    def status(self) -> tuple[str, str]:
        """Tone and words."""
        if self.error:
            return "warn", "not readable"
        return ("good", "healthy") if self.is_well else ("bad", "needs attention")

    @property
    def step(self) -> str:
        """What to type next."""
        if self.error:
            return kubectl("--context", self.context, "cluster-info")
        return kubectl("node-hardening", "status", "--context", self.context)


def row(context: str, seen: Fleet) -> ClusterRow:
    """A cluster that was read; its nodes are dropped but for the worst."""
    counts = fleet.counts(seen.rows)
    hardened, bad = counts.get(ComplianceStatus.HARDENED.value, 0), sum(counts.get(word, 0) for word in _BAD)
    whole, reboots = len(seen.rows), sum(one.wants_reboot for one in seen.rows)
    troubled = [one for one in seen.rows if fleet.is_trouble(one)]
    return ClusterRow(
        context, "", seen.is_well and bool(whole), _message(seen, troubled),
        (whole, hardened, bad, whole - hardened - bad, reboots), tuple(counts.items()),
        tuple(troubled[:_NODES_KEPT]), len(troubled),
    )  # fmt: skip


def _message(seen: Fleet, troubled: Sequence[NodeRow]) -> str:
    if seen.stuck:
        return f"lock {seen.stuck[0].name} is stuck: {seen.stuck[0].holder} did not come back"
    for problem in (seen.locks_problem, seen.rules.problem):
        if problem:
            return problem
    if troubled:
        found = f" ({troubled[0].worst.label})" if troubled[0].worst else ""
        return f"{troubled[0].name}: {fleet.hardened(troubled[0]).text}{found}"
    if not seen.rows:
        return "no nodes"
    return f"reboots paused {seen.pause.sentence}" if seen.pause.active else ""


def worst_first(rows: Sequence[ClusterRow]) -> list[ClusterRow]:
    """What could not be read, what needs attention, the rest; each by name."""
    return sorted(rows, key=lambda one: (not one.error, one.is_well, one.context))


def headline(rows: Sequence[ClusterRow]) -> str:
    """`3 clusters: 1 healthy, 1 needs attention, 1 not readable; 40 nodes: 38 hardened, 2 failed`."""
    words = Counter(one.status[1] for one in rows)
    nodes: Counter[str] = Counter()
    for one in rows:
        nodes.update(dict(one.counts))
    clusters = ", ".join(f"{number:,} {word}" for word, number in words.items())
    of_nodes = ", ".join(f"{number:,} {word}" for word, number in nodes.items())
    whole = f"{table.count(len(rows), 'cluster')}: {clusters}"
    return f"{whole}; {table.count(nodes.total(), 'node')}: {of_nodes}" if nodes else whole


def text(rows: Sequence[ClusterRow], style: Style) -> str:
    """The table, worst first, and what is below it."""
    columns = [Column("CONTEXT", elastic=True, least=12), Column("NODES"), Column("HARDENED"), Column("NOT HARDENED")]
    columns += [Column("UNKNOWN"), Column("REBOOTS"), Column("MESSAGE", elastic=True, least=20)]
    cells: list[list[Cell | str]] = []
    for one in rows:
        numbers = ["-"] * 5 if one.error else [f"{number:,}" for number in one.numbers]
        colour = {"good": table.FAINT, "bad": table.BAD, "warn": table.WARN}[one.status[0]]
        cells.append([one.context, *numbers, Cell(one.error or one.message or "-", colour)])
    below = style.wrap(headline(rows), indent=2)
    steps = [one.step for one in rows if not one.is_well]
    below += [line for step in steps[:_STEPS_SHOWN] for line in table.step(step, style)]
    return "\n".join([table.table(columns, cells, style), *below])


def diff_of(name: str) -> str:
    """The command for a finding of the node CONTEXT/NODE, where the context may have slashes of its own."""
    context, _, node = name.rpartition("/")
    return kubectl("node-hardening", "diff", node, "--context", context)


def document(one: ClusterRow) -> dict[str, Any]:
    """One cluster for programs; what is unknown is null."""
    nodes, _, _, _, reboots = one.numbers
    known = {"nodes": nodes, "counts": dict(one.counts), "reboots": reboots}
    return {
        "context": one.context, "well": one.is_well, "error": one.error or None, "message": one.message or None,
        **(dict.fromkeys(known) if one.error else known),
        "attention": [fleet.node(node) for node in one.attention],
        "attentionNotListed": one.troubled - len(one.attention),
    }  # fmt: skip
