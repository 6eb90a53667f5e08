"""What the control plane's components serve now, beside what is in the file that each of them names."""

from __future__ import annotations

from collections.abc import Iterator

from agent.bounded_socket import deadline
from agent.controls.certificates import Served
from agent.controls.control_plane import components, probe
from agent.controls.control_plane.components import Component
from agent.controls.control_plane.observe import own_network, target
from agent.controls.x509 import Certificate, NotACertificate, certificates
from agent.errors import HostError
from agent.host import Host, Program
from agent.host.budget import CERTIFICATE_BYTES
from agent.host.identity import CONTROL_PLANE_PROGRAMS

_PROBES_SECONDS = 5.0
_FLAGS = {Program.API_SERVER: "tls-cert-file", Program.ETCD: "cert-file", Program.CONTROLLER_MANAGER: "tls-cert-file",
          Program.SCHEDULER: "tls-cert-file"}  # fmt: skip


def served_by(host: Host) -> Iterator[Served]:
    """One for each component that names a certificate and listens in the agent's network namespace."""
    with deadline(_PROBES_SECONDS):
        yield from _served(host)


def _served(host: Host) -> Iterator[Served]:
    for one in components.find(host, host.processes(CONTROL_PLANE_PROGRAMS).processes):
        path = "" if one.embedded else one.path(_FLAGS[one.program])
        if not path:
            continue
        try:
            with host.entry_of(one.process) as entry:
                places = entry.listeners() if entry.network_namespace() == own_network() else ()
        except (OSError, ValueError, HostError):
            continue
        for address, port in places:
            if _is_its_own(one, port):
                answer = probe.get(target(address), port, "/healthz", tls=True)
                yield Served(f"{one.program.value} on port {port}", path, _on_disk(one, path), answer.certificate)
                break


def _is_its_own(one: Component, port: int) -> bool:
    """Whether the port is the one that serves that certificate."""
    if one.program is Program.ETCD:
        return f":{port}" in one.text("listen-client-urls")
    return one.text("secure-port") == str(port)


def _on_disk(one: Component, path: str) -> Certificate | None:
    try:
        return certificates(one.view.read_bytes(path, limit_bytes=CERTIFICATE_BYTES))[0]
    except (HostError, NotACertificate):
        return None
