"""Modes and owners of what the control plane reads and writes: CIS 1.1. Paths come from its own settings.

Certificates and keys by content are the control `certificates`' matter.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

from agent.controls.control_plane import CONTROL
from agent.controls.control_plane.components import Component
from agent.controls.control_plane.observe import Observation
from agent.controls.kubelet import files
from agent.controls.kubelet.files import FoundFile, Group
from agent.host import Program
from agent.model import Severity

_NUMBERS = {
    Program.API_SERVER: ("1.1.1", "1.1.2"),
    Program.CONTROLLER_MANAGER: ("1.1.3", "1.1.4"),
    Program.SCHEDULER: ("1.1.5", "1.1.6"),
    Program.ETCD: ("1.1.7", "1.1.8"),
}
_KUBECONFIGS = {Program.SCHEDULER: ("1.1.15", "1.1.16"), Program.CONTROLLER_MANAGER: ("1.1.17", "1.1.18")}
# id, flags, title, severity, maximum, section: files that hold secrets, named by any component.
_NAMED = (
    ("keys", ("service-account-signing-key-file", "service-account-private-key-file", "cluster-signing-key-file",
              "tls-private-key-file", "kubelet-client-key", "etcd-keyfile", "proxy-client-key-file", "key-file",
              "peer-key-file"), "The control plane's private keys", Severity.CRITICAL, "K14"),
    ("configuration", ("encryption-provider-config", "authentication-config", "authorization-config",
                       "admission-control-config-file", "token-auth-file"),
     "The configuration that the API server reads, encryption keys among it", Severity.HIGH, "K16"),
    ("audit-log", ("audit-log-path",), "The audit log", Severity.MEDIUM, "K12"),
)  # fmt: skip


def look(seen: Observation) -> Iterator[Group]:
    """Every group of files with what was found."""
    for program, numbers in _NUMBERS.items():
        path = seen.static_pods.manifests.get(program)
        group = _group(f"file/manifest/{program.value}", f"The manifest of {program.value}", Severity.MEDIUM,
                       (path,) if path else (), cis=numbers, section="K14")  # fmt: skip
        yield files.look(seen.host, group)
    folders = tuple(dict.fromkeys(map(posixpath.dirname, seen.static_pods.manifests.values())))
    group = _group("file/manifests", "The folder of static pods", Severity.HIGH, folders, 0o755)
    yield files.look(seen.host, group)
    for one in (one.component for one in seen.seen):
        yield from _of(one)
    for id_, flags, title, severity, section in _NAMED:
        found: dict[str, FoundFile] = {}
        users = {0}
        for one in (one.component for one in seen.seen):
            users.add(one.process.uid)
            found |= {path: files.look_at(one.view, path) for name in flags if (path := _path(one, name))}
        group = _group(f"file/{id_}", title, severity, (), owners=tuple(sorted(users)), section=section)
        yield replace(group, found=tuple(found.values()))


def _of(one: Component) -> Iterator[Group]:
    owners = tuple(sorted({0, one.process.uid}))
    if numbers := _KUBECONFIGS.get(one.program):
        path = _path(one, "kubeconfig")
        title = f"The kubeconfig of {one.program.value}"
        group = _group(f"file/kubeconfig/{one.program.value}", title, Severity.HIGH, (path,) if path else (),
                       owners=owners, cis=numbers)  # fmt: skip
        yield files.look(one.view, group)
    if one.program is Program.DQLITE:
        path = _path(one, "storage-dir")
        group = _group("file/dqlite-data", "dqlite's data, and the key of its nodes", Severity.HIGH,
                       (path, f"{path}/cluster.key"), 0o770, owners=owners, section="K11")  # fmt: skip
        # Their group is that of the cluster's administrators: microk8s.
        yield files.look(one.view, replace(group, any_group=True))
    if one.program is Program.ETCD:
        path = _path(one, "data-dir") or posixpath.join(one.process.cwd or "/", f"{one.text('name')}.etcd")
        group = _group("file/etcd-data", "etcd's data", Severity.HIGH, (path,), 0o700, owners=owners,
                       cis=("1.1.11", "1.1.12"), section="K11")  # fmt: skip
        yield files.look(one.view, group)


def _path(one: Component, name: str) -> str:
    path = one.path(name)
    return "" if one.text(name) == "-" else path  # an audit log on standard output


def _group(
    id_: str, title: str, severity: Severity, paths: tuple[str, ...], maximum: int = 0o600, *,
    owners: tuple[int, ...] = (0,), cis: tuple[str, ...] = (), section: str = "K14",
) -> Group:  # fmt: skip
    return Group(id_, "", title, severity, maximum, paths, any_group=owners != (0,), owners=owners, control=CONTROL,
                 cis=cis, section=section)  # fmt: skip
