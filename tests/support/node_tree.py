"""A node in a directory: its own files, and a /proc of its own that shows only the processes that a test puts there.

`add` writes a process as a captured /proc would have it; `start` runs a real one and shows it as the node's: its words,
program and files are real, while its user, cgroup and namespaces are said to be what the test wants, because a test
does not run as a node's PID 1 does.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.agents import eventually

KUBELET_CGROUP = "0::/system.slice/kubelet.service\n"
MOUNTS = "mnt:[4026531841]"
_BOOT = 1_700_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
# pause(2) for ever: x86-64 and AArch64 (where it is ppoll without anything to wait for).
_WAIT = {
    "x86_64": (62, bytes.fromhex("b8220000000f05ebf7")),
    "aarch64": (183, bytes.fromhex("000080d2010080d2020080d2030080d2280980d2010000d4faffff17")),
}


class NodeTree:
    """The directory `root`, which is what Host is given. real: processes are started, and see this machine's files.

    mounted_at: where the directory is for whoever reads it, when that is a container.
    """

    def __init__(self, root: Path, *, real: bool = False, mounted_at: Path | None = None) -> None:
        self.root = root
        self._seen_root = Path("/") if real else mounted_at or root
        self._stack = ExitStack()
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/self").symlink_to("/proc/self")
        if real:
            (root / "proc/stat").symlink_to("/proc/stat")
        else:
            (root / "proc/stat").write_text(f"cpu 1 2 3\nbtime {_BOOT}\n")
        self.add("systemd", "/sbin/init", pid=1, parent=0, cgroup="0::/init.scope\n", executable="/sbin/init")

    def add(
        self,
        name: str,
        *argv: str,
        pid: int = 812,
        parent: int = 1,
        uid: int | tuple[int, int, int, int] = 0,
        cgroup: str = KUBELET_CGROUP,
        mounts: str = MOUNTS,
        root: Path | None = None,
        executable: str = "",
        started: float = 60.0,
        cwd: str = "/",
    ) -> None:
        """A captured process. executable: its file is made when it is missing. started: seconds after the boot."""
        folder = self._process(pid, uid, cgroup, mounts)
        executable = executable or (argv[0] if argv and argv[0].startswith("/") else f"/usr/bin/{name}")
        file = self.root / executable.removesuffix(" (deleted)").lstrip("/")
        if not executable.startswith("/memfd:") and not executable.endswith(" (deleted)") and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\x7fELF")
        (folder / "comm").write_text(f"{name[:15]}\n")
        (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {'0 ' * 17}{int(started * _TICKS)} {'0 ' * 30}\n")
        for link, target in (("root", root or self._seen_root), ("exe", executable), ("cwd", cwd)):
            (folder / link).symlink_to(target)

    def start(
        self,
        name: str,
        *args: str,
        cwd: Path | None = None,
        uid: int | tuple[int, int, int, int] = 0,
        cgroup: str = KUBELET_CGROUP,
        mounts: str = MOUNTS,
    ) -> subprocess.Popen[bytes]:
        """Runs a program of that name; what else is said of it is the test's word."""
        path = self.root / "usr/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            waiting_program(path)
        child = subprocess.Popen([name, *args], executable=path, cwd=cwd or self.root, stdin=subprocess.DEVNULL)
        self._stack.callback(end, child)
        # exec is over for Popen a moment before the kernel shows the new command line.
        eventually(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes(), what="its command line")
        folder = self._process(child.pid, uid, cgroup, mounts)
        for entry in ("comm", "cmdline", "stat", "root", "exe", "cwd"):
            target = f"/proc/{child.pid}/{entry}"
            (folder / entry).symlink_to(Path(target).readlink() if entry in ("exe", "cwd") else target)
        return child

    def remove(self, pid: int) -> None:
        """The process has ended."""
        shutil.rmtree(self.root / f"proc/{pid}")

    def close(self) -> None:
        """Ends what was started."""
        self._stack.close()

    def _process(self, pid: int, uid: int | tuple[int, int, int, int], cgroup: str, mounts: str) -> Path:
        folder = self.root / f"proc/{pid}"
        (folder / "ns").mkdir(parents=True)
        uids = (uid,) * 4 if isinstance(uid, int) else uid
        (folder / "status").write_text(f"Name:\tx\nUid:\t{' '.join(map(str, uids))}\nGid:\t0\t0\t0\t0\n")
        (folder / "cgroup").write_text(cgroup)
        (folder / "ns/mnt").symlink_to(mounts)
        return folder


@contextmanager
def real_node(root: Path) -> Iterator[NodeTree]:
    """A node whose processes are real; they end with the block."""
    node = NodeTree(root, real=True)
    try:
        yield node
    finally:
        node.close()


def end(child: subprocess.Popen[bytes]) -> None:
    """Kills and reaps."""
    child.kill()
    child.wait()


def waiting_program(target: Path) -> Path:
    """A program that takes any arguments and waits: the smallest ELF file that the kernel runs."""
    if platform.machine() not in _WAIT:
        pytest.skip(f"no machine code at hand for {platform.machine()}")
    machine, code = _WAIT[platform.machine()]
    start, headers = 0x400000, 64 + 56
    size = headers + len(code)
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, start + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000)
    target.write_bytes(elf + code)
    target.chmod(0o755)
    return target
