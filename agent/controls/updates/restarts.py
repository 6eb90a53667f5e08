"""Services that still run a program or library which an update has replaced: they have its faults until a restart.

Read are the mapped files of the node's own services, which the kernel lists; those of containers and of users' sessions
are left out, and so is what no package installs (/tmp, memory files, code that a program compiles for itself).
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import HostError, HostFileError
from agent.host import Host
from agent.host.budget import Budget, Resource
from agent.host.identity import service_of
from agent.host.processes import ProcessEntry, pids

_INIT = 1
_SECONDS = 5.0
_WAIT_SECONDS = 6.0
# Executable mappings: `7f1c… r-xp 00001000 fe:01 1311 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)`
_REPLACED = re.compile(rb"^\S+ ..x\S (?:\S+ ){3} *(/(?:usr|lib\w*|s?bin|opt)/[^\n]*) \(deleted\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Restarts:
    """total: services that run. outdated: those that need a restart, with the names of the files.

    unread: those of which a process could not be read, with the reason.
    """

    total: int
    outdated: Mapping[str, tuple[str, ...]]
    unread: Mapping[str, str]


class Survey:
    """One node's services. A reading has a thread of its own: the kernel makes it wait for the memory of a process that
    hangs (a dead NFS server's files), and the pass continues without it."""

    def __init__(self, host: Host, *, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._host, self._wait_seconds = host, wait_seconds
        self._thread: threading.Thread | None = None
        self._found: Restarts | HostError | None = None
        self._at = "/proc"

    def read(self) -> Restarts:
        """One reading of all processes. Raises HostError: they cannot be listed, cost too much, or one hangs."""
        if self._thread is None or not self._thread.is_alive():
            self._found = None
            self._thread = threading.Thread(target=self._run, name="updates-restarts", daemon=True)
            self._thread.start()
        self._thread.join(self._wait_seconds)
        if isinstance(self._found, Restarts):
            return self._found
        raise self._found or HostError(f"reading {self._at} takes longer than {self._wait_seconds:g} s: it hangs")

    def _run(self) -> None:
        try:
            self._found = self._survey()
        except HostError as error:
            self._found = error

    def _survey(self) -> Restarts:
        budget = Budget(seconds=_SECONDS)
        names: dict[str, set[str]] = {}
        unread: dict[str, str] = {}
        try:
            with ProcessEntry(self._host.procfs, _INIT) as init:
                governs = init.cgroups()
            for pid in pids(self._host.procfs):
                budget.spend(Resource.PROCESSES, 1, "/proc")
                self._at = f"/proc/{pid}"
                service, mapped, problem = self._read(pid, governs)
                if problem:
                    unread[service or f"process {pid}"] = problem
                elif service:
                    budget.spend(Resource.BYTES, len(mapped), f"the mapped files of {service}")
                    replaced = {path.decode(errors="replace") for path in _REPLACED.findall(mapped)}
                    names.setdefault(service, set()).update(map(posixpath.basename, replaced))
        except OSError as error:
            raise HostError(f"cannot list the services: {error.strerror}") from error
        outdated = {service: tuple(sorted(found)) for service, found in sorted(names.items()) if found}
        return Restarts(len(names), outdated, unread)

    def _read(self, pid: int, governs: Mapping[str, str]) -> tuple[str, bytes, str]:
        """The service of a process (empty for all others, and when it has ended), its mapped files, why not."""
        service = ""
        try:
            with ProcessEntry(self._host.procfs, pid) as entry:
                service = service_of(entry.cgroups(), governs)
                return service, entry.mappings() if service else b"", ""
        except (FileNotFoundError, ProcessLookupError):
            return "", b"", ""
        except (OSError, HostFileError) as error:
            problem = HostFileError.of("read", f"/proc/{pid}", error) if isinstance(error, OSError) else error
            return service, b"", str(problem)
