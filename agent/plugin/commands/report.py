"""`report`: one self-contained HTML page of the fleet, for a mail, an incident or an audit."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from agent.errors import KubeError, UsageError
from agent.plugin import clusters
from agent.plugin.cluster import values
from agent.plugin.cluster.locks import Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.commands.audit import run_cluster
from agent.plugin.page import output
from agent.plugin.page.aggregate import Aggregator, Heading
from agent.plugin.page.json_export import export, export_clusters
from agent.plugin.page.summary import summarize
from agent.plugin.session import COULD_NOT, OK, UNKNOWN_USER, Command, Session, add_contexts, add_selector
from agent.plugin.views import clusters as views
from agent.plugin.views.fleet import Fleet
from agent.terminal import document_text

_TITLE = "Node hardening report"
_STDOUT = "-"
_EPILOG = """The page goes to standard output, or, when that is a terminal, to a file with a generated name.
-o json and -o yaml write what is on it for programs.

exit codes:
  0  written; the fleet's status is in the exit code of `status`
  2  usage or configuration error
  3  failed, or one of several clusters could not be read and is named on the page
"""
_TITLE_CHARACTERS = 120
_KEEP = Keep(findings=True, history=True, checks=True, denials=True)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("-O", "--output-file", default="", metavar="FILE", help="write it there; - for standard output")
    parser.add_argument("--title", default=_TITLE, metavar="TEXT", help=f"above the page (default: {_TITLE})")
    parser.add_argument(
        "--cluster", dest="of_cluster", action="store_true", help="with a section about the cluster, as audit --cluster"
    )
    add_selector(parser)
    add_contexts(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    if options.contexts and options.of_cluster:
        raise UsageError("--cluster is about one cluster: choose it with --context instead of --contexts")
    if options.contexts:
        return _clusters(options, session)
    aggregator = Aggregator()
    seen = clusters.read_fleet(session, options.selector, keep=_KEEP, add=aggregator.add)
    heading = Heading(
        _title(options), session.context, _version(session),
        "" if session.user == UNKNOWN_USER else session.user,
        values.text(options.selector), seen.now,
    )  # fmt: skip
    shot = aggregator.snapshot(heading, seen)
    if options.of_cluster:
        shot = replace(shot, cluster=run_cluster(session))
    pieces = _pieces(session, lambda: export(shot), lambda page: page.pieces(shot))
    _write(options, session, heading, pieces, summarize(shot).headline)
    return OK


def _clusters(options: argparse.Namespace, session: Session) -> int:
    """One page of several clusters. 3 when one of them could not be read; the page names it."""
    aggregator, lock = Aggregator(), threading.Lock()

    def read_one(context: str, one: Session) -> Fleet:
        def add(row: NodeRow) -> NodeRow:
            with lock:
                return replace(aggregator.add(replace(row, name=f"{context}/{row.name}")), name=row.name)

        return clusters.read_fleet(one, options.selector, keep=_KEEP, add=add)

    rows, code = clusters.read_all(options, session, read_one)
    patterns = values.text(", ".join(options.contexts))
    heading = Heading(_title(options), patterns, "", "", values.text(options.selector), session.now())
    none = Fleet((), (), Pause(active=False), Policy(None, ""), session.namespace, heading.moment)
    shot = aggregator.snapshot(heading, none)
    headline = views.headline(rows)
    pieces = _pieces(
        session, lambda: export_clusters(shot, rows), lambda page: page.pieces_of_clusters(shot, rows, headline)
    )
    _write(options, session, heading, pieces, headline)
    return COULD_NOT if code == COULD_NOT else OK


def _title(options: argparse.Namespace) -> str:
    return values.text(options.title or _TITLE, _TITLE_CHARACTERS)


def _write(
    options: argparse.Namespace, session: Session, heading: Heading, pieces: Iterator[str], headline: str
) -> None:
    target = options.output_file
    if not target and not session.form.is_document and session.out.isatty():
        target = output.name_for(heading.context, heading.moment)
    if target in ("", _STDOUT):
        for piece in pieces:
            session.out.write(piece)
        return
    size = output.save(Path(target), pieces)
    session.note(f"{values.text(str(target))} ({max(size // 1024, 1):,} KiB): {headline}")


def _pieces(
    session: Session, exported: Callable[[], Mapping[str, object]], page: Callable[[ModuleType], Iterator[str]]
) -> Iterator[str]:
    """The page or the document. Raises UsageError without Jinja2."""
    if session.form.is_document:
        return iter([document_text(exported(), session.form, session.out)])
    try:
        from agent.plugin.page import document  # noqa: PLC0415 - only the page needs Jinja2, an extra
    except ModuleNotFoundError as error:
        extra = "pip install 'node-hardening-agent[plugin]'"
        raise UsageError(f"the page needs {error.name}: {extra}; -o json and -o yaml work without") from error
    return page(document)


def _version(session: Session) -> str:
    try:
        found = session.kube.get_raw("/version")
    except KubeError:
        return ""
    return values.text(found.get("gitVersion"), 40)


COMMAND = Command("report", "one HTML page of the fleet, for a mail, an incident or an audit", _configure, _run)
