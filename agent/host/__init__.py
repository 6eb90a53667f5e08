"""The only access to the node: files below the host root, commands, processes, boot id.

Everything takes and returns the node's own paths (`/etc/modprobe.d/x.conf`), wherever the node's tree is mounted. It
refuses to leave the host root, to run a shell, and to know anything about Kubernetes.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import posixpath
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import containers, identity
from agent.host.budget import Budget, Resource
from agent.host.command import Completed, HostExec
from agent.host.command import run as run_command
from agent.host.filesystem import NAMES_LIMIT, READ_LIMIT_BYTES, FileStat, Owner, Tree, owner_of_tree
from agent.host.identity import Process, ProcessTable, Program
from agent.host.inotify import FolderWatch
from agent.host.processes import ProcessEntry

__all__ = [
    "Completed", "FileStat", "FolderWatch", "Host", "HostExec", "Process", "ProcessTable", "Program", "if_there",
    "read_or",
]  # fmt: skip

Read = TypeVar("Read")
Other = TypeVar("Other")
Arguments = ParamSpec("Arguments")
_TOOL_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
_OUTPUT_LIMIT_BYTES = 4 << 20
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Host(Tree):
    """A node: the tree below `root`, and the machine that it runs on.

    root: the directory that is the node's `/`. how: whether commands of the node run in PID 1's namespaces or as plain
    children. owner: who stands for the node's root in the tree (filesystem.owner_of_tree by default). A tree without a
    /proc of its own (a debootstrap tree) has this machine's boot id, and no processes.
    """

    def __init__(self, root: str | Path = "/", *, how: HostExec = HostExec.DIRECT, owner: Owner | None = None) -> None:
        path = str(Path(root).absolute())
        if not os.path.isdir(path):
            raise HostError(f"--host-root {path}: not a folder")
        super().__init__(path, owner_of_tree(path, os.geteuid()) if owner is None else owner)
        self.how = how
        self._budget: Budget | None = None

    def within(self, budget: Budget) -> Self:
        """The same node, where everything that is read counts against the budget (BudgetExceeded when it is spent)."""
        limited = copy.copy(self)
        limited._budget = budget
        return limited

    @property
    def budget(self) -> Budget | None:
        """What readers of many values count against, where the pass has a budget."""
        return self._budget

    @property
    def is_running_system(self) -> bool:
        """Whether the root is this machine's own `/`: False for a mounted host and for trees."""
        return self.root == "/"

    @property
    def can_start_programs(self) -> bool:
        """Whether `run` reaches the node's own programs: not where the root is a tree on another machine."""
        return self.is_running_system or self.how is HostExec.NSENTER

    # -- files -----------------------------------------------------------------------------------------------------

    def read_bytes(self, path: str, *, limit_bytes: int = READ_LIMIT_BYTES, follow_last: bool = True) -> bytes:
        """See Tree. Raises BudgetExceeded too."""
        content = super().read_bytes(path, limit_bytes=limit_bytes, follow_last=follow_last)
        if self._budget is not None:
            self._budget.spend(Resource.BYTES, len(content), path)
        return content

    def read_text(self, path: str, *, limit_bytes: int = READ_LIMIT_BYTES, missing: str | None = None) -> str:
        """The same as text; bytes that are not UTF-8 become U+FFFD, so that a stray byte never hides a file.

        missing: the text of a file that is not there, in place of HostFileMissing.
        """
        try:
            return self.read_bytes(path, limit_bytes=limit_bytes).decode(errors="replace")
        except HostFileMissing:
            if missing is None:
                raise
            return missing

    def stat(self, path: str) -> FileStat:
        """See Tree. Raises BudgetExceeded too."""
        if self._budget is not None:
            self._budget.check_time(path)
        return super().stat(path)

    def exists(self, path: str) -> bool:
        """Whether the path leads to something. Raises HostFileError where that is unknown (permissions, loops)."""
        try:
            self.stat(path)
        except HostFileMissing:
            return False
        return True

    def is_file(self, path: str) -> bool:
        """Whether the path leads to a regular file; False also where that cannot be read."""
        try:
            return self.stat(path).kind == "file"
        except HostFileError:
            return False

    def names(self, folder: str, *, limit: int = NAMES_LIMIT) -> tuple[str, ...]:
        """See Tree. Raises BudgetExceeded too."""
        if self._budget is not None:
            self._budget.spend(Resource.LISTINGS, 1, folder)
        names = super().names(folder, limit=limit)
        if self._budget is not None:
            self._budget.spend(Resource.ENTRIES, len(names), folder)
        return names

    def overlaid(self, folders: Iterable[str], ending: str) -> list[str]:
        """Files with that ending, by name; one in an earlier folder hides its namesakes, a link to /dev/null is none.

        Raises HostFileError.
        """
        files: dict[str, str] = {}
        for folder in folders:
            for name in self.names(folder) if self.exists(folder) else ():
                if name.endswith(ending):
                    files.setdefault(name, f"{folder}/{name}")
        return [files[name] for name in sorted(files) if not self.is_mask(files[name])]

    def is_mask(self, path: str) -> bool:
        """Whether the path is a link to /dev/null (need not be there in a tree), which is empty on purpose."""
        try:
            return posixpath.normpath(posixpath.join(posixpath.dirname(path), self.read_link(path))) == "/dev/null"
        except HostFileError:
            return False  # a file

    @contextlib.contextmanager
    def exclusive(self, path: str, *, wait_seconds: float = 30.0) -> Iterator[None]:
        """Holds a lock file (flock) while the block runs, so that two agents never change one node at the same time.

        The kernel lets go of it when the process ends, however it ends. Raises HostError when another holds it for
        longer than wait_seconds; HostFileError when the file cannot be made.
        """
        with open(self.open_lock(path), "rb") as lock:
            deadline = time.monotonic() + wait_seconds
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise HostError(
                            f"{path}: another agent is changing this node; waited {wait_seconds:g} s"
                        ) from error
                    time.sleep(0.05)
            yield

    def is_locked(self, path: str) -> bool:
        """Whether another process holds a lock (fcntl, whole file or part) on a regular file; takes none itself.

        Raises HostFileMissing, HostFileError.
        """
        with self.regular("read the locks of", path) as fd:
            # l_type, l_whence, l_start, l_len, l_pid of struct flock: https://man7.org/linux/man-pages/man2/F_OFD_GETLK.2const.html
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        (kind,) = struct.unpack_from("h", found)
        return bool(kind != fcntl.F_UNLCK)

    def real_path(self, path: str) -> str:
        """The node's path as this process can open it. For arguments of commands only; reading goes through read_*."""
        return path if self.root == "/" else posixpath.join(self.root, path.lstrip("/"))

    # -- commands --------------------------------------------------------------------------------------------------

    def run(
        self, argv: Sequence[str], *, timeout_seconds: float, input_bytes: bytes | None = None,
        limit_bytes: int = _OUTPUT_LIMIT_BYTES, environment: Mapping[str, str] | None = None,
        how: HostExec | None = None, cancelled: Callable[[], bool] | None = None,
    ) -> Completed:  # fmt: skip
        """Runs a command on the node and waits for it.

        how: overrides the host's way, for tools that come with the agent's image rather than with the node. cancelled:
        asked a few times a second; True ends the command. Raises CommandMissing and CommandTimeout, CommandError when
        cancelled; exit codes are the caller's to judge (`Completed.check`).
        """
        return run_command(
            argv, how=how or self.how, timeout_seconds=timeout_seconds, input_bytes=input_bytes,
            limit_bytes=limit_bytes, environment=environment or {}, cancelled=cancelled,
        )  # fmt: skip

    def find_tool(self, name: str, *, how: HostExec | None = None) -> str | None:
        """The absolute path of a program where `run` would look for it, None when it is not there."""
        if (how or self.how) is HostExec.NSENTER:
            return next((f"{folder}/{name}" for folder in _TOOL_FOLDERS if self.is_file(f"{folder}/{name}")), None)
        return next((f"{folder}/{name}" for folder in _TOOL_FOLDERS if os.access(f"{folder}/{name}", os.X_OK)), None)

    # -- the machine -----------------------------------------------------------------------------------------------

    @property
    def procfs(self) -> str:
        """The procfs that describes this node: the tree's own where it has one, else this machine's."""
        own = f"{self.root.rstrip('/')}/proc"
        return own if os.path.exists(f"{own}/sys/kernel") or os.path.exists(f"{own}/self") else "/proc"

    def boot_id(self) -> str:
        """The kernel's boot id (a UUID), another one after each boot. Raises HostFileError."""
        tree: Tree = self if self.procfs != "/proc" else Tree("/")
        text = tree.read_bytes(_BOOT_ID, limit_bytes=4096).decode(errors="replace").strip()
        if not _UUID.fullmatch(text):
            raise HostFileError("read", _BOOT_ID, f"not a boot id: {text[:64]!r}")
        return text

    def kernel_release(self) -> str:
        """The running kernel's release, e.g. `6.1.0-18-amd64`; this machine's for a tree that shows none.

        Raises HostFileError where the tree's cannot be read.
        """
        return self.read_text("/proc/sys/kernel/osrelease", missing="").strip() or os.uname().release

    def machine(self) -> str:
        """The processor's name as uname gives it, e.g. `x86_64`, `aarch64`."""
        return os.uname().machine

    def processes(self, programs: frozenset[Program] = identity.NODE_PROGRAMS) -> ProcessTable:
        """The node's own processes by identity: see host/identity.py. Raises HostError when none can be listed.

        A tree without a /proc has none.
        """
        if not self.has_processes:
            return ProcessTable()
        return identity.survey(self, self.procfs, self._budget or Budget(), programs)

    def entry_of(self, process: Process) -> ProcessEntry:
        """What the kernel knows of that process. Raises OSError when it has ended."""
        return ProcessEntry(self.procfs, process.pid)

    @property
    def has_processes(self) -> bool:
        """Whether a kernel runs on this tree: one without a /proc has no processes, whatever runs on this machine."""
        return self.is_running_system or self.procfs != "/proc"

    def still_running(self, started: Iterable[Process]) -> tuple[Process, ...]:
        """Those of the processes that still run."""
        return tuple(process for process in started if identity.is_running(self.procfs, process))

    def containers(self) -> tuple[containers.Container, ...]:
        """The containers that run on the node, by one process of each. Raises HostError."""
        return containers.survey(self.procfs, self._budget or Budget()) if self.has_processes else ()

    def listening(self, port: int) -> tuple[str, ...]:
        """Addresses on which a process of root's accepts TCP connections to the port, in PID 1's network namespace.

        Raises HostError.
        """
        if not self.has_processes:
            return ()
        try:
            with ProcessEntry(self.procfs, 1) as init:
                found = [address for _, (address, number) in init.sockets(uid="0") if number == port]
        except (OSError, ValueError) as error:
            raise HostFileError(
                "read", "/proc/1/net/tcp", error if isinstance(error, OSError) else str(error)
            ) from error
        return tuple(dict.fromkeys(found))

    def addresses(self) -> frozenset[str]:
        """The IP addresses of this machine's interfaces, loopback's among them; no zone in those of IPv6."""
        import psutil  # noqa: PLC0415 - a C extension; kubectl's plugin, which shares this module, does without

        found = psutil.net_if_addrs().values()
        families = (socket.AF_INET, socket.AF_INET6)
        return frozenset(one.address.partition("%")[0] for some in found for one in some if one.family in families)

    def view_of(self, process: Process) -> Host:
        """The node's files as that process sees them (its mount namespace and root), for reading. Raises HostError."""
        view = Host(f"{self.procfs}/{process.pid}/root", how=self.how, owner=self.owner)
        return view if self._budget is None else view.within(self._budget)


def if_there(
    otherwise: Other, read: Callable[Arguments, Read], *given: Arguments.args, **named: Arguments.kwargs
) -> Read | Other:
    """What is read, or something else where it is not there. Raises HostError where it cannot be read."""
    try:
        return read(*given, **named)
    except HostFileMissing:
        return otherwise


def read_or(
    otherwise: Other, read: Callable[Arguments, Read], *given: Arguments.args, **named: Arguments.kwargs
) -> Read | Other:
    """What is read, or something else where it cannot be: for a value that stands for "unknown", never for "none"."""
    try:
        return read(*given, **named)
    except HostError:
        return otherwise
