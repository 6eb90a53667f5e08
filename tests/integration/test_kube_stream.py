"""Watches on the wire: however events arrive, each is told once, whole and at once; and every wait can be ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from queue import Queue

import pytest

from agent.kube import NODES, EventType, Kube, Object, Watch
from agent.kube.errors import Gone, Malformed, ServerError, Unreachable
from tests.support.kube import PATIENCE_SECONDS, Reader, Seams, kube_client, scripted, told


@pytest.fixture
def seams() -> Seams:
    return Seams()


@contextmanager
def streaming(*answers: list[bytes], chunked: bool = True, hold: threading.Event | None = None) -> Iterator[str]:
    """A server whose n-th answer is the n-th list of chunks, as a watch; after the last it says 410."""
    left = iter(answers)

    def script(request: BaseHTTPRequestHandler) -> None:
        parts = next(left, [event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})])
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        request.end_headers()
        for part in parts:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            request.wfile.flush()
        if hold is not None:
            hold.wait(PATIENCE_SECONDS)
        if chunked and parts and parts[-1].endswith(b"\n"):
            request.wfile.write(b"0\r\n\r\n")
        else:
            request.close_connection = True

    with scripted(script) as server:
        yield server.url


def event(kind: str, found: Object) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def node(version: int) -> Object:
    return {"metadata": {"name": f"n{version}", "resourceVersion": str(version)}}


def watched(url: str, seams: Seams) -> list[tuple[EventType, str]]:
    """What a watch tells until it is gone."""
    kube = kube_client(url, "token", seams=seams)
    changes: list[tuple[EventType, str]] = []
    with pytest.raises(Gone):
        collect(kube, changes)
    kube.close()
    return changes


def collect(kube: Kube, into: list[tuple[EventType, str]]) -> None:
    """One by one, because what came before an error counts."""
    for change in kube.watch(NODES, resource_version="1"):
        into.append(told(change))  # noqa: PERF401 - see above


@pytest.mark.parametrize("chunked", [True, False])
def test_events_arrive_whole_however_they_are_cut_into_packets(seams: Seams, chunked: bool) -> None:
    """In pieces, several at once, with empty lines between; also from a proxy that speaks no chunks."""
    first, second, third = (event("ADDED", node(number)) for number in (2, 3, 4))
    with streaming([first[:7], first[7:] + second + b"\n" + third[:-1], b"\n"], chunked=chunked) as url:
        assert watched(url, seams) == [(EventType.ADDED, "n2"), (EventType.ADDED, "n3"), (EventType.ADDED, "n4")]


@pytest.mark.parametrize("chunked", [True, False])
def test_half_an_event_is_asked_for_again(seams: Seams, chunked: bool) -> None:
    """A connection that ends in the middle of a line: the watch resumes from the last whole one."""
    half, whole = [event("ADDED", node(2)), event("ADDED", node(3))[:10]], [event("ADDED", node(3))]
    with streaming(half, whole, chunked=chunked) as url:
        assert watched(url, seams) == [(EventType.ADDED, "n2"), (EventType.ADDED, "n3")]


@pytest.mark.parametrize("chunked", [True, False])
def test_an_event_is_told_before_the_next_one_arrives(chunked: bool) -> None:
    """Sentinel to lock in a second: nothing is held back in a buffer. And a watch that waits is closed at once."""
    hold = threading.Event()
    with streaming([event("ADDED", node(2))], chunked=chunked, hold=hold) as url:
        kube = kube_client(url, "token")
        watch = kube.watch(NODES, resource_version="1")
        reader = Reader(watch)
        assert told(reader.next()) == (EventType.ADDED, "n2")
        watch.close()
        reader.assert_ended()
        hold.set()
        kube.close()


@pytest.mark.parametrize(
    ("line", "branch"),
    [
        (b"no json\n", Malformed),
        (b"[]\n", Malformed),
        (b'{"type": "ADDED"}\n', Malformed),
        (b'{"type": 1, "object": {}}\n', Malformed),
        (b'{"type": "SURPRISE", "object": {}}\n', Malformed),
        (event("ERROR", {"kind": "Status", "code": 500, "message": "etcd"}), ServerError),
        (event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}), Gone),
    ],
)
def test_what_is_no_event_ends_a_watch(seams: Seams, line: bytes, branch: type[Exception]) -> None:
    """A watch that does not understand must not pretend to see."""
    with streaming([event("ADDED", node(2)), line]) as url:
        kube = kube_client(url, "token", seams=seams)
        seen: list[tuple[EventType, str]] = []
        with pytest.raises(branch):
            collect(kube, seen)
        assert seen == [(EventType.ADDED, "n2")]
        kube.close()


def test_a_watch_that_lived_long_is_resumed_without_a_wait(seams: Seams) -> None:
    """The server's own timeout is the normal end of a watch; after a cut the delays begin anew."""
    long, cut = [event("ADDED", node(2))], [event("ADDED", node(3)), b"half"]
    with streaming(long, cut, cut, cut, long) as url:
        kube = kube_client(url, "token", seams=seams)
        waited: list[int] = []

        def live(watch: Watch) -> None:
            for _ in watch:
                waited.append(len(seams.time.waits))
                if len(waited) in (1, 4, 5):
                    seams.time.now += 700

        with pytest.raises(Gone):
            live(kube.watch(NODES, resource_version="1"))
        kube.close()
    assert waited == [0, 0, 1, 2, 3]
    assert seams.time.waits[1] > seams.time.waits[0]
    # The third cut came after a long life, so that its delay is a first one again; the last watch ended well.
    assert 0.5 <= seams.time.waits[2] <= 1.0
    assert len(seams.time.waits) == 3


def test_a_reader_that_closes_its_watch_hears_no_more(seams: Seams) -> None:
    """Though more has arrived already; and it may go on from where it stopped."""
    with streaming([b"".join(event("ADDED", node(number)) for number in (2, 3, 4))]) as url:
        kube = kube_client(url, "token", seams=seams)
        watch = kube.watch(NODES, resource_version="1")
        seen = []
        for change in watch:
            seen.append(told(change))
            if len(seen) == 2:
                watch.close()
        assert seen == [(EventType.ADDED, "n2"), (EventType.ADDED, "n3")]
        assert watch.resource_version == "3"
        kube.close()


def test_an_event_without_end_is_cut_off(seams: Seams) -> None:
    """Whatever is on the other side cannot fill the node's memory."""
    with streaming([b" " * (1 << 20)] * 18) as url:
        kube = kube_client(url, "token", seams=seams)
        with pytest.raises(Malformed, match="a line of more than 8 MiB"):
            collect(kube, [])
        kube.close()


@pytest.mark.parametrize("way", ["watch", "follow"])
def test_stopping_before_the_first_answer_is_no_error(way: str) -> None:
    """A server that accepts and says nothing: stop ends a watch, and a follower's list, all the same."""
    asked, hold = threading.Event(), threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        hold.wait(PATIENCE_SECONDS)
        request.close_connection = True

    with scripted(silent) as server:
        kube = kube_client(server.url, "token", seconds=60, read_seconds=60)
        reader = Reader(kube.follow(NODES) if way == "follow" else kube.watch(NODES, resource_version="1"))
        assert asked.wait(PATIENCE_SECONDS)
        kube.stop()
        reader.assert_ended()
        hold.set()
        kube.close()


def test_closing_ends_a_call_that_waits() -> None:
    """A last call to a server that says nothing does not hold up the end of the process."""
    asked, hold = threading.Event(), threading.Event()
    errors: Queue[BaseException] = Queue()

    def silent(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        hold.wait(PATIENCE_SECONDS)
        request.close_connection = True

    def call(kube: Kube) -> None:
        try:
            kube.get(NODES, "a")
        except Unreachable as error:
            errors.put(error)

    with scripted(silent) as server:
        kube = kube_client(server.url, "token", seconds=60, read_seconds=60)
        caller = threading.Thread(target=call, args=(kube,), daemon=True)
        caller.start()
        assert asked.wait(PATIENCE_SECONDS)
        kube.close()
        assert isinstance(errors.get(timeout=PATIENCE_SECONDS), Unreachable)
        hold.set()
