"""The machine behind the tree: processes, boot id, uptime."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host, Process

BOOT_ID = "11111111-2222-3333-4444-555555555555"


def boot_id_file(root: Path, content: str) -> Path:
    """A tree with a /proc of its own."""
    file = root / "proc/sys/kernel/random/boot_id"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    return file


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with known argv and working folder."""
    with subprocess.Popen(["/bin/sleep", "1000"], cwd=tmp_path) as process:
        yield process
        process.kill()


def find(host: Host, pid: int) -> Process | None:
    """The process with this pid, as the host lists it."""
    return next((process for process in host.processes() if process.pid == pid), None)


def test_a_process_is_seen_as_it_was_started(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Name, argv, program, working folder, user and start."""
    seen = find(Host("/"), child.pid)
    assert seen is not None
    assert (seen.name, seen.argv, seen.cwd) == ("sleep", ("/bin/sleep", "1000"), str(tmp_path))
    assert Path(seen.exe).samefile("/bin/sleep")
    assert seen.uid == os.geteuid()
    assert seen.started == pytest.approx(psutil.Process(child.pid).create_time())


def test_a_tree_without_proc_is_taken_as_running_here(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A debootstrap tree has no processes of its own."""
    (tmp_path / "tree").mkdir()
    assert find(Host(tmp_path / "tree"), child.pid) is not None


def test_a_zombie_is_left_out(tmp_path: Path) -> None:
    """It runs nothing any more and has no argv to read."""
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seen = find(Host("/"), process.pid)
        assert seen is None or seen.argv == ()


def test_files_as_a_process_sees_them(child: subprocess.Popen[bytes]) -> None:
    """Through /proc/PID/root, which is how a kubelet in another mount namespace is read."""
    host = Host("/")
    seen = find(host, child.pid)
    assert seen is not None
    assert host.view_of(seen).read_bytes("/etc/passwd") == host.read_bytes("/etc/passwd")


def test_a_process_that_has_ended_has_no_view() -> None:
    """An error of ours, which becomes an unknown finding."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        host = Host("/")
        seen = find(host, process.pid)
        process.kill()
    assert seen is not None
    with pytest.raises(HostError):
        host.view_of(seen)


def test_the_boot_id_is_the_kernels() -> None:
    """The same that the Node object shows."""
    assert Host("/").boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_trees_own_boot_id_comes_first(tmp_path: Path) -> None:
    """A mounted host's, or a sandbox's that changes with its reboot."""
    file = boot_id_file(tmp_path, BOOT_ID + "\n")
    assert Host(tmp_path).boot_id() == BOOT_ID
    file.write_text(BOOT_ID.replace("1", "9"))
    assert Host(tmp_path).boot_id() == BOOT_ID.replace("1", "9")


@pytest.mark.parametrize("content", ["", "none", BOOT_ID.upper().replace("1", "G"), BOOT_ID * 2, "\x00"])
def test_what_is_no_boot_id_is_an_error(tmp_path: Path, content: str) -> None:
    """A wrong one would look like a finished reboot."""
    boot_id_file(tmp_path, content)
    with pytest.raises(HostFileError, match="not a boot id"):
        Host(tmp_path).boot_id()


def test_a_missing_boot_id_is_not_this_machines(tmp_path: Path) -> None:
    """A tree with a /proc that lacks it cannot tell."""
    boot_id_file(tmp_path, BOOT_ID).unlink()
    with pytest.raises(HostFileMissing):
        Host(tmp_path).boot_id()


def test_uptime_and_kernel_are_the_machines() -> None:
    """Plain facts for the report."""
    host = Host("/")
    before = float(Path("/proc/uptime").read_text().split()[0])
    assert before <= host.uptime_seconds()
    assert host.kernel_release() == os.uname().release
    assert host.machine() == os.uname().machine
    assert host.is_running_system is True


def test_a_trees_own_kernel_release_comes_first(tmp_path: Path) -> None:
    """What the sandbox's nodes claim to run."""
    file = tmp_path / "proc/sys/kernel/osrelease"
    file.parent.mkdir(parents=True)
    file.write_text("6.1.0-test\n")
    assert Host(tmp_path).kernel_release() == "6.1.0-test"
    assert Host(tmp_path).is_running_system is False


def test_a_procfs_without_processes_is_an_error(tmp_path: Path) -> None:
    """Not mounted below the host root: an empty list would read as "no kubelet runs here"."""
    boot_id_file(tmp_path, f"{BOOT_ID}\n")
    with pytest.raises(HostError, match="no process in /proc: the node's procfs is not mounted"):
        list(Host(tmp_path).processes())


def test_a_procfs_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    """Gone between the look and the listing, or never one: the kernel's reason is said."""
    proc = boot_id_file(tmp_path, f"{BOOT_ID}\n").parents[3]
    host = VanishingProc(tmp_path, proc)
    with pytest.raises(HostFileError, match="cannot list /proc: No such file or directory"):
        list(host.processes())


def test_a_procfs_without_the_time_of_boot_lists_no_process_wrongly(tmp_path: Path) -> None:
    """When a process was started cannot be told then, so it is left out rather than guessed."""
    boot_id_file(tmp_path, f"{BOOT_ID}\n")
    folder = tmp_path / "proc/812"
    folder.mkdir()
    (folder / "stat").write_text(f"812 (kubelet) S 1 {'0 ' * 17}1200 {'0 ' * 30}\n")
    (tmp_path / "proc/stat").write_text("cpu 1 2 3\n")
    assert list(Host(tmp_path).processes()) == []


class VanishingProc(Host):
    """A node whose /proc is unmounted right after it was found."""

    def __init__(self, root: Path, proc: Path) -> None:
        super().__init__(root)
        self._going = proc

    def _proc(self) -> str:
        found = super()._proc()
        if self._going.exists():
            shutil.rmtree(self._going)
        return found
