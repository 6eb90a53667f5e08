"""`history [NODE]`: the last reboots, newest first: when, why, kernel before and after, phases, the slowest pod."""

from __future__ import annotations

import argparse
from statistics import median

from agent.config.schema import Pool
from agent.plugin.cluster import nodes
from agent.plugin.cluster.nodes import Keep, Reboot
from agent.plugin.clusters import node_rows
from agent.plugin.session import OK, Command, Session, add_node, add_selector
from agent.plugin.views import history, table

_KEPT = 5  # entries on a Node: agent/reboot/history.py
_SHOWN = 20
_KEEP = Keep(history=True)


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)
    parser.add_argument(
        "--limit", type=_count, default=_SHOWN, metavar="N", help=f"show at most N, 0 for all (default {_SHOWN})"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of reboots: write 0 or more")
    return int(text)


def _run(options: argparse.Namespace, session: Session) -> int:
    found = sorted(_read(options, session), key=lambda entry: (-entry[1].at, entry[0]))
    shown = found[: options.limit or None]
    if session.form.is_document:
        session.document({"reboots": [history.document(name, one) for name, one in shown], "total": len(found)})
        return OK
    if not shown:
        where = options.node or "any of these nodes"
        session.write(f"no reboot by the agent is on record for {where}")
        return OK
    session.write(history.table(shown, session.style, named=not options.node))
    session.write("\n" + "\n".join(session.style.wrap(_summary(found, len(shown)))))
    return OK


def _read(options: argparse.Namespace, session: Session) -> list[tuple[str, Reboot]]:
    if options.node:
        rows = iter([nodes.row(nodes.get(session.kube, options.node), Pool(), _KEEP)])
    else:
        rows = node_rows(session, Pool(), options.selector, _KEEP)
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
