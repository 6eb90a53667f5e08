"""Objects, one revision counter, and a bounded window of changes: what etcd and the watch cache are to the real server.

It refuses nothing but the past: a revision that the window no longer reaches is Expired. Validation and
permissions are others' work. Objects in here are never changed in place, so that lists and watches need no copies.
Used from the event loop's thread only.
"""

from __future__ import annotations

import bisect
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agent.sandbox.catalog import Catalog, Resource
from agent.sandbox.status_errors import Object, encode

Key = tuple[str, str]
"""Namespace (empty for cluster-wide resources) and name."""


class TooOldError(Exception):
    """The window of changes starts after the revision that was asked for."""


class ChangeType(Enum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Item:
    """One version of one object, with its JSON kept once it was needed.

    ``body`` has no ``kind`` and ``apiVersion``: items of a list carry none, and a GET adds them first.
    """

    __slots__ = ("_body", "obj", "revision")

    def __init__(self, obj: Object, revision: int) -> None:
        """``obj`` is the store's from here on."""
        self.obj = obj
        self.revision = revision
        self._body: bytes | None = None

    @property
    def meta(self) -> Object:
        """The object's metadata."""
        meta: Object = self.obj["metadata"]
        return meta

    @property
    def body(self) -> bytes:
        """JSON of the object as an item of a list."""
        if self._body is None:
            self._body = encode(self.obj)
        return self._body

    def full(self, resource: Resource) -> bytes:
        """JSON with kind and apiVersion, as GET and watch send it."""
        return b'{"kind":"%s","apiVersion":"%s",%s' % (
            resource.kind.encode(),
            resource.api_version.encode(),
            self.body[1:],
        )

    def copy(self, resource: Resource) -> Object:
        """The object with kind and apiVersion, for whoever changes it."""
        copied: Object = json.loads(self.full(resource))
        return copied


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the history. ``previous`` is None for ADDED; for DELETED ``item`` is the last state."""

    type: ChangeType
    key: Key
    item: Item
    previous: Item | None

    @property
    def revision(self) -> int:
        """When it happened."""
        return self.item.revision


Listener = Callable[[Change], None]


@dataclass(slots=True)
class _Table:
    changes: deque[Change]
    items: dict[Key, Item] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    floor: int = 0
    listeners: list[Listener] = field(default_factory=list)


class Store:
    """The state of the cluster."""

    def __init__(self, catalog: Catalog, window: int) -> None:
        """``window`` is how many changes of one resource can be watched or listed back."""
        self._tables = {resource: _Table(deque(maxlen=window)) for resource in catalog.all}
        self.revision = 1

    def get(self, resource: Resource, key: Key) -> Item | None:
        """The newest version, or None."""
        return self._tables[resource].items.get(key)

    def scan(self, resource: Resource, namespace: str = "", after: Key | None = None) -> Iterator[tuple[Key, Item]]:
        """Keys in order with their items, those behind ``after``; all namespaces when ``namespace`` is empty."""
        table = self._tables[resource]
        keys = table.keys
        start, end = 0, len(keys)
        if namespace:
            start = bisect.bisect_left(keys, (namespace, ""))
            end = bisect.bisect_left(keys, (namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect.bisect_right(keys, after))
        for key in keys[start:end]:
            item = table.items.get(key)
            if item is not None:
                yield key, item

    def commit(self, resource: Resource, obj: Object) -> Item:
        """Store a new version under the next revision; the caller has checked everything."""
        table = self._tables[resource]
        meta: dict[str, Any] = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        previous = table.items.get(key)
        self.revision += 1
        item = Item({**obj, "metadata": {**meta, "resourceVersion": str(self.revision)}}, self.revision)
        if previous is None:
            bisect.insort(table.keys, key)
        table.items[key] = item
        kind = ChangeType.ADDED if previous is None else ChangeType.MODIFIED
        self._tell(table, Change(kind, key, item, previous))
        return item

    def remove(self, resource: Resource, key: Key) -> Item:
        """Take an object out; the DELETED change carries its last state under a new revision."""
        table = self._tables[resource]
        previous = table.items.pop(key)
        table.keys.pop(bisect.bisect_left(table.keys, key))
        self.revision += 1
        meta = {**previous.meta, "resourceVersion": str(self.revision)}
        item = Item({**previous.obj, "metadata": meta}, self.revision)
        self._tell(table, Change(ChangeType.DELETED, key, item, previous))
        return item

    def _tell(self, table: _Table, change: Change) -> None:
        changes = table.changes
        if len(changes) == changes.maxlen:
            table.floor = changes[0].revision
        changes.append(change)
        for listener in tuple(table.listeners):
            listener(change)

    def since(self, resource: Resource, revision: int) -> list[Change]:
        """The changes after ``revision``, oldest first. Raises TooOldError: the window does not reach so far back."""
        table = self._tables[resource]
        if revision < table.floor:
            raise TooOldError(table.floor)
        newer: list[Change] = []
        for change in reversed(table.changes):
            if change.revision <= revision:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def snapshot(self, resource: Resource, revision: int) -> dict[Key, Item]:
        """The objects as they were at ``revision``: what a paged list continues from.

        Raises TooOldError: the window does not reach so far back.
        """
        past = dict(self._tables[resource].items)
        for change in reversed(self.since(resource, revision)):
            if change.previous is None:
                past.pop(change.key, None)
            else:
                past[change.key] = change.previous
        return past

    def listen(self, resource: Resource, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every change from now on; the returned function ends it."""
        listeners = self._tables[resource].listeners
        listeners.append(listener)

        def stop() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return stop

    def compact(self) -> None:
        """Forget the history, as etcd's compaction does: older revisions are Expired from now on."""
        self.revision += 1
        for table in self._tables.values():
            table.changes.clear()
            table.floor = self.revision
