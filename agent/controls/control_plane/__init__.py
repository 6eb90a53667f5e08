"""The control-plane control: API server, controller-manager, scheduler and etcd of this node. Audit only.

What a node without any of them pays is one look at the names of its processes; the checks are loaded where they apply.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.config.node_sections import ControlPlane
from agent.controls.base import AuditOnly
from agent.controls.kubelet import discovery, effective, fields
from agent.errors import HostError, HostFileMissing
from agent.host import Host, Process, ProcessTable, Program
from agent.host.budget import Budget
from agent.host.identity import CONTROL_PLANE_PROGRAMS
from agent.model import Finding, Severity, Status

if TYPE_CHECKING:
    from agent.controls.control_plane.observe import Observation

CONTROL = "control-plane"
# Where static pods usually are: kubeadm's folder and RKE2's. A kubelet that runs decides itself.
_USUAL = ("/etc/kubernetes/manifests", "/var/lib/rancher/rke2/agent/pod-manifests")
_COMPONENTS = CONTROL_PLANE_PROGRAMS - {Program.KUBELITE, Program.K3S}
_PROGRAMS = CONTROL_PLANE_PROGRAMS | {Program.KUBELET}


@dataclass(frozen=True, slots=True)
class StaticPods:
    """The manifests of the control plane by program. problem: why not all of their places are known."""

    manifests: Mapping[Program, str]
    problem: str = ""


class ControlPlaneControl(AuditOnly):
    """Observes and judges.

    allows_anything: whether the API server allows a verb that no rule can name. flags: those of the API server at an
    address and port, for one run of it. Each is None where it must not be asked.
    """

    name = CONTROL

    def __init__(
        self,
        config: ControlPlane,
        host: Host,
        *,
        allows_anything: Callable[[], bool | None] | None = None,
        flags: Callable[[str, int, str], Mapping[str, str]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._host, self._allows_anything, self._flags = config, host, allows_anything, flags
        self._wall = wall
        self._known: dict[Process, str] = {}

    def observe(self) -> Observation | Finding:
        """What runs here; the one finding of a node on which no part of a control plane runs."""
        host = self._host.within(Budget())
        table = host.processes(_PROGRAMS)
        places = static_pods(host, table)
        # What `k3s agent` and a worker's kubelite start is found out later, if need be.
        if not any(map(may_have_one, table.processes)) and not places.manifests:
            if table.unverified:
                return _line(Status.UNKNOWN, f"some processes could not be verified: {table.unverified}")
            others = f"; {table.others} processes with such a name are not the node's own" if table.others else ""
            return _line(Status.NOT_APPLICABLE, f"no part of a control plane runs on this node{others}")
        from agent.controls.control_plane.observe import observe  # noqa: PLC0415 - a worker does without

        seen = observe(
            host, table, places, probing=self._config.probe, allows_anything=self._allows_anything, flags=self._flags,
            today=datetime.fromtimestamp(self._wall(), UTC).date(), known=self._known,
        )  # fmt: skip
        if seen.seen or places.manifests:
            return seen
        return _line(Status.NOT_APPLICABLE, "no part of a control plane runs on this node")

    def judge(self, seen: Observation | Finding) -> Sequence[Finding]:
        """A finding for each check of each component."""
        if isinstance(seen, Finding):
            return (seen,)
        from agent.controls.control_plane.judge import findings  # noqa: PLC0415 - a worker does without

        return tuple(findings(seen))


def may_have_one(process: Process) -> bool:
    """Whether a process is a part of a control plane, or may have one inside."""
    return process.program in CONTROL_PLANE_PROGRAMS and (
        process.program is not Program.K3S or process.argv[1:2] == ("server",)
    )


def static_pods(host: Host, table: ProcessTable) -> StaticPods:
    """By the folder, or the one file, that each kubelet of the node really reads; the usual ones without a kubelet."""
    launches = discovery.search(host, table).launches
    paths, problem = ([*_USUAL], "") if not launches else ([], "")
    for launch in launches:
        config = effective.read(host, launch.flags, launch.process.cwd, doubt=launch.doubt)
        setting = config.get(fields.STATIC_PODS)
        problem = setting.problem or problem
        paths += _USUAL if setting.problem else [config.path(fields.STATIC_PODS)]
    found: dict[Program, str] = {}
    for path in filter(None, dict.fromkeys(paths)):
        try:
            files = [path] if host.is_file(path) else [f"{path}/{name}" for name in host.names(path)]
        except HostFileMissing:
            continue
        except HostError as error:
            problem = str(error)
            continue
        for file in files:
            stem = posixpath.basename(file).rpartition(".")[0].removeprefix("talos-").removesuffix("-pod")
            if stem in _COMPONENTS:
                found.setdefault(Program(stem), file)
    return StaticPods(found, problem)


def _line(status: Status, observed: str) -> Finding:
    step = "" if status is Status.NOT_APPLICABLE else "Run the agent as root with CAP_SYS_PTRACE and hostPID: true."
    return Finding(f"{CONTROL}/process", CONTROL, "The control plane of this node", status, Severity.HIGH, observed,
                   "audited where it runs", "processes", step, section="K1")  # fmt: skip
