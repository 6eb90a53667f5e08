"""`status`: the fleet in one table, worst first; below it counts, locks and the pause."""

from __future__ import annotations

import argparse

from agent.plugin import fleet, locks, policy, render
from agent.plugin.command import NOT_WELL, OK, Command, Session, add_node, add_selector
from agent.plugin.render import Cell, Column
from agent.report.view import Standing

_COLOURS = {
    Standing.HARDENED: render.GOOD,
    Standing.DRIFTED: render.BAD,
    Standing.FAILED: render.BAD,
    Standing.UNKNOWN: render.WARN,
    None: render.WARN,
}


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    rules = policy.read(session.kube, session.namespace)
    rows = list(fleet.rows(session.kube, rules.pool, selector=options.selector))
    columns = [Column("NODE", elastic=True), Column("POOL", elastic=True), Column("HARDENED"), Column("REBOOT")]
    shown = [
        [row.name, row.pool, Cell(row.standing or "no agent", _COLOURS[row.standing]), row.phase or "-"] for row in rows
    ]
    session.write(render.table(columns, shown, session.style))
    for lock in locks.read(session.kube, session.namespace):
        if not lock.is_free:
            session.write(f"lock {lock.name} held by {lock.holder} for {render.since(lock.acquired, session.now())}")
    return OK if all(row.is_well for row in rows) else NOT_WELL


COMMAND = Command("status", "the fleet in one table, or one node whole", _configure, _run)
