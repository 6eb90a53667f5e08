"""Past reboots as a table and as documents. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.plugin.cluster.nodes import Reboot
from agent.plugin.views import table as tables
from agent.plugin.views.table import Cell, Column
from agent.terminal import Style

_BROAD = 170


def table(entries: Sequence[tuple[str, Reboot]], style: Style, *, named: bool = True) -> str:
    """(node, reboot), in the order given. named: with the node's column.

    On a narrow terminal reason, phases and the slowest pod are below each.
    """
    broad = style.width is None or style.width >= _BROAD
    columns = [Column("NODE", elastic=True, least=12)] if named else []
    columns += [Column("WHEN"), Column("TOOK"), Column("PODS"), Column("KERNEL", elastic=True, least=12)]
    columns += [Column("REASON", elastic=True, least=12), Column("PHASES"), Column("SLOWEST POD")] if broad else []
    rows = []
    for name, one in entries:
        cells: list[Cell | str] = [name] if named else []
        cells += [tables.stamp(one.at), tables.age(one.seconds), str(one.pods), kernel(one)]
        rows.append(cells + ([one.reason or "-", phases(one), one.slowest or "-"] if broad else []))
    lines = tables.table(columns, rows, style).rstrip("\n").split("\n")
    if not broad:
        below = [_below(one, style) for _, one in entries]
        lines = [lines[0], *(line for pair in zip(lines[1:], below, strict=True) for line in pair)]
    return "\n".join(lines) + "\n"


def _below(one: Reboot, style: Style) -> str:
    parts = [one.reason, phases(one), f"slowest pod {one.slowest}" if one.slowest else ""]
    return "\n".join(style.wrap("; ".join(part for part in parts if part), lead="    ", indent=4))


def kernel(one: Reboot) -> str:
    """Before and after, once where it is the same."""
    if not one.kernel_before or one.kernel_before == one.kernel_after:
        return one.kernel_after or "-"
    return f"{one.kernel_before} -> {one.kernel_after}"


def phases(one: Reboot) -> str:
    """`draining 2m, rebooting 80s`: those that took at least a second."""
    return ", ".join(f"{name} {tables.age(seconds)}" for name, seconds in one.phases if seconds >= 1) or "-"


def document(node: str, one: Reboot) -> dict[str, Any]:
    """For programs; durations in seconds."""
    return {
        "node": node, "at": tables.rfc3339(one.at), "reason": one.reason,
        "kernelBefore": one.kernel_before, "kernelAfter": one.kernel_after,
        "seconds": one.seconds, "phases": dict(one.phases), "pods": one.pods, "slowestPod": one.slowest,
    }  # fmt: skip
