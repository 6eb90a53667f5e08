"""Polls the canaries while a changed policy is held back, and makes no request otherwise.

A poll is one list of Nodes and one ConfigMap. Polls come with back-off, spread over the nodes; while the soak time
runs, the next one is when it ends. Everything that is decided is in agent/rollout/decision.py.
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

_LONGEST_SECONDS = 600.0
_LONGEST_FIRST_SECONDS = 30.0
_SPREAD = 0.1  # of the soak time, so that not all nodes change in the same second


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
                self._is_running = True
                self._spawn(self.run)

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
            self._follow(pending[0].target, pending[1].canary, pending[1].soak)

    def _follow(self, target: str, selector: Selector, soak_seconds: float) -> None:
        """Until it is decided, or something else is pending."""
        first = min(max(soak_seconds / 60, 1.0), _LONGEST_FIRST_SECONDS)
        backoff = Backoff(first, _LONGEST_SECONDS, self._chance)
        wait_seconds = backoff.next()
        while not self._wake.wait(wait_seconds):
            step = self._staging.observe(target, self._poll(target, selector))
            if step is None or step.take:
                self._reload()
                return
            self._show(step)
            spread = self._chance.uniform(0.0, _SPREAD * soak_seconds)
            wait_seconds = backoff.next() if step.wait_seconds is None else step.wait_seconds + spread

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
