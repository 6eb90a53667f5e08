"""The loop: a pass at start, when its interval is over, when a file that matters changes, and on SIGHUP.

The node is hardened first and reported afterwards, by another thread: an API server that is away, slow or wrong never
holds a pass up. It refuses to run on a configuration that does not validate.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog

from agent import __version__
from agent.config import Config
from agent.config.schema import Mode
from agent.controls import registry
from agent.daemon.config_store import Policy, PolicyStore, fingerprint
from agent.daemon.rate_limit import RateLimiter
from agent.errors import AgentError, HostError
from agent.event_reasons import Reason
from agent.host import FolderWatch, Host
from agent.model import Finding, Outcome, Report, Severity, Status
from agent.report import node_status
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView

_MANY_PROBLEMS_PAUSE_SECONDS = 30.0
_STUCK_SECONDS = 900.0  # longer than every timeout of one pass together


class Sink(Protocol):
    """Where the loop says what it found. Both return at once and never fail."""

    def offer(self, part: str, shown: NodeView) -> None:
        """What the Node should show of one part of the agent's work, in place of what was offered for it before."""

    def event(self, reason: Reason, message: str) -> None:
        """Something that happened to this node."""


class Daemon:
    """Keeps one node as the policy asks. `run` returns when `stop` was called; both signals' handlers may call in."""

    def __init__(
        self, host: Host, node: str, store: PolicyStore, sink: Sink, metrics: Metrics, *,
        configz: registry.Configz | None = None, on_config: Callable[[Config], None] | None = None,
        on_pass: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """on_config: told of each configuration that comes into force. on_pass: told whether a pass verified the node.

        clock: monotonic seconds. wall: epoch seconds.
        """
        self._host, self._node, self._store, self._sink, self._metrics = host, node, store, sink, metrics
        self._configz, self._on_config, self._on_pass = configz, on_config, on_pass
        self._clock, self._wall = clock, wall
        self._log = structlog.get_logger()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._watch = FolderWatch({})
        self._pace = RateLimiter(clock, Config().interval, random.Random())  # noqa: S311 - spreads load, guards nothing
        self._policy = Policy(None)
        self._controls: tuple[registry.AnyControl, ...] = ()
        self._fingerprint = ""
        self._settled = ""  # the policy that the last complete pass made true
        self._verified = False
        self._last_change: str | None = None
        self._expected_by = clock() + _STUCK_SECONDS

    # -- from outside ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends `run` after the act that is under way. May be called from a signal handler."""
        self._stop.set()
        self._watch.wake()

    def reload(self) -> None:
        """Reads the configuration again and makes a full pass. May be called from a signal handler."""
        self._reload.set()
        self._watch.wake()

    def healthy(self) -> tuple[bool, str]:
        """Whether the loop turns."""
        late = self._clock() - self._expected_by
        return (False, f"the loop should have turned {late:.0f} s ago") if late > 0 else (True, "the loop turns")

    def ready(self) -> tuple[bool, str]:
        """Whether the newest full pass was verified."""
        return (True, "verified") if self._verified else (False, "not verified: no pass yet, or the last one failed")

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Passes until `stop`."""
        try:
            self._load()
            while not self._stop.is_set():
                try:
                    self._pass()
                except Exception as error:  # noqa: BLE001 - the one broad catch: a defect of ours must not end the guard
                    self._report_failure(error)
                self._wait()
        finally:
            self._watch.close()

    def _load(self) -> None:
        before = self._policy
        self._policy = self._store.load()
        config = self._policy.config
        if self._policy.problem and self._policy.problem != before.problem:
            kept = "the last good one stays in force" if config else "there is none to fall back on"
            self._sink.event(Reason.CONFIG_REJECTED, f"configuration refused, {kept}: {self._policy.problem}")
        self._metrics.config_rejected.set(1 if self._policy.problem else 0)
        self._sink.offer(
            "config", NodeView({node_status.CONFIG_PROBLEM: node_status.cut(self._policy.problem, 1024) or None})
        )
        if config is None or config == before.config:
            return
        self._pace.interval_seconds = config.interval
        # Kept from pass to pass: a control may remember what it need not look at again.
        self._controls = registry.controls_of(config, self._host, configz=self._configz)
        if before.config is not None:
            self._log.info("config_reloaded", path=str(self._store.path))
            self._sink.event(Reason.CONFIG_RELOADED, f"configuration {self._store.path} is in force")
        if self._on_config is not None:
            self._on_config(config)

    def _pass(self) -> None:
        self._pace.began()
        self._expected_by = self._clock() + _STUCK_SECONDS
        config = self._policy.config
        # Before the pass: what changes while it runs is then seen as a change, not missed.
        before = self._watch.problem
        self._watch.watch(self._watched(config, self._controls))
        if self._watch.problem not in ("", before):
            self._log.warning("watch_setup_failed", error=self._watch.problem, effect="changes wait for the interval")
        if config is None:
            self._publish(Report(self._node, (_no_policy(self._policy.problem, str(self._store.path)),)), None, [])
            return
        begun = self._clock()
        self._fingerprint = fingerprint(config)
        with registry.apply_lock(self._host):
            report = registry.run(self._node, self._controls, registry.Act.APPLY)
        drift = self._settled == self._fingerprint
        complete = not any(change.outcome is Outcome.FAILED for change in report.changes)
        self._settled = self._fingerprint if complete else ""
        self._metrics.observe(report, seconds=self._clock() - begun, now=self._wall(), drift=drift)
        self._metrics.policy(self._fingerprint)
        mended = [change for change in report.changes if change.outcome is Outcome.DONE]
        when = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._last_change = node_status.change_sentence(report.changes, when) or self._last_change
        for change in report.changes:
            self._log.info("node_changed", **{key: value for key, value in change.document().items() if value})
        if drift and mended:
            told = ", ".join(f"{change.action} {change.target}" for change in mended[:5])
            self._sink.event(Reason.DRIFT_CORRECTED, f"the node had drifted from the policy and was mended: {told}")
        self._publish(report, config, registry.enforced(config))

    def _publish(self, report: Report, config: Config | None, enforced: list[str]) -> None:
        self._verified = config is not None and node_status.verified(report, enforced)
        shown = node_status.hardening(
            report, policy=self._fingerprint, version=__version__, label=config is None or config.status.label,
            last_change=self._last_change,
            limit=config.status.findings_limit if config else node_status.FINDINGS_BYTES,
        )  # fmt: skip
        if self._on_pass is not None:
            self._on_pass(self._verified)
        lift = self._verified and config is not None and config.status.startup_taint
        self._sink.offer("hardening", NodeView(shown.annotations, shown.labels, shown.conditions, lift))
        self._log.info(
            "reconcile_completed", status=report.status.value, changes=len(report.changes), verified=self._verified
        )

    def _report_failure(self, error: Exception) -> None:
        """One pass ended in an error: said, and tried again soon."""
        expected = isinstance(error, AgentError)
        self._log.error("reconcile_failed", error=str(error), exc_info=not expected)
        finding = Finding(
            "agent/pass", "agent", "A pass over the node ends", Status.UNKNOWN, Severity.HIGH,
            observed=f"{type(error).__name__}: {error}", expected="a report", source="agent",
            remediation="Read the agent's log; the next pass tries again.",
        )  # fmt: skip
        self._settled = ""
        self._publish(Report(self._node, (finding,)), self._policy.config, ["agent"])
        self._stop.wait(_MANY_PROBLEMS_PAUSE_SECONDS if not expected else 1.0)

    def _wait(self) -> None:
        """Until the next pass has a reason: the interval, a file, a signal."""
        self._expected_by = self._clock() + self._pace.until_due_seconds() + _STUCK_SECONDS
        woken: set[str] = set()
        while not self._stop.is_set():
            left = self._pace.hold_seconds() if woken else self._pace.until_due_seconds()
            if left <= 0:
                self._log.debug("loop_wakeup", by=sorted(woken) or ["interval"])
                return
            changed = self._watch.wait(left)
            if self._reload.is_set() or "config" in changed:
                self._reload.clear()
                self._load()
                return  # somebody asked for it: no pace holds that back
            woken |= changed

    def _watched(self, config: Config | None, controls: tuple[registry.AnyControl, ...]) -> Mapping[str, list[str]]:
        sections = (config.apparmor, config.seccomp) if config else ()
        paths: dict[str, list[str]] = {
            "config": [str(self._store.path)],
            "profiles": [section.profiles for section in sections if section.mode is not Mode.OFF],
            "node": [],
        }
        for path in (path for control in controls for path in control.watched()):
            try:
                paths["node"].append(self._host.locate(path))
            except HostError as error:
                self._log.warning("watch_setup_failed", path=path, error=str(error))
        return paths


def _no_policy(problem: str, path: str) -> Finding:
    return Finding(
        id="policy/config", control="policy", title="A configuration is in force", status=Status.UNKNOWN,
        severity=Severity.CRITICAL, observed=problem, expected="a configuration that validates", source=path,
        remediation="Mend what is named; `node-hardening-agent validate` says the same before it is deployed.",
    )  # fmt: skip
