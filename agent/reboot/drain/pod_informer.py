"""The node's pods as they are and as they change: one list and one watch, in a thread that waits.

It refuses to pass off what is old as what is true: while the API server is away, asking raises its error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from agent.errors import KubeError
from agent.kube import PODS, EventType, Informer, Kube, field_selector
from agent.reboot.drain.filters import Pod, pod_of


class PodWatch:
    """Pods of one node by UID. For one reader; `close` ends the thread."""

    def __init__(self, kube: Kube, node: str, selector: str, on_gone: Callable[[str], None]) -> None:
        """selector: of labels, empty for all pods. on_gone: told a pod's UID, in the watch's own thread."""
        self._follow: Informer = kube.follow(
            PODS, label_selector=selector, field_selector=field_selector({"spec.nodeName": node})
        )
        self._on_gone = on_gone
        self._changed = threading.Condition()
        self._pods: dict[str, Pod] = {}
        self._arriving: dict[str, Pod] | None = None
        self._is_synced = False
        self._trouble: KubeError | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="drain-watch", daemon=True)
        self._thread.start()

    def pods(self, wait_seconds: float) -> Mapping[str, Pod] | None:
        """What is there now; None when the first list has not come within so many seconds. Raises KubeError."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_synced or self._trouble or self._is_over, wait_seconds)
            if self._trouble is not None:
                raise self._trouble
            if self._is_over:
                raise KubeError("the watch on the node's pods has ended; it is begun anew")
            return dict(self._pods) if self._is_synced else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended and another has to be begun."""
        return self._is_over

    def close(self) -> None:
        """Ends the watch and its thread."""
        self._follow.close()

    def _run(self) -> None:
        try:
            for change in self._follow:
                with self._changed:
                    self._take(change.seen, change.object, change.error)
                    self._changed.notify_all()
                if change.seen is EventType.DELETED:
                    self._on_gone(_uid(change.object))
        except KubeError as error:
            with self._changed:
                self._trouble = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _take(self, seen: EventType, found: Mapping[str, object], error: KubeError | None) -> None:
        match seen:
            case EventType.LISTING:
                self._arriving = {}
            case EventType.SYNCED:
                if self._arriving is not None:
                    self._pods, self._arriving = self._arriving, None
                self._is_synced, self._trouble = True, None
            case EventType.AWAY:
                self._trouble = error
            case EventType.DELETED:
                self._pods.pop(_uid(found), None)
            case EventType.ADDED | EventType.MODIFIED:
                pod = pod_of(found)
                (self._pods if self._arriving is None else self._arriving)[pod.uid] = pod


def _uid(found: Mapping[str, object]) -> str:
    meta = found.get("metadata")
    return str(meta.get("uid", "")) if isinstance(meta, dict) else ""
