"""Everything that is read about the control plane of this node in one pass. It refuses to judge.

A component may end at any moment: what was read of one that is gone afterwards is discarded.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from agent.bounded_socket import deadline
from agent.controls import probe
from agent.controls.control_plane import StaticPods, components
from agent.controls.control_plane.components import Component
from agent.controls.kubelet import yaml_tree
from agent.controls.kubelet.checks import WEAK_TLS
from agent.controls.kubelet.yaml_tree import DocumentRefused
from agent.controls.probe import Response
from agent.errors import AgentError, HostError
from agent.host import Host, Process, ProcessTable, Program
from agent.host.identity import program_named
from agent.text import url_host

# Whether the API server allows what no rule can allow: a verb that no role names.
AllowsAnything = Callable[[], bool | None]
# The flags of the API server at an address and port of this node, for the run of it that the text names.
ReadFlags = Callable[[str, int, str], Mapping[str, str]]

OLD_TLS = "TLS 1.1"
_PROBES_SECONDS = 10.0  # for all ports of a pass
_RELEASE = re.compile(r"(?<![\d.])\d\.\d{1,3}\.\d{1,3}[^\s@]{0,80}")
_PATHS: Mapping[Program, tuple[str, ...]] = {
    Program.API_SERVER: ("/version", "/api/v1/nodes", "/debug/pprof/"),
    Program.CONTROLLER_MANAGER: ("/healthz", "/metrics", "/debug/pprof/"),
    Program.SCHEDULER: ("/healthz", "/metrics", "/debug/pprof/"),
    Program.ETCD: ("/version",),
    Program.DQLITE: ("/version",),
}
_EMBEDDED_PORTS: Mapping[Program, frozenset[int]] = {
    Program.API_SERVER: frozenset((6443, 6444, 16443)),
    Program.CONTROLLER_MANAGER: frozenset((10257,)),
    Program.SCHEDULER: frozenset((10259,)),
    Program.ETCD: frozenset((2379, 2380, 2381, 2382)),
}


@dataclass(frozen=True, slots=True)
class Socket:
    """A port that a component listens on, and its answers without credentials: over TLS and in the clear, by path."""

    address: str
    port: int
    tls: Mapping[str, Response]
    plain: Mapping[str, Response]

    def __str__(self) -> str:
        return f"{url_host(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True)
class ObservedComponent:
    """One component with its sockets. unprobed: why its sockets are not known, or were not asked."""

    component: Component
    sockets: tuple[Socket, ...] = ()
    unprobed: str = ""

    def answers(self, path: str) -> tuple[tuple[str, Response], ...]:
        """Every answer over HTTP to that path, each with the URL."""
        found = [(f"https://{one}{path}", one.tls[path]) for one in self.sockets if path in one.tls]
        found += [(f"http://{one}{path}", one.plain[path]) for one in self.sockets if path in one.plain]
        return tuple((url, answer) for url, answer in found if answer.status is not None)


@dataclass(frozen=True, slots=True)
class Observation:
    """The control plane as found on that day. allows_anything: None when unknown."""

    host: Host
    table: ProcessTable
    today: date
    seen: tuple[ObservedComponent, ...]
    static_pods: StaticPods
    allows_anything: bool | None

    def of(self, program: Program) -> ObservedComponent | None:
        """The component of that program."""
        return next((one for one in self.seen if one.component.program is program), None)


def observe(
    host: Host, table: ProcessTable, places: StaticPods, *, probing: bool, allows_anything: AllowsAnything | None,
    flags: ReadFlags | None, today: date, known: dict[Process, str],
) -> Observation:  # fmt: skip
    """One pass. host: within a budget. probing: whether ports are asked. known: what programs printed of their version,
    from pass to pass."""
    with deadline(_PROBES_SECONDS):
        seen = [_see(host, one, probing, flags) for one in components.find(host, table.processes)]
    running = host.still_running(one.component.process for one in seen)
    kept = tuple(one for one in seen if one.component.process in running)
    kept = tuple(replace(one, component=_versioned(one, kept, places.manifests, host, known)) for one in kept)
    for ended in known.keys() - {one.component.process for one in kept}:
        del known[ended]
    asked = allows_anything() if allows_anything is not None and kept else None
    return Observation(host, table, today, kept, places, asked)


def _see(host: Host, one: Component, probing: bool, flags: ReadFlags | None) -> ObservedComponent:
    try:
        places, shared = listeners(host, one.process)
    except HostError as error:
        return ObservedComponent(one, unprobed=f"its sockets cannot be read: {error}")
    if one.embedded:
        places = tuple(place for place in places if place[1] in _EMBEDDED_PORTS[one.program])
    reason = "" if probing else "controlPlane.probe is false"
    reason = reason if shared else "it is in another network namespace than the agent (hostNetwork: true)"
    places = places[:8]
    if reason:
        return ObservedComponent(one, tuple(Socket(address, port, {}, {}) for address, port in places), reason)
    sockets = tuple(_ask(one.program, address, port) for address, port in places)
    if one.program is Program.API_SERVER:
        one = replace(one, flagz=_flagz(one, sockets, flags))
        if one.text("tls-min-version") in WEAK_TLS:
            sockets = tuple(_with_old_tls(socket) for socket in sockets)
    return ObservedComponent(one, sockets)


def listeners(host: Host, process: Process) -> tuple[Sequence[tuple[str, int]], bool]:
    """Where a process listens, and whether that is the agent's own network namespace. Raises HostError."""
    try:
        with host.entry_of(process) as entry:
            own = str(Path("/proc/self/ns/net").readlink())
            return entry.listeners(), entry.network_namespace() == own
    except (OSError, ValueError) as error:
        raise HostError(str(error)) from error


def _ask(program: Program, address: str, port: int) -> Socket:
    place = target(address)
    first, *others = _PATHS[program]
    plain = probe.get(place, port, first, tls=False)
    tls: dict[str, Response] = {}
    if plain.status in (None, 400):
        tls[first] = probe.get(place, port, first, tls=True)
        speaks = tls[first].status is not None
        tls |= {path: probe.get(place, port, path, tls=True) for path in others if speaks}
        return Socket(address, port, tls, {first: plain} if plain.status is None else {})
    more = {path: probe.get(place, port, path, tls=False) for path in others}
    return Socket(address, port, {}, {first: plain, **more})


def _with_old_tls(one: Socket) -> Socket:
    """With the answer to a client that knows TLS 1.1 at most."""
    old = probe.get(target(one.address), one.port, "/version", tls=True, newest=ssl.TLSVersion.TLSv1_1)
    return replace(one, tls={**one.tls, OLD_TLS: old}) if one.tls else one


def target(address: str) -> str:
    """Where to reach what listens on that address."""
    ip = ipaddress.ip_address(address)
    return ("127.0.0.1" if ip.version == 4 else "::1") if ip.is_unspecified else address


def _flagz(one: Component, sockets: Sequence[Socket], flags: ReadFlags | None) -> Mapping[str, str]:
    """The flags as the API server parsed them, where the agent may read them."""
    place = next((one for one in sockets if "/version" in one.tls and one.tls["/version"].status is not None), None)
    if flags is None or place is None:
        return {}
    run = f"{one.process.pid} since {one.process.started}"
    return flags(target(place.address), place.port, run)


def _versioned(
    one: ObservedComponent, seen: Iterable[ObservedComponent], manifests: Mapping[Program, str], host: Host,
    known: dict[Process, str],
) -> Component:  # fmt: skip
    """With its version: by its own answer, by the image of the manifest that it was started from, or by its program.

    What shares a process with the API server has the API server's version.
    """
    component = one.component
    own = [other for other in seen if other.component.process == component.process]
    texts = [answer.json().get("etcdserver" if component.program is Program.ETCD else "gitVersion")
             for other in (own if component.program is not Program.ETCD else [one])
             for _, answer in other.answers("/version")]  # fmt: skip
    manifest = manifests.get(component.program, "")
    if manifest and not component.embedded and not components.newer(host, component.process, manifest):
        texts.append(_image(host, manifest).partition("@")[0].rpartition(":")[2])
    if not any(texts) and not component.embedded and component.program is not Program.DQLITE:
        if component.process not in known:
            known[component.process] = _program_version(host, component)
        texts.append(known[component.process])
    found = next((match for text in texts if text and (match := _RELEASE.search(str(text)))), None)
    return replace(component, release=found[0] if found else "")


def _program_version(host: Host, one: Component) -> str:
    """What its program prints with --version, where it is this node's own file and not a container's."""
    try:
        with host.entry_of(one.process) as entry:
            path = entry.executable()
        own = not one.doubt and program_named(posixpath.basename(path)) is one.program
        if not own or not host.can_start_programs or host.stat(path).inode != one.view.stat(path).inode:
            return ""
        return host.run((path, "--version"), timeout_seconds=5.0, limit_bytes=4096).check().stdout
    except (OSError, HostError):
        return ""


def command_of(host: Host, path: str) -> tuple[str, ...]:
    """The command line that a manifest requires, empty where its image has it. Raises AgentError."""
    first = _container(host, path)
    words = [word for key in ("command", "args") if isinstance(given := first.get(key), list) for word in given]
    return tuple(str(word) for word in words)


def _image(host: Host, path: str) -> str:
    try:
        return str(_container(host, path).get("image", ""))
    except AgentError:
        return ""


def _container(host: Host, path: str) -> Mapping[str, Any]:
    """The first container of a manifest. Raises AgentError."""
    spec = yaml_tree.to_document(yaml_tree.read(host, path)).get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    first = containers[0] if isinstance(containers, list) and containers else None
    if not isinstance(first, dict):
        raise DocumentRefused(f"{path}: spec.containers is not a list of containers")
    return first
