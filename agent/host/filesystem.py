"""Files of the node, below the host root and never outside it.

Every path is walked one component at a time with file descriptors (O_NOFOLLOW), the way openat2's RESOLVE_IN_ROOT does
it: an absolute symlink starts again at the host root and `..` never climbs above it. So `/host/var/run -> /run` is
`/host/run`, and a symlink that is swapped in half-way leads nowhere else.
https://man7.org/linux/man-pages/man2/openat2.2.html
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from agent.errors import HostFileError, HostFileMissing, PathEscapesRoot

READ_LIMIT_BYTES = 8 << 20
NAMES_LIMIT = 8192
_MAX_SYMLINKS = 40  # the kernel's own limit, MAXSYMLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_TEMPORARY_PREFIX = ".node-hardening-"


@dataclass(frozen=True, slots=True)
class FileStat:
    """What is known of one file. mode: permission bits only. kind: file, directory, socket or other.

    changed_ns: when its content, mode or name, or a symlink on the way to it, was last changed; unlike mtime_ns no
    program can set it back.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    inode: int
    kind: str
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """A user and group of this machine that stand for the node's root."""

    uid: int = 0
    gid: int = 0


ROOT = Owner()


def owner_of_tree(root: str, effective_uid: int) -> Owner:
    """Who stands for root below `root`: the tree's owner, when a plain user runs the agent on a tree of his own.

    Such a tree is a sandbox or a copy of a node: its files cannot belong to root. On a node the agent runs as root, and
    a plain user does not own `/`, so that there root is root. Raises OSError.
    """
    found = os.stat(root)
    return Owner(found.st_uid, found.st_gid) if found.st_uid == effective_uid != 0 else ROOT


class Tree:
    """A folder that is the node's `/`. Paths are absolute paths of the node, whatever the folder is called here.

    owner: who stands for the node's root here; `stat` reports that user's files as root's.
    """

    def __init__(self, root: str, owner: Owner = ROOT) -> None:
        self.root = root
        self.owner = owner

    def read_bytes(self, path: str, *, limit_bytes: int = READ_LIMIT_BYTES, follow_last: bool = True) -> bytes:
        """A regular file's content. Raises HostFileMissing, HostFileError (also past the limit), PathEscapesRoot.

        follow_last: False for a symlink at the path's end to be no file either.
        """
        with self._parent("read", path, follow_last=follow_last) as (parent, name):
            return read_regular(name, path, limit_bytes, parent=parent, flags=os.O_NOFOLLOW)

    def stat(self, path: str) -> FileStat:
        """What the path leads to, symlinks followed inside the root. Raises HostFileMissing, HostFileError."""
        links: list[int] = []
        with self._parent("stat", path, links=links) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISSOCK, "socket"))
        kind = next((word for test, word in kinds if test(found.st_mode)), "other")
        return FileStat(
            stat.S_IMODE(found.st_mode), 0 if found.st_uid == self.owner.uid else found.st_uid,
            0 if found.st_gid == self.owner.gid else found.st_gid, found.st_mtime_ns, found.st_ino, kind,
            max(found.st_mtime_ns, found.st_ctime_ns, *links),
        )  # fmt: skip

    def names(self, folder: str, *, limit: int = NAMES_LIMIT) -> tuple[str, ...]:
        """Sorted names in a directory; the agent's own unfinished temporary files left out.

        Raises HostFileMissing, HostFileError (also past the limit, without having read the rest).
        """
        with (
            self._parent("list", folder) as (parent, name),
            opened(name, _READ_FOLDER | os.O_NOFOLLOW, parent=parent) as fd,
            os.scandir(fd) as entries,
        ):
            found = [entry.name for entry in itertools.islice(entries, limit + 1)]
        if len(found) > limit:
            raise HostFileError("list", folder, f"more than {limit} names in it")
        return tuple(sorted(entry for entry in found if not entry.startswith(_TEMPORARY_PREFIX)))

    def read_link(self, path: str) -> str:
        """A symlink's target as written. Raises HostFileMissing, HostFileError (not a symlink)."""
        with self._parent("read link", path, follow_last=False) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def write(self, path: str, content: bytes | str, *, mode: int | None = None) -> bool:
        """Replaces a file in one step: a reader, or a crash at any moment, sees the old content or the new.

        True when something changed, False when it was so already. mode: permission bits; None keeps those of the file
        that is replaced (0o644 for a new one). The owner is kept. Missing parent folders are made, root-owned and
        0o755. A symlink at `path` is replaced, never written through. Raises HostFileError.
        """
        new = content.encode() if isinstance(content, str) else content
        try:
            old = self.read_bytes(path, limit_bytes=len(new), follow_last=False)
            if old == new and mode in (None, self.stat(path).mode):
                return False
        except HostFileError:
            pass  # missing, larger, a symlink or unreadable: written again below, which reports what is wrong
        self._replace(path, new, mode)
        return True

    def _replace(self, path: str, content: bytes, mode: int | None) -> None:
        self._make_folders(path)
        with (
            self._writing("write", path) as (parent, name),
            opened(".", _READ_FOLDER, parent=parent) as folder,  # O_PATH would not fsync
        ):
            self._sweep(folder, name)
            temporary = f"{_TEMPORARY_PREFIX}{name}.{secrets.token_hex(4)}"
            try:
                old = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(old.st_mode):
                    raise HostFileError("write", path, "a folder is in its place")
            except FileNotFoundError:
                old = None
            regular = old is not None and stat.S_ISREG(old.st_mode)
            bits = mode if mode is not None else stat.S_IMODE(old.st_mode) if old is not None and regular else 0o644
            try:
                with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, parent=folder) as fd:
                    _write_all(fd, content)
                    if old is not None and regular and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(fd, old.st_uid, old.st_gid)
                    os.fchmod(fd, bits)  # after chown, which clears setuid and setgid
                    os.fsync(fd)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def write_in_place(self, path: str, content: str) -> None:
        """One write into a file that is there: one of sysfs can be neither replaced nor written in parts.

        Raises HostFileError.
        """
        flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._writing("write", path) as (parent, name), opened(name, flags, parent=parent) as fd:
            os.write(fd, content.encode())

    def remove(self, path: str) -> bool:
        """Removes a file or symlink, never a folder; False when it was not there. Raises HostFileError."""
        try:
            with self._writing("remove", path) as (parent, name):
                os.unlink(name, dir_fd=parent)
                _sync_folder(parent)
        except HostFileMissing:
            return False
        return True

    def remove_folder(self, path: str) -> None:
        """Removes an empty folder, never what a symlink leads to. Raises HostFileMissing, HostFileError."""
        with self._writing("remove", path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def locate(self, path: str) -> str:
        """The path as this process can watch it, symlinks resolved inside the root. The nearest parent that is there
        stands in for a missing folder, so that its arrival is seen. Raises HostFileError."""
        missing: list[str] = []
        while True:
            try:
                with self._parent("find", path) as (parent, name):
                    folder = os.readlink(f"/proc/self/fd/{parent}")
                return posixpath.join(folder, *(() if name == "." else (name,)), *reversed(missing))
            except HostFileMissing:
                path, name = posixpath.split(path.rstrip("/"))
                missing.append(name)

    @contextlib.contextmanager
    def regular(self, action: str, path: str) -> Iterator[int]:
        """A regular file's descriptor, to ask the kernel about it. OSErrors of the block become HostFileErrors."""
        with (
            self._parent(action, path) as (parent, name),
            opened_regular(action, name, path, parent=parent, flags=os.O_NOFOLLOW) as fd,
        ):
            yield fd

    def open_lock(self, path: str) -> int:
        """A descriptor of a lock file, made when it is missing; the caller closes it."""
        self._make_folders(path)
        with self._writing("lock", path) as (parent, name):
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)

    # -- walking ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self, action: str, path: str, *, follow_last: bool = False) -> Iterator[tuple[int, str]]:
        """Like _parent, through a writable mount of the folder where the one below the root is read-only."""
        with self._parent(action, path, follow_last=follow_last) as (parent, name):
            place = os.readlink(f"/proc/self/fd/{parent}")
            node = f"/{place.removeprefix(self.root).lstrip('/')}"
            writable = _writable(node, parent) if self.root != "/" else None
            try:
                yield parent if writable is None else writable, name
            except OSError as error:
                if error.errno != errno.EROFS or self.root == "/":
                    raise
                why = f"{error.strerror}: mount the node's folder {node} writable at {place}, or choose another"
                raise HostFileError(action, path, OSError(error.errno, why)) from error
            finally:
                if writable is not None:
                    os.close(writable)

    @contextlib.contextmanager
    def _parent(
        self, action: str, path: str, *, follow_last: bool = True, links: list[int] | None = None
    ) -> Iterator[tuple[int, str]]:
        """The folder that holds the path's last component, as a descriptor, and that component's name.

        With follow_last, symlinks at the end are followed first. links: takes the ctime_ns of each one on the way.
        OSErrors inside become HostFileErrors.
        """
        try:
            parent, name = self._walk(action, path, [] if links is None else links, follow_last=follow_last)
            try:
                yield parent, name
            finally:
                os.close(parent)
        except OSError as error:
            raise HostFileError.of(action, path, error) from error

    def _walk(self, action: str, path: str, links: list[int], *, follow_last: bool) -> tuple[int, str]:
        if not path.startswith("/"):
            raise HostFileError(action, path, "not an absolute path")
        left = _parts_reversed(action, path, path)
        folders = [os.open(self.root, _DIRECTORY)]
        try:
            while left:
                part = left.pop()
                if part == "..":
                    if len(folders) > 1:
                        os.close(folders.pop())
                    continue
                if (left or follow_last) and (target := _link(folders[-1], part)) is not None:
                    links.append(os.stat(part, dir_fd=folders[-1], follow_symlinks=False).st_ctime_ns)
                    if len(links) > _MAX_SYMLINKS:
                        raise PathEscapesRoot(action, path, "too many levels of symbolic links")
                    if target.startswith("/"):
                        while len(folders) > 1:
                            os.close(folders.pop())
                    left.extend(_parts_reversed(action, path, target))
                    continue
                if not left:
                    return folders.pop(), part
                folders.append(os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folders[-1]))
            return folders.pop(), "."
        finally:
            for folder in folders:
                os.close(folder)

    def _make_folders(self, path: str) -> None:
        parents = list(reversed(PurePosixPath(path).parents))[1:]
        for folder in parents:
            try:
                if self.stat(str(folder)).kind != "directory":
                    raise HostFileError("write", path, f"{folder} is not a folder")
            except HostFileMissing:
                with (
                    self._writing("make folder", str(folder), follow_last=True) as (parent, name),
                    contextlib.suppress(FileExistsError),
                ):
                    os.mkdir(name, 0o755, dir_fd=parent)
                    _sync_folder(parent)

    @staticmethod
    def _sweep(folder: int, name: str) -> None:
        """Removes what a killed write of the same file left behind."""
        left_behind = re.compile(re.escape(f"{_TEMPORARY_PREFIX}{name}.") + "[0-9a-f]{8}")
        for entry in os.listdir(folder):
            if left_behind.fullmatch(entry):  # whole names: `a` must not sweep what is written to `a.conf`
                with contextlib.suppress(OSError):
                    os.unlink(entry, dir_fd=folder)


@contextlib.contextmanager
def opened(name: str, flags: int, *, parent: int | None = None) -> Iterator[int]:
    """A descriptor while the block runs; a file that is made is for its owner alone. Raises OSError."""
    fd = os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_regular(action: str, name: str, path: str, *, parent: int | None, flags: int) -> Iterator[int]:
    """A regular file, for reading. action, path: how a message names it. Raises OSError, HostFileError.

    The file is found with O_PATH, which opens no driver, and only what is regular is then opened, through the same
    descriptor: opening a device or a FIFO has effects already. O_NONBLOCK is for files of procfs that wait for content.
    """
    with opened(name, os.O_PATH | flags, parent=parent) as handle:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise HostFileError(action, path, "not a regular file")
        with opened(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK) as fd:
            yield fd


def read_regular(name: str, path: str, limit_bytes: int, *, parent: int | None = None, flags: int = 0) -> bytes:
    """The content of a regular file; see opened_regular. Raises OSError, HostFileError (also past the limit)."""
    with opened_regular("read", name, path, parent=parent, flags=flags) as fd:
        chunks: list[bytes] = []
        left = limit_bytes + 1
        while left > 0 and (chunk := os.read(fd, min(left, 1 << 16))):
            chunks.append(chunk)
            left -= len(chunk)
    if left <= 0:
        raise HostFileError("read", path, f"larger than {limit_bytes} bytes")
    return b"".join(chunks)


def _parts_reversed(action: str, path: str, text: str) -> list[str]:
    """The components of a path or of a symlink's target, last one first.

    Split here rather than by pathlib, to which `//etc` has the root `//`: opened as a component that is the machine's.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise HostFileError(action, ascii(path), "not a name that a file can have") from error
    if "\0" in text:
        raise HostFileError(action, ascii(path), "a NUL byte cannot be in a file's name")
    return [part for part in reversed(text.split("/")) if part not in ("", ".")]


def _writable(path: str, folder: int) -> int | None:
    """The same folder at the node's path, where a container's runtime has mounted it writable.

    The node is below the root read-only, and the folders that the agent writes are mounted over it. Where such a folder
    is a symlink on the node, runc follows it inside the container: the mount of ROOT/var/lib/kubelet/seccomp is at
    /data/kubelet/seccomp and not below the root. Only the very same folder counts: device and inode.
    """
    if not os.fstatvfs(folder).f_flag & os.ST_RDONLY:
        return None
    with contextlib.suppress(OSError):
        other = os.open(path, _DIRECTORY)
        if os.path.samestat(os.fstat(other), os.fstat(folder)) and not os.fstatvfs(other).f_flag & os.ST_RDONLY:
            return other
        os.close(other)
    return None


def _link(folder: int, name: str) -> str | None:
    """The symlink's target, None when the name is no symlink or not there."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _sync_folder(folder: int) -> None:
    """Makes what was added to or taken from a folder survive a power cut; `folder` may be an O_PATH descriptor."""
    with opened(".", _READ_FOLDER, parent=folder) as readable:
        os.fsync(readable)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
