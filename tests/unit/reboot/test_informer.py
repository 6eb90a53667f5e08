"""The mirror of a watched collection: never older than one's own last write, unknown while it cannot be known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from agent.errors import KubeError
from agent.kube import Change, EventType
from agent.reboot.kube.informer import FollowedObjects

BOUND_SECONDS = 20.0


class _Told:
    """A Follow that tells what the test says, one change at a time, and waits until it was taken."""

    def __init__(self) -> None:
        self._changes: Queue[Change | KubeError | None] = Queue()
        self._taken = threading.Semaphore(0)

    def __iter__(self) -> Iterator[Change]:
        while (change := self._changes.get()) is not None:
            if isinstance(change, KubeError):
                raise change
            yield change
            self._taken.release()

    def tell(self, seen: EventType, version: str = "", **meta: Any) -> None:
        found = {"metadata": {"name": "x", "resourceVersion": version, **meta}} if version else {}
        self._changes.put(Change(seen, found))
        assert self._taken.acquire(timeout=BOUND_SECONDS)

    def close(self) -> None:
        self._changes.put(None)

    def fail(self) -> None:
        self._changes.put(KubeError("refused"))


def _object(version: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", "resourceVersion": version, **meta}}


class _Mirrored:
    """A mirror of such a collection."""

    def __init__(self) -> None:
        self.told = _Told()
        self.woken = 0
        self.mirror = FollowedObjects(self.told, self._wake, lambda found: found)  # type: ignore[arg-type]

    def _wake(self) -> None:
        self.woken += 1

    def version(self) -> str | None:
        """The resourceVersion of `x`, "" when it is known to be absent, None when it is not known."""
        is_known, found = self.mirror.get("x")
        if not is_known:
            return None
        return str(found["metadata"]["resourceVersion"]) if found else ""


@pytest.fixture
def mirrored() -> Iterator[_Mirrored]:
    made = _Mirrored()
    yield made
    made.mirror.close()


def _synced(mirrored: _Mirrored, version: str = "5") -> None:
    mirrored.told.tell(EventType.LISTING)
    mirrored.told.tell(EventType.ADDED, version)
    mirrored.told.tell(EventType.SYNCED)


def test_nothing_is_known_before_the_list_is_whole(mirrored: _Mirrored) -> None:
    """Half a list says nothing of what is absent."""
    mirrored.told.tell(EventType.LISTING)
    mirrored.told.tell(EventType.ADDED, "5")
    assert mirrored.version() is None
    mirrored.told.tell(EventType.SYNCED)
    assert (mirrored.version(), mirrored.woken) == ("5", 1)


def test_changes_are_followed_and_wake(mirrored: _Mirrored) -> None:
    """A modification, and a deletion."""
    _synced(mirrored)
    mirrored.told.tell(EventType.MODIFIED, "7")
    assert (mirrored.version(), mirrored.woken) == ("7", 2)
    mirrored.told.tell(EventType.DELETED, "9")
    assert (mirrored.version(), mirrored.woken) == ("", 3)


def test_an_event_from_before_ones_own_write_is_passed_over(mirrored: _Mirrored) -> None:
    """The watch is behind: what was just written stays, and nobody is woken for the past."""
    _synced(mirrored)
    mirrored.mirror.put("x", _object("10"))
    mirrored.told.tell(EventType.MODIFIED, "8")
    assert (mirrored.version(), mirrored.woken) == ("10", 1)
    mirrored.told.tell(EventType.DELETED, "9")
    assert mirrored.version() == "10"
    mirrored.told.tell(EventType.MODIFIED, "11")
    assert mirrored.version() == "11"


def test_a_list_from_before_ones_own_write_does_not_undo_it(mirrored: _Mirrored) -> None:
    """A relist that began earlier."""
    _synced(mirrored)
    mirrored.told.tell(EventType.LISTING)
    mirrored.told.tell(EventType.ADDED, "6")
    mirrored.mirror.put("x", _object("10"))
    mirrored.told.tell(EventType.SYNCED)
    assert mirrored.version() == "10"


def test_what_a_new_list_lacks_is_gone(mirrored: _Mirrored) -> None:
    """Deleted while the watch was cut."""
    _synced(mirrored)
    mirrored.told.tell(EventType.LISTING)
    mirrored.told.tell(EventType.SYNCED)
    assert mirrored.version() == ""


def test_after_a_lost_answer_it_is_not_known_until_it_was_read(mirrored: _Mirrored) -> None:
    """Not even by an event: it may be one from before the write."""
    _synced(mirrored)
    mirrored.mirror.forget("x")
    assert mirrored.version() is None
    mirrored.told.tell(EventType.MODIFIED, "6")
    assert mirrored.version() is None
    mirrored.mirror.put("x", _object("7"))
    assert mirrored.version() == "7"
    mirrored.mirror.forget("x")
    mirrored.mirror.put("x", None)
    assert mirrored.version() == ""


def test_while_the_api_server_is_away_nothing_is_known(mirrored: _Mirrored) -> None:
    """Each look is a request then, and fails as one."""
    _synced(mirrored)
    mirrored.told.tell(EventType.AWAY)
    assert mirrored.version() is None
    mirrored.told.tell(EventType.SYNCED)
    assert mirrored.version() == "5"


def test_a_watch_that_is_refused_for_good_leaves_nothing_known() -> None:
    """The thread ends without a noise, and looks go to the server."""
    made = _Mirrored()
    _synced(made)
    made.told.fail()
    made.mirror.close()
    assert made.version() is None


def test_a_version_that_the_server_refused_is_not_known_until_another_is_seen(mirrored: _Mirrored) -> None:
    """By the watch, without a read; a refusal of an older version than is known means nothing."""
    _synced(mirrored)
    mirrored.mirror.outdate("x", "4")
    assert mirrored.version() == "5"
    mirrored.mirror.outdate("x", "5")
    assert mirrored.version() is None
    mirrored.told.tell(EventType.MODIFIED, "6")
    assert mirrored.version() == "6"


def test_the_echo_of_ones_own_write_wakes_nobody(mirrored: _Mirrored) -> None:
    """It is what is known already."""
    _synced(mirrored)
    mirrored.mirror.put("x", _object("10"))
    mirrored.told.tell(EventType.MODIFIED, "10")
    assert (mirrored.version(), mirrored.woken) == ("10", 1)


def test_a_change_during_ones_own_write_wakes_nobody_and_is_kept(mirrored: _Mirrored) -> None:
    """The echo may come before the answer; what another client changes after it is news again."""
    _synced(mirrored)
    with mirrored.mirror.writing("x"):
        mirrored.told.tell(EventType.MODIFIED, "10")
        mirrored.mirror.put("x", _object("10"))
    assert (mirrored.version(), mirrored.woken) == ("10", 1)
    mirrored.told.tell(EventType.MODIFIED, "11")
    assert (mirrored.version(), mirrored.woken) == ("11", 2)
