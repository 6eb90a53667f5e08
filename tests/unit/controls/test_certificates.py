"""The certificates control on a PKI as kubeadm makes it, with real certificates."""

from __future__ import annotations

import base64
import os
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from agent.config import node_sections
from agent.controls import base
from agent.controls import x509 as reader
from agent.controls.certificates import CertificatesControl
from agent.host import Host, Program
from agent.host.filesystem import NAMES_LIMIT
from agent.host.identity import CONTROL_PLANE_PROGRAMS
from agent.model import Finding, Severity, Status
from tests.support.control_planes import ControlPlane
from tests.support.kubelets import plant

NOW = datetime(2026, 11, 28, tzinfo=UTC)
PKI = "/etc/kubernetes/pki"
CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
PASS, FAIL, UNKNOWN, NONE = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.NOT_APPLICABLE


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private() -> str:
    form = serialization.PrivateFormat.PKCS8
    return key().private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def certificate(days: float, *, group: str = "kubeadm:cluster-admins", since: float = -10) -> str:
    """One that ends in so many days from NOW."""
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, "someone")]
    )
    built = x509.CertificateBuilder(x509.Name([]), name, key().public_key(), 77)
    made = built.not_valid_before(NOW + timedelta(days=since)).not_valid_after(NOW + timedelta(days=days))
    return made.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def kubeconfig(pem: str) -> str:
    return f"users: [{{name: u, user: {{client-certificate-data: {base64.b64encode(pem.encode()).decode()}}}}}]\n"


def audit(root: Path, files: Mapping[str, str]) -> dict[str, Finding]:
    """The control's findings by id, without its name."""
    plant(root, files)
    for path in files:
        (root / path.lstrip("/")).chmod(0o600)
    control = CertificatesControl(node_sections.Certificates(), Host(root), wall=NOW.timestamp)
    found = base.audit(control).findings
    for finding in found:
        assert finding.status not in (FAIL, UNKNOWN) or finding.remediation
        assert finding.section == "K14"
    return {finding.id.removeprefix("certificates/"): finding for finding in found}


def test_a_node_without_certificates_is_one_line(tmp_path: Path) -> None:
    found = audit(tmp_path, {"/etc/hostname": "x"})
    assert {id_: one.status for id_, one in found.items()} == {"expiry": NONE}


@pytest.mark.parametrize(
    ("days", "status", "severity"),
    [(365, PASS, Severity.MEDIUM), (31, PASS, Severity.MEDIUM), (29, FAIL, Severity.MEDIUM), (6, FAIL, Severity.HIGH),
     (-1, FAIL, Severity.CRITICAL)],
)  # fmt: skip
@pytest.mark.parametrize("path", [f"{PKI}/apiserver.crt", f"{PKI}/etcd/server.pem", "/etc/kubernetes/admin.conf"])
def test_what_ends_soon_fails(tmp_path: Path, path: str, days: float, status: Status, severity: Severity) -> None:
    pem = certificate(days)
    found = audit(
        tmp_path, {path: kubeconfig(pem) if path.endswith(".conf") else pem, f"{PKI}/ca.crt": certificate(3650)}
    )
    assert (found["expiry"].status, found["expiry"].severity) == (status, severity)
    assert path in found["expiry"].observed


@pytest.mark.parametrize(
    "content", ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x" * (129 << 10)]
)
def test_what_cannot_be_read_is_unknown(tmp_path: Path, content: str) -> None:
    found = audit(tmp_path, {f"{PKI}/apiserver.crt": content, f"{PKI}/ca.crt": certificate(3650)})
    assert found["expiry"].status is UNKNOWN
    assert f"{PKI}/apiserver.crt" in found["expiry"].observed


@pytest.mark.parametrize("path", [f"{PKI}/x.crt", "/etc/kubernetes/x.conf"])
def test_a_file_that_cannot_be_looked_up_is_unknown(tmp_path: Path, path: str) -> None:
    """A link to nothing is no file; a loop of links may have been one."""
    plant(tmp_path, {f"{PKI}/ca.crt": certificate(3650), "/etc/kubernetes/a.conf": ""})
    (tmp_path / path[1:]).symlink_to("gone")
    assert audit(tmp_path, {})["expiry"].status is PASS
    (tmp_path / path[1:]).unlink()
    (tmp_path / path[1:]).symlink_to(path.rpartition("/")[2])
    found = audit(tmp_path, {})["expiry"]
    assert (found.status, path in found.observed) == (UNKNOWN, True)


def test_system_masters_and_super_admin_are_found(tmp_path: Path) -> None:
    masters = kubeconfig(certificate(365, group="system:masters"))
    found = audit(tmp_path, {"/etc/kubernetes/admin.conf": masters, "/etc/kubernetes/super-admin.conf": masters})
    assert (found["masters"].status, found["masters"].observed) == (FAIL, "/etc/kubernetes/admin.conf")
    assert found["super-admin"].status is FAIL
    found = audit(tmp_path / "other", {"/etc/kubernetes/admin.conf": kubeconfig(certificate(365))})
    assert (found["masters"].status, found["super-admin"].status) == (PASS, PASS)


@pytest.mark.parametrize(("since", "days", "status"), [(-70, 30, PASS), (-95, 5, FAIL), (-100, -1, FAIL)])
def test_rotation_that_has_stopped_is_seen(tmp_path: Path, since: float, days: float, status: Status) -> None:
    found = audit(tmp_path, {CURRENT: certificate(days, since=since) + private()})
    assert found["rotation"].status is status
    assert audit(tmp_path / "other", {f"{PKI}/ca.crt": certificate(365)})["rotation"].status is NONE


@pytest.mark.parametrize(
    ("name", "mode", "status"), [("ca-key.pem", 0o666, FAIL), ("ca.key", 0o640, FAIL), ("x", 0o600, PASS)]
)
def test_keys_are_found_by_their_content(tmp_path: Path, name: str, mode: int, status: Status) -> None:
    """kube-bench looks at *.key only."""
    plant(tmp_path, {f"{PKI}/{name}": private()})
    (tmp_path / PKI.lstrip("/") / name).chmod(mode)
    found = base.audit(CertificatesControl(node_sections.Certificates(), Host(tmp_path), wall=NOW.timestamp)).findings
    one = next(finding for finding in found if finding.id == "certificates/keys")
    assert (one.status, one.cis) == (status, ("1.1.19", "1.1.21"))
    assert name in one.observed


def test_the_reader_agrees_with_a_library() -> None:
    pem = certificate(365, group="system:masters")
    (one,) = reader.certificates(pem.encode())
    read = x509.load_pem_x509_certificate(pem.encode())
    assert (one.serial, one.common_name, one.organizations) == (77, "someone", ("system:masters",))
    assert one.not_after == read.not_valid_after_utc.timestamp()
    assert one.not_before == read.not_valid_before_utc.timestamp()
    assert one.subject == read.subject.public_bytes()
    assert not one.self_issued


@pytest.mark.parametrize("cut", [1, 5, 20, 60, 200])
def test_a_certificate_that_ends_early_is_none(cut: int) -> None:
    der = x509.load_pem_x509_certificate(certificate(1).encode()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(reader.NotACertificate):
        reader.parse(der[:cut])


def named(root: Path, program: str, *flags: str, uid: int = 0, files: Mapping[str, str]) -> dict[str, Finding]:
    """The findings where a static pod, or the kubelet beside one, names files beyond the usual folders."""
    node = ControlPlane(root)
    if program == "kubelet":
        node.run("kube-scheduler")
    else:
        node.run(program, *flags, uid=uid)
    node.node.add("kubelet", "/usr/bin/kubelet", *(flags if program == "kubelet" else ()))
    return audit(root, files)


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        ("kube-apiserver", "--etcd-certfile={}"), ("kube-apiserver", "--service-account-key-file={}"),
        ("kube-apiserver", "--tls-sni-cert-key={},/nowhere/sni.key:*.a.b"), ("etcd", "-peer-trusted-ca-file={}"),
        ("kube-controller-manager", "--cluster-signing-cert-file={}"), ("kubelet", "--tls-cert-file={}"),
    ],
)  # fmt: skip
def test_what_a_process_names_counts_wherever_it_is(tmp_path: Path, program: str, flag: str) -> None:
    path = "/opt/tls/one"
    files = {path: certificate(3), "/nowhere/sni.key": private()}
    found = named(tmp_path / "node", program, flag.format(path), files=files)
    assert found["expiry"].status is FAIL
    assert path in found["expiry"].observed
    assert named(tmp_path / "none", program, "--v=2", files=files)["expiry"].status is NONE


def test_a_log_is_no_certificate(tmp_path: Path) -> None:
    path = "/var/log/one.log"
    found = named(tmp_path / "node", "kube-scheduler", f"--log-file={path}", files={path: "x" * 200_000})
    assert found["expiry"].status is NONE


def test_a_kubeconfig_that_is_named_leads_to_its_files(tmp_path: Path) -> None:
    text = "apiVersion: v1\nclusters: []\nusers: [{name: u, user: {client-certificate: tls/c.pem, client-key: /k}}]\n"
    files = {"/srv/s.conf": text, "/srv/tls/c.pem": certificate(300, group="system:masters"), "/k": private()}
    found = named(tmp_path / "node", "kube-scheduler", "--kubeconfig=/srv/s.conf", files=files)
    assert (found["masters"].status, found["masters"].observed) == (FAIL, "/srv/tls/c.pem")
    assert found["keys"].observed == "/k is 0600"


@pytest.mark.parametrize("names", [NAMES_LIMIT + 1, 0])
def test_a_container_whose_files_are_not_seen_names_none_of_the_node(tmp_path: Path, names: int) -> None:
    """Its own are unknown then; those of the node below the same path are not read in their place. 0: it has ended."""
    node, inside = ControlPlane(tmp_path / "node"), tmp_path / "container"
    link = node.root / f"proc/{node.run('kube-scheduler', '--tls-cert-file=/srv/tls.crt')}/root"
    link.unlink()
    link.symlink_to(inside)
    for number in range(names):
        inside.mkdir(exist_ok=True)
        (inside / str(number)).symlink_to("x")
    found = audit(node.root, {"/srv/tls.crt": certificate(3)})
    assert found["expiry"].status is UNKNOWN
    assert "kube-scheduler (pid" in found["expiry"].observed


@pytest.mark.parametrize("program", sorted(CONTROL_PLANE_PROGRAMS - {Program.KUBELITE}))
def test_no_part_of_a_control_plane_ends_the_pass(tmp_path: Path, program: Program) -> None:
    """k8s-dqlite serves no certificate that a flag of its own names."""
    node = ControlPlane(tmp_path)
    node.run(program, cgroup="0::/system.slice/own.service\n", mounts="mnt:[4026531841]")
    assert audit(tmp_path, {f"{PKI}/ca.crt": certificate(3650)})["expiry"].status is PASS


def test_files_that_are_named_without_end_are_looked_for_to_the_limit(tmp_path: Path) -> None:
    """A container of a static pod says which files these are; those that are not there count, and so do kubeconfigs."""
    deep = "/" + "/".join(["d" * 250] * 12)
    files = {f"{deep}/{name}": "clusters\n" + "client-key: x\n" * 9000 for name in ("one", "two")}
    files[f"{deep}/one"] += f"client-key: {deep}/two\n"
    tracemalloc.start()
    found = named(tmp_path / "node", "kube-scheduler", f"--kubeconfig={deep}/one", files=files)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["expiry"].status is UNKNOWN
    assert most < 8 << 20


def test_a_file_that_is_named_and_not_there_is_unknown(tmp_path: Path) -> None:
    files = {f"{PKI}/ca.crt": certificate(3650)}
    found = named(tmp_path / "node", "kube-apiserver", "--client-ca-file=/srv/ca.crt", files=files)
    assert (found["expiry"].status, found["masters"].status) == (UNKNOWN, UNKNOWN)
    assert "/srv/ca.crt" in found["expiry"].observed
    assert "kube-apiserver (pid" in found["expiry"].observed


def test_settings_that_are_unknown_leave_it_unknown_what_is_named(tmp_path: Path) -> None:
    files = {f"{PKI}/ca.crt": certificate(3650)}
    found = named(tmp_path / "node", "kube-apiserver", "--openshift-config=/x", files=files)
    assert found["expiry"].status is UNKNOWN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_key_may_belong_to_who_names_it(tmp_path: Path) -> None:
    """k0s and etcd's own unit run as users of their own."""
    for name, uid, status in (("own", 2379, PASS), ("another", 0, FAIL)):
        root = tmp_path / name
        plant(root, {"/srv/k": private()})
        (root / "srv/k").chmod(0o600)
        os.chown(root / "srv/k", 2379, 2379)
        found = named(root, "etcd", "--key-file=/srv/k", uid=uid, files={"/srv/c": certificate(99)})
        assert found["keys"].status is status


def test_every_certificate_of_a_kubeconfig_counts(tmp_path: Path) -> None:
    second = kubeconfig(certificate(365)) + kubeconfig(certificate(365, group="system:masters"))
    assert audit(tmp_path, {"/etc/kubernetes/a.conf": second})["masters"].status is FAIL
    folded = "client-certificate-data: >-\n  AAAA\n"
    found = audit(tmp_path / "other", {"/etc/kubernetes/a.conf": kubeconfig(certificate(365)) + folded})
    assert (found["masters"].status, found["expiry"].status) == (UNKNOWN, UNKNOWN)


def test_the_last_of_many_authorities_in_a_kubeconfig_counts(tmp_path: Path) -> None:
    bundle = certificate(3650) * 150 + certificate(3)
    text = kubeconfig(bundle).replace("client-certificate-data", "certificate-authority-data")
    assert audit(tmp_path, {"/etc/kubernetes/a.conf": text})["expiry"].status is FAIL


def test_super_admin_without_a_certificate_inside_is_still_there(tmp_path: Path) -> None:
    files = {"/etc/kubernetes/super-admin.conf": "users: []\n", f"{PKI}/ca.crt": certificate(365)}
    assert audit(tmp_path, files)["super-admin"].status is FAIL


def test_an_organization_in_utf_16_is_read(tmp_path: Path) -> None:
    """Go reads a BMPString as what it says, and so has to whoever judges."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters", _ASN1Type.BMPString)])
    built = x509.CertificateBuilder(x509.Name([]), name, key().public_key(), 7)
    made = built.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=99)).sign(key(), hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    assert audit(tmp_path, {f"{PKI}/x.crt": pem})["masters"].status is FAIL


def test_super_admin_that_cannot_be_looked_up_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    (tmp_path / "etc/kubernetes/super-admin.conf").symlink_to("super-admin.conf")
    assert audit(tmp_path, {f"{PKI}/ca.crt": certificate(365)})["super-admin"].status is UNKNOWN
