"""The thread of `denials: {mode: observe}`: waits for audit records, adds them up, offers what the Node should show.

It sleeps in poll until a record arrives. It refuses to report "no denials" before a record of its own has arrived, and
to hide what was lost: every gap in the kernel's numbers is counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from agent import event_reasons
from agent.annotations import DENIALS, RECORDINGS
from agent.config.node_sections import Denials
from agent.denials import records, syscall_names
from agent.denials.announcer import Announcer
from agent.denials.attribution import NODE, UNKNOWN, ContainerNames, Names, Place, Processes
from agent.denials.document import Reason, State, Summary, encode
from agent.denials.netlink import AuditSocket, AuditState, AuditUnavailable, ProcessEvents, audit_state
from agent.denials.own_record import OwnRecord, log_one_call
from agent.denials.recording import Recorder
from agent.denials.records import HARMLESS, Kind, Outcome, Record
from agent.denials.serials import Serials
from agent.denials.table import DenialTable, Key, Row
from agent.errors import HostError
from agent.host import Host
from agent.report.events import Regarding
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.report.publisher import NodePublisher
from agent.text import format_rfc3339

_PART = "denials"  # of what the Node shows; see daemon/denials_thread.py
_AT_A_TIME = 1000  # records, then the clock is read
_OWN_RECORD_SECONDS, _OWN_RECORD_EVERY_SECONDS = 1.0, 3600.0
_NEW_SECONDS, _SPACED_SECONDS, _COUNTS_SECONDS = 1.0, 15.0, 300.0
_QUIET_SECONDS, _SETTLED_SECONDS = 60.0, 1.0
_METRIC_NAMES = 64
_FILE_PARTS = 3  # of `/etc/ssl/…` split at `/`
# audit=0 on the kernel's command line, no audit in the kernel, no CAP_AUDIT_READ.
_UNAVAILABLE = {
    errno.EPROTONOSUPPORT: Reason.AUDIT_OFF, errno.EAFNOSUPPORT: Reason.AUDIT_OFF,
    errno.EPERM: Reason.NOT_PERMITTED, errno.EACCES: Reason.NOT_PERMITTED, errno.ENODEV: Reason.NO_KERNEL,
}  # fmt: skip
_REFUSALS = frozenset({"errno", "kill_process", "kill_thread", "trap"})
_ALL_ACTIONS = " ".join((*_REFUSALS, "log"))
_ACTIONS_LOGGED = "/proc/sys/kernel/seccomp/actions_logged"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the kernel offers; tests replace it."""

    audit: Callable[[], AuditSocket] = AuditSocket
    events: Callable[[], ProcessEvents] = ProcessEvents
    state: Callable[[], AuditState | None] = audit_state
    own_record: Callable[[str], None] = log_one_call


def no_kernel() -> Sources:
    """Of a tree on another machine, whose records are not the node's."""

    def audit() -> AuditSocket:
        raise AuditUnavailable(OSError(errno.ENODEV, "no kernel runs on this tree"))

    return Sources(audit)


class Observer:
    """One reader. `run` in a thread of its own; `check` and `stop` from any."""

    def __init__(
        self, host: Host, policy: Denials, publisher: NodePublisher, metrics: Metrics, *, sources: Sources = Sources(),
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """clock: monotonic seconds. wall: epoch seconds."""
        self._host, self._policy, self._sources = host, policy, sources
        self._publisher, self._metrics = publisher, metrics
        self._clock, self._wall = clock, wall
        self._log = structlog.get_logger()
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._audit: AuditSocket | None = None
        self._serials = Serials()
        self._own_record = OwnRecord(sources.own_record)
        self._processes = Processes(host.procfs, clock, sources.events)
        self._names = ContainerNames(host, clock)
        self._table = DenialTable()
        self._announcer = Announcer()
        self._recorder = Recorder(host)
        self._seen = Summary(State.STARTING, since=format_rfc3339(wall()))
        self._counted: Counter[tuple[str, str, str]] = Counter()
        self._metric_names: set[tuple[str, str, str]] = set()
        self._received = self._lost_reported = self._missed_reported = self._lost_to_recordings = 0
        self._check_due, self._checked_at, self._deadline = True, 0.0, 0.0
        self._arrived_since = self._overflowed = False
        self._last_record = self._shown_at = 0.0
        self._show_at: float | None = None

    # -- from outside ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Verifies that records still arrive, once an hour at most; at any time while they do not."""
        blind = self._seen.state is State.BLIND
        if blind or self._clock() - self._checked_at >= _OWN_RECORD_EVERY_SECONDS:
            self._check_due = True
            os.eventfd_write(self._waker, 1)

    def stop(self) -> None:
        """Ends `run`."""
        self._stopping.set()
        os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        """After `run` has ended: nothing may be called any more."""
        os.close(self._waker)

    # -- the thread ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Reads until stopped. After a crash it may run again."""
        self._check_due = True
        try:
            while not self._stopping.is_set():
                self.turn()
        finally:
            self.end()

    def end(self) -> None:
        """Closes the sockets and writes the checkpoint."""
        self._processes.unfollow()
        self._save(is_last=True)
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def turn(self) -> None:
        """One round: waits for a record or for what is due, and does it."""
        if self._check_due:
            self._send_own_record()
        self._wait()
        self._read()
        now = self._clock()
        if self._deadline and now >= self._deadline:
            self._own_record_missing()
        if self._overflowed and now >= self._last_record + _SETTLED_SECONDS:
            # What was lost last shows only in the number of the next record.
            self._overflowed, self._check_due = False, True
        if self._processes.fileno() is not None and now - self._last_record >= _QUIET_SECONDS:
            self._processes.unfollow()
        if self._serials.lost > self._lost_reported:
            self._due(_NEW_SECONDS)
        if self._show_at is not None and now >= self._show_at:
            self._show()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        if self._audit is not None:
            poll.register(self._audit.fileno(), select.POLLIN)
        due = [one for one in (self._deadline or None, self._show_at) if one is not None]
        if self._overflowed:
            due.append(self._last_record + _SETTLED_SECONDS)
        following = self._processes.fileno()
        if following is not None:
            poll.register(following, select.POLLIN)
            due.append(self._last_record + _QUIET_SECONDS)
        left = min(due) - self._clock() if due else None
        for fd, _ in poll.poll(None if left is None else max(left, 0.0) * 1000 + 1):
            if fd == self._waker:
                os.eventfd_read(self._waker)

    def _read(self) -> None:
        for _ in range(_AT_A_TIME if self._audit is not None else 0):
            try:
                found = self._audit.read() if self._audit is not None else None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overflowed = True
                continue
            if found is None:
                break
            self.take(*found)
        self._processes.drain()
        for label, number in self._counted.items():
            self._metrics.denials.labels(*label).inc(number)
        self._counted.clear()

    def take(self, number: int, text: bytes) -> None:
        """One record of any type."""
        head = records.header(text)
        if head is None:
            return
        if self._serials.newest is None:
            self._recorder.resume(head[1])
        self._serials.observe(head[1])
        if number not in (records.SECCOMP, records.APPARMOR):
            return
        record = records.parse(number, text)
        if record is None:
            return
        self._arrived_since = True
        if self._own_record.is_one(record):
            if self._own_record.is_ours(record):
                self._own_record_seen()
            return
        self._last_record = self._clock()
        self._received += 1
        if record.outcome is Outcome.LOGGED:
            self._processes.follow()
        self._add(record, self._processes.of(record.pid, record.profile) if record.pid else UNKNOWN, head[0])

    def _add(self, record: Record, place: Place, at: float) -> None:
        names = self._names.of(place) if place.container_id else None
        if record.kind is Kind.SECCOMP and record.outcome is Outcome.LOGGED and names is not None:
            self._due(_NEW_SECONDS if self._recorder.add(place, names, record, at) else _COUNTS_SECONDS)
            return
        if record.outcome is Outcome.LOGGED and place == UNKNOWN:
            self._lost_to_recordings += 1  # whose call it was is unknown: it may be missing in any of them
        operation = record.operation or syscall_names.name_of(record.arch, record.number)
        file = "/".join(record.target.split("/")[:_FILE_PARTS]) if self._policy.file_names else ""
        key = Key(place, record.profile, record.kind, operation, record.mask, record.outcome, file)
        self._due(_NEW_SECONDS if self._table.add(key, at) else _COUNTS_SECONDS)
        if self._policy.events and names is not None and names.pod and record.outcome not in HARMLESS:
            self._announce(key, names)
        label = (record.kind.value, record.profile, names.namespace if names is not None else "")
        if label not in self._metric_names and len(self._metric_names) >= _METRIC_NAMES:
            label = (record.kind.value, "other", "other")
        self._metric_names.add(label)
        self._counted[label] += 1

    def _announce(self, key: Key, names: Names) -> None:
        if self._announcer.is_due(key, self._clock()):
            who = f"container {names.container}" if names.container else "a container"
            by = f"profile {key.profile}" if key.kind is Kind.APPARMOR else "its seccomp profile"
            what = f"{key.operation} {key.mask}".strip()
            pod = Regarding("Pod", names.pod, key.place.uid, names.namespace)
            message = f"{key.outcome.value} by {by}: {what} of {who}"
            self._publisher.event(event_reasons.Reason.PROFILE_DENIED, message, pod)

    # -- whether records arrive ------------------------------------------------------------------------------------

    def _send_own_record(self) -> None:
        self._check_due, self._checked_at, self._arrived_since = False, self._clock(), False
        if self._audit is None:
            try:
                self._audit = self._sources.audit()
            except AuditUnavailable as error:
                self._become(State.BLIND, _UNAVAILABLE.get(error.number, Reason.NO_RECORD))
                return
        self._deadline = self._clock() + _OWN_RECORD_SECONDS
        self._own_record.send()

    def _own_record_seen(self) -> None:
        self._deadline = 0.0
        state = self._sources.state()
        logged = self._actions_logged()
        notes = [Reason.ACTIONS_UNKNOWN] if logged is None else []
        notes += [] if logged is None or logged >= _REFUSALS else [Reason.ACTIONS_LOGGED]
        if state is not None:
            notes += [Reason.AUDITD] if state.auditd else []
            notes += [Reason.RATE_LIMIT] if state.rate_limit else []
            notes += [Reason.EXCLUDED_APPARMOR] if records.APPARMOR in state.excluded else []
        self._become(State.SEEING, None, tuple(notes))

    def _own_record_missing(self) -> None:
        self._deadline = 0.0
        if self._arrived_since and self._serials.lost > self._lost_reported:
            self._check_due = True  # one of those that were lost
            return
        self._become(State.BLIND, self._why())

    def _why(self) -> Reason:
        """The first cause that the node itself shows."""
        with contextlib.suppress(OSError):
            if not Path("/proc/self/ns/net").samefile(f"{self._host.procfs}/1/ns/net"):
                return Reason.NETWORK_NAMESPACE
        logged = self._actions_logged()
        if logged is not None and "log" not in logged:
            return Reason.ACTIONS_LOGGED
        state = self._sources.state()
        return Reason.EXCLUDED if state is not None and records.SECCOMP in state.excluded else Reason.NO_RECORD

    def _actions_logged(self) -> frozenset[str] | None:
        """What the sysctl lets through; everything in a kernel without it, None where it cannot be read."""
        try:
            return frozenset(self._host.read_text(_ACTIONS_LOGGED, missing=_ALL_ACTIONS).split())
        except HostError:
            return None

    def _become(self, state: State, reason: Reason | None, notes: tuple[Reason, ...] = ()) -> None:
        if (state, reason, notes) != (self._seen.state, self._seen.reason, self._seen.notes):
            self._log.info(
                "denials", state=state.value, reason=reason and reason.value, notes=[str(one) for one in notes]
            )
            self._seen = replace(self._seen, state=state, reason=reason, notes=notes)
            self._due(0.0)
        self._metrics.denials_visible.set(1 if state is State.SEEING else 0)

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _due(self, seconds: float) -> None:
        """The Node is written after so long: soon for what is new, rarely for counts alone."""
        at = max(self._clock() + seconds, self._shown_at + _SPACED_SECONDS if self._shown_at else 0.0)
        self._show_at = at if self._show_at is None else min(at, self._show_at)

    def _show(self) -> None:
        self._show_at, self._shown_at = None, self._clock()
        lost, missed = max(self._serials.lost, self._lost_reported), self._processes.missed
        self._metrics.denials_lost.inc(lost - self._lost_reported)
        self._metrics.denials_unattributed.inc(missed - self._missed_reported)
        self._recorder.lost(lost - self._lost_reported + self._lost_to_recordings, self._wall())
        self._lost_reported, self._missed_reported, self._lost_to_recordings = lost, missed, 0
        self._save()
        seen = replace(self._seen, received=self._received, lost=lost, unattributed=missed, other=self._table.other)
        self._names.expire()  # the kubelet may have named a container since its record
        notes = {DENIALS: encode(seen, self._rows()), RECORDINGS: self._recorder.document() or None}
        self._publisher.offer(_PART, NodeView(notes))

    def _save(self, *, is_last: bool = False) -> None:
        if self._serials.newest is not None:
            self._recorder.save(self._serials.newest, self._wall(), is_last=is_last)

    def _rows(self) -> list[list[str | int]]:
        """Rows with names, newest first; containers of one name, such as restarts, are one row."""
        merged: dict[tuple[str, ...], Row] = {}
        for key, row in self._table.newest_first():
            place = key.place
            names = self._names.of(place) if place.container_id else None
            container = (names.container if names else "") or place.container_id[:12]
            where = (*(names[:2] if names else ("", "node" if place == NODE else "")), place.uid, container)
            label = (*where, key.profile, key.kind.value, key.operation, key.mask, key.outcome.value, key.file)
            one = merged.setdefault(label, Row(0, row.first, row.last))
            one.count, one.first, one.last = one.count + row.count, min(one.first, row.first), max(one.last, row.last)
        return [[*label, row.count, round(row.first), round(row.last)] for label, row in merged.items()]
