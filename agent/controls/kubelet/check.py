"""A check: the row that does not change, and the result for one kubelet.

Findings are made here, so that every one names observed value, source, what was expected and the next step alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from agent.controls.kubelet import platforms
from agent.controls.kubelet.effective import Effective, Setting
from agent.controls.kubelet.fields import Field, spelled
from agent.model import Finding, Severity, Status
from agent.text import sanitize

CONTROL = "kubelet"
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file that a setting names. problem: why it cannot be read; self_signed: for certificates, None: unknown."""

    path: str = ""
    missing: bool = False
    problem: str = ""
    self_signed: bool | None = None


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


def setting_check(
    id_: str,
    title: str,
    severity: Severity,
    expected: str,
    *,
    field: Field,
    fix: str,
    good: Callable[[object], bool],
) -> Check:
    """A check of one setting: `good`: whether a value passes; `fix`: the YAML that would pass."""

    def judge(facts: Facts) -> CheckResult:
        setting = facts.effective.get(field)
        if setting.problem:
            return unknown(setting)
        observed = shown(field, setting)
        if good(setting.value):
            return CheckResult(Status.PASS, observed, setting.source)
        return CheckResult(Status.FAIL, observed, setting.source, remedy(facts, field, setting, fix))

    return Check(id_, title, severity, expected, judge)


def shown(field: Field, setting: Setting) -> str:
    """`readOnlyPort: 10255`."""
    return f"{field.path or '--' + field.flag}: {spelled(setting.value)}"


def unknown(setting: Setting) -> CheckResult:
    """The value is unknown, and why."""
    step = "Fix the cause so that the kubelet can read it, and restart the kubelet."
    return CheckResult(Status.UNKNOWN, setting.problem, setting.source, step)


def remedy(facts: Facts, field: Field, setting: Setting, fix: str) -> str:
    """Where to set what: the line that wins now, or the file that is read; a flag that hides it goes first."""
    target = _target(facts, field, fix)
    if setting.source.startswith("flag"):
        if field.path:
            return f"Remove --{field.flag} from {facts.place}, set {target}, and restart the kubelet."
        return f"Change --{field.flag} in {facts.place} and restart the kubelet."
    if setting.source.startswith(("/", "drop-in ")):
        path = setting.source.removeprefix("drop-in ").rpartition(":")[0]
        if place := platforms.instead(path, fix, field.flag):
            return f"Set {place}, and restart the kubelet: the distribution writes {path} itself."
        return f"Set `{fix}` at {setting.source} and restart the kubelet."
    return f"Set {target} and restart the kubelet."


def _target(facts: Facts, field: Field, fix: str) -> str:
    """Where a setting that no line has yet is made."""
    effective = facts.effective
    if effective.config:
        path = effective.absolute(effective.config)
        return platforms.instead(path, fix, field.flag) or f"`{fix}` in {path}"
    if effective.config_dir:
        return f"`{fix}` in a drop-in in {effective.absolute(effective.config_dir)}"
    return f"`{fix}` in a configuration file given with --config"
