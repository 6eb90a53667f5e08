"""The certificates control: what ends when, keys by their content, system:masters, and rotation. Audit only.

Files are looked at by what is in them, not by what they are called. A certificate cannot be revoked in Kubernetes: one
of system:masters is good until it ends or the CA is replaced.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.config.node_sections import Certificates
from agent.controls.base import Step
from agent.controls.kubelet import files
from agent.controls.kubelet.check import CheckResult, Row
from agent.controls.kubelet.files import Group
from agent.controls.x509 import Certificate, NotACertificate, certificates, has_private_key
from agent.errors import HostError, HostFileMissing
from agent.host import Host
from agent.host.budget import Budget
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
_EMBEDDED = re.compile(rb'client-certificate-data"?:\s*"?([A-Za-z0-9+/=]{1,65536})')
_CONTROL_PLANE = (
    "/etc/kubernetes/pki", "/var/lib/rancher/rke2/server/tls", "/var/lib/rancher/k3s/server/tls", "/var/lib/k0s/pki",
    "/var/snap/microk8s/current/certs", "/system/secrets/kubernetes", "/system/secrets/etcd",
)  # fmt: skip
_FOLDERS = ("/var/lib/kubelet/pki", *_CONTROL_PLANE)
_KUBECONFIGS = ("/etc/kubernetes", "/var/lib/rancher/rke2/server/cred", "/var/lib/rancher/k3s/server/cred")
_AGAIN = "Fix the cause; the next pass checks again."


@dataclass(frozen=True, slots=True)
class Item:
    """A file with certificates or a private key, or a kubeconfig. problem: why it cannot be read."""

    path: str
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
    """Everything that was found. trouble: what could not be listed."""

    host: Host
    items: tuple[Item, ...]
    trouble: tuple[str, ...]
    served: tuple[Served, ...] = ()


class CertificatesControl:
    """Observes and judges; plans nothing."""

    name = CONTROL

    def __init__(self, config: Certificates, host: Host, *, wall: Callable[[], float] = time.time) -> None:
        self._config, self._host, self._wall = config, host, wall

    def watched(self) -> Sequence[str]:
        """Nothing: files are audited only."""
        return ()

    def observe(self) -> Observation:
        host = self._host.within(Budget())
        trouble: list[str] = []
        items = tuple(_items(host, trouble))
        served: tuple[Served, ...] = ()
        if any(item.has_key and item.path.startswith(_CONTROL_PLANE) for item in items):
            from agent.controls.certificates.live import served_by  # noqa: PLC0415 - a worker does without

            served = tuple(served_by(host))
        return Observation(host, items, tuple(trouble), served)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        if not seen.items and not seen.trouble:
            row = _row("expiry", Severity.HIGH, "Certificates on the node", "none ends soon")
            return (row.finding(CheckResult(Status.NOT_APPLICABLE, "no certificate in the usual folders", "files")),)
        now = self._wall()
        found = [self._expiry(seen, now), _masters(seen, now), _super_admin(seen), _rotation(seen, now)]
        found += [_live(seen)] if seen.served else []
        for group in _groups(seen):
            found += files.judge(group, files.look(seen.host, group))
        return found

    def plan(self, seen: Observation) -> Sequence[Step]:
        del seen  # audit only
        return ()

    def _expiry(self, seen: Observation, now: float) -> Finding:
        row = _row("expiry", Severity.MEDIUM, "No certificate ends soon", "more than 30 days, or as configured")
        known = [(one.not_after - now, item.path) for item in seen.items for one in item.certificates]
        soon = sorted(one for one in known if one[0] < self._config.warn_before)
        problems = [*seen.trouble, *(f"{item.path}: {item.problem}" for item in seen.items if item.problem)]
        if soon:
            left = soon[0][0]
            severity = Severity.CRITICAL if left <= 0 else Severity.HIGH if left < _WEEK_SECONDS else Severity.MEDIUM
            lines = [f"{path} {_span(seconds)}" for seconds, path in soon]
            step = "Renew them (`kubeadm certs renew all`, or the distribution's way), and restart what serves them."
            return row.finding(CheckResult(Status.FAIL, join_limited(lines, characters=600), "files", step, severity))
        if problems:
            return row.finding(CheckResult(Status.UNKNOWN, join_limited(problems, characters=600), "files", _AGAIN))
        if not known:
            return row.finding(CheckResult(Status.NOT_APPLICABLE, "no certificate in the usual folders", "files"))
        seconds, path = min(known)
        observed = f"{len(known)} certificates; the first to end is {path}, {_span(seconds)}"
        return row.finding(CheckResult(Status.PASS, observed, "files"))


def _row(id_: str, severity: Severity, title: str, expected: str) -> Row:
    return Row(id_, title, severity, expected, control=CONTROL, section="K14")


def _span(seconds: float) -> str:
    days = round(abs(seconds) / _DAY)
    return f"ended {days} days ago" if seconds <= 0 else f"ends in {days} days"


def _masters(seen: Observation, now: float) -> Finding:
    row = _row("masters", Severity.HIGH, "No certificate is of system:masters", "none but super-admin.conf")
    found = [item.path for item in seen.items if item.path != _SUPER_ADMIN
             for one in item.certificates if _MASTERS in one.organizations and one.not_after > now]  # fmt: skip
    if found:
        step = "Make a new one without that group (kubeadm 1.29 and later does). It cannot be revoked: it is good "
        step += "until it ends or the CA is replaced, so remove every copy."
        return row.finding(CheckResult(Status.FAIL, ", ".join(dict.fromkeys(found)), "files", step))
    return row.finding(CheckResult(Status.PASS, "none", "files"))


def _super_admin(seen: Observation) -> Finding:
    row = _row("super-admin", Severity.HIGH, "super-admin.conf is not kept on the node", "not there")
    if any(item.path == _SUPER_ADMIN for item in seen.items):
        step = f"Move {_SUPER_ADMIN} to a safe place; `kubeadm init phase kubeconfig super-admin` makes another."
        return row.finding(CheckResult(Status.FAIL, f"{_SUPER_ADMIN} is there: it passes every authorization",
                                       _SUPER_ADMIN, step))  # fmt: skip
    return row.finding(CheckResult(Status.PASS, f"{_SUPER_ADMIN} is not there", _SUPER_ADMIN))


def _rotation(seen: Observation, now: float) -> Finding:
    row = _row("rotation", Severity.MEDIUM, "The kubelet's client certificate is rotated", "before 90 % of its life")
    item = next((item for item in seen.items if item.path.endswith(_CLIENT)), None)
    if item is None:
        return row.finding(CheckResult(Status.NOT_APPLICABLE, f"no {_CLIENT}: the kubelet does not rotate it", "files"))
    if not item.certificates:
        return row.finding(CheckResult(Status.UNKNOWN, item.problem or "no certificate in it", item.path, _AGAIN))
    one = item.certificates[0]
    used = (now - one.not_before) / max(one.not_after - one.not_before, 1.0)
    observed = f"{used:.0%} of its life, {_span(one.not_after - now)}"
    if used < _LATE:
        return row.finding(CheckResult(Status.PASS, observed, item.path))
    step = "Rotation has stopped: look for certificate errors in the kubelet's log and for requests without an "
    step += "approver (`kubectl get csr`)."
    severity = Severity.HIGH if one.not_after < now + _WEEK_SECONDS else None
    return row.finding(CheckResult(Status.FAIL, observed, item.path, step, severity))


def _live(seen: Observation) -> Finding:
    row = _row("served", Severity.MEDIUM, "What is served is what is on disk", "the same certificate")
    stale = [f"{one.where} serves another certificate than {one.path}" for one in seen.served
             if one.served and one.on_disk and one.served.serial != one.on_disk.serial]  # fmt: skip
    if stale:
        step = "Restart the component: move its manifest out of the folder and back, or restart its unit."
        return row.finding(CheckResult(Status.FAIL, "; ".join(stale), "handshake", step))
    unknown = [one.where for one in seen.served if not (one.served and one.on_disk)]
    if unknown:
        observed = f"not compared: {', '.join(unknown)}"
        return row.finding(CheckResult(Status.UNKNOWN, observed, "handshake", _AGAIN))
    return row.finding(CheckResult(Status.PASS, ", ".join(one.where for one in seen.served), "handshake"))


def _groups(seen: Observation) -> Iterator[Group]:
    """Keys wherever they are, whatever they are called; certificates; the administrators' kubeconfigs."""
    keys = tuple(item.path for item in seen.items if item.has_key)
    plain = tuple(item.path for item in seen.items if item.certificates and not item.has_key)
    admins = tuple(path for item in seen.items if (path := item.path).endswith("admin.conf"))
    base = Group("keys", "", "Private keys, by content", Severity.CRITICAL, 0o600, keys, control=CONTROL,
                 cis=("1.1.19", "1.1.21"), section="K14", any_group=True)  # fmt: skip
    kinds = (
        base,
        replace(base, mode_id="files", title="Certificates", severity=Severity.MEDIUM, maximum=0o644, paths=plain,
                cis=("1.1.19", "1.1.20")),
        replace(base, mode_id="admin", title="The administrators' kubeconfigs", severity=Severity.HIGH, paths=admins,
                cis=("1.1.13", "1.1.14")),
    )  # fmt: skip
    return (replace(group, any_group=False) for group in kinds if group.paths)


def _items(host: Host, trouble: list[str]) -> Iterator[Item]:
    """Every file of interest, within limits."""
    paths = [*_below(host, _FOLDERS, trouble)]
    for folder in _KUBECONFIGS:
        paths += [path for path in _files(host, folder, trouble) if path.endswith((".conf", ".kubeconfig"))]
    if len(paths) > _MAX_FILES:
        trouble.append(f"more than {_MAX_FILES} files; the rest was not read")
    for path in paths[:_MAX_FILES]:
        try:
            content = host.read_bytes(path, limit_bytes=_FILE_BYTES)
        except HostFileMissing:
            continue
        except HostError as error:
            yield Item(path, problem=str(error))
            continue
        if item := _item(path, content):
            yield item


def _item(path: str, content: bytes) -> Item | None:
    """None for a file that is neither."""
    has_key = has_private_key(content) or b"client-key-data" in content
    embedded = _EMBEDDED.search(content)
    try:
        pem = base64.b64decode(embedded[1], validate=True) if embedded else content
        found = certificates(pem) if b"BEGIN CERTIFICATE-" in pem or embedded else ()
    except (binascii.Error, NotACertificate) as error:
        return Item(path, has_key=has_key, problem=str(error))
    return Item(path, found, has_key) if found or has_key else None


def _below(host: Host, folders: Sequence[str], trouble: list[str]) -> Iterator[str]:
    pending = list(reversed(folders))
    for _ in range(_MAX_FOLDERS):
        if not pending:
            return
        folder = pending.pop()
        for path in _names(host, folder, trouble):
            try:
                kind = host.stat(path).kind
            except HostError:
                continue  # a symlink to nothing
            if kind == "directory":
                pending.append(path)
            elif kind == "file" and not re.search(r"/kubelet-(client|server)-\d{4}-", path):  # the old ones stay
                yield path
    trouble.append(f"more than {_MAX_FOLDERS} folders; the rest was not listed")


def _files(host: Host, folder: str, trouble: list[str]) -> Iterator[str]:
    return (path for path in _names(host, folder, trouble) if host.is_file(path))


def _names(host: Host, folder: str, trouble: list[str]) -> list[str]:
    try:
        return [posixpath.join(folder, name) for name in host.names(folder)]
    except HostFileMissing:
        return []
    except HostError as error:
        trouble.append(str(error))
        return []
