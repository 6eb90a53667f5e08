"""The loop: a pass at start, after each interval, when a watched file changes, and on SIGHUP.

The node is hardened first and reported afterwards, by another thread: an API server that is down or slow never delays a
pass. It does not run on a configuration that does not validate.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import structlog

from agent import __version__
from agent.annotations import CONFIG_PROBLEM
from agent.config import Config
from agent.controls import registry
from agent.controls.base import AGENT
from agent.daemon.config_store import Policy, PolicyStore, fingerprint
from agent.daemon.rate_limit import RateLimiter
from agent.errors import AgentError, HostError
from agent.event_reasons import Reason
from agent.host import FolderWatch, Host
from agent.model import Finding, Outcome, Report, Severity, Status, worst_first
from agent.report import node_status
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.text import format_rfc3339, join_limited, sanitize

_MANY_PROBLEMS_PAUSE_SECONDS = 30.0
_STUCK_SECONDS = 900.0  # longer than every timeout of one pass together


class Sink(Protocol):
    """Where the loop reports. Both return immediately and never raise."""

    def offer(self, part: str, shown: NodeView) -> None:
        """What the Node should show of one part of the agent's work; replaces what was offered for it before."""

    def event(self, reason: Reason, message: str) -> None:
        """Something that happened to this node."""


class Daemon:
    """Keeps one node compliant with the policy. `run` returns after `stop`; signal handlers may call both."""

    def __init__(
        self, host: Host, node: str, store: PolicyStore, sink: Sink, metrics: Metrics, *,
        live: registry.Live = registry.NOTHING_LIVE, on_config: Callable[[Config], None] | None = None,
        on_pass: Callable[[int], None] | None = None, on_pending: Callable[[], None] | None = None,
        announce: Callable[[Reason, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """on_config: gets each configuration that comes into force. on_pass: gets how many enforced
        checks a pass found failing. on_pending: a configuration was read, and may be held back. announce: sends
        an Event of a canary, also to on-call. clock: monotonic seconds. wall: epoch seconds.
        """
        self._host, self._node, self._store, self._sink, self._metrics = host, node, store, sink, metrics
        self._live, self._on_config, self._on_pass = live, on_config, on_pass
        self._on_pending, self._announce = on_pending, announce or sink.event
        self._clock, self._wall = clock, wall
        self._log = structlog.get_logger()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._watch = FolderWatch({})
        self._rate = RateLimiter(clock, Config().interval, random.Random())  # noqa: S311 - spreads load, guards nothing
        self._policy = Policy(None)
        self._used: Config | None = None  # what the controls were made of
        self._taken = self._policy  # the policy that every part has taken; another one while one of them could not
        self._controls: tuple[registry.AnyControl, ...] = ()
        self._fingerprint = ""
        self._applied = ""  # the policy that the last complete pass applied
        self._not_ready = {
            "pass": "the first pass over the node has not finished",
            "API": "the API server has not been reached yet",
        }
        self._last_change: str | None = None
        self._expected_by = clock() + _STUCK_SECONDS

    # -- from outside ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends `run` after the current step. May be called from a signal handler."""
        self._stop.set()
        self._watch.wake()

    def reload(self) -> None:
        """Reads the configuration again and makes a full pass. May be called from a signal handler."""
        self._reload.set()
        self._watch.wake()

    def on_node(self, node: Mapping[str, Any]) -> None:
        """Takes the own Node as a watch shows it: with other labels another policy may be in force."""
        if self._store.take_labels(node):
            self.reload()

    def healthy(self) -> tuple[bool, str]:
        """Whether the loop is alive."""
        late = self._clock() - self._expected_by
        return (False, f"no pass for {late:.0f} s too long") if late > 0 else (True, "the loop is alive")

    def ready(self) -> tuple[bool, str]:
        """Whether the agent works: a pass over the node finished, the API server was reached once.

        What the pass found does not count: a node that does not comply has an agent that works. Nor does an API server
        that went away later: every agent of the cluster would turn unready, and write so, just when it comes back.
        """
        problem = "; ".join(filter(None, self._not_ready.values()))
        return not problem, problem or "ready"

    def api_reached(self, problem: str = "") -> None:
        """Notes that the API server was reached, or why not. From the thread that watches the Node."""
        if self._not_ready["API"]:
            self._not_ready["API"] = f"the API server has not been reached yet: {problem}" if problem else ""

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Passes until `stop`. After a crash it may run again."""
        try:
            self._load()
            while not self._stop.is_set():
                for step in (self._pass, self._wait):
                    try:
                        step()
                    except Exception as error:  # noqa: BLE001 - outside of controls too, a defect must not end the daemon
                        self._report_failure(error)
        finally:
            if self._stop.is_set():
                self._watch.close()

    def _load(self) -> None:
        before = self._policy
        self._policy = self._store.load()
        config = self._policy.config
        if self._policy.problem and self._policy.problem != before.problem:
            kept = "the last valid one stays in force" if config else "there is no valid one to use instead"
            self._sink.event(Reason.CONFIG_REJECTED, f"configuration rejected, {kept}: {self._policy.problem}")
        self._store.staging.show(self._sink.offer)
        if self._on_pending is not None:
            self._on_pending()
        if self._store.staging.ended():
            text = "the rollout of the policy ended on this canary; other nodes have it or take it with their next poll"
            self._announce(Reason.POLICY_ACCEPTED, text)
        self._metrics.config_rejected.set(1 if self._policy.problem else 0)
        self._sink.offer("config", NodeView({CONFIG_PROBLEM: sanitize(self._policy.problem, 1024) or None}))
        taken = self._taken
        if config is not None and (config, self._policy.places) != (taken.config, taken.places):
            self._configure(config, taken.config)
        self._taken = self._policy

    def _configure(self, config: Config, before: Config | None) -> None:
        """Gives every part what is in force now; after one that could not take it, again with the next pass."""
        self._rate.interval_seconds = config.interval
        # Kept from pass to pass, and where its section is the same: a control may cache what has not changed.
        used = registry.with_folders(config, self._policy.places)
        names = registry.unchanged(self._used, used)
        same = {one.name: one for one in self._controls if one.name in names}
        self._controls = registry.controls_of(used, self._host, self._live, kept=same)
        self._used = used
        if config == before:
            return
        if before is not None:
            self._log.info("config_reloaded", path=str(self._store.path))
            self._sink.event(Reason.CONFIG_RELOADED, f"configuration {self._store.path} is in force")
        if self._on_config is not None:
            self._on_config(config)

    def _pass(self) -> None:
        self._rate.began()
        self._expected_by = self._clock() + _STUCK_SECONDS
        config = self._policy.config
        # Before the pass, so that changes during it are not missed.
        before = self._watch.problem
        self._watch.watch(self._watched(self._controls))
        if self._watch.problem not in ("", before):
            self._log.warning("watch_setup_failed", error=self._watch.problem, effect="changes wait for the interval")
        if config is None:
            self._not_ready["pass"] = f"no valid configuration: {node_status.cut(self._policy.problem, 300)}"
            self._publish(
                Report(self._node, (_no_policy(self._policy.problem, str(self._store.path)),)), None, ["policy"]
            )
            return
        begun = self._clock()
        self._fingerprint = fingerprint(config, self._policy.places)
        with registry.apply_lock(self._host):
            report = registry.run(self._node, self._controls, registry.Act.APPLY, config.exceptions, self._store.labels)
        drift = self._applied == self._fingerprint
        complete = not any(change.outcome is Outcome.FAILED for change in report.changes)
        self._applied = self._fingerprint if complete else ""
        self._metrics.observe(report, seconds=self._clock() - begun, now=self._wall(), drift=drift)
        self._metrics.policy.info({"hash": self._fingerprint})
        corrected = [change for change in report.changes if change.outcome is Outcome.DONE]
        when = format_rfc3339(self._wall())
        self._last_change = node_status.change_sentence(report.changes, when) or self._last_change
        for change in report.changes:
            self._log.info("node_changed", **{key: value for key, value in change.document().items() if value})
        if drift and corrected:
            names = join_limited((f"{change.action} {change.target}" for change in corrected), characters=160)
            self._sink.event(Reason.DRIFT_CORRECTED, f"changes on the node were reverted: {names}")
        self._not_ready["pass"] = ""
        self._publish(report, config, [*registry.enforced(config), AGENT])

    def _publish(self, report: Report, config: Config | None, enforced: list[str]) -> None:
        failing = node_status.failing(report, enforced)
        shown = node_status.hardening(
            report, policy=self._fingerprint, version=__version__, label=config is None or config.status.label,
            last_change=self._last_change,
            limit=config.status.findings_limit if config else node_status.FINDINGS_BYTES,
        )  # fmt: skip
        if self._on_pass is not None:
            self._on_pass(failing)
        self._judge(report, enforced)
        lift = config is not None and config.status.startup_taint
        if config is not None and lift:
            lift = not node_status.failing(report, enforced, after_reboot=not config.status.keep_taint_until_reboot)
        self._sink.offer("hardening", NodeView(shown.annotations, shown.labels, shown.conditions, lift))
        self._log.info(
            "reconcile_completed", status=report.status.value, changes=len(report.changes), verified=not failing
        )

    def _judge(self, report: Report, enforced: list[str]) -> None:
        """Takes the pass as evidence for or against a policy that is tried here first."""
        found: dict[Status, list[str]] = {Status.FAIL: ["policy/config"] if self._policy.clashes else []}
        for one in worst_first(node_status.unmet(report, enforced, after_reboot=True)):
            found.setdefault(one.status, []).append(one.id)
        failed, unknown = found[Status.FAIL], found.get(Status.UNKNOWN, [])
        staging = self._store.staging
        if staging.judge(failed=failed, unknown=unknown):
            names = join_limited(failed, characters=200)
            message = f"the changed policy fails on this canary: {names}; other nodes keep the last policy"
            self._announce(Reason.POLICY_FAILED_ON_CANARY, message)
        staging.show(self._sink.offer)

    def _report_failure(self, error: Exception) -> None:
        """Reports a pass that raised; the next one comes soon."""
        expected = isinstance(error, AgentError)
        self._log.error("reconcile_failed", error=str(error), exc_info=not expected)
        finding = Finding(
            f"{AGENT}/pass", AGENT, "A pass over the node completes", Status.UNKNOWN, Severity.HIGH,
            observed=f"{type(error).__name__}: {error}", expected="a report", source="agent",
            remediation="Read the agent's log; the next pass tries again.",
        )  # fmt: skip
        self._applied = ""
        self._not_ready["pass"] = f"the last pass failed: {node_status.cut(str(error), 300)}"
        self._publish(Report(self._node, (finding,)), self._policy.config, [AGENT])
        self._stop.wait(_MANY_PROBLEMS_PAUSE_SECONDS if not expected else 1.0)

    def _wait(self) -> None:
        """Waits for the reason of the next pass: the interval, a file, a signal."""
        self._expected_by = self._clock() + self._rate.until_due_seconds() + _STUCK_SECONDS
        causes: set[str] = set()
        while not self._stop.is_set():
            left = self._rate.hold_seconds() if causes else self._rate.until_due_seconds()
            if left <= 0:
                self._log.debug("loop_wakeup", by=sorted(causes) or ["interval"])
                if "profiles" in causes or self._watch.problem or self._taken is not self._policy:
                    self._load()
                return
            changed = self._watch.wait(left)
            if self._reload.is_set() or "config" in changed:
                self._reload.clear()
                self._load()
                return  # explicitly requested: not rate limited
            causes |= changed

    def _watched(self, controls: tuple[registry.AnyControl, ...]) -> Mapping[str, list[str]]:
        return {
            "config": [str(self._store.path)],
            "profiles": list(self._store.folders),
            "node": located(self._host, (path for control in controls for path in control.watched())),
        }


def located(host: Host, paths: Iterable[str]) -> list[str]:
    """Where a watch finds the node's paths. One that cannot be found is logged: changes there wait for the interval."""
    found = []
    for path in paths:
        try:
            found.append(host.locate(path))
        except HostError as error:
            structlog.get_logger().warning("watch_setup_failed", path=path, error=str(error))
    return found


def _no_policy(problem: str, path: str) -> Finding:
    return Finding(
        id="policy/config", control="policy", title="A configuration is in force", status=Status.UNKNOWN,
        severity=Severity.CRITICAL, observed=problem, expected="a configuration that validates", source=path,
        remediation="Fix what is named; `node-hardening-agent validate` finds it before a deployment.",
    )  # fmt: skip
