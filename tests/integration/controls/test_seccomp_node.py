"""The seccomp control beside real things: a live process called kubelet, a full disk, a read-only file system, runc."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls import base
from agent.controls.seccomp import SeccompControl
from agent.controls.seccomp.runtimes import libseccomp_of
from agent.host import Host
from agent.model import Finding, Outcome, Status
from tests.support.node_tree import NodeTree, real_node

CHMOD = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}'
CHOWN = CHMOD.replace("chmod", "chown")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """A folder with one profile."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "p.json").write_text(CHMOD)
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeTree]:
    """A node of real processes."""
    with real_node(tmp_path / "node") as tree:
        yield tree


def control(root: Path, profiles: Path, directory: str = "auto") -> SeccompControl:
    """The control on a tree."""
    return SeccompControl(schema.Seccomp(profiles=str(profiles), directory=directory), Host(root))


def findings(done: base.Pass) -> dict[str, Finding]:
    """Findings by id."""
    return {finding.id: finding for finding in done.findings}


def test_profiles_go_where_the_live_kubelet_looks(node: NodeTree, profiles: Path) -> None:
    """The directory follows --root-dir of the process, the finding names it, and it stays when the kubelet is away."""
    kubelet = node.start("kubelet", "--v=2", "--root-dir", "/data/kubelet")
    done = base.apply(control(node.root, profiles))
    assert (node.root / "data/kubelet/seccomp/p.json").exists()
    where = findings(done)["seccomp/directory"]
    assert (where.status, where.observed) == (Status.PASS, "/data/kubelet/seccomp")
    assert where.source == f"kubelet (pid {kubelet.pid}), flag --root-dir"
    node.remove(kubelet.pid)
    away = base.apply(control(node.root, profiles))
    assert away.changes == ()
    where = findings(away)["seccomp/directory"]
    assert (where.status, where.observed) == (Status.INFO, "/data/kubelet/seccomp")
    assert "the directory used last" in where.source


@pytest.fixture
def moved(node: NodeTree, profiles: Path) -> NodeTree:
    """A node whose kubelet was started again with another root directory, after profiles were installed."""
    first = node.start("kubelet", "--root-dir=/old")
    base.apply(control(node.root, profiles))
    node.remove(first.pid)
    node.start("kubelet", "--root-dir=/new")
    return node


def test_profiles_follow_a_kubelet_that_has_moved(moved: NodeTree, profiles: Path) -> None:
    """Written at the new place first, then removed at the old one."""
    done = base.apply(control(moved.root, profiles))
    assert [(change.action, change.target, change.outcome) for change in done.changes] == [
        ("write", "/new/seccomp/p.json", Outcome.DONE),
        ("remove", "/old/seccomp/p.json", Outcome.DONE),
    ]
    assert (moved.root / "new/seccomp/p.json").exists()
    assert not (moved.root / "old/seccomp/p.json").exists()


def test_the_old_profile_stays_while_the_new_place_cannot_be_written(moved: NodeTree, profiles: Path) -> None:
    """A place that is no directory, as a read-only mount would be: no pass leaves the node without the profile."""
    (moved.root / "new").write_text("in the way")
    for _ in range(2):
        done = base.apply(control(moved.root, profiles))
        assert {change.outcome for change in done.changes} == {Outcome.FAILED}
        assert (moved.root / "old/seccomp/p.json").exists()
    moved.remove(Host(moved.root).processes().processes[0].pid)
    away = base.apply(control(moved.root, profiles))
    assert (away.changes, findings(away)["seccomp/directory"].observed) == ((), "/old/seccomp")
    (moved.root / "new").unlink()
    moved.start("kubelet", "--root-dir=/new")
    base.apply(control(moved.root, profiles))
    assert (moved.root / "new/seccomp/p.json").exists()
    assert not (moved.root / "old/seccomp/p.json").exists()


def test_a_broken_new_version_leaves_the_moved_profile(moved: NodeTree, profiles: Path) -> None:
    """It cannot be installed at the new place, so the old one stays."""
    (profiles / "p.json").write_text("{")
    assert base.apply(control(moved.root, profiles)).changes == ()
    assert (moved.root / "old/seccomp/p.json").exists()


def test_a_root_that_moved_by_a_symlink_keeps_its_profile(moved: NodeTree, profiles: Path) -> None:
    """Both paths are one file: it is not removed under its old name."""
    (moved.root / "new").symlink_to("/old")
    assert findings(base.apply(control(moved.root, profiles)))["seccomp/profile/p.json"].status is Status.PASS
    assert (moved.root / "old/seccomp/p.json").exists()
    assert base.apply(control(moved.root, profiles)).changes == ()


def test_a_configured_directory_where_the_kubelet_does_not_look(node: NodeTree, profiles: Path) -> None:
    """Pods would not find the profiles: that fails, unless both paths are the same directory."""
    node.start("kubelet", "--root-dir=/data/kubelet")
    where = findings(base.audit(control(node.root, profiles, "/elsewhere/seccomp")))["seccomp/directory"]
    assert (where.status, where.expected) == (Status.FAIL, "/data/kubelet/seccomp")
    (node.root / "data/kubelet/seccomp").mkdir(parents=True)
    (node.root / "elsewhere").symlink_to("/data/kubelet")
    where = findings(base.audit(control(node.root, profiles, "/elsewhere/seccomp")))["seccomp/directory"]
    assert where.status is Status.PASS


def test_without_a_kubelet_the_default_directory_is_used(tmp_path: Path, profiles: Path) -> None:
    """And the finding names the reason. A tree without a /proc has no processes: not this machine's either."""
    root = tmp_path / "tree"
    root.mkdir()
    where = findings(base.apply(control(root, profiles)))["seccomp/directory"]
    assert (where.status, where.observed) == (Status.INFO, "/var/lib/kubelet/seccomp")
    assert where.source.startswith("no kubelet is running; ")
    assert (root / "var/lib/kubelet/seccomp/p.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A node's tree on a file system of 64 KiB."""
    root = tmp_path / "node"
    root.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)], check=True)
    yield root
    subprocess.run(["/bin/umount", str(root)], check=True)


@needs_root
def test_a_full_disk_keeps_the_old_profile(small_disk: Path, profiles: Path) -> None:
    """The write fails with the kernel's reason; the file is the old one, whole, and is mended once there is room."""
    base.apply(control(small_disk, profiles))
    installed = small_disk / "var/lib/kubelet/seccomp/p.json"
    old = installed.read_bytes()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"\0" * (1 << 20))
    (profiles / "p.json").write_text(CHOWN)
    done = base.apply(control(small_disk, profiles))
    assert [change.outcome for change in done.changes] == [Outcome.FAILED]
    assert "No space left" in done.changes[0].error
    assert findings(done)["seccomp/profile/p.json"].status is Status.FAIL
    assert installed.read_bytes() == old
    filler.unlink()
    assert [change.outcome for change in base.apply(control(small_disk, profiles)).changes] == [Outcome.DONE]
    assert b"chown" in installed.read_bytes()


@needs_root
def test_a_read_only_node_is_a_finding(small_disk: Path, profiles: Path) -> None:
    """Audit says what is missing, apply says why it could not be written."""
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = base.apply(control(small_disk, profiles))
    assert [change.outcome for change in done.changes] == [Outcome.FAILED]
    assert "Read-only file system" in done.changes[0].error
    assert findings(done)["seccomp/profile/p.json"].observed == "not installed"


def test_runcs_libseccomp_is_read(tmp_path: Path) -> None:
    """The library that this machine's runc names; a tree that is not the running system has none to ask."""
    assert libseccomp_of(Host(tmp_path)) is None
    runc = Host("/").find_tool("runc")
    if runc is None:
        pytest.skip("runc is not installed here")
    said = subprocess.run([runc, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"libseccomp: (\S+)", said)
    assert match is not None
    known = libseccomp_of(Host("/"))
    assert known is not None
    assert (".".join(map(str, known[0])), known[1]) == (match[1], runc)
