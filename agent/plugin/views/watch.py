"""`status --watch`: the fleet as it changes, told by watches. Nothing is asked for again and again.

On a terminal the table is redrawn in place, at most twice a second; elsewhere each change is a line. It ends with
Ctrl-C, and refuses to show what may be old without saying so.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from agent.errors import AgentError
from agent.kube import CONFIGMAPS, LEASES, NODES, Change, EventType, field_selector
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.session import OK, Session
from agent.plugin.views import fleet as overview
from agent.plugin.views.fleet import Overview
from agent.reboot.blockers.pause import PAUSE

Draw = Callable[[Overview, Session, int | None], str]

_REDRAW_SECONDS = 0.5
_TICK_SECONDS = 1.0  # ages go on while nothing happens
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"


class Picture:
    """What the watches have told so far. Filled by their threads, read by the one that draws."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._rows: dict[str, NodeRow] = {}
        self._locks: dict[str, Lock] = {}
        self._pause: dict[str, Pause] = {}
        self._away: dict[str, str] = {}
        self.rules = policy.read(session.kube, session.namespace)
        self.changed = threading.Event()
        self.ready = threading.Event()
        self.changes: list[NodeRow | str] = []
        self.error: AgentError | None = None

    def nodes(self, change: Change) -> None:
        """Told by the watch of nodes."""
        with self._lock:
            match change.seen:
                case EventType.LISTING:
                    self._rows.clear()
                case EventType.ADDED | EventType.MODIFIED:
                    row = fleet.row(change.object, self.rules.pool)
                    if self._rows.get(row.name) != row:
                        self._rows[row.name] = row
                        self.changes.append(row)
                case EventType.DELETED:
                    name = str(change.object.get("metadata", {}).get("name", ""))
                    if self._rows.pop(name, None) is not None:
                        self.changes.append(name)
                case EventType.SYNCED:
                    self.ready.set()
                case _:
                    pass
            self._note_away("nodes", change)
        self.changed.set()

    def leases(self, change: Change) -> None:
        """Told by the watch of the locks."""
        with self._lock:
            if change.seen is EventType.LISTING:
                self._locks.clear()
            lock = locks.lock_of(change.object) if change.object else None
            if lock is not None and change.seen is EventType.DELETED:
                self._locks.pop(lock.name, None)
            elif lock is not None:
                self._locks[lock.name] = lock
            self._note_away("locks", change)
        self.changed.set()

    def pauses(self, change: Change) -> None:
        """Told by the watch of the pause."""
        with self._lock:
            if change.seen in (EventType.LISTING, EventType.DELETED):
                self._pause.clear()
            elif change.seen in (EventType.ADDED, EventType.MODIFIED):
                self._pause[PAUSE] = locks.pause_of(change.object, self._session.now())
            self._note_away("pause", change)
        self.changed.set()

    def overview(self) -> Overview:
        """Everything as it is known now."""
        with self._lock:
            rows = tuple(self._rows.values())
            held = tuple(sorted(self._locks.values(), key=lambda lock: (lock.pool, lock.slot)))
            pause = self._pause.get(PAUSE) or Pause(active=False)
            away = "; ".join(self._away.values())
        now = self._session.now()
        return Overview(
            overview.worst_first(rows, held), held, pause, self.rules, self._session.namespace, now, locks_problem=away
        )

    def take_changes(self) -> list[NodeRow | str]:
        """Rows that are another than before, and names of nodes that are gone, since the last call."""
        with self._lock:
            taken, self.changes = self.changes, []
        return taken

    def _note_away(self, what: str, change: Change) -> None:
        if change.seen is EventType.AWAY:
            self._away[what] = f"{what} may be old: {change.error}"
            if not self.ready.is_set() and what == "nodes":
                self.ready.set()
        elif change.seen is EventType.SYNCED:
            self._away.pop(what, None)


def watch(session: Session, *, node: str, selector: str, draw: Draw) -> int:
    """Shows until interrupted, or until the session's door is closed. node: only this one."""
    kube, namespace = session.kube, session.namespace
    picture = Picture(session)
    named = field_selector({"metadata.name": node}) if node else ""
    sources: tuple[tuple[Iterable[Change], Callable[[Change], None]], ...] = (
        (kube.follow(NODES, label_selector=selector, field_selector=named), picture.nodes),
        (kube.follow(LEASES, namespace), picture.leases),
        (kube.follow(CONFIGMAPS, namespace, field_selector=field_selector({"metadata.name": PAUSE})), picture.pauses),
    )
    threads = [threading.Thread(target=_follow, args=(*source, picture), daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    try:
        show = _redraw if session.out.isatty() else _print_changes
        show(session, picture, draw, threads[0])
    finally:
        kube.stop()
        for thread in threads:
            thread.join(2.0)
    if picture.error is not None:
        raise picture.error
    return OK


def _follow(source: Iterable[Change], take: Callable[[Change], None], picture: Picture) -> None:
    try:
        for change in source:
            take(change)
    except AgentError as error:
        picture.error = error
    finally:
        picture.ready.set()
        picture.changed.set()


def _redraw(session: Session, picture: Picture, draw: Draw, source: threading.Thread) -> None:
    """In place, on the terminal's other screen; the last picture stays on the first one."""
    picture.ready.wait()
    last = ""
    try:
        with _other_screen(session):
            while source.is_alive() and picture.error is None:
                picture.changed.clear()
                size = shutil.get_terminal_size()
                last = draw(picture.overview(), session, size.lines - 1)
                at = datetime.fromtimestamp(session.now(), UTC).strftime("%H:%M:%SZ")
                lines = [*last.rstrip("\n").split("\n"), f"{at}  Ctrl-C ends"]
                session.out.write(_HOME + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_SCREEN_END)
                session.out.flush()
                picture.changed.wait(_TICK_SECONDS)
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


def _print_changes(session: Session, picture: Picture, _draw: Draw, source: threading.Thread) -> None:
    """A line a change: what a log or a script reads."""
    while source.is_alive() and picture.error is None:
        picture.changed.wait()
        picture.changed.clear()
        at = datetime.fromtimestamp(session.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for one in picture.take_changes():
            if isinstance(one, str):
                session.write(f"{at}  {one}  gone")
                continue
            told = (overview.hardened(one).text, overview.reboot(one, stuck=False).text, one.sentence or "-")
            session.write("  ".join((at, one.name, overview.condition(one).text, *told)))
        session.out.flush()
