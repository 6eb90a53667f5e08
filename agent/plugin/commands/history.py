"""`history [NODE]`: the last reboots, newest first: when, why, kernel before and after, phases, the slowest pod."""

from __future__ import annotations

import argparse
from statistics import median

from agent.plugin.cluster import nodes, policy
from agent.plugin.cluster.nodes import Keep, Reboot
from agent.plugin.session import OK, Command, Session, add_node, add_selector
from agent.plugin.views import history, table
from agent.plugin.views.progress import Progress

_KEPT = 5  # entries on a Node: agent/reboot/history.py
_SHOWN = 20


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)
    parser.add_argument(
        "--limit", type=_count, default=_SHOWN, metavar="N", help=f"show at most N, 0 for all (default {_SHOWN})"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _run(options: argparse.Namespace, session: Session) -> int:
    found = _one(session, options.node) if options.node else _all(session, options.selector)
    found.sort(key=lambda entry: (-entry[1].at, entry[0]))
    shown = found[: options.limit or None]
    if session.form.is_document:
        session.document({"reboots": [history.document(name, one) for name, one in shown], "total": len(found)})
        return OK
    if not shown:
        where = options.node or "any of these nodes"
        session.write(f"no reboot by the agent is on record for {where}")
        return OK
    session.write(history.table(shown, session.style, named=not options.node))
    session.write("\n")
    session.write("\n".join(session.style.wrap(_summary(found, len(shown)))))
    return OK


def _one(session: Session, name: str) -> list[tuple[str, Reboot]]:
    row = nodes.row(
        nodes.get(session.kube, name), policy.read(session.kube, session.namespace).pool, Keep(history=True)
    )
    return [(name, one) for one in row.history]


def _all(session: Session, selector: str) -> list[tuple[str, Reboot]]:
    pool = policy.read(session.kube, session.namespace).pool
    with Progress(session.err, live=session.live) as progress:
        rows = nodes.rows(session.kube, pool, selector=selector, keep=Keep(history=True), progress=progress)
        return [(row.name, one) for row in rows for one in row.history]


def _summary(found: list[tuple[str, Reboot]], shown: int) -> str:
    rebooted = len({name for name, _ in found})
    lasted = [one.seconds for _, one in found]
    slowest = max(found, key=lambda entry: entry[1].seconds)
    text = (
        f"{table.count(len(found), 'reboot')} of {table.count(rebooted, 'node')}"
        f" (each keeps its last {_KEPT}); median {table.age(median(lasted))},"
        f" max {table.age(slowest[1].seconds)} ({slowest[0]})."
    )
    return text + (f" --limit 0 shows all of them, not just {shown}." if shown < len(found) else "")


COMMAND = Command("history", "the last reboots: when, why, how long, from which kernel to which", _configure, _run)
