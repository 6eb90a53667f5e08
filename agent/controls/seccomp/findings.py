"""Findings of the seccomp control: pure, and such that an SRE can act on them.

A profile that is installed as the policy requires passes even where its author left a gap (an equivalent syscall that
is not denied), because nothing on this node can fix that. The gap has a finding of its own, of high severity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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


def _finding(
    thing: str, title: str, status: Status, severity: Severity, observed: str, *, expected: str, source: str, step: str
) -> Finding:
    id_ = f"{_CONTROL}/{thing}"
    return Finding(id_, _CONTROL, title, status, severity, observed, expected, source, step, section="A2")


def _directory(seen: Observation) -> Finding:
    place, expected = seen.place, "<kubelet --root-dir>/seccomp"
    status, severity, observed, step = Status.PASS, Severity.LOW, place.path, ""
    if place.elsewhere:
        status, severity, expected = Status.FAIL, Severity.HIGH, place.elsewhere
        observed = f"profiles go to {place.path}, the running kubelet reads {place.elsewhere}"
        step = "Set seccomp.directory to auto, or to the directory that the kubelet reads."
    elif place.problem:
        status, severity = Status.UNKNOWN, Severity.HIGH
        observed = f"profiles are in {place.path}; which directory the kubelet reads is unknown: {place.problem}"
        step = "Fix the cause, or set seccomp.directory to the directory that the kubelet reads."
    elif not place.found:
        status, step = Status.INFO, "Nothing to do where the kubelet starts later; else set seccomp.directory."
    title = "Profiles are where the kubelet reads them"
    return _finding("directory", title, status, severity, observed, expected=expected, source=place.source, step=step)


def _manifest(seen: Observation) -> Finding:
    return _finding(
        "manifest", "The manifest of installed profiles can be read", Status.UNKNOWN, Severity.MEDIUM,
        f"{seen.manifest_error}; nothing is removed until this is fixed", expected="a readable manifest",
        source="manifest", step="Fix or delete the file that the error names; the next pass writes a new one.",
    )  # fmt: skip


def _sources(seen: Observation) -> Finding:
    sources = seen.sources
    if sources.error:
        return _finding(
            "profiles", "The directory of profiles can be read", Status.UNKNOWN, Severity.HIGH,
            f"{sources.error}; nothing was installed or removed",
            expected="a readable directory of profiles", source=sources.folder,
            step="Fix the cause, or seccomp.profiles in the configuration.",
        )  # fmt: skip
    skipped = f"not profiles: {', '.join(sources.skipped[:10])}" if sources.skipped else ""
    return _finding(
        "profiles", "Every file in the directory is a profile", Status.INFO, Severity.LOW,
        "; ".join(filter(None, ("" if seen.items else "no profiles", skipped))),
        expected="names ending in .json, or without an ending", source=sources.folder,
        step="Rename files that are profiles; remove the others.",
    )  # fmt: skip


def _visible(visibility: Visibility) -> Finding:
    status, observed, step = Status.PASS, "with the log flag", ""
    if visibility.problem:
        status, observed = Status.INFO, f"not visible on this runtime: {visibility.problem}"
        step = "Update the runtime; until then their refusals are EPERM without a record."
    return _finding(
        "visible", "What the shipped seccomp profiles refuse leaves a record", status, Severity.LOW, observed,
        expected="runtimes that take SECCOMP_FILTER_FLAG_LOG: runc 1.2, crun",
        source=", ".join(f"{path} features" for path in visibility.runtimes) or "no runtime", step=step,
    )  # fmt: skip


def _profile(item: Item, step: str) -> Finding:
    status, source = Status.FAIL, item.path
    expected = f"{item.path}, mode {MODE:04o}, for pods with localhostProfile: {item.name}"
    if item.resolved is None:
        first = item.problems[0]
        observed, expected = f"{_listed(item)}; {_what_stays(item)}", "a valid profile"
        source = f"{first.file}:{first.line}" if first.line else first.file
        step = f"Fix {item.file}; check it with `node-hardening-agent validate`."
    elif item.present.error:
        status, observed, step = Status.UNKNOWN, item.present.error, "Fix the cause; the next pass checks again."
    elif difference := drift(item):
        observed = difference
    elif item.present.uid != 0:
        observed = f"owned by uid {item.present.uid}, which can change it at any time"
        expected, step = f"{expected}, owned by root", f"chown root:root {item.path}"
    else:
        changed = f"; written for this node: {'; '.join(item.resolved.notes)}" if item.resolved.notes else ""
        status, observed, step = Status.PASS, f"installed from {item.file}{changed}", ""
    title = f"Seccomp profile {item.name} is valid and installed"
    return _finding(
        f"profile/{item.name}", title, status, Severity.HIGH, observed, expected=expected, source=source, step=step
    )


def _gaps(item: Item, seen: Observation) -> Iterable[Finding]:
    if item.resolved is None:
        return
    if open_ways := gaps(item.resolved):
        missing = dict.fromkeys(name for gap in open_ways for name in gap.missing)
        yield _finding(
            f"gaps/{item.name}", f"Seccomp profile {item.name} has no gaps", Status.INFO, Severity.HIGH,
            "; ".join(map(str, open_ways)), expected="equivalent syscalls are denied too", source=item.file,
            step=f"Add to {item.file}: {', '.join(missing)}.",
        )  # fmt: skip
    if unknown := unknown_to(item.resolved, seen.platform, seen.library[0] if seen.library else None):
        names = ", ".join(unknown)
        needed = _version(max(syscalls.younger()[name].libseccomp for name in unknown))
        severity, observed, source = Severity.LOW, f"unknown whether the runtime's libseccomp knows {names}", ""
        if seen.library:
            version, path = seen.library
            # Debian's 2.5.4-1+deb12u1 knows what 2.5.5 does and still calls itself 2.5.4: so this is no failure.
            observed = f"{path} has libseccomp {_version(version)}, which does not know {names} and ignores the rule"
            severity, source = Severity.MEDIUM, f"{path} --version"
        yield _finding(
            f"runtime/{item.name}", f"The container runtime enforces all of seccomp profile {item.name}", Status.INFO,
            severity, observed, expected=f"libseccomp {needed} or newer", source=source or "the node's runtimes",
            step=f"Use a container runtime whose libseccomp is {needed} or newer, or has these names added.",
        )  # fmt: skip


def _version(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


def _stale(one: Stale, step: str) -> Finding:
    used = f"; {one.moved_to.path} is used now" if one.moved_to else ""
    status, observed = (Status.UNKNOWN, one.error) if one.error else (Status.FAIL, "still installed")
    return _finding(
        f"left/{one.entry.key}", f"{one.entry.key} is removed from the node", status, Severity.MEDIUM,
        f"{observed}{used}", expected="removed", source=one.entry.key, step=step,
    )  # fmt: skip


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
