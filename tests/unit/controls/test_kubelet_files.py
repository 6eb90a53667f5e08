"""Modes and owners of the kubelet's files, systemd's units without systemd, and serving certificates."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.controls.kubelet import effective, files, units
from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet.discovery import Launch
from agent.controls.x509 import NotACertificate, is_self_signed
from agent.host import Host
from agent.model import Finding, Status
from tests.support.kubelets import CONFIG, DROP_INS, config, plant, process

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def judged(root: Path, *args: str) -> Mapping[str, Finding]:
    """The findings about files for a kubelet with these arguments, by id; none at all runs without arguments."""
    host = Host(root)
    groups = files.groups(host, host)
    if args:
        told = effective.read(host, kubelet_flags.parse(kubelet_flags.arguments(args)), "/")
        groups = files.groups(host, host, "kubelet.service", told)
    found = [finding for group in groups for finding in files.judge(files.look(host, group))]
    return {finding.id.removeprefix("kubelet/"): finding for finding in found}


def chmod(root: Path, path: str, mode: int) -> None:
    (root / path.lstrip("/")).chmod(mode)


def test_the_ids_that_can_be_skipped_are_those_that_are_found(tmp_path: Path) -> None:
    """kube-proxy's two come with kube-proxy."""
    assert {*judged(tmp_path), "4.1.3", "4.1.4"} == set(files.IDS)


def test_what_is_not_there_is_not_applicable(tmp_path: Path) -> None:
    """A missing file is no failure."""
    for args in ((), ("--kubeconfig=/k", "--config=/c")):
        assert {finding.status for finding in judged(tmp_path, *args).values()} == {Status.NOT_APPLICABLE}
    assert judged(tmp_path, "--kubeconfig=/k")["4.1.5"].observed == "not there: /k"


@pytest.mark.parametrize(("mode", "status"), [(0o600, Status.PASS), (0o400, Status.PASS), (0o640, Status.FAIL)])
def test_a_mode_passes_when_no_bit_is_too_many(mode: int, status: Status, tmp_path: Path) -> None:
    """0400 is stricter than 0600, not different from it."""
    plant(tmp_path, {"/k": ""})
    chmod(tmp_path, "/k", mode)
    finding = judged(tmp_path, "--kubeconfig=/k")["4.1.5"]
    assert finding.status is status
    assert finding.remediation == ("" if status is Status.PASS else "chmod 0600 /k")


def test_a_folder_that_lets_nobody_in_makes_the_mode_harmless(tmp_path: Path) -> None:
    """It passes, and the finding says why; with a folder open to others it fails."""
    plant(tmp_path, {CONFIG: config("")})
    chmod(tmp_path, CONFIG, 0o644)
    for mode, status in ((0o700, Status.PASS), (0o750, Status.PASS), (0o751, Status.FAIL), (0o755, Status.FAIL)):
        chmod(tmp_path, "/var/lib/kubelet", mode)
        finding = judged(tmp_path, f"--config={CONFIG}")["4.1.9"]
        assert finding.status is status, oct(mode)
    chmod(tmp_path, "/var/lib/kubelet", 0o700)
    said = judged(tmp_path, f"--config={CONFIG}")["4.1.9"].observed
    assert said == f"{CONFIG} is 0644, but /var/lib/kubelet (0700) is closed to others"


@pytest.mark.parametrize("link", ["/closed/key", "/closed/folder"])
def test_a_closed_folder_of_a_link_does_not_close_what_it_leads_to(link: str, tmp_path: Path) -> None:
    """A link from a closed folder to a file, or to the file's folder, in an open one."""
    plant(tmp_path, {"/data/keys/key": "", "/closed/x": ""})
    chmod(tmp_path, "/data/keys/key", 0o644)
    chmod(tmp_path, "/closed", 0o700)
    (tmp_path / link.lstrip("/")).symlink_to("/data/keys/key" if link.endswith("key") else "../data/keys")
    path = link if link.endswith("key") else f"{link}/key"
    assert judged(tmp_path, f"--kubeconfig={path}")["4.1.5"].status is Status.FAIL
    chmod(tmp_path, "/data", 0o700)
    assert "/data (0700) is closed to others" in judged(tmp_path, f"--kubeconfig={path}")["4.1.5"].observed


def test_a_link_to_nothing_hides_no_file_beside_it(tmp_path: Path) -> None:
    plant(tmp_path, {"/var/lib/kubelet/pki/kubelet.key": ""})
    chmod(tmp_path, "/var/lib/kubelet/pki/kubelet.key", 0o644)
    (tmp_path / "var/lib/kubelet/pki/current.pem").symlink_to("gone.pem")
    assert judged(tmp_path)["file/pki"].status is Status.FAIL
    (tmp_path / "var/lib/kubelet/pki/kubelet.key").unlink()
    (tmp_path / "var/lib/kubelet/pki/loop.key").symlink_to("loop.key")
    assert judged(tmp_path)["file/pki"].status is Status.UNKNOWN


@root_only
def test_another_owner_fails_whatever_the_mode(tmp_path: Path) -> None:
    """root:root; a socket's group may be another one."""
    plant(tmp_path, {"/k": "", CONFIG: config("")})
    chmod(tmp_path, "/k", 0o600)
    os.chown(tmp_path / "k", 0, 7)
    found = judged(tmp_path, "--kubeconfig=/k")
    assert (found["4.1.5"].status, found["4.1.6"].status) == (Status.PASS, Status.FAIL)
    assert found["4.1.6"].observed == "/k is owned by 0:7"
    assert found["4.1.6"].remediation == "chown root:root /k"


@root_only
def test_sockets_may_be_the_groups_but_not_the_worlds(tmp_path: Path) -> None:
    """Docker's own 0660 root:docker is fine; 0666 is root for everybody."""
    plant(tmp_path, {"/run/docker.sock": "", "/run/own.sock": ""})
    os.chown(tmp_path / "run/docker.sock", 0, 7)
    chmod(tmp_path, "/run/docker.sock", 0o660)
    chmod(tmp_path, "/run/own.sock", 0o660)
    args = ("--container-runtime-endpoint=unix:///run/own.sock",)
    assert judged(tmp_path, *args)["file/socket"].status is Status.PASS
    chmod(tmp_path, "/run/own.sock", 0o666)
    finding = judged(tmp_path, *args)["file/socket"]
    assert (finding.status, finding.remediation) == (Status.FAIL, "chmod 0664 /run/own.sock")


def test_every_kind_of_file_is_looked_at(tmp_path: Path) -> None:
    """Unit, client CA, configuration, drop-ins, bootstrap, keys, CNI: each one that is too open is named."""
    unit = "/etc/systemd/system/kubelet.service"
    paths = {
        "4.1.1": [unit, f"{unit}.d/10-kubeadm.conf"],
        "4.1.5": ["/k"],
        "4.1.7": ["/etc/ca.crt"],
        "4.1.9": [CONFIG],
        "file/drop-ins": [f"{DROP_INS}/10-a.conf"],
        "file/bootstrap": ["/b"],
        "file/pki": ["/pki/kubelet.key", "/pki/kubelet-client-current.pem", "/own.key"],
        "file/cni": ["/etc/cni/net.d/10-x.conflist"],
    }
    plant(tmp_path, {path: config("") for some in paths.values() for path in some} | {"/pki/kubelet.crt": ""})
    for some in paths.values():
        for path in some:
            chmod(tmp_path, path, 0o666)
    found = judged(
        tmp_path, "--kubeconfig", "/k", "--client-ca-file=/etc/ca.crt", f"--config={CONFIG}",
        f"--config-dir={DROP_INS}", "--bootstrap-kubeconfig=/b", "--cert-dir=/pki", "--tls-private-key-file=/own.key",
    )  # fmt: skip
    for id_, some in paths.items():
        assert found[id_].status is Status.FAIL
        for path in some:
            assert f"{path} is 0666" in found[id_].observed
            assert f"chmod {0o644 if id_ == '4.1.7' else 0o600:04o} {path}" in found[id_].remediation
    assert "kubelet.crt" not in found["file/pki"].observed


def test_a_unit_is_found_where_packages_put_it(tmp_path: Path) -> None:
    """Without systemd to ask: /etc before /usr/lib, drop-ins of every folder, ExecStart over continued lines."""
    plant(
        tmp_path,
        {
            "/etc/systemd/system/k.service": "[Service]\nExecStart=\nExecStart=/bin/k server \\\n  --flag 'a b'\n",
            "/usr/lib/systemd/system/k.service": "[Service]\nExecStart=/bin/other\n",
            "/usr/lib/systemd/system/k.service.d/10-a.conf": "",
            "/etc/systemd/system/k.service.d/note.txt": "",
        },
    )
    found = units.files(Host(tmp_path), "k.service")
    assert found.fragment == "/etc/systemd/system/k.service"
    assert found.drop_ins == ("/usr/lib/systemd/system/k.service.d/10-a.conf",)
    assert units.exec_start(Host(tmp_path), "k.service") == ["/bin/k", "server", "--flag", "a b"]
    assert units.exec_start(Host(tmp_path), "none.service") is None
    plant(tmp_path, {"/etc/systemd/system/odd.service": "ExecStart=/bin/k 'never closed\n"})
    assert units.exec_start(Host(tmp_path), "odd.service") is None


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----"])
def test_a_file_without_certificate_is_said_to_be_none(pem: bytes) -> None:
    """Unknown to the check, never self-signed or issued."""
    for content in (
        b"",
        b"*",
        base64.b64encode(b"0"),
        base64.b64encode(b"\x30\x82\xff\xff"),
        base64.b64encode(b"\x30\x02\x30\x00"),
    ):
        with pytest.raises(NotACertificate):
            is_self_signed(pem % content if b"%s" in pem else pem)


def test_the_process_of_a_launch_is_called_as_people_find_it() -> None:
    """By name and pid."""
    launch = Launch(process(name="k3s", pid=7), "k3s", kubelet_flags.Flags(()), "")
    assert launch.called == "the kubelet in k3s (pid 7)"
