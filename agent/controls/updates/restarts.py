"""Services that still run a program or library which an update has replaced: they have its faults until a restart.

Read are the mapped files of the node's own services, which the kernel lists; those of containers and of users' sessions
are left out, and so is what no package installs (/tmp, memory files, code that a program compiles for itself).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import HostError, HostFileError
from agent.host import Host
from agent.host.budget import Budget, Resource
from agent.host.identity import service_of
from agent.host.processes import ProcessEntry, pids

_INIT = 1
_SECONDS = 2.0
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


def survey(host: Host) -> Restarts:
    """One reading of all processes. Raises HostError where they cannot be listed, or cost more than a reading may."""
    budget = Budget(seconds=_SECONDS)
    names: dict[str, set[str]] = {}
    unread: dict[str, str] = {}
    try:
        with ProcessEntry(host.procfs, _INIT) as init:
            governs = init.cgroups()
        for pid in pids(host.procfs):
            budget.spend(Resource.PROCESSES, 1, "/proc")
            service = ""
            try:
                with ProcessEntry(host.procfs, pid) as entry:
                    service = service_of(entry.cgroups(), governs)
                    mapped = entry.mappings() if service else b""
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended
            except (OSError, HostFileError) as error:
                problem = HostFileError.of("read", f"/proc/{pid}", error) if isinstance(error, OSError) else error
                unread[service or f"process {pid}"] = str(problem)
                continue
            if service:
                budget.spend(Resource.BYTES, len(mapped), f"the mapped files of {service}")
                replaced = {path.decode(errors="replace") for path in _REPLACED.findall(mapped)}
                names.setdefault(service, set()).update(map(posixpath.basename, replaced))
    except OSError as error:
        raise HostError(f"cannot list the services: {error.strerror}") from error
    outdated = {service: tuple(sorted(found)) for service, found in sorted(names.items()) if found}
    return Restarts(len(names), outdated, unread)
