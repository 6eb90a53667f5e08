"""A check of one part of the control plane: a row that does not change, and how the effective settings are judged.

Most checks are one flag and what its value has to be; those that need files or answers have a function of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.controls.control_plane import CONTROL
from agent.controls.control_plane.components import Component
from agent.controls.control_plane.observe import Observation, ObservedComponent
from agent.controls.kubelet import yaml_tree
from agent.controls.kubelet.check import AGAIN, CheckResult, Row
from agent.controls.kubelet.fields import spelled
from agent.controls.x509 import Certificate, NotACertificate, certificates
from agent.errors import AgentError, HostFileMissing
from agent.host import Program
from agent.host.budget import CERTIFICATE_BYTES
from agent.model import Severity, Status


class Unknown(Exception):
    """Why a check has no answer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One component, and all that was seen beside it."""

    seen: ObservedComponent
    all: Observation

    @property
    def component(self) -> Component:
        """The component itself."""
        return self.seen.component

    def value(self, name: str) -> Any:
        """The effective value of a flag. Raises Unknown."""
        setting = self.component.get(name)
        if setting.problem:
            raise Unknown(setting.problem)
        return setting.value

    def source(self, *names: str) -> str:
        """Where values come from."""
        places = dict.fromkeys(self.component.get(name).source or "its command line" for name in names)
        return f"{self.component.called}: {', '.join(places)}"

    def document(self, flag: str) -> tuple[str, Mapping[str, Any]]:
        """The path and content of the configuration file that a flag names. Raises Unknown."""
        self.value(flag)
        path = self.component.path(flag)
        if why := self.component.outdated(flag):
            raise Unknown(f"{why}: restart {self.component.program.value}")
        try:
            return path, yaml_tree.to_document(yaml_tree.read(self.component.view, path))
        except AgentError as error:
            raise Unknown(str(error)) from error

    def certificates(self, flag: str) -> tuple[Certificate, ...]:
        """The certificates of the file that a flag names; none when it is unset. Raises Unknown."""
        if not self.value(flag):
            return ()
        path = self.component.path(flag)
        try:
            return certificates(self.component.view.read_bytes(path, limit_bytes=CERTIFICATE_BYTES * 8))
        except HostFileMissing as error:
            raise Unknown(f"{path} is not there") from error
        except (AgentError, NotACertificate) as error:
            raise Unknown(f"{path}: {error}") from error

    def fix(self, what: str) -> str:
        """Where to change what."""
        place = self.all.static_pods.manifests.get(self.component.program) or self.component.place
        return f"{what} in {place}; {self.component.program.value} restarts with it."

    def passed(self, observed: str, *flags: str) -> CheckResult:
        """It is as it should be."""
        return CheckResult(Status.PASS, observed, self.source(*flags))

    def failed(self, observed: str, fix: str, *flags: str) -> CheckResult:
        """It is not. fix: what to change where the flags are."""
        return CheckResult(Status.FAIL, observed, self.source(*flags), self.fix(fix))

    def info(self, observed: str, *flags: str) -> CheckResult:
        """Worth knowing, and not judged."""
        return CheckResult(Status.INFO, observed, self.source(*flags))

    def none(self, observed: str, *flags: str) -> CheckResult:
        """There is nothing to judge here."""
        return CheckResult(Status.NOT_APPLICABLE, observed, self.source(*flags))


Judge = Callable[[Facts], CheckResult]


@dataclass(frozen=True, slots=True)
class Check(Row):
    """A row with its judgement. program: whose it is."""

    program: Program
    judge: Judge

    def result(self, facts: Facts) -> CheckResult:
        """The judgement; unknown with the reason where a value is."""
        try:
            return self.judge(facts)
        except Unknown as error:
            return CheckResult(Status.UNKNOWN, str(error), facts.component.called, AGAIN)


# Of a row in a table: id, CIS ids separated by blanks, section, severity, title, what passes, how it is judged.
Line = tuple[str, str, str, Severity, str, str, Judge]


def table(program: Program, *lines: Line) -> tuple[Check, ...]:
    """The checks of one program."""
    short = program.value.removeprefix("kube-")
    return tuple(
        Check(f"{short}/{id_}", title, severity, expected, program, judge, control=CONTROL, cis=tuple(cis.split()),
              section=section)
        for id_, cis, section, severity, title, expected, judge in lines
    )  # fmt: skip


def shown(name: str, value: Any) -> str:
    """`--profiling=true`, `--token-auth-file is not set`."""
    return f"--{name} is not set" if value in ("", (), {}) else f"--{name}={spelled(value).replace(', ', ',')}"


def flag(name: str, required: bool, fix: str) -> Judge:
    """A flag that is on or off."""
    return _one(name, lambda value: value is required, fix)


def unset(name: str) -> Judge:
    """A flag that must have no value."""
    return _one(name, lambda value: not value, f"Remove --{name}")


def _one(name: str, good: Callable[[Any], bool], fix: str) -> Judge:
    def judge(facts: Facts) -> CheckResult:
        value = facts.value(name)
        if good(value):
            return facts.passed(shown(name, value), name)
        return facts.failed(shown(name, value), fix, name)

    return judge


def is_set(*names: str, fix: str) -> Judge:
    """Flags that all have to have a value."""

    def judge(facts: Facts) -> CheckResult:
        values = {name: facts.value(name) for name in names}
        observed = ", ".join(shown(name, value) for name, value in values.items())
        if all(values.values()):
            return facts.passed(observed, *names)
        return facts.failed(observed, fix, *names)

    return judge


def noted(name: str) -> Judge:
    """A flag that is shown and not judged."""
    return lambda facts: facts.info(shown(name, facts.value(name)), name)
