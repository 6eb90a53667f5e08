"""The CIS Kubernetes Benchmark 1.12 by number: what checks each recommendation here, or why nothing does.

The table is data (benchmark.txt), one row a number: `number | what it is about | checks`, the checks as ids of
findings, or the reason after `=`. Findings that are read from a Node carry no numbers; they get them here. Titles are
ours, the numbers are the benchmark's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.bundled_profiles import data_file
from agent.model import Finding, Report, Status, worst_first

VERSION = "cis-1.12"
CHAPTERS: Mapping[str, tuple[str, str]] = {
    "1": ("Control plane components", "master"),
    "2": ("etcd", "etcd"),
    "3": ("Control plane configuration", "controlplane"),
    "4": ("Worker nodes", "node"),
    "5": ("Policies", "policies"),
}
SECTIONS: Mapping[str, str] = {
    "1.1": "Files of the control plane", "1.2": "API server", "1.3": "Controller manager", "1.4": "Scheduler",
    "2.1": "etcd", "2.2": "etcd", "2.3": "etcd", "2.4": "etcd", "2.5": "etcd", "2.6": "etcd", "2.7": "etcd",
    "3.1": "Authentication and authorization", "3.2": "Logging", "4.1": "Files of the node", "4.2": "Kubelet",
    "4.3": "kube-proxy", "5.1": "RBAC and service accounts", "5.2": "Pod Security", "5.3": "Network policies",
    "5.4": "Secrets", "5.5": "Admission", "5.6": "General policies",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One number. checks: ids of findings that answer it. why_not: the reason where there are none."""

    number: str
    title: str
    checks: tuple[str, ...] = ()
    why_not: str = ""


def _read(line: str) -> Recommendation:
    number, title, rest = (part.strip() for part in line.split("|"))
    if rest.startswith("="):
        return Recommendation(number, title, why_not=rest[1:].strip())
    return Recommendation(number, title, tuple(rest.split()))


RECOMMENDATIONS: tuple[Recommendation, ...] = tuple(
    _read(line) for line in data_file(__name__, "benchmark.txt").splitlines()
)


def title_of(check: str) -> str:
    """The title of the first recommendation that a check answers; empty for none."""
    return next((one.title for one in RECOMMENDATIONS if check in one.checks), "")


def numbered(finding: Finding) -> Finding:
    """A finding that was read from a Node, with its numbers."""
    return replace(finding, cis=tuple(one.number for one in RECOMMENDATIONS if finding.id in one.checks))


def by_number(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The worst finding of each number that the findings answer, in the benchmark's order."""
    found: dict[str, Finding] = {}
    for finding in worst_first(findings):
        for number in finding.cis:
            found.setdefault(number, finding)
    return dict(sorted(found.items(), key=lambda one: [int(part) for part in one[0].split(".")]))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `--benchmark`. findings: of this run. status: the worst of them, None where the run has none."""

    recommendation: Recommendation
    status: Status | None
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, object]:
        """For programs."""
        one = self.recommendation
        return {
            "number": one.number, "title": one.title, "status": self.status.value if self.status else None,
            "checks": list(one.checks), "notChecked": one.why_not or None,
            "findings": [finding.document() for finding in self.findings],
        }  # fmt: skip


def rows(findings: Sequence[Finding]) -> list[Row]:
    """Every number of the benchmark."""
    ordered = worst_first(findings)
    made = []
    for one in RECOMMENDATIONS:
        found = tuple(finding for finding in ordered if one.number in finding.cis)
        made.append(Row(one, found[0].status if found else None, found))
    return made


def document(report: Report) -> dict[str, object]:
    """`--benchmark` for programs."""
    return {
        "node": report.node,
        "benchmark": VERSION,
        "recommendations": [row.document() for row in rows(report.findings)],
    }


def table(findings: Sequence[Finding]) -> str:
    """`--benchmark`: a line for each number, with what checks it and its result, or why nothing does."""
    lines = [f"{'CIS':<7} {'RESULT':<15} {'RECOMMENDATION':<52} CHECKED BY"]
    for row in rows(findings):
        one = row.recommendation
        result = row.status.value if row.status else "not checked" if one.why_not else "not in this run"
        by = ", ".join(finding.id for finding in row.findings[:4]) or ", ".join(one.checks) or one.why_not
        lines.append(f"{one.number:<7} {result:<15} {one.title:<52} {by}")
    return "\n".join(lines) + "\n"
