"""An HTTP server without a network: it answers on socket pairs, what a test has written down, request by request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from agent import bounded_http
from agent.bounded_socket import BoundedSocket

URL = "http://127.0.0.1:1"
DROPPED = b""  # the connection ends where the response should be


def response(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Offline:
    """Every connection of the client's while it is installed; `requests` are the first lines that arrived, in order."""

    def __init__(self, responses: Sequence[bytes] = ()) -> None:
        """responses: the last one is repeated."""
        self.opened = 0
        self.requests: list[str] = []
        self._responses = list(responses) or [response(200)]

    def connect(self, *_: Any) -> BoundedSocket:
        """What stands in for bounded_http.connect."""
        self.opened += 1
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return BoundedSocket(ours.family, ours.type, ours.proto, ours.detach())

    def _serve(self, theirs: socket.socket) -> None:
        with theirs:
            received = b""
            while part := theirs.recv(65536):
                received += part
                head, end, body = received.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0
                )
                if not end or len(body) < length:
                    continue
                received = body[length:]
                self.requests.append(head.partition(b"\r\n")[0].decode())
                answer = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
                if not answer:
                    return
                with contextlib.suppress(OSError):  # the client has read enough
                    theirs.sendall(answer)


@contextmanager
def offline(monkeypatch: pytest.MonkeyPatch, *responses: bytes) -> Iterator[Offline]:
    """Installs one that gives these responses."""
    server = Offline(responses)
    with monkeypatch.context() as patch:
        patch.setattr(bounded_http, "connect", server.connect)
        yield server
