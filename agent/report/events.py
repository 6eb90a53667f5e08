"""Kubernetes Events: one for each thing that happened, counted up when it happens again.

An Event's name is derived from its content, so a repeated one is the same object even after a restart of the agent.
An Event that cannot be delivered never fails the work: it is tried again a few times, then counted and dropped;
immediately where another attempt does not help (RBAC refuses, the namespace is terminating).
https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from agent.errors import KubeError
from agent.event_reasons import Reason, Urgency
from agent.kube.errors import Conflict, NotFound, Refused, ServerError, TooManyRequests, Unauthorized
from agent.report.api import KubeReport
from agent.report.node_status import cut
from agent.report.notify.message import Delivered
from agent.text import format_rfc3339

_COMPONENT = "node-hardening-agent"
_MESSAGE_CHARACTERS = 1024  # the API server's own limit
_NAME_CHARACTERS = 253
_DIGEST_CHARACTERS = 16
_QUEUE = 200
_REMEMBERED = 256
_TRIES = 5
# A cause that flaps every second must not write every second; what is lost is only the exact count.
_COUNT_EVERY_SECONDS = 30.0
_COUNT_LIMIT = 2**31 - 1  # int32 in the API: a larger one is refused
_TTL_SECONDS = 3600.0  # --event-ttl: after this the API server has forgotten the object


@dataclass(frozen=True, slots=True)
class Regarding:
    """What an Event is about. For a Node, uid is the node's *name*: that is how `kubectl describe node` finds it."""

    kind: str
    name: str
    uid: str
    namespace: str = ""
    api_version: str = "v1"

    @classmethod
    def node(cls, name: str) -> Regarding:
        """The Node, as the kubelet writes it too."""
        return cls("Node", name, name)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. The reason determines its urgency.

    key: where it is not empty, Events with equal keys are one Event, created once however often it is recorded.
    """

    regarding: Regarding
    reason: Reason
    message: str
    key: str = ""


@dataclass(slots=True)
class _Known:
    count: int
    written: float
    pending: int = 0


@dataclass(slots=True)
class _Waiting:
    event: Event
    when: float
    tries: int = 0


class Recorder:
    """Queues Events, from any thread; `deliver` sends them, from the reporting thread."""

    def __init__(
        self,
        api: KubeReport,
        node: str,
        clock: Callable[[], float],
        dropped: Callable[[], None],
        delivered: Delivered | None = None,
    ) -> None:
        """clock: epoch seconds. dropped: called for each Event that is dropped. delivered: keyed Events so far."""
        self._delivered = set[str]() if delivered is None else delivered
        self._api = api
        self._node = node
        self._clock = clock
        self._dropped = dropped
        self._queue: deque[_Waiting] = deque()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._log = structlog.get_logger()

    def record(self, event: Event) -> None:
        """Queues it. When the queue is full the oldest is dropped."""
        if len(self._queue) >= _QUEUE:
            self._queue.popleft()
            self._dropped()
        self._queue.append(_Waiting(event, self._clock()))

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    def deliver(self) -> bool:
        """Sends what is queued, oldest first; False when the API server did not accept one: try later."""
        while self._queue:
            first = self._queue[0]
            try:
                self._write(first)
            except KubeError as error:
                first.tries += 1
                dropped = first.tries >= _TRIES or _is_final(error)
                reason = first.event.reason.value
                self._log.warning("event_delivery_failed", reason=reason, error=str(error), dropped=dropped)
                if not dropped:
                    return False
                self._dropped()
            # Another thread may have dropped it meanwhile.
            if self._queue and self._queue[0] is first:
                self._queue.popleft()
        return True

    def _write(self, waiting: _Waiting) -> None:
        event = waiting.event
        name = self._name(event)
        namespace = event.regarding.namespace or "default"
        known = self._known.get(name)
        if event.key:
            self._write_once(waiting, name, namespace)
            return
        if known and waiting.when - known.written < _TTL_SECONDS:
            if waiting.when - known.written < _COUNT_EVERY_SECONDS:
                known.pending += 1
                return
            with suppress(NotFound):  # it has expired, or was deleted
                self._count(namespace, name, known.count + known.pending + 1, waiting.when)
                return
        if self._api.create_event(namespace, self._body(waiting, name, namespace)):
            self._remember(name, _Known(1, waiting.when))
        else:
            # Ours from before a restart: an empty patch changes nothing and answers with the count.
            # Where it has expired meanwhile (NotFound), the next attempt creates it.
            before = self._api.patch_event(namespace, name, {}).get("count")
            self._count(namespace, name, (before if isinstance(before, int) and before > 0 else 1) + 1, waiting.when)

    def _write_once(self, waiting: _Waiting, name: str, namespace: str) -> None:
        """Not even asked for again after a restart; one that was created without an answer is there already."""
        digest = name[-_DIGEST_CHARACTERS:]
        if digest not in self._delivered:
            self._api.create_event(namespace, self._body(waiting, name, namespace))
            self._delivered.add(digest)

    def _count(self, namespace: str, name: str, total: int, when: float) -> None:
        """Writes the count. Raises NotFound when the Event has gone meanwhile."""
        total = min(total, _COUNT_LIMIT)
        self._api.patch_event(namespace, name, {"count": total, "lastTimestamp": format_rfc3339(when)})
        self._remember(name, _Known(total, when))

    def _remember(self, name: str, known: _Known) -> None:
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _name(self, event: Event) -> str:
        about = event.regarding
        identity = repr((about, event.reason.value, event.key or event.message, self._node))
        short = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        return f"{about.name[: _NAME_CHARACTERS - _DIGEST_CHARACTERS - 1].rstrip('.-')}.{short}"

    def _body(self, waiting: _Waiting, name: str, namespace: str) -> dict[str, Any]:
        event, about = waiting.event, waiting.event.regarding
        involved = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid}
        if about.namespace:
            involved["namespace"] = about.namespace
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": event.reason.value,
            "message": cut(event.message, _MESSAGE_CHARACTERS),
            "type": "Normal" if event.reason.urgency is Urgency.NORMAL else "Warning",
            "count": 1,
            "firstTimestamp": format_rfc3339(waiting.when),
            "lastTimestamp": format_rfc3339(waiting.when),
            "source": {"component": _COMPONENT, "host": self._node},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._node,
        }


def _is_final(error: KubeError) -> bool:
    """Whether every later attempt will be refused as well."""
    later = Unauthorized | Conflict | TooManyRequests | ServerError
    expired = isinstance(error, NotFound) and error.operation.verb == "patch"  # the next attempt creates the Event
    return isinstance(error, Refused) and not isinstance(error, later) and not expired
