"""Polls the canaries while a changed policy is held back, and makes no request otherwise.

A poll is one list of Nodes and one ConfigMap. Polls come with back-off, spread over the nodes; the last one is when
the soak time ends. Everything that is decided is in agent/rollout/decision.py.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from typing import Any

import structlog

from agent.config.selector import Selector
from agent.daemon.loop import Sink
from agent.daemon.staging import Staging
from agent.errors import KubeError
from agent.event_reasons import Reason
from agent.kube import CONFIGMAPS, NODES, Kube
from agent.kube.errors import Forbidden, NotFound
from agent.kube.retry import Backoff
from agent.rollout import reports
from agent.rollout.decision import MOST_CANARIES, Observation, Phase, Step

LONGEST_SECONDS = 600.0  # a user's decision takes effect within it
_LONGEST_FIRST_SECONDS = 30.0
_SPREAD = 0.1  # of the soak time, so that not all nodes change in the same second


def next_poll_seconds(step: Step, soak_seconds: float, backoff: Backoff, chance: random.Random) -> float:
    """With back-off; during the soak time until it ends, but not longer either: a user may decide before."""
    if step.wait_seconds is None:
        return backoff.next()
    until_end = step.wait_seconds + chance.uniform(0.0, _SPREAD * soak_seconds)
    return min(until_end, LONGEST_SECONDS * chance.uniform(0.8, 1.0))


class Rollouts:
    """Has a thread only while something is held back, for most nodes never."""

    def __init__(
        self, kube: Kube, staging: Staging, sink: Sink, *, namespace: str, reload: Callable[[], None],
        stop: threading.Event, spawn: Callable[[Callable[[], None]], None], chance: random.Random | None = None,
    ) -> None:  # fmt: skip
        """namespace: the agent's own. reload: makes the loop read the policy again. spawn: runs it in a thread."""
        self._kube, self._staging, self._sink, self._namespace = kube, staging, sink, namespace
        self._reload, self._stop, self._spawn = reload, stop, spawn
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._target = ""
        self._is_running = False
        self._log = structlog.get_logger()

    def wake(self) -> None:
        """What is held back may be another policy now. Polls for the same one keep their time."""
        with self._lock:
            pending = self._staging.pending
            if (pending[0].target if pending else "") == self._target and not self._stop.is_set():
                return
            self._wake.set()
            if pending and not self._is_running:
                self._spawn(self.run)
                self._is_running = True

    def run(self) -> None:
        """Polls until nothing is held back, or `stop` is set and `wake` was called."""
        while True:
            with self._lock:
                self._wake.clear()
                pending = self._staging.pending
                self._target = pending[0].target if pending else ""
                if pending is None or self._stop.is_set():
                    self._is_running = False
                    return
            self._follow(pending[0].target, pending[1].soak)

    def _follow(self, target: str, soak_seconds: float) -> None:
        """Until it is decided, or something else is pending. How it is rolled out may change meanwhile."""
        first = min(max(soak_seconds / 60, 1.0), _LONGEST_FIRST_SECONDS)
        backoff = Backoff(first, LONGEST_SECONDS, self._chance)
        wait_seconds = backoff.next()
        while not self._wake.wait(wait_seconds):
            if (pending := self._staging.pending) is None or pending[0].target != target:
                return
            step = self._staging.observe(target, self._poll(target, pending[1].canary))
            if step is None or step.take:
                self._reload()
            if step is None:
                return
            if not step.take:  # else `wake` ends it, once the policy is read; the file may hold nothing valid by now
                self._show(step)
            wait_seconds = next_poll_seconds(step, pending[1].soak, backoff, self._chance)

    def _show(self, step: Step) -> None:
        if step.announce:
            self._sink.event(Reason.POLICY_ROLLOUT_STUCK, reports.stuck(step.pending, step.waits_for))
        self._staging.show(self._sink.offer)
        if step.pending.phase is Phase.ABORTED and self._staging.runs_aborted:
            self._reload()

    def _poll(self, target: str, selector: Selector) -> Observation | None:
        """None when the API server did not answer. Nothing but what is compared is kept of a Node."""
        try:
            listed = self._kube.list(NODES, label_selector=str(selector), page_size=MOST_CANARIES + 1)
            nodes = itertools.islice(listed, MOST_CANARIES + 1)
            return reports.observation(nodes, selector, self._orders(), target)
        except KubeError as error:
            self._log.warning("canaries_not_read", error=str(error))
            return None

    def _orders(self) -> dict[str, Any]:
        """Raises KubeError. Without the right to read it no user can decide, and the canaries still do."""
        try:
            return self._kube.get(CONFIGMAPS, reports.ORDERS, self._namespace)
        except NotFound:
            return {}
        except Forbidden as error:
            self._log.warning("rollout_orders_not_read", error=str(error))
            return {}
