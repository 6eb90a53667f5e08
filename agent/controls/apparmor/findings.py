"""The findings about AppArmor. Pure: from decisions to findings."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.choices import Mode
from agent.controls.apparmor.deny_records import NOQUIET, PARAMETER, DenyRecords
from agent.controls.apparmor.diff import (
    ENFORCING,
    Observation,
    ProfileFile,
    ProfileState,
    Refused,
    Removal,
    RemovedProfile,
    State,
    removed_profiles,
    tops,
    verdicts,
)
from agent.controls.apparmor.securityfs import APPARMORFS, Kernel, Lsm
from agent.controls.base import correction
from agent.controls.manifest import STATE_FOLDER
from agent.model import Finding, Severity, Status

CONTROL = "apparmor"
RUNTIME_PARSER = "/sbin/apparmor_parser"  # where containerd and CRI-O look for it
_PROBLEMS_SHOWN = 5
_PIDS_SHOWN = 8
# Modes that a source may ask for and what is left of the profile then: apparmor.d(5), PROFILE MODE.
_LENIENT = {"complain": "what it has no rule for is allowed and logged", "unconfined": "it confines nothing yet"}


def judge(seen: Observation, mode: Mode = Mode.ENFORCE) -> tuple[Finding, ...]:
    """Every finding of one observation. mode: the control's, on which the next step depends."""
    step = correction(CONTROL, mode)
    noquiet = (_noquiet(seen.deny_records, seen.kernel, mode, step),) if seen.deny_records.is_required else ()
    return (*_surroundings(seen), *noquiet, *_profiles(seen, step))


def _surroundings(seen: Observation) -> Iterator[Finding]:
    """Kernel, parser, folder and manifest."""
    yield _kernel(seen)
    if seen.kernel.lsm is Lsm.ON and not seen.runtime_parser:
        yield _finding(
            "runtime", "The container runtime can use AppArmor", Status.FAIL,
            observed=f"no {RUNTIME_PARSER} on the node: containerd and CRI-O take AppArmor for off and start pods "
            "without their default profile", expected=RUNTIME_PARSER, source=RUNTIME_PARSER,
            remediation="Install AppArmor's parser on the node (Debian, Ubuntu: package apparmor) and restart the "
            "runtime, or set apparmor.mode to off for such nodes.",
        )  # fmt: skip
    if seen.unlinted:
        yield _finding(
            "parser", "apparmor_parser is installed", Status.UNKNOWN, observed=seen.blocked,
            expected="apparmor_parser in /usr/sbin or /sbin", source="PATH of the agent and of the node",
            remediation="Use the agent's image, which has it, or install it on the node (package apparmor).",
        )  # fmt: skip
    elif seen.blocked:
        yield _finding(
            "source", "The folder of profiles can be read", Status.UNKNOWN, observed=seen.blocked,
            expected="a folder of raw profiles", source="configuration, apparmor.profiles",
            remediation="Fix what the error names; loaded profiles stay as they are.",
        )  # fmt: skip
    if seen.manifest_error:
        yield _finding(
            "manifest", "The manifest of loaded profiles is known", Status.UNKNOWN, Severity.MEDIUM,
            observed=seen.manifest_error, expected="a readable manifest", source=f"{STATE_FOLDER}/{CONTROL}.json",
            remediation="Nothing is removed until it can be read; the next load starts a new one beside the old.",
        )  # fmt: skip
    if not (seen.blocked or seen.desired or seen.refused):
        yield _finding(
            "source", "The folder has profiles", Status.INFO, Severity.INFO,
            observed="the folder holds no profile", source=str(seen.folder),
        )  # fmt: skip


def _profiles(seen: Observation, step: str) -> Iterator[Finding]:
    for file in seen.unlinted:
        yield _finding(
            f"file/{file}", f"Profile file {file} is valid", Status.UNKNOWN,
            observed="neither linted nor loaded: no apparmor_parser", expected="linted and loaded",
            source=str(seen.folder),
        )  # fmt: skip
    for refused in seen.refused:
        yield _refused(refused, seen)
    yield from (_profile(verdict, step) for verdict in verdicts(seen))
    if seen.kernel.lsm is not Lsm.ON:
        yield from (
            _unheld(name, unit, seen) for unit in seen.desired if not unit.last_good for name in tops(unit.names)
        )
    gone = removed_profiles(seen)
    shown = tops([removed.name for removed in gone])
    yield from (_removed(one, step) for one in gone if one.name in shown and one.decision is not Removal.FORGET)


def _kernel(seen: Observation) -> Finding:
    kernel = seen.kernel
    on = kernel.lsm is Lsm.ON
    return _finding(
        "kernel", "AppArmor is on in the kernel",
        {Lsm.ON: Status.PASS, Lsm.OFF: Status.NOT_APPLICABLE, Lsm.UNKNOWN: Status.UNKNOWN}[kernel.lsm],
        observed=f"on, {len(kernel.profiles)} profiles loaded" if on else kernel.reason, expected="on",
        source=f"{APPARMORFS}/profiles" if on else "/sys/module/apparmor/parameters/enabled",
        remediation=kernel.remediation,
    )  # fmt: skip


def _noquiet(seen: DenyRecords, kernel: Kernel, mode: Mode, step: str) -> Finding:
    status, observed = Status.PASS if seen.is_on else Status.INFO, f"audit is {seen.value}"
    if kernel.lsm is Lsm.OFF:
        status, observed, step = Status.NOT_APPLICABLE, f"cannot be set on this node: {kernel.reason}", ""
    elif seen.problem:
        status, observed, step = Status.UNKNOWN, seen.problem, "Fix what the error names; nothing is set until then."
    elif not seen.is_on and mode is Mode.ENFORCE:
        status = Status.FAIL
    return _finding(
        NOQUIET, "What deny rules refuse leaves a record", status, Severity.LOW, observed=observed,
        expected=f"audit is {NOQUIET}", source=PARAMETER, remediation="" if seen.is_on else step,
    )  # fmt: skip


def _refused(refused: Refused, seen: Observation) -> Finding:
    shown = [str(problem).removeprefix(f"{refused.shown}:").strip() for problem in refused.problems[:_PROBLEMS_SHOWN]]
    shown = [f"line {text}" if text[:1].isdigit() else text for text in shown]
    if len(refused.problems) > _PROBLEMS_SHOWN:
        shown.append(f"and {len(refused.problems) - _PROBLEMS_SHOWN} more")
    kept = [name for unit in seen.desired if unit.last_good and unit.file == refused.file for name in tops(unit.names)]
    then = f" The last valid content of {', '.join(kept)} stays loaded." if kept else " Nothing of it is loaded."
    first = refused.problems[0]
    return _finding(
        f"file/{refused.file}", f"Profile file {refused.file} is valid", Status.FAIL, observed="; ".join(shown),
        expected="accepted by apparmor_parser, with unique names",
        source=f"{refused.shown}:{first.line}" if first.line else refused.shown,
        remediation=f"Fix the file; `node-hardening-agent validate` lints it before a node reads it.{then}",
    )  # fmt: skip


def _profile(verdict: ProfileState, step: str) -> Finding:
    status, severity, observed, remediation = _compliance(verdict, step)
    if verdict.unit.last_good:
        observed += f"; from the last valid content of {verdict.unit.file}"
    return _finding(
        f"profile/{verdict.name}", f"Profile {verdict.name} is loaded", status, severity, observed=observed,
        expected="loaded (enforce)", source=verdict.unit.shown, remediation=remediation,
    )  # fmt: skip


def _compliance(verdict: ProfileState, load: str) -> tuple[Status, Severity, str, str]:
    mode, severity = verdict.mode, Severity.HIGH
    match verdict.state:
        case State.HELD if mode in ENFORCING:
            return Status.PASS, severity, f"loaded ({mode})", ""
        case State.HELD if mode in _LENIENT:
            step = "Remove the mode from the profile's flags=() once its log is read (journalctl -k -g apparmor)."
            return Status.INFO, Severity.MEDIUM, f"loaded ({mode}), as in its source: {_LENIENT[mode]}", step
        case State.HELD:
            step = "Remove the mode from the profile's flags=(), or report what it does."
            return Status.UNKNOWN, severity, f"loaded ({mode}): unknown what the kernel enforces in that mode", step
        case State.FOREIGN:
            step = "Rename the profile, or remove the other one (its file, then `apparmor_parser -R` or a reboot)."
            return Status.FAIL, severity, f"{verdict.reason}; it was left alone", step
        case State.UNKNOWN:
            step = "Let the agent read its manifest and securityfs, or rename the profile."
            return Status.UNKNOWN, severity, f"{verdict.reason}; it was left alone", step
        case State.LOST:
            return Status.FAIL, severity, verdict.reason, "Fix its file; there is no valid copy to load."
        case State.LOAD:
            return Status.FAIL, severity, verdict.reason, load


def _unheld(name: str, unit: ProfileFile, seen: Observation) -> Finding:
    off = seen.kernel.lsm is Lsm.OFF
    return _finding(
        f"profile/{name}", f"Profile {name} is loaded", Status.NOT_APPLICABLE if off else Status.UNKNOWN,
        observed=f"valid; {seen.kernel.reason}", expected="loaded (enforce)", source=unit.shown,
        remediation="" if off else seen.kernel.remediation,
    )  # fmt: skip


def _removed(removed: RemovedProfile, load: str) -> Finding:
    status, observed, step = Status.FAIL, "still loaded", load
    if removed.decision is Removal.IN_USE:
        status, observed = Status.INFO, f"kept: its processes would continue unconfined (PID {_some(removed.pids)})"
        step = "None needed, or delete those pods: it is removed with the last of them."
    elif removed.decision is Removal.UNKNOWN:
        status, observed = Status.UNKNOWN, f"kept: {removed.reason}"
        step = "Let the agent read the node's /proc and securityfs (hostPID, privileged)."
    return _finding(
        f"profile/{removed.name}", f"Profile {removed.name} left the configuration", status, Severity.LOW,
        observed=observed, expected="not loaded", source=f"{APPARMORFS}/profiles", remediation=step,
    )  # fmt: skip


def _some(pids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, pids[:_PIDS_SHOWN]))
    return f"{shown} …" if len(pids) > _PIDS_SHOWN else shown


def _finding(
    thing: str, title: str, status: Status, severity: Severity = Severity.HIGH, *,
    observed: str, source: str, expected: str = "", remediation: str = "",
) -> Finding:  # fmt: skip
    id_ = f"{CONTROL}/{thing}"
    return Finding(id_, CONTROL, title, status, severity, observed, expected, source, remediation, section="A2")
