"""Requests without credentials to the ports of the control plane on this node, to see what they give away.

Nothing secret is sent, no certificate is verified, and of an answer only its status and a short piece of its body are
read. With TLS 1.3 a handshake succeeds before the server has missed a client's certificate, so that only a byte of an
answer decides. One deadline covers each exchange.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import ssl
import warnings
from dataclasses import dataclass
from typing import Any

from agent.bounded_socket import connect, deadline, with_deadline
from agent.controls.x509 import Certificate, NotACertificate, parse

TIMEOUT_SECONDS = 1.5
_BODY_BYTES = 64 << 10
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b")


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. status: of HTTP, None when there was none. error: why not; `refused`: nothing listens there.

    certificate: what was served, None without TLS or where it cannot be read. handshake: whether TLS was spoken.
    """

    status: int | None = None
    body: bytes = b""
    error: str = ""
    handshake: bool = False
    certificate: Certificate | None = None

    def __str__(self) -> str:
        return f"HTTP {self.status}" if self.status is not None else self.error

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        try:
            found = json.loads(self.body.partition(b"\r\n\r\n")[2])
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def get(address: str, port: int, path: str, *, tls: bool, newest: Any = None) -> Response:
    """One GET without credentials. newest: the newest version of TLS that is offered. Never raises."""
    host = f"[{address}]" if ":" in address else address
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", "Accept: */*",
             "User-Agent: node-hardening-agent")  # fmt: skip
    handshake, certificate = False, None
    context = _context(newest) if tls else None
    try:
        with deadline(TIMEOUT_SECONDS):
            plain = connect(address, port, None, ())
            with plain if context is None else context.wrap_socket(plain) as channel:
                if isinstance(channel, ssl.SSLSocket):
                    handshake, certificate = True, _certificate(channel)
                with contextlib.suppress(OSError):  # refused meanwhile: the alert to be read has the reason
                    channel.sendall("\r\n".join((*lines, "", "")).encode())
                return _answer(channel, handshake=handshake, certificate=certificate)
    except ConnectionRefusedError:
        error = "refused"
    except TimeoutError:
        error = "no answer in time"
    except ssl.SSLError as failed:
        error = f"TLS: {failed.reason or failed}"
    except (OSError, OverflowError) as failed:
        error = errno.errorcode.get(getattr(failed, "errno", 0) or 0, type(failed).__name__)
    return Response(error=error, handshake=handshake, certificate=certificate)


def _context(newest: Any) -> ssl.SSLContext:
    context = with_deadline(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):  # of versions that this is here to find
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    return context


def _certificate(channel: ssl.SSLSocket) -> Certificate | None:
    try:
        return parse(channel.getpeercert(binary_form=True) or b"")
    except NotACertificate:
        return None


def _answer(channel: Any, *, handshake: bool, certificate: Certificate | None) -> Response:
    """Status and the beginning of the body. Raises OSError before the first byte only."""
    text = b""
    try:
        while len(text) < _BODY_BYTES and (chunk := channel.recv(16 << 10)):
            text += chunk
    except OSError:
        if not text:
            raise
    found = _STATUS_LINE.match(text)
    if found is None:
        return Response(error="closed without an answer" if not text else "not HTTP", handshake=handshake,
                      certificate=certificate)  # fmt: skip
    return Response(int(found[1]), text, handshake=handshake, certificate=certificate)
