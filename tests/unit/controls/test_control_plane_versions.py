"""Versions of the control plane's components: support by the calendar, the distance to the API server, and whence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config import node_sections
from agent.controls.control_plane import ControlPlaneControl
from agent.errors import HostError
from agent.host import Completed, Host
from agent.model import Status
from tests.support.control_planes import ControlPlane
from tests.support.kubelets import plant

PASS, FAIL, UNKNOWN, INFO, NONE = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.INFO, Status.NOT_APPLICABLE
SERVER, MANAGER, ETCD = "kube-apiserver", "kube-controller-manager", "etcd"


@pytest.fixture
def node(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path / "node")


def run(node: ControlPlane, **images: str) -> None:
    """Static pods of these images, by the programs' names with underscores."""
    for name, image in images.items():
        program = name.replace("_", "-")
        node.files({f"/etc/kubernetes/manifests/{program}.yaml": f"spec: {{containers: [{{image: '{image}'}}]}}"})
        node.run(program)


@pytest.mark.parametrize(
    ("own", "server", "status"),
    [("1.36.2", "1.36.0", PASS), ("1.35.9", "1.36.0", PASS), ("1.34.9", "1.36.0", FAIL), ("1.37.0", "1.36.9", FAIL)],
)
@pytest.mark.parametrize("program", ["kube-controller-manager", "kube-scheduler"])
def test_skew_follows_the_policy(node: ControlPlane, program: str, own: str, server: str, status: Status) -> None:
    images = {SERVER: f"mirror:5000/v1.2.3/{SERVER}:v{server}", program: f"registry.k8s.io/{program}:v{own}@sha256:ab"}
    run(node, **{name.replace("-", "_"): image for name, image in images.items()})
    found = node.audit()[f"{program.removeprefix('kube-')}/skew"]
    assert (found.status, found.section) == (status, "A3")
    assert f"{own}, API server {server}" in found.observed


@pytest.mark.parametrize(
    ("version", "today", "status"),
    [("1.36.2", "2026-11-28", PASS), ("1.34.1", "2026-11-28", FAIL), ("1.36.2", "2027-05-01", INFO)],
)
def test_support_of_the_api_server_follows_the_calendar(
    node: ControlPlane, version: str, today: str, status: Status
) -> None:
    run(node, kube_apiserver=f"registry.k8s.io/kube-apiserver:v{version}")
    assert node.audit(today=today)["apiserver/supported"].status is status


@pytest.mark.parametrize(
    ("version", "today", "status"),
    [
        ("3.3.27", "2026-11-28", FAIL), ("3.4.45-0", "2026-06-01", PASS), ("3.4.45-0", "2026-06-02", FAIL),
        ("3.5.24-0", "2026-11-28", PASS), ("3.5.24-0", "2027-07-09", FAIL), ("3.6.5-0", "2026-11-28", PASS),
        ("3.7.1-0", "2027-11-28", PASS), ("3.7.1-0", "2027-11-29", UNKNOWN), ("3.8.0-0", "2026-12-28", INFO),
        ("3.8.0-0", "2028-01-01", UNKNOWN), ("2.3.8", "2026-11-28", FAIL), ("v3.5.21-k3s1-b2025", "2026-12-01", PASS),
    ],
)  # fmt: skip
def test_support_of_etcd_follows_its_table(node: ControlPlane, version: str, today: str, status: Status) -> None:
    run(node, etcd=f"registry.k8s.io/etcd:{version}")
    assert node.audit(today=today)["etcd/supported"].status is status


@pytest.mark.parametrize(
    ("own", "server", "status"),
    [
        ("3.5.24-0", "1.36.2", PASS),
        ("3.5.23-0", "1.36.2", FAIL),
        ("3.6.5-0", "1.37.0", PASS),
        ("3.4.3", "1.35.1", NONE),
    ],
)
def test_etcd_is_new_enough_for_the_api_server(node: ControlPlane, own: str, server: str, status: Status) -> None:
    run(node, kube_apiserver=f"r/kube-apiserver:v{server}", etcd=f"r/etcd:{own}")
    assert node.audit()["etcd/skew"].status is status


@pytest.mark.parametrize("image", ["r/kube-controller-manager@sha256:abc", "r/kube-controller-manager:latest", "x:1/y"])
def test_an_image_without_a_version_is_unknown(node: ControlPlane, image: str) -> None:
    run(node, kube_apiserver="r/kube-apiserver:v1.36.2", kube_controller_manager=image)
    assert node.audit()["controller-manager/skew"].status is UNKNOWN


def test_a_manifest_that_changed_after_the_start_has_no_version(node: ControlPlane) -> None:
    """The kubelet may not have started that image yet."""
    run(node, kube_apiserver="r/kube-apiserver:v1.36.2", kube_controller_manager="r/kube-controller-manager:v1.36.2")
    os.utime(node.root / "etc/kubernetes/manifests/kube-controller-manager.yaml", (3e9, 3e9))
    assert node.audit()["controller-manager/skew"].status is UNKNOWN


def test_nothing_to_compare_with_is_unknown(node: ControlPlane) -> None:
    run(node, kube_scheduler="r/kube-scheduler:v1.36.2", etcd="r/etcd:3.6.5-0")
    found = node.audit()
    assert (found["scheduler/skew"].status, found["etcd/skew"].status) == (UNKNOWN, UNKNOWN)


class Recorded(Host):
    """A node whose programs are counted and not run."""

    can_start_programs = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.ran.append(argv[0])
        raise HostError("not run")


@pytest.mark.parametrize(("executable", "runs"), [("/usr/local/bin/etcd", True), ("/usr/sbin/poweroff", False)])
def test_only_a_program_of_that_name_is_asked_for_its_version(node: ControlPlane, executable: str, runs: bool) -> None:
    """A process names itself: with another file of the node as its program it would have the agent run that one."""
    link = node.root / f"proc/{node.run('etcd')}/exe"
    plant(node.root, {executable: "x"})
    link.unlink()
    link.symlink_to(executable)
    host = Recorded(node.root)
    control = ControlPlaneControl(node_sections.ControlPlane(probe=False), host)
    control.observe()
    assert host.ran == ([executable] if runs else [])
