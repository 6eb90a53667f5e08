"""The version control: whether upstream still supports what this node runs, and how far it is from its API server.

By a dated table: past its last entry the answer is unknown, never "outdated". Distributions may support their own
builds for longer than upstream; what is named here is upstream's end of life.
https://kubernetes.io/releases/, https://kubernetes.io/releases/version-skew-policy/
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from agent.config.node_sections import Version
from agent.controls.base import AuditOnly
from agent.controls.kubelet.check import AGAIN, CheckResult, Row
from agent.errors import AgentError
from agent.host import Host, Process, Program
from agent.host.budget import Budget
from agent.model import Finding, Severity, Status

CONTROL = "version"
TABLE_DATE = date(2026, 11, 28)
# minor version of 1: maintenance only from, end of life.
SUPPORT: Mapping[int, tuple[date, date]] = {
    34: (date(2026, 8, 27), date(2026, 10, 27)),
    35: (date(2026, 12, 28), date(2027, 2, 28)),
    36: (date(2027, 4, 28), date(2027, 6, 28)),
    37: (date(2027, 8, 28), date(2027, 10, 28)),
}
_OUTDATED_TABLE = timedelta(days=183)
_SKEW, _OLD_SKEW, _OLD = 3, 2, 25
_VERSION = re.compile(r"v?1\.(\d{1,3})\.\d+[^\s]{0,80}")
# Builds that their distribution may support for longer.
_EXTENDED = ("-eks-", "-gke.", "-aks", "-lts")
_TIMEOUT_SECONDS = 5.0
_SUPPORTED = Row("supported", "Upstream supports the kubelet's version", Severity.MEDIUM, "before its end of life",
                 control=CONTROL, section="A3")  # fmt: skip
_SKEWED = Row("skew", "The kubelet is not too far from the API server", Severity.HIGH,
              "not newer, and at most three minor versions older", control=CONTROL, section="A3")  # fmt: skip
TOO_OLD = "Upgrade the agent: its table is too old."


@dataclass(frozen=True, slots=True)
class Observation:
    """Versions as they call themselves. Empty: unknown, with the reason in `trouble`, or not asked without one.

    away: the API server did not answer, which is no property of the node.
    """

    kubelet: str = ""
    server: str = ""
    trouble: str = ""
    away: bool = False


class VersionControl(AuditOnly):
    """Observes and judges.

    versions: the API server's version and the kubelet's as the Node has it; None where the API is not to be asked. It
    returns None when the API server does not answer, and raises AgentError when it refuses.
    """

    name = CONTROL

    def __init__(
        self, config: Version, host: Host, *, versions: Callable[[], tuple[str, str] | None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        del config  # its mode is all there is
        self._host, self._versions, self._wall = host, versions, wall
        self._known: dict[Process, str] = {}

    def observe(self) -> Observation:
        """By the API where it may be asked; a kubelet of the node reports its version itself."""
        trouble, found = "", None
        if self._versions is not None:
            try:
                found = self._versions()
            except AgentError as error:
                trouble = str(error)
        if found is not None:
            return Observation(found[1], found[0])
        return Observation(self._by_program(), "", trouble, self._versions is not None and not trouble)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        return (_SUPPORTED.finding(_supported(seen, today)), _SKEWED.finding(_skew(seen)))

    def _by_program(self) -> str:
        """`kubelet --version`, once for each run of it; empty where its program is not this node's to start."""
        if not self._host.can_start_programs:
            return ""
        try:
            found = self._host.within(Budget()).processes(frozenset((Program.KUBELET, Program.K3S)))
            process = next(iter(found.processes), None)
            if process is None:
                return ""
            if process not in self._known:
                with self._host.entry_of(process) as entry:
                    program = entry.executable()
                answer = self._host.run((program, "--version"), timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=4096)
                self._known = {process: answer.check().stdout}
            version = _VERSION.search(self._known[process])
        except (AgentError, OSError):
            return ""
        return version[0] if version else ""


def _minor(version: str) -> int | None:
    found = _VERSION.match(version)
    return int(found[1]) if found else None


def _supported(seen: Observation, today: date) -> CheckResult:
    if _minor(seen.kubelet) is None:
        return _without(seen, "the kubelet's version", seen.kubelet)
    return support(seen.kubelet, today)


def support(version: str, today: date) -> CheckResult:
    """Whether upstream supports a version of Kubernetes (`v1.36.2`) on that day."""
    minor, last = _minor(version) or 0, max(SUPPORT)
    if minor > last or (minor not in SUPPORT and minor > min(SUPPORT)):
        if today > SUPPORT[last][1] + _OUTDATED_TABLE:
            observed = f"{version} is newer than the table of {TABLE_DATE}"
            return CheckResult(Status.UNKNOWN, observed, "table", TOO_OLD)
        return CheckResult(Status.INFO, f"{version} is newer than the table of {TABLE_DATE}", "table")
    if minor not in SUPPORT:
        return _ended(version, f"before {SUPPORT[min(SUPPORT)][1]}")
    maintenance, end = SUPPORT[minor]
    if today > end:
        return _ended(version, f"on {end}")
    if today >= maintenance:
        return CheckResult(Status.INFO, f"{version}: maintenance only, upstream's end of life is {end}", "table")
    return CheckResult(Status.PASS, f"{version}: supported until {end}", "table")


def _ended(version: str, when: str) -> CheckResult:
    observed = f"{version}: upstream's end of life was {when}"
    if any(mark in version for mark in _EXTENDED):
        return CheckResult(Status.INFO, f"{observed}; the provider may support its own build for longer", "table")
    step = "Upgrade the cluster to a supported minor version, one at a time."
    return CheckResult(Status.FAIL, observed, "table", step)


def _skew(seen: Observation) -> CheckResult:
    kubelet, server = _minor(seen.kubelet), _minor(seen.server)
    if kubelet is None or server is None:
        what = "the API server's version" if server is None else "the kubelet's version"
        return _without(seen, what, seen.server if server is None else seen.kubelet)
    observed = f"kubelet {seen.kubelet}, API server {seen.server}"
    allowed = _SKEW if kubelet >= _OLD else _OLD_SKEW
    if kubelet > server:
        step = "Upgrade the API server first: it never talks to a newer kubelet."
        return CheckResult(Status.FAIL, f"{observed}: the kubelet is newer", "API server", step)
    if server - kubelet > allowed:
        step = "Upgrade the kubelet."
        return CheckResult(Status.FAIL, f"{observed}: more than {allowed} minor versions older", "API server", step)
    return CheckResult(Status.PASS, observed, "API server")


def _without(seen: Observation, what: str, text: str) -> CheckResult:
    if seen.trouble or text:
        observed = f"{what} is unknown: {seen.trouble or repr(text[:80])}"
        return CheckResult(Status.UNKNOWN, observed, "API server", AGAIN)
    if seen.away:
        return CheckResult(Status.INFO, f"{what} is not known now: the API server does not answer", "API server")
    observed = f"{what} is not known here: only `run` queries the API server"
    return CheckResult(Status.NOT_APPLICABLE, observed, "API server")
