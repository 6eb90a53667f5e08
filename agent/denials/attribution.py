"""From a process to the container that it runs in, and from there to names, without the API server.

The kernel's cgroup path has the pod's UID and the container's id; the kubelet's links to container logs have the names.
A process that ended before its record was read has no /proc any more: after the first of those the kernel reports
processes as they begin, until it is quiet again. It refuses to inherit anything but a pod's cgroup: a runtime's first
process is forked in the host's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from agent.denials.netlink import FORK, ProcessEvents
from agent.denials.records import label_of
from agent.errors import HostError
from agent.host import Host
from agent.host.filesystem import opened
from agent.host.processes import pids

K = TypeVar("K")
V = TypeVar("V")

_FILE_BYTES = 8192
# `kubepods-burstable-podUID.slice/cri-containerd-ID.scope`, `/kubepods/besteffort/podUID/ID`; from a cgroup namespace
# of a container's own `/../..` stands for what is above it. Searched, not anchored: kind and --cgroup-root put more
# before it. The first pod of a path is the kubelet's; a container may make cgroups of any name below its own.
# https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/kubelet/cm/cgroup_manager_linux.go
_CONTAINER = re.compile(
    rb"(?:kubepods|/\.\./)[^\n]*?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?/"
    rb"(?:cri-containerd-|crio-|docker-)?([0-9a-f]{64})\b"
)
_LOG = re.compile(r"([a-z0-9.-]{1,253})_([a-z0-9-]{1,63})_([a-z0-9-]{1,63})-([0-9a-f]{64})\.log")
_POD_FOLDER = re.compile(r"([a-z0-9-]{1,63})_([a-z0-9.-]{1,253})_([0-9a-f-]{32,36})")
_LOGS, _PODS = "/var/log/containers", "/var/log/pods"
_PROCESSES_KEPT = _PROCESSES_READ = 8192
_NAMES_KEPT = 1024
_ANCESTORS = 16
# A number is not read again within the first; within the second it still means the same process when that has ended.
_FRESH_SECONDS, _ENDED_SECONDS = 1.0, 10.0
_NAMES_EVERY_SECONDS, _SEARCH_SECONDS = 2.0, 10.0


class Place(NamedTuple):
    """A container by the kernel's names: the pod's UID (a static pod's: its file's hash) and the container's id."""

    uid: str
    container_id: str


NODE: Final = Place("node", "")  # a process of the node itself
UNKNOWN: Final = Place("", "")


class Names(NamedTuple):
    """A container by the cluster's names; empty where the node does not know them."""

    namespace: str = ""
    pod: str = ""
    container: str = ""


def place_of(cgroups: bytes) -> Place:
    """The container of a /proc/PID/cgroup; NODE for a process of the node. Pure."""
    found = _CONTAINER.search(cgroups)
    return Place(found[1].decode().replace("_", "-"), found[2].decode()) if found else NODE


class Processes:
    """Which container a process is in, also when it has ended. One thread uses it."""

    def __init__(
        self, procfs: str, clock: Callable[[], float], events: Callable[[], ProcessEvents] = ProcessEvents
    ) -> None:
        """procfs: of the node. clock: monotonic seconds. events: opens the kernel's reports; raises OSError."""
        self._procfs, self._clock, self._open_events = procfs, clock, events
        self._known: dict[int, tuple[Place, float]] = {}
        self._parents: dict[int, int] = {}
        self._events: ProcessEvents | None = None
        self._next_search = 0.0
        self.missed = 0

    def fileno(self) -> int | None:
        """For poll, while the kernel reports every process; None while it does not."""
        return None if self._events is None else self._events.fileno()

    def of(self, pid: int, label: str = "") -> Place:
        """UNKNOWN for one that ended before it was seen: `missed` counts those. label: its AppArmor profile."""
        known = self._known.get(pid)
        if known is not None and self._clock() < known[1] + _FRESH_SECONDS:
            return known[0]
        place = self._read(pid) or self._ended(pid)
        if place == UNKNOWN and label:
            place = self._only_one_under(label)
        if place == UNKNOWN:
            self.missed += 1
        else:
            _put(self._known, pid, (place, self._clock()))
        return place

    def follow(self) -> None:
        """Has the kernel report processes from now on; where it does not, short ones stay unattributed."""
        if self._events is None:
            with contextlib.suppress(OSError):
                self._events = self._open_events()

    def unfollow(self) -> None:
        """Ends that: it is quiet."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self._known.clear()
        self._parents.clear()

    def drain(self) -> None:
        """Takes in what the kernel reported: a parent for each child, and the container when a program starts."""
        for what, one, child in self._events.drain() if self._events is not None else ():
            if what == FORK:
                self._known.pop(child, None)
                _put(self._parents, child, one)
            elif place := self._read(one):
                _put(self._known, one, (place, self._clock()))

    def _ended(self, pid: int) -> Place:
        """From what was reported while it lived; what was not read yet is, before anything is given up."""
        if self._events is None:
            self.follow()
            place, at = self._known.get(pid, (UNKNOWN, 0.0))
            return place if self._clock() < at + _ENDED_SECONDS else UNKNOWN
        self.drain()
        for _ in range(_ANCESTORS):
            known = self._known.get(pid)
            place = known[0] if known is not None else self._read(pid) or UNKNOWN
            if place.container_id:
                return place
            if pid not in self._parents:
                break
            pid = self._parents[pid]
        return UNKNOWN

    def _only_one_under(self, label: str) -> Place:
        """The container whose processes alone have that label. A program that may not be executed is refused in a child
        that ends at the same moment, and the first of those comes before processes are followed."""
        if self._clock() < self._next_search:
            return UNKNOWN
        self._next_search = self._clock() + _SEARCH_SECONDS
        running = tuple(islice(pids(self._procfs), _PROCESSES_READ + 1))
        if len(running) > _PROCESSES_READ:
            return UNKNOWN  # another container may have it among the rest
        wearers = (pid for pid in running if self._label(pid) == label)
        places = {self._read(pid) for pid in wearers} - {None}
        only = places.pop() if len(places) == 1 else None
        return only if only is not None and only.container_id else UNKNOWN

    def _label(self, pid: int) -> str:
        return label_of((self._content(f"{pid}/attr/current") or b"").decode(errors="replace").strip())

    def _read(self, pid: int) -> Place | None:
        """None when the process is not there any more."""
        content = self._content(f"{pid}/cgroup")
        return None if content is None else place_of(content)

    def _content(self, name: str) -> bytes | None:
        try:
            with opened(f"{self._procfs}/{name}", os.O_RDONLY) as fd:
                return os.read(fd, _FILE_BYTES)
        except OSError:
            return None


class ContainerNames:
    """Names of containers, from the kubelet's folders of logs. One thread uses it."""

    def __init__(self, host: Host, clock: Callable[[], float]) -> None:
        self._host, self._clock = host, clock
        self._containers: dict[str, Names] = {}
        self._pods: dict[str, Names] = {}
        self._next = 0.0

    def of(self, place: Place) -> Names:
        """Without a log only the pod's name is known; empty where the kubelet has neither yet."""
        if place.container_id not in self._containers and self._clock() >= self._next:
            self._next = self._clock() + _NAMES_EVERY_SECONDS
            self._read()
        return self._containers.get(place.container_id) or self._pods.get(place.uid) or Names()

    def expire(self) -> None:
        """What was not found is looked for again immediately."""
        self._next = 0.0

    def _read(self) -> None:
        for name in self._listed(_LOGS):
            if found := _LOG.fullmatch(name):
                _put(self._containers, found[4], Names(found[2], found[1], found[3]), _NAMES_KEPT)
        for name in self._listed(_PODS):
            if found := _POD_FOLDER.fullmatch(name):
                _put(self._pods, found[3], Names(found[1], found[2]), _NAMES_KEPT)

    def _listed(self, folder: str) -> tuple[str, ...]:
        try:
            return self._host.names(folder)
        except HostError:
            return ()


def _put(kept: dict[K, V], key: K, value: V, most: int = _PROCESSES_KEPT) -> None:
    """Keeps the newest."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
