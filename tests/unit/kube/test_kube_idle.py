"""How long a connection to the API server may lie idle and still be used."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agent.kube import NODES, Kube
from tests.support.access import direct
from tests.support.offline import URL, offline


@pytest.mark.parametrize(
    ("idle_seconds", "requests", "connections"), [(59.0, 2, 1), (61.0, 2, 2), (3600.0, 2, 2), (40.0, 4, 1)]
)
def test_a_connection_that_was_idle_for_a_minute_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, idle_seconds: float, requests: int, connections: int
) -> None:
    """A load balancer may have dropped it silently, and a write that is sent into it has an unknown result.

    It is the idle time that counts, not the age: one in constant use is kept.
    """
    now = 1000.0
    monkeypatch.setattr("agent.kube.transport.time", SimpleNamespace(monotonic=lambda: now))
    kube = Kube(direct(URL), node="worker-1")
    with offline(monkeypatch) as server:
        for _ in range(requests):
            kube.get(NODES, "worker-1")
            now += idle_seconds
        kube.close()
    assert server.opened == connections
