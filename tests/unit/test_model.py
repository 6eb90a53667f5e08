"""The values that rooms hand each other: order, counts, the one-word answer, the documents."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import FAILED_CHANGE, Change, Finding, Outcome, Report, Severity, Status, worst_first


def finding(status: Status, severity: Severity = Severity.HIGH, name: str = "x") -> Finding:
    """A finding of which only the order matters."""
    return Finding(id=name, control="test", title="", status=status, severity=severity)


STATUSES = st.lists(st.sampled_from(Status))


def test_what_needs_reading_comes_first() -> None:
    """Failures, then what cannot be told, then the rest; inside by severity, then by name."""
    mixed = [
        finding(Status.PASS, Severity.CRITICAL),
        finding(Status.FAIL, Severity.LOW),
        finding(Status.NOT_APPLICABLE),
        finding(Status.UNKNOWN),
        finding(Status.FAIL, Severity.CRITICAL, "b"),
        finding(Status.INFO),
        finding(Status.FAIL, Severity.CRITICAL, "a"),
    ]
    assert [(one.status, one.id) for one in worst_first(mixed)] == [
        (Status.FAIL, "a"),
        (Status.FAIL, "b"),
        (Status.FAIL, "x"),
        (Status.UNKNOWN, "x"),
        (Status.INFO, "x"),
        (Status.PASS, "x"),
        (Status.NOT_APPLICABLE, "x"),
    ]


def test_a_change_that_failed_comes_before_the_checks_that_fail_because_of_it() -> None:
    """A summary names the first alone."""
    failed = replace(finding(Status.FAIL, name="test/write/file"), source=FAILED_CHANGE)
    assert worst_first([finding(Status.FAIL, name="test/a"), failed])[0] is failed
    critical = finding(Status.FAIL, Severity.CRITICAL, "test/b")
    assert worst_first([failed, critical])[0] is critical


@pytest.mark.parametrize(
    ("statuses", "answer"),
    [
        ([Status.PASS, Status.FAIL, Status.UNKNOWN], Status.FAIL),
        ([Status.PASS, Status.UNKNOWN], Status.UNKNOWN),
        ([Status.PASS, Status.INFO, Status.NOT_APPLICABLE], Status.PASS),
        ([Status.INFO, Status.NOT_APPLICABLE], Status.UNKNOWN),
        ([], Status.UNKNOWN),
    ],
)
def test_the_one_word_answer(statuses: list[Status], answer: Status) -> None:
    """A node of which nothing is known is unknown, never pass."""
    assert Report("n", tuple(finding(status) for status in statuses)).status is answer


@given(STATUSES)
def test_a_report_passes_only_when_something_passed_and_nothing_else_is_open(statuses: list[Status]) -> None:
    """Whatever the mixture."""
    report = Report("n", tuple(finding(status) for status in statuses))
    fine = Status.PASS in statuses and Status.FAIL not in statuses and Status.UNKNOWN not in statuses
    assert (report.status is Status.PASS) is fine
    assert sum(report.counts.values()) == len(statuses)


def test_the_report_as_json() -> None:
    """The document of `-o json`: plain words, changes only where there are any."""
    change = Change("modprobe", "write", "/etc/x", "missing")
    failed = Change("modprobe", "write", "/etc/y", outcome=Outcome.FAILED, error="full")
    report = Report("node-1", (finding(Status.PASS),), (change, failed))
    shown = json.loads(json.dumps(report.document()))
    assert shown["node"] == "node-1"
    assert shown["status"] == "pass"
    assert shown["findings"] == [finding(Status.PASS).document()]
    assert [one["outcome"] for one in shown["changes"]] == ["planned", "failed"]
    assert ["error" in one for one in shown["changes"]] == [False, True]
    assert "changes" not in Report("node-1", ()).document()


def test_a_findings_document_has_the_keys_that_are_promised() -> None:
    """Scripts hang on them."""
    assert list(finding(Status.INFO).document()) == [
        "id",
        "control",
        "title",
        "status",
        "severity",
        "observed",
        "expected",
        "source",
        "remediation",
        "section",
        "cis",
    ]
    assert finding(Status.NOT_APPLICABLE).document()["status"] == "not-applicable"


def test_a_finding_names_its_benchmark_ids_and_its_section() -> None:
    """CIS ids are the key by which other tools and dashboards join findings."""
    shown = replace(finding(Status.FAIL), cis=("1.2.6", "1.2.7"), section="K3").document()
    assert (shown["cis"], shown["section"]) == (["1.2.6", "1.2.7"], "K3")
    assert (finding(Status.FAIL).document()["cis"], finding(Status.FAIL).document()["section"]) == ([], "")
