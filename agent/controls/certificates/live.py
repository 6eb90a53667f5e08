"""What the control plane's components name and serve now. Paths are those of their own flags and files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from agent.bounded_socket import deadline
from agent.controls import probe
from agent.controls.certificates import Named, Served
from agent.controls.control_plane.components import Component
from agent.controls.control_plane.observe import listeners, target
from agent.controls.x509 import Certificate, NotACertificate, certificates
from agent.errors import HostError
from agent.host import Host, Program
from agent.host.budget import CERTIFICATE_BYTES

_PROBES_SECONDS = 5.0
_FLAGS = {Program.API_SERVER: "tls-cert-file", Program.ETCD: "cert-file", Program.CONTROLLER_MANAGER: "tls-cert-file",
          Program.SCHEDULER: "tls-cert-file"}  # fmt: skip
# How flags end that name certificates, keys and kubeconfigs; what a file holds decides.
_ENDINGS = ("-file", "certfile", "keyfile", "cafile", "-certificate", "-client-key", "-authority", "kubeconfig")
_OTHERS = frozenset((
    "audit-policy-file", "token-auth-file", "config-file", "admission-control-config-file", "tracing-config-file",
    "egress-selector-config-file", "authorization-policy-file", "oidc-ca-file", "log-file",
))  # fmt: skip
_PAIR = "tls-sni-cert-key"  # certificate,key:names


def named_by(parts: Iterable[Component], trouble: list[str]) -> Iterator[Named]:
    """Every file that the flags of these components name. trouble: gets the reason where flags are not known."""
    for one in parts:
        if one.doubt:
            trouble.append(f"the files that {one.called} names are unknown: {one.doubt}")
            continue
        for name in one.flags.names:
            texts = [flag.value for flag in one.flags.all(name)]
            if name == _PAIR:
                texts = [path for text in texts for path in text.partition(":")[0].split(",")]
            elif not name.endswith(_ENDINGS) or name in _OTHERS:
                continue
            paths = (posixpath.normpath(posixpath.join("/", one.process.cwd, text)) for text in texts if text)
            yield from (Named(one.view, path, one.called, one.process.uid) for path in paths)


def served_by(host: Host, parts: Iterable[Component]) -> Iterator[Served]:
    """One for each component that names a certificate and listens in the agent's network namespace."""
    with deadline(_PROBES_SECONDS):
        for one in parts:
            flag = "" if one.embedded else _FLAGS.get(one.program, "")
            if not flag or not (path := one.path(flag)):
                continue
            try:
                places, shared = listeners(host, one.process)
            except HostError:
                continue
            port = next((place for place in places if shared and _is_its_own(one, place[1])), None)
            if port is not None:
                answer = probe.get(target(port[0]), port[1], "/healthz", tls=True)
                where = f"{one.program.value} on port {port[1]}"
                yield Served(where, path, _on_disk(one, path), answer.certificate)


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
