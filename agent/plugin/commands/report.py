"""`report`: one self-contained HTML page of the fleet, for a mail, an incident or an audit."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.errors import KubeError, UsageError
from agent.plugin import mutations
from agent.plugin.cluster import locks, nodes, policy, values
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.commands.audit import run_cluster
from agent.plugin.page import output
from agent.plugin.page.aggregate import Aggregator, Heading, Snapshot
from agent.plugin.page.json_export import export
from agent.plugin.page.summary import summarize
from agent.plugin.session import OK, Command, Session, add_selector
from agent.plugin.views import fleet
from agent.plugin.views.progress import Progress

_TITLE = "Node hardening report"
_STDOUT = "-"
_EPILOG = """The page goes to standard output, or, when that is a terminal, to a file with a generated name.
-o json and -o yaml write what is on it for programs.

exit codes:
  0  written; the fleet's status is in the exit code of `status`
  2  usage or configuration error
  3  failed
"""
_TITLE_CHARACTERS = 120


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("-O", "--output-file", default="", metavar="FILE", help="write it there; - for standard output")
    parser.add_argument("--title", default=_TITLE, metavar="TEXT", help=f"above the page (default: {_TITLE})")
    parser.add_argument("--cluster", action="store_true", help="with a section about the cluster, as audit --cluster")
    add_selector(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    shot = read(session, selector=options.selector, title=options.title or _TITLE)
    if options.cluster:
        shot = replace(shot, cluster=run_cluster(session))
    pieces = _pieces(shot, session)
    target = options.output_file
    if not target and not session.form.is_document and session.out.isatty():
        target = output.name_for(shot.heading.context, shot.heading.moment, ".html")
    if target in ("", _STDOUT):
        for piece in pieces:
            session.out.write(piece)
        return OK
    size = output.save(Path(target), pieces)
    session.note(f"{values.text(str(target))} ({max(size // 1024, 1):,} KiB): {summarize(shot).headline}")
    return OK


def _pieces(shot: Snapshot, session: Session) -> Iterator[str]:
    """The page or the document. Raises UsageError without Jinja2."""
    if session.form.is_document:
        written = io.StringIO()
        replace(session, out=written).document(export(shot))
        return iter([written.getvalue()])
    try:
        from agent.plugin.page import document  # noqa: PLC0415 - only the page needs Jinja2, an extra
    except ModuleNotFoundError as error:
        extra = "pip install 'node-hardening-agent[plugin]'"
        raise UsageError(f"the page needs {error.name}: {extra}; -o json and -o yaml work without") from error
    return document.pieces(shot)


def read(session: Session, *, selector: str = "", title: str = _TITLE) -> Snapshot:
    """The fleet now, in as much memory as its page needs. Raises KubeError when the nodes cannot be listed."""
    kube, namespace = session.kube, session.namespace
    rules = policy.read(kube, namespace)
    aggregator = Aggregator()
    keep = Keep(findings=True, history=True, checks=True, denials=True)
    with Progress(session.err, live=session.live) as progress:
        found = nodes.rows(kube, rules.pool, selector=selector, keep=keep, progress=progress)
        rows: list[NodeRow] = [aggregator.add(row) for row in found]
    held: tuple[Lock, ...] = ()
    problem = ""
    try:
        held = locks.read(kube, namespace)
    except KubeError as error:
        problem = values.text(str(error))
    now = session.now()
    pause = locks.pause(kube, namespace, now)
    seen = fleet.fleet(rows, held, pause=pause, rules=rules, namespace=namespace, now=now, locks_problem=problem)
    heading = Heading(
        values.text(title, _TITLE_CHARACTERS), session.context, _version(session), _author(session),
        values.text(selector), now,
    )  # fmt: skip
    return aggregator.snapshot(heading, seen)


def _version(session: Session) -> str:
    try:
        found = session.kube.get_raw("/version")
    except KubeError:
        return ""
    return values.text(found.get("gitVersion"), 40) if isinstance(found, dict) else ""


def _author(session: Session) -> str:
    found = mutations.user_name(session.kube)
    return "" if found == mutations.UNKNOWN else found


COMMAND = Command("report", "one HTML page of the fleet, for a mail, an incident or an audit", _configure, _run)
