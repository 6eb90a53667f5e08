"""What the sentence of a control counts."""

from __future__ import annotations

import pytest

from agent.annotations import SUMMARY
from agent.model import Finding, Severity, Status
from agent.report import node_status
from tests.support.report import finding, report

FAIL, UNKNOWN, PASS, ABSENT = Status.FAIL, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("severities", "critical"),
    [((Severity.CRITICAL, Severity.HIGH, Severity.LOW), 1), ((Severity.CRITICAL, Severity.CRITICAL), 2)],
)
def test_critical_failures_are_counted_apart(severities: tuple[Severity, ...], critical: int) -> None:
    """Among all that fail; none are not mentioned."""
    found = [finding(number, FAIL, severity) for number, severity in enumerate(severities)]
    assert f"{critical} critical" in summary(*found)
    assert "critical" not in summary(finding(1, FAIL, Severity.HIGH))


def test_what_does_not_apply_is_not_counted() -> None:
    """Neither as a check nor as a failure."""
    text = summary(finding(1, FAIL), finding(2, PASS), finding(3, ABSENT), finding(4, UNKNOWN))
    assert "1/3 failed" in text
    assert "modprobe/4" in text


def summary(*found: Finding) -> str:
    return node_status.hardening(
        report(*found), policy="p", version="1", label=True, last_change=None
    ).annotations[SUMMARY] or ""  # fmt: skip
