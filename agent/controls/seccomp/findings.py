"""Findings of the seccomp control: pure, and such that an SRE can act on them.

A profile that is installed as the policy requires passes even where its author left a gap (an equivalent syscall that
is not denied), because nothing on this node can fix that. The gap has a finding of its own, of high severity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from agent.controls.seccomp import syscalls
from agent.controls.seccomp.equivalent_syscalls import gaps, unknown_to
from agent.controls.seccomp.observation import MODE, Item, Observation, Stale, drift
from agent.controls.seccomp.refusal_records import Visibility
from agent.model import Finding, Severity, Status

_CONTROL: Final = "seccomp"
_PROBLEMS_SHOWN: Final = 5


def findings(seen: Observation, step: str) -> tuple[Finding, ...]:
    """Every finding, in a stable order. step: the next one where the agent itself can correct it."""
    found = [_directory(seen)]
    if seen.manifest_error:
        found.append(_manifest(seen))
    if seen.sources.error or seen.sources.skipped or not seen.items:
        found.append(_sources(seen))
    if seen.visibility is not None:
        found.append(_visible(seen.visibility))
    for item in seen.items:
        found.append(_profile(item, step))
        found.extend(_gaps(item, seen))
    found.extend(_stale(one, step) for one in seen.stale if one.there)
    return tuple(found)


def _finding(thing: str, title: str, status: Status, severity: Severity, **fields: Any) -> Finding:
    return Finding(f"{_CONTROL}/{thing}", _CONTROL, title, status, severity, section="A2", **fields)


def _directory(seen: Observation) -> Finding:
    place = seen.place
    title = "Profiles are where the kubelet reads them"
    if place.elsewhere:
        return _finding(
            "directory",
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=f"profiles go to {place.path}, the running kubelet reads {place.elsewhere}",
            expected=place.elsewhere,
            source=place.source,
            remediation="Set seccomp.directory to auto, or to the directory that the kubelet reads.",
        )
    if place.problem:
        return _finding(
            "directory",
            title,
            Status.UNKNOWN,
            Severity.HIGH,
            observed=f"profiles are in {place.path}; which directory the kubelet reads is unknown: {place.problem}",
            expected="<kubelet --root-dir>/seccomp",
            source=place.source,
            remediation="Fix the cause, or set seccomp.directory to the directory that the kubelet reads.",
        )
    return _finding(
        "directory",
        title,
        Status.PASS if place.found else Status.INFO,
        Severity.LOW,
        observed=place.path,
        expected="<kubelet --root-dir>/seccomp",
        source=place.source,
        remediation="" if place.found else "Nothing to do where the kubelet starts later; else set seccomp.directory.",
    )


def _manifest(seen: Observation) -> Finding:
    return _finding(
        "manifest",
        "The manifest of installed profiles can be read",
        Status.UNKNOWN,
        Severity.MEDIUM,
        observed=f"{seen.manifest_error}; nothing is removed until this is fixed",
        expected="a readable manifest",
        source="manifest",
        remediation="Fix or delete the file that the error names; the next pass writes a new one.",
    )


def _sources(seen: Observation) -> Finding:
    sources = seen.sources
    if sources.error:
        return _finding(
            "profiles",
            "The directory of profiles can be read",
            Status.UNKNOWN,
            Severity.HIGH,
            observed=f"{sources.error}; nothing was installed or removed",
            expected="a readable directory of profiles",
            source=sources.folder,
            remediation="Fix the cause, or seccomp.profiles in the configuration.",
        )
    skipped = f"not profiles: {', '.join(sources.skipped[:10])}" if sources.skipped else ""
    empty = "" if seen.items else "no profiles"
    return _finding(
        "profiles",
        "Every file in the directory is a profile",
        Status.INFO,
        Severity.LOW,
        observed="; ".join(filter(None, (empty, skipped))),
        expected="names ending in .json, or without an ending",
        source=sources.folder,
        remediation="Rename files that are profiles; remove the others.",
    )


def _visible(visibility: Visibility) -> Finding:
    return _finding(
        "visible",
        "What the shipped seccomp profiles refuse leaves a record",
        Status.INFO if visibility.problem else Status.PASS,
        Severity.LOW,
        observed=f"not visible on this runtime: {visibility.problem}" if visibility.problem else "with the log flag",
        expected="runtimes that take SECCOMP_FILTER_FLAG_LOG: runc 1.2, crun",
        source=", ".join(f"{path} features" for path in visibility.runtimes) or "no runtime",
        remediation="Update the runtime; until then their refusals are EPERM without a record."
        * bool(visibility.problem),
    )


def _profile(item: Item, step: str) -> Finding:
    id_, title = f"profile/{item.name}", f"Seccomp profile {item.name} is valid and installed"
    expected = f"{item.path}, mode {MODE:04o}, for pods with localhostProfile: {item.name}"
    if item.resolved is None:
        first = item.problems[0]
        return _finding(
            id_,
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=f"{_listed(item)}; {_what_stays(item)}",
            expected="a valid profile",
            source=f"{first.file}:{first.line}" if first.line else first.file,
            remediation=f"Fix {item.file}; check it with `node-hardening-agent validate`.",
        )
    if item.present.error:
        return _finding(
            id_,
            title,
            Status.UNKNOWN,
            Severity.HIGH,
            observed=item.present.error,
            expected=expected,
            source=item.path,
            remediation="Fix the cause; the next pass checks again.",
        )
    if difference := drift(item):
        return _finding(
            id_,
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=difference,
            expected=expected,
            source=item.path,
            remediation=step,
        )
    if item.present.uid != 0:
        return _finding(
            id_,
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=f"owned by uid {item.present.uid}, which can change it at any time",
            expected=f"{expected}, owned by root",
            source=item.path,
            remediation=f"chown root:root {item.path}",
        )
    changed = f"; written for this node: {'; '.join(item.resolved.notes)}" if item.resolved.notes else ""
    return _finding(
        id_,
        title,
        Status.PASS,
        Severity.HIGH,
        observed=f"installed from {item.file}{changed}",
        expected=expected,
        source=item.path,
    )


def _gaps(item: Item, seen: Observation) -> Iterable[Finding]:
    if item.resolved is None:
        return
    if open_ways := gaps(item.resolved):
        yield _finding(
            f"gaps/{item.name}",
            f"Seccomp profile {item.name} has no gaps",
            Status.INFO,
            Severity.HIGH,
            observed="; ".join(
                f"{gap.what}: denies {', '.join(gap.denied)} and not {', '.join(gap.missing)}" for gap in open_ways
            ),
            expected="equivalent syscalls are denied too",
            source=item.file,
            remediation=f"Add to {item.file}: {', '.join(dict.fromkeys(n for gap in open_ways for n in gap.missing))}.",
        )
    if unknown := unknown_to(item.resolved, seen.platform, seen.library[0] if seen.library else None):
        names = ", ".join(unknown)
        young = syscalls.younger()
        needed = ".".join(map(str, max(young[name].libseccomp for name in unknown)))
        if seen.library:
            version, path = seen.library
            reported = ".".join(map(str, version))
            # Debian's 2.5.4-1+deb12u1 knows what 2.5.5 does and still calls itself 2.5.4: so this is no failure.
            observed = f"runc has libseccomp {reported}, which does not know {names} and ignores the rule"
            source = f"{path} --version"
        else:
            observed, source = f"unknown whether the runtime's libseccomp knows {names}", "no runc found"
        yield _finding(
            f"runtime/{item.name}",
            f"The container runtime enforces all of seccomp profile {item.name}",
            Status.INFO,
            Severity.MEDIUM if seen.library else Severity.LOW,
            observed=observed,
            expected=f"libseccomp {needed} or newer",
            source=source,
            remediation=f"Use a container runtime whose libseccomp is {needed} or newer, or has these names added.",
        )


def _stale(one: Stale, step: str) -> Finding:
    return _finding(
        f"left/{one.entry.key}",
        f"{one.entry.key} is removed from the node",
        Status.FAIL,
        Severity.MEDIUM,
        observed="still installed" if one.moved_to is None else f"still installed; {one.moved_to.path} is used now",
        expected="removed",
        source=one.entry.key,
        remediation=step,
    )


def _listed(item: Item) -> str:
    more = len(item.problems) - _PROBLEMS_SHOWN
    lines = [str(problem) for problem in item.problems[:_PROBLEMS_SHOWN]]
    return "; ".join([*lines, f"and {more} more"] if more > 0 else lines)


def _what_stays(item: Item) -> str:
    if item.present.error:
        return f"what is installed is unknown: {item.present.error}"
    if item.present.content is None:
        return "no earlier version is installed: pods that name it do not start"
    if item.is_ours:
        return f"the last valid one stays at {item.path}"
    return f"{item.path} does not belong to the agent and stays as it is"
