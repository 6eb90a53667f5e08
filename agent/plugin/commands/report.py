"""`report`: one self-contained HTML page of the fleet, for a mail, an incident or an audit."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.errors import KubeError
from agent.plugin import mutations as changes
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.page import document
from agent.plugin.page import json_export as data
from agent.plugin.page import output as file
from agent.plugin.page.aggregate import Heading, Snapshot, Tally
from agent.plugin.page.summary import judge
from agent.plugin.session import OK, Command, Session, add_selector
from agent.plugin.views import fleet as overview
from agent.plugin.views.fleet import Overview
from agent.plugin.views.progress import Progress
from agent.terminal import printable

_TITLE = "Node hardening report"
_STDOUT = "-"
_EPILOG = """The page goes to standard output, or, when that is a terminal, to a file with a name of its own.
-o json and -o yaml write what is on it for programs.

exit codes:
  0  written; how the fleet stands, `status` says with its exit code
  2  usage or configuration error
  3  could not do it
"""
_CONTEXT = re.compile(r"context (?P<name>.+) of .+", re.DOTALL)
_TITLE_CHARACTERS = 120


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("-O", "--output-file", default="", metavar="FILE", help="write it there; - for standard output")
    parser.add_argument("--title", default=_TITLE, metavar="TEXT", help=f"above the page (default: {_TITLE})")
    add_selector(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    shot = read(session, selector=options.selector, title=options.title[:_TITLE_CHARACTERS] or _TITLE)
    target = options.output_file
    if not target and not session.form.is_document and session.out.isatty():
        target = file.name_for(shot.heading.context, shot.heading.moment, ".html")
    if target in ("", _STDOUT):
        for piece in _pieces(shot, session):
            session.out.write(piece)
        return OK
    size = file.save(Path(target), _pieces(shot, session))
    session.note(f"{printable(str(target))} ({max(size // 1024, 1):,} KiB): {judge(shot).headline}")
    return OK


def _pieces(shot: Snapshot, session: Session) -> Iterator[str]:
    if not session.form.is_document:
        yield from document.pieces(shot)
        return
    written = io.StringIO()
    replace(session, out=written).document(data.data(shot))
    yield written.getvalue()


def read(session: Session, *, selector: str = "", title: str = _TITLE) -> Snapshot:
    """The fleet now, in as much memory as its page needs. Raises KubeError when the nodes cannot be listed."""
    kube, namespace = session.kube, session.namespace
    rules = policy.read(kube, namespace)
    tally = Tally()
    keep = Keep(findings=True, history=True)
    with Progress(session.err, live=session.live) as progress:
        found = fleet.rows(kube, rules.pool, selector=selector, keep=keep, progress=progress)
        rows: list[NodeRow] = [tally.add(row) for row in found]
    held: tuple[Lock, ...] = ()
    problem = ""
    try:
        held = locks.read(kube, namespace)
    except KubeError as error:
        problem = str(error)
    now = session.now()
    pause = locks.pause(kube, namespace, now)
    seen = Overview(overview.worst_first(rows, held), held, pause, rules, namespace, now, problem)
    return tally.snapshot(Heading(title, _context(session), _version(session), _author(session), selector, now), seen)


def _context(session: Session) -> str:
    """What the kubeconfig calls the cluster; not where it lies, which is nobody's business."""
    match = _CONTEXT.fullmatch(session.kube.source)
    return match["name"] if match else ""


def _version(session: Session) -> str:
    try:
        found = session.kube.get_raw("/version")
    except KubeError:
        return ""
    version = found.get("gitVersion") if isinstance(found, dict) else ""
    return version if isinstance(version, str) else ""


def _author(session: Session) -> str:
    found = changes.person(session.kube)
    return "" if found == changes.UNKNOWN else found


COMMAND = Command("report", "one HTML page of the fleet, for a mail, an incident or an audit", _configure, _run)
