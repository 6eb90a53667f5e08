"""What a control is, and the one way in which controls are run.

A control only says what it sees (`observe`), what that means (`judge`) and what would mend it (`plan`). Acting on the
plan, and looking again afterwards, is done here for all of them, so that dry-run, failures half-way and "the second
time changes nothing" hold everywhere alike. It refuses to let one control's failure touch another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from agent.errors import AgentError
from agent.model import Change, Finding, Outcome, Severity, Status

Observed = TypeVar("Observed")


@dataclass(frozen=True, slots=True)
class Step:
    """One planned act: the change as people read it, and the call that makes it. `run` raises AgentError on failure."""

    change: Change
    run: Callable[[], None]


class Control(Protocol[Observed]):
    """One thing about the node that is kept true. All three are free of side effects; only a Step's `run` acts.

    observe: reads the node; raises AgentError only when nothing at all can be said. What cannot be told about one
    item belongs into the observation and becomes an UNKNOWN finding. judge: a finding for each thing that the policy
    asks for. plan: the steps that would make every finding pass, in the order in which they are safe; empty when the
    node is as it should be, and always in audit mode.
    """

    @property
    def name(self) -> str:
        """The control's name in findings, changes and metrics."""

    def watched(self) -> Sequence[str]:
        """The node's files and folders in which somebody else's change would be drift."""

    def observe(self) -> Observed: ...

    def judge(self, seen: Observed) -> Sequence[Finding]: ...

    def plan(self, seen: Observed) -> Sequence[Step]: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What one run of one control came to."""

    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()


def audit(control: Control[Observed]) -> Pass:
    """Looks and says; changes nothing."""
    try:
        return Pass(tuple(control.judge(control.observe())))
    except AgentError as error:
        return Pass((_cannot_tell(control.name, error),))


def dry_run(control: Control[Observed]) -> Pass:
    """Looks, says, and says what apply would do; changes nothing."""
    try:
        seen = control.observe()
        return Pass(tuple(control.judge(seen)), tuple(step.change for step in control.plan(seen)))
    except AgentError as error:
        return Pass((_cannot_tell(control.name, error),))


def apply(control: Control[Observed]) -> Pass:
    """Observes, acts on the plan, and judges what is there afterwards.

    A step that fails does not stop the ones after it: each is safe by itself, and a node that is hardened in all but
    one thing is better than one that is not hardened at all. Its error stands in the change and in a finding.
    """
    try:
        seen = control.observe()
        steps = control.plan(seen)
    except AgentError as error:
        return Pass((_cannot_tell(control.name, error),))
    changes = tuple(_run(step) for step in steps)
    try:
        findings = tuple(control.judge(control.observe() if steps else seen))
    except AgentError as error:
        findings = (_cannot_tell(control.name, error, "The changes stand; the next pass looks again."),)
    return Pass((*findings, *_failures(changes)), changes)


def _run(step: Step) -> Change:
    try:
        step.run()
    except AgentError as error:
        return replace(step.change, outcome=Outcome.FAILED, error=str(error))
    return replace(step.change, outcome=Outcome.DONE)


def _failures(changes: Iterable[Change]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            id=f"{change.control}/{change.action}/{change.target}",
            control=change.control,
            title=f"{change.action} {change.target}",
            status=Status.FAIL,
            severity=Severity.HIGH,
            observed=change.error,
            expected="done",
            source="apply",
            remediation="Mend what the error names; the next pass tries again.",
        )
        for change in changes
        if change.outcome is Outcome.FAILED
    )


def _cannot_tell(control: str, error: AgentError, then: str = "Nothing was changed.") -> Finding:
    return Finding(
        id=f"{control}/observe",
        control=control,
        title=f"The {control} control can look at the node",
        status=Status.UNKNOWN,
        severity=Severity.HIGH,
        observed=str(error),
        expected="readable",
        source="observe",
        remediation=f"Mend what the error names. {then}",
    )
