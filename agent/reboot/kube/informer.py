"""A few objects kept up to date by a watch, so that reading them costs no request.

Never older than this process's own last write: what is written is put in, and an event of an older resourceVersion is
passed over. After a write whose answer was lost nothing is known until the next read. Resource versions are compared
as numbers (https://kep.k8s.io/5504); one that is no number is taken as newer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agent.errors import KubeError
from agent.kube import Change, EventType, Informer

Object = dict[str, Any]

_FIRST_SECONDS = 1.0  # how long a read waits for the first list, which is on its way


class ObjectCache:
    """One collection. `take` is for the thread that watches; `get`, `put`, `forget` and `outdate` for one other."""

    def __init__(self, wake: Callable[[], None], keep: Callable[[Object], Object]) -> None:
        """wake: something has changed. keep: what is kept of an object; the rest would only cost memory."""
        self._wake = wake
        self._keep = keep
        self._lock = threading.Lock()
        self._objects: dict[str, Object] = {}
        self._listed: dict[str, Object] | None = None
        self._is_whole = False
        self._unknown: set[str] = set()
        self._outdated: dict[str, str] = {}
        self._being_written = ""
        self._heard = threading.Event()

    def get(self, name: str) -> tuple[bool, Object | None]:
        """Whether it is known, and the object, None when there is none by that name."""
        self._heard.wait(_FIRST_SECONDS)
        with self._lock:
            found = self._objects.get(name)
            is_outdated = found is not None and self._outdated.get(name) == _version(found)
            if not self._is_whole or name in self._unknown or is_outdated:
                return False, None
            return True, found

    def put(self, name: str, found: Object | None) -> None:
        """What a read or a write of one's own has just brought; None for an object that is not there."""
        with self._lock:
            self._unknown.discard(name)
            if found is None:
                self._objects.pop(name, None)
            elif not _is_older(found, self._objects.get(name)):
                self._objects[name] = self._keep(found)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Around a write and its `put`: a change may be one's own write before its answer, so it is no news."""
        self._being_written = name
        try:
            yield
        finally:
            self._being_written = ""

    def forget(self, name: str) -> None:
        """A write may have been done or not: it has to be read again."""
        with self._lock:
            self._unknown.add(name)

    def outdate(self, name: str, version: str) -> None:
        """The server has a newer one than this: nothing is known until the watch or a read brings it."""
        with self._lock:
            self._outdated[name] = version

    def take(self, change: Change) -> None:
        """What the watch has seen."""
        if self._take(change.seen, change.object):
            self._wake()

    def _take(self, seen: EventType, found: Object) -> bool:
        """Whether to wake the coordinator."""
        with self._lock:
            if seen is EventType.LISTING:
                self._listed = {}
                return False
            if seen is EventType.AWAY:
                self._is_whole = False
                self._heard.set()
                return False
            if seen is EventType.SYNCED:
                self._settle(self._listed)
                self._listed = None
                self._is_whole = True
                self._heard.set()
                return True
            name = found.get("metadata", {}).get("name", "")
            if self._listed is not None:
                self._listed[name] = self._keep(found)
                return False
            known = self._objects.get(name)
            if seen is EventType.DELETED:
                if known is not None and not _is_older(found, known):
                    del self._objects[name]
                return True
            if known is not None and (_is_older(found, known) or _version(found) == _version(known)):
                return False
            self._objects[name] = self._keep(found)
            return bool(name != self._being_written)

    def _settle(self, listed: dict[str, Object] | None) -> None:
        """A whole list replaces what was known, but for what was written meanwhile."""
        if listed is None:
            return
        for name, known in self._objects.items():
            if name in listed and _is_older(listed[name], known):
                listed[name] = known
        self._objects = listed


class FollowedObjects(ObjectCache):
    """One that is followed in a thread of its own, until it is closed."""

    def __init__(self, follow: Informer, wake: Callable[[], None], keep: Callable[[Object], Object]) -> None:
        super().__init__(wake, keep)
        self._follow = follow
        self._thread = threading.Thread(target=self._run, name="reboot-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._follow.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            for change in self._follow:
                self.take(change)
                del change  # the next one may be long in coming
        except KubeError:
            # A selector that the server refuses: every look is a request then.
            pass
        self.take(Change(EventType.AWAY))


def _is_older(found: Object, known: Object | None) -> bool:
    if known is None:
        return False
    new, old = _version(found), _version(known)
    return new.isdigit() and old.isdigit() and int(new) < int(old)


def _version(found: Object) -> str:
    return str(found.get("metadata", {}).get("resourceVersion", ""))
