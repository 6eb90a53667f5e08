"""What Prometheus scrapes. Every label has a small, fixed set of values: a node adds a bounded number of series."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from agent import __version__
from agent.controls import registry as controls
from agent.model import Outcome, Report, Severity, Status
from agent.report.process_metrics import ProcessCollector

_P = "node_hardening"


class Metrics:
    """The agent's metrics in a registry of their own. Thread-safe, as prometheus_client's are."""

    def __init__(self) -> None:
        # The *_created series double what is scraped, and nothing uses them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(ProcessCollector())
        self.held_back = _HeldBack()
        self.registry.register(self.held_back)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"{_P}_{name}", about, labels, registry=self.registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{_P}_{name}", about, labels, registry=self.registry)

        self._findings = gauge(
            "findings", "Checks of the last pass over this node, by control, status and severity.",
            "control", "status", "severity",
        )  # fmt: skip
        self.hardened = gauge("hardened", "1 when every check of the last pass complies, 0 when not or unknown.")
        self.last_pass = gauge(
            "last_successful_pass_timestamp_seconds",
            "When the agent last finished a pass over the node without a failed change (seconds since the epoch).",
        )
        self.heartbeat = gauge(
            "node_heartbeat_timestamp_seconds",
            "The heartbeat of the condition NodeHardened that the Node shows (seconds since the epoch, 0 for none).",
        )
        self.pass_seconds = gauge("pass_duration_seconds", "How long the last pass took.")
        self.passes = counter("passes", "Passes over the node since the agent started.")
        self._changes = counter("changes", "Changes that the agent made to the node, by control.", "control")
        self._corrected = counter(
            "drift_corrected",
            "Changes that were needed although the policy was the same: something else had changed the node.",
            "control",
        )
        self._failures = counter("apply_failures", "Changes that failed, by control.", "control")
        self.api_errors = counter("api_errors", "Failed requests to the API server, by kind of error.", "error")
        self.api_requests = counter("api_requests", "Requests sent to the API server, watches included.")
        self.config_rejected = gauge(
            "config_rejected", "1 while the newest configuration does not validate and the last valid one is in force."
        )
        self.events_dropped = counter("events_dropped", "Kubernetes Events that were given up.")
        self.denials = counter(
            "denials", "Calls that profiles refused or logged, by kind, profile and namespace.",
            "kind", "profile", "namespace",
        )  # fmt: skip
        self.denials_lost = counter("denials_lost", "Audit records that the kernel made and the agent did not get.")
        self.denials_unattributed = counter(
            "denials_unattributed", "Denials of processes that ended before it was known where they ran."
        )
        self.denials_visible = gauge(
            "denials_visible", "1 while the agent's own audit record arrives, 0 while it does not or denials are off."
        )
        self.reboot = _RebootMetrics(gauge, counter)
        self.policy = Info(f"{_P}_policy", "Hash of the configuration and profiles in force.", registry=self.registry)
        build = Info(f"{_P}_build", "Version of the agent and of its interpreter.", registry=self.registry)
        build.info({"version": __version__, "python": "{}.{}.{}".format(*sys.version_info)})
        for control in controls.names():
            for metric in (self._changes, self._corrected, self._failures):
                metric.labels(control)

    def observe(self, report: Report, *, seconds: float, now: float, drift: bool) -> None:
        """Records one pass: its findings, its changes, how long it took and when it ended (epoch seconds).

        drift: the policy was the same at the pass before, so something else had changed the node.
        """
        counts: dict[tuple[str, Status, Severity], int] = {}
        for finding in report.findings:
            place = (finding.control, finding.status, finding.severity)
            counts[place] = counts.get(place, 0) + 1
        self._findings.clear()
        for (control, status, severity), number in counts.items():
            self._findings.labels(control, status.value, severity.value).set(number)
        self.hardened.set(1 if report.status is Status.PASS else 0)
        self.pass_seconds.set(seconds)
        self.passes.inc()
        failed = False
        for change in report.changes:
            if change.outcome is Outcome.FAILED:
                failed = True
                self._failures.labels(change.control).inc()
            elif change.outcome is Outcome.DONE:
                self._changes.labels(change.control).inc()
                if drift:
                    self._corrected.labels(change.control).inc()
        if not failed:
            self.last_pass.set(now)


class _HeldBack:
    """One series while a changed policy is held back on this node, and none otherwise."""

    def __init__(self) -> None:
        self.reason: Callable[[], str] = str  # called at each scrape

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        about = "1 while this node keeps its last policy because a changed one waits for its canaries, by reason."
        held = GaugeMetricFamily(f"{_P}_policy_held_back", about, labels=("reason",))
        if reason := self.reason():
            held.add_metric((reason,), 1.0)
        yield held


class _RebootMetrics:
    """The coordinator's part. Each gauge with a label shows one series at a time, so its values need not be bounded."""

    def __init__(self, gauge: Callable[..., Gauge], counter: Callable[..., Counter]) -> None:
        self._required = gauge("reboot_required", "1 when the node needs a reboot, 0 when not, NaN when unknown.")
        self._phase = gauge(
            "reboot_phase",
            "1 for the phase that the node is in: idle, waiting, draining, rebooting and so on.",
            "phase",
        )
        self._started = gauge(
            "reboot_phase_started_timestamp_seconds",
            "When each phase of the last cycle began (seconds since the epoch), however short it was.",
            "phase",
        )
        self._since = gauge(
            "reboot_waiting_since_timestamp_seconds", "Since when the node has needed a reboot; 0 when it does not."
        )
        self._blocked = gauge(
            "reboot_blocked", "1 for what blocks the reboot now: window, prometheus, budget, drain and so on.", "by"
        )
        self._holder = gauge(
            "reboot_lock_holder", "1 for the node that has the lock which this node waits for.", "holder"
        )
        self._lock_since = gauge(
            "reboot_lock_held_since_timestamp_seconds",
            "Since when the lock that this node has or waits for is held; 0 for none.",
        )
        self._stuck = gauge("reboot_lock_stuck", "1 when the lock's holder did not come back from its reboot.")
        self._failures = gauge("reboot_failures", "Failed attempts in a row; 0 after a verified reboot.")
        self._cycles = counter("reboots", "Reboot cycles that ended, by outcome.", "outcome")
        self._cycle_seconds = gauge(
            "reboot_cycle_duration_seconds", "How long the last cycle took, from lock to release."
        )
        self._phase_seconds = gauge(
            "reboot_phase_duration_seconds", "How long each phase of the last cycle took.", "phase"
        )
        for outcome in ("succeeded", "failed", "aborted"):
            self._cycles.labels(outcome)

    def tick(
        self, *, phase: str, required: bool | None, since: float, blocked_by: str, holder: str, stuck: bool,
        failures: int, lock_since: float = 0.0, marks: Iterable[tuple[str, float]] = (),
    ) -> None:  # fmt: skip
        """The coordinator's status after a tick. since, lock_since: epoch seconds, 0 for never; "" for none.

        marks: when each phase of a running cycle began; what the last one left stays until the next.
        """
        self._required.set(math.nan if required is None else int(required))
        self._since.set(since)
        self._lock_since.set(lock_since)
        self._stuck.set(1 if stuck else 0)
        self._failures.set(failures)
        for metric, value in ((self._phase, phase), (self._blocked, blocked_by), (self._holder, holder)):
            metric.clear()
            if value:
                metric.labels(value).set(1)
        if marks:
            self._started.clear()
        for name, began in marks:
            self._started.labels(name).set(began)

    def ended(self, outcome: str, seconds: float, phases: tuple[tuple[str, float], ...]) -> None:
        """One cycle's end, with the seconds of each of its phases."""
        self._cycles.labels(outcome).inc()
        self._cycle_seconds.set(seconds)
        for phase, took in phases:
            self._phase_seconds.labels(phase).set(took)
