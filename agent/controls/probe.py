"""Requests without credentials to the ports of the kubelet and of the control plane, to see what they give away.

Nothing secret is sent, no certificate is verified, and of an answer only its status and a short piece of its body are
read. Which addresses may be asked is the caller's to decide. With TLS 1.3 a handshake succeeds before the server has
missed a client's certificate, so that only a byte of an answer decides. One deadline covers each exchange.
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
from agent.text import url_host

TIMEOUT_SECONDS = 1.5
REFUSED = "refused"  # nothing listens there
_ANSWER_BYTES = 64 << 10
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b")


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. status: of HTTP, None when there was none. error: why not, or REFUSED.

    certificate: what was served, None without TLS or where it cannot be read.
    """

    status: int | None = None
    body: bytes = b""
    error: str = ""
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


def get(
    address: str, port: int, path: str, *, tls: bool, newest: Any = None, timeout_seconds: float = TIMEOUT_SECONDS,
    limit_bytes: int = _ANSWER_BYTES,
) -> Response:  # fmt: skip
    """One GET without credentials. newest: the newest version of TLS that is offered. Never raises."""
    lines = (f"GET {path} HTTP/1.1", f"Host: {url_host(address)}:{port}", "Connection: close", "Accept: */*",
             "User-Agent: node-hardening-agent")  # fmt: skip
    text, certificate, error = b"", None, "closed without an answer"
    context = _context(newest) if tls else None
    try:
        with deadline(timeout_seconds):
            plain = connect(address, port, None, ())
            with plain if context is None else context.wrap_socket(plain) as channel:
                if isinstance(channel, ssl.SSLSocket):
                    certificate = _certificate(channel)
                with contextlib.suppress(OSError):  # refused meanwhile: the alert to be read has the reason
                    channel.sendall("\r\n".join((*lines, "", "")).encode())
                while len(text) < limit_bytes and (chunk := channel.recv(16 << 10)):
                    text += chunk
    except ConnectionRefusedError:
        error = REFUSED
    except TimeoutError:
        error = "no answer in time"
    except ssl.SSLError as failed:
        error = f"TLS: {failed.reason or failed}"
    except (OSError, OverflowError) as failed:
        error = errno.errorcode.get(getattr(failed, "errno", 0) or 0, type(failed).__name__)
    if found := _STATUS_LINE.match(text):  # whatever happened after it
        return Response(int(found[1]), text, certificate=certificate)
    return Response(error="not HTTP" if text else error, certificate=certificate)


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
