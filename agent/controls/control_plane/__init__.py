"""The control-plane control: API server, controller-manager, scheduler and etcd of this node. Audit only.

What a node without any of them pays is one look at the names of its processes; the checks are loaded where they apply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.config.node_sections import ControlPlane
from agent.controls.base import Step
from agent.errors import HostError
from agent.host import Host, Process, Program
from agent.host.budget import Budget
from agent.host.identity import CONTROL_PLANE_PROGRAMS
from agent.model import Finding, Severity, Status

if TYPE_CHECKING:
    from agent.controls.control_plane.observe import Observation

CONTROL = "control-plane"
MANIFESTS = ("/etc/kubernetes/manifests", "/var/lib/rancher/rke2/agent/pod-manifests")


class ControlPlaneControl:
    """Observes and judges; plans nothing.

    allows_anything: whether the API server allows a verb that no rule can name. flags: those of the API server at an
    address and port. Both are None where it is not to be asked.
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

    def watched(self) -> Sequence[str]:
        """Nothing: files are audited only."""
        return ()

    def observe(self) -> Observation | Finding:
        """What runs here; the one finding of a node on which no part of a control plane runs."""
        host = self._host.within(Budget())
        table = host.processes(CONTROL_PLANE_PROGRAMS)
        # What `k3s agent` and a worker's kubelite start is found out later, if need be.
        if not any(map(may_have_one, table.processes)) and not _manifests(host):
            if table.unverified:
                return _line(Status.UNKNOWN, f"some processes could not be verified: {table.unverified}")
            others = f"; {table.others} processes with such a name are not the node's own" if table.others else ""
            return _line(Status.NOT_APPLICABLE, f"no part of a control plane runs on this node{others}")
        from agent.controls.control_plane.observe import observe  # noqa: PLC0415 - a worker does without

        seen = observe(
            host, table, probing=self._config.probe, allows_anything=self._allows_anything, flags=self._flags,
            today=datetime.fromtimestamp(self._wall(), UTC).date(), known=self._known,
        )  # fmt: skip
        if seen.seen or seen.manifests:
            return seen
        return _line(Status.NOT_APPLICABLE, "no part of a control plane runs on this node")

    def judge(self, seen: Observation | Finding) -> Sequence[Finding]:
        """A finding for each check of each component."""
        if isinstance(seen, Finding):
            return (seen,)
        from agent.controls.control_plane.judge import findings  # noqa: PLC0415 - a worker does without

        return tuple(findings(seen))

    def plan(self, seen: Observation | Finding) -> Sequence[Step]:
        del seen  # audit only
        return ()


def may_have_one(process: Process) -> bool:
    """Whether a process is a part of a control plane, or may have one inside."""
    return process.program in CONTROL_PLANE_PROGRAMS and (
        process.program is not Program.K3S or process.argv[1:2] == ("server",)
    )


def _manifests(host: Host) -> bool:
    """Whether a static pod of the control plane is meant to run here."""
    for folder in MANIFESTS:
        try:
            if any("kube-apiserver" in name or name.startswith("etcd") for name in host.names(folder)):
                return True
        except HostError:
            continue
    return False


def _line(status: Status, observed: str) -> Finding:
    step = "" if status is Status.NOT_APPLICABLE else "Run the agent as root with CAP_SYS_PTRACE and hostPID: true."
    return Finding(f"{CONTROL}/process", CONTROL, "The control plane of this node", status, Severity.HIGH, observed,
                   "audited where it runs", "processes", step, section="K1")  # fmt: skip
