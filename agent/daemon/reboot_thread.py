"""The coordinator's thread: one coordinator for the policy in force, ticked when something happens or it asked to be.

It reports the status of each tick on the Node, in Events, metrics and notifications. It refuses to start before a pass
over the node has ended: until then nothing is known of this boot.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, replace
from functools import partial

import structlog

from agent.config.choices import Mode
from agent.config.schema import Config, Reboot
from agent.daemon.loop import located
from agent.event_reasons import Reason
from agent.host import FolderWatch, Host, HostExec
from agent.kube import Kube
from agent.model import Condition
from agent.reboot.blockers import BlockerContext, make_blockers
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.drain import NodeDrain
from agent.reboot.hooks import HostHooks
from agent.reboot.interfaces import Announcement, Clock, CycleResult, HardeningReading, Tick
from agent.reboot.kube.cluster import KubeCluster, without_ballast
from agent.reboot.kube.informer import ObjectCache
from agent.reboot.phases import Phase
from agent.reboot.rebooters import NodeMachine, make_rebooter
from agent.reboot.sentinel import WatchedSentinel, make_sentinel
from agent.reboot.shown_status import shown_status
from agent.reboot.status import RebootStatus, StatusReason
from agent.report.events import Event, Regarding
from agent.report.metrics import Metrics
from agent.report.notify import DeliveryContext, Notification, Notifier
from agent.report.notify.message import Delivered
from agent.report.publisher import NodePublisher

_DRAIN_SECONDS = 15.0  # how often progress of a drain alone is worth a request
_CRASH_SECONDS = 30.0


class SystemClock:
    """Both clocks of the machine."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_BOOTTIME, which counts a suspend too: others take its lock over meanwhile."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class NodeReporter:
    """Where ticks and Events go: the Node, metrics, the log, and notifications."""

    def __init__(
        self, publisher: NodePublisher, metrics: Metrics, notifier: Notifier, clock: Clock, *, node: str, namespace: str
    ) -> None:
        self._publisher, self._metrics, self._notifier, self._clock = publisher, metrics, notifier, clock
        self._node, self._namespace = node, namespace
        self._log = structlog.get_logger()
        self._shown: RebootStatus | None = None
        self._conditions: tuple[Condition, ...] = ()
        self._shown_at = 0.0

    def tick(self, tick: Tick) -> None:
        """After every tick. What the Node shows changes with the status, not with each step of a drain."""
        status = tick.status
        self._metrics.reboot.tick(
            phase=status.phase.value, required=status.required, since=tick.required_since,
            blocked_by=status.blocked_by, holder=status.holder, stuck=tick.stuck, failures=status.failures,
            lock_since=tick.lock_since, marks=tick.marks,
        )  # fmt: skip
        is_progress = self._is_progress(status)
        if status == self._shown or (is_progress and self._clock.monotonic() - self._shown_at < _DRAIN_SECONDS):
            return
        self._shown, self._shown_at = status, self._clock.monotonic()
        self._log.info("reboot", phase=status.phase.value, reason=status.reason.value, sentence=status.sentence)
        shown = shown_status(status)
        if is_progress:
            shown = replace(shown, conditions=self._conditions)
        self._conditions = shown.conditions
        self._publisher.offer("reboot", shown)

    def writing(self) -> None:
        """What was shown is about to be replaced by the coordinator's own write: the next tick knows by what."""
        self._shown = None
        self._publisher.withdraw("reboot")

    def _is_progress(self, status: RebootStatus) -> bool:
        """Whether only the drain has moved: nothing that the condition or its message is about."""
        if self._shown is None or status.drain is None:
            return False
        return replace(status, drain=None, message="") == replace(self._shown, drain=None, message="")

    def event(self, announcement: Announcement) -> None:
        """In order; the same key may come again after a restart."""
        regarding = Regarding.node(self._node)
        if announcement.lease:
            regarding = Regarding(
                "Lease", announcement.lease, "", namespace=self._namespace, api_version="coordination.k8s.io/v1"
            )
        self._publisher.record(Event(regarding, announcement.reason, announcement.message, announcement.key))
        self._notifier.send(
            Notification(
                announcement.reason, announcement.message, self._node, key=announcement.key, lease=announcement.lease
            )
        )

    def flush(self, seconds: float, *, notifications: bool = False) -> None:
        """Both at the same time: Events by the publisher's thread, notifications by their own."""
        ends = self._clock.monotonic() + seconds
        self._publisher.flush(seconds)
        if notifications:
            self._notifier.flush(max(0.0, ends - self._clock.monotonic()))

    def cycle_ended(self, result: CycleResult) -> None:
        """Once a cycle."""
        self._metrics.reboot.ended(result.outcome.value, result.seconds, result.phases)


@dataclass(slots=True)
class _Parts:
    """What the coordinator works with that remembers something, and the policy that it was made for."""

    policy: Reboot
    sentinel: WatchedSentinel
    drain: NodeDrain
    hooks: HostHooks


class Reboots:
    """Runs the coordinator in a thread of its own. `configure` and `wake` may be called from any thread.

    `nodes` is to be given every change that a watch of the own Node sees.
    """

    def __init__(
        self, host: Host, kube: Kube, publisher: NodePublisher, metrics: Metrics, *,
        node: str, namespace: str, stop: threading.Event, delivered: Delivered,
    ) -> None:  # fmt: skip
        """namespace: the agent's own, where the locks and the pause are. delivered: notifications so far."""
        self._host, self._kube, self._node, self._namespace = host, kube, node, namespace
        self._stop, self._publisher = stop, publisher
        self.nodes = ObjectCache(self.wake, without_ballast)
        self._failing: int | None = None  # enforced checks, by the last pass
        self._clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - spreads load, guards nothing
        context = DeliveryContext(run=partial(host.run, how=HostExec.DIRECT), delivered=delivered)
        self._notifier = Notifier((), context)
        self._reporter = NodeReporter(publisher, metrics, self._notifier, self._clock, node=node, namespace=namespace)
        self._watch = FolderWatch({})
        self._policy: Reboot | None = None
        self._changed = threading.Event()
        self._log = structlog.get_logger()

    def configure(self, config: Config) -> None:
        """Takes a policy that is in force now; only a change of `reboot` concerns the coordinator."""
        self._notifier.update(config.notify)
        if config.reboot == self._policy:
            return
        self._policy = config.reboot
        self._changed.set()
        self.wake()

    def announce(self, reason: Reason, message: str) -> None:
        """An Event about this node that on-call may have to see."""
        self._publisher.event(reason, message)
        self._notifier.send(Notification(reason, message, self._node, key=f"{reason}/{message}"))

    def wake(self) -> None:
        """Something happened that the coordinator should observe."""
        self._watch.wake()

    def on_pass(self, failing: int) -> None:
        """Takes the result of a pass: how many of the checks that the agent enforces do not pass."""
        if failing != self._failing:
            self._failing = failing
            self.wake()

    def read(self) -> HardeningReading:
        """See interfaces.HardeningCheck. A process does not outlive a boot, so what it saw was seen in this one."""
        failing = self._failing
        if failing is None:
            return HardeningReading(None, "no pass has ended yet")
        return HardeningReading(not failing, f"{failing} enforced checks fail" if failing else "", failing)

    def run(self) -> None:
        """Ticks until stopped. After a crash it may run again."""
        try:
            while not self._stop.is_set():
                # Until a pass has ended nothing is known of this boot, and nothing is reported about it.
                if self._failing is None or self._policy is None or not self._changed.is_set():
                    self._watch.wait(3600.0)
                    continue
                self._coordinate(self._policy)
        finally:
            self._changed.set()  # the coordinator of the next run is made of the policy that is in force
            if self._stop.is_set():
                self._notifier.close()
                self._watch.close()

    def _coordinate(self, policy: Reboot) -> None:
        """One coordinator, until the process ends, or reboots are off and nothing of a cycle is left."""
        parts: _Parts | None = None
        coordinator: Coordinator | None = None
        cluster = KubeCluster(
            self._kube, node=self._node, nodes=self.nodes, namespace=self._namespace, wake=self.wake,
            on_patch=self._publisher.on_node_event,
        )  # fmt: skip
        try:
            while not self._stop.is_set():
                if self._changed.is_set() and self._policy is not None:
                    self._changed.clear()
                    policy = self._policy
                    parts = self._parts(policy, parts)
                    dependencies = self._dependencies(parts, cluster)
                    if coordinator is None:
                        coordinator = Coordinator(policy, dependencies)
                    else:
                        coordinator.configure(policy, dependencies)
                if coordinator is None or parts is None:
                    return
                self._watch.watch({"sentinel": located(self._host, parts.sentinel.watched())})
                tick = self._tick(coordinator)
                if policy.mode is Mode.OFF and tick.status.reason is StatusReason.MODE_OFF and not tick.acting:
                    break
                poll = parts.sentinel.poll_seconds()
                self._watch.wait(tick.wait_seconds if poll is None else min(tick.wait_seconds, poll))
        finally:
            cluster.close()
            if parts is not None and not self._stop.is_set():
                parts.drain.reset()
                parts.hooks.reset()

    def _tick(self, coordinator: Coordinator) -> Tick:
        """One tick; what it does not expect is logged, reported and tried again, and never ends the thread."""
        try:
            return coordinator.tick()
        except Exception as error:  # noqa: BLE001 - a forged value must not end the thread
            self._log.exception("reboot_tick_failed")
            text = f"internal error: {type(error).__name__}"
            status = RebootStatus(Phase.UNKNOWN, StatusReason.STATE_UNREADABLE, message=text, sentence=text)
            tick = Tick(status, _CRASH_SECONDS)
            self._reporter.tick(tick)
            return tick

    def _parts(self, policy: Reboot, before: _Parts | None) -> _Parts:
        """Only what the policy changed is made from scratch: a running hook and a drain continue."""
        sentinel = before.sentinel if before and before.policy.sentinel == policy.sentinel else make_sentinel(
            policy.sentinel, self._host, self._clock, self.wake
        )  # fmt: skip
        drain = before.drain if before and before.policy.drain == policy.drain else NodeDrain(
            policy.drain, self._kube, node=self._node, clock=self._clock, chance=self._rng, wake=self.wake
        )  # fmt: skip
        hooks = before.hooks if before and before.policy.hooks == policy.hooks else HostHooks(
            policy.hooks, self._host, node=self._node, wake=self.wake
        )  # fmt: skip
        if before is not None and before.drain is not drain:
            before.drain.reset()
        if before is not None and before.hooks is not hooks:
            before.hooks.reset()
        return _Parts(policy, sentinel, drain, hooks)

    def _dependencies(self, parts: _Parts, cluster: KubeCluster) -> Dependencies:
        policy = parts.policy
        return Dependencies(
            cluster=cluster, clock=self._clock, machine=NodeMachine(self._host), sentinel=parts.sentinel,
            blockers=make_blockers(
                BlockerContext(
                    policy, self._kube, self._node, self._namespace, self._clock, self._host, parts.sentinel
                )
            ),
            drain=parts.drain, hooks=parts.hooks, rebooter=make_rebooter(policy, self._host), hardening=self,
            reporter=self._reporter, rng=self._rng,
        )  # fmt: skip
