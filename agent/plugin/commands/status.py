"""`status`: the fleet in one table, worst first, with counts, locks and the pause below; or one node in full."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from agent.errors import UsageError
from agent.plugin import clusters
from agent.plugin.cluster import node_context
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.verdict import verdict
from agent.plugin.session import NOT_WELL, OK, Command, Form, Session, add_contexts, add_node, add_selector
from agent.plugin.views import clusters as views
from agent.plugin.views import fleet, node, table, watch
from agent.plugin.views.fleet import Fleet
from agent.plugin.views.table import Cell, Column
from agent.terminal import Style

# On a terminal, more quiet nodes than this are counted rather than listed.
_QUIET_SHOWN = 40
_POLICY_CHARACTERS = 8
_BROAD = 110


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)
    add_contexts(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="update it as it changes, until Ctrl-C")
    parser.add_argument("-a", "--all", action="store_true", help="also list hardened nodes with nothing to do")


def _run(options: argparse.Namespace, session: Session) -> int:
    if options.node and options.selector:
        raise UsageError("name a node or give a selector, not both")
    if options.contexts:
        return _clusters(options, session)

    def draw(seen: Fleet, height: int | None = None) -> str:
        everything = options.all or session.style.width is None
        return text(seen, session.style, wide=session.form is Form.WIDE, everything=everything, height=height)

    if options.watch:
        if session.form.is_document:
            raise UsageError(f"--watch has no documents; for programs: kubectl get nodes --watch -o {session.form}")
        return watch.watch(session, node=options.node, selector=options.selector, draw=draw)
    if options.node:
        return _one(options.node, session)
    seen = clusters.read_fleet(session, options.selector)
    session.show(lambda: fleet.document(seen), lambda: draw(seen))
    return OK if seen.is_well else NOT_WELL


def _one(name: str, session: Session) -> int:
    context = node_context.read(session.kube, session.namespace, name, session.now())
    session.show(lambda: node.document(context), lambda: node.text(context, session.style))
    return NOT_WELL if fleet.is_trouble(context.row) or verdict(context).hardening else OK


def _clusters(options: argparse.Namespace, session: Session) -> int:
    if options.node or options.watch:
        raise UsageError("--contexts shows clusters: name one with --context for a node or for --watch")
    rows, code = clusters.read_all(options, session, lambda _, one: clusters.read_fleet(one, options.selector))
    session.show(
        lambda: {"clusters": [views.document(row) for row in rows], "well": code == OK},
        lambda: views.text(rows, session.style),
    )
    return code


def text(seen: Fleet, style: Style, *, wide: bool = False, everything: bool = True, height: int | None = None) -> str:
    """The table and what is below it.

    everything: list quiet nodes however many they are. height: available lines; what does not fit is counted.
    """
    below = fleet.footer(seen, style)
    rows: Sequence[NodeRow] = seen.rows
    quiet = sum(fleet.is_quiet(row) for row in rows)
    hidden = ""
    if not everything and quiet > _QUIET_SHOWN:
        rows = [row for row in rows if not fleet.is_quiet(row)]
        hidden = f"and {table.count(quiet, 'node')} hardened, with nothing to do (--all lists them)"
    if height is not None:
        space = max(height - len("\n".join(below).splitlines()) - 4, 3)
        if len(rows) > space:
            hidden = f"and {table.count(len(seen.rows) - space, 'more node')}"
            rows = rows[:space]
    lines = [_table(rows, seen, style, wide=wide).rstrip("\n")] if rows else []
    lines += [style.paint(hidden, table.FAINT)] if hidden else []
    return "\n".join([*lines, *([""] if lines else []), *below])


def _table(rows: Sequence[NodeRow], seen: Fleet, style: Style, *, wide: bool) -> str:
    stuck = {lock.holder_uid for lock in seen.stuck}
    alike = len({(row.version, row.policy) for row in seen.rows if row.compliance is not None}) <= 1
    narrow = style.width is not None and style.width < _BROAD
    columns: list[tuple[Column, Callable[[NodeRow], Cell | str]]] = [
        (Column("NODE", elastic=True, least=12), lambda row: row.name),
        (Column("POOL", elastic=True), lambda row: row.pool),
    ]
    if wide or any(row.ready is not True or row.cordoned for row in rows):
        columns.append((Column("STATUS"), fleet.condition))
    columns += [
        (Column("HARDENED"), fleet.hardened),
        (Column("WORST FINDING", elastic=True, least=12), fleet.finding),
        (Column("REBOOT"), lambda row: fleet.reboot(row, stuck=row.uid in stuck)),
        (Column("FOR"), lambda row: table.since(row.since, seen.now) if row.wants_reboot else "-"),
    ]
    if wide or not narrow or not alike:
        columns.append((Column("VERSION"), lambda row: row.version or "-"))
        columns.append((Column("POLICY"), lambda row: row.policy[:_POLICY_CHARACTERS] or "-"))
    if wide:
        columns.append((Column("KERNEL"), lambda row: row.kernel or "-"))
        columns.append((Column("MESSAGE"), lambda row: row.message or "-"))
    cells = [[cell(row) for _, cell in columns] for row in rows]
    return table.table([column for column, _ in columns], cells, Style(style.colour) if wide else style)


COMMAND = Command("status", "the fleet in one table, or one node in full", _configure, _run)
