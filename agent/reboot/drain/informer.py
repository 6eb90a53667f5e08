"""One collection as it is and as it changes, by UID: a list and a watch in a thread that waits.

The drain follows the node's pods, the disruption budgets that refuse it and the volume attachments this way. It refuses
to pass off what is old as what is true: while the API server is away, reading raises its error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from agent.bounded_http import Claim, TooLarge, kept_bytes
from agent.errors import KubeError
from agent.kube import EventType, Informer

T = TypeVar("T")
Object = Mapping[str, Any]


class ResourceInformer(Generic[T]):
    """For one reader; `close` ends the thread. is_over: it has ended, and another has to be started."""

    def __init__(
        self, follow: Informer, parse: Callable[[Object], T | None], on_change: Callable[[str, T | None], None]
    ) -> None:
        """parse: what is kept of an object; None leaves it out.

        on_change: called with a UID and the new value, None for a deleted object, in the informer's own thread and
        only after the first list.
        """
        self._follow = follow
        self._parse = parse
        self._on_change = on_change
        self._changed = threading.Condition()
        self._items: dict[str, T] = {}
        self._arriving: dict[str, T] | None = None
        self._is_synced = False
        self._trouble: KubeError | None = None
        self.is_over = False
        self._claim = Claim()
        self._kept = 0
        self._thread = threading.Thread(target=self._run, name="drain-watch", daemon=True)
        self._thread.start()

    def items(self, wait_seconds: float) -> Mapping[str, T] | None:
        """What is there now; None when the first list has not come within so many seconds. Raises KubeError."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_synced or self._trouble or self.is_over, wait_seconds)
            if self._trouble is not None:
                raise self._trouble
            if self.is_over:
                raise KubeError("the watch has ended and is started again")
            return dict(self._items) if self._is_synced else None

    def close(self) -> None:
        """Ends the watch and its thread."""
        self._follow.close()

    def _run(self) -> None:
        try:
            for change in self._follow:
                with self._changed:
                    changed = self._take(change.seen, change.object, change.error)
                    self._changed.notify_all()
                del change  # the next one may be long in coming
                for uid, item in changed:
                    self._on_change(uid, item)
        except (KubeError, TooLarge) as error:
            self._follow.close()
            with self._changed:
                self._trouble = error if isinstance(error, KubeError) else KubeError(f"too much to keep: {error}")
                self._items, self._arriving = {}, None
                self._claim.hold(0)
        finally:
            with self._changed:
                self.is_over = True
                self._changed.notify_all()

    def _take(self, seen: EventType, found: Object, error: KubeError | None) -> list[tuple[str, T | None]]:
        """Notes one change; returns what is news to the caller."""
        match seen:
            case EventType.LISTING:
                self._arriving = {}
                self._kept = kept_bytes(self._items)
            case EventType.SYNCED:
                before, self._items = self._items, self._arriving or {}
                is_first, self._is_synced = not self._is_synced, True
                self._arriving, self._trouble = None, None
                self._kept -= kept_bytes(before)
                if not is_first:
                    return [(uid, self._items.get(uid)) for uid in before.keys() | self._items.keys()]
            case EventType.AWAY:
                self._trouble = error
            case EventType.DELETED:
                return self._put(_uid(found), None)
            case EventType.ADDED | EventType.MODIFIED:
                return self._put(_uid(found), self._parse(found))
        return []

    def _put(self, uid: str, item: T | None) -> list[tuple[str, T | None]]:
        where = self._items if self._arriving is None else self._arriving
        self._kept += kept_bytes(item) - kept_bytes(where.get(uid))
        self._claim.hold(self._kept)
        if item is not None:
            where[uid] = item
        elif where.pop(uid, None) is None:
            return []
        return [] if self._arriving is not None else [(uid, item)]


def _uid(found: Object) -> str:
    meta = found.get("metadata")
    return str(meta.get("uid", "")) if isinstance(meta, dict) else ""
