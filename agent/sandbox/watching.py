"""Watches: from a revision or from now, with selectors, bookmarks, initial events and the 410 that ends them.

An event is sent as the watch cache sends it: an object that no longer matches the selectors is DELETED with its last
matching state, one that begins to match is ADDED. Source: apiserver pkg/storage/cacher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from agent.sandbox import status_errors
from agent.sandbox.catalog import Resource
from agent.sandbox.listing import bad_revision
from agent.sandbox.selectors import Filter, read_filter
from agent.sandbox.status_errors import ApiError, Object, encode
from agent.sandbox.store import Change, ChangeType, Item, Store, TooOldError
from agent.sandbox.tables import partial, table

QUEUE_LIMIT = 10_000
DEFAULT_TIMEOUT_SECONDS = 2400.0
_BOOKMARK_BEFORE_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The query of a watch. ``revision`` is empty for "whatever is now"."""

    filter: Filter
    revision: str = ""
    bookmarks: bool = False
    initial_events: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    shape: str = ""


def read_options(query: Mapping[str, str], resource: Resource, shape: str) -> WatchOptions:
    """The options of a query. Raises ApiError: 400."""
    revision = query.get("resourceVersion", "")
    if revision and not revision.isdecimal():
        raise ApiError(500, "", bad_revision(revision), details=False)
    timeout = query.get("timeoutSeconds", "")
    if timeout and not timeout.isdecimal():
        raise status_errors.bad_request(f'strconv.ParseInt: parsing "{timeout}": invalid syntax')
    return WatchOptions(
        read_filter(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource),
        revision,
        query.get("allowWatchBookmarks", "").lower() in ("true", "1"),
        query.get("sendInitialEvents", "").lower() in ("true", "1"),
        float(timeout) if timeout and timeout != "0" else DEFAULT_TIMEOUT_SECONDS,
        shape,
    )


class Watch:
    """One watch of one client: it gathers changes from the moment it is made and writes them out when run."""

    def __init__(self, store: Store, resource: Resource, target: tuple[str, str], options: WatchOptions) -> None:
        """``target`` is a namespace and a name, each empty for all. Changes are gathered from here on."""
        self._store = store
        self._resource = resource
        self._namespace, self._name = target
        self._options = options
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._headed = True
        self._start = store.revision
        self._stop = store.listen(resource, self._heard)

    def _heard(self, change: Change) -> None:
        if self._concerns(change):
            if self._queue.qsize() >= QUEUE_LIMIT:
                self.cut()
            else:
                self._queue.put_nowait(change)

    def cut(self) -> None:
        """End the watch from the server's side."""
        self._queue.put_nowait(None)

    def close(self) -> None:
        """Hear nothing more."""
        self._stop()

    def _concerns(self, change: Change) -> bool:
        namespace, name = change.key
        return (not self._namespace or namespace == self._namespace) and (not self._name or name == self._name)

    def backlog(self, now: datetime) -> Iterator[bytes]:
        """What the client has to hear before what happens from now on.

        Raises TooOldError: the revision is out of the window.
        """
        options = self._options
        if options.initial_events or options.revision in ("", "0"):
            for _, item in self._store.scan(self._resource, self._namespace):
                if (not self._name or item.meta["name"] == self._name) and options.filter.matches(item.obj):
                    yield self._line(ChangeType.ADDED.value, item, now)
            if options.initial_events and options.bookmarks:
                yield self._bookmark(self._start, initial=True)
            return
        for change in self._store.since(self._resource, int(options.revision)):
            if self._concerns(change) and change.revision <= self._start:
                yield from self._tell(change, now)

    def _tell(self, change: Change, now: datetime) -> Iterator[bytes]:
        matches = self._options.filter.matches
        before = change.previous is not None and matches(change.previous.obj)
        after = change.type is not ChangeType.DELETED and matches(change.item.obj)
        if after:
            yield self._line((ChangeType.MODIFIED if before else ChangeType.ADDED).value, change.item, now)
        elif before and change.previous is not None:
            last = change.previous
            meta = {**last.meta, "resourceVersion": str(change.revision)}
            yield self._line(ChangeType.DELETED.value, Item({**last.obj, "metadata": meta}, change.revision), now)

    def _line(self, kind: str, item: Item, now: datetime) -> bytes:
        if self._options.shape == "Table":
            meta: Object = {"resourceVersion": item.meta["resourceVersion"]}
            body = encode(table(self._resource, [item], meta, now, headed=self._headed))
            self._headed = False
        elif self._options.shape:
            body = encode(partial(item))
        else:
            body = item.full(self._resource)
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)

    def _bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        meta: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind, version = self._resource.kind, self._resource.api_version
        if self._options.shape:
            kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
        body = {"kind": kind, "apiVersion": version, "metadata": meta}
        return encode({"type": "BOOKMARK", "object": body}) + b"\n"

    async def run(
        self, out: web.StreamResponse, now: Callable[[], datetime], bookmark_seconds: float, patience: float | None
    ) -> None:
        """Write events until the timeout, the client's leaving, a cut, or ``patience`` seconds (a fault) are over."""
        try:
            lines = list(self.backlog(now()))
        except TooOldError:
            await out.write(encode({"type": "ERROR", "object": too_old(self._options.revision).body()}) + b"\n")
            return
        if lines:
            await out.write(b"".join(lines))
        loop = asyncio.get_running_loop()
        end = loop.time() + min(self._options.timeout_seconds, patience if patience is not None else 1e9)
        bookmark_at = loop.time() + bookmark_seconds
        while (left := end - loop.time()) > 0:
            wait = left
            if self._options.bookmarks:
                if loop.time() >= bookmark_at:
                    await out.write(self._bookmark(self._store.revision))
                    bookmark_at = loop.time() + bookmark_seconds
                last_call = end - _BOOKMARK_BEFORE_END_SECONDS
                if loop.time() < last_call < bookmark_at:
                    bookmark_at = last_call
                wait = min(left, bookmark_at - loop.time())
            try:
                change = await asyncio.wait_for(self._queue.get(), max(wait, 0.001))
            except TimeoutError:
                continue
            if change is None:
                return
            for line in self._tell(change, now()):
                await out.write(line)


def too_old(revision: str) -> ApiError:
    """The 410 of a watch whose revision has left the window."""
    return status_errors.expired(f"too old resource version: {revision}")
