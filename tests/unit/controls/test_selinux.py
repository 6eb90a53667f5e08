"""SELinux as the kernel shows it: mode, the boolean, the labels of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.node_sections import Selinux
from agent.controls import base
from agent.controls.selinux import SelinuxControl
from agent.errors import HostError
from agent.host import Host
from agent.host.containers import Container
from agent.model import Finding, Status


class Node(Host):
    """A tree with the labels of its containers; None: they cannot be listed."""

    labels: tuple[str, ...] | None = ()

    def containers(self) -> tuple[Container, ...]:
        if self.labels is None:
            raise HostError("cannot list the containers: Permission denied")
        return tuple(Container(number, "", "", label) for number, label in enumerate(self.labels))


def judged(root: Path, enforce: str = "", boolean: str = "", labels: tuple[str, ...] | None = ()) -> dict[str, Finding]:
    folder = root / "sys/fs/selinux/booleans"
    folder.mkdir(parents=True)
    if enforce:
        (folder.parent / "enforce").write_text(enforce)
    if boolean:
        (folder / "domain_kernel_load_modules").write_text(boolean)
    host = Node(root)
    host.labels = labels
    return {one.id: one for one in base.audit(SelinuxControl(Selinux(), host)).findings}


CONTAINER = "system_u:system_r:container_t:s0:c1,c2"


def test_without_selinux_nothing_applies(tmp_path: Path) -> None:
    assert [one.status for one in judged(tmp_path).values()] == [Status.NOT_APPLICABLE]


@pytest.mark.parametrize(
    ("enforce", "boolean", "mode", "module_request"),
    [
        ("1", "0 0", Status.PASS, Status.PASS),
        ("1", "1 1", Status.PASS, Status.FAIL),
        ("1", "1 0", Status.PASS, Status.FAIL),  # off only after the next commit
        ("0", "0 0", Status.FAIL, Status.FAIL),
        ("1", "", Status.PASS, Status.UNKNOWN),
    ],
)
def test_mode_and_module_request(
    tmp_path: Path, enforce: str, boolean: str, mode: Status, module_request: Status
) -> None:
    found = judged(tmp_path, enforce, boolean)
    assert (found["selinux/mode"].status, found["selinux/module-request"].status) == (mode, module_request)
    assert {one.section for one in found.values()} == {"K7"}


@pytest.mark.parametrize(
    ("labels", "status"),
    [
        ((), Status.NOT_APPLICABLE),
        ((CONTAINER, "system_u:system_r:spc_t:s0"), Status.PASS),
        ((CONTAINER, "system_u:system_r:unconfined_t:s0"), Status.FAIL),
        (("cri-containerd.apparmor.d (enforce)",), Status.UNKNOWN),
        ((CONTAINER, ""), Status.UNKNOWN),
        (None, Status.UNKNOWN),
    ],
)
def test_containers_have_domains(tmp_path: Path, labels: tuple[str, ...] | None, status: Status) -> None:
    assert judged(tmp_path, "1", "0 0", labels)["selinux/containers"].status is status


def test_garbage_is_unknown(tmp_path: Path) -> None:
    assert judged(tmp_path, "maybe")["selinux/mode"].status is Status.UNKNOWN
