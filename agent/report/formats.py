"""Findings as other tools read them: JUnit, kube-bench's JSON, PolicyReport. Pure.

What is unknown is never a pass in any of them: an error, a WARN, a result `error`. Information and what does not apply
are skipped, or INFO; so is an exception, with its reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import yaml

from agent.model import Finding, Report, Status, worst_first
from agent.report import benchmark
from agent.terminal import printable
from agent.text import format_rfc3339

_TOOL = "node-hardening"
# In the order of Status.
_KUBE_BENCH = dict(zip(Status, ("PASS", "FAIL", "WARN", "INFO", "INFO"), strict=True))
_POLICY_REPORT = dict(zip(Status, ("pass", "fail", "error", "skip", "skip"), strict=True))
_MESSAGE_CHARACTERS = 1000


def junit(reports: Sequence[Report], moment: float) -> str:
    """A suite for each control of each node, a case for each check."""
    suites = "".join(_suite(report, control, moment) for report in reports for control in _controls(report))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="{_TOOL}">\n{suites}</testsuites>\n'


def _controls(report: Report) -> list[str]:
    return list(dict.fromkeys(finding.control for finding in report.findings))


def _suite(report: Report, control: str, moment: float) -> str:
    found = [finding for finding in worst_first(report.findings) if finding.control == control]
    counts = Counter(finding.status for finding in found)
    skipped = counts[Status.INFO] + counts[Status.NOT_APPLICABLE]
    head = (
        f"<testsuite name={_attribute(f'{report.node}/{control}')} hostname={_attribute(report.node)}"
        f' timestamp="{format_rfc3339(moment)}" tests="{len(found)}" failures="{counts[Status.FAIL]}"'
        f' errors="{counts[Status.UNKNOWN]}" skipped="{skipped}">'
    )
    cases = "\n".join(_case(report.node, finding) for finding in found)
    return f"{head}\n{cases}\n</testsuite>\n"


def _case(node: str, finding: Finding) -> str:
    name = " ".join(filter(None, (finding.id, *(f"CIS {one}" for one in finding.cis), finding.title)))
    tag = {Status.FAIL: "failure", Status.UNKNOWN: "error", Status.PASS: "system-out"}.get(finding.status, "skipped")
    text = finding.observed
    if finding.status in (Status.FAIL, Status.UNKNOWN):
        text = "\n".join(filter(None, (finding.observed, f"expected: {finding.expected}", finding.remediation)))
    message = "" if tag == "system-out" else f" message={_attribute(finding.observed)}"
    inside = f"<{tag}{message}/>" if tag == "skipped" else f"<{tag}{message}>{escape(_xml(text))}</{tag}>"
    return f"<testcase classname={_attribute(f'{node}.{finding.control}')} name={_attribute(name)}>{inside}</testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_xml(text))


def _xml(text: str) -> str:
    """What XML 1.0 may hold: other characters are written as \\x1b."""
    return "\n".join(printable(line) for line in text.splitlines())


def kube_bench(reports: Sequence[Report], moment: float) -> str:
    """The document of `kube-bench --json`: an entry in Controls for each chapter of the benchmark on each node.

    Checks without a number of the benchmark are in a chapter of their own, by our ids. A number that several findings
    answer has the worst of them. Source: kube-bench check/controls.go, type Controls.
    """
    del moment  # the document has no place for it
    chapters = [chapter for report in reports for chapter in _chapters(report)]
    keys = ("pass", "fail", "warn", "info")
    totals = {f"total_{key}": sum(chapter[f"total_{key}"] for chapter in chapters) for key in keys}
    return json.dumps({"Controls": chapters, "Totals": totals}, indent=2) + "\n"


def _chapters(report: Report) -> list[dict[str, Any]]:
    by_number = benchmark.by_number(report.findings)
    made = []
    for number, (title, kind) in benchmark.CHAPTERS.items():
        rows = [(name, found) for name, found in by_number.items() if name.startswith(f"{number}.")]
        made += [_chapter(report.node, number, title, kind, rows)] if rows else []
    own = [(finding.id, finding) for finding in report.findings if not finding.cis]
    return [*made, _chapter(report.node, "agent", "Checks beyond the benchmark", "node", own)] if own else made


def _chapter(node: str, number: str, title: str, kind: str, rows: Sequence[tuple[str, Finding]]) -> dict[str, object]:
    sections: dict[str, list[dict[str, object]]] = {}
    for name, finding in rows:
        section = ".".join(name.split(".")[:2]) if finding.cis else finding.control
        sections.setdefault(section, []).append(_result(name, finding))
    tests = [
        {"section": name, "type": "", **_counts(some), "desc": benchmark.SECTIONS.get(name, name), "results": some}
        for name, some in sections.items()
    ]
    everything = [result for results in sections.values() for result in results]
    totals = {f"total_{key}": value for key, value in _counts(everything).items()}
    return {
        "id": number, "version": benchmark.VERSION, "detected_version": "", "text": f"{title} ({node})",
        "node_type": kind, "tests": tests, **totals,
    }  # fmt: skip


def _result(name: str, finding: Finding) -> dict[str, object]:
    status = _KUBE_BENCH[finding.status]
    return {
        "test_number": name, "test_desc": f"{finding.title} ({finding.id})", "audit": finding.source, "AuditEnv": "",
        "AuditConfig": "", "type": "", "remediation": finding.remediation, "test_info": [finding.remediation],
        "status": status, "actual_value": finding.observed, "scored": True, "IsMultiple": False,
        "expected_result": finding.expected, "reason": "" if status in ("PASS", "FAIL") else finding.observed,
    }  # fmt: skip


def _counts(results: Sequence[Mapping[str, object]]) -> dict[str, int]:
    found = Counter(str(result["status"]).lower() for result in results)
    return {key: found[key] for key in ("pass", "fail", "warn", "info")}


def policy_report(reports: Sequence[Report], moment: float) -> str:
    """A ClusterPolicyReport for each node, for `kubectl apply -f -`. Its CRD comes with Kyverno or Policy Reporter."""
    return "".join(
        "---\n" + yaml.safe_dump(_policy_report(report, moment), sort_keys=False, allow_unicode=False, width=120)
        for report in reports
    )


def _policy_report(report: Report, moment: float) -> dict[str, object]:
    results = [_policy_result(finding, moment) for finding in worst_first(report.findings)]
    counts = Counter(str(result["result"]) for result in results)
    name = re.sub(r"[^a-z0-9.-]+", "-", report.node.lower()).strip("-.") or "cluster"
    scope = {"scope": {"apiVersion": "v1", "kind": "Node", "name": report.node}} if report.is_node else {}
    return {
        "apiVersion": "wgpolicyk8s.io/v1alpha2",
        "kind": "ClusterPolicyReport",
        "metadata": {"name": f"{_TOOL}-{name}"[:253].rstrip("-."), "labels": {"app.kubernetes.io/managed-by": _TOOL}},
        **scope,
        "summary": {key: counts[key] for key in ("pass", "fail", "warn", "error", "skip")},
        "results": results,
    }


def _policy_result(finding: Finding, moment: float) -> dict[str, object]:
    observed = ": ".join(filter(None, (finding.title, finding.observed)))
    message = ". ".join(filter(None, (observed, finding.remediation)))
    properties = {"cis": ", ".join(finding.cis), "section": finding.section, "source": finding.source}
    return {
        "source": _TOOL, "policy": finding.control, "rule": finding.id,
        "category": "CIS" if finding.cis else "Hardening",
        "result": _POLICY_REPORT[finding.status], "severity": finding.severity.value, "scored": True,
        "message": printable(message)[:_MESSAGE_CHARACTERS], "timestamp": {"seconds": int(moment), "nanos": 0},
        "properties": {key: printable(value)[:_MESSAGE_CHARACTERS] for key, value in properties.items() if value},
    }  # fmt: skip


FORMATS: Mapping[str, Callable[[Sequence[Report], float], str]] = {
    "junit": junit,
    "kube-bench": kube_bench,
    "policyreport": policy_report,
}
