"""Which controls a policy asks for, and one pass over all of them.

The only place that knows every control. It refuses to let one control's trouble hide what the others say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from agent.config.schema import AuditMode, Config, Mode
from agent.controls import base
from agent.controls.apparmor import ApparmorControl
from agent.controls.kubelet import KubeletControl
from agent.controls.manifest import STATE_FOLDER
from agent.controls.modprobe import ModprobeControl
from agent.controls.seccomp import SeccompControl
from agent.errors import HostFileError
from agent.host import Host
from agent.model import Finding, Report, Severity, Status

LOCK = f"{STATE_FOLDER}/lock"  # held while the node is changed: a person's apply and the daemon never overlap
Configz = Callable[[int, str, bytes], Mapping[str, Any] | None]
AnyControl = base.Control[Any]


class Act(Enum):
    """How far a pass goes."""

    AUDIT = "look and say"
    DRY_RUN = "look, say, and say what apply would do"
    APPLY = "make it so and look again"


def controls_of(config: Config, host: Host, *, configz: Configz | None = None) -> tuple[AnyControl, ...]:
    """The controls that are not off, in the order in which they run.

    configz: the running kubelet's own answer, where somebody above may ask for it.
    """
    controls: list[AnyControl] = []
    if config.modprobe.mode is not Mode.OFF:
        controls.append(ModprobeControl(config.modprobe, host))
    if config.apparmor.mode is not Mode.OFF:
        controls.append(ApparmorControl(config.apparmor, host))
    if config.seccomp.mode is not Mode.OFF:
        controls.append(SeccompControl(config.seccomp, host))
    if config.kubelet.mode is not AuditMode.OFF:
        controls.append(KubeletControl(config.kubelet, host, configz=configz))
    return tuple(controls)


def enforced(config: Config) -> list[str]:
    """The controls that the agent itself keeps true."""
    modes = {"modprobe": config.modprobe.mode, "apparmor": config.apparmor.mode, "seccomp": config.seccomp.mode}
    return [name for name, mode in modes.items() if mode is Mode.ENFORCE]


@contextlib.contextmanager
def apply_lock(host: Host) -> Iterator[None]:
    """Held while the node is changed. Raises HostError when another agent is changing it for too long.

    Where the lock file cannot be made (a read-only disk) the pass goes on: each of its steps says so by itself.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HostFileError):
            stack.enter_context(host.exclusive(LOCK))
        yield


def run(node: str, controls: Sequence[AnyControl], act: Act) -> Report:
    """One pass. A node on which every control is off is reported as unknown, with that as the reason."""
    runner = {Act.AUDIT: base.audit, Act.DRY_RUN: base.dry_run, Act.APPLY: base.apply}[act]
    passes = [runner(control) for control in controls]
    if not passes:
        return Report(node, (_nothing_looked_at(),))
    findings = tuple(finding for one in passes for finding in one.findings)
    return Report(node, findings, tuple(change for one in passes for change in one.changes))


def _nothing_looked_at() -> Finding:
    return Finding(
        id="policy/off",
        control="policy",
        title="At least one control is on",
        status=Status.UNKNOWN,
        severity=Severity.MEDIUM,
        observed="every control is off",
        expected="a control in mode enforce or audit",
        source="configuration",
        remediation="Set the mode of at least one of modprobe, apparmor, seccomp, kubelet.",
    )
