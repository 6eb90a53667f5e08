"""The coordinator's thread: one coordinator for the policy in force, ticked when something happens or it asked to be.

It reports what each tick said, on the Node, in Events, metrics and notifications. It refuses to start a coordinator
before the Node was seen hardened once: nothing is known of a boot in which nobody looked.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from functools import partial

import structlog

from agent.config.schema import Config, Mode, Reboot
from agent.errors import HostError
from agent.host import FolderWatch, Host, HostExec
from agent.kube import Kube
from agent.reboot.blockers import make_blockers
from agent.reboot.coordinator import Coordinator, Rooms
from agent.reboot.drain import NodeDrain
from agent.reboot.kubecluster import KubeCluster
from agent.reboot.ports import About, Announcement, Clock, Ended, ProofReading, Tick
from agent.reboot.rebooters import HostHooks, make_power
from agent.reboot.sentinel import make_sentinel
from agent.report import node_status
from agent.report.events import Event, Regarding
from agent.report.metrics import Metrics
from agent.report.node_status import Condition, NodeView
from agent.report.notify import DeliveryContext, Notification, Notifier
from agent.report.publisher import NodePublisher

_REASONS = {True: "Required", False: "NotRequired", None: "Unknown"}
_STATUSES = {True: "True", False: "False", None: "Unknown"}


class SystemClock:
    """Both clocks of the machine."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class NodeReporter:
    """Where ticks and Events go: the Node, metrics, the log, and people."""

    def __init__(
        self, publisher: NodePublisher, metrics: Metrics, notifier: Notifier, clock: Clock, *, node: str, namespace: str
    ) -> None:
        self._publisher, self._metrics, self._notifier, self._clock = publisher, metrics, notifier, clock
        self._node, self._namespace = node, namespace
        self._log = structlog.get_logger()
        self._sentence = ""

    def tick(self, tick: Tick) -> None:
        """After every tick, changed or not."""
        status = _STATUSES[tick.required]
        sentence = node_status.cut(tick.sentence, 1024)
        condition = Condition(node_status.CONDITION_REBOOT, status, _REASONS[tick.required], sentence)
        self._publisher.offer("reboot", NodeView({node_status.REBOOT: sentence}, conditions=(condition,)))
        self._metrics.reboot_tick(
            phase=tick.phase, required=tick.required, since=tick.since, blocked_by=tick.blocked_by,
            holder=tick.holder, stuck=tick.stuck, failures=tick.failures, lock_since=tick.lock_since,
        )  # fmt: skip
        if sentence != self._sentence:
            self._sentence = sentence
            self._log.info("reboot", phase=tick.phase, sentence=sentence)

    def event(self, announcement: Announcement) -> None:
        """In order; the same key may come again after a restart."""
        regarding = Regarding.node(self._node)
        if announcement.about is About.LEASE:
            regarding = Regarding(
                "Lease", announcement.name, "", namespace=self._namespace, api_version="coordination.k8s.io/v1"
            )
        self._publisher.record(Event(regarding, announcement.reason, announcement.message, announcement.key))
        self._notifier.send(Notification(announcement.reason, announcement.message, self._node, key=announcement.key))

    def flush(self, seconds: float, *, people: bool = False) -> None:
        """Both ways at once: Events by the publisher's thread, notifications by their own."""
        ends = self._clock.monotonic() + seconds
        self._publisher.flush(seconds)
        if people:
            self._notifier.flush(max(0.0, ends - self._clock.monotonic()))

    def ended(self, ended: Ended) -> None:
        """Once a cycle."""
        self._metrics.reboot_ended(ended.outcome.value, ended.seconds, ended.phases)


class Reboots:
    """Runs the coordinator in a thread of its own. `configure` and `wake` may be called from any thread."""

    def __init__(
        self, host: Host, kube: Kube, publisher: NodePublisher, metrics: Metrics, *,
        node: str, namespace: str, stop: threading.Event,
    ) -> None:  # fmt: skip
        """namespace: the agent's own, where the locks and the pause are."""
        self._host, self._kube, self._node, self._namespace = host, kube, node, namespace
        self._stop, self._metrics, self._publisher = stop, metrics, publisher
        self._verified: bool | None = None
        self._clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - spreads load, guards nothing
        self._notifier = Notifier((), DeliveryContext(run=partial(host.run, how=HostExec.DIRECT)))
        self._told = NodeReporter(publisher, metrics, self._notifier, self._clock, node=node, namespace=namespace)
        self._watch = FolderWatch({})
        self._wanted: Reboot | None = None
        self._changed = threading.Event()
        self._log = structlog.get_logger()

    def configure(self, config: Config) -> None:
        """Takes a policy that has come into force."""
        self._notifier.update(config.notify)
        self._wanted = config.reboot
        self._changed.set()
        self.wake()

    def wake(self) -> None:
        """Something happened that the coordinator should look at."""
        self._watch.wake()

    def on_pass_verified(self, verified: bool) -> None:
        """Takes the answer of a pass: whether everything that the agent enforces was found to be true."""
        if verified is not self._verified:
            self._verified = verified
            self.wake()

    def read(self) -> ProofReading:
        """The proof. A process does not outlive a boot, so what it has seen was seen in this one."""
        problems = {None: "no pass has ended yet", False: "the last pass did not verify the hardening"}
        return ProofReading(self._verified, problems.get(self._verified, ""))

    def run(self) -> None:
        """Ticks until stopped. After an exception it may be called again: a coordinator goes on from Node and Lease."""
        if self._wanted is not None:
            self._changed.set()
        while not self._stop.is_set():
            # Until a pass has ended nothing is known of this boot, and nothing is to be reported of it.
            if self._verified is None or not self._changed.is_set():
                self._watch.wait(3600.0)
                continue
            self._changed.clear()
            policy = self._wanted
            if policy is None or policy.mode is Mode.OFF:
                self._off()
            else:
                self._coordinate(policy)
        self._notifier.close()
        self._watch.close()

    def _off(self) -> None:
        """Nobody looks at the sentinel, so nothing of before may go on being said."""
        off = Condition(node_status.CONDITION_REBOOT, "Unknown", "Off", "reboot.mode is off: nobody looks")
        self._publisher.offer("reboot", NodeView({node_status.REBOOT: None}, conditions=(off,)))
        self._metrics.reboot_tick(
            phase="off", required=None, since=0.0, blocked_by="", holder="", stuck=False, failures=0
        )

    def _coordinate(self, policy: Reboot) -> None:
        """One coordinator, until the policy changes or the process ends."""
        sentinel = make_sentinel(policy.sentinel, self._host, self._clock, self.wake)
        drain = NodeDrain(
            policy.drain, self._kube, node=self._node, clock=self._clock, chance=self._rng, wake=self.wake
        )
        hooks = HostHooks(policy.hooks, self._host, node=self._node, wake=self.wake)
        with KubeCluster(self._kube, node=self._node, namespace=self._namespace, wake=self.wake) as cluster:
            coordinator = Coordinator(
                policy,
                Rooms(
                    cluster=cluster, clock=self._clock, machine=self._host, sentinel=sentinel,
                    blockers=make_blockers(
                        policy, self._kube, node=self._node, namespace=self._namespace, clock=self._clock
                    ),
                    drain=drain, hooks=hooks, power=make_power(policy, self._host), proof=self,
                    reporter=self._told, rng=self._rng,
                ),
            )  # fmt: skip
            poll = sentinel.poll_seconds()
            try:
                while not self._stop.is_set() and not self._changed.is_set():
                    self._watch.watch({"sentinel": self._located(sentinel.watched())})
                    tick = coordinator.tick()
                    wait = tick.wait_seconds if poll is None else min(tick.wait_seconds, poll)
                    self._watch.wait(wait)
            finally:
                if not self._stop.is_set():
                    drain.reset()
                    hooks.reset()

    def _located(self, paths: Sequence[str]) -> list[str]:
        found = []
        for path in paths:
            try:
                found.append(self._host.locate(path))
            except HostError as error:
                self._log.warning("watch_setup_failed", path=path, error=str(error))
        return found
