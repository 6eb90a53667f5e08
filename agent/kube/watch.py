"""Watching a collection: one watch that resumes, and an informer (what there is, and what changes) that never gives up.

A watch remembers the last resourceVersion, bookmarks included, and resumes there after an end or a cut. It
refuses to hide a 410 (the caller has missed something and lists again) and to reconnect in a hot loop.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes and #streaming-lists
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.bounded_http import Body, TooLarge, parse_json
from agent.errors import KubeError
from agent.kube.errors import (
    CallFailed,
    Gone,
    Invalid,
    Malformed,
    ResponseTooLarge,
    Unreachable,
    refusal_from,
    text_or_empty,
)
from agent.kube.network_errors import NETWORK, unreachable
from agent.kube.request import Caller, Request
from agent.kube.retry import Backoff, RetryPolicy
from agent.kube.transport import Stream

# Long, because each end costs a request of every node; drawn between half and the whole, so that nodes spread.
_LONGEST_SECONDS = 1800.0
# The server ends a watch itself; a longer silence means that the peer is gone.
_GRACE_SECONDS = 10.0
# A watch that ends sooner than this is followed by a growing delay.
_SHORT_LIFE_SECONDS = 10.0
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0
_NEVER = float("inf")
_NO_STREAMING = frozenset({400, 422, 500})  # an older API server; with an older etcd it is a 500
# Whoever can make objects large hides none behind them: what is too large together is read in parts.
_PAGE_DIVISOR = 4
_NO_EVENT = "an event that is not an object with type and object"


class EventType(StrEnum):
    """What happened to a collection. A watch since a version yields the first three."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    LISTING = "LISTING"  # forget what is known: every object follows as ADDED
    SYNCED = "SYNCED"  # what was yielded is complete; changes follow
    AWAY = "AWAY"  # the API server is not reachable; what is known may be old until the next SYNCED


_CHANGES = {seen.value: seen for seen in (EventType.ADDED, EventType.MODIFIED, EventType.DELETED)}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was seen. object is empty for LISTING, SYNCED and AWAY; error is set for AWAY alone."""

    seen: EventType
    object: dict[str, Any] = field(default_factory=dict)
    error: KubeError | None = None


class _Endable:
    """What one thread iterates, once, until another closes it or the agent is stopping."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._around = caller.around
        self._closed = False
        self._end: Callable[[], None] | None = None  # ends the wait of what is running

    def close(self) -> None:
        """Ends it, from any thread: immediately while it waits for a change, else with its next step."""
        self._closed = True
        end = self._end
        if end is not None:
            end()

    def _is_over(self) -> bool:
        return self._closed or self._around.stop.is_set()


class Watch(_Endable):
    """Changes of a collection since a resourceVersion; iterate it, once. Since an empty one: all that there is first.

    Ends when closed, or when the agent is stopping. Resumes by itself after the server's timeouts and after cuts.
    Raises Gone when the resourceVersion is too old, and CallFailed when it cannot be resumed within the retry policy.
    `resource_version` is where to resume, at any time.
    """

    def __init__(
        self, caller: Caller, request: Callable[[str, int], Request], *, resource_version: str, retry: RetryPolicy
    ) -> None:
        """request: from a resourceVersion and a timeout in seconds to the request."""
        super().__init__(caller)
        self.resource_version = resource_version
        self._request = request
        self._retry = retry

    def __iter__(self) -> Iterator[Change]:
        backoff = Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS, self._around.chance)
        while not self._is_over():
            opened = self._around.clock()
            try:
                is_clean = yield from self._once()
            except CallFailed:
                if self._is_over():
                    return
                raise
            if self._around.clock() - opened >= _SHORT_LIFE_SECONDS:
                backoff.reset()
                if is_clean:
                    continue
            if not self._is_over() and self._around.pause(backoff.next()):
                return

    def _once(self) -> Generator[Change, None, bool]:
        """One request, until the server ends it (True) or it is cut (False)."""
        timeout = round(self._around.chance.uniform(_LONGEST_SECONDS / 2, _LONGEST_SECONDS))
        request = self._request(self.resource_version, timeout)
        answer = self._caller.open(request, self._retry, timeout + _GRACE_SECONDS)
        self._end = answer.cut
        try:
            if not self._closed:
                yield from self._changes(request, lines_of(request, answer, self._caller.server))
        except Unreachable as error:
            if not self._is_over():
                self._around.log.debug("kube_watch_cut", error=str(error))
            return False
        else:
            return True
        finally:
            self._end = None
            answer.close()

    def _changes(self, request: Request, lines: Iterable[Body]) -> Iterator[Change]:
        is_begun = bool(self.resource_version)
        for line in lines:
            event = _event(request, line)  # kept while the object is used: what it takes is accounted
            kind, found = event["type"], event["object"]
            if kind == "ERROR":
                raise refusal_from(request.operation, found, write=False)
            if not is_begun:
                is_begun = True
                yield Change(EventType.LISTING)
            version = _metadata(found).get("resourceVersion")
            if kind in _CHANGES:
                # Noted after it was taken: a caller that breaks off sees it again.
                yield Change(_CHANGES[kind], found)
            elif kind != "BOOKMARK":
                raise Malformed(request.operation, f"an event of type {kind!r:.40}")
            # What there is does not come in the order of its versions: only the end of it is a place to resume at.
            is_initial = not self.resource_version
            if isinstance(version, str) and version and (not is_initial or _ends_initial_events(kind, found)):
                self.resource_version = version
                if is_initial:
                    yield Change(EventType.SYNCED)
            del line, event, found  # before the next one is read
            if self._is_over():
                return


class Informer(_Endable):
    """A collection as it is and as it changes, for as long as the agent runs; iterate it, once.

    Yields LISTING, an ADDED for each object, SYNCED, then changes; all that again after a 410. One request does both
    (a streaming list), and two where the server refuses that: before Kubernetes 1.32, or etcd 3.4.25. A server that is
    away, throttles or refuses is an AWAY with its error; everything is listed again after a delay that grows to half a
    minute, so that SYNCED always means that what was yielded is complete. A mere cut is resumed unseen.
    Ends when closed or when the agent is stopping. Raises Invalid alone: a selector that is wrong stays wrong.
    """

    def __init__(self, caller: Caller, listing: Callable[[], Listing], watch: Callable[[str], Watch]) -> None:
        """watch: from a resourceVersion."""
        super().__init__(caller)
        self._list = listing
        self._watch = watch
        self._heard_at = _NEVER

    def __iter__(self) -> Iterator[Change]:
        backoff = Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS, self._around.chance)
        streams = self._caller.streams_lists
        while not self._is_over():
            retry_after, self._heard_at = None, _NEVER
            try:
                version = "" if streams else (yield from self._all())
                self._caller.streams_lists = streams
                yield from self._changes(version)
            except KubeError as error:
                if self._is_over():
                    return
                if streams and isinstance(error, CallFailed) and error.status in _NO_STREAMING:
                    streams = False  # refused may also be the selector: a list will tell
                    continue
                if isinstance(error, Invalid):
                    raise
                if isinstance(error, Gone):
                    self._around.log.debug("kube_watch_expired", error=str(error))
                else:
                    retry_after = error.retry_after_seconds if isinstance(error, CallFailed) else None
                    self._around.log.warning("api_server_unreachable", error=str(error))
                    yield Change(EventType.AWAY, error=error.with_traceback(None))  # it is kept, the answer is not
            if self._around.clock() - self._heard_at >= _SHORT_LIFE_SECONDS:
                backoff.reset()
            if self._is_over() or self._around.pause(backoff.next(retry_after)):
                return

    def _all(self) -> Generator[Change, None, str]:
        """Everything that there is; its resourceVersion. What is known is forgotten only once an answer is there."""
        listing = self._list()
        for number, page in enumerate(listing.pages()):
            if number == 0:
                yield Change(EventType.LISTING)
            for found in page:
                yield Change(EventType.ADDED, found)
        self._heard_at = self._around.clock()
        yield Change(EventType.SYNCED)
        return listing.resource_version

    def _changes(self, version: str) -> Iterator[Change]:
        running = self._watch(version)
        self._end = running.close
        try:
            if not self._closed:
                for change in running:
                    if change.seen is EventType.SYNCED:
                        self._heard_at = self._around.clock()
                    yield change
        finally:
            self._end = None


class Listing:
    """The objects of a collection, page by page; iterate it, once. Raises CallFailed; Gone when paging took too long.

    `resource_version` is the collection's, known once the first page is there. `remaining` is how many come after the
    last page that was read, None where the server does not count them (it does not under a selector).
    """

    def __init__(self, page: Callable[[str, int], dict[str, Any]], size: int) -> None:
        """page: from a continue token (empty for the first page) and a number of objects to the list object."""
        self._page = page
        self._size = size
        self.resource_version = ""
        self.remaining: int | None = None

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        """The objects, page by page."""
        token = ""
        while True:
            try:
                answer = self._page(token, self._size)
            except ResponseTooLarge:
                if self._size == 1:
                    raise
                self._size = max(1, self._size // _PAGE_DIVISOR)
                continue
            meta = _metadata(answer)
            self.resource_version = text_or_empty(meta.get("resourceVersion")) or self.resource_version
            token = text_or_empty(meta.get("continue"))
            self.remaining = meta.get("remainingItemCount") if token else 0
            found = answer.get("items")
            items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
            yield items
            # Released before the next page is requested, so that two are never held.
            del answer, meta, found, items
            if not token:
                return

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for page in self.pages():
            yield from page


def _ends_initial_events(kind: str, bookmark: dict[str, Any]) -> bool:
    notes = _metadata(bookmark).get("annotations")
    return kind == "BOOKMARK" and isinstance(notes, dict) and notes.get("k8s.io/initial-events-end") == "true"


def _metadata(found: dict[str, Any]) -> dict[str, Any]:
    meta = found.get("metadata")
    return meta if isinstance(meta, dict) else {}


def lines_of(request: Request, answer: Stream, server: str) -> Iterator[Body]:
    """The lines of a running answer, each as soon as it is there. Raises Unreachable, Malformed."""
    line = Body()
    try:
        while chunk := answer.read():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                line.add(end)
                if line:
                    yield line
                line = Body()
            line.add(rest)
    except TooLarge as error:
        raise Malformed(request.operation, str(error)) from None
    except NETWORK as error:
        raise unreachable(request.operation, server, error, write=False) from error
    if line:
        raise Unreachable(request.operation, f"{server}: the connection was cut within a line")


def _event(request: Request, line: Body) -> dict[str, Any]:
    try:
        event = parse_json(line)
    except ValueError as error:
        raise Malformed(request.operation, f"an event: {error}" if isinstance(error, TooLarge) else _NO_EVENT) from None
    if isinstance(event, dict) and isinstance(event.get("type"), str) and isinstance(event.get("object"), dict):
        return event
    raise Malformed(request.operation, _NO_EVENT)
