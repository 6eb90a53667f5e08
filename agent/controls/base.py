"""What a control is, and the one way in which controls are run.

A control observes, judges and plans. Applying the plan and observing again is done here for all of them, so that
dry-run, failures half-way and "a second apply changes nothing" hold everywhere alike. One control's failure never
affects another, and neither does a defect in one: it is an unknown finding of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from agent.config.choices import Mode
from agent.config.recognition import Claim
from agent.errors import AgentError, Problem
from agent.host import Host
from agent.model import FAILED_CHANGE, Change, Finding, Outcome, Severity, Status
from agent.text import sanitize

Observed = TypeVar("Observed")
AGENT = "agent"
"""The `control` of findings about the agent itself. They count whatever is enforced."""


class _Defect(AgentError):
    """An exception that no control means to raise."""


@dataclass(frozen=True, slots=True)
class Step:
    """One planned change, as reported, and the call that makes it. `run` raises AgentError on failure."""

    change: Change
    run: Callable[[], object]


class Control(Protocol[Observed]):
    """One property of the node that is kept true. Free of side effects; only a Step's `run` changes the node.

    observe: reads the node; raises AgentError only when nothing at all is known. What is unknown about one item belongs
    into the observation and becomes an UNKNOWN finding. judge: a finding for each requirement of the policy.
    plan: the steps that make every finding pass, in a safe order; empty when the node complies. In mode audit at most
    those that revert what mode enforce did.
    """

    @property
    def name(self) -> str:
        """The control's name in findings, changes and metrics."""

    def watched(self) -> Sequence[str]:
        """The node's files and folders in which a change made by others is drift."""

    def observe(self) -> Observed: ...

    def judge(self, seen: Observed) -> Sequence[Finding]: ...

    def plan(self, seen: Observed) -> Sequence[Step]: ...


class AuditOnly:
    """A control that never changes the node: it plans nothing, and nothing on the node is drift from what it did."""

    def watched(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def plan(self, seen: object) -> Sequence[Step]:
        """No step."""
        del seen
        return ()


@dataclass(frozen=True, slots=True)
class FileType:
    """The files that a control reads, as `validate` finds and lints them. Functions take content and the file's path.

    label: in outputs. claim: by content and name, the evidence that this is meant to be such a file, right or wrong.
    lint: every problem; raises HostError when a tool is missing. advise: what a valid file leaves open. aimed: the type
    for the nodes that `--target` names; None where every node takes the same files. It raises UsageError.
    """

    label: str
    claim: Callable[[str, str], Claim]
    lint: Callable[[str, str, Host], Sequence[Problem]]
    advise: Callable[[str, str], Sequence[Problem]] = lambda _content, _path: ()
    aimed: Callable[[Sequence[str]], FileType] | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """The result of one run of one control."""

    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()


def correction(control: str, mode: Mode) -> str:
    """The next step where the node is not as the policy wants it: applying is the agent's own work in mode enforce."""
    if mode is Mode.ENFORCE:
        return "The agent corrects this at its next pass; if it stays, the failed change in the report has the reason."
    return f"Set {control}.mode to enforce, and the agent corrects it."


def audit(control: Control[Observed], *, plan: bool = False) -> Pass:
    """Observes and judges; changes nothing. plan: with what would be changed."""
    try:
        with _defects_named(control.name):
            seen = control.observe()
            steps = control.plan(seen) if plan else ()
            return Pass(tuple(control.judge(seen)), tuple(step.change for step in steps))
    except AgentError as error:
        return Pass((_unknown(control.name, error),))


def dry_run(control: Control[Observed]) -> Pass:
    """Observes, judges and plans; changes nothing."""
    return audit(control, plan=True)


def apply(control: Control[Observed]) -> Pass:
    """Observes, applies the plan, and judges what is there afterwards.

    A step that fails does not stop the ones after it: each is safe by itself, and a node that is hardened in all but
    one thing is better than one that is not hardened at all. The change and a finding have its error.
    """
    try:
        with _defects_named(control.name):
            seen = control.observe()
            steps = tuple(control.plan(seen))
    except AgentError as error:
        return Pass((_unknown(control.name, error),))
    changes = tuple(_run(step) for step in steps)
    try:
        with _defects_named(control.name):
            findings = tuple(control.judge(control.observe() if steps else seen))
    except AgentError as error:
        findings = (_unknown(control.name, error, "The changes stay; the next pass observes again."),)
    return Pass((*findings, *_failures(changes)), changes)


@contextmanager
def _defects_named(control: str) -> Iterator[None]:
    """The broad catch around a control's work: raises _Defect for what is no AgentError, with the traceback logged."""
    try:
        yield
    except AgentError:
        raise
    except Exception as error:
        import structlog  # noqa: PLC0415 - the plugin, which reads the controls' names, is one file without it

        structlog.get_logger().error("control_failed", control=control, exc_info=True)
        raise _Defect(sanitize(f"internal error: {type(error).__name__}: {error}")) from error


def _run(step: Step) -> Change:
    try:
        with _defects_named(step.change.control):
            step.run()
    except AgentError as error:
        return replace(step.change, outcome=Outcome.FAILED, error=str(error))
    return replace(step.change, outcome=Outcome.DONE)


def _failures(changes: Iterable[Change]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            id=f"{change.control}/{change.action}/{change.target}",
            control=change.control,
            title=f"Required change: {change.action} {change.target}",
            status=Status.FAIL,
            severity=Severity.HIGH,
            observed=change.error,
            source=FAILED_CHANGE,
            remediation="Fix what the error names; the next pass tries again.",
        )
        for change in changes
        if change.outcome is Outcome.FAILED
    )


def _unknown(control: str, error: AgentError, then: str = "Nothing was changed.") -> Finding:
    is_defect = isinstance(error, _Defect)
    step = "Report it with the traceback in the agent's log." if is_defect else "Fix what the error names."
    return Finding(
        id=f"{AGENT}/{control}" if is_defect else f"{control}/observe",
        control=AGENT if is_defect else control,
        title=f"The {control} control {'works' if is_defect else 'can observe the node'}",
        status=Status.UNKNOWN,
        severity=Severity.HIGH,
        observed=str(error),
        expected="no internal error" if is_defect else "readable",
        source=AGENT if is_defect else "observe",
        remediation=f"{step} {then}",
    )
