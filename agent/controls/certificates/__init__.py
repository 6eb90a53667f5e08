"""The certificates control: what ends when, keys by their content, system:masters, and rotation. Audit only.

Files are looked at by what is in them, not by what they are called. A certificate cannot be revoked in Kubernetes: one
of system:masters is good until it ends or the CA is replaced.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.config.node_sections import Certificates
from agent.controls import control_plane
from agent.controls.base import AuditOnly
from agent.controls.kubelet import discovery, effective, files
from agent.controls.kubelet.check import AGAIN, CheckResult, Row
from agent.controls.kubelet.files import Group
from agent.controls.x509 import Certificate, NotACertificate, certificates, has_private_key
from agent.errors import HostError, HostFileMissing
from agent.host import Host, ProcessTable
from agent.host.budget import Budget
from agent.host.identity import CONTROL_PLANE_PROGRAMS, NODE_PROGRAMS
from agent.model import Finding, Severity, Status
from agent.text import join_limited

CONTROL = "certificates"
_DAY = 86400.0
_WEEK_SECONDS = 7 * _DAY
_LATE = 0.9  # of a certificate's life; kubelets ask for a new one at 70 to 90 %
_FILE_BYTES = 128 << 10
_MAX_FILES, _MAX_FOLDERS = 400, 40
_SUPER_ADMIN = "/etc/kubernetes/super-admin.conf"
_MASTERS = "system:masters"
_CLIENT = "kubelet-client-current.pem"
_DATA = (b"client-certificate-data", b"certificate-authority-data")
_EMBEDDED = re.compile(rb'(?:client-certificate|certificate-authority)-data"?:\s*"?([A-Za-z0-9+/=]+)')
_REFERRED = re.compile(rb'\b(?:client-certificate|client-key|certificate-authority)"?:\s*["\']?([^\s"\',}]{1,4096})')
_KUBELET_FLAGS = ("kubeconfig", "tls-cert-file", "tls-private-key-file", "client-ca-file")
_CONTROL_PLANE = (
    "/etc/kubernetes/pki", "/var/lib/rancher/rke2/server/tls", "/var/lib/rancher/k3s/server/tls", "/var/lib/k0s/pki",
    "/var/snap/microk8s/current/certs", "/system/secrets/kubernetes", "/system/secrets/etcd",
)  # fmt: skip
_FOLDERS = ("/var/lib/kubelet/pki", *_CONTROL_PLANE)
_KUBECONFIGS = ("/etc/kubernetes", "/var/lib/rancher/rke2/server/cred", "/var/lib/rancher/k3s/server/cred")


@dataclass(frozen=True, slots=True)
class Named:
    """A file that a process of the node names. view: the files as it sees them. by: who names it, of which user."""

    view: Host
    path: str
    by: str = ""
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """A file with certificates or a private key, or a kubeconfig. problem: why it cannot be read. view: where it is."""

    path: str
    view: Host
    certificates: tuple[Certificate, ...] = ()
    has_key: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What a component serves, beside the first certificate of its file; None where there is no answer."""

    where: str
    path: str
    on_disk: Certificate | None
    served: Certificate | None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that was found. trouble: what could not be listed. owners: who may own keys: root, who names them."""

    items: tuple[Item, ...]
    trouble: tuple[str, ...]
    served: tuple[Served, ...] = ()
    super_admin: bool | None = False
    owners: tuple[int, ...] = (0,)


class CertificatesControl(AuditOnly):
    """Every certificate, private key and kubeconfig that this node holds."""

    name = CONTROL

    def __init__(self, config: Certificates, host: Host, *, wall: Callable[[], float] = time.time) -> None:
        self._config, self._host, self._wall = config, host, wall

    def observe(self) -> Observation:
        host = self._host.within(Budget())
        trouble: list[str] = []
        table = host.processes(NODE_PROGRAMS | CONTROL_PLANE_PROGRAMS)
        trouble += [f"some processes could not be verified: {table.unverified}"] if table.unverified else []
        named = [*_named_by_kubelets(host, table)]
        served: tuple[Served, ...] = ()
        if any(map(control_plane.may_have_one, table.processes)):
            from agent.controls.certificates import live  # noqa: PLC0415 - a worker does without
            from agent.controls.control_plane import components  # noqa: PLC0415

            parts = tuple(components.find(host, table.processes))
            named += itertools.islice(live.named_by(parts, trouble), _MAX_FILES + 1)
            served = tuple(live.served_by(host, parts))
        items = tuple(_items(host, named, trouble))
        owners = tuple(sorted({0, *(one.uid for one in named)}))
        return Observation(items, tuple(trouble), served, _super_admin_file(host), owners)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        if not seen.items and not seen.trouble:
            return (EXPIRY.finding(_NO_CERTIFICATE),)
        now = self._wall()
        found = [EXPIRY.finding(_expiry(seen, now, self._config.warn_before)), MASTERS.finding(_masters(seen, now)),
                 SUPER_ADMIN.finding(_super_admin(seen)), ROTATION.finding(_rotation(seen, now))]  # fmt: skip
        found += [SERVED.finding(_live(seen))] if seen.served else []
        for group, items in _groups(seen):
            found += files.judge(replace(group, found=tuple(files.look_at(item.view, item.path) for item in items)))
        return found


_row = partial(Row, control=CONTROL, section="K14")
EXPIRY = _row("expiry", "No certificate ends soon", Severity.MEDIUM, "more than 30 days, or as configured")
MASTERS = _row("masters", "No certificate is of system:masters", Severity.HIGH, "none but super-admin.conf")
SUPER_ADMIN = _row("super-admin", "super-admin.conf is not kept on the node", Severity.HIGH, "not there")
ROTATION = _row("rotation", "The kubelet's client certificate is rotated", Severity.MEDIUM, "before 90 % of its life")
SERVED = _row("served", "What is served is what is on disk", Severity.MEDIUM, "the same certificate")
_NO_CERTIFICATE = CheckResult(Status.NOT_APPLICABLE, "no certificate in the usual folders", "files")


def _span(seconds: float) -> str:
    days = round(abs(seconds) / _DAY)
    return f"ended {days} days ago" if seconds <= 0 else f"ends in {days} days"


def _unread(seen: Observation) -> CheckResult | None:
    """The answer where nothing wrong was found and not everything was read."""
    problems = [*seen.trouble, *(f"{item.path}: {item.problem}" for item in seen.items if item.problem)]
    shown = join_limited(problems, characters=600)
    return CheckResult(Status.UNKNOWN, shown, "files", AGAIN) if problems else None


def _expiry(seen: Observation, now: float, warn_before: float) -> CheckResult:
    known = [(one.not_after - now, item.path) for item in seen.items for one in item.certificates]
    if soon := sorted(one for one in known if one[0] < warn_before):
        left = soon[0][0]
        severity = Severity.CRITICAL if left <= 0 else Severity.HIGH if left < _WEEK_SECONDS else Severity.MEDIUM
        lines = [f"{path} {_span(seconds)}" for seconds, path in soon]
        step = "Renew them (`kubeadm certs renew all`, or the distribution's way), and restart what serves them."
        return CheckResult(Status.FAIL, join_limited(lines, characters=600), "files", step, severity)
    if unread := _unread(seen):
        return unread
    if not known:
        return _NO_CERTIFICATE
    seconds, path = min(known)
    observed = f"{len(known)} certificates; the first to end is {path}, {_span(seconds)}"
    return CheckResult(Status.PASS, observed, "files")


def _masters(seen: Observation, now: float) -> CheckResult:
    found = [item.path for item in seen.items if item.path != _SUPER_ADMIN
             for one in item.certificates if _MASTERS in one.organizations and one.not_after > now]  # fmt: skip
    if found:
        step = "Make a new one without that group (kubeadm 1.29 and later does). It cannot be revoked: it is good "
        step += "until it ends or the CA is replaced, so remove every copy."
        return CheckResult(Status.FAIL, ", ".join(dict.fromkeys(found)), "files", step)
    return _unread(seen) or CheckResult(Status.PASS, "none", "files")


def _super_admin_file(host: Host) -> bool | None:
    """Whether it is there; None where that cannot be read."""
    try:
        return host.stat(_SUPER_ADMIN).kind == "file"
    except HostFileMissing:
        return False
    except HostError:
        return None


def _super_admin(seen: Observation) -> CheckResult:
    if seen.super_admin is None:
        step = f"Make {_SUPER_ADMIN} readable for the agent, or remove it."
        return CheckResult(Status.UNKNOWN, "whether it is there cannot be read", _SUPER_ADMIN, step)
    if seen.super_admin:
        step = f"Move {_SUPER_ADMIN} to a safe place; `kubeadm init phase kubeconfig super-admin` makes another."
        observed = f"{_SUPER_ADMIN} is there: it passes every authorization"
        return CheckResult(Status.FAIL, observed, _SUPER_ADMIN, step)
    return CheckResult(Status.PASS, f"{_SUPER_ADMIN} is not there", _SUPER_ADMIN)


def _rotation(seen: Observation, now: float) -> CheckResult:
    item = next((item for item in seen.items if item.path.endswith(_CLIENT)), None)
    if item is None:
        return CheckResult(Status.NOT_APPLICABLE, f"no {_CLIENT}: the kubelet does not rotate it", "files")
    if not item.certificates:
        return CheckResult(Status.UNKNOWN, item.problem or "no certificate in it", item.path, AGAIN)
    one = item.certificates[0]
    used = (now - one.not_before) / max(one.not_after - one.not_before, 1.0)
    observed = f"{used:.0%} of its life, {_span(one.not_after - now)}"
    if used < _LATE:
        return CheckResult(Status.PASS, observed, item.path)
    step = "Rotation has stopped: look for certificate errors in the kubelet's log and for requests without an "
    step += "approver (`kubectl get csr`)."
    severity = Severity.HIGH if one.not_after < now + _WEEK_SECONDS else None
    return CheckResult(Status.FAIL, observed, item.path, step, severity)


def _live(seen: Observation) -> CheckResult:
    stale = [f"{one.where} serves another certificate than {one.path}" for one in seen.served
             if one.served and one.on_disk and one.served.serial != one.on_disk.serial]  # fmt: skip
    if stale:
        step = "Restart the component: move its manifest out of the folder and back, or restart its unit."
        return CheckResult(Status.FAIL, "; ".join(stale), "handshake", step)
    if unknown := [one.where for one in seen.served if not (one.served and one.on_disk)]:
        return CheckResult(Status.UNKNOWN, f"not compared: {', '.join(unknown)}", "handshake", AGAIN)
    return CheckResult(Status.PASS, ", ".join(one.where for one in seen.served), "handshake")


def _groups(seen: Observation) -> Iterator[tuple[Group, Sequence[Item]]]:
    """Keys wherever they are, whatever they are called; certificates; the administrators' kubeconfigs."""
    base = Group("keys", "", "Private keys, by content", Severity.CRITICAL, 0o600, (), control=CONTROL,
                 cis=("1.1.19", "1.1.21"), section="K14", owners=seen.owners,
                 any_group=len(seen.owners) > 1)  # fmt: skip
    plain = replace(base, mode_id="files", title="Certificates", severity=Severity.MEDIUM, maximum=0o644,
                    cis=("1.1.19", "1.1.20"))  # fmt: skip
    admin = replace(base, mode_id="admin", title="The administrators' kubeconfigs", severity=Severity.HIGH,
                    cis=("1.1.13", "1.1.14"))  # fmt: skip
    kinds = (
        (base, [item for item in seen.items if item.has_key]),
        (plain, [item for item in seen.items if item.certificates and not item.has_key]),
        (admin, [item for item in seen.items if item.path.endswith("admin.conf")]),
    )
    return ((group, items) for group, items in kinds if items)


def _named_by_kubelets(host: Host, table: ProcessTable) -> Iterator[Named]:
    for launch in discovery.search(host, table).launches:
        paths = effective.Effective(launch.flags, launch.process.cwd)
        given = (launch.flags.text(name) for name in _KUBELET_FLAGS)
        yield from (Named(host, paths.absolute(path), launch.called) for path in given if path)


def _items(host: Host, named: Sequence[Named], trouble: list[str]) -> Iterator[Item]:
    """Every file of interest, within limits, and once."""
    paths = [*_below(host, _FOLDERS, trouble)]
    for folder in _KUBECONFIGS:
        paths += [path for path, kind in _listed(host, folder, trouble)
                  if kind == "file" and path.endswith((".conf", ".kubeconfig"))]  # fmt: skip
    pending = [*(Named(host, path) for path in reversed(paths)), *reversed(named)]
    known: set[tuple[str, int]] = set()
    for _ in range(_MAX_FILES):
        if not pending:
            return
        one = pending.pop()
        try:
            key = (one.path, one.view.stat(one.path).inode)
            if key in known:
                continue
            known.add(key)
            content = one.view.read_bytes(one.path, limit_bytes=_FILE_BYTES)
        except HostError as error:
            if one.by or not isinstance(error, HostFileMissing):
                yield Item(one.path, one.view, problem=f"{error}{f', which {one.by} names' if one.by else ''}")
            continue
        if one.by and len(pending) < _MAX_FILES:  # else the limit is reached without them
            more = itertools.islice(_referred(one.path, content), _MAX_FILES)
            pending += (replace(one, path=path) for path in more)
        if item := _item(one, content):
            yield item
    if pending:
        trouble.append(f"more than {_MAX_FILES} files; the rest was not read")


def _referred(path: str, content: bytes) -> Iterator[str]:
    """The files that a kubeconfig names instead of holding their content."""
    if b"clusters" in content:
        folder = posixpath.dirname(path)
        yield from (posixpath.normpath(posixpath.join(folder, found[1].decode(errors="replace")))
                    for found in _REFERRED.finditer(content))  # fmt: skip


def _item(one: Named, content: bytes) -> Item | None:
    """None for a file that is neither."""
    has_key = has_private_key(content) or b"client-key-data" in content
    embedded = [found[1] for found in _EMBEDDED.finditer(content)]
    if len(embedded) < sum(content.count(key) for key in _DATA):
        return Item(one.path, one.view, has_key=has_key, problem="the data of one of its certificates cannot be read")
    try:
        pem = b"\n".join(base64.b64decode(text, validate=True) for text in embedded) if embedded else content
        found = certificates(pem) if b"BEGIN CERTIFICATE-" in pem or embedded else ()
    except (binascii.Error, NotACertificate) as error:
        return Item(one.path, one.view, has_key=has_key, problem=str(error))
    return Item(one.path, one.view, found, has_key) if found or has_key else None


def _below(host: Host, folders: Sequence[str], trouble: list[str]) -> Iterator[str]:
    pending = list(reversed(folders))
    for _ in range(_MAX_FOLDERS):
        if not pending:
            return
        folder = pending.pop()
        for path, kind in _listed(host, folder, trouble):
            if kind == "directory":
                pending.append(path)
            elif kind == "file" and not re.search(r"/kubelet-(client|server)-\d{4}-", path):  # the old ones stay
                yield path
    trouble.append(f"more than {_MAX_FOLDERS} folders; the rest was not listed")


def _listed(host: Host, folder: str, trouble: list[str]) -> Iterator[tuple[str, str]]:
    """Path and kind of each entry, but for symlinks to nothing; a missing folder has none."""
    try:
        names = host.names(folder)
    except HostFileMissing:
        return
    except HostError as error:
        trouble.append(str(error))
        return
    for path in (posixpath.join(folder, name) for name in names):
        try:
            yield path, host.stat(path).kind
        except HostFileMissing:
            continue
        except HostError as error:
            trouble.append(str(error))
