"""/metrics, /healthz and /readyz on one small HTTP server. It answers GET, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import Any

from prometheus_client import CollectorRegistry

from agent.errors import UsageError
from agent.report import exposition

_TEXT = "text/plain; charset=utf-8"
_FOR_EVER = 3600.0  # serve_forever wakes this often when nobody asks; half a second is its default

Probe = Callable[[], tuple[bool, str]]


class StatusServer:
    """Serves in a thread of its own. `healthy` and `ready` answer whether, and one line why."""

    def __init__(self, address: str, registry: CollectorRegistry, *, healthy: Probe, ready: Probe) -> None:
        """Raises UsageError when the address cannot be listened on."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else AF_INET
            daemon_threads = True

        try:
            self._server = Server((host, int(port)), _handler(registry, healthy, ready))
        except OSError as error:
            raise UsageError(f"metrics.address {address}: cannot listen: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_FOR_EVER,), name="status-server", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stops listening; answers under way end with the process."""
        self._server.server_close()


def _handler(registry: CollectorRegistry, healthy: Probe, ready: Probe) -> type[BaseHTTPRequestHandler]:
    probes = {"/healthz": healthy, "/livez": healthy, "/readyz": ready}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            try:
                self._get()
            except ConnectionError:
                self.close_connection = True  # whoever asked has hung up, a scrape that timed out for one

        def _get(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, exposition.exposition(registry), exposition.CONTENT_TYPE)
            elif path in probes:
                good, why = probes[path]()
                self._answer(200 if good else 503, f"{why}\n".encode(), _TEXT)
            else:
                self._answer(404, b"try /metrics, /healthz or /readyz\n", _TEXT)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Scrapes are not news."""

    return Handler
