"""`audit`: what the agents found on the nodes, or with --cluster what the caller may see of the cluster itself.

Without --cluster it reads Node objects alone, as every other command; with it about forty lists, and never a Secret's
value. Both as a table, for programs, and as other tools read findings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent import __version__
from agent.config import load
from agent.config.schema import AuditException, Pool
from agent.errors import UsageError
from agent.model import Report, Status
from agent.plugin.audit.audit import ClusterAudit, audit
from agent.plugin.audit.node_reports import merged, report_of
from agent.plugin.cluster import nodes, values
from agent.plugin.cluster.nodes import Keep
from agent.plugin.clusters import node_rows
from agent.plugin.session import COMMON_FORMS, NOT_WELL, OK, Command, Form, Session, add_node, add_selector
from agent.plugin.views.progress import Progress
from agent.report import benchmark, table
from agent.report.formats import FORMATS
from agent.terminal import printable
from agent.text import format_rfc3339

_KEEP = Keep(findings=True, checks=True)
_EPILOG = """Without --cluster: the findings that the agents left on the Nodes, grouped over all nodes, or of one NODE.
With --cluster: RBAC, pods, namespaces, tokens and admission, with your own rights; -n NAME for one namespace.

exit codes:
  0  nothing fails, and nothing is unknown
  1  something fails, or is unknown
  2  usage or configuration error
  3  failed
"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add_node(parser, optional=True)
    add_selector(parser)
    parser.add_argument(
        "--cluster", dest="of_cluster", action="store_true", help="check the cluster instead of the nodes"
    )
    parser.add_argument(
        "--exceptions", default="", metavar="FILE", help="with --cluster: a file with the key exceptions, as the policy"
    )
    parser.add_argument(
        "--benchmark", choices=[benchmark.VERSION], default="", help="by number: what is checked, by what, what is not"
    )
    parser.add_argument(
        "-a", "--all", action="store_true", help="with --cluster: list every object, not the first three"
    )


def _run(options: argparse.Namespace, session: Session) -> int:
    if options.of_cluster and (options.node or options.selector):
        raise UsageError("--cluster is about no single nodes: leave out NODE and -l")
    if not options.of_cluster and (options.exceptions or options.all):
        raise UsageError("--exceptions and --all are for --cluster; the nodes' exceptions are in their policy")
    if options.of_cluster:
        found = run_cluster(session, scope=getattr(options, "scope", ""), exceptions=options.exceptions)
        reports = [found.report]
        document = found.document()
        shown = found.report
    else:
        found = None
        reports = _nodes(options, session)
        document = {"nodes": [report.document() for report in reports]}
        shown = reports[0] if len(reports) == 1 else merged(reports)
    if session.form in FORMATS:
        if options.benchmark:
            raise UsageError(f"--benchmark is a table or a document: -o {session.form} has the numbers already")
        session.write(FORMATS[session.form](reports, session.now()))
    elif session.form.is_document:
        session.document({**_evidence(session), **(benchmark.document(shown) if options.benchmark else document)})
    elif options.benchmark:
        session.write(benchmark.table(shown.findings))
    else:
        session.write(table.render(shown, session.style))
        for line in _objects(found, everything=options.all):
            session.write(line)
    return OK if shown.status is Status.PASS else NOT_WELL


def run_cluster(session: Session, *, scope: str = "", exceptions: str = "") -> ClusterAudit:
    """The cluster's audit, with progress. Raises ConfigError for exceptions that do not hold, KubeError."""
    accepted: Sequence[AuditException] = load(Path(exceptions)).exceptions if exceptions else ()
    name = f"cluster {session.context}" if session.context else "this cluster"
    with Progress(session.err, live=session.live) as bar:
        return audit(
            session.kube, name + (f", namespace {scope}" if scope else ""), scope=scope, accepted=accepted,
            now=session.now(), progress=bar.of,
        )  # fmt: skip


def _nodes(options: argparse.Namespace, session: Session) -> list[Report]:
    if options.node:
        return [report_of(nodes.row(nodes.get(session.kube, options.node), Pool(), _KEEP))]
    return [report_of(row) for row in node_rows(session, Pool(), options.selector, _KEEP)]


def _evidence(session: Session) -> dict[str, object]:
    """When, by whom and with what: what makes a report evidence."""
    return {
        "time": format_rfc3339(session.now()), "pluginVersion": __version__, "by": session.user,
    }  # fmt: skip


def _objects(found: ClusterAudit | None, *, everything: bool) -> Iterator[str]:
    """Every object behind a failing check."""
    for result in found.results if found is not None and everything else ():
        if result.affected or result.excepted:
            yield f"\n{result.finding.id}: {values.text(result.finding.title)}"
            yield from (f"  {printable(str(one))}" for one in result.affected)
            yield from (f"  {printable(str(one))}: {printable(note)}" for one, note in result.excepted)
            left = result.total - len(result.affected)
            if left:
                yield f"  and {left:,} more"


COMMAND = Command(
    "audit", "what the agents found on the nodes, or with --cluster what RBAC, pods and namespaces allow", _configure,
    _run, forms=(*COMMON_FORMS, *(Form(name) for name in FORMATS)),
)  # fmt: skip
