"""Servers that mean harm: whatever they send, a request ends by its deadline and in bounded memory."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import pytest
import trustme

from agent import bounded_http
from agent.bounded_http import TooLarge
from agent.config.schema import Prometheus
from agent.daemon.reboot_thread import SystemClock
from agent.errors import KubeError
from agent.kube import NODES, Kube, RetryPolicy
from agent.kube.errors import CallFailed, Malformed
from agent.reboot.blockers.prometheus import PrometheusBlocker
from agent.report.notify.http import NotSent, Post, send
from tests.support.access import direct

DEADLINE_SECONDS = 0.5
FAR_TOO_LONG_SECONDS = 200.0  # a bound for what would never end, not a timing
PEAK_BYTES = 24 << 20

Harm = Callable[[socket.socket, threading.Event], None]
OK = b"HTTP/1.1 200 OK\r\n"


def drip(before: bytes, drop: bytes, pause: float = 0.05) -> Harm:
    """Sends a little again and again, each time well within the timeout of a single read."""

    def harm(client: socket.socket, stop: threading.Event) -> None:
        client.sendall(before)
        while not stop.wait(pause):
            client.sendall(drop)

    return harm


def flood(before: bytes, part: bytes) -> Harm:
    """Sends without end, as fast as it is taken."""

    def harm(client: socket.socket, stop: threading.Event) -> None:
        client.sendall(before)
        while not stop.is_set():
            client.sendall(part)

    return harm


def once(answer: bytes) -> Harm:
    return lambda client, _: client.sendall(answer)


def whole(body: bytes) -> Harm:
    return once(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)


BOMB = gzip.compress(b"[" * (200 << 20))
SERVERS: dict[str, Harm] = {
    "bytes of the status line": drip(b"", b"H"),
    "header lines": drip(OK, b"X-A: b\r\n"),
    "bytes of a header line": drip(OK + b"X-A: ", b"b"),
    "100 Continue, dripped": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue, a flood": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "bytes of the body": drip(OK + b"Content-Length: 9999999\r\n\r\n", b" "),
    "chunks of the body": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "bytes of a refusal": drip(b"HTTP/1.1 500 No\r\nContent-Length: 9999999\r\n\r\n", b" "),
    "a flood of body": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "100 headers of 64 KiB": once(OK + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 65000) for n in range(99)) + b"\r\n"),
    "a header without end": flood(OK + b"X-A: ", b"a" * 65536),
    "a redirect to itself": once(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"),
    "a gzip bomb": once(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    "JSON of a great depth": once(OK + b"Content-Length: 2000000\r\n\r\n" + b"[" * 2_000_000),
    "JSON of many lists": whole(b"[" + b",".join([b"[" * 900 + b"]" * 900] * 4000) + b"]"),
    "JSON of many objects": whole(b"[" + b",".join([b'{"a":1}'] * 900_000) + b"]"),
    "JSON of wide characters": whole(b'"\xf0\x9f\x98\x80' + b"a" * 7_900_000 + b'"'),
    "silence": drip(b"", b""),
}


@contextmanager
def hostile(harm: Harm, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Its URL and the requests' first lines. Every connection gets the same."""
    stop, asked = threading.Event(), list[bytes]()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with suppress(OSError):
            peer = tls.wrap_socket(client, server_side=True) if tls else client
            with peer:
                asked.append(peer.recv(65536).partition(b"\r\n")[0])
                harm(peer, stop)
                stop.wait(FAR_TOO_LONG_SECONDS)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def bounded() -> Iterator[None]:
    """The block ends in time and needs little memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        assert time.monotonic() - began < FAR_TOO_LONG_SECONDS
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()


def kube(url: str, authority: bytes = b"") -> Kube:
    policy = RetryPolicy(seconds=DEADLINE_SECONDS, attempts=1, connect_seconds=5.0, read_seconds=DEADLINE_SECONDS)
    return Kube(direct(url, token="t", authority=authority), node="worker-1", retry=policy)


@pytest.mark.parametrize("harm", SERVERS.values(), ids=SERVERS)
def test_an_api_request_ends(harm: Harm) -> None:
    with hostile(harm) as (url, asked):
        with bounded(), pytest.raises(CallFailed):
            kube(url).get(NODES, "worker-1")
        assert len(asked) <= 1


@pytest.mark.parametrize("harm", SERVERS.values(), ids=SERVERS)
def test_a_blocker_ends_and_blocks(harm: Harm) -> None:
    with hostile(harm) as (url, asked), bounded():
        verdict = PrometheusBlocker(Prometheus(url=url, timeout=DEADLINE_SECONDS), SystemClock()).check()
        assert verdict.blocked
    assert len(asked) <= 1


@pytest.mark.parametrize("name", SERVERS)
def test_a_notification_ends(name: str) -> None:
    with hostile(SERVERS[name]) as (url, asked), bounded():
        # A status that arrived whole and is good decides; what follows it does not matter to a sender.
        ends_well = "body" in name or "bomb" in name or "JSON" in name
        with nullcontext() if ends_well else pytest.raises(NotSent) as refused:
            send(Post(url, {"text": "x"}), timeout_seconds=DEADLINE_SECONDS, environment={})
        assert refused is None or url not in str(refused.value)
    assert len(asked) <= 1


@pytest.mark.parametrize("name", ["header lines", "100 Continue, dripped", "bytes of a refusal", "silence"])
def test_the_beginning_of_a_watch_ends(name: str) -> None:
    with hostile(SERVERS[name]) as (url, _), bounded(), pytest.raises(CallFailed):
        list(kube(url).watch(NODES, resource_version="1"))


def test_an_event_without_end_ends_a_watch() -> None:
    """No newline ever comes."""
    harm = flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n")
    with hostile(harm) as (url, _), pytest.raises(Malformed):
        list(kube(url).watch(NODES, resource_version="1"))


@pytest.mark.parametrize("name", ["header lines", "bytes of the body", "100 Continue, dripped"])
def test_the_deadline_holds_under_tls(name: str) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with hostile(SERVERS[name], context) as (url, asked):
        with bounded(), pytest.raises(KubeError):
            kube(url, authority.cert_pem.bytes()).get(NODES, "worker-1")
        assert len(asked) <= 1


def test_a_handshake_that_drips_ends() -> None:
    """The first bytes of a TLS record, and then one byte after the other."""
    with hostile(drip(b"\x16\x03\x03\x40\x00", b"\x02")) as (url, _), bounded(), pytest.raises(CallFailed):
        kube(url.replace("http:", "https:"), trustme.CA().cert_pem.bytes()).get(NODES, "worker-1")


@pytest.fixture
def a_port_that_takes_no_connection() -> Iterator[int]:
    """Its backlog is full, so that the kernel answers no further one."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def names_api(addresses: Callable[[], list[tuple[str, int]]]) -> Callable[..., list[Any]]:
    """getaddrinfo with other addresses for one name; numbers are left to the system."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "localhost" or kwargs.get("flags"):
            return real(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses()]

    return resolve


def test_a_name_with_many_addresses_is_one_connection_to_wait_for(
    monkeypatch: pytest.MonkeyPatch, a_port_that_takes_no_connection: int
) -> None:
    """Whoever answers for the name chooses how many there are."""
    address = ("127.0.0.1", a_port_that_takes_no_connection)
    monkeypatch.setattr(socket, "getaddrinfo", names_api(lambda: [address] * 500))
    with bounded(), pytest.raises(CallFailed, match="no connection in time"):
        kube("http://localhost").get(NODES, "worker-1")


def test_a_resolver_that_hangs_is_waited_for_until_the_deadline_and_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cannot be interrupted; threads that wait for it must not add up."""
    stop, asked = threading.Event(), list[int]()

    def hang() -> list[tuple[str, int]]:
        asked.append(1)
        stop.wait(FAR_TOO_LONG_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", names_api(hang))
    with bounded():
        for _ in range(3):
            with pytest.raises(CallFailed, match="no connection in time"):
                kube("http://localhost").get(NODES, "worker-1")
        assert PrometheusBlocker(Prometheus(url="http://localhost", timeout=0.5), SystemClock()).check().blocked
    assert asked == [1]
    stop.set()


SHAPES: dict[str, Callable[[int], str]] = {
    "empty objects": lambda _: "{}",
    "empty lists": lambda _: "[]",
    "lists in lists": lambda _: "[" * 9 + "]" * 9,
    "objects in objects": lambda _: '{"a":' * 9 + "1" + "}" * 9,
    "keys": lambda number: f'{{"{number:x}":"{number:x}"}}',
    "six keys": lambda number: "{" + ",".join(f'"{number + key:x}":{number}' for key in range(6)) + "}",
    "texts": lambda number: f'"{number:x}"',
    "wide texts": lambda number: f'"{number:x}\U0001f600"',
    "escaped wide texts": lambda number: f'"{number:x}\\ud83d\\ude00{"a" * 50}"',
    "numbers": lambda number: f"{number + 300}",
    "fractions": lambda number: f"{number}.5",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_a_document_takes_is_never_underestimated(
    monkeypatch: pytest.MonkeyPatch, shape: Callable[[int], str]
) -> None:
    """Of each shape the smallest that is refused takes less than the limit when it is parsed all the same."""
    monkeypatch.setattr(bounded_http, "DOCUMENT_BYTES", 1 << 20)
    parts: list[str] = []
    while True:
        parts += [shape(number) for number in range(len(parts), len(parts) + 100)]
        body = f"[{','.join(parts)}]".encode()
        try:
            bounded_http.parse_json(body)
        except TooLarge:
            break
    tracemalloc.start()
    try:
        json.loads(body)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Memory for one of these answers, not for two."""
    body = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "n"}}] * 5000}).encode()
    size = bounded_http.memory_of(body)
    monkeypatch.setattr(bounded_http, "SMALL_BYTES", size // 10)
    monkeypatch.setattr(bounded_http, "DOCUMENT_BYTES", size * 3 // 2)
    monkeypatch.setattr(bounded_http, "_WAIT_SECONDS", 0.02)
    return body


def is_refused(body: bytes) -> bool:
    try:
        bounded_http.parse_json(body)
    except TooLarge:
        return True
    return False


def test_large_answers_share_one_limit_until_they_are_dropped(scarce: bytes) -> None:
    """Small ones do not count, and a body of many bytes does before it is parsed."""
    assert not is_refused(scarce)
    kept = bounded_http.parse_json(scarce)
    assert is_refused(scarce)
    assert bounded_http.parse_json(b'{"a": 1}') == {"a": 1}
    del kept
    assert not is_refused(scarce)
    body = bounded_http.Body()
    body.add(b" " * bounded_http.DOCUMENT_BYTES)
    assert is_refused(scarce)
    del body
    assert not is_refused(scarce)


def test_an_error_that_is_kept_keeps_no_memory(scarce: bytes) -> None:
    """Informers keep the last one, and with it the frames in which it was raised."""
    body = bounded_http.Body(len(scarce))
    body.add(b"x" * len(scarce))
    with pytest.raises(ValueError) as no_json:
        bounded_http.parse_json(body)
    other = bounded_http.Body(len(scarce))
    other.add(b"x" * len(scarce))
    with pytest.raises(TooLarge) as too_long:
        other.add(b"x")
    assert not is_refused(scarce)
    assert (no_json.value, len(other)) != (too_long.value, len(scarce))


def test_a_large_answer_waits_for_another(scarce: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "_WAIT_SECONDS", FAR_TOO_LONG_SECONDS)
    kept = [bounded_http.parse_json(scarce)]
    found = list[bool]()
    waiting = threading.Thread(target=lambda: found.append(is_refused(scarce)))
    waiting.start()
    waiting.join(0.1)
    assert found == []
    kept.clear()
    waiting.join(FAR_TOO_LONG_SECONDS)
    assert found == [False]


def test_a_page_counts_while_it_is_read(scarce: bytes) -> None:
    with hostile(whole(scarce)) as (url, _):
        objects = iter(kube(url).list(NODES))
        next(objects)
        assert is_refused(scarce)
        assert len(list(objects)) == 4999
    assert not is_refused(scarce)


def test_an_event_counts_while_it_is_read(scarce: bytes) -> None:
    event = b'{"type": "ADDED", "object": %s}\n' % scarce
    with hostile(whole(event)) as (url, _):
        changes = iter(kube(url).watch(NODES, resource_version="1"))
        next(changes)
        assert is_refused(scarce)
        changes.close()  # type: ignore[attr-defined]
    assert not is_refused(scarce)


def test_a_large_answer_is_an_object_of_a_few_keys(scarce: bytes) -> None:
    for body in (
        b"[%s]" % scarce,
        json.dumps({f"k{number}": [number] for number in range(len(scarce) // 30)}).encode(),
    ):
        with pytest.raises(ValueError, match="not an object of a few keys"):
            bounded_http.parse_json(body)


def test_the_second_address_is_taken_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(once(OK + b"Content-Length: 2\r\n\r\n{}")) as (url, _):
        port = int(url.rpartition(":")[2])
        monkeypatch.setattr(socket, "getaddrinfo", names_api(lambda: [("127.0.0.1", 1), ("127.0.0.1", port)]))
        assert kube("http://localhost").get(NODES, "worker-1") == {}
