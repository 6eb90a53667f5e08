"""`status --watch`: the fleet as it changes, by API watches. Nothing is polled.

On a terminal the table is redrawn in place, at most twice a second; elsewhere each change is a line. It ends with
Ctrl-C, and refuses to show what may be stale without saying so.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from agent.kube import CONFIGMAPS, LEASES, NODES, Change, EventType, field_selector
from agent.plugin.cluster import locks, nodes, policy, values
from agent.plugin.cluster.locks import Pause
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.session import OK, Session
from agent.plugin.views import fleet
from agent.plugin.views.fleet import Fleet
from agent.reboot.blockers.pause import PAUSE
from agent.text import format_rfc3339

Draw = Callable[[Fleet, int | None], str]

_NODES, _LOCKS, _PAUSE = "nodes", "locks", "pause"
_REDRAW_SECONDS = 0.5
_TICK_SECONDS = 1.0  # ages advance while nothing happens
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"


class LiveFleet:
    """What the watches have delivered so far. Filled by their threads, read by the one that draws."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self.rules = policy.read(session.kube, session.namespace)
        self._read: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            _NODES: lambda found: nodes.row(found, self.rules.pool),
            _LOCKS: locks.lock_of,
            _PAUSE: lambda found: locks.pause_of(found, session.now()),
        }
        self._known: dict[str, dict[str, Any]] = {what: {} for what in self._read}
        self._stale: dict[str, str] = {}
        self.changed = threading.Event()
        self.ready = threading.Event()
        self.changes: list[NodeRow | str] = []
        self.error: Exception | None = None

    def take(self, what: str, change: Change) -> None:
        """A change from the watch of nodes, of the locks or of the pause."""
        with self._lock:
            known = self._known[what]
            match change.seen:
                case EventType.LISTING:
                    known.clear()
                case EventType.ADDED | EventType.MODIFIED | EventType.DELETED:
                    self._object(what, change)
                case EventType.AWAY:
                    self._stale[what] = f"{what} may be stale: {values.text(str(change.error))}"
                case EventType.SYNCED:
                    self._stale.pop(what, None)
            if what == _NODES and change.seen in (EventType.AWAY, EventType.SYNCED):
                self.ready.set()
        self.changed.set()

    def _object(self, what: str, change: Change) -> None:
        known, name = self._known[what], values.name(values.part(change.object, "metadata").get("name"))
        made = self._read[what](change.object) if change.seen is not EventType.DELETED else None
        if known.get(name) == made:
            return
        if made is not None:
            known[name] = made
        else:
            del known[name]
        if what == _NODES:
            self.changes.append(made or name)

    def fleet(self) -> Fleet:
        """Everything as it is known now."""
        with self._lock:
            rows = tuple(self._known[_NODES].values())
            held = sorted(self._known[_LOCKS].values(), key=lambda lock: (lock.pool, lock.slot))
            pause = next(iter(self._known[_PAUSE].values()), Pause(active=False))
            stale = "; ".join(self._stale.values())
        return fleet.fleet(
            rows, held, pause=pause, rules=self.rules, namespace=self._session.namespace, now=self._session.now(),
            locks_problem=stale,
        )  # fmt: skip

    def take_changes(self) -> list[NodeRow | str]:
        """Rows that are different from before, and names of deleted nodes, since the last call."""
        with self._lock:
            taken, self.changes = self.changes, []
        return taken


def watch(session: Session, *, node: str, selector: str, draw: Draw) -> int:
    """Shows until interrupted, or until the session's client is closed. node: only this one."""
    kube, namespace = session.kube, session.namespace
    live = LiveFleet(session)
    named = field_selector({"metadata.name": node}) if node else ""
    sources = {
        _NODES: kube.follow(NODES, label_selector=selector, field_selector=named),
        _LOCKS: kube.follow(LEASES, namespace),
        _PAUSE: kube.follow(CONFIGMAPS, namespace, field_selector=field_selector({"metadata.name": PAUSE})),
    }
    threads = [threading.Thread(target=_follow, args=(*source, live), daemon=True) for source in sources.items()]
    for thread in threads:
        thread.start()
    try:
        show = _redraw if session.out.isatty() else _print_changes
        show(session, live, draw, threads[0])
    finally:
        kube.stop()
        for thread in threads:
            thread.join(2.0)
    if live.error is not None:
        raise live.error
    return OK


def _follow(what: str, source: Iterable[Change], live: LiveFleet) -> None:
    try:
        for change in source:
            live.take(what, change)
    except Exception as error:  # noqa: BLE001 - raised again by `watch`: a thread's defect must not end with 0
        live.error = error
    finally:
        live.ready.set()
        live.changed.set()


def _redraw(session: Session, live: LiveFleet, draw: Draw, source: threading.Thread) -> None:
    """In place, on the terminal's other screen; the last picture stays on the first one."""
    live.ready.wait()
    last = ""
    try:
        with _other_screen(session):
            while source.is_alive() and live.error is None:
                live.changed.clear()
                size = shutil.get_terminal_size()
                last = draw(live.fleet(), size.lines - 1)
                at = datetime.fromtimestamp(session.now(), UTC).strftime("%H:%M:%SZ")
                lines = [*last.rstrip("\n").split("\n"), f"{at}  Ctrl-C ends"]
                session.out.write(_HOME + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_SCREEN_END)
                session.out.flush()
                live.changed.wait(_TICK_SECONDS)
                threading.Event().wait(_REDRAW_SECONDS)
    finally:
        session.write(last)


@contextmanager
def _other_screen(session: Session) -> Iterator[None]:
    session.out.write(_ALTERNATE)
    try:
        yield
    finally:
        session.out.write(_NORMAL)
        session.out.flush()


def _print_changes(session: Session, live: LiveFleet, _draw: Draw, source: threading.Thread) -> None:
    """A line a change: what a log or a script reads."""
    while source.is_alive() and live.error is None:
        live.changed.wait()
        live.changed.clear()
        at = format_rfc3339(session.now())
        for one in live.take_changes():
            if isinstance(one, str):
                session.write(f"{at}  {one}  deleted")
                continue
            words = (fleet.hardened(one).text, fleet.reboot(one, stuck=False).text, one.message or "-")
            session.write("  ".join((at, one.name, fleet.condition(one).text, *words)))
        session.out.flush()
