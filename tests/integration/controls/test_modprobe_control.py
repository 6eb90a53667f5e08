"""The modprobe control on node trees with real module indexes (depmod) and the real modprobe."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.choices import Mode
from agent.config.schema import Modprobe
from agent.controls import base
from agent.controls.modprobe import ModprobeControl
from agent.controls.modprobe.modprobe_d import FOLDERS, ConfigLine, Configuration, in_order, parse
from agent.controls.modprobe.needed import needed
from agent.host import Host, HostExec
from agent.model import Finding, Outcome, Status
from agent.sandbox.kernel_modules import DCCP_AND_SCTP, RELEASE, Module, build, tool
from tests.support.unreadable import UnreadableHost

MODPROBE = tool("modprobe") or ""
pytestmark = pytest.mark.skipif(not MODPROBE or not tool("depmod"), reason="needs kmod (modprobe, depmod)")

FILE = "etc/modprobe.d/kubernetes-blacklist.conf"
ALIASES = ("net-pf-2-proto-132", "net-pf-10-proto-132", "net-pf-2-proto-33-type-6", "net-pf-16-proto-4-type-2-132")
# Like Debian's ksmbd: brings soft dependencies, because of which modprobe passes over its install line.
KSMBD = Module("ksmbd", ("fs-ksmbd",), softdep="pre: libcrc32c", folder="kernel/fs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A node's tree that no kernel runs on, merged /usr included."""
    root = tmp_path / "node"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for folder in FOLDERS[:-1]:
        (root / folder[1:]).mkdir(parents=True)
    build(root, (*DCCP_AND_SCTP, KSMBD), builtin=["tipc"])
    return root


@pytest.fixture
def node(tree: Path) -> Path:
    """The same with a /proc and /sys of its own: a kernel runs on it."""
    for path, text in (
        ("proc/sys/kernel/osrelease", f"{RELEASE}\n"),
        ("proc/sys/kernel/modprobe", "/sbin/modprobe\n"),
        ("proc/sys/kernel/random/boot_id", "3f4a8e9c-0000-4000-8000-000000000000\n"),
        ("proc/modules", "overlay 163840 3 - Live 0x0\n"),
        ("proc/cmdline", "root=/dev/vda1\n"),
    ):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "sys/module").mkdir(parents=True)
    return tree


class NodeWithTools(Host):
    """A node whose programs, and those beside the agent, are what is in one folder."""

    def __init__(self, root: Path, tools: Path) -> None:
        super().__init__(root)
        self._tools = tools

    def find_tool(self, name: str, *, how: HostExec | None = None) -> str | None:
        """From that folder only, whichever way it would run."""
        del how
        path = self._tools / name
        return str(path) if path.exists() else None


def control(root: Path, config: Modprobe | None = None, *, tools: Path | None = None) -> ModprobeControl:
    """The control over a tree."""
    return ModprobeControl(config or Modprobe(), NodeWithTools(root, tools) if tools else Host(root))


def by_id(result: base.Pass) -> dict[str, Finding]:
    """Findings without the control's name before them."""
    return {one.id.removeprefix("modprobe/"): one for one in result.findings}


def bad(result: base.Pass) -> dict[str, str]:
    """What does not pass, and what was observed."""
    return {name: one.observed for name, one in by_id(result).items() if one.status in (Status.FAIL, Status.UNKNOWN)}


def dry(root: Path, name: str, *, folders: tuple[str, ...] = ("/etc/modprobe.d",)) -> list[str]:
    """What `modprobe -n -v NAME` prints for the tree, word by word as the issue asks for it."""
    chosen = [option for folder in folders for option in ("-C", str(root / folder[1:]))]
    argv = [MODPROBE, "-d", str(root), "-S", RELEASE, *chosen, "-n", "-v", name]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()


def loads(printed: list[str], module: str) -> bool:
    """Whether that module's own object would be loaded."""
    return any(line.startswith("insmod") and f"/{module}.ko" in line for line in printed)


def test_apply_refuses_by_name_by_alias_and_as_a_dependency(tree: Path) -> None:
    """What the real modprobe prints for each way to a module, and that the findings say the same."""
    assert loads(dry(tree, "sctp"), "sctp")
    assert loads(dry(tree, "net-pf-2-proto-33-type-6"), "dccp_ipv4")
    result = base.apply(control(tree))
    assert bad(result) == {}
    assert [(one.action, one.target, one.outcome) for one in result.changes] == [("write", "/" + FILE, Outcome.DONE)]
    for name in ("dccp", "dccp_ipv4", "dccp-ipv6", "dccp_diag", "sctp", "sctp_diag"):
        printed = dry(tree, name)
        assert "install /bin/false " in printed, name
        assert not any(
            loads(printed, one) for one in ("dccp", "dccp_ipv4", "dccp_ipv6", "dccp_diag", "sctp", "sctp_diag")
        )
    for alias in ALIASES:
        assert dry(tree, alias) == [], alias
    assert loads(dry(tree, "bridge"), "bridge")


def test_a_module_that_needs_a_denied_one_is_refused_through_it(tree: Path) -> None:
    """dccp_ipv4 alone allowed: it still cannot be had, since dccp is denied."""
    result = base.apply(control(tree, Modprobe(lists=(), deny=("dccp",))))
    assert bad(result) == {}
    assert dry(tree, "net-pf-2-proto-33-type-6")[0] == "install /bin/false "


def test_the_second_apply_changes_nothing(tree: Path) -> None:
    """Same inode, same mtime, no step, for the file and for the manifest."""
    base.apply(control(tree))
    paths = [tree / FILE, tree / "var/lib/node-hardening/modprobe.json"]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    again = base.apply(control(tree))
    assert again.changes == ()
    assert before == [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


def test_audit_and_dry_run_change_nothing(tree: Path) -> None:
    """They say what is open, and dry-run what would be done."""
    looked = base.audit(control(tree))
    assert by_id(looked)["sctp"].observed == "it loads"
    planned = base.dry_run(control(tree))
    assert [one.outcome for one in planned.changes] == [Outcome.PLANNED]
    assert base.apply(control(tree, Modprobe(mode=Mode.AUDIT))).changes == ()
    assert not (tree / FILE).exists()
    assert not (tree / "var").exists()


def test_a_soft_dependency_of_the_module_does_not_open_it(tree: Path) -> None:
    """An install line alone leaves ksmbd open; with the agent's empty softdep it is refused."""
    (tree / "etc/modprobe.d/plain.conf").write_text("install ksmbd /bin/false\nblacklist ksmbd\n")
    assert loads(dry(tree, "ksmbd"), "ksmbd")
    assert bad(base.apply(control(tree, Modprobe(deny=("ksmbd",))))) == {}
    assert not loads(dry(tree, "ksmbd"), "ksmbd")


def test_a_file_that_sorts_too_late_for_that_is_named(tree: Path) -> None:
    """modules.softdep is read before z.conf, so the file's name has to change; the finding says which line wins."""
    config = Modprobe(deny=("ksmbd",), file="/etc/modprobe.d/z.conf")
    one = by_id(base.apply(control(tree, config)))["ksmbd"]
    assert one.status is Status.FAIL
    assert one.source == f"/lib/modules/{RELEASE}/modules.softdep:2"
    assert "sort before modules.softdep" in one.remediation


@pytest.mark.parametrize(
    ("path", "text", "place", "words"),
    [
        ("etc/modprobe.d/a.conf", "# x\ninstall sctp /sbin/insmod x\n", "/etc/modprobe.d/a.conf:2", "install sctp"),
        ("run/modprobe.d/a.conf", "install s* /sbin/x\n", "/run/modprobe.d/a.conf:1", "install s*"),
        ("usr/lib/modprobe.d/a.conf", "softdep sctp post: bridge\n", "/usr/lib/modprobe.d/a.conf:1", "softdep sctp"),
        (
            "etc/modprobe.d/z.conf",
            "\ninstall net-pf-2-proto-132 /sbin/insmod /x/sctp.ko\n",
            "/etc/modprobe.d/z.conf:2",
            "alias net_pf_2_proto_132",
        ),
    ],
)
def test_a_line_elsewhere_that_wins_is_named(tree: Path, path: str, text: str, place: str, words: str) -> None:
    """File, line, what it says, and what to do about it; other modules pass."""
    (tree / path).write_text(text)
    result = base.apply(control(tree))
    one = by_id(result)["sctp"]
    assert (one.status, one.source) == (Status.FAIL, place)
    assert words in one.observed
    assert "Remove the line from" in one.remediation
    assert by_id(result)["dccp"].status is Status.PASS
    assert text == (tree / path).read_text()


def test_bin_true_elsewhere_keeps_the_module_out_all_the_same(tree: Path) -> None:
    """Older benchmarks wrote it so: not loaded, which is what counts, and told apart."""
    (tree / "etc/modprobe.d/CIS.conf").write_text("install sctp /bin/true\n")
    one = by_id(base.apply(control(tree)))["sctp"]
    assert one.status is Status.PASS
    assert "`install sctp /bin/true` in /etc/modprobe.d/CIS.conf:1" in one.observed


def test_a_command_of_another_module_that_loads_ours_is_found(tree: Path) -> None:
    """`modprobe -i` inside somebody's install line walks around the denial."""
    (tree / "etc/modprobe.d/x.conf").write_text("install bridge /sbin/modprobe -i sctp\n")
    assert "sctp/loader/etc/modprobe.d/x.conf:1" in bad(base.apply(control(tree)))


def test_a_same_named_file_in_an_earlier_folder_makes_ours_void(tree: Path) -> None:
    """The file finding names the other one, and every module fails, because modprobe says so."""
    (tree / "etc/modprobe.d/x.conf").write_text("# nothing\n")
    found = bad(base.apply(control(tree, Modprobe(file="/usr/lib/modprobe.d/x.conf"))))
    assert found["file"] == "not read: /etc/modprobe.d/x.conf has the same name in an earlier folder"
    assert found["sctp"] == "it loads"


def test_a_same_named_file_that_ours_hides_is_told(tree: Path) -> None:
    """Merged /usr shows one file twice; it is told once for each path and nothing else."""
    (tree / "usr/lib/modprobe.d/kubernetes-blacklist.conf").write_text("blacklist pcspkr\n")
    result = base.apply(control(tree))
    assert bad(result) == {}
    assert by_id(result)["hides/usr/lib/modprobe.d/kubernetes-blacklist.conf"].status is Status.INFO


def test_every_alias_of_a_stranger_in_the_configuration_counts(tree: Path) -> None:
    """An alias that somebody adds leads to a blacklisted module all the same."""
    (tree / "etc/modprobe.d/a.conf").write_text("alias net-pf-99 sctp\nalias my* dccp\n")
    result = base.apply(control(tree))
    assert bad(result) == {}
    assert "by 4 aliases" in by_id(result)["sctp"].observed


RDS_AND_TIPC = (
    Module("rds", ("net-pf-21",), exports=("rds_trans_register",)),
    Module("rds_tcp", needs=("rds_trans_register",)),
    Module("tipc", ("net-pf-30",)),
)


def foreign(root: Path, text: str, deny: tuple[str, ...]) -> dict[str, Finding]:
    """The findings on a tree whose modprobe.d is another program's alone."""
    build(root, RDS_AND_TIPC)
    (root / "etc/modprobe.d").mkdir(parents=True)
    (root / "etc/modprobe.d/00-site.conf").write_text(text)
    return by_id(base.audit(control(root, Modprobe(lists=(), deny=deny))))


def test_an_alias_of_the_name_does_not_hide_a_command_that_loads(tmp_path: Path) -> None:
    """`modprobe rds` leads to tipc and is refused; a socket's request, net-pf-21, runs a command that loads rds."""
    text = "alias rds tipc\ninstall tipc /bin/false\ninstall rds /sbin/modprobe --ignore-install rds\n"
    one = foreign(tmp_path, text, ("rds",))["rds"]
    assert (one.status, one.source) == (Status.FAIL, "/etc/modprobe.d/00-site.conf:3")
    assert "through the alias net_pf_21" in one.observed


def test_an_alias_of_a_dependency_does_not_stop_what_needs_it(tmp_path: Path) -> None:
    """`modprobe rds` is refused through its alias; rds_tcp takes rds by its path, and loads both."""
    found = foreign(tmp_path, "alias rds tipc\ninstall tipc /bin/false\n", ("rds", "rds_tcp"))
    assert {name: found[name].status for name in ("rds", "rds_tcp")} == dict.fromkeys(("rds", "rds_tcp"), Status.FAIL)


def test_whatever_a_shell_ends_non_zero_with_is_a_refusal(tmp_path: Path) -> None:
    """A comment, a redirection, options of the module behind the command, a log line before it."""
    text = (
        "install rds /bin/false 2>/dev/null\ninstall rds_tcp logger refused; /bin/false # stale mitigation\n"
        'options tipc text="a b"\ninstall tipc /bin/false\n'
    )
    found = foreign(tmp_path, text, ("rds", "rds_tcp", "tipc"))
    assert [found[name].status for name in ("rds", "rds_tcp", "tipc")] == [Status.PASS] * 3


# -- the running kernel ------------------------------------------------------------------------------------------------


def test_each_module_is_told_as_refused_loaded_built_in_or_absent(node: Path) -> None:
    """One node with all four."""
    (node / "proc/modules").write_text("sctp 458752 3 sctp_diag, Live 0x0\nsctp_diag 16384 0 - Live 0x0\n")
    (node / "sys/module/rds").mkdir()
    result = base.apply(control(node, Modprobe(deny=("tipc", "rds", "cramfs"))))
    found = by_id(result)
    assert "loaded; used by sctp_diag" in found["sctp"].observed
    assert "loaded; unused" in found["sctp_diag"].observed
    assert f"built into kernel {RELEASE}" in found["tipc"].observed
    assert "built into the running kernel" in found["rds"].observed
    assert f"refused by name; not loaded; not in kernel {RELEASE}" == found["cramfs"].observed
    assert found["dccp_ipv4"].observed == "refused by name and by 2 aliases; not loaded"
    assert {"sctp", "sctp_diag", "tipc", "rds"} == set(bad(result))


def test_a_kernel_without_its_folder_of_modules_is_unknown_but_denied(node: Path) -> None:
    """The names are refused; whether they are built in cannot be told."""
    (node / "proc/sys/kernel/osrelease").write_text("6.6.0-other\n")
    result = base.apply(control(node))
    assert by_id(result)["sctp"].status is Status.UNKNOWN
    assert "refused by name, and not loaded; unknown whether it is built in" in by_id(result)["sctp"].observed


def test_a_kernel_that_cannot_load_modules_is_told(node: Path) -> None:
    """Neither /proc/modules nor kernel.modprobe: built without CONFIG_MODULES, so nothing is loaded."""
    (node / "proc/modules").unlink()
    (node / "proc/sys/kernel/modprobe").unlink()
    result = base.apply(control(node))
    found = by_id(result)
    assert found["kernel"].observed == "no: built without CONFIG_MODULES"
    assert found["dccp"].status is Status.NOT_APPLICABLE


def test_without_loadable_modules_only_what_is_built_in_counts(node: Path) -> None:
    """No kmod, no folder of modules, and sctp compiled in: nothing else is left to refuse."""
    for path in ("proc/modules", "proc/sys/kernel/modprobe"):
        (node / path).unlink()
    (node / "sys/module/sctp").mkdir()
    (node / "empty").mkdir()
    found = bad(base.apply(control(node, tools=node / "empty")))
    assert set(found) == {"sctp"}


@pytest.mark.parametrize("missing", [True, False])
def test_whether_something_is_loaded_is_unknown_without_proc_modules(node: Path, missing: bool) -> None:
    """Gone (an odd mount) or no file at all: not known is no pass."""
    (node / "proc/modules").unlink()
    if not missing:
        (node / "proc/modules").mkdir()
    one = by_id(base.apply(control(node)))["sctp"]
    assert one.status is Status.UNKNOWN
    assert "unknown whether it is loaded: cannot read /proc/modules" in one.observed


def test_a_node_without_kmod_is_asked_about_by_the_agents_own(node: Path) -> None:
    """Under nsenter the node's modprobe is looked for in the node's tree; where there is none the agent's reads it."""
    result = base.apply(ModprobeControl(Modprobe(), Host(node, how=HostExec.NSENTER)))
    assert bad(result) == {}


def test_unload_is_planned_only_for_the_kernel_that_commands_act_on(node: Path) -> None:
    """A copy of a node elsewhere (another boot id) must not cost this machine a module."""
    (node / "proc/modules").write_text("nodehardeningtest 16384 0 - Live 0x0\n")
    config = Modprobe(deny=("nodehardeningtest",), unload=True)
    assert [one.action for one in base.dry_run(control(node, config)).changes] == ["write"]
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if not boot_id.exists():
        pytest.skip("no /proc on this machine")
    (node / "proc/sys/kernel/random/boot_id").write_text(boot_id.read_text())
    assert [(one.action, one.target) for one in base.dry_run(control(node, config)).changes] == [
        ("write", "/" + FILE),
        ("unload", "nodehardeningtest"),
    ]
    # The module is invented, so the real rmmod refuses: a failed step and a finding, the rest is done.
    result = base.apply(control(node, config))
    assert [one.outcome for one in result.changes] == [Outcome.DONE, Outcome.FAILED]
    assert "unload/nodehardeningtest" in bad(result)
    assert base.dry_run(control(node, replace(config, unload=False))).changes == ()


def test_the_kernels_settings_are_told(node: Path) -> None:
    """modules_disabled, SELinux's boolean, a helper that is not modprobe."""
    (node / "proc/sys/kernel/modules_disabled").write_text("1\n")
    (node / "proc/sys/kernel/modprobe").write_text("/opt/loader\n")
    (node / "sys/fs/selinux/booleans").mkdir(parents=True)
    (node / "sys/fs/selinux/booleans/domain_kernel_load_modules").write_text("1 1")
    found = by_id(base.apply(control(node)))
    assert {name: found[name].status for name in ("modules_disabled", "selinux", "helper")} == {
        "modules_disabled": Status.INFO,
        "selinux": Status.INFO,
        "helper": Status.UNKNOWN,
    }


# -- what the node runs on ---------------------------------------------------------------------------------------------


@pytest.fixture
def disk(node: Path) -> Path:
    """The node with its root on ext4 over device mapper over virtio, a snap, a network card, and a file for boot."""
    device = "sys/devices/pci0000:00/0000:00:04.0/virtio1"
    for path, text in (
        ("proc/1/mountinfo", ("22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n"
         "90 22 7:1 / /snap/core/1 ro,nodev shared:9 - squashfs /dev/loop1 ro\n")),
        ("etc/modules-load.d/site.conf", "# ours\nsctp_diag\n"),
        (f"{device}/block/vda/size", "1"), ("sys/devices/virtual/block/dm-0/size", "1"),
        ("sys/devices/pci0000:00/0000:00:05.0/net/eth0/mtu", "1500"),
    ):  # fmt: skip
        (node / path).parent.mkdir(parents=True, exist_ok=True)
        (node / path).write_text(text)
    for path, target in (
        ("sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0"),
        ("sys/devices/virtual/block/dm-0/slaves/vda", f"/{device}/block/vda"),
        ("sys/class/block/vda", f"/{device}/block/vda"),
        (f"{device}/driver/module", "/sys/module/virtio_blk"),
        (f"{device}/../driver/module", "/sys/module/virtio_pci"),
        ("sys/class/net/eth0", "/sys/devices/pci0000:00/0000:00:05.0/net/eth0"),
        ("sys/devices/pci0000:00/0000:00:05.0/driver/module", "/sys/module/e1000"),
    ):
        (node / path).parent.mkdir(parents=True, exist_ok=True)
        (node / path).symlink_to(target)
    return node


def test_what_the_node_runs_on_is_not_denied(disk: Path) -> None:
    """Mounted file systems, drivers of the disks and the network, what boot loads, and what any of them needs."""
    names = ("overlay", "ext4", "squashfs", "virtio-blk", "virtio_pci", "e1000", "sctp_diag", "sctp", "libcrc32c")
    result = base.apply(control(disk, Modprobe(lists=(), deny=(*names, "cramfs"))))
    found = bad(result)
    assert set(found) == {f"needed/{name.replace('-', '_')}" for name in names}
    assert found["needed/squashfs"] == "not denied, because the node runs on it: /snap/core/1 is a squashfs file system"
    assert found["needed/virtio_pci"].endswith("it drives the disk of /")
    assert found["needed/sctp"].endswith("sctp_diag needs it, and /etc/modules-load.d/site.conf loads it at boot")
    assert "install cramfs /bin/false" in (disk / FILE).read_text()
    assert "squashfs" not in (disk / FILE).read_text()


def test_mounts_that_cannot_be_read_lead_to_no_denial(disk: Path) -> None:
    """A module may hold the root then: the control is unknown, and what was denied before stays as it was."""
    mounts = disk / "proc/1/mountinfo"
    mounts.unlink()
    mounts.mkdir()
    result = base.apply(control(disk, Modprobe(lists=(), deny=("squashfs", "cramfs"))))
    assert ([one.status for one in result.findings], result.changes) == ([Status.UNKNOWN], ())
    assert not (disk / FILE).exists()


def test_nothing_is_denied_while_it_cannot_be_read_what_the_node_runs_on(disk: Path) -> None:
    """Each path that says what is needed, one at a time; and so for what tells whether a kernel runs at all."""
    host = UnreadableHost(disk)
    needed(host)
    assert {"/sys/class/net", f"/lib/modules/{RELEASE}/modules.dep", "/etc/modules"} <= host.asked.keys()
    config = Modprobe(lists=(), deny=("squashfs", "e1000", "cramfs"), unload=True)
    for path in (*host.asked, "/proc/sys/kernel/modules_disabled", "/proc/cmdline"):
        control = ModprobeControl(config, UnreadableHost(disk, path))
        result = base.dry_run(control)
        assert Status.UNKNOWN in {one.status for one in result.findings}, path
        assert result.changes == (), path


def test_kernels_that_cannot_be_read_are_not_no_kernels(tree: Path) -> None:
    """A tree that none runs on: built-in modules may be in what cannot be read."""
    base.apply(control(tree))
    for path in ("/lib/modules", f"/lib/modules/{RELEASE}/modules.builtin", "/proc/modules"):
        found = base.audit(ModprobeControl(Modprobe(), UnreadableHost(tree, path))).findings
        assert not [one for one in found if one.id == "modprobe/sctp" and one.status is Status.PASS], path
        assert Status.UNKNOWN in {one.status for one in found}, path


def test_force_denies_what_the_node_runs_on(disk: Path) -> None:
    """In `deny` as well or not."""
    base.apply(control(disk, Modprobe(lists=(), deny=("squashfs",), force=("squashfs", "overlay"))))
    text = (disk / FILE).read_text()
    assert "install squashfs /bin/false" in text
    assert "install overlay /bin/false" in text


def test_what_was_denied_before_stays_denied(disk: Path) -> None:
    """A mount that comes later does not open a module again."""
    mounts = disk / "proc/1/mountinfo"
    text = mounts.read_text()
    mounts.write_text("")
    config = Modprobe(lists=(), deny=("squashfs",))
    base.apply(control(disk, config))
    mounts.write_text(text)
    assert base.apply(control(disk, config)).changes == ()
    assert "install squashfs /bin/false" in (disk / FILE).read_text()


def test_a_name_that_no_kernel_here_has_is_named_with_what_was_meant(tree: Path) -> None:
    """Only for names of the configuration: the lists are for every kernel."""
    found = by_id(base.apply(control(tree, Modprobe(deny=("brigde", "zzz")))))
    assert found["brigde/name"].observed == "no kernel here has a module brigde; did you mean bridge?"
    assert found["zzz/name"].observed == "no kernel here has a module zzz"
    assert found["brigde/name"].status is Status.INFO
    assert [name for name in found if name.endswith("/name")] == ["brigde/name", "zzz/name"]


# -- the initramfs -----------------------------------------------------------------------------------------------------


class NodeThatLists(NodeWithTools):
    """A node with one tool that lists an initramfs: cpio behind the name of the distribution's script."""

    def __init__(self, root: Path, tools: Path, name: str) -> None:
        super().__init__(root, tools)
        tools.mkdir(exist_ok=True)
        # lsinitramfs -l IMAGE and lsinitrd IMAGE both end in `cpio --list --verbose` of the unpacked image.
        (tools / name).write_text('#!/bin/sh\nfor image; do :; done\nexec cpio -t -v --quiet < "$image"\n')
        (tools / name).chmod(0o755)
        (tools / "modprobe").symlink_to(MODPROBE)


def initramfs(node: Path, image: str, *files: str) -> None:
    """Packs files of the node's tree."""
    (node / "boot").mkdir(exist_ok=True)
    with (node / image).open("wb") as out:
        names = "\n".join(files).encode()
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=names, stdout=out, cwd=node, check=True, timeout=20
        )


@pytest.mark.skipif(not tool("cpio"), reason="needs cpio")
@pytest.mark.parametrize(
    ("name", "image", "rebuild"),
    [
        ("lsinitramfs", f"boot/initrd.img-{RELEASE}", f"run `update-initramfs -u -k {RELEASE}`"),
        ("lsinitrd", f"boot/initramfs-{RELEASE}.img", f"run `dracut --force --hostonly --kver {RELEASE}`"),
    ],
)
def test_a_reboot_is_advised_once_the_initramfs_carries_the_denial(
    node: Path, tmp_path: Path, name: str, image: str, rebuild: str
) -> None:
    """The rebuild command before the reboot; after a rebuild, and for a module that is not in it, the reboot alone."""
    (node / "proc/modules").write_text("sctp 458752 3 - Live 0x0\n")
    host = NodeThatLists(node, tmp_path / "tools", name)
    base.apply(control(node))
    module = f"usr/lib/modules/{RELEASE}/kernel/net/sctp.ko"
    initramfs(node, image, module)
    once = by_id(base.audit(ModprobeControl(Modprobe(), host)))["sctp"]
    assert once.status is Status.FAIL
    assert rebuild in once.remediation
    assert f"/{image} holds sctp" in once.remediation
    for files in ((module, FILE), ("proc/cmdline",)):
        initramfs(node, image, *files)
        again = by_id(base.audit(ModprobeControl(Modprobe(), host)))["sctp"]
        assert again.remediation.endswith("or reboot the node: it stays unloaded from then on.")


def test_without_an_initramfs_to_read_nothing_is_promised(node: Path, tmp_path: Path) -> None:
    """No image, or no tool that lists it."""
    (node / "proc/modules").write_text("sctp 458752 3 - Live 0x0\n")
    host = NodeThatLists(node, tmp_path / "tools", "unused")
    for observed in ("no image of kernel", "neither lsinitramfs nor lsinitrd"):
        assert f"whether its initramfs loads sctp is unknown: {observed}" in (
            by_id(base.apply(ModprobeControl(Modprobe(), host)))["sctp"].remediation
        )
        (node / "boot").mkdir(exist_ok=True)
        (node / f"boot/initrd.img-{RELEASE}").write_bytes(b"")


# -- what leaves, what stays -------------------------------------------------------------------------------------------


def test_what_leaves_the_configuration_leaves_the_node(tree: Path) -> None:
    """The module first, then the whole file; other people's files stay."""
    other = tree / "etc/modprobe.d/other.conf"
    other.write_text("blacklist pcspkr\n")
    base.apply(control(tree, Modprobe(deny=("rds",))))
    assert "rds" in (tree / FILE).read_text()
    base.apply(control(tree))
    assert "rds" not in (tree / FILE).read_text()
    result = base.apply(control(tree, Modprobe(lists=())))
    assert [(one.action, one.target) for one in result.changes] == [("remove", "/" + FILE)]
    assert not (tree / FILE).exists()
    assert bad(result) == {}
    assert other.read_text() == "blacklist pcspkr\n"
    assert base.apply(control(tree, Modprobe(lists=()))).changes == ()


def test_another_path_moves_the_file(tree: Path) -> None:
    """The new one is there before the old one goes."""
    base.apply(control(tree))
    config = Modprobe(file="/etc/modprobe.d/k8s.conf")
    result = base.apply(control(tree, config))
    assert [("write", config.file), ("remove", "/" + FILE)] == [(one.action, one.target) for one in result.changes]
    assert bad(result) == {}
    assert not (tree / FILE).exists()


def test_a_path_that_modprobe_does_not_read_leaves_the_last_good_file(tree: Path) -> None:
    """A mistake in the configuration opens nothing."""
    base.apply(control(tree))
    result = base.apply(control(tree, Modprobe(file="/etc/modprobe.d/k8s.list")))
    assert result.changes == ()
    assert {"file"} == set(bad(result))
    assert (tree / FILE).exists()


def test_somebody_elses_file_in_our_place_comes_back_when_ours_leaves(tree: Path) -> None:
    """Many nodes have the guide's hand-written file under this very name."""
    (tree / FILE).write_text("blacklist dccp\nblacklist sctp\n")
    base.apply(control(tree))
    assert "install sctp /bin/false" in (tree / FILE).read_text()
    base.apply(control(tree, Modprobe(lists=())))
    assert (tree / FILE).read_text() == "blacklist dccp\nblacklist sctp\n"


def test_a_hand_edit_is_mended_but_never_removed_as_ours(tree: Path) -> None:
    """Drift goes back to the policy; a file that somebody took over stays when ours would leave."""
    base.apply(control(tree))
    (tree / FILE).write_text("# mine now\n")
    assert bad(base.audit(control(tree)))["file"] == "not what the agent writes"
    result = base.apply(control(tree, Modprobe(lists=())))
    assert [one.action for one in result.changes] == ["forget"]
    assert (tree / FILE).read_text() == "# mine now\n"
    base.apply(control(tree))
    assert bad(base.audit(control(tree))) == {}


def test_a_list_that_is_gone_takes_nothing_away(tree: Path, tmp_path: Path) -> None:
    """Neither an unknown list nor a broken one opens a module that was denied, moved file or not."""
    base.apply(control(tree))
    for config in (Modprobe(lists=("kubernets",)), Modprobe(lists=("kubernets",), file="/etc/modprobe.d/k.conf")):
        result = base.apply(control(tree, config))
        assert {"list/kubernets"} == set(bad(result))
        assert by_id(result)["sctp"].status is Status.PASS
        assert base.apply(control(tree, config)).changes == ()


def test_a_broken_manifest_blocks_removal_only(tree: Path) -> None:
    """The file is kept right; what could be removed is unknown, and said so."""
    base.apply(control(tree))
    manifest = tree / "var/lib/node-hardening/modprobe.json"
    manifest.write_text("{")
    assert {"manifest"} == set(bad(base.audit(control(tree))))
    assert base.apply(control(tree, Modprobe(lists=()))).changes == ()
    assert (tree / FILE).exists()
    (tree / FILE).unlink()
    assert bad(base.apply(control(tree))) == {}
    assert [entry["key"] for entry in json.loads(manifest.read_text())["installed"]] == ["/" + FILE]


def test_a_lost_manifest_is_written_again_without_touching_the_file(tree: Path) -> None:
    """Content and owner are right already; only the memory is missing."""
    base.apply(control(tree))
    (tree / "var/lib/node-hardening/modprobe.json").unlink()
    before = (tree / FILE).stat()
    assert [one.action for one in base.apply(control(tree)).changes] == ["remember"]
    assert (before.st_ino, before.st_mtime_ns) == ((tree / FILE).stat().st_ino, (tree / FILE).stat().st_mtime_ns)
    assert base.apply(control(tree)).changes == ()


def test_a_file_that_others_may_write_is_closed(tree: Path) -> None:
    """Whoever may write to modprobe.d runs commands as root."""
    base.apply(control(tree))
    (tree / FILE).chmod(0o666)
    assert bad(base.audit(control(tree)))["file"] == "writable by others (mode 0666)"
    assert bad(base.apply(control(tree))) == {}
    assert (tree / FILE).stat().st_mode & 0o777 == 0o644


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tree: Path) -> Iterator[Path]:
    """The tree with an /etc/modprobe.d of its own that tests may fill or make read-only."""
    folder = tree / "etc/modprobe.d"
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    argv = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "tmpfs", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield tree
    subprocess.run(["umount", str(folder)], check=True, timeout=300)


def test_a_read_only_folder_is_a_finding(mounted: Path) -> None:
    """No traceback; the modules are open, and the error is the kernel's."""
    subprocess.run(["mount", "-o", "remount,ro", str(mounted / "etc/modprobe.d")], check=True, timeout=300)
    result = base.apply(control(mounted))
    assert [one.outcome for one in result.changes] == [Outcome.FAILED]
    assert os.strerror(errno.EROFS) in result.changes[0].error
    assert bad(result)["sctp"] == "it loads"


def test_a_full_disk_leaves_the_old_file(mounted: Path) -> None:
    """The old one whole, the new one not at all, and a finding."""
    (mounted / FILE).write_text("install sctp /bin/false\n")
    result = base.apply(control(mounted))
    assert [one.outcome for one in result.changes] == [Outcome.FAILED]
    assert os.strerror(errno.ENOSPC) in result.changes[0].error
    assert (mounted / FILE).read_text() == "install sctp /bin/false\n"
    assert [FILE.rpartition("/")[2]] == [path.name for path in (mounted / "etc/modprobe.d").iterdir()]


def test_without_modprobe_the_file_is_written_and_nothing_is_claimed(tree: Path) -> None:
    """A node without kmod and an agent without it: unknown, with what would help."""
    result = base.apply(control(tree, tools=tree / "nowhere"))
    assert (tree / FILE).exists()
    one = by_id(result)["sctp"]
    assert one.status is Status.UNKNOWN
    assert "not verified: modprobe: neither on the node nor beside the agent" in one.observed
    assert "Install kmod" in one.remediation


def test_a_modprobe_that_is_not_kmods_proves_nothing(tree: Path) -> None:
    """busybox's modprobe knows neither --showconfig nor install lines."""
    tools = tree / "tools"
    tools.mkdir()
    (tools / "modprobe").write_text("#!/bin/sh\necho \"modprobe: unrecognized option '--showconfig'\" >&2\nexit 1\n")
    (tools / "modprobe").chmod(0o755)
    one = by_id(base.apply(control(tree, tools=tools)))["sctp"]
    assert one.status is Status.UNKNOWN
    assert "unrecognized option" in one.observed


def test_a_modprobe_that_dies_proves_nothing(tree: Path) -> None:
    """It answers --showconfig and is killed over the question itself."""
    tools = tree / "tools"
    tools.mkdir()
    (tools / "modprobe").write_text('#!/bin/sh\ncase "$*" in *--showconfig*) exit 0;; esac\nkill -9 $$\n')
    (tools / "modprobe").chmod(0o755)
    one = by_id(base.apply(control(tree, tools=tools)))["sctp"]
    assert one.status is Status.UNKNOWN
    assert "ended by signal 9" in one.observed


def test_a_modprobe_d_that_is_no_folder_is_no_traceback(tree: Path) -> None:
    """A file in the folder's place: nothing can be written, and that is said."""
    (tree / "etc/modprobe.d").rmdir()
    (tree / "etc/modprobe.d").write_text("x")
    result = base.apply(control(tree))
    assert [one.outcome for one in result.changes] == [Outcome.FAILED]
    assert {"sctp", "file"} <= set(bad(result))


def test_an_unreadable_or_masked_file_of_others_is_no_traceback(tree: Path) -> None:
    """A symlink to itself is reported; a folder is ignored by modprobe too; a symlink out of the tree is empty, as
    is one to /dev/null."""
    (tree / "etc/modprobe.d/loop.conf").symlink_to("loop.conf")
    (tree / "etc/modprobe.d/folder.conf").mkdir()
    (tree / "etc/modprobe.d/masked.conf").symlink_to("/dev/null")
    (tree / "etc/modprobe.d/dangling.conf").symlink_to("../../../../../nowhere")
    (tree / "etc/modprobe.d/bytes.conf").write_bytes(b"\xff\xfe\x00 install sctp\n")
    found = bad(base.apply(control(tree)))
    path = "/etc/modprobe.d/loop.conf"
    assert found == {f"unreadable{path}": f"cannot read {path}: too many levels of symbolic links"}


def test_a_tree_without_any_kernel_is_denied_by_name(tmp_path: Path) -> None:
    """As debootstrap leaves it: nothing to load yet, and refused once there is."""
    (tmp_path / "etc").mkdir()
    result = base.apply(control(tmp_path))
    assert bad(result) == {}
    assert by_id(result)["sctp"].observed == "refused by name; no kernel runs on this tree"


# -- our reading of modprobe.d against kmod's --------------------------------------------------------------------------


def test_our_reader_and_kmod_agree(tree: Path) -> None:
    """On hiding, order, patterns, continued lines, bad lines: `--showconfig` prints what we read, in our order."""
    texts = {
        "etc/modprobe.d/m.conf": "install a /bin/x\\\n y\n# c \\\ninstall no /bin/false\nblacklist x-y\nfoo\ninstall\n",
        "run/modprobe.d/a.conf": "install z /bin/1\nalias a[b c\nalias net-pf-[0-9-]* my-mod\n\tblacklist tab\n",
        "run/modprobe.d/m.conf": "install hidden /bin/false\n",
        "usr/local/lib/modprobe.d/B.conf": "remove r /bin/r\nsoftdep s pre: t-u v\noptions o k=v \\q\n",
        "usr/lib/modprobe.d/zz.conf": "install a /bin/later\nblacklist last",
        "etc/modprobe.d/no.config": "install no /bin/no\n",
    }
    for path, text in texts.items():
        (tree / path).write_text(text)
    host = Host(tree)
    files, _ = in_order({folder: host.names(folder) for folder in FOLDERS})
    lines = [line for file in files for line in parse(host.read_text(file), file)]
    softdep = f"/lib/modules/{RELEASE}/modules.softdep"
    ours = Configuration(tuple(lines)).beside(parse(host.read_text(softdep), softdep))
    expected = [shown(line) for verb in ORDER for line in ours.lines if line.verb == verb]
    assert [line for line in showconfig(tree) if not line.startswith("options ") or "k=v" in line] == expected


ORDER = ("blacklist", "install", "remove", "alias", "options", "softdep")


def shown(line: ConfigLine) -> str:
    """A line as --showconfig prints it: one name behind blacklist, an alias's module in the kernel's spelling."""
    rest = line.rest if line.verb != "blacklist" else ""
    if line.verb == "alias":
        rest = rest.replace("-", "_")
    return f"{line.verb} {line.name} {rest}".rstrip()


def showconfig(tree: Path) -> list[str]:
    """The configuration that kmod holds for the tree."""
    chosen = [option for folder in FOLDERS for option in ("-C", str(tree / folder[1:]))]
    argv = [MODPROBE, "-d", str(tree), "-S", RELEASE, *chosen, "--showconfig"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout
    return [line.rstrip() for line in text.partition("# End of configuration")[0].splitlines() if line]
