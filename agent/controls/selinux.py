"""SELinux where it is the node's: its mode, who may make the kernel load modules, containers without a domain.

Report only: `setsebool -P` rebuilds the policy, and daemons of the node rely on module_request. Nothing is judged on a
node without SELinux; there the modprobe control is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.config.node_sections import Selinux
from agent.controls.base import AuditOnly
from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host
from agent.model import Finding, Severity, Status
from agent.text import join_limited, sanitize

CONTROL = "selinux"
_FS = "/sys/fs/selinux"
# domain_kernel_load_modules lets every domain ask; on by default in Fedora's policy since 2022-09, so in RHEL 9.
_BOOLEAN = f"{_FS}/booleans/domain_kernel_load_modules"
_COLONS = 3  # user:role:domain:level
_UNCONFINED = ("unconfined_t", "container_runtime_t", "unconfined_service_t", "kernel_t", "init_t")


@dataclass(frozen=True, slots=True)
class Observation:
    """enforce: `1`, `0`, empty without SELinux. boolean: `1 1` (running, pending). Each may be a problem instead.

    labels: the domain of one process of each container, None where they cannot be read.
    """

    enforce: str = ""
    boolean: str = ""
    labels: tuple[str, ...] | None = None
    problem: str = ""


class SelinuxControl(AuditOnly):
    """One node's SELinux."""

    name = CONTROL

    def __init__(self, config: Selinux, host: Host) -> None:
        del config
        self._host = host

    def observe(self) -> Observation:
        """A few small files. Raises HostFileError when it is unknown whether there is SELinux."""
        try:
            enforce = self._read(f"{_FS}/enforce")
        except HostFileMissing:
            return Observation()
        try:
            boolean = self._read(_BOOLEAN)
        except HostFileMissing:
            boolean = "absent"
        except HostFileError as error:
            return Observation(enforce, problem=str(error))
        try:
            return Observation(enforce, boolean, tuple(one.label for one in self._host.containers()))
        except HostError as error:
            return Observation(enforce, boolean, problem=str(error))

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """Mode, module_request, containers; one line without SELinux."""
        if not seen.enforce:
            return (_finding("mode", Status.NOT_APPLICABLE, "the kernel runs without SELinux"),)
        if seen.enforce not in ("0", "1"):
            return (_finding("mode", Status.UNKNOWN, f"{_FS}/enforce holds {seen.enforce!r}"),)
        enforcing = seen.enforce == "1"
        mode = _finding("mode", Status.PASS, "enforcing") if enforcing else _PERMISSIVE
        return (mode, _module_request(seen, enforcing=enforcing), _containers(seen))

    def _read(self, path: str) -> str:
        return self._host.read_text(path, limit_bytes=64).strip("\0\n ")


def _module_request(seen: Observation, *, enforcing: bool) -> Finding:
    if seen.boolean == "absent":
        observed = "this policy has no boolean domain_kernel_load_modules; sesearch shows who may ask"
        return _finding("module-request", Status.UNKNOWN, observed, "sesearch -A -c system -p module_request")
    if not seen.boolean:
        return _finding("module-request", Status.UNKNOWN, seen.problem)
    running, _, pending = seen.boolean.partition(" ")
    if running == "0" and enforcing:
        later = "" if pending == "0" else f", {sanitize(pending, 8)} pending"
        return _finding("module-request", Status.PASS, f"domain_kernel_load_modules is off{later}")
    why = "domain_kernel_load_modules is on" if running != "0" else "off, but SELinux is permissive"
    step = (
        "The modprobe control denies modules by name; or test `setsebool domain_kernel_load_modules off` on one node."
    )
    return _finding("module-request", Status.FAIL, why, step)


def _containers(seen: Observation) -> Finding:
    if seen.labels is None:
        return _finding("containers", Status.UNKNOWN, seen.problem)
    if not seen.labels:
        return _finding("containers", Status.NOT_APPLICABLE, "no container runs")
    loose = [label for label in seen.labels if label.split(":")[2:3] and label.split(":")[2] in _UNCONFINED]
    strange = sum(label.count(":") < _COLONS for label in seen.labels)
    if not loose and strange:
        return _finding(
            "containers", Status.UNKNOWN, f"{strange} of {len(seen.labels)} containers have no SELinux label"
        )
    if not loose:
        return _finding("containers", Status.PASS, f"{len(seen.labels)} containers, each in a domain of its own")
    observed = f"{len(loose)} of {len(seen.labels)} containers run as {join_limited(sorted(set(loose)))}"
    step = "Set enable_selinux = true in containerd's configuration (selinux-enabled of Docker), and restart it."
    return _finding("containers", Status.FAIL, sanitize(observed, 400), step)


_ROWS = {
    "mode": ("SELinux is enforcing", Severity.LOW, "enforcing"),
    "module-request": ("Containers cannot make the kernel load modules", Severity.LOW, "off, and enforcing"),
    "containers": ("Containers run in SELinux domains", Severity.MEDIUM, "container_t and the like"),
}


def _finding(name: str, status: Status, observed: str, step: str = "") -> Finding:
    title, severity, expected = _ROWS[name]
    return Finding(f"{CONTROL}/{name}", CONTROL, title, status, severity, observed, expected, _FS, step, section="K7")


_PERMISSIVE = _finding(
    "mode", Status.FAIL, "permissive: violations are logged and allowed", "setenforce 1, and SELINUX=enforcing in "
    "/etc/selinux/config, after its log is clean",
)  # fmt: skip
