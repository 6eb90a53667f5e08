"""One process of a procfs, held open, and read in bounded pieces.

Holding /proc/PID open means that a number which the kernel gives away again never leads to another process: reads fail
with ESRCH then. What the kernel itself reports (name, parent, users, cgroups, namespaces) is read apart from what the
process may have written itself (its arguments); host/identity.py decides when the latter may be read at all.
https://man7.org/linux/man-pages/man5/proc.5.html
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from agent.errors import HostFileError
from agent.host.budget import ARGUMENTS_BYTES
from agent.host.filesystem import opened, read_regular

_SMALL_BYTES = 16 << 10
_MAPPINGS_BYTES = 1 << 20
_LISTEN = "0A"
_MAX_SOCKETS = 4096
_MAX_DESCRIPTORS = 16_384
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def pids(procfs: str) -> Iterator[int]:
    """The numbers of all processes, one at a time. Raises OSError."""
    with os.scandir(procfs) as entries:
        for entry in entries:
            if entry.name.isascii() and entry.name.isdecimal():
                yield int(entry.name)


class ProcessEntry:
    """`/proc/PID` as an open directory. Every method raises OSError or ValueError when the process has ended."""

    def __init__(self, procfs: str, pid: int) -> None:
        self.pid = pid
        self._fd = os.open(f"{procfs}/{pid}", _OPEN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        os.close(self._fd)

    def name(self) -> str:
        """The name of the program that was executed, at most 15 bytes of it."""
        return self._read("comm").decode(errors="replace").removesuffix("\n")

    def parent_and_start(self) -> tuple[int, int]:
        """The parent's number, and the start in clock ticks since boot."""
        # pid (comm) state ppid …; comm may hold anything, parentheses too.
        fields = self._read("stat").rpartition(b")")[2].split()
        return int(fields[1]), int(fields[19])

    def uids(self) -> tuple[int, ...]:
        """Real, effective, saved and file system user."""
        for line in self._read("status").splitlines():
            if line.startswith(b"Uid:"):
                return tuple(int(word) for word in line.split()[1:5])
        raise ValueError(f"/proc/{self.pid}/status has no Uid line")

    def cgroups(self) -> Mapping[str, str]:
        """The path in each hierarchy, by its controllers: `` for cgroup v2, `name=systemd`, `memory` …"""
        lines = self._read("cgroup").decode(errors="replace").splitlines()
        parts = [line.split(":", 2) for line in lines]
        return {found[1]: found[2] for found in parts if len(found) == 3}

    def mount_namespace(self) -> str:
        """`mnt:[4026531841]`."""
        return os.readlink("ns/mnt", dir_fd=self._fd)

    def network_namespace(self) -> str:
        """`net:[4026531840]`."""
        return os.readlink("ns/net", dir_fd=self._fd)

    def label(self) -> str:
        """The label of the security module, such as `system_u:system_r:container_t:s0:c1,c2`; empty without one."""
        try:
            return self._read("attr/current").decode(errors="replace").strip("\0\n")
        except (OSError, HostFileError):
            return ""

    def root(self) -> tuple[int, int]:
        """Device and inode of the directory that is `/` to the process."""
        found = os.stat("root", dir_fd=self._fd)
        return found.st_dev, found.st_ino

    def executable(self) -> str:
        """The path of the program, ` (deleted)` after it when the file was replaced."""
        return os.readlink("exe", dir_fd=self._fd)

    def working_directory(self) -> str:
        """The working directory; empty when it cannot be read."""
        try:
            return os.readlink("cwd", dir_fd=self._fd)
        except OSError:
            return ""

    def arguments(self) -> tuple[str, ...]:
        """The process's own words. Raises HostFileError past the limit for arguments."""
        raw = self._read("cmdline", ARGUMENTS_BYTES)
        return tuple(os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")) if raw else ()

    def environment(self, prefix: str) -> Mapping[str, str]:
        """The variables that it was started with whose names begin so. Raises HostFileError past the limit."""
        raw = self._read("environ", ARGUMENTS_BYTES).split(b"\0")
        pairs = (os.fsdecode(one).partition("=") for one in raw if one.startswith(os.fsencode(prefix)))
        return {name: value for name, _, value in pairs}

    def mappings(self) -> bytes:
        """The table of its mapped files; empty for a kernel thread. Raises HostFileError past the limit."""
        return self._read("maps", _MAPPINGS_BYTES)

    def listeners(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports on which this very process accepts TCP connections, whatever namespace it is in."""
        own = self._socket_inodes()
        return tuple(dict.fromkeys(place for inode, place in self.sockets() if inode in own))

    def sockets(self, uid: str = "") -> Iterator[tuple[str, tuple[str, int]]]:
        """Inode, address and port of what accepts TCP connections in its network namespace. uid: of that user's alone.

        Listening sockets come first in /proc/net/tcp, so that the connections of a busy node are not read. More than
        can be read raise ValueError. https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
        """
        for name in ("tcp", "tcp6"):
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                fd = os.open(f"net/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
                with open(fd, encoding="ascii", errors="replace") as lines:
                    yield from _listening(lines, uid)

    def _socket_inodes(self) -> frozenset[str]:
        found = set()
        with opened("fd", os.O_RDONLY | os.O_DIRECTORY, parent=self._fd) as fd, os.scandir(fd) as entries:
            for entry in itertools.islice(entries, _MAX_DESCRIPTORS):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    found.add(os.readlink(entry.name, dir_fd=fd))
        return frozenset(one[8:-1] for one in found if one.startswith("socket:["))

    def _read(self, name: str, limit_bytes: int = _SMALL_BYTES) -> bytes:
        return read_regular(name, f"/proc/{self.pid}/{name}", limit_bytes, parent=self._fd)


def boot_time(procfs: str) -> float:
    """When the machine started, in seconds since the epoch. Raises OSError, ValueError, HostFileError."""
    # The lines of processors and interrupts come first and grow with the machine.
    for line in read_regular(f"{procfs}/stat", "/proc/stat", 4 << 20).splitlines():
        if line.startswith(b"btime "):
            return float(line.split()[1])
    raise ValueError("/proc/stat has no btime line")


def _listening(lines: Iterable[str], uid: str) -> Iterator[tuple[str, tuple[str, int]]]:
    for count, line in enumerate(itertools.islice(lines, 1, None)):
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            break
        if count == _MAX_SOCKETS:
            raise ValueError(f"more than {_MAX_SOCKETS} listening sockets")
        address, _, number = fields[1].partition(":")
        if uid in ("", fields[7]):
            yield fields[9], (_ip(address), int(number, 16))


def _ip(text: str) -> str:
    """`0100007F` is 127.0.0.1: words of 32 bits in the machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))
