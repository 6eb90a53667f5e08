"""Keeps the Node showing what it should: one reader, one writer, and nothing written that stands there already.

Only our own annotations, our label, our conditions (merged by type) and our taint are ever in a patch, so those of
others are not changed. What another client removes or changes is restored, ever more slowly while that continues. It
refuses to wait in the caller's thread, and to let an Event that cannot be delivered hold up the Node.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent import annotations as keys
from agent.errors import KubeError
from agent.event_reasons import Reason
from agent.model import Condition
from agent.report.api import KubeReport
from agent.report.compliance import ComplianceStatus
from agent.report.events import Event, Recorder, Regarding
from agent.report.node_status import HEARTBEAT_SECONDS, NodeView, condition_body
from agent.text import parse_rfc3339

_WRITE_EVERY_SECONDS = 0.5
_FLUSH_LOOK_SECONDS = 0.01
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 30.0
# A client that keeps removing our annotations must not cause a conflict at full speed.
_FIRST_REPAIR_SECONDS, _LONGEST_REPAIR_SECONDS = 0.5, 300.0
_PEACE_SECONDS = 600.0
_HEARTBEAT_RETRY_SECONDS = 60.0
_CLOCK_SLACK_SECONDS = 60.0
_TRANSITIONS = {
    ComplianceStatus.HARDENED.value: Reason.NODE_HARDENED,
    ComplianceStatus.NON_COMPLIANT.value: Reason.NODE_NON_COMPLIANT,
    ComplianceStatus.FAILED.value: Reason.HARDENING_FAILED,
}


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The part of the Node that the publisher reads."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    uid: str = ""
    resource_version: str = ""

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> NodeSnapshot:
        """Our parts of a Node object; a Node carries much more, which is not kept."""
        metadata = node.get("metadata") or {}
        ours = (keys.CONDITION_HARDENED, keys.CONDITION_REBOOT, keys.CONDITION_POLICY)
        return cls(
            annotations=_ours(metadata.get("annotations")),
            labels=_ours(metadata.get("labels")),
            conditions={
                str(one["type"]): dict(one)
                for one in (node.get("status") or {}).get("conditions") or []
                if one.get("type") in ours
            },
            taints=tuple((node.get("spec") or {}).get("taints") or []),
            uid=str(metadata.get("uid", "")),
            resource_version=str(metadata.get("resourceVersion", "")),
        )

    @property
    def heartbeat(self) -> float:
        """When an agent last reported that it works, in epoch seconds; 0 for never."""
        try:
            return parse_rfc3339(str(self.conditions.get(keys.CONDITION_HARDENED, {}).get("lastHeartbeatTime", "")))
        except ValueError:
            return 0.0

    def is_older_than(self, other: NodeSnapshot) -> bool:
        """Whether this is certainly an earlier look at the same Node.

        Resource versions of one object are decimal numbers that grow; what is not is never called older.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
        """
        mine, theirs = self.resource_version, other.resource_version
        comparable = self.uid == other.uid and mine.isdecimal() and theirs.isdecimal()
        return comparable and int(mine) < int(theirs)


class NodePublisher:
    """Publishes from a thread of its own. `offer`, `event` and `on_node_event` return immediately, in any thread."""

    def __init__(
        self, api: KubeReport, recorder: Recorder, node: str, *, wall: Callable[[], float], stop: threading.Event,
        clock: Callable[[], float] = time.monotonic, alive: Callable[[], bool] = lambda: True,
        on_heartbeat: Callable[[float], object] = lambda _at: None,
    ) -> None:  # fmt: skip
        """wall: epoch seconds. stop: ends `run`. clock: monotonic seconds.

        alive: whether passes over the node are made; without them the Node gets no heartbeat. on_heartbeat: gets the
        heartbeat that the Node shows, in epoch seconds.
        """
        self._api, self._recorder, self._node, self._wall, self._stop = api, recorder, node, wall, stop
        self._clock, self._alive, self._on_heartbeat = clock, alive, on_heartbeat
        # Spread by name: a roll-out of the DaemonSet must not make all nodes write in the same minute of each hour.
        self._beat_every = HEARTBEAT_SECONDS * (1 + zlib.crc32(node.encode()) % 100 / 1000)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._offered = threading.Event()
        self._parts: dict[str, NodeView] = {}
        self._shown: NodeSnapshot | None = None
        self._absent = False
        self._status_before: tuple[str | None] | None = None  # that a patch replaces, until the Node shows the new one
        self._node_turn = _Schedule(clock, _FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._events_turn = _Schedule(clock, _FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._repair_turn = _Schedule(clock, _FIRST_REPAIR_SECONDS, _LONGEST_REPAIR_SECONDS)
        self._log = structlog.get_logger()

    def offer(self, part: str, shown: NodeView) -> None:
        """What the Node should show of one part of the agent's work, in place of what was offered for it before."""
        with self._lock:
            if self._parts.get(part) == shown:
                return
            self._parts[part] = shown
        self._offered.set()
        self._wake.set()

    def event(self, reason: Reason, message: str, regarding: Regarding | None = None) -> None:
        """Records an Event, on the Node unless it is about something else."""
        self.record(Event(regarding or Regarding.node(self._node), reason, message))

    def record(self, event: Event) -> None:
        """Records an Event as it is."""
        self._recorder.record(event)
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Waits until every Event so far is delivered or given up, so many seconds at most; whether that is so."""
        ends = self._clock() + seconds
        while self._recorder.waiting and self._clock() < ends and not self._stop.is_set():
            self._hurry.set()
            self._stop.wait(_FLUSH_LOOK_SECONDS)
        return not self._recorder.waiting

    def withdraw(self, part: str) -> None:
        """Leaves what was offered for a part as the Node shows it, until it is offered again: its owner writes it."""
        with self._lock:
            self._parts.pop(part, None)

    def on_node_event(self, node: Mapping[str, Any], *, listed: bool = False) -> None:
        """The Node as a watch showed it. Wakes the writer only when something of ours is not as it should be.

        listed: it is what the API server has now, whatever was seen before (it may have been restored from a backup).
        """
        with self._lock:
            was_absent, self._absent = self._absent, False
            if listed or was_absent:
                self._shown = None
        shown = self._take(node)
        if was_absent:
            self._offered.set()  # all of it is news to this Node
        if self._differences(shown).any:
            self._wake.set()

    def on_node_deleted(self) -> None:
        """There is no such Node, yet or any more: nothing is written until one was seen."""
        with self._lock:
            was_absent, self._absent, self._shown = self._absent, True, None
        if not was_absent:
            self._log.warning("node_not_found", next_step="waiting for the kubelet to register it")

    def invalidate(self) -> None:
        """What the Node shows may be anything by now: it is read before the next write."""
        with self._lock:
            self._absent, self._shown = False, None

    def stop(self) -> None:
        """Ends `run`; the event that was given has to be set too."""
        self._wake.set()
        self._hurry.set()

    def run(self) -> None:
        """Writes until stopped: when something was offered, and again later when the API server did not take it."""
        while True:
            self._pause()
            self._wake.clear()
            if self._stop.is_set():  # after the clear: `stop` may have come during the pause
                return
            self._wake.wait(self.turn())

    def _pause(self) -> None:
        """Gathers what changes together into one write; Events that a caller waits for are sent meanwhile."""
        ends = self._clock() + _WRITE_EVERY_SECONDS
        while (left := ends - self._clock()) > 0 and not self._stop.is_set():
            if self._hurry.wait(left):
                self._hurry.clear()
                self._deliver()

    def turn(self) -> float | None:
        """Writes what is to be written and may be now; seconds until there is more to do, None for nothing."""
        waits = []
        offered = self._offered.is_set()
        if not self._node_turn.is_due:
            waits.append(self._node_turn.left_seconds)
        elif not offered and not self._repair_turn.is_due:
            waits.append(self._repair_turn.left_seconds)
        else:
            self._offered.clear()
            try:
                wrote = self._reconcile(offered)
                self._node_turn.reset()
            except KubeError as error:
                self._offered.set()
                self.invalidate()  # whatever was read may no longer be so
                self._node_turn.defer()
                waits.append(self._node_turn.left_seconds)
                self._log.warning("node_update_failed", error=str(error), retry_seconds=waits[-1])
            else:
                if wrote and not offered:
                    self._repair_turn.defer(forget_after=_PEACE_SECONDS)
        self._deliver()
        if self._recorder.waiting:
            waits.append(self._events_turn.left_seconds)
        if not waits and self._shown is not None:
            waits.append(max(self._beat_every - self._heartbeat_age(self._shown), _HEARTBEAT_RETRY_SECONDS))
        return min(waits, default=None)

    def _deliver(self) -> None:
        if self._recorder.waiting and self._events_turn.is_due:
            if self._recorder.deliver():
                self._events_turn.reset()
            else:
                self._events_turn.defer()

    def _reconcile(self, offered: bool) -> bool:
        """Makes the Node show what was offered; True when something had to be written. Raises KubeError.

        offered: there is news. Without, a Node out of sight is not read: the watch will show it.
        """
        with self._lock:
            if not self._parts or self._absent:
                return False
            shown = self._shown
        if shown is None:
            if not offered:
                return False
            shown = self._take(self._api.read())
        missing = self._differences(shown)
        if missing.annotations or missing.labels or missing.conditions:
            if keys.STATUS in missing.annotations:
                self._status_before = (shown.annotations.get(keys.STATUS),)
            shown = self._take(self._api.patch(missing.annotations, missing.labels, missing.conditions))
        self._tell_transition(shown)
        if missing.taint:
            left = [taint for taint in shown.taints if taint.get("key") != keys.TAINT]
            self._take(self._api.replace_taints(left, shown.resource_version))
            status, summary = (shown.annotations.get(key, "") for key in (keys.STATUS, keys.SUMMARY))
            self.event(Reason.STARTUP_TAINT_REMOVED, f"removed the taint {keys.TAINT}; {status}: {summary}")
        return missing.any

    def _take(self, node: Mapping[str, Any]) -> NodeSnapshot:
        """The newest version of the Node: a response may arrive after a watch has shown a later change."""
        shown = NodeSnapshot.of(node)
        with self._lock:
            if self._shown is None or not shown.is_older_than(self._shown):
                self._shown = shown
                self._on_heartbeat(shown.heartbeat)
            return self._shown

    def _heartbeat_age(self, shown: NodeSnapshot) -> float:
        """Seconds since the heartbeat; one from the future, of a clock that was set back, is too old."""
        age = self._wall() - shown.heartbeat
        return age if age > -_CLOCK_SLACK_SECONDS else math.inf

    def _tell_transition(self, shown: NodeSnapshot) -> None:
        """Once the Node shows it: the answer to the patch that wrote it may have been lost."""
        now, (before,) = shown.annotations.get(keys.STATUS, ""), self._status_before or ("",)
        if self._status_before is not None and now != before and now in _TRANSITIONS:
            summary = shown.annotations.get(keys.SUMMARY, "")
            self.event(_TRANSITIONS[now], f"{before or 'new'} -> {now}. {summary}".strip())
        self._status_before = None

    def _differences(self, shown: NodeSnapshot) -> _Missing:
        with self._lock:
            desired = NodeView()
            for part in self._parts.values():
                desired = part.over(desired)
        annotations = {key: text for key, text in desired.annotations.items() if shown.annotations.get(key) != text}
        labels = {key: text for key, text in desired.labels.items() if shown.labels.get(key) != text}
        is_due = any(one.type == keys.CONDITION_HARDENED for one in desired.conditions) and (
            self._heartbeat_age(shown) >= self._beat_every and self._alive()
        )
        is_same = all(_stands(one, shown.conditions.get(one.type)) for one in desired.conditions)
        # One request has all of it: whatever is written anyway carries the heartbeat.
        conditions = desired.conditions if annotations or labels or is_due or not is_same else ()
        return _Missing(
            annotations=annotations,
            labels=labels,
            conditions=[condition_body(one, shown.conditions.get(one.type), self._wall()) for one in conditions],
            taint=desired.lift_taint and any(taint.get("key") == keys.TAINT for taint in shown.taints),
        )


class _Schedule:
    """When something may be done again: immediately, or after delays that double."""

    def __init__(self, clock: Callable[[], float], first_seconds: float, longest_seconds: float) -> None:
        self._clock, self._first, self._longest = clock, first_seconds, longest_seconds
        self._delay, self._due = first_seconds, -math.inf

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._due

    @property
    def left_seconds(self) -> float:
        return max(self._due - self._clock(), 0.0)

    def defer(self, *, forget_after: float = math.inf) -> None:
        """The next time is later. forget_after: seconds of quiet after which the delays start again."""
        now = self._clock()
        if now - self._due > forget_after:
            self._delay = self._first
        self._due = now + self._delay
        self._delay = min(self._delay * 2, self._longest)

    def reset(self) -> None:
        self._delay, self._due = self._first, -math.inf


@dataclass(frozen=True, slots=True)
class _Missing:
    annotations: dict[str, str | None]
    labels: dict[str, str | None]
    conditions: list[dict[str, str]]
    taint: bool

    @property
    def any(self) -> bool:
        return bool(self.annotations or self.labels or self.conditions or self.taint)


def _ours(found: Mapping[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (found or {}).items() if key.startswith(keys.PREFIX)}


def _stands(desired: Condition, there: Mapping[str, str] | None) -> bool:
    return there is not None and (there.get("status"), there.get("reason"), there.get("message")) == (
        desired.status,
        desired.reason,
        desired.message,
    )
