"""`status --watch`: the fleet as it changes, by API watches. Nothing is polled.

On a terminal the table is redrawn in place, at most twice a second; elsewhere each change is a line. It ends with
Ctrl-C, and refuses to show what may be stale without saying so.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from agent.errors import AgentError
from agent.kube import CONFIGMAPS, LEASES, NODES, Change, EventType, field_selector
from agent.plugin.cluster import locks, nodes, policy, values
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.session import OK, Session
from agent.plugin.views import fleet
from agent.plugin.views.fleet import Fleet
from agent.reboot.blockers.pause import PAUSE

Draw = Callable[[Fleet, Session, int | None], str]

_REDRAW_SECONDS = 0.5
_TICK_SECONDS = 1.0  # ages advance while nothing happens
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"


class LiveFleet:
    """What the watches have delivered so far. Filled by their threads, read by the one that draws."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._rows: dict[str, NodeRow] = {}
        self._locks: dict[str, Lock] = {}
        self._pause: dict[str, Pause] = {}
        self._stale: dict[str, str] = {}
        self.rules = policy.read(session.kube, session.namespace)
        self.changed = threading.Event()
        self.ready = threading.Event()
        self.changes: list[NodeRow | str] = []
        self.error: AgentError | None = None

    def on_node(self, change: Change) -> None:
        """From the watch of nodes."""
        with self._lock:
            match change.seen:
                case EventType.LISTING:
                    self._rows.clear()
                case EventType.ADDED | EventType.MODIFIED:
                    row = nodes.row(change.object, self.rules.pool)
                    if self._rows.get(row.name) != row:
                        self._rows[row.name] = row
                        self.changes.append(row)
                case EventType.DELETED:
                    name = nodes.row(change.object, self.rules.pool).name
                    if self._rows.pop(name, None) is not None:
                        self.changes.append(name)
                case EventType.SYNCED:
                    self.ready.set()
                case _:
                    pass
            self._note_stale("nodes", change)
        self.changed.set()

    def on_lease(self, change: Change) -> None:
        """From the watch of the locks."""
        with self._lock:
            if change.seen is EventType.LISTING:
                self._locks.clear()
            lock = locks.lock_of(change.object) if change.object else None
            if lock is not None and change.seen is EventType.DELETED:
                self._locks.pop(lock.name, None)
            elif lock is not None:
                self._locks[lock.name] = lock
            self._note_stale("locks", change)
        self.changed.set()

    def on_pause(self, change: Change) -> None:
        """From the watch of the pause."""
        with self._lock:
            if change.seen in (EventType.LISTING, EventType.DELETED):
                self._pause.clear()
            elif change.seen in (EventType.ADDED, EventType.MODIFIED):
                self._pause[PAUSE] = locks.pause_of(change.object, self._session.now())
            self._note_stale("pause", change)
        self.changed.set()

    def fleet(self) -> Fleet:
        """Everything as it is known now."""
        with self._lock:
            rows = tuple(self._rows.values())
            held = tuple(sorted(self._locks.values(), key=lambda lock: (lock.pool, lock.slot)))
            pause = self._pause.get(PAUSE) or Pause(active=False)
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

    def _note_stale(self, what: str, change: Change) -> None:
        if change.seen is EventType.AWAY:
            self._stale[what] = f"{what} may be stale: {values.text(str(change.error))}"
            if what == "nodes":
                self.ready.set()
        elif change.seen is EventType.SYNCED:
            self._stale.pop(what, None)


def watch(session: Session, *, node: str, selector: str, draw: Draw) -> int:
    """Shows until interrupted, or until the session's client is closed. node: only this one."""
    kube, namespace = session.kube, session.namespace
    live = LiveFleet(session)
    named = field_selector({"metadata.name": node}) if node else ""
    sources: tuple[tuple[Iterable[Change], Callable[[Change], None]], ...] = (
        (kube.follow(NODES, label_selector=selector, field_selector=named), live.on_node),
        (kube.follow(LEASES, namespace), live.on_lease),
        (kube.follow(CONFIGMAPS, namespace, field_selector=field_selector({"metadata.name": PAUSE})), live.on_pause),
    )
    threads = [threading.Thread(target=_follow, args=(*source, live), daemon=True) for source in sources]
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


def _follow(source: Iterable[Change], take: Callable[[Change], None], live: LiveFleet) -> None:
    try:
        for change in source:
            take(change)
    except AgentError as error:
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
                last = draw(live.fleet(), session, size.lines - 1)
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
        at = datetime.fromtimestamp(session.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for one in live.take_changes():
            if isinstance(one, str):
                session.write(f"{at}  {one}  deleted")
                continue
            words = (fleet.hardened(one).text, fleet.reboot(one, stuck=False).text, one.message or "-")
            session.write("  ".join((at, one.name, fleet.condition(one).text, *words)))
        session.out.flush()
