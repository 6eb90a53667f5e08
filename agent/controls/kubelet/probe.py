"""Requests /pods from the running kubelet, without credentials, to see what it gives away.

The certificate is not verified on purpose: nothing secret is sent, nothing that is answered is trusted, and a kubelet's
serving certificate is self-signed more often than not. Only the status line is read. One deadline covers the whole
exchange, however slowly the other side sends. Which addresses may be probed is http_findings' to decide.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from agent.bounded_socket import connect, deadline, with_deadline

TIMEOUT_SECONDS = 2.0
PATH = "/pods"
_CHUNK = 4096
_STATUS_LINE_BYTES = 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came back. status: of HTTP, None when there was none. refused: nothing listens there. error: why not."""

    status: int | None = None
    refused: bool = False
    error: str = ""

    def __str__(self) -> str:
        return f"HTTP {self.status}" if self.status is not None else "refused" if self.refused else self.error


class Prober(Protocol):
    """Sends one anonymous GET /pods."""

    def secure(self, address: str, port: int, /) -> ProbeResult:
        """Over TLS, as to port 10250. Never raises."""

    def http(self, address: str, port: int, /) -> ProbeResult:
        """Over plain HTTP, as to port 10255. Never raises."""


class HttpProber:
    """The real one."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds

    def secure(self, address: str, port: int) -> ProbeResult:
        context = with_deadline(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return self._probe(address, port, context)

    def http(self, address: str, port: int) -> ProbeResult:
        return self._probe(address, port, None)

    def _probe(self, address: str, port: int, context: ssl.SSLContext | None) -> ProbeResult:
        host = f"[{address}]" if ":" in address else address
        request = f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        request += "User-Agent: node-hardening-agent\r\n\r\n"
        try:
            with deadline(self._timeout):
                plain = connect(address, port, None, ())
                with plain if context is None else context.wrap_socket(plain) as channel:
                    channel.sendall(request.encode())
                    return _status(channel)
        except ConnectionRefusedError:
            return ProbeResult(refused=True, error="refused")
        except TimeoutError:
            return ProbeResult(error="no answer in time")
        except ssl.SSLError as error:
            return ProbeResult(error=f"TLS: {error.reason or error}")
        except (OSError, OverflowError) as error:
            return ProbeResult(error=errno.errorcode.get(getattr(error, "errno", 0) or 0, type(error).__name__))


def _status(channel: socket.socket) -> ProbeResult:
    """The status of the answer. Raises OSError."""
    line = b""
    while b"\n" not in line and len(line) < _STATUS_LINE_BYTES:
        chunk = channel.recv(_CHUNK)
        if not chunk:
            break
        line += chunk
    found = _STATUS_LINE.match(line)
    return ProbeResult(int(found[1])) if found else ProbeResult(error="not HTTP")
