"""A check of the cluster: the row that does not change, what it found, and the finding that both make."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.config.schema import AuditException
from agent.controls import exceptions
from agent.model import Finding, Severity, Status
from agent.plugin.audit.view import View
from agent.text import join_limited, sanitize

CONTROL = "cluster"
KEPT = 1000  # of one check; more are counted
_SHOWN = 3
_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Affected:
    """One object that does not comply. subject: who a binding binds. detail: what about it. labels: of a Node."""

    kind: str
    namespace: str
    name: str
    detail: str = ""
    subject: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        to = f" for {self.subject}" if self.subject else ""
        return f"{self.kind} {where}{to}" + (f" ({self.detail})" if self.detail else "")

    def document(self) -> dict[str, str]:
        """For programs."""
        names = ("kind", "namespace", "name", "subject", "detail")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class PlainResult:
    """The result of a check that is not about single objects."""

    status: Status
    observed: str


Judge = Callable[[View], Iterable[Affected] | PlainResult]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. needs: kinds without which it is unknown; the first is what its evidence counts.

    status: what an affected object makes of it. section: of the two documents.
    """

    name: str
    title: str
    severity: Severity
    section: str
    cis: tuple[str, ...]
    needs: tuple[str, ...]
    judge: Judge
    expected: str
    remediation: str
    status: Status = Status.FAIL

    @property
    def id(self) -> str:
        """As in findings."""
        return f"{CONTROL}/{self.name}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding, and the objects behind it: the first KEPT of `total`.

    excepted: with the exception's sentence, the first KEPT of `excepted_total`.
    """

    finding: Finding
    affected: tuple[Affected, ...] = ()
    total: int = 0
    excepted: tuple[tuple[Affected, str], ...] = ()
    excepted_total: int = 0

    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            **self.finding.document(),
            "affected": [one.document() for one in self.affected],
            "affectedTotal": self.total,
            "excepted": [{**one.document(), "exception": note} for one, note in self.excepted],
            "exceptedTotal": self.excepted_total,
        }


_Sorted = tuple[list[Affected], int, list[tuple[Affected, str]], int]
"""What is affected, what an exception covers with its sentence, each followed by how much there is in all."""


def run(check: Check, view: View, accepted: Sequence[AuditException], day: dt.date) -> CheckResult:
    """The check's result under the exceptions. Unknown where something that it needs could not be read."""
    problems = [view.problems[name] for name in check.needs if name in view.problems]
    if problems:
        step = "Get the rights in docs/rbac-auditor.yaml, or remove the cause that is named."
        return CheckResult(_finding(check, Status.UNKNOWN, "; ".join(problems), step))
    answer = check.judge(view)
    if isinstance(answer, PlainResult):
        return _answered(check, answer, accepted, day)
    affected, total, excepted, covered = _sorted_out(check, answer, accepted, day)
    count = view.judged(check.needs[0])
    if total:
        observed = f"{total:,} of {count}: {join_limited(map(str, affected), _SHOWN, _CHARACTERS)}"
        if total > len(affected):
            observed += f"; {total - len(affected):,} not listed"
        status = check.status
    else:
        observed, status = f"none of {count}", Status.INFO if excepted else Status.PASS
    if excepted:
        notes = join_limited((note for _, note in excepted), _SHOWN, 200)
        observed += f"; {covered:,} {notes}"
        if covered > len(excepted):
            observed += f"; {covered - len(excepted):,} of these not listed"
    step = check.remediation if total else ""
    finding = _finding(check, status, observed, step)
    return CheckResult(finding, tuple(affected), total, tuple(excepted), covered)


def _answered(check: Check, answer: PlainResult, accepted: Sequence[AuditException], day: dt.date) -> CheckResult:
    status, observed = answer.status, answer.observed
    if status is Status.FAIL:
        active, ended = exceptions.find(accepted, check.id, {}, {}, day)
        if active is not None:
            status, observed = Status.INFO, f"{exceptions.note(active, day)}; observed: {observed}"
        elif ended is not None:
            observed += exceptions.ending(ended)
    step = check.remediation if status in (Status.FAIL, Status.UNKNOWN) else ""
    return CheckResult(_finding(check, status, observed, step))


def _sorted_out(check: Check, judged: Iterable[Affected], accepted: Sequence[AuditException], day: dt.date) -> _Sorted:
    affected, total = list[Affected](), 0
    excepted, covered = list[tuple[Affected, str]](), 0
    mine = [one for one in accepted if one.id == check.id]
    for one in judged:
        facts = {"namespace": one.namespace, "kind": one.kind, "name": one.name, "subject": one.subject}
        active, ended = exceptions.find(mine, check.id, facts, one.labels, day)
        if active is not None:
            covered += 1
            if len(excepted) < KEPT:
                excepted.append((one, exceptions.note(active, day)))
            continue
        total += 1
        if len(affected) < KEPT:
            detail = sanitize(one.detail + (exceptions.ending(ended) if ended else ""), 400)
            affected.append(replace(one, detail=detail, labels={}))
    return affected, total, excepted, covered


def _finding(check: Check, status: Status, observed: str, step: str) -> Finding:
    return Finding(
        check.id, CONTROL, check.title, status, check.severity, observed, check.expected,
        check.needs[0], step, cis=check.cis, section=check.section,
    )  # fmt: skip


def unused(checks: Iterable[Check], accepted: Sequence[AuditException]) -> Iterator[CheckResult]:
    """Exceptions for a check of the cluster that there is not: misspelt, or left from another version."""
    known = {check.id for check in checks}
    for name in dict.fromkeys(one.id for one in accepted if one.id.startswith(f"{CONTROL}/")):
        if name not in known:
            yield CheckResult(Finding(
                f"exceptions/{name}", "exceptions", "Exceptions are for checks that there are", Status.INFO,
                Severity.LOW, f"no check is called {name}: nothing is excepted", "an id of a check", "exceptions",
                "Correct the id, or remove the exception.",
            ))  # fmt: skip
