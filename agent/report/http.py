"""/metrics, /healthz and /readyz on one small HTTP server: GET alone, one request a connection, one thread.

Whoever reaches the node reaches this port, so everything is bounded: connections, bytes of a request, seconds for it.
When there are too many connections the oldest is closed, because a probe of the kubelet is always among the newest. It
refuses to log what clients do.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry

from agent.config.scalar_types import split_address
from agent.errors import UsageError
from agent.report import exposition

REQUEST_BYTES = 8 << 10
CONNECTIONS = 32
EXCHANGE_SECONDS = 10.0
_DESCRIPTORS_PAUSE_SECONDS = 0.1

_TEXT = "text/plain; charset=utf-8"

Probe = Callable[[], tuple[bool, str]]


@dataclass(slots=True)
class _ClientConnection:
    """One connection: the request as far as it has arrived, then what is left of the answer."""

    client: socket.socket
    ends: float
    request: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class StatusServer:
    """Serves in a thread of its own. `healthy` and `ready` answer whether, and one line why; they must not wait."""

    def __init__(self, address: str, registry: CollectorRegistry, *, healthy: Probe, ready: Probe) -> None:
        """Listens; connections wait until `start`. Raises UsageError when the address cannot be listened on."""
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
        except OSError as error:
            raise UsageError(f"metrics.address {address}: cannot listen: {error.strerror}") from error
        self._listener.setblocking(False)
        self._registry = registry
        self._probes = {"/healthz": healthy, "/livez": healthy, "/readyz": ready}
        self._selector = selectors.DefaultSelector()
        self._exchanges: dict[socket.socket, _ClientConnection] = {}  # in the order of their beginning
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="status-server", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was configured."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops listening and drops answers under way."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread.is_alive():
            self._thread.join(EXCHANGE_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        with self._selector:
            self._selector.register(self._listener, selectors.EVENT_READ)
            while not self._closed:
                oldest = next(iter(self._exchanges.values()), None)
                left = None if oldest is None else max(0.0, oldest.ends - time.monotonic())
                for key, _ in self._selector.select(left):
                    if key.data is None:
                        self._accept()
                    elif key.data.client in self._exchanges:  # not closed meanwhile to admit another
                        self._continue(key.data)
                self._expire()
            for exchange in list(self._exchanges.values()):
                self._end(exchange)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:  # gone already, or no file descriptor is left: the kernel keeps it in the backlog
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_DESCRIPTORS_PAUSE_SECONDS)  # it would be ready again immediately
            return
        if len(self._exchanges) >= CONNECTIONS:
            self._end(next(iter(self._exchanges.values())))
        client.setblocking(False)
        exchange = self._exchanges[client] = _ClientConnection(client, time.monotonic() + EXCHANGE_SECONDS)
        self._selector.register(client, selectors.EVENT_READ, exchange)

    def _continue(self, exchange: _ClientConnection) -> None:
        try:
            if exchange.answer is None:
                self._read(exchange)
            else:
                exchange.answer = exchange.answer[exchange.client.send(exchange.answer) :]
                if not exchange.answer:
                    self._end(exchange)
        except BlockingIOError:
            pass
        except OSError:  # the client has left: a scrape that timed out, for example
            self._end(exchange)

    def _read(self, exchange: _ClientConnection) -> None:
        part = exchange.client.recv(REQUEST_BYTES - len(exchange.request))
        exchange.request += part
        if b"\r\n\r\n" in exchange.request:
            exchange.answer = memoryview(self._answer(exchange.request.partition(b"\r\n")[0]))
            self._selector.modify(exchange.client, selectors.EVENT_WRITE, exchange)
        elif not part or len(exchange.request) == REQUEST_BYTES:
            self._end(exchange)

    def _answer(self, line: bytes | bytearray) -> bytes:
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _encoded(400, b"not HTTP/1\n", _TEXT)
        if method != b"GET":
            return _encoded(405, b"only GET\n", _TEXT)
        path = target.partition(b"?")[0].decode("latin-1")
        try:
            if path == "/metrics":
                return _encoded(200, exposition.exposition(self._registry), exposition.CONTENT_TYPE)
            if path in self._probes:
                good, why = self._probes[path]()
                return _encoded(200 if good else 503, f"{why}\n".encode(), _TEXT)
        except Exception:  # noqa: BLE001 - a defect of a collector must not end the probes
            structlog.get_logger().exception("status_request_failed", path=path)
            return _encoded(500, b"see the agent's log\n", _TEXT)
        return _encoded(404, b"try /metrics, /healthz or /readyz\n", _TEXT)

    def _expire(self) -> None:
        now = time.monotonic()
        for exchange in list(self._exchanges.values()):
            if exchange.ends > now:
                return
            self._end(exchange)

    def _end(self, exchange: _ClientConnection) -> None:
        del self._exchanges[exchange.client]
        self._selector.unregister(exchange.client)
        exchange.client.close()


def _encoded(status: int, body: bytes, kind: str) -> bytes:
    allow = "Allow: GET\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + body
