"""Audit records of a sandboxed node: what the seccomp profiles of its containers log and refuse, as a kernel has it.

Agents of a sandbox read these instead of the machine's own, which are of no container of theirs. The containers' calls
are made up; profiles are read where the agent installed them. It refuses to start or to filter any process.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from agent.denials import syscall_names
from agent.denials.netlink import AuditSocket, ProcessEvents
from agent.denials.observer import Sources
from agent.denials.own_record import NUMBER
from agent.denials.records import SECCOMP
from agent.sandbox.machines import Machine
from agent.sandbox.noderoot import NodeRoot

_ARCH: Final = 0xC000003E
_MESSAGE_BYTES = 64 << 10
_EVERY_SECONDS = 3.0
_FIRST_PID = 20000
_PROFILES = "/var/lib/kubelet/seccomp"
_LOGGED = 0x7FFC0000
# SECCOMP_RET_* by action; ERRNO leaves a record with the log flag alone.
_CODES: Final = {"SCMP_ACT_LOG": _LOGGED, "SCMP_ACT_ERRNO": 0x50001, "SCMP_ACT_KILL_PROCESS": 0x80000000}
_LOG_FLAG = "SECCOMP_FILTER_FLAG_LOG"
_MORE_CALLS = "SYSCALLS"  # the environment variable of a container that names more of them
_CALLS: Final = """accept4 access arch_prctl bind brk capset clone close connect dup2 epoll_create1 epoll_ctl epoll_wait
    execve exit_group fcntl fstat futex getdents64 getpid getrandom getsockname ioctl listen lseek mmap mprotect munmap
    newfstatat openat prctl pread64 prlimit64 read recvfrom rt_sigaction rt_sigprocmask rt_sigreturn sendfile sendto
    setresgid setresuid setsockopt set_robust_list set_tid_address socket uname write writev"""


def sources(inbox: int, outbox: int) -> Sources:
    """What the kernel of a sandboxed node offers its agent. inbox, outbox: descriptors, see AuditedMachine."""

    def own_record(name: str) -> None:
        os.write(outbox, _record(os.getpid(), name, NUMBER, _LOGGED))

    def no_events() -> ProcessEvents:
        raise OSError("a sandboxed node has no process events")

    return Sources(lambda: EmulatedAudit(inbox), no_events, lambda: None, own_record)


class EmulatedAudit(AuditSocket):
    """Records from now on: a message holds the records of one container, a line each, without their headers."""

    _serials = itertools.count(1)

    def __init__(self, inbox: int) -> None:
        self._socket = socket.socket(fileno=os.dup(inbox))
        self._socket.setblocking(False)
        self._read: deque[bytes] = deque()
        while self.read() is not None:
            pass

    def read(self) -> tuple[int, bytes] | None:
        """Type and text of the next."""
        if not self._read:
            try:
                self._read.extend(self._socket.recv(_MESSAGE_BYTES).splitlines())
            except BlockingIOError:
                return None
        header = f"audit({time.time():.3f}:{next(self._serials)}): "
        return SECCOMP, header.encode() + self._read.popleft()


class AuditedMachine(Machine):
    """A machine whose agent, once started, gets the records that are written into `outbox`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._inbox, self.outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.outbox.setblocking(False)

    @property
    def program(self) -> tuple[str, ...]:
        """See Machine."""
        return ("agent.cli.sandboxed", *map(str, self.descriptors))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """See Machine."""
        return (self._inbox.fileno(), self.outbox.fileno())

    def stop(self) -> None:
        """See Machine."""
        super().stop()
        self._inbox.close()
        self.outbox.close()


class Containers:
    """The pods of machines as their kernels see them: a process, a log, and calls every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0
        self._pids: dict[str, int] = {}
        self._numbers = {name: number for number, name in syscall_names.names(_ARCH).items()}

    def step(self, machines: Iterable[AuditedMachine], pods: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Makes calls, if it is time."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + _EVERY_SECONDS
        running = [one for one in pods() if one.get("status", {}).get("phase") == "Running"]
        for machine in machines:
            own = [one for one in running if one["spec"].get("nodeName") == machine.name]
            found = [(pod, container) for pod in own for container in pod["spec"]["containers"]]
            self._forget(machine.root, [_id(*one) for one in found])
            for pod, container in found:
                self._call(machine, pod, container)

    def _call(self, machine: AuditedMachine, pod: dict[str, Any], container: dict[str, Any]) -> None:
        profile = _profile(machine.root, pod["spec"], container)
        extra = next((one.get("value", "") for one in container.get("env", []) if one["name"] == _MORE_CALLS), "")
        pid = self._start(machine.root, pod, container)
        comm = container["name"][:15]
        lines = [
            _record(pid, comm, self._numbers[name], code)
            for name in f"{_CALLS} {extra}".split()
            if name in self._numbers and (code := _code(profile, name))
        ]
        if lines:
            try:
                machine.outbox.send(b"\n".join(lines))
            except OSError:
                return  # no agent reads: the kernel's queue is full

    def _start(self, root: NodeRoot, pod: dict[str, Any], container: dict[str, Any]) -> int:
        uid, id_ = pod["metadata"]["uid"], _id(pod, container)
        pid = self._pids.setdefault(id_, _FIRST_PID + len(self._pids))
        scope = f"kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{id_}.scope"
        root.write(f"/proc/{pid}/cgroup", f"0::/kubepods.slice/{scope}\n")
        name = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}_{container['name']}"
        root.write(f"/var/log/containers/{name}-{id_}.log", "")
        return pid

    def _forget(self, root: NodeRoot, running: list[str]) -> None:
        for id_, pid in self._pids.items():
            if id_ not in running:
                shutil.rmtree(root.at(f"/proc/{pid}"), ignore_errors=True)


def _id(pod: dict[str, Any], container: dict[str, Any]) -> str:
    return hashlib.sha256(f"{pod['metadata']['uid']}/{container['name']}".encode()).hexdigest()


def _profile(root: NodeRoot, spec: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """The Localhost profile of a container; one that allows everything where it has another or none."""
    contexts = (one.get("securityContext") or {} for one in (container, spec))
    try:
        named = next(one["seccompProfile"] for one in contexts if one.get("seccompProfile"))
        found = json.loads(root.at(f"{_PROFILES}/{named['localhostProfile']}").read_text())
    except (StopIteration, KeyError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _code(profile: dict[str, Any], name: str) -> int:
    """SECCOMP_RET_* of a call that leaves a record, else 0. Rules about arguments are left out."""
    action = next((rule["action"] for rule in _rules(profile) if name in rule.get("names", ())), "")
    code = _CODES.get(action or profile.get("defaultAction", ""), 0)
    return 0 if code == _CODES["SCMP_ACT_ERRNO"] and _LOG_FLAG not in profile.get("flags", ()) else code


def _rules(profile: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (rule for rule in profile.get("syscalls", []) if not rule.get("args"))


def _record(pid: int, comm: str, number: int, code: int) -> bytes:
    who = f'auid=4294967295 uid=0 gid=0 ses=4294967295 subj=unconfined pid={pid} comm="{comm}" exe="/"'
    return f"{who} sig=0 arch={_ARCH:x} syscall={number} compat=0 ip=0x0 code={code:#x}".encode()
