"""From what was seen of the control plane to findings: one for each check of each component, worst first. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from agent.controls.control_plane import CONTROL, apiserver, dqlite, etcd, files, managers, versions
from agent.controls.control_plane.check import Facts
from agent.controls.control_plane.components import READ_ONCE
from agent.controls.control_plane.observe import Observation, ObservedComponent, command_of
from agent.controls.kubelet import files as file_checks
from agent.controls.kubelet.check import AGAIN, CheckResult, Row, with_pid, worst_of_each
from agent.errors import AgentError
from agent.host import Program
from agent.model import Finding, Severity, Status

CHECKS = (*apiserver.CHECKS, *managers.CHECKS, *etcd.CHECKS, *dqlite.CHECKS, *versions.CHECKS)
_PROGRAMS = (Program.API_SERVER, Program.CONTROLLER_MANAGER, Program.SCHEDULER, Program.ETCD, Program.DQLITE)


def findings(seen: Observation) -> Iterator[Finding]:
    """Every finding of a node that runs at least one component, or should."""
    for program in _PROGRAMS:
        running = [one for one in seen.seen if one.component.program is program]
        if running or program is not Program.DQLITE:
            yield _process(seen, program, running)
        yield from worst_of_each(with_pid(finding, one.component.process, len(running))
                                 for one in running for finding in _judge(one, seen))  # fmt: skip
    for group in files.look(seen):
        yield from file_checks.judge(group)


def _judge(one: ObservedComponent, seen: Observation) -> Iterator[Finding]:
    facts = Facts(one, seen)
    for check in CHECKS:
        if check.program is one.component.program:
            yield check.finding(check.result(facts))
    yield _row(one.component.program, "drift", "It runs with what is in its files", Severity.MEDIUM,
               "nothing changed since").finding(_drift(facts))  # fmt: skip


def _row(program: Program, id_: str, title: str, severity: Severity, expected: str) -> Row:
    short = program.value.removeprefix("kube-")
    return Row(f"{short}/{id_}", title, severity, expected, control=CONTROL, section="K1")


def _process(seen: Observation, program: Program, running: Sequence[ObservedComponent]) -> Finding:
    row = _row(program, "process", f"{program.value} can be audited", Severity.HIGH, "one process, or none here")
    aside = f"; {seen.table.others} processes with such a name are not the node's own" if seen.table.others else ""
    if running:
        names = ", ".join(one.component.called for one in running)
        reasons = [reason for one in running if (reason := one.component.doubt)]
        if reasons:
            return row.finding(CheckResult(Status.UNKNOWN, f"{names}: {'; '.join(reasons)}{aside}", "processes",
                                           AGAIN))  # fmt: skip
        status = Status.PASS if len(running) == 1 else Status.INFO
        return row.finding(CheckResult(status, f"{names}{aside}", "processes"))
    if manifest := seen.static_pods.manifests.get(program):
        observed = f"no such process, although {manifest} is there{aside}"
        step = "Find out why the kubelet does not run it (`crictl ps -a`); the next pass checks again."
        return row.finding(CheckResult(Status.UNKNOWN, observed, manifest, step))
    if seen.table.unverified:
        why = f"some processes could not be verified: {seen.table.unverified}"
        return row.finding(CheckResult(Status.UNKNOWN, why, "processes", AGAIN))
    instead = _instead(seen) if program is Program.ETCD else ""
    return row.finding(CheckResult(Status.NOT_APPLICABLE, f"not on this node{instead}{aside}", "processes"))


def _instead(seen: Observation) -> str:
    """What holds the cluster's data where no etcd runs."""
    if other := seen.of(Program.DQLITE):
        return f": {other.component.called} takes its place"
    if any(one.component.process.program is Program.K3S for one in seen.seen):
        return ": k3s keeps its data in SQLite, or in a database elsewhere; neither is audited"
    return ""


def _drift(facts: Facts) -> CheckResult:
    one = facts.component
    manifest = facts.all.static_pods.manifests.get(one.program, "")
    try:
        required = command_of(facts.all.host, manifest) if manifest and not one.embedded else ()
    except AgentError as error:
        return CheckResult(Status.UNKNOWN, f"what its manifest requires is unknown: {error}", one.called, AGAIN)
    if required and not any("$(" in word for word in required):
        ours = (posixpath.basename(one.process.argv[0]), *one.process.argv[1:])
        if (posixpath.basename(required[0]), *required[1:]) != ours:
            step = f"Find out why the kubelet has not restarted it with {manifest} (`journalctl -u kubelet`)."
            return CheckResult(Status.FAIL, f"its arguments are not those of {manifest}", one.called, step)
    if facts.all.static_pods.problem and not (manifest or one.embedded or one.process.unit):
        why = f"the folder of its manifest is unknown: {facts.all.static_pods.problem}"
        return CheckResult(Status.UNKNOWN, why, one.called, AGAIN)
    if why := one.doubt or next(filter(None, map(one.outdated, READ_ONCE)), ""):
        step = f"Restart {one.program.value} where a file changed; else fix the cause. The next pass checks again."
        return CheckResult(Status.UNKNOWN, why, one.called, step)
    return CheckResult(Status.PASS, "nothing changed since it started", one.called)
