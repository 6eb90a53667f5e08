"""What people read about AppArmor on a node. Pure: from decisions to findings."""

from __future__ import annotations

from collections.abc import Iterable

from agent.controls.apparmor.diff import (
    ENFORCING,
    Leaving,
    Observation,
    ProfileFile,
    ProfileState,
    Refused,
    RemovedProfile,
    State,
    leavers,
    tops,
    verdicts,
)
from agent.controls.apparmor.securityfs import APPARMORFS, Lsm
from agent.model import Finding, Severity, Status

CONTROL = "apparmor"
_PROBLEMS_SHOWN = 5
_PIDS_SHOWN = 8
# Modes that a source may ask for and what is left of the profile then: apparmor.d(5), PROFILE MODE.
_LENIENT = {"complain": "what it has no rule for is allowed and logged", "unconfined": "it confines nothing yet"}


def judge(seen: Observation) -> tuple[Finding, ...]:
    """Every finding of one observation."""
    return tuple(_all(seen))


def _all(seen: Observation) -> Iterable[Finding]:
    yield _kernel(seen)
    if seen.parser_missing:
        yield _finding(
            "parser",
            "apparmor_parser is there to lint and load profiles",
            Status.UNKNOWN,
            Severity.HIGH,
            observed=seen.parser_missing,
            expected="apparmor_parser in /usr/sbin or /sbin",
            source="PATH of the agent and of the node",
            remediation="Use the agent's image, which carries it, or install it on the node (package apparmor).",
        )
    elif seen.blocked:
        yield _finding(
            "source",
            "The folder of profiles can be read",
            Status.UNKNOWN,
            Severity.HIGH,
            observed=seen.blocked,
            expected="a folder of raw profiles",
            source="configuration, apparmor.profiles",
            remediation="Mend what the error names; what is loaded stays as it is.",
        )
    if seen.manifest_error:
        yield _finding(
            "manifest",
            "What the agent loaded earlier is known",
            Status.UNKNOWN,
            Severity.MEDIUM,
            observed=seen.manifest_error,
            expected="a readable manifest",
            source="/var/lib/node-hardening/apparmor.json",
            remediation="Nothing is removed before it is readable; the next load starts a new one beside the old.",
        )
    if not (seen.blocked or seen.wanted or seen.refused):
        yield _finding(
            "source",
            "Profiles are asked for",
            Status.INFO,
            Severity.INFO,
            observed="the folder holds no profile",
            source=str(seen.folder),
        )
    for file in seen.unlinted:
        yield _finding(
            f"file/{file}",
            f"Profile file {file}",
            Status.UNKNOWN,
            Severity.HIGH,
            observed="not linted, not loaded: there is no apparmor_parser",
            expected="linted and loaded",
            source=str(seen.folder),
        )
    for refused in seen.refused:
        yield _refused(refused, seen)
    yield from map(_profile, verdicts(seen))
    if seen.kernel.lsm is not Lsm.ON:
        yield from (
            _unheld(name, unit, seen) for unit in seen.wanted if not unit.last_good for name in tops(unit.names)
        )
    everyone = leavers(seen)
    shown = tops([leaver.name for leaver in everyone])
    yield from (_leaving(leaver) for leaver in everyone if leaver.name in shown and leaver.fate is not Leaving.FORGET)


def _kernel(seen: Observation) -> Finding:
    kernel = seen.kernel
    status = {Lsm.ON: Status.PASS, Lsm.OFF: Status.NOT_APPLICABLE, Lsm.UNSEEN: Status.UNKNOWN}[kernel.lsm]
    observed = f"on, {len(kernel.profiles)} profiles loaded" if kernel.lsm is Lsm.ON else kernel.reason
    return _finding(
        "kernel",
        "AppArmor is on in the kernel",
        status,
        Severity.HIGH,
        observed=observed,
        expected="on",
        source=f"{APPARMORFS}/profiles" if kernel.lsm is Lsm.ON else "/sys/module/apparmor/parameters/enabled",
        remediation=kernel.remediation,
    )


def _refused(refused: Refused, seen: Observation) -> Finding:
    shown = [str(problem).removeprefix(f"{refused.shown}:").strip() for problem in refused.problems[:_PROBLEMS_SHOWN]]
    shown = [f"line {text}" if text[:1].isdigit() else text for text in shown]
    if len(refused.problems) > _PROBLEMS_SHOWN:
        shown.append(f"and {len(refused.problems) - _PROBLEMS_SHOWN} more")
    stays = [name for unit in seen.wanted if unit.last_good and unit.file == refused.file for name in tops(unit.names)]
    then = f" The last good content of {', '.join(stays)} stays." if stays else " Nothing of it is loaded."
    first = refused.problems[0]
    return _finding(
        f"file/{refused.file}",
        f"Profile file {refused.file} is well-formed",
        Status.FAIL,
        Severity.HIGH,
        observed="; ".join(shown),
        expected="accepted by apparmor_parser, with names of its own",
        source=f"{refused.shown}:{first.line}" if first.line else refused.shown,
        remediation=f"Mend the file; `node-hardening-agent validate` lints it before a node sees it.{then}",
    )


def _profile(verdict: ProfileState) -> Finding:
    status, severity, observed, remediation = _standing(verdict)
    if verdict.unit.last_good:
        observed += f"; from the last good content of {verdict.unit.file}"
    return _finding(
        f"profile/{verdict.name}",
        f"Profile {verdict.name} is loaded",
        status,
        severity,
        observed=observed,
        expected="loaded (enforce)",
        source=verdict.unit.shown,
        remediation=remediation,
    )


def _standing(verdict: ProfileState) -> tuple[Status, Severity, str, str]:
    match verdict.state:
        case State.HELD if verdict.mode in ENFORCING:
            return Status.PASS, Severity.HIGH, f"loaded ({verdict.mode})", ""
        case State.HELD if verdict.mode in _LENIENT:
            return (
                Status.INFO,
                Severity.MEDIUM,
                f"loaded ({verdict.mode}), as its source asks: {_LENIENT[verdict.mode]}",
                "Take the mode out of the profile's flags=() once its log lines are read (journalctl -k -g apparmor).",
            )
        case State.HELD:
            return (
                Status.UNKNOWN,
                Severity.HIGH,
                f"loaded ({verdict.mode}): the agent does not know what the kernel enforces in that mode",
                "Take the mode out of the profile's flags=(), or tell us what the mode does.",
            )
        case State.FOREIGN:
            return (
                Status.FAIL,
                Severity.HIGH,
                f"{verdict.reason}; it was left alone",
                "Rename the profile, or take the other one out (its file, then `apparmor_parser -R` or a reboot).",
            )
        case State.UNTOLD:
            remedy = "Mend the manifest, or rename the profile."
            return Status.UNKNOWN, Severity.HIGH, f"{verdict.reason} as far as it can tell", remedy
        case State.LOST:
            return Status.FAIL, Severity.HIGH, verdict.reason, "Mend its file; there is no good copy to load."
        case State.LOAD:
            return (
                Status.FAIL,
                Severity.HIGH,
                verdict.reason,
                "`node-hardening-agent apply` loads it; in mode audit nothing is changed.",
            )


def _unheld(name: str, unit: ProfileFile, seen: Observation) -> Finding:
    off = seen.kernel.lsm is Lsm.OFF
    return _finding(
        f"profile/{name}",
        f"Profile {name} is loaded",
        Status.NOT_APPLICABLE if off else Status.UNKNOWN,
        Severity.HIGH,
        observed=f"well-formed; {seen.kernel.reason}",
        expected="loaded (enforce)",
        source=unit.shown,
        remediation="" if off else seen.kernel.remediation,
    )


def _leaving(leaver: RemovedProfile) -> Finding:
    status, observed, remediation = {
        Leaving.IN_USE: (
            Status.INFO,
            f"kept: what runs under it would go on unconfined (PID {_some(leaver.pids)})",
            "Nothing, or end those pods: it is removed with the last of them.",
        ),
        Leaving.UNTOLD: (
            Status.UNKNOWN,
            f"kept: {leaver.reason}",
            "Let the agent read the node's /proc (hostPID, privileged).",
        ),
        Leaving.REMOVE: (
            Status.FAIL,
            "still loaded",
            "`node-hardening-agent apply` removes it; in mode audit nothing is changed.",
        ),
    }[leaver.fate]
    return _finding(
        f"profile/{leaver.name}",
        f"Profile {leaver.name} left the configuration",
        status,
        Severity.LOW,
        observed=observed,
        expected="not loaded",
        source=f"{APPARMORFS}/profiles",
        remediation=remediation,
    )


def _some(pids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, pids[:_PIDS_SHOWN]))
    return f"{shown} …" if len(pids) > _PIDS_SHOWN else shown


def _finding(
    thing: str,
    title: str,
    status: Status,
    severity: Severity,
    *,
    observed: str,
    source: str,
    expected: str = "",
    remediation: str = "",
) -> Finding:
    return Finding(f"{CONTROL}/{thing}", CONTROL, title, status, severity, observed, expected, source, remediation)
