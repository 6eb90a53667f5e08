"""The kubelet control: the effective configuration of the node's kubelet, live answers, files. Audit only.

Every finding names the value and where it comes from. It never changes the kubelet, and what cannot be read is unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.config import schema
from agent.controls.base import AuditOnly
from agent.controls.kubelet import files, http_findings, proxy
from agent.controls.kubelet.check import AGAIN, CONTROL, CheckResult, Row, with_pid, worst_of_each
from agent.controls.kubelet.checks import CHECKS
from agent.controls.kubelet.discovery import LOOKED_FOR, Launch
from agent.controls.kubelet.http_findings import Prober, get_pods
from agent.controls.kubelet.observe import Configz, Kubelet, Observation, observe
from agent.host import Host
from agent.model import Finding, Severity, Status
from agent.text import format_rfc3339, join_limited

__all__ = ["CHECK_IDS", "KubeletControl"]

_PROCESS = Row("process", "A kubelet runs on this node", Severity.HIGH, "one kubelet")
_CONFIG = Row("config", "The kubelet's settings can be read", Severity.HIGH, "readable, as the kubelet reads them")
_ANONYMOUS = f"{CONTROL}/4.2.1"
_DRIFT = Row("drift", "The kubelet runs with the configuration that is there", Severity.MEDIUM, "nothing changed since")

CHECK_IDS: tuple[str, ...] = (
    *(check.id for check in CHECKS),
    *(row.id for row in (proxy.ROW, http_findings.SECURE, http_findings.READ_ONLY, _PROCESS, _CONFIG, _DRIFT)),
    *files.IDS,
)


class KubeletControl(AuditOnly):
    """Observes and judges.

    configz: gives the running kubelet's own configuration (`GET /configz`) from its port and a word that names this one
    run of it, where the layers above may read it; None when they may not. prober: requests the kubelet's ports.
    """

    name = CONTROL

    def __init__(
        self, config: schema.Kubelet, host: Host, *, configz: Configz | None = None, prober: Prober = get_pods
    ) -> None:
        self._host, self._configz = host, configz
        self._prober = prober if config.probe else None
        self._skip = config.skip

    def observe(self) -> Observation:
        return observe(self._host, prober=self._prober, configz=self._configz)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        running = [one for one in seen.kubelets if not one.ended]
        settings = [with_pid(finding, one.launch.process, len(running)) for one in running for finding in _judge(one)]
        modes = [finding for group in seen.files for finding in files.judge(group)]
        found = [_PROCESS.finding(_process(seen)), *worst_of_each([*settings, *proxy.judge(seen.proxies)]), *modes]
        skips = {f"{CONTROL}/{_without_prefix(id_)}": reason for id_, reason in self._skip.items()}
        misspelt = [_misspelt(id_) for id_ in self._skip if _without_prefix(id_) not in CHECK_IDS]
        return (*(_skipped(finding, skips) for finding in found), *misspelt)


def _judge(one: Kubelet) -> list[Finding]:
    settings = [check.finding(check.result(one.facts)) for check in CHECKS]
    settings = [http_findings.correct(each, one.answers) if each.id == _ANONYMOUS else each for each in settings]
    modes = [finding for group in one.files for finding in files.judge(group)]
    live = http_findings.judge(one.answers)
    return [_CONFIG.finding(_configuration(one)), *settings, *live, _DRIFT.finding(_drift(one)), *modes]


def _process(seen: Observation) -> CheckResult:
    running = [one.launch for one in seen.kubelets if not one.ended]
    aside = "".join(f"; {line}" for line in seen.search.notes)
    if len(running) == 1:
        only = running[0]
        if not only.runs:
            observed = f"no kernel runs on this tree: judged {only.called.partition('(')[2].rstrip(')')}{aside}"
            return CheckResult(Status.NOT_APPLICABLE, observed, only.unit)
        return CheckResult(Status.PASS, f"{only.called}, since {_started(only)}{aside}", "processes")
    if running:
        names = ", ".join(launch.called for launch in running)
        observed = f"{len(running)} kubelets: {names}; each check shows the worst answer of them{aside}"
        step = "Find out why several run, and stop those that should not."
        return CheckResult(Status.INFO, observed, "processes", step)
    if seen.kubelets:
        observed = f"{seen.kubelets[0].launch.called} ended during the check{aside}"
        return CheckResult(Status.UNKNOWN, observed, "processes", "The next pass checks again.")
    observed = f"none of {LOOKED_FOR} among {seen.processes} processes{aside}"
    step = "Start the kubelet; the agent needs the host's PID namespace (hostPID: true) to see it."
    return CheckResult(Status.UNKNOWN, observed, "processes", step)


def _configuration(one: Kubelet) -> CheckResult:
    config = one.facts.effective
    aside = f"; configz: {one.configz}" if one.configz else ""
    if config.problem and config.configz is None:
        step = "Fix the file so that the kubelet can read it, and restart the kubelet."
        return CheckResult(Status.UNKNOWN, f"{config.problem}{aside}", one.launch.called, step)
    parts = ["command line", *config.files, *(["configz"] if config.configz is not None else [])]
    observed = f"read from {', '.join(parts)}{f' ({config.problem})' if config.problem else ''}{aside}"
    return CheckResult(Status.PASS, observed, one.launch.called)


def _drift(one: Kubelet) -> CheckResult:
    if not one.launch.runs:
        return CheckResult(Status.NOT_APPLICABLE, "no kubelet runs on this tree", one.launch.unit)
    started, source, config = _started(one.launch), one.launch.called, one.facts.effective
    lines = [f"{path} was changed after it started ({started})" for path in one.changes.certain]
    lines += config.differences()
    if lines:
        step = "Restart the kubelet, so that it runs with what its files say, or undo the change."
        return CheckResult(Status.FAIL, "; ".join(lines[:8]), source, step)
    if one.changes.doubtful:
        paths = join_limited(one.changes.doubtful, characters=1000)
        observed = f"{paths} changed after it started ({started}); unknown whether its content is what runs"
        step = "Restart the kubelet, or let the agent read /configz (right nodes/configz), which compares the values."
        return CheckResult(Status.UNKNOWN, observed, source, step)
    if one.changes.undated or config.problem:
        observed = config.problem or f"unknown when {join_limited(one.changes.undated, characters=200)} changed"
        return CheckResult(Status.UNKNOWN, observed, source, AGAIN)
    return CheckResult(Status.PASS, f"nothing changed since it started ({started})", source)


def _started(launch: Launch) -> str:
    return format_rfc3339(launch.process.started)


def _skipped(finding: Finding, skips: Mapping[str, str]) -> Finding:
    if finding.id not in skips:
        return finding
    return replace(
        finding, status=Status.INFO, observed=f"skipped: {skips[finding.id]}", source="kubelet.skip", remediation=""
    )


def _misspelt(id_: str) -> Finding:
    close = difflib.get_close_matches(_without_prefix(id_), CHECK_IDS, n=1)
    meant = f"Did you mean {close[0]}?" if close else f"The ids are {', '.join(CHECK_IDS)}."
    row = Row(f"skip/{id_}", "Skipped checks are checks", Severity.LOW, "an id of a check")
    return row.finding(CheckResult(Status.UNKNOWN, f"{id_!r} is no check: nothing is skipped", "kubelet.skip", meant))


def _without_prefix(id_: str) -> str:
    return id_.removeprefix(f"{CONTROL}/")
