"""Which processes are this node's kubelet, kube-proxy, k3s or control plane: one answer for every control.

Any container can run something called kubelet, and its arguments would say which files the agent reads as root and
which ports it probes. So a process counts only when the kernel vouches for all of this, before a word of its own is
read: all of its users are root, its root directory is PID 1's, so is its mount namespace (or systemd names the unit
that it runs in), it is in no container's cgroup, and its program is a file of the node. It refuses to choose among
several that qualify.

Parts of the control plane qualify in two more ways. A static pod's cgroup has the kubelet's hash of a manifest in its
name, while a pod that comes from the API server always has a UUID, so that no user of the API makes one. And a service
of systemd's, or a child of k0s, may run them as another user (k0s, etcd's own unit).
https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/config/common.go (applyDefaults)
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agent.errors import HostError
from agent.host import systemd
from agent.host.budget import Budget, Resource
from agent.host.filesystem import opened
from agent.host.processes import ProcessEntry, boot_time, pids

if TYPE_CHECKING:
    from agent.host import Host

_INIT = 1
_ROOT_ONLY = (0, 0, 0, 0)
_DELETED = " (deleted)"
_TICKS = os.sysconf("SC_CLK_TCK")
_MAX_ANCESTORS = 32
_MAX_PROCESSES = 32  # whose arguments are kept; a container of a static pod may start any number
# What runtimes and container managers call the cgroups of containers: `kubepods.slice`, `cri-containerd-ID.scope`,
# `docker`, `libpod-ID.scope`, containerd's namespaces `k8s.io` and `moby`, systemd-nspawn's `machine.slice`.
_CONTAINER = re.compile(
    r"(kubepods|docker|podman|libpod|containerd|cri-containerd|nerdctl|crio|cri-o|lxc|lxc\.payload|lxc\.monitor|machine"
    r"|systemd-nspawn|k8s\.io|moby|buildkit|garden|runc|crun|youki|kata|gvisor|runsc)"
    r"([-_.:@].*)?|[0-9a-f]{64}"
)


# `kubepods-burstable-podUID.slice` of the systemd driver, `podUID` of the other, whatever the kubelet's own root is.
_POD = re.compile(r"(?:.*-)?pod([0-9a-f]{8}[0-9a-f_-]{24,28})(?:\.slice)?")
_NAME_BYTES = 15  # the kernel's name of a process is cut there


class Program(StrEnum):
    """A program that a control reads arguments of."""

    KUBELET = "kubelet"
    KUBELITE = "kubelite"
    K3S = "k3s"
    MICROSHIFT = "microshift"
    RKE2 = "rke2"
    KUBE_PROXY = "kube-proxy"
    API_SERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    ETCD = "etcd"
    DQLITE = "k8s-dqlite"  # what MicroK8s and Canonical Kubernetes may have in etcd's place


NODE_PROGRAMS = frozenset(
    (Program.KUBELET, Program.KUBELITE, Program.K3S, Program.MICROSHIFT, Program.RKE2, Program.KUBE_PROXY)
)
_COMPONENTS = frozenset((Program.API_SERVER, Program.CONTROLLER_MANAGER, Program.SCHEDULER, Program.ETCD))
CONTROL_PLANE_PROGRAMS = _COMPONENTS | {Program.KUBELITE, Program.K3S, Program.DQLITE}


_BY_NAME = {name: one for one in Program for name in (one.value, one.value[:_NAME_BYTES])}
_BY_NAME["hyperkube"] = Program.KUBELET  # or a component: its first argument decides


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the node, its identity verified. argv: a title written over it is split into words.

    cwd: empty when it cannot be read. started: seconds since the epoch. unit: the systemd service it belongs to.
    uid: its user.
    """

    pid: int
    program: Program
    argv: tuple[str, ...]
    cwd: str = ""
    started: float = 0.0
    unit: str = ""
    uid: int = 0


@dataclass(frozen=True, slots=True)
class ProcessTable:
    """The node's own processes. total: all that run on the node's kernel.

    others: how many carry such a name and are not the node's (another user's, a container's); nothing more is known of
    them. unverified: why the identity of at least one cannot be checked, empty when it can.
    """

    processes: tuple[Process, ...] = ()
    total: int = 0
    others: int = 0
    unverified: str = ""


@dataclass(frozen=True, slots=True)
class _Init:
    """What PID 1 is: the node itself."""

    root: tuple[int, int]
    mount_namespace: str
    cgroups: Mapping[str, str]

    @classmethod
    def read(cls, procfs: str) -> _Init:
        with ProcessEntry(procfs, _INIT) as entry:
            return cls(entry.root(), entry.mount_namespace(), entry.cgroups())


def survey(host: Host, procfs: str, budget: Budget, programs: frozenset[Program] = NODE_PROGRAMS) -> ProcessTable:
    """Every process of the node that runs one of the programs. Raises HostError when none can be listed."""
    total, candidates, unverified = _candidates(procfs, budget, programs)
    others = 0
    if not candidates:
        return ProcessTable(total=total, unverified=unverified)
    try:
        init, boot = _Init.read(procfs), boot_time(procfs)
    except (OSError, ValueError, HostError) as error:
        why = f"PID 1 cannot be compared with: {_reason(error)}; run as root, with CAP_SYS_PTRACE"
        return ProcessTable(total=total, others=len(candidates), unverified=why)
    found: dict[int, Process] = {}
    parents: dict[int, int] = {}
    for pid in candidates:
        budget.check_time("/proc")
        try:
            with ProcessEntry(procfs, pid) as entry:
                if not _is_of_node(host, entry, init):
                    others += 1
                elif len(found) == _MAX_PROCESSES:
                    unverified = f"more than {_MAX_PROCESSES} carry such names"
                    break
                elif (process := _process(entry, boot)) and process.program in programs:
                    found[pid] = process
                    parents[pid] = entry.parent_and_start()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        except (OSError, ValueError, IndexError, HostError) as error:
            unverified = _reason(error)
    wrappers = {one for pid in found for one in _ancestors(procfs, parents[pid]) if _same(found, one, pid)}
    kept = tuple(found[pid] for pid in sorted(found) if pid not in wrappers)
    return ProcessTable(kept, total, others, unverified)


def _candidates(procfs: str, budget: Budget, programs: frozenset[Program]) -> tuple[int, list[int], str]:
    """How many processes there are, those that may run one of the programs, and why that is unknown of any.

    Raises HostError.
    """
    total, found, unknown = 0, list[int](), ""
    try:
        for pid in pids(procfs):
            budget.spend(Resource.PROCESSES, 1, "/proc")
            total += 1
            try:
                if _is_candidate(procfs, pid, programs):
                    found.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended, or it is a kernel thread
            except OSError as error:
                unknown = f"the program of process {pid} cannot be looked at: {error.strerror}"
    except OSError as error:
        raise HostError(f"cannot list /proc: {error.strerror}") from error
    if not total:
        raise HostError("no process in /proc: the node's procfs is not mounted below the host root")
    return total, found, unknown


def is_running(procfs: str, process: Process) -> bool:
    """Whether this process, and not another one with its number, runs now."""
    try:
        with ProcessEntry(procfs, process.pid) as entry:
            return _started(entry, boot_time(procfs)) == process.started and bool(entry.arguments())
    except (OSError, ValueError, IndexError, HostError):
        return False


def program_named(name: str) -> Program | None:
    """The program that an executable's file name stands for, as distributions wrap and suffix it."""
    plain = name.removeprefix(".").removesuffix("-wrapped")
    if plain in ("k3s-server", "k3s-agent", "rke2-server", "rke2-agent"):
        plain = plain.partition("-")[0]
    return _BY_NAME.get(plain)


def _program(entry: ProcessEntry) -> Program | None:
    """By the name of what was executed (a wrapper script has its own), else by the file that it is."""
    if known := program_named(entry.name()):
        return known
    try:
        return _named_by(entry.executable())
    except OSError:  # a kernel thread, or another user's process: only its name is readable
        return None


def _named_by(executable: str) -> Program | None:
    return program_named(executable.removesuffix(_DELETED).rpartition("/")[2])


def _is_candidate(procfs: str, pid: int, programs: frozenset[Program]) -> bool:
    """By its names alone, and cheaply: every process of the node is considered in every pass. Raises OSError."""
    with opened(f"{procfs}/{pid}/comm", os.O_RDONLY | os.O_NONBLOCK) as fd:
        name = os.read(fd, 4 * _NAME_BYTES).decode(errors="replace").removesuffix("\n")
    if known := program_named(name):
        return known in programs or name == "hyperkube"
    return _named_by(os.readlink(f"{procfs}/{pid}/exe")) in programs


def _is_of_node(host: Host, entry: ProcessEntry, init: _Init) -> bool:
    """The rule of this module. Raises OSError, ValueError, HostError where the kernel does not answer."""
    cgroups = entry.cgroups()
    is_component = _program(entry) in _COMPONENTS or entry.name() == "hyperkube"
    if is_component and _is_static_pod(cgroups, init.cgroups):
        return True
    if in_container(cgroups, init.cgroups) or entry.root() != init.root:
        return False
    if entry.uids() != _ROOT_ONLY and not (is_component and _is_service(host, entry, cgroups, init.cgroups)):
        return False
    if not _is_file_of_node(host, entry.executable()):
        return False
    # A unit may have a mount namespace of its own (PrivateTmp=, ProtectSystem=): systemd has to know it.
    return entry.mount_namespace() == init.mount_namespace or bool(_unit(host, cgroups, init.cgroups))


def in_container(cgroups: Mapping[str, str], init: Mapping[str, str]) -> bool:
    """Whether any hierarchy has the process in a container, or outside of what PID 1 governs.

    Paths are relative to the reader's cgroup namespace: from inside a pod, the node's own begin with PID 1's `/../..`,
    and what does not is in the agent's own pod or beside it. Beside an agent that docker or nerdctl started are the
    services of system.slice: a path that names a service and no container is none.
    """
    for hierarchy, path in cgroups.items():
        governs = init.get(hierarchy, "/")
        below = _below(path, governs)
        if below is None:
            *above, last = _beside(path, governs) or ("",)
            if not any(part.endswith(".service") for part in (*above, last)):
                return True
            if any(map(_CONTAINER.fullmatch, above)):
                return True
            below = [last]
        if any(_CONTAINER.fullmatch(part) and not part.endswith(".service") for part in below):
            return True
    return not cgroups


def service_of(cgroups: Mapping[str, str], init: Mapping[str, str]) -> str:
    """The node's own service that a process is part of, `init.scope` for systemd itself; empty for all others.

    The outermost counts: a service may name the cgroups below its own as it likes, and so may a user.
    """
    parts, _ = _unit_path(cgroups, init)
    if in_container(cgroups, init) or parts[:1] == ["user.slice"]:
        return ""
    return parts[0] if parts == ["init.scope"] else next(filter(systemd.is_service, parts), "")


def _is_static_pod(cgroups: Mapping[str, str], init: Mapping[str, str]) -> bool:
    """Whether every hierarchy that has the process in a pod has it in one that a manifest of this node made."""
    found = set()
    for hierarchy, path in cgroups.items():
        governs = init.get(hierarchy, "/")
        pods = (_POD.fullmatch(part) for part in _below(path, governs) or _beside(path, governs))
        found |= {pod[1].isalnum() for pod in itertools.islice(filter(None, pods), 1)}
    return found == {True}


def _is_service(host: Host, entry: ProcessEntry, cgroups: Mapping[str, str], init: Mapping[str, str]) -> bool:
    """Whether systemd started it as its unit's main process, or k0s did, as another user than root."""
    parent = entry.parent_and_start()[0]
    shown = _unit(host, cgroups, init)
    by_k0s = shown.get("MainPID") == str(parent) and "k0s" in shown.get("ControlGroup", "")
    return shown.get("MainPID") == str(entry.pid) or by_k0s


def _below(path: str, init: str) -> list[str] | None:
    """The parts of a cgroup's path below the one that holds PID 1's; None when it is elsewhere."""
    base = [part for part in init.removesuffix("/init.scope").split("/") if part]
    parts = [part for part in path.split("/") if part]
    if parts[: len(base)] != base:
        return None
    return None if ".." in parts[len(base) :] else parts[len(base) :]


def _beside(path: str, init: str) -> list[str]:
    """The parts of a path that leads to something beside a cgroup above the agent's own: from its first part on that is
    known. What is in the agent's own cgroup, and what PID 1 governs from the top, is not beside it."""
    base, parts = ([part for part in one.split("/") if part] for one in (init.removesuffix("/init.scope"), path))
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    rest = parts[up:]
    return rest if 0 < up < len(base) and set(base) == {".."} and ".." not in rest else []


def _is_file_of_node(host: Host, executable: str) -> bool:
    """Whether a program is a file of the node's tree, or was one until its package was upgraded. Raises HostError."""
    if not executable.startswith("/") or executable.startswith("/memfd:"):
        return False
    inside = executable.startswith(f"{host.root}/")  # a tree whose processes run outside of it
    path = executable.removeprefix(host.root) if inside else executable
    return path.endswith(_DELETED) or (host.exists(path) and host.is_file(path))


def _unit(host: Host, cgroups: Mapping[str, str], init: Mapping[str, str]) -> Mapping[str, str]:
    """What systemd has of the unit that the cgroup is; empty when it knows it at another place."""
    parts, hidden = _unit_path(cgroups, init)
    shown = systemd.show(host, systemd.unit_of("/".join(parts)), "ControlGroup", "MainPID")
    found = shown.get("ControlGroup", "").split("/")[1:]
    return shown if parts and found[hidden:] == parts and len(found) == hidden + len(parts) else {}


def _unit_path(cgroups: Mapping[str, str], init: Mapping[str, str]) -> tuple[list[str], int]:
    """The parts of the path in systemd's hierarchy, and how many before them are hidden beside the agent's own."""
    hierarchy = "name=systemd" if "name=systemd" in cgroups else ""
    path, governs = cgroups.get(hierarchy, ""), init.get(hierarchy, "/")
    below = _below(path, governs)
    return (below, 0) if below is not None else (_beside(path, governs), governs.count("..") - path.count(".."))


def _process(entry: ProcessEntry, boot: float) -> Process | None:
    """The process with its own words, which may be read now; None when it is in another role (`k3s kubectl`)."""
    program = _program(entry)
    argv = _words(entry.arguments())
    if program is None or not argv:
        return None  # ended, or became something else
    is_server = argv[1:2] in (("server",), ("agent",))
    if program in (Program.K3S, Program.RKE2) and not is_server:
        return None
    if argv[0].rpartition("/")[2] == "hyperkube":
        program = next((one for one in (Program.KUBELET, *_COMPONENTS) if argv[1:2] == (one.value,)), None)
        if program is None:
            return None
    cgroups = entry.cgroups()
    unit = systemd.unit_of(cgroups.get("name=systemd") or cgroups.get("", ""))
    return Process(entry.pid, program, argv, entry.working_directory(), _started(entry, boot), unit,
                   entry.uids()[1])  # fmt: skip


def _words(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments; a title that the process has written over them is split at its blanks."""
    if argv and " " in argv[0] and not any(argv[1:]):
        return tuple(argv[0].split())
    return argv if any(argv) else ()


def _started(entry: ProcessEntry, boot: float) -> float:
    return boot + entry.parent_and_start()[1] / _TICKS


def _ancestors(procfs: str, pid: int) -> list[int]:
    found: list[int] = []
    while pid > _INIT and len(found) < _MAX_ANCESTORS:
        found.append(pid)
        try:
            with ProcessEntry(procfs, pid) as entry:
                pid = entry.parent_and_start()[0]
        except (OSError, ValueError, IndexError, HostError):
            break
    return found


def _same(found: Mapping[int, Process], ancestor: int, pid: int) -> bool:
    """A wrapper that did not exec and its child are one, and the child is the one that runs."""
    return ancestor in found and found[ancestor].program is found[pid].program


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
