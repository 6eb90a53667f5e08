"""Each path that a control reads, unreadable one at a time: nothing becomes pass by it, and nothing new is applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import schema
from agent.config.node_sections import Selinux, Sysctl
from agent.controls import base
from agent.controls.apparmor import ApparmorControl
from agent.controls.base import Control
from agent.controls.kubelet import KubeletControl
from agent.controls.modprobe import ModprobeControl
from agent.controls.seccomp import SeccompControl
from agent.controls.selinux import SelinuxControl
from agent.controls.sysctl import SysctlControl
from agent.host import Host, HostExec
from agent.model import Status
from tests.support.kubelets import CONFIG, HARDENED, plant
from tests.support.node_tree import NodeTree
from tests.support.unreadable import UnreadableHost

RELEASE = "6.1.0-18-amd64"
MODULES = f"/lib/modules/{RELEASE}"
FILES = {
    CONFIG: HARDENED,
    "/var/lib/kubelet/ca.crt": "CA",
    "/proc/modules": "sctp 400000 0 - Live 0x0\nsquashfs 80000 1 - Live 0x0\n",
    "/proc/cmdline": "root=/dev/vda1\n",
    "/proc/1/mountinfo": "22 1 253:0 / / rw,relatime shared:1 - squashfs /dev/vda1 rw\n",
    "/proc/1/attr/current": "unconfined\n",
    "/proc/sys/kernel/osrelease": f"{RELEASE}\n",
    "/proc/sys/kernel/modprobe": "/sbin/modprobe\n",
    "/proc/sys/kernel/modules_disabled": "1\n",
    "/proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
    "/proc/sys/kernel/panic": "0\n",
    "/proc/sys/vm/overcommit_memory": "0\n",
    "/etc/modprobe.d/site.conf": "install cramfs /sbin/insmod cramfs.ko\n",
    "/etc/modules-load.d/site.conf": "udf\n",
    "/etc/sysctl.d/99-site.conf": "kernel.panic = 0\n",
    "/etc/selinux/config": "SELINUX=permissive\n",
    f"{MODULES}/modules.dep": "kernel/fs/udf.ko: kernel/lib/crc-itu-t.ko\n",
    f"{MODULES}/modules.builtin": "kernel/net/tipc/tipc.ko\n",
    f"{MODULES}/modules.softdep": "",
    "/sys/class/net/eth0/mtu": "1500",
    "/sys/module/tipc/initstate": "live\n",
    "/sys/module/apparmor/parameters/enabled": "Y\n",
    "/sys/module/apparmor/parameters/audit": "normal",
    "/sys/kernel/security/apparmor/profiles": "snap (enforce)\n",
    "/sys/fs/selinux/enforce": "0",
}


class BareHost(UnreadableHost):
    """Without a program: what a command would find out is unknown, whatever can be read."""

    def find_tool(self, name: str, *, how: HostExec | None = None) -> str | None:
        del name, how
        return None


CONTROLS: dict[str, Callable[[Host], Control[Any]]] = {
    "modprobe": lambda host: ModprobeControl(schema.Modprobe(unload=True, deny=("squashfs", "udf")), host),
    "apparmor": lambda host: ApparmorControl(schema.Apparmor(), host),
    "seccomp": lambda host: SeccompControl(schema.Seccomp(), host),
    "kubelet": lambda host: KubeletControl(schema.Kubelet(probe=False), host),
    "sysctl": lambda host: SysctlControl(Sysctl(), host),
    "selinux": lambda host: SelinuxControl(Selinux(), host),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_nothing_passes_because_it_cannot_be_read(tmp_path: Path, name: str) -> None:
    node = NodeTree(tmp_path / "node")
    plant(node.root, FILES)
    node.add("kubelet", "kubelet", f"--config={CONFIG}", "--anonymous-auth=true", started=1e9)
    host = BareHost(node.root)
    whole = base.dry_run(CONTROLS[name](host))
    passed = {one.id for one in whole.findings if one.status is Status.PASS}
    planned = {(one.action, one.target, one.reason) for one in whole.changes}
    assert {one.id for one in whole.findings} - passed
    assert host.asked
    for path in tuple(host.asked):
        found = base.dry_run(CONTROLS[name](BareHost(node.root, path)))
        assert {one.id for one in found.findings if one.status is Status.PASS} <= passed, path
        assert {(one.action, one.target, one.reason) for one in found.changes} <= planned, path
        assert found.findings, path
