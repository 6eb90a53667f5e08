"""What makes a node non-compliant: the node in one word, worked out from the report of a pass. Pure."""

from __future__ import annotations

from enum import StrEnum

from agent.model import Outcome, Report, Status


class ComplianceStatus(StrEnum):
    """The node in one word, as the `status` annotation has it."""

    HARDENED = "hardened"
    NON_COMPLIANT = "non-compliant"
    FAILED = "failed"
    UNKNOWN = "unknown"


def compliance_of(report: Report) -> ComplianceStatus:
    """Failed: a required change failed. Non-compliant: a check fails. Unknown is never hardened."""
    if any(change.outcome is Outcome.FAILED for change in report.changes):
        return ComplianceStatus.FAILED
    words = {Status.PASS: ComplianceStatus.HARDENED, Status.FAIL: ComplianceStatus.NON_COMPLIANT}
    return words.get(report.status, ComplianceStatus.UNKNOWN)
