"""A check: the row that does not change, and the result for one kubelet.

Findings are made here, so that every one names observed value, source, what was expected and the next step alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, replace

from agent.controls.kubelet import platforms
from agent.controls.kubelet.effective import Effective, Setting
from agent.controls.kubelet.fields import Field, spelled
from agent.host import Process
from agent.model import Finding, Severity, Status, worst_first
from agent.text import sanitize

CONTROL = "kubelet"
AGAIN = "Fix the cause; the next pass checks again."
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file that a setting names. problem: why it cannot be read; self_signed: for certificates, None: unknown."""

    path: str = ""
    missing: bool = False
    problem: str = ""
    self_signed: bool | None = None


class Unknown(Exception):
    """Why a check has no answer, and where the value that is unknown comes from."""

    def __init__(self, problem: str, source: str) -> None:
        super().__init__(problem)
        self.source = source


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known about one kubelet's settings. place: where its flags are set.

    kernel_advice: what to do before protectKernelDefaults, empty when nothing is.
    """

    effective: Effective
    place: str
    client_ca: FileFact = FileFact()
    certificate: FileFact = FileFact()
    kernel_advice: str = ""

    def known(self, field: Field) -> Setting:
        """The effective value. Raises Unknown."""
        return known(self.effective.get(field))

    def shown(self, field: Field) -> str:
        """`readOnlyPort: 10255`."""
        return f"{field.path}: {spelled(self.effective.get(field).value)}"

    def passed(self, field: Field, note: str = "") -> CheckResult:
        """The setting is as it should be."""
        return CheckResult(Status.PASS, self.shown(field) + note, self.effective.get(field).source)

    def failed(self, field: Field, value: object) -> CheckResult:
        """The setting is not; `value` would pass."""
        return CheckResult(Status.FAIL, self.shown(field), self.effective.get(field).source, self.remedy(field, value))

    def remedy(self, field: Field, value: object) -> str:
        """Where to set what: the line that wins now, or the file that is read; a flag that hides it goes first."""
        fix, source = f"{field.path}: {spelled(value)}", self.effective.get(field).source
        target = self._target(fix, field.flag)
        if source.startswith("flag"):
            return f"Remove --{field.flag} from {self.place}, set {target}, and restart the kubelet."
        if source.startswith(("/", "drop-in ")):
            path = source.removeprefix("drop-in ").rpartition(":")[0]
            if place := platforms.instead(path, fix, field.flag):
                return f"Set {place}, and restart the kubelet: the distribution writes {path} itself."
            return f"Set `{fix}` at {source} and restart the kubelet."
        return f"Set {target} and restart the kubelet."

    def _target(self, fix: str, flag: str) -> str:
        """Where a setting that no line has yet is made."""
        effective = self.effective
        if effective.config:
            path = effective.absolute(effective.config)
            return platforms.instead(path, fix, flag) or f"`{fix}` in {path}"
        if effective.config_dir:
            return f"`{fix}` in a drop-in in {effective.absolute(effective.config_dir)}"
        return f"`{fix}` in a configuration file given with --config"


def known(setting: Setting) -> Setting:
    """The setting. Raises Unknown where its value is."""
    if setting.problem:
        raise Unknown(setting.problem, setting.source)
    return setting


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer of one check. severity: only where it differs from the row's."""

    status: Status
    observed: str
    source: str = ""
    remediation: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What does not change about a check. id: without the control's name; one such as 4.2.1 is CIS's own.

    section: of the document.
    """

    id: str
    title: str
    severity: Severity
    expected: str
    _: KW_ONLY
    control: str = CONTROL
    cis: tuple[str, ...] = ()
    section: str = "K4"

    def finding(self, verdict: CheckResult) -> Finding:
        """The result as a finding."""
        return Finding(
            id=f"{self.control}/{self.id}",
            control=self.control,
            title=self.title,
            status=verdict.status,
            severity=verdict.severity or self.severity,
            observed=sanitize(verdict.observed, _LONGEST),
            expected=self.expected,
            source=sanitize(verdict.source, _LONGEST),
            remediation=sanitize(verdict.remediation, _LONGEST),
            cis=self.cis or ((self.id,) if self.id[0].isdecimal() else ()),
            section=self.section,
        )


@dataclass(frozen=True, slots=True)
class Check(Row):
    """A row that is judged from the settings alone. judge: pure."""

    judge: Callable[[Facts], CheckResult]

    def result(self, facts: Facts) -> CheckResult:
        """The judgement; unknown with the reason where a value is."""
        try:
            return self.judge(facts)
        except Unknown as error:
            step = "Fix the cause so that the kubelet can read it, and restart the kubelet."
            return CheckResult(Status.UNKNOWN, str(error), error.source, step)


def with_pid(finding: Finding, process: Process, running: int) -> Finding:
    """Names the process where several of its kind run."""
    return replace(finding, observed=f"pid {process.pid}: {finding.observed}") if running > 1 else finding


def worst_of_each(found: Iterable[Finding]) -> list[Finding]:
    """One finding for each id."""
    by_id: dict[str, list[Finding]] = {}
    for finding in found:
        by_id.setdefault(finding.id, []).append(finding)
    return [worst_first(some)[0] for some in by_id.values()]
