"""Frozen values between packages: findings, changes, the report of a pass. Nothing here reads, writes or decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum


class Status(StrEnum):
    """The result of a check. UNKNOWN is never PASS, and never a reason to reboot."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"
    INFO = "info"


class Severity(StrEnum):
    """How much it matters when the check does not pass."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


# Worst first: the order of every table.
_STATUS_ORDER = {
    status: rank
    for rank, status in enumerate((Status.FAIL, Status.UNKNOWN, Status.INFO, Status.PASS, Status.NOT_APPLICABLE))
}
_SEVERITY_ORDER = {severity: rank for rank, severity in enumerate(Severity)}
FAILED_CHANGE = "apply"  # the source of a finding that is about a change, not about what was observed


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of the node.

    id: stable, unique within a report, e.g. `modprobe/sctp`, `kubelet/4.2.1`. title: what is checked, in one line.
    observed, expected: values as in a file. source: where the observed value comes from (file:line, flag, process).
    remediation: the next step, empty when there is none. needs_reboot: the node is configured as it should be, and the
    running kernel is not until it is booted again. cis: its ids in the CIS Kubernetes Benchmark 1.12. section: of the
    two documents that the project follows (docs/coverage.md), K1 to K17 or A1 to A4.
    """

    id: str
    control: str
    title: str
    status: Status
    severity: Severity
    observed: str = ""
    expected: str = ""
    source: str = ""
    remediation: str = ""
    needs_reboot: bool = False
    cis: tuple[str, ...] = ()
    section: str = ""

    def document(self) -> dict[str, object]:
        """The finding in `-o json`."""
        texts = (part.name for part in fields(self) if part.name not in ("needs_reboot", "cis"))
        return {name: str(getattr(self, name)) for name in texts} | {"cis": list(self.cis)}


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by status (fail, unknown, info, pass, not-applicable), severity and id.

    A change that failed comes before the checks that do not pass because of it.
    """

    def order(one: Finding) -> tuple[int, int, bool, str]:
        return _STATUS_ORDER[one.status], _SEVERITY_ORDER[one.severity], one.source != FAILED_CHANGE, one.id

    return tuple(sorted(findings, key=order))


class Outcome(StrEnum):
    """The result of a change."""

    PLANNED = "planned"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the node, planned or done.

    action: a verb (write, remove, load, unload). target: what it acts on (a path, a module, a profile's name).
    reason: why, in a few words. error: why it failed, empty unless outcome is FAILED.
    """

    control: str
    action: str
    target: str
    reason: str = ""
    outcome: Outcome = Outcome.PLANNED
    error: str = ""

    def document(self) -> dict[str, str]:
        """The change in `-o json`."""
        names = [part.name for part in fields(self) if part.name != "error" or self.error]
        return {name: str(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True)
class Report:
    """One pass over one node: every finding, and every change that the pass planned or made.

    is_node: False for what is about the cluster, or several nodes together; `node` then names that.
    """

    node: str
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()
    is_node: bool = True
    counts: Mapping[Status, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", Counter(finding.status for finding in self.findings))

    @property
    def status(self) -> Status:
        """The node's status in one word: fail, else unknown, else pass; unknown without findings."""
        for status in (Status.FAIL, Status.UNKNOWN, Status.PASS):
            if self.counts[status]:
                return status
        return Status.UNKNOWN

    def document(self) -> dict[str, object]:
        """The document that `-o json` and `-o yaml` print."""
        shown: dict[str, object] = {
            "node": self.node,
            "status": self.status.value,
            "findings": [finding.document() for finding in worst_first(self.findings)],
        }
        return shown | {"changes": [change.document() for change in self.changes]} if self.changes else shown


@dataclass(frozen=True, slots=True)
class Condition:
    """A Node condition of ours. status is True, False or Unknown; reason is CamelCase and stable."""

    type: str
    status: str
    reason: str
    message: str
