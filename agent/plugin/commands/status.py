"""`status`: the fleet in one table, worst first, with counts, locks and the pause below; or one node whole."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from agent.errors import KubeError, UsageError
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import node_context as facts
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.verdict import verdict
from agent.plugin.session import NOT_WELL, OK, Command, Form, Session, add_node, add_selector
from agent.plugin.views import fleet as overview
from agent.plugin.views import node as whole
from agent.plugin.views import table as render
from agent.plugin.views import watch as watching
from agent.plugin.views.fleet import Overview
from agent.plugin.views.progress import Progress
from agent.plugin.views.table import Cell, Column
from agent.terminal import Style

# On a terminal, more quiet nodes than this are counted rather than listed.
_QUIET_SHOWN = 40
_POLICY_CHARACTERS = 8
_BROAD = 110


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="keep showing it as it changes, until Ctrl-C")
    parser.add_argument("-a", "--all", action="store_true", help="also list the nodes that are well, however many")


def _run(options: argparse.Namespace, session: Session) -> int:
    if options.node and options.selector:
        raise UsageError("name a node or give a selector, not both")
    if options.watch:
        if session.form.is_document:
            raise UsageError(f"--watch draws for eyes; for programs: kubectl get nodes --watch -o {session.form.value}")
        return watching.watch(session, node=options.node, selector=options.selector, draw=_drawing(options))
    if options.node:
        return _one(options.node, session)
    seen = read(session, options.selector)
    if session.form.is_document:
        session.document(overview.document(seen))
    else:
        session.write(
            text(seen, session.style, wide=session.form is Form.WIDE, everything=_everything(options, session))
        )
    return OK if seen.is_well else NOT_WELL


def _one(name: str, session: Session) -> int:
    known = facts.read(session.kube, session.namespace, name, session.now())
    found = verdict(known)
    if session.form.is_document:
        session.document(whole.document(known))
    else:
        session.write(whole.text(known, session.style))
    return NOT_WELL if overview.is_trouble(known.row) or found.hardening else OK


def read(session: Session, selector: str) -> Overview:
    """The fleet now. Raises KubeError when the nodes cannot be listed."""
    rules = policy.read(session.kube, session.namespace)
    with Progress(session.err, live=session.live) as progress:
        rows = list(fleet.rows(session.kube, rules.pool, selector=selector, progress=progress))
    held: tuple[Lock, ...] = ()
    problem = ""
    try:
        held = locks.read(session.kube, session.namespace)
    except KubeError as error:
        problem = str(error)
    now = session.now()
    pause = locks.pause(session.kube, session.namespace, now)
    return Overview(overview.worst_first(rows, held), held, pause, rules, session.namespace, now, problem)


def _everything(options: argparse.Namespace, session: Session) -> bool:
    return options.all or session.style.width is None


def _drawing(options: argparse.Namespace) -> watching.Draw:
    def draw(seen: Overview, session: Session, height: int | None) -> str:
        wide = session.form is Form.WIDE
        return text(seen, session.style, wide=wide, everything=_everything(options, session), height=height)

    return draw


def text(
    seen: Overview, style: Style, *, wide: bool = False, everything: bool = True, height: int | None = None
) -> str:
    """The table and what stands below it.

    everything: list quiet nodes however many they are. height: lines that there are; what does not fit is counted.
    """
    below = overview.footer(seen, style)
    rows: Sequence[NodeRow] = seen.rows
    quiet = sum(overview.is_quiet(row) for row in rows)
    hidden = ""
    if not everything and quiet > _QUIET_SHOWN:
        rows = [row for row in rows if not overview.is_quiet(row)]
        hidden = f"and {render.count(quiet, 'node')} that are well, with nothing to do (--all lists them)"
    if height is not None:
        room = max(height - len("\n".join(below).splitlines()) - 4, 3)
        if len(rows) > room:
            hidden = f"and {render.count(len(seen.rows) - room, 'more node')}"
            rows = rows[:room]
    table = _table(rows, seen, style, wide=wide) if rows else ""
    gap = [""] if rows or hidden else []
    return "\n".join(
        [
            *([table.rstrip("\n")] if table else []),
            *([style.paint(hidden, render.FAINT)] if hidden else []),
            *gap,
            *below,
        ]
    )


def _table(rows: Sequence[NodeRow], seen: Overview, style: Style, *, wide: bool) -> str:
    stuck = {lock.holder_uid for lock in seen.locks if lock.is_stuck}
    alike = len({(row.version, row.policy) for row in seen.rows if row.standing is not None}) <= 1
    narrow = style.width is not None and style.width < _BROAD
    columns = [Column("NODE", elastic=True, least=12), Column("POOL", elastic=True)]
    with_state = wide or any(row.ready is not True or row.cordoned for row in rows)
    with_agent = wide or not narrow or not alike
    if with_state:
        columns.append(Column("STATUS"))
    columns += [
        Column("HARDENED"),
        Column("WORST FINDING", elastic=True, least=12),
        Column("REBOOT"),
        Column("WAITING"),
    ]
    if with_agent:
        columns += [Column("VERSION"), Column("POLICY")]
    if wide:
        columns += [Column("KERNEL"), Column("SAYS")]
    shown = []
    for row in rows:
        cells: list[Cell | str] = [row.name, row.pool]
        if with_state:
            cells.append(overview.condition(row))
        waiting = render.since(row.since, seen.now) if row.wants_reboot else "-"
        cells += [overview.hardened(row), overview.finding(row), overview.reboot(row, row.uid in stuck), waiting]
        if with_agent:
            cells += [row.version or "-", row.policy[:_POLICY_CHARACTERS] or "-"]
        if wide:
            cells += [row.kernel or "-", row.sentence or "-"]
        shown.append(cells)
    return render.table(columns, shown, Style(style.colour) if wide else style)


COMMAND = Command("status", "the fleet in one table, or one node whole", _configure, _run)
