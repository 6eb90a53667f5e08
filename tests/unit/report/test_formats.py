"""Findings as JUnit, kube-bench's JSON and PolicyReport: what is unknown is a pass in none of them."""

from __future__ import annotations

import json
from collections import Counter
from xml.etree import ElementTree as ET

import pytest
import yaml

from agent.cli import options
from agent.model import Finding, Report, Severity, Status
from agent.report import benchmark
from agent.report.formats import FORMATS

NOW = 1_800_000_000.0
_IDS = {
    Status.PASS: "kubelet/4.2.1", Status.FAIL: "kubelet/4.2.2", Status.UNKNOWN: "kubelet/4.2.3",
    Status.NOT_APPLICABLE: "kubelet/4.2.4", Status.INFO: "modprobe/x",
}  # fmt: skip


def finding(id_: str, status: Status, observed: str = "seen", severity: Severity = Severity.HIGH) -> Finding:
    number = id_.partition("/")[2]
    cis = (number,) if number[0].isdecimal() else ()
    return Finding(id_, id_.partition("/")[0], f"title of {id_}", status, severity, observed, "that", "file:1", "do it",
                   cis=cis, section="K4")  # fmt: skip


EVERY = Report("worker-1", tuple(finding(id_, status) for status, id_ in _IDS.items()))
HOSTILE = Report("worker-1", (finding("kubelet/4.2.1", Status.FAIL, 'a\x1b[31m"<&]]>\x00\ud800'),))


def test_the_command_line_offers_what_there_is() -> None:
    """The names stand in two places, so that the daemon loads none of it."""
    assert tuple(FORMATS) == options.FINDING_FORMATS
    assert options.BENCHMARK == benchmark.VERSION


def test_junit_has_a_case_for_each_check() -> None:
    """A failure, an error for what is unknown, skipped for what is neither."""
    suites = ET.fromstring(FORMATS["junit"]([EVERY], NOW))
    cases = {case.get("name", "").split()[0]: [one.tag for one in case] for case in suites.iter("testcase")}
    assert cases == {
        "kubelet/4.2.1": ["system-out"], "kubelet/4.2.2": ["failure"], "kubelet/4.2.3": ["error"],
        "kubelet/4.2.4": ["skipped"], "modprobe/x": ["skipped"],
    }  # fmt: skip
    first = suites[0]
    assert {key: first.get(key) for key in ("tests", "failures", "errors", "skipped", "timestamp")} == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1", "timestamp": "2027-01-15T08:00:00Z",
    }  # fmt: skip


def test_kube_bench_has_the_shape_and_the_words_of_its_json() -> None:
    """Chapters by number; what has no number in a chapter of its own; totals that add up."""
    document = json.loads(FORMATS["kube-bench"]([EVERY], NOW))
    statuses = {
        result["test_number"]: result["status"]
        for chapter in document["Controls"] for test in chapter["tests"] for result in test["results"]
    }  # fmt: skip
    assert statuses == {"4.2.1": "PASS", "4.2.2": "FAIL", "4.2.3": "WARN", "4.2.4": "INFO", "modprobe/x": "INFO"}
    assert [(one["id"], one["node_type"]) for one in document["Controls"]] == [("4", "node"), ("agent", "node")]
    assert document["Totals"] == {"total_pass": 1, "total_fail": 1, "total_warn": 1, "total_info": 2}
    assert document["Controls"][0]["tests"][0]["section"] == "4.2"


def test_a_number_that_several_findings_answer_has_the_worst() -> None:
    """A pass never hides an unknown of the same number."""
    one = Finding("a/x", "a", "", Status.PASS, Severity.LOW, cis=("1.1.1",))
    two = Finding("a/y", "a", "", Status.UNKNOWN, Severity.LOW, cis=("1.1.1", "1.1.2"))
    found = benchmark.by_number([one, two])
    assert {number: finding.id for number, finding in found.items()} == {"1.1.1": "a/y", "1.1.2": "a/y"}


def test_policy_report_is_what_kubectl_applies() -> None:
    """One object a node, its summary the count of its results."""
    (document,) = yaml.safe_load_all(FORMATS["policyreport"]([EVERY], NOW))
    assert (document["apiVersion"], document["kind"]) == ("wgpolicyk8s.io/v1alpha2", "ClusterPolicyReport")
    assert document["scope"] == {"apiVersion": "v1", "kind": "Node", "name": "worker-1"}
    results = {one["rule"]: one["result"] for one in document["results"]}
    assert results == {
        "kubelet/4.2.1": "pass", "kubelet/4.2.2": "fail", "kubelet/4.2.3": "error", "kubelet/4.2.4": "skip",
        "modprobe/x": "skip",
    }  # fmt: skip
    assert document["summary"] == {"warn": 0, **Counter(results.values())}
    cluster = yaml.safe_load(FORMATS["policyreport"]([Report("cluster kind (x)", EVERY.findings, is_node=False)], NOW))
    assert ("scope" in cluster, cluster["metadata"]["name"]) == (False, "node-hardening-cluster-kind-x")
    long = yaml.safe_load(FORMATS["policyreport"]([Report(f"{'a' * 237}/eu", EVERY.findings, is_node=False)], NOW))
    assert long["metadata"]["name"] == f"node-hardening-{'a' * 237}"


@pytest.mark.parametrize("name", FORMATS)
def test_what_others_wrote_ends_in_no_format(name: str) -> None:
    """Control characters, markup and half a surrogate are text in all of them."""
    text = FORMATS[name]([HOSTILE], NOW)
    text.encode()
    assert "\x1b" not in text
    assert "\x00" not in text
    if name == "junit":
        ET.fromstring(text)
