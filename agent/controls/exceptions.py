"""Exceptions: failing findings that are accepted for a time. Pure.

An exception makes a failure information with its reason, owner and last day, and nothing else: it never touches what is
unknown, and after its last day the failure is back, naming it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from agent.config import selector
from agent.config.schema import AuditException
from agent.model import Finding, Severity, Status

_NEAR_DAYS = 14


def today() -> dt.date:
    """The day by which exceptions end, in UTC."""
    return dt.datetime.now(dt.UTC).date()


def selects(exception: AuditException, facts: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether it is about something. facts: as selectors name. labels: of the Node; none known are never selected."""
    return all(
        bool(labels) and selector.parse(value).matches(labels)
        if key == "labels"
        else fnmatchcase(facts.get(key, ""), value)
        for key, value in exception.selector.items()
    )


def find(
    exceptions: Iterable[AuditException],
    finding: str,
    facts: Mapping[str, str],
    labels: Mapping[str, str],
    day: dt.date,
) -> tuple[AuditException | None, AuditException | None]:
    """The exception that holds for a finding about something, and else one that has ended."""
    return _in_time((one for one in exceptions if one.id == finding and selects(one, facts, labels)), day)


def _in_time(some: Iterable[AuditException], day: dt.date) -> tuple[AuditException | None, AuditException | None]:
    ended = None
    for one in some:
        if dt.date.fromisoformat(one.expires) >= day:
            return one, None
        ended = one
    return None, ended


def note(exception: AuditException, day: dt.date) -> str:
    """Reason, owner and last day in one sentence."""
    left = (dt.date.fromisoformat(exception.expires) - day).days
    soon = f", which is in {left} days" if 0 <= left <= _NEAR_DAYS else ""
    return f"excepted until {exception.expires}{soon}: {exception.reason} ({exception.owner})"


def ending(exception: AuditException) -> str:
    """What a failure has behind it once its exception is over."""
    return f"; its exception ended on {exception.expires} ({exception.owner}: {exception.reason})"


def applied(
    findings: Sequence[Finding],
    exceptions: Sequence[AuditException],
    node: str,
    labels: Mapping[str, str],
    day: dt.date,
) -> tuple[Finding, ...]:
    """The findings of a node under its policy's exceptions. labels: as they are known."""
    here = [one for one in exceptions if not one.id.startswith("cluster/") and selects(one, {"node": node}, labels)]
    return (*(_applied(finding, here, day) for finding in findings), *_unused(findings, here))


def _applied(finding: Finding, here: Sequence[AuditException], day: dt.date) -> Finding:
    if finding.status is not Status.FAIL:
        return finding
    active, ended = _in_time((one for one in here if one.id == finding.id), day)
    if active is not None:
        observed = f"{note(active, day)}; observed: {finding.observed}"
        return replace(finding, status=Status.INFO, observed=observed, remediation="")
    return replace(finding, observed=finding.observed + ending(ended)) if ended else finding


def _unused(findings: Sequence[Finding], here: Sequence[AuditException]) -> Iterator[Finding]:
    """Exceptions for this node whose check is none here: misspelt, or left from another time."""
    known = {finding.id for finding in findings}
    for name in dict.fromkeys(one.id for one in here):
        if name not in known:
            yield Finding(
                f"exceptions/{name}", "exceptions", "Exceptions are for checks of this node", Status.INFO, Severity.LOW,
                observed=f"no check of this node is called {name}: nothing is excepted", expected="an id of a check",
                source="exceptions", remediation="Correct the id, or remove the exception.",
            )  # fmt: skip
