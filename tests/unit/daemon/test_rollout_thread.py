"""The thread that polls the canaries: what it requests, when, and what it makes of an API server's refusals."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import annotations as keys
from agent.daemon.config_store import PolicyStore
from agent.daemon.rollout_thread import LONGEST_SECONDS, Rollouts, next_poll_seconds
from agent.errors import KubeError
from agent.event_reasons import Reason
from agent.host import Host
from agent.kube.errors import Forbidden, NotFound, Operation, Unreachable
from agent.kube.retry import Backoff
from agent.report.node_status import NodeView
from agent.rollout.decision import MOST_CANARIES, Pending, Step

OPERATION = Operation("GET", "get", "configmaps", "configmaps/node-hardening-rollout", "/x")


class Server:
    """Stands for the API server: its canaries, the user's order, and how it refuses."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.order: dict[str, Any] | KubeError = NotFound(OPERATION, "none", status=404)
        self.away = False
        self.requests: list[str] = []

    def list(self, _resource: object, *, label_selector: str, page_size: int) -> list[dict[str, Any]]:
        self.requests.append(f"list {label_selector} {page_size}")
        if self.away:
            raise Unreachable(OPERATION, "away")
        return self.nodes

    def get(self, _resource: object, name: str, namespace: str) -> dict[str, Any]:
        self.requests.append(f"get {namespace}/{name}")
        if isinstance(self.order, KubeError):
            raise self.order
        return self.order


class Site:
    """A node that holds a policy back, and the thread; `take` ends it when the policy is to be read again."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.yaml"
        self.store = PolicyStore(self.file, Host(folder), explicit=True)
        self.server, self.stop = Server(), threading.Event()
        self.events: list[Reason] = []
        self.views: list[NodeView] = []
        self.reloads = 0
        self.after_poll = self.end
        self.spawned: list[Callable[[], None]] = []
        server: Any = self.server
        self.rollouts = Rollouts(
            server, self.store.staging, self, namespace="ns", reload=self.reload, stop=self.stop,
            spawn=self.spawned.append, chance=random.Random(1),
        )  # fmt: skip
        for interval in ("1m", "2m"):
            self.read(interval)
        pending = self.store.staging.pending
        assert pending is not None
        self.target = pending[0].target

    def read(self, interval: str, canary: str = "canary=true") -> None:
        self.file.write_text(json.dumps({"interval": interval, "rollout": {"canary": canary, "soak": "0s"}}))
        self.store.load()

    def reload(self) -> None:
        self.reloads += 1
        self.store.load()
        self.end()

    def end(self) -> None:
        self.stop.set()
        self.rollouts.wake()

    def offer(self, _part: str, shown: NodeView) -> None:
        """After the first poll that decides nothing the thread is ended, too."""
        self.views.append(shown)
        self.after_poll()

    def event(self, reason: Reason, _message: str) -> None:
        self.events.append(reason)

    def canary(self, verdict: str) -> None:
        note = json.dumps({"revision": self.target, "verdict": verdict, "since": "2020-01-01T00:00:00Z"})
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
        self.server.nodes.append(
            {"metadata": {"name": "c", "labels": {"canary": "true"}, "annotations": {keys.ROLLOUT: note}},
             "status": {"conditions": [ready]}}
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_poll_is_one_list_and_one_small_get(site: Site) -> None:
    site.canary("verified")
    site.rollouts.run()
    assert site.server.requests == [f"list canary=true {MOST_CANARIES + 1}", "get ns/node-hardening-rollout"]
    assert site.reloads == 1
    assert site.store.staging.pending is None


@pytest.mark.parametrize("refusal", [NotFound(OPERATION, "none", status=404), Forbidden(OPERATION, "no", status=403)])
def test_without_an_order_the_canaries_decide(site: Site, refusal: KubeError) -> None:
    site.server.order = refusal
    site.canary("failed")
    site.rollouts.run()
    assert site.reloads == 0
    assert site.views[-1].conditions[0].reason == "CanaryFailed"


def test_a_user_decides_over_the_canaries(site: Site) -> None:
    site.server.order = {"data": {"decision": "promote", "revision": site.target}}
    site.canary("failed")
    site.rollouts.run()
    assert site.reloads == 1


def test_an_api_server_that_is_away_changes_nothing(site: Site) -> None:
    site.server.away = True
    site.rollouts.run()
    assert site.reloads == 0
    assert site.views[-1].conditions[0].reason == "WaitingForCanaries"
    assert site.events == []


def test_another_selector_for_the_same_policy_counts_from_the_next_poll(site: Site) -> None:
    """A user corrects one that matches no node, and that alone."""

    def correct() -> None:
        site.read("2m", "corrected=true")
        site.rollouts.wake()
        site.after_poll = site.end

    site.after_poll = correct
    site.rollouts.run()
    assert [request for request in site.server.requests if request.startswith("list")] == [
        f"list {selector}=true {MOST_CANARIES + 1}" for selector in ("canary", "corrected")
    ]


@pytest.mark.parametrize("soak_seconds", [60.0, 1800.0, 86400.0])
def test_a_user_who_decides_during_the_soak_time_waits_ten_minutes_at_most(soak_seconds: float) -> None:
    chance = random.Random(1)
    backoff = Backoff(30.0, LONGEST_SECONDS, chance)
    for left in (soak_seconds, soak_seconds / 2, 1.0):
        wait = next_poll_seconds(Step(Pending("a", 0.0), wait_seconds=left), soak_seconds, backoff, chance)
        assert 1.0 <= wait <= LONGEST_SECONDS


class Waits(threading.Event):
    """The thread's waits, which take no time; the last one ends it."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._end = end

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        if len(self.seconds) == 8:
            self._end()
        return self.is_set()


def test_a_policy_that_cannot_be_read_when_its_turn_comes_is_asked_for_ever_more_rarely(site: Site) -> None:
    """The ConfigMap holds something invalid by then: every node polled within a second, and made a pass each time."""
    site.canary("verified")
    site.file.write_text("interval: [")
    site.end, end = lambda: None, site.end  # type: ignore[method-assign]
    waits = site.rollouts._wake = Waits(end)
    site.rollouts.run()
    assert site.reloads == 7
    assert waits.seconds[-1] >= 16 * waits.seconds[0]


def test_there_is_a_thread_only_while_something_is_held_back(site: Site) -> None:
    """And one alone, however often the policy is read."""
    for _ in range(3):
        site.rollouts.wake()
    assert len(site.spawned) == 1
    site.canary("verified")
    site.spawned[0]()
    site.stop.clear()
    site.rollouts.wake()
    assert len(site.spawned) == 1
    assert len(site.server.requests) == 2
    site.file.write_text(json.dumps({"interval": "3m", "rollout": {"canary": "canary=true"}}))
    site.store.load()
    site.rollouts.wake()
    assert len(site.spawned) == 2
