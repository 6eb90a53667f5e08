"""The operating system's updates: whether they happen, what is pending, and what would reboot the node behind our back.

Report only. Commands are asked once an hour, or when a file that decides has changed; pending security updates are
counted once a day by a transient unit of the node, so that its memory is not the agent's. Package lists are never
refreshed, and a count from old lists is unknown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agent.config.node_sections import Updates
from agent.controls.base import AuditOnly
from agent.controls.updates import files, kernels, systems
from agent.controls.updates.pending import Pending
from agent.controls.updates.restarts import Restarts, Survey
from agent.controls.updates.systems import Reading, System
from agent.errors import HostError
from agent.host import Host, read_or
from agent.model import Finding, Severity, Status
from agent.text import format_rfc3339, join_limited, sanitize

CONTROL = "updates"
Answer = TypeVar("Answer")
_REFRESH_SECONDS = 3600.0
_FIRST_COUNT_SECONDS = 60.0  # a single audit ends before it; the daemon counts at its second pass
_DAY = 86400.0
_STALE_DAYS = 3
_SHOWN = (8, 240)  # services, and characters of each

_TITLES = {
    "automatic": ("Security updates install themselves", Severity.HIGH, "on"),
    "reboots": ("Only the agent reboots the node, after a drain", Severity.HIGH, "off"),
    "last-run": ("The last update run was recent and succeeded", Severity.MEDIUM, f"within {_STALE_DAYS} days"),
    "pending": ("No security update is pending for long", Severity.MEDIUM, "0, or for less than 7 days"),
    "kernel": ("The newest installed kernel runs", Severity.MEDIUM, ""),
    "restart": ("Services run the programs and libraries that are installed", Severity.LOW, "none needs a restart"),
}


@dataclass(frozen=True, slots=True)
class Count:
    """Pending security updates; with a problem, as they were counted before it.

    since: when the count was first above zero, in seconds since the epoch.
    """

    number: int | None = None
    problem: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """system: None where none is known. problems: what could not be read, by finding."""

    runs: bool
    system: System | None = None
    release: str = ""
    automatic: Reading | None = None
    reboots: Reading | None = None
    last: float | None = None
    trouble: str = ""
    lists: float | None = None
    running: str = ""
    newest: str | None = None
    restarts: Restarts | None = None
    problems: Mapping[str, str] = field(default_factory=dict)


class UpdatesControl(AuditOnly):
    """One node's updates. clock: monotonic seconds. wall: seconds since the epoch."""

    name = CONTROL

    def __init__(
        self,
        config: Updates,
        host: Host,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._host, self._clock, self._wall = config, host, clock, wall
        self._seen: Observation | None = None
        self._signature: tuple[float | None, ...] = ()
        self._refresh_at = 0.0
        self._count_at = clock() + _FIRST_COUNT_SECONDS
        self._count: Count | None = None
        self._counting: threading.Thread | None = None
        self._restarts = Survey(host)

    def observe(self) -> Observation:
        """What is known, read again once an hour."""
        if not self._host.can_start_programs:
            return Observation(runs=False)
        system = self._seen.system if self._seen is not None else systems.system_of(self._host)
        evidence = systems.evidence(system) if system else ()
        signature = tuple(read_or(None, files.mtime, self._host, path) for path in evidence)
        if self._seen is None or signature != self._signature or self._clock() >= self._refresh_at:
            self._seen, self._signature = self._read(systems.system_of(self._host)), signature
            self._refresh_at = self._clock() + _REFRESH_SECONDS
        self._start_count(self._seen)
        return self._seen

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """Six findings; one line on a tree and where the image is replaced as a whole."""
        if not seen.runs:
            return (_finding("automatic", Status.NOT_APPLICABLE, "no system runs on this tree"),)
        always = (self._kernel(seen), self._restart(seen))
        if seen.system is None:
            step = "Keep the node's packages current by other means; the agent cannot see how."
            known = ", ".join(one.name for one in systems.SYSTEMS)
            observed = f"none of {known} is on this node ({seen.release})"
            return (_finding("automatic", Status.UNKNOWN, observed, remediation=step), *always)
        if seen.system is systems.IMAGE:
            observed = f"{seen.release}: the image is replaced as a whole, by whoever runs the cluster"
            return (_finding("automatic", Status.NOT_APPLICABLE, observed), self._kernel(seen))
        answers = (("automatic", seen.automatic), ("reboots", seen.reboots))
        asked = [_answer(name, answer, seen.problems.get(name, "")) for name, answer in answers]
        return (*asked, self._last_run(seen), self._pending(seen), *always)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, system: System | None) -> Observation:
        problems: dict[str, str] = {}

        def ask(name: str, question: Callable[[], Answer], otherwise: Answer) -> Answer:
            try:
                return question()
            except HostError as error:
                problems[name] = str(error)
                return otherwise

        host, running = self._host, self._host.kernel_release()
        release = files.os_release(host)
        newest = ask("kernel", lambda: kernels.newest_like(running, kernels.installed(host)), None)
        words = [sanitize(release.get(key, ""), 60) for key in ("ID", "VERSION_ID")]
        found = Observation(True, system, " ".join(words).strip() or "no os-release", running=running, newest=newest)
        if system is systems.IMAGE:
            return replace(found, problems=problems)
        found = replace(found, restarts=ask("restart", self._restarts.read, None), problems=problems)
        if system is None:
            return found
        return replace(
            found,
            automatic=ask("automatic", lambda: system.automatic(host), None),
            reboots=ask("reboots", lambda: system.reboots(host), None),
            last=ask("last-run", lambda: systems.last_run(host, system), None),
            trouble=ask("last-run", lambda: systems.trouble(host, system), ""),
            lists=ask("pending", lambda: system.pending.listed_at(host) if system.pending else None, None),
        )

    # -- counting --------------------------------------------------------------------------------------------------

    def _start_count(self, seen: Observation) -> None:
        """In a thread, because it takes seconds; at most one at a time, and its result counts at the next pass."""
        due = self._config.pending_interval > 0 and self._clock() >= self._count_at
        pending = seen.system.pending if seen.system else None
        if pending is None or not due or self._is_stale(seen) or (self._counting and self._counting.is_alive()):
            return
        self._count_at = self._clock() + self._config.pending_interval
        self._counting = threading.Thread(target=self._run_count, args=(pending,), name="updates-count", daemon=True)
        self._counting.start()

    def _run_count(self, pending: Pending) -> None:
        before = self._count or Count()
        try:
            number = pending.count(self._host)
        except HostError as error:
            self._count = replace(before, problem=str(error))
            return
        since = before.since if before.number and number else self._wall()
        self._count = Count(number, since=since)

    def _is_stale(self, seen: Observation) -> bool:
        """Whether a count would mean nothing; and zypper loads the lists that it has none of."""
        return seen.lists is None or not -_DAY <= self._wall() - seen.lists <= _STALE_DAYS * _DAY

    # -- judging ---------------------------------------------------------------------------------------------------

    def _last_run(self, seen: Observation) -> Finding:
        if problem := seen.problems.get("last-run"):
            return _finding("last-run", Status.UNKNOWN, problem)
        if seen.trouble:
            step = "Read the log of the last run on the node."
            return _finding("last-run", Status.FAIL, f"the last run failed: {seen.trouble}", remediation=step)
        if seen.system is not None and not seen.system.stamps:
            return _finding("last-run", Status.INFO, f"{seen.system.name} leaves no record of its runs")
        off = seen.automatic is not None and not seen.automatic.good
        if seen.last is None:
            if off:
                return _finding("last-run", Status.NOT_APPLICABLE, "updates do not run by themselves")
            return _finding("last-run", Status.UNKNOWN, "no run is recorded", remediation="Wait for the first run.")
        days = (self._wall() - seen.last) / _DAY
        observed = f"{days:.0f} days ago ({format_rfc3339(seen.last)})" if days >= 1 else format_rfc3339(seen.last)
        if days < -1:
            step = "Correct the node's clock; the next run is recorded with the right time."
            return _finding("last-run", Status.UNKNOWN, f"{observed}, which is yet to come", remediation=step)
        if days <= _STALE_DAYS:
            return _finding("last-run", Status.PASS, observed)
        severity = Severity.HIGH if days > 14 else Severity.MEDIUM
        step = "Find out why the timer does not run: `systemctl list-timers` on the node."
        return _finding("last-run", Status.FAIL, observed, remediation=step, severity=severity)

    def _pending(self, seen: Observation) -> Finding:
        system, count = seen.system, self._count
        if system is None or system.pending is None:
            return _finding("pending", Status.NOT_APPLICABLE, "updates come as one image")
        if self._config.pending_interval <= 0:
            return _finding("pending", Status.INFO, "not counted: updates.pendingInterval is 0")
        if problem := seen.problems.get("pending"):
            return _finding("pending", Status.UNKNOWN, problem)
        if self._is_stale(seen):
            age = f"from {format_rfc3339(seen.lists)}" if seen.lists else "missing, or have no advisories"
            step = "Let the node refresh its package lists; the agent never does."
            observed = f"the package lists are {age}: what is pending is unknown"
            return _finding("pending", Status.UNKNOWN, observed, remediation=step)
        if count is not None and count.problem:
            return _finding("pending", Status.UNKNOWN, count.problem)
        if count is None or count.number is None:
            return _finding("pending", Status.INFO, "the running agent counts once a day, first after its start")
        if not count.number:
            return _finding("pending", Status.PASS, "0")
        days = (self._wall() - count.since) / _DAY
        observed = f"{count.number} pending, seen since {format_rfc3339(count.since)}"
        status = Status.FAIL if days > 7 else Status.INFO
        severity = Severity.HIGH if days > 30 else Severity.MEDIUM
        return _finding("pending", status, observed, remediation="Let them install.", severity=severity)

    def _kernel(self, seen: Observation) -> Finding:
        if problem := seen.problems.get("kernel"):
            return _finding("kernel", Status.UNKNOWN, problem)
        if seen.newest is None:
            observed = f"{seen.running} runs; no installed kernel of its flavour is in /lib/modules and /boot"
            return _finding("kernel", Status.NOT_APPLICABLE, observed)
        if kernels.rank(seen.newest) <= kernels.rank(seen.running):
            return _finding("kernel", Status.PASS, f"{seen.running} runs")
        observed = f"{seen.running} runs, {seen.newest} is installed"
        step = "Reboot the node; the agent does when the reboot sentinel requires it."
        return _finding("kernel", Status.FAIL, observed, remediation=step, needs_reboot=True)

    def _restart(self, seen: Observation) -> Finding:
        found, source = seen.restarts, "/proc/PID/maps"
        if found is None:
            return _finding("restart", Status.UNKNOWN, seen.problems.get("restart", ""), source=source)
        if found.outdated:
            parts = (f"{name} ({join_limited(files, most=3)})" for name, files in found.outdated.items())
            step = (
                "Restart them: `systemctl restart NAME`, `systemctl daemon-reexec` for init.scope; or reboot the node."
            )
            return _finding("restart", Status.FAIL, join_limited(parts, *_SHOWN), source=source, remediation=step)
        if found.unread:
            parts = (f"{name}: {why}" for name, why in found.unread.items())
            return _finding("restart", Status.UNKNOWN, join_limited(parts, *_SHOWN), source=source)
        if not found.total:
            return _finding("restart", Status.NOT_APPLICABLE, "no service of systemd runs", source=source)
        return _finding("restart", Status.PASS, f"services checked: {found.total}", source=source)


def _answer(name: str, answer: Reading | None, problem: str) -> Finding:
    if answer is None:
        return _finding(name, Status.UNKNOWN, problem, remediation="Fix what the error names.")
    status = {True: Status.PASS, False: Status.FAIL, None: Status.INFO}[answer.good]
    return _finding(name, status, answer.text, source=answer.source, remediation=answer.fix)


def _finding(
    name: str, status: Status, observed: str, *, source: str = "", remediation: str = "",
    severity: Severity | None = None, needs_reboot: bool = False,
) -> Finding:  # fmt: skip
    title, usual, expected = _TITLES[name]
    return Finding(
        f"{CONTROL}/{name}", CONTROL, title, status, severity or usual, sanitize(observed, 1000), expected, source,
        remediation, needs_reboot, section="A4",
    )  # fmt: skip
