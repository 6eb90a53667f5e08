"""The agent's own HTTP server, asked over sockets: what it answers, and what clients cannot make it do."""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge

from agent.errors import UsageError
from agent.report import http
from agent.report.http import StatusServer

GOOD = (True, "good")
PATIENCE_SECONDS = 240.0


@pytest.fixture
def server() -> Iterator[StatusServer]:
    registry = CollectorRegistry()
    Gauge("a_number", "A number.", registry=registry).set(4)
    running = StatusServer("127.0.0.1:0", registry, healthy=lambda: GOOD, ready=lambda: (False, "not yet"))
    running.start()
    try:
        yield running
    finally:
        running.close()


def connect(server: StatusServer, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
    client.sendall(sent)
    return client


def ask(server: StatusServer, sent: bytes) -> bytes:
    """What it answers before it closes; empty when it closes without a word."""
    with connect(server) as client, suppress(ConnectionError):
        with suppress(OSError):  # closed while more is sent
            client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65536), b""))
    return b""


def test_it_answers_what_it_has(server: StatusServer) -> None:
    base = f"http://127.0.0.1:{server.port}"
    assert "a_number 4.0" in requests.get(f"{base}/metrics?x=1", timeout=PATIENCE_SECONDS).text
    for path, status, text in (("/healthz", 200, "good\n"), ("/livez", 200, "good\n"), ("/readyz", 503, "not yet\n")):
        answer = requests.get(base + path, timeout=PATIENCE_SECONDS)
        assert (answer.status_code, answer.text) == (status, text)
    assert requests.get(f"{base}/other", timeout=PATIENCE_SECONDS).status_code == 404
    assert requests.post(f"{base}/metrics", timeout=PATIENCE_SECONDS).status_code == 405


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"\r\n\r\n", b"400"),
        (b"GET /healthz\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * http.REQUEST_BYTES, b""),
        (b"GET /" + b"a" * 7000 + b" HTTP/1.1\r\n\r\n", b"404"),
    ],
)
def test_odd_requests(server: StatusServer, sent: bytes, status: bytes) -> None:
    assert ask(server, sent).partition(b" ")[2][:3] == status


def test_a_client_that_resets_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    """A scrape that timed out leaves no traceback in the log, and the next one is answered."""
    asked, gone = threading.Event(), threading.Event()

    def slow() -> tuple[bool, str]:
        asked.set()
        gone.wait(PATIENCE_SECONDS)
        return GOOD

    running = StatusServer("127.0.0.1:0", CollectorRegistry(), healthy=slow, ready=lambda: GOOD)
    running.start()
    try:
        with connect(running, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            # Closing is a reset then, which the next write runs into.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert asked.wait(PATIENCE_SECONDS)
        gone.set()
        assert ask(running, b"GET /readyz HTTP/1.1\r\n\r\n").endswith(b"good\n")
    finally:
        running.close()
    assert capfd.readouterr().err == ""


def test_many_clients_with_large_headers_cost_no_memory(server: StatusServer) -> None:
    """40 connections with 98 headers of 64 KiB took 278 MB once; the probes are answered meanwhile."""
    headers = b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 65000) for n in range(98))

    def send(client: socket.socket) -> None:
        with suppress(OSError):
            client.sendall(headers)

    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(40)]
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        threads = [threading.Thread(target=send, args=(client,)) for client in clients]
        before = threading.active_count()
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert ask(server, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"good\n")
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        assert threading.active_count() <= before


def test_idle_connections_make_room_for_new_ones(server: StatusServer) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(server, b"GET /")) for _ in range(3 * http.CONNECTIONS)]
        assert ask(server, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"good\n")
        with suppress(ConnectionError):
            assert idle[0].recv(1) == b""  # the oldest was closed


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nX: ", b"GET /metrics HTTP/1.1\r\n\r\n"])
def test_a_client_that_stops_is_let_go(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """While it sends, and while it does not read what is far more than the kernel takes."""
    monkeypatch.setattr(http, "EXCHANGE_SECONDS", 0.2)
    registry = CollectorRegistry()
    Gauge("wide", "x" * (32 << 20), registry=registry)
    running = StatusServer("127.0.0.1:0", registry, healthy=lambda: GOOD, ready=lambda: GOOD)
    running.start()
    try:
        with connect(running, sent) as client:
            ended = threading.Event()
            while not running._exchanges and not ended.wait(0.01):
                pass
            while running._exchanges and not ended.wait(0.01):
                pass
            with suppress(ConnectionError):
                assert len(b"".join(iter(lambda: client.recv(1 << 20), b""))) < 32 << 20
    finally:
        running.close()


def test_without_a_free_file_descriptor_it_waits(server: StatusServer) -> None:
    """A connection that cannot be accepted is ready at every look: the thread must not take a core for it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    (thread,) = [one for one in threading.enumerate() if one.name == "status-server"]
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    with socket.socket() as client:
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            client.connect(("127.0.0.1", server.port))
            before = time.clock_gettime(clock)
            time.sleep(0.5)
            assert time.clock_gettime(clock) - before < 0.1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 200")


def test_a_broken_collector_does_not_end_the_probes(server: StatusServer) -> None:
    class Broken:
        def collect(self) -> Iterator[object]:
            raise RuntimeError("no")

        def describe(self) -> list[object]:
            return []

    server._registry.register(Broken())  # type: ignore[arg-type]
    assert b" 500 " in ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert ask(server, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"good\n")


def test_an_address_that_is_taken_is_named(server: StatusServer) -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        StatusServer(f"127.0.0.1:{server.port}", CollectorRegistry(), healthy=lambda: GOOD, ready=lambda: GOOD)


def test_closing_frees_the_port(server: StatusServer) -> None:
    address = f"127.0.0.1:{server.port}"
    server.close()
    StatusServer(address, CollectorRegistry(), healthy=lambda: GOOD, ready=lambda: GOOD).close()
