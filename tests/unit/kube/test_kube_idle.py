"""How long a connection to the API server may lie idle and still be used."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3

from agent.kube import NODES, Kube, direct

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class _Connections:
    """Answers every request on every connection that urllib3 opens, without a network; keeps the virtual time."""

    def __init__(self) -> None:
        self.opened = 0
        self.now = 1000.0

    def create(self, *_: Any, **__: Any) -> socket.socket:
        self.opened += 1
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._answer, args=(theirs,), daemon=True).start()
        return ours

    @staticmethod
    def _answer(theirs: socket.socket) -> None:
        with theirs:
            while theirs.recv(65536):
                theirs.sendall(RESPONSE)


@pytest.mark.parametrize(("idle_seconds", "connections"), [(59.0, 1), (61.0, 2), (3600.0, 2)])
def test_a_connection_that_was_idle_for_a_minute_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, idle_seconds: float, connections: int
) -> None:
    """A load balancer may have dropped it silently, and a write that is sent into it has an unknown result."""
    server = _Connections()
    monkeypatch.setattr(urllib3.util.connection, "create_connection", server.create)
    monkeypatch.setattr("agent.kube.transport.time", SimpleNamespace(monotonic=lambda: server.now))
    kube = Kube(direct("http://127.0.0.1:1"), node="worker-1")
    try:
        kube.get(NODES, "worker-1")
        server.now += idle_seconds
        kube.get(NODES, "worker-1")
    finally:
        kube.close()
    assert server.opened == connections


def test_a_connection_in_constant_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the idle time that counts, not the age."""
    server = _Connections()
    monkeypatch.setattr(urllib3.util.connection, "create_connection", server.create)
    monkeypatch.setattr("agent.kube.transport.time", SimpleNamespace(monotonic=lambda: server.now))
    kube = Kube(direct("http://127.0.0.1:1"), node="worker-1")
    try:
        for _ in range(4):
            kube.get(NODES, "worker-1")
            server.now += 40.0
    finally:
        kube.close()
    assert server.opened == 1
