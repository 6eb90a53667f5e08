"""The one list of controls, which of them a policy turns on, and one pass over all of them.

Whatever treats every control alike (passes, metrics, watches, the policy's hash, `validate`, the manifest's ConfigMaps)
iterates over CONTROLS; nothing else names them. One control's failure never hides the findings of the others.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from agent.config.choices import AuditMode, Mode
from agent.config.schema import AuditException, Config
from agent.controls import apparmor, base, exceptions, modprobe, seccomp
from agent.controls.kubelet import KubeletControl
from agent.controls.kubelet.observe import Configz
from agent.controls.manifest import STATE_FOLDER
from agent.errors import HostFileError
from agent.host import Host
from agent.model import Finding, Report, Severity, Status

LOCK = f"{STATE_FOLDER}/lock"  # held while the node is changed: a manual apply and the daemon never overlap


@dataclass(frozen=True, slots=True)
class Live:
    """What controls may ask beyond the node's own files and processes; None where they may not.

    configz: reads the running kubelet's configuration. allows_anything: whether the API server allows a made-up verb.
    versions: `gitVersion` of the API server and of this node's kubelet. Both give None when it does not answer.
    flags: of the API server at an address and port of this node, as this run of it parsed them; none when unknown.
    """

    configz: Configz | None = None
    allows_anything: Callable[[], bool | None] | None = None
    versions: Callable[[], tuple[str, str] | None] | None = None
    flags: Callable[[str, int, str], Mapping[str, str]] | None = None


NOTHING_LIVE = Live()
AnyControl = base.Control[Any]


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """One control. name: in findings, metrics and as the section of the policy, which has a `mode`.

    make: the control for a section of the policy; what a node without its subject does not need is imported there.
    file_type: the files that the control reads, for `validate`. A section with the key `profiles` names their folder.
    uses_denials: whether make takes that section of the policy too: records of what its profiles refuse. off: the
    control where its mode is off, for what would last; None where nothing is left.
    """

    name: str
    make: Callable[..., AnyControl]
    file_type: base.FileType | None = None
    uses_denials: bool = False
    off: Callable[[Host], AnyControl | None] = lambda _: None

    @property
    def attribute(self) -> str:
        """What the control's section is called in Config."""
        return self.name.replace("-", "_")

    def section(self, config: Config) -> Any:
        """The control's section of the policy."""
        return getattr(config, self.attribute)

    def control(self, config: Config, host: Host, live: Live) -> AnyControl | None:
        """The control as the policy has it, None where it has nothing to do."""
        if self.mode(config) == "off":
            return self.off(host)
        more = (config.denials,) if self.uses_denials else ()
        return self.make(self.section(config), host, live, *more)

    def mode(self, config: Config) -> Mode | AuditMode:
        """The control's mode; an AuditMode of a control that never changes the node."""
        mode: Mode | AuditMode = self.section(config).mode
        return mode

    def profiles(self, config: Config) -> str:
        """The folder of the control's profiles in the agent's container, empty for a control without."""
        return getattr(self.section(config), "profiles", "")


class _Lazy:
    """A control whose module is imported only where its mode is not off. uses: the fields of Live that it needs."""

    def __init__(self, module: str, name: str, *uses: str) -> None:
        self.module, self._name, self._uses = f"agent.controls.{module}", name, uses

    def __call__(self, section: Any, host: Host, live: Live) -> AnyControl:
        make_one = getattr(importlib.import_module(self.module), self._name)
        control: AnyControl = make_one(section, host, **{use: getattr(live, use) for use in self._uses})
        return control


CONTROLS: tuple[ControlSpec, ...] = (
    ControlSpec("modprobe", lambda section, host, _: modprobe.ModprobeControl(section, host), modprobe.FILE_TYPE),
    ControlSpec(
        "apparmor",
        lambda section, host, _, denials: apparmor.ApparmorControl(
            section, host, visible=denials.visible, noquiet=denials.noquiet
        ),
        apparmor.FILE_TYPE,
        uses_denials=True,
        off=apparmor.restored,
    ),
    ControlSpec(
        "seccomp",
        lambda section, host, _, denials: seccomp.SeccompControl(section, host, visible=denials.visible),
        seccomp.FILE_TYPE,
        uses_denials=True,
    ),
    ControlSpec("kubelet", lambda section, host, live: KubeletControl(section, host, configz=live.configz)),
    ControlSpec("control-plane", _Lazy("control_plane", "ControlPlaneControl", "allows_anything", "flags")),
    ControlSpec("certificates", _Lazy("certificates", "CertificatesControl")),
    ControlSpec("version", _Lazy("version", "VersionControl", "versions")),
    ControlSpec("sysctl", _Lazy("sysctl", "SysctlControl")),
    ControlSpec("updates", _Lazy("updates", "UpdatesControl")),
    ControlSpec("selinux", _Lazy("selinux", "SelinuxControl")),
    ControlSpec("metadata-access", _Lazy("metadata_access", "MetadataAccessControl")),
)


class Act(Enum):
    """How far a pass goes."""

    AUDIT = "observe and judge"
    DRY_RUN = "observe, judge and plan"
    APPLY = "plan, apply and verify"


def names() -> tuple[str, ...]:
    """Every control's name, in the order in which they run."""
    return tuple(spec.name for spec in CONTROLS)


def modules(config: Config) -> list[str]:
    """The modules that the controls of this policy load later than this one."""
    return [spec.make.module for spec in CONTROLS if isinstance(spec.make, _Lazy) and spec.mode(config) != "off"]


def controls_of(
    config: Config, host: Host, live: Live = NOTHING_LIVE, *, kept: Mapping[str, AnyControl] | None = None
) -> tuple[AnyControl, ...]:
    """The controls that have something to do. live: what they may ask beyond the node's own files. kept: used again."""
    found = ((kept or {}).get(spec.name) or spec.control(config, host, live) for spec in CONTROLS)
    return tuple(control for control in found if control is not None)


def unchanged(before: Config | None, after: Config) -> Collection[str]:
    """The controls whose section is the same in two policies."""
    return [
        spec.name
        for spec in CONTROLS
        if before is not None
        and spec.section(before) == spec.section(after)
        and (not spec.uses_denials or before.denials == after.denials)
    ]


def enforced(config: Config) -> list[str]:
    """The controls that the agent itself keeps true."""
    return [spec.name for spec in CONTROLS if spec.mode(config) is Mode.ENFORCE]


def profile_kinds() -> tuple[str, ...]:
    """The controls whose profiles an operator replaces as a folder; profiles/ and the manifest have one for each."""
    return tuple(spec.name for spec in CONTROLS if spec.profiles(Config()))


def profile_folders(config: Config) -> tuple[str, ...]:
    """The folders of profiles that the policy uses now."""
    return tuple(spec.profiles(config) for spec in CONTROLS if spec.mode(config) != "off" and spec.profiles(config))


def with_folders(config: Config, places: Mapping[str, str]) -> Config:
    """The policy with other folders of profiles in place of those that `places` names."""
    moved = {
        spec.attribute: replace(spec.section(config), profiles=places[spec.profiles(config)])
        for spec in CONTROLS
        if spec.profiles(config) in places
    }
    return replace(config, **moved)


@contextlib.contextmanager
def apply_lock(host: Host) -> Iterator[None]:
    """Held while the node is changed. Raises HostError when another agent is changing it for too long.

    Where the lock file cannot be made (a read-only disk) the pass continues: each of its steps reports that itself.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HostFileError):
            stack.enter_context(host.exclusive(LOCK))
        yield


def run(
    node: str,
    controls: Sequence[AnyControl],
    act: Act,
    accepted: Sequence[AuditException] = (),
    labels: Mapping[str, str] | None = None,
) -> Report:
    """One pass. A node on which every control is off is reported as unknown, with that as the reason.

    accepted: the policy's exceptions; they change what is reported, never what is applied. labels: of the Node.
    """
    runner = {Act.AUDIT: base.audit, Act.DRY_RUN: base.dry_run, Act.APPLY: base.apply}[act]
    passes = [runner(control) for control in controls]
    findings = tuple(finding for one in passes for finding in one.findings)
    if all(getattr(control, "is_off", False) for control in controls):
        findings = (_all_off(), *findings)
    if accepted:
        findings = exceptions.applied(findings, accepted, node, labels or {}, exceptions.today())
    return Report(node, findings, tuple(change for one in passes for change in one.changes))


def _all_off() -> Finding:
    return Finding(
        id="policy/off",
        control="policy",
        title="At least one control is on",
        status=Status.UNKNOWN,
        severity=Severity.MEDIUM,
        observed="every control is off",
        expected="a control in mode enforce or audit",
        source="configuration",
        remediation=f"Set the mode of at least one of {', '.join(names())}.",
    )
