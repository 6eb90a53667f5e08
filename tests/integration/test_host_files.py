"""Writes under real trouble: SIGKILL at random moments, a full disk, a read-only one, missing permissions."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host

OLD, NEW = b"old\n" * 20_000, b"new content\n" * 20_000
NOBODY = 65534


def in_child(act: Callable[[], None]) -> int:
    """Runs `act` in a forked child and gives the child's pid; the child never comes back into the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return pid


def succeeded(pid: int) -> bool:
    """Whether the child ended with exit code 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_write_killed_at_any_moment_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    """Two hundred children are killed while they replace one file; none leaves a part of one."""
    host = Host(tmp_path)
    file = tmp_path / "etc" / "file"
    host.write("/etc/file", OLD)

    def write_for_ever() -> None:
        while True:
            host.write("/etc/file", NEW)
            host.write("/etc/file", OLD)

    moments = random.Random(4)
    leftovers = 0
    seen: set[bytes] = set()
    for _ in range(200):
        child = in_child(write_for_ever)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.add(file.read_bytes())
        leftovers += len(list(file.parent.iterdir())) - 1
        assert host.names("/etc") == ("file",)
    assert seen <= {OLD, NEW}
    # Otherwise the children were never killed inside a write, and the test has shown nothing.
    assert leftovers > 0
    host.write("/etc/file", b"last")
    assert [entry.name for entry in file.parent.iterdir()] == ["file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine does not let root mount: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_old_content_and_says_so(small_disk: Path) -> None:
    """No half file, no temporary one, and the disk has its room back."""
    host = Host(small_disk)
    host.write("/etc/file", b"old")
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(HostFileError, match="cannot write /etc/file: No space left on device") as caught:
        host.write("/etc/file", b"x" * (1 << 20))
    assert caught.value.errno == errno.ENOSPC
    assert host.read_bytes("/etc/file") == b"old"
    assert [entry.name for entry in (small_disk / "etc").iterdir()] == ["file"]
    assert shutil.disk_usage(small_disk).free == free


def test_a_read_only_disk_says_so(small_disk: Path) -> None:
    """Flatcar, Talos, a mount that is read-only on purpose: an error with its reason, for write and remove."""
    host = Host(small_disk)
    host.write("/etc/file", b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    acts: tuple[Callable[[], object], ...] = (
        lambda: host.write("/etc/file", b"new"),
        lambda: host.write("/new/file", b"new"),
        lambda: host.remove("/etc/file"),
    )
    for act in acts:
        with pytest.raises(HostFileError, match="Read-only file system") as caught:
            act()
        assert caught.value.errno == errno.EROFS
    assert host.write("/etc/file", b"old") is False  # nothing to do is not an error there


def test_a_write_that_fails_half_way_keeps_the_old_content(tmp_path: Path) -> None:
    """The same for everybody, without a disk to fill: a limit on how large a file may grow."""
    host = Host(tmp_path)
    host.write("/etc/file", b"old")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            host.write("/etc/file", b"x" * 5000)
        except HostFileError as error:
            if error.errno == errno.EFBIG:
                return
        os._exit(2)

    assert succeeded(in_child(limited))
    assert host.read_bytes("/etc/file") == b"old"
    assert [entry.name for entry in (tmp_path / "etc").iterdir()] == ["file"]


def test_two_agents_never_change_one_node_at_once(tmp_path: Path) -> None:
    """The second one is told; the kernel frees the lock when the first one ends, however it ends."""
    host = Host(tmp_path)
    second = Host(tmp_path).exclusive("/run/agent.lock", wait_seconds=0.0)
    with host.exclusive("/run/agent.lock"), pytest.raises(HostError, match="another agent is changing this node"):
        second.__enter__()
    held, release = os.pipe()

    def hold_for_ever() -> None:
        with Host(tmp_path).exclusive("/run/agent.lock"):
            os.write(release, b"x")
            signal.pause()

    child = in_child(hold_for_ever)
    assert os.read(held, 1) == b"x"
    with pytest.raises(HostError, match="another agent"), host.exclusive("/run/agent.lock", wait_seconds=0.1):
        pytest.fail("both hold it")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with host.exclusive("/run/agent.lock", wait_seconds=0.0):
        pass
    os.close(held)
    os.close(release)


def test_a_lock_file_is_never_a_symlinks_target(tmp_path: Path) -> None:
    """Nor is it made where the symlink points."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "agent.lock").symlink_to("elsewhere")
    with pytest.raises(HostFileError, match="cannot lock"), Host(tmp_path).exclusive("/run/agent.lock"):
        pytest.fail("held")
    assert not (tmp_path / "run" / "elsewhere").exists()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can walk to, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_missing_permissions_are_not_missing_files(reachable: Path) -> None:
    """Read, listing, existence, write and removal: each an error of its own, never "not there", never a traceback."""
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("x")
    (reachable / "private").write_text("x")
    (reachable / "private").chmod(0o600)

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        host = Host(reachable)
        acts: tuple[Callable[[], object], ...] = (
            lambda: host.read_bytes("/private"),
            lambda: host.read_bytes("/closed/file"),
            lambda: host.exists("/closed/file"),
            lambda: host.names("/closed"),
            lambda: host.write("/closed/file", "y"),
            lambda: host.write("/private", "y"),
            lambda: host.remove("/private"),
        )
        for act in acts:
            try:
                act()
            except HostFileMissing:
                os._exit(2)
            except HostFileError as error:
                if error.errno != errno.EACCES:
                    os._exit(3)
            else:
                os._exit(4)

    assert succeeded(in_child(as_nobody))
    assert (reachable / "private").read_text() == "x"
