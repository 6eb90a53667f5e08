"""Waking when files change: inotify on directories, so that nothing is polled and an idle node costs nothing.

Directories are watched, not files: an atomic replace, a ConfigMap's `..data` swap and a file that does not exist yet
are all events of the directory. One that is missing is waited for at its nearest ancestor.
securityfs sends no such events; of its files those that can be polled (AppArmor's `revision`) are.
It refuses to report what the change was: the caller reads the files again.
https://man7.org/linux/man-pages/man7/inotify.7.html
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import select
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x4, 0x400, 0x800
_Q_OVERFLOW, _IGNORED, _ONLYDIR = 0x4000, 0x8000, 0x01000000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ATTRIB | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_EVENT = struct.Struct("iIII")
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_CONFIG_MAP_LINK = "..data"
_OWN_TEMPORARY = ".node-hardening-"
_SETTLE_SECONDS = 0.1  # one change by a user or the kubelet is a burst of events
_SECURITYFS = "/sys/kernel/security/"
_MAX_FOLDERS = 64
_MAX_CHUNKS = 32
_UNWATCHED_SECONDS = 60.0
_LONGEST_POLL_SECONDS = 86400.0  # poll counts milliseconds in a C int


# Of one watched directory: for which of the caller's names, and which entries of it matter (None: any).
_Entries = dict[str, set[str] | None]


class FolderWatch:
    """Watches paths (files or directories, real paths of this process) under names of the caller's choosing.

    One thread waits; `wake` may be called from any thread and from a signal handler. Where the kernel has no instance
    or watch left to give, `problem` reports it, `wait` returns more often, and the next `watch` tries again.
    """

    def __init__(self, paths: Mapping[str, Iterable[str]]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        self.problem = ""
        self._waker_read, self._waker_write = os.pipe2(_CLOEXEC_NONBLOCK)
        self._folders: dict[int, _Entries] = {}
        self._paths: dict[str, tuple[str, ...]] = {}
        self._revisions: dict[int, str] = {}  # names by descriptor of a polled file
        self.watch(paths)

    def watch(self, paths: Mapping[str, Iterable[str]]) -> None:
        """Watches these paths instead of the ones before."""
        self._paths = {name: tuple(one for one in some if _SECURITYFS not in one) for name, some in paths.items()}
        self._poll({path: name for name, some in paths.items() for path in some if _SECURITYFS in path})
        self.problem = ""
        if self._fd < 0:
            self._fd = self._libc.inotify_init1(_CLOEXEC_NONBLOCK)
        if self._fd < 0:
            self._fail("inotify_init1", "max_user_instances")
        else:
            self._arm()

    def _poll(self, paths: Mapping[str, str]) -> None:
        """Opens each file and reads its content, so that it is readable again when that changes."""
        for fd in self._revisions:
            os.close(fd)
        self._revisions = {}
        for path, name in paths.items():
            with contextlib.suppress(OSError):  # no AppArmor, or no securityfs: a pass reports it
                self._revisions[os.open(path, os.O_RDONLY | _CLOEXEC_NONBLOCK)] = name
        self._polled(self._revisions)

    def _polled(self, ready: Iterable[int]) -> frozenset[str]:
        """Names of the files whose content changed. One that cannot be read any more is polled no longer."""
        changed = set()
        for fd in tuple(ready):
            try:
                if os.read(fd, 64):
                    changed.add(self._revisions[fd])
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            del self._revisions[fd]
            os.close(fd)
        return frozenset(changed)

    def _fail(self, call: str, limit: str) -> None:
        self.problem = f"{call}: {os.strerror(ctypes.get_errno())}; raise fs.inotify.{limit}"

    def wake(self) -> None:
        """Ends a `wait` that is under way, or the next one."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nothing waits any more
            os.write(self._waker_write, b"x")

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """The names whose paths changed; empty after the timeout or a `wake`."""
        deadline = time.monotonic() + (min(timeout_seconds, _UNWATCHED_SECONDS) if self.problem else timeout_seconds)
        sources = [self._waker_read] if self._fd < 0 else [self._fd, self._waker_read]
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            ready = _readable((*sources, *self._revisions), left)
            if changed := self._polled(self._revisions.keys() & ready):
                return changed
            if self._waker_read in ready:
                _drain(self._waker_read)
                return self._changed() if self._fd in ready else frozenset()
            if self._fd in ready:
                time.sleep(_SETTLE_SECONDS)
                if changed := self._changed():
                    return changed
                continue
            return frozenset()

    def close(self) -> None:
        """Closes the descriptors."""
        open_ones = (self._fd, self._waker_read, self._waker_write, *self._revisions)
        self._fd = self._waker_read = self._waker_write = -1  # another file may get these numbers
        self._revisions = {}
        for fd in open_ones:
            if fd >= 0:
                os.close(fd)

    def _arm(self) -> None:
        """Watches what is there now. Adding a watch that stands already only renews it."""
        folders: dict[int, _Entries] = {}
        for name, paths in self._paths.items():
            for path in paths:
                for folder, entries in _targets(path):
                    number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
                    if number < 0:
                        if ctypes.get_errno() == errno.ENOSPC:
                            self._fail("inotify_add_watch", "max_user_watches")
                        continue  # else it is gone since it was found: its parent's event arms it again
                    known = folders.setdefault(number, {})
                    before = known.get(name, set())
                    known[name] = None if before is None or entries is None else before | entries
        for number in self._folders.keys() - folders.keys():
            self._libc.inotify_rm_watch(self._fd, number)
        self._folders = folders

    def _changed(self) -> frozenset[str]:
        changed: set[str] = set()
        for number, mask, entry in _events(_drain(self._fd)):
            if mask & _Q_OVERFLOW:
                changed |= self._paths.keys()
            if mask & _IGNORED or entry.startswith(_OWN_TEMPORARY):
                continue
            watched = self._folders.get(number, {}).items()
            changed |= {name for name, entries in watched if not entries or not entry or entry in entries}
        if changed:
            self._arm()
        return frozenset(changed)


def _targets(path: str) -> list[tuple[str, set[str] | None]]:
    """Folders to watch for one path, each with the names in it that matter (None: all)."""
    target = Path(path)
    if target.is_dir():
        targets: list[tuple[str, set[str] | None]] = [(path, None)]
        for folder, names, _ in os.walk(path):
            targets += [(os.path.join(folder, name), None) for name in names]
            if len(targets) >= _MAX_FOLDERS:
                break
        return targets[:_MAX_FOLDERS]
    entry = target.name
    for ancestor in target.parents:
        if ancestor.is_dir():
            return [(str(ancestor), {entry, _CONFIG_MAP_LINK})]
        entry = ancestor.name
    return []


def _readable(descriptors: Iterable[int], timeout_seconds: float) -> set[int]:
    """Those that can be read, or have failed. By poll: select refuses descriptors of 1024 and above."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(math.ceil(min(timeout_seconds, _LONGEST_POLL_SECONDS) * 1000))}


def _drain(fd: int) -> bytes:
    chunks: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(chunks) < _MAX_CHUNKS:  # what is left wakes the next wait
            chunks.append(os.read(fd, 1 << 16))
    return b"".join(chunks)


def _events(raw: bytes) -> Iterable[tuple[int, int, str]]:
    """(watch, mask, name) of each event in the kernel's buffer."""
    at = 0
    while at + _EVENT.size <= len(raw):
        number, mask, _, length = _EVENT.unpack_from(raw, at)
        at += _EVENT.size
        yield number, mask, os.fsdecode(raw[at : at + length].rstrip(b"\0"))
        at += length
