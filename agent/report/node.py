"""Keeps the Node showing what it should: one reader, one writer, and nothing written that stands there already.

Only our own annotations, our label, our conditions (merged by type) and our taint are ever in a patch, so nobody else's
are touched. What somebody takes away or alters comes back. It refuses to wait in the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from agent.errors import KubeError
from agent.reasons import Reason
from agent.report import view
from agent.report.events import Event, Recorder, Regarding
from agent.report.view import Condition, NodeView, Standing

# Between two writes: somebody who keeps taking our annotations away must not become a fight at full speed.
_WRITE_EVERY_SECONDS = 0.5
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 30.0
_TRANSITIONS = {
    Standing.HARDENED.value: Reason.NODE_HARDENED,
    Standing.DRIFTED.value: Reason.NODE_DRIFTED,
    Standing.FAILED.value: Reason.HARDENING_FAILED,
}


class NodeApi(Protocol):
    """The agent's own Node. Every call answers the Node as it is afterwards and raises KubeError."""

    def read(self) -> Mapping[str, Any]:
        """The Node."""

    def patch_metadata(
        self, annotations: Mapping[str, str | None], labels: Mapping[str, str | None]
    ) -> Mapping[str, Any]:
        """Merges these keys; None takes one away."""

    def patch_conditions(self, conditions: list[dict[str, str]]) -> Mapping[str, Any]:
        """Merges conditions by type, on the status subresource."""

    def replace_taints(self, taints: list[Mapping[str, Any]], resource_version: str) -> Mapping[str, Any]:
        """Replaces the taints if the Node is still at that version; raises Conflict otherwise."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What of the Node concerns this room."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    resource_version: str = ""

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Shown:
        """Our parts of a Node object; a Node carries much more, which is not kept."""
        metadata = node.get("metadata") or {}
        ours = (view.CONDITION_HARDENED, view.CONDITION_REBOOT)
        return cls(
            annotations=_ours(metadata.get("annotations")),
            labels=_ours(metadata.get("labels")),
            conditions={
                str(one["type"]): dict(one)
                for one in (node.get("status") or {}).get("conditions") or []
                if one.get("type") in ours
            },
            taints=tuple((node.get("spec") or {}).get("taints") or []),
            resource_version=str(metadata.get("resourceVersion", "")),
        )


class NodePublisher:
    """Publishes from a thread of its own. `offer`, `event` and `saw` return at once, in any thread."""

    def __init__(
        self, api: NodeApi, recorder: Recorder, node: str, *, wall: Callable[[], float], stop: threading.Event
    ) -> None:
        """wall: epoch seconds. stop: ends `run`."""
        self._api, self._recorder, self._node, self._wall, self._stop = api, recorder, node, wall, stop
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._parts: dict[str, NodeView] = {}
        self._shown: Shown | None = None
        self._log = structlog.get_logger()

    def offer(self, part: str, shown: NodeView) -> None:
        """What the Node should show of one part of the agent's work, in place of what was offered for it before."""
        with self._lock:
            if self._parts.get(part) == shown:
                return
            self._parts[part] = shown
        self._wake.set()

    def event(self, reason: Reason, message: str, regarding: Regarding | None = None) -> None:
        """Records an Event, on the Node unless it is about something else."""
        self.record(Event(regarding or Regarding.node(self._node), reason, message))

    def record(self, event: Event) -> None:
        """Records an Event as it is."""
        self._recorder.record(event)
        self._wake.set()

    def saw(self, node: Mapping[str, Any]) -> None:
        """The Node as a watch showed it. Wakes the writer only when something of ours is not as it should be."""
        shown = Shown.of(node)
        with self._lock:
            self._shown = shown
        if self._differences(shown).any:
            self._wake.set()

    def stop(self) -> None:
        """Ends `run`; the event that was given has to be set too."""
        self._wake.set()

    def run(self) -> None:
        """Writes until stopped: when something was offered, and again later when the API server did not take it."""
        retry = _FIRST_RETRY_SECONDS
        while not self._stop.is_set():
            self._wake.clear()
            try:
                done = self._reconcile() and self._recorder.deliver()
            except KubeError as error:
                self._log.warning("node_not_written", error=str(error), retry_seconds=retry)
                with self._lock:
                    self._shown = None  # whatever was read may no longer be so
                done = False
            if done:
                retry = _FIRST_RETRY_SECONDS
                self._stop.wait(_WRITE_EVERY_SECONDS)
                self._wake.wait()
            else:
                self._stop.wait(retry)
                retry = min(retry * 2, _LONGEST_RETRY_SECONDS)

    def _reconcile(self) -> bool:
        """Makes the Node show what was offered; True when it does. Raises KubeError."""
        with self._lock:
            if not self._parts:
                return True
            shown = self._shown
        if shown is None:
            shown = self._take(self._api.read())
        missing = self._differences(shown)
        if missing.annotations or missing.labels:
            before = shown.annotations.get(view.STATUS)
            shown = self._take(self._api.patch_metadata(missing.annotations, missing.labels))
            self._tell_transition(before, missing.annotations)
        if missing.conditions:
            shown = self._take(self._api.patch_conditions(missing.conditions))
        if missing.taint:
            left = [taint for taint in shown.taints if taint.get("key") != view.TAINT]
            self._take(self._api.replace_taints(left, shown.resource_version))
            self.event(Reason.STARTUP_TAINT_LIFTED, f"verified: took the taint {view.TAINT} away")
        return True

    def _take(self, node: Mapping[str, Any]) -> Shown:
        shown = Shown.of(node)
        with self._lock:
            self._shown = shown
        return shown

    def _tell_transition(self, before: str | None, written: Mapping[str, str | None]) -> None:
        now = written.get(view.STATUS)
        if now is None or now == before or now not in _TRANSITIONS:
            return
        told = written.get(view.SUMMARY) or ""
        self.event(_TRANSITIONS[now], f"{before or 'new'} -> {now}. {told}".strip())

    def _differences(self, shown: Shown) -> _Missing:
        with self._lock:
            wanted = NodeView()
            for part in self._parts.values():
                wanted = part.over(wanted)
        now = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _Missing(
            annotations={
                key: value for key, value in wanted.annotations.items() if shown.annotations.get(key) != value
            },
            labels={key: value for key, value in wanted.labels.items() if shown.labels.get(key) != value},
            conditions=[
                _condition(one, shown.conditions.get(one.type), now)
                for one in wanted.conditions
                if not _stands(one, shown.conditions.get(one.type))
            ],
            taint=wanted.lift_taint and any(taint.get("key") == view.TAINT for taint in shown.taints),
        )


@dataclass(frozen=True, slots=True)
class _Missing:
    annotations: dict[str, str | None]
    labels: dict[str, str | None]
    conditions: list[dict[str, str]]
    taint: bool

    @property
    def any(self) -> bool:
        return bool(self.annotations or self.labels or self.conditions or self.taint)


def _ours(keys: Mapping[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (keys or {}).items() if key.startswith(view.PREFIX)}


def _stands(wanted: Condition, there: Mapping[str, str] | None) -> bool:
    return there is not None and (there.get("status"), there.get("reason"), there.get("message")) == (
        wanted.status,
        wanted.reason,
        wanted.message,
    )


def _condition(wanted: Condition, there: Mapping[str, str] | None, now: str) -> dict[str, str]:
    """As the API server takes it. The transition time moves only with the status, as everybody else's does."""
    since = there.get("lastTransitionTime") if there and there.get("status") == wanted.status else None
    return {
        "type": wanted.type,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since or now,
    }
