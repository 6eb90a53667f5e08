"""For tests of the door to the API server: the door onto a test's server, time that only passes when someone waits, and
an HTTP server that answers exactly what it is told, for what no API server would do on purpose.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

from agent.kube import Change, ClientContext, EventType, Informer, Kube, RequestMetric, RetryPolicy, Watch
from tests.support.access import direct
from tests.support.apiservers import ApiServer

# How long a thread may take to do what it does at once; only a failing test waits so long.
PATIENCE_SECONDS = 240


@dataclass
class Time:
    """Monotonic seconds that pass while someone waits and at no other moment; `waits` are those waits."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)
    on_wait: Callable[[], None] | None = None

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        if self.on_wait is not None:
            self.on_wait()
        return False


@dataclass
class Seams:
    """What a test holds of a door: the time, what was sent, the stop."""

    time: Time = field(default_factory=Time)
    sent: list[RequestMetric] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def around(self) -> ClientContext:
        return ClientContext(stop=self.stop, clock=self.time.clock, wait=self.time.wait, on_request=self.sent.append)


def kube_client(url: str, token: str, authority: bytes = b"", seams: Seams | None = None, **retry: float) -> Kube:
    """A client of a server; without seams it lives in real time."""
    access = direct(url, token=token, authority=authority)
    around = seams.around() if seams else None
    return Kube(access, node="worker-1", retry=RetryPolicy(**retry) if retry else None, around=around)  # type: ignore[arg-type]


def client_of(server: ApiServer, seams: Seams | None = None) -> Kube:
    """An administrator's client of a test's API server."""
    return kube_client(server.url, server.token, authority_of(server), seams)


def authority_of(server: ApiServer) -> bytes:
    """PEM of its CA; empty when it speaks plain HTTP."""
    return server.ca.read_bytes() if server.ca else b""


def told(change: Change) -> tuple[EventType, str]:
    return change.seen, change.object.get("metadata", {}).get("name", "")


class Reader:
    """Reads a watch in a thread; `next` is what it told."""

    def __init__(self, source: Watch | Informer) -> None:
        self._told: Queue[Change | BaseException | None] = Queue()
        self.thread = threading.Thread(target=self._run, args=(source,), daemon=True)
        self.thread.start()

    def _run(self, source: Watch | Informer) -> None:
        try:
            for change in source:
                self._told.put(change)
            self._told.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            self._told.put(error)

    def next(self) -> Change:
        found = self._told.get(timeout=PATIENCE_SECONDS)
        if isinstance(found, BaseException):
            raise found
        assert found is not None, "the watch has ended"
        return found

    def until(self, seen: EventType, name: str = "") -> list[Change]:
        """Everything up to this."""
        changes = []
        while True:
            changes.append(self.next())
            if told(changes[-1]) == (seen, name):
                return changes

    def assert_ended(self) -> None:
        """The watch has ended by itself, and everything that it told was read."""
        found = self._told.get(timeout=PATIENCE_SECONDS)
        if isinstance(found, BaseException):
            raise found
        assert found is None
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


Script = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Scripted:
    """An HTTP server that runs. `seen` are the requests: method, path and headers."""

    url: str
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[Scripted]:
    """Answers every request by the script, HTTP/1.1, one thread a connection."""
    running = Scripted("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                # The other side has left; for a server of tests that is no news.
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

        def _do(self) -> None:
            running.seen.append((self.command, self.path, {name.lower(): text for name, text in self.headers.items()}))
            script(self)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_CONNECT = _do  # noqa: N815

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

        def get_request(self) -> tuple[socket.socket, object]:
            connected, address = super().get_request()
            if tls is None:
                return connected, address
            connected.settimeout(10)
            return tls.wrap_socket(connected, server_side=True, do_handshake_on_connect=False), address

    with Server((host, port), Handler) as server:
        name = f"[{host}]" if ":" in host else host
        running.url = f"{'https' if tls else 'http'}://{name}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def answer(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """A whole answer of JSON."""
    request.send_response(status)
    for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), text)
    request.end_headers()
    request.wfile.write(body)
