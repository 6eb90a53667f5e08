"""The whole audit: every check over one view, as a report of findings with the objects behind them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config.schema import AuditException
from agent.kube import Kube
from agent.model import Report, worst_first
from agent.plugin.audit import check, checks_rbac, checks_server, checks_workloads, collect
from agent.plugin.audit.check import Check, CheckResult
from agent.plugin.audit.view import View

CHECKS: tuple[Check, ...] = (*checks_rbac.CHECKS, *checks_workloads.CHECKS, *checks_server.CHECKS)


@dataclass(frozen=True, slots=True)
class ClusterAudit:
    """The results, worst first. name: what the cluster is called in texts. version: of its API server."""

    name: str
    version: str
    scope: str
    results: tuple[CheckResult, ...]
    report: Report = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "report", Report(self.name, tuple(one.finding for one in self.results), is_node=False))

    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "cluster": self.name, "namespace": self.scope or None, "kubernetes": self.version or None,
            "status": self.report.status.value, "authorizers": "RBAC only",
            "findings": [one.document() for one in self.results],
        }  # fmt: skip


def audit(
    kube: Kube, name: str, *, scope: str, accepted: Sequence[AuditException], now: float, progress: collect.Progress
) -> ClusterAudit:
    """Reads the cluster, or one namespace of it, and judges. Raises KubeError when nothing can be read."""
    view = View(scope=scope, now=now)
    collect.collect(kube, view, progress)
    return judged(view, name, accepted)


def judged(view: View, name: str, accepted: Sequence[AuditException]) -> ClusterAudit:
    """Every check over a view. Pure."""
    day = dt.datetime.fromtimestamp(view.now, dt.UTC).date()
    found = {one.id: check.run(one, view, accepted, day) for one in CHECKS}
    by_id = found | {one.finding.id: one for one in check.unused(CHECKS, accepted)}
    order = worst_first(one.finding for one in by_id.values())
    return ClusterAudit(name, view.version, view.scope, tuple(by_id[one.id] for one in order))
