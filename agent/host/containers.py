"""The containers of the node, as the kernel shows them: one process of each, its network namespace and its label.

Nothing that a container claims of itself is read. A namespace without a process is no pod; PID 1's own is the node's.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import HostError, HostFileError
from agent.host.budget import Budget, Resource
from agent.host.identity import in_container
from agent.host.processes import ProcessEntry, pids

_INIT = 1
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Container:
    """pid: of one of its processes. network: `net:[4026532281]`, empty where it is the node's own.

    path: leads to that namespace. label: of SELinux or AppArmor, empty without.
    """

    pid: int
    network: str
    path: str
    label: str


def survey(procfs: str, budget: Budget) -> tuple[Container, ...]:
    """One process of each container. Raises HostError when processes cannot be listed or compared with PID 1."""
    found: dict[int, Container] = {}
    try:
        with ProcessEntry(procfs, _INIT) as init:
            governs, own = init.cgroups(), init.network_namespace()
        for pid in pids(procfs):
            budget.spend(Resource.PROCESSES, 1, "/proc")
            try:
                with ProcessEntry(procfs, pid) as entry:
                    cgroups = entry.cgroups()
                    key = hash(tuple(cgroups.values()))  # paths are as long as a container makes them
                    if key in found or not cgroups or not in_container(cgroups, governs):
                        continue
                    if len(found) >= _MOST:
                        raise HostError(f"more than {_MOST} containers")
                    network = entry.network_namespace()
                    found[key] = Container(
                        pid, "" if network == own else network, f"{procfs}/{pid}/ns/net", entry.label()
                    )
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended
            except (OSError, HostFileError) as error:
                raise HostError(f"the container of process {pid} is unknown: {error}") from error
    except OSError as error:
        raise HostError(f"cannot list the containers: {error.strerror}") from error
    return tuple(found.values())
