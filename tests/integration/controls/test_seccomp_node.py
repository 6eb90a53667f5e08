"""The seccomp control beside real things: a live process called kubelet, a full disk, a read-only file system, runc."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls import base
from agent.controls.seccomp import SeccompControl
from agent.controls.seccomp.kubelet_root import libseccomp_of
from agent.host import Host
from agent.model import Finding, Outcome, Status

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


@contextlib.contextmanager
def running_kubelet(root_dir: str) -> Iterator[subprocess.Popen[bytes]]:
    """A live process whose argv is a kubelet's."""
    argv = ["kubelet", "-c", "import time; time.sleep(300)", "--v=2", "--root-dir", root_dir]
    child = subprocess.Popen(argv, executable=sys.executable)
    deadline = time.monotonic() + 20
    while b"--root-dir" not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def kubelet() -> Iterator[subprocess.Popen[bytes]]:
    """A kubelet with its root in a folder of its own."""
    with running_kubelet("/data/kubelet") as child:
        yield child


def control(root: Path, profiles: Path, directory: str = "auto") -> SeccompControl:
    """The control on a tree."""
    return SeccompControl(schema.Seccomp(profiles=str(profiles), directory=directory), Host(root))


def findings(done: base.Pass) -> dict[str, Finding]:
    """Findings by id."""
    return {finding.id: finding for finding in done.findings}


def test_profiles_go_where_the_live_kubelet_looks(
    tmp_path: Path, profiles: Path, kubelet: subprocess.Popen[bytes]
) -> None:
    """The folder follows --root-dir of the process, the finding says so, and stays when the kubelet is away."""
    root = tmp_path / "node"
    root.mkdir()
    done = base.apply(control(root, profiles))
    assert (root / "data/kubelet/seccomp/p.json").exists()
    where = findings(done)["seccomp/directory"]
    assert (where.status, where.observed) == (Status.PASS, "/data/kubelet/seccomp")
    assert where.source.endswith(f"(pid {kubelet.pid}), --root-dir")
    kubelet.kill()
    kubelet.wait()
    away = base.apply(control(root, profiles))
    assert away.changes == ()
    where = findings(away)["seccomp/directory"]
    assert (where.status, where.observed) == (Status.INFO, "/data/kubelet/seccomp")
    assert "of the last time" in where.source


def test_another_program_called_kubelet_moves_nothing(tmp_path: Path, profiles: Path) -> None:
    """Where profiles are already, only a kubelet with the node's own root moves them: a container's does not."""
    root = tmp_path / "node"
    root.mkdir()
    with running_kubelet("/data/kubelet"):
        base.apply(control(root, profiles))
    with running_kubelet("/etc/cron.d"):
        done = base.apply(control(root, profiles))
    assert done.changes == ()
    assert not (root / "etc").exists()
    where = findings(done)["seccomp/directory"]
    assert (where.status, where.observed) == (Status.INFO, "/data/kubelet/seccomp")
    assert "another root file system" in where.source


def test_a_configured_folder_where_the_kubelet_does_not_look(
    tmp_path: Path, profiles: Path, kubelet: subprocess.Popen[bytes]
) -> None:
    """Pods would not find the profiles: that fails, unless both paths are the same folder."""
    root = tmp_path / "node"
    root.mkdir()
    where = findings(base.audit(control(root, profiles, "/elsewhere/seccomp")))["seccomp/directory"]
    assert (where.status, where.expected) == (Status.FAIL, "/data/kubelet/seccomp")
    assert kubelet.poll() is None
    (root / "data/kubelet/seccomp").mkdir(parents=True)
    (root / "elsewhere").symlink_to("/data/kubelet")
    where = findings(base.audit(control(root, profiles, "/elsewhere/seccomp")))["seccomp/directory"]
    assert where.status is Status.PASS


def test_without_a_kubelet_the_default_folder_is_taken(tmp_path: Path, profiles: Path) -> None:
    """And the finding says that nobody could be asked."""
    root = tmp_path / "node"
    root.mkdir()
    where = findings(base.apply(control(root, profiles)))["seccomp/directory"]
    if "pid" in where.source:
        pytest.skip("a kubelet runs on this machine")
    assert (where.status, where.observed) == (Status.INFO, "/var/lib/kubelet/seccomp")
    assert "no kubelet is running" in where.source
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
