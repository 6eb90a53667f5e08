"""What the seccomp control says about what it saw: pure, and in words that an SRE can act on.

A profile that is installed as the policy asks is a pass even where its author left a way around it, because that is
what the policy asks for and nothing on this node can mend it. The way around has a finding of its own, of high
severity, which no profile can make pass but its author.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.controls.seccomp import syscalls
from agent.controls.seccomp.equivalent_syscalls import gaps, unknown_to
from agent.controls.seccomp.observation import MODE, Item, Observation, Stale, drift
from agent.model import Finding, Severity, Status

_CONTROL: Final = "seccomp"
_PROBLEMS_SHOWN: Final = 5


def findings(seen: Observation) -> tuple[Finding, ...]:
    """Every finding, in a stable order."""
    found = [_directory(seen)]
    if seen.manifest_error:
        found.append(_manifest(seen))
    if seen.sources.error or seen.sources.skipped or not seen.items:
        found.append(_sources(seen))
    for item in seen.items:
        found.append(_profile(item, seen))
        found.extend(_ways_around(item, seen))
    found.extend(_stale(one) for one in seen.stale if one.there)
    return tuple(found)


def _finding(thing: str, title: str, status: Status, severity: Severity, **fields: str) -> Finding:
    return Finding(id=f"{_CONTROL}/{thing}", control=_CONTROL, title=title, status=status, severity=severity, **fields)


def _directory(seen: Observation) -> Finding:
    place = seen.place
    title = "Profiles go where the kubelet looks for them"
    if place.elsewhere:
        return _finding(
            "directory",
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=f"profiles go to {place.path}, the running kubelet looks in {place.elsewhere}",
            expected=place.elsewhere,
            source=place.source,
            remediation="Set seccomp.directory to auto, or to the folder in which the kubelet looks.",
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
        "What was installed before is known",
        Status.UNKNOWN,
        Severity.MEDIUM,
        observed=f"{seen.manifest_error}; nothing is removed until that is mended",
        expected="a readable manifest",
        source="manifest",
        remediation="Mend or delete the file that the error names; the next pass writes it anew.",
    )


def _sources(seen: Observation) -> Finding:
    sources = seen.sources
    if sources.error:
        return _finding(
            "profiles",
            "The folder of profiles can be read",
            Status.UNKNOWN,
            Severity.HIGH,
            observed=f"{sources.error}; nothing was installed or removed",
            expected="a readable folder of profiles",
            source=sources.folder,
            remediation="Mend what the error names, or seccomp.profiles in the configuration.",
        )
    skipped = f"not taken for profiles: {', '.join(sources.skipped[:10])}" if sources.skipped else ""
    empty = "" if seen.items else "no profile is there"
    return _finding(
        "profiles",
        "Every file of the folder is a profile",
        Status.INFO,
        Severity.LOW,
        observed="; ".join(filter(None, (empty, skipped))),
        expected="names ending in .json, or without an ending",
        source=sources.folder,
        remediation="Rename what should be a profile; move away what should not.",
    )


def _profile(item: Item, seen: Observation) -> Finding:
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
            remediation=f"Mend {item.file}; `node-hardening-agent validate` says when it is right.",
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
            remediation="Mend what the error names; the next pass looks again.",
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
            remediation="Run apply, or leave it to the daemon in mode enforce: it is written again.",
        )
    if item.present.uid != seen.owner:
        return _finding(
            id_,
            title,
            Status.FAIL,
            Severity.HIGH,
            observed=f"owned by uid {item.present.uid}, who can change it at any time",
            expected=f"{expected}, owned by uid {seen.owner}",
            source=item.path,
            remediation=f"chown {seen.owner}:{seen.owner} {item.path}",
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


def _ways_around(item: Item, seen: Observation) -> Iterable[Finding]:
    if item.resolved is None:
        return
    if open_ways := gaps(item.resolved):
        yield _finding(
            f"twins/{item.name}",
            f"Seccomp profile {item.name} cannot be walked around",
            Status.INFO,
            Severity.HIGH,
            observed="; ".join(
                f"{gap.what}: denies {', '.join(gap.denied)} and not {', '.join(gap.missing)}" for gap in open_ways
            ),
            expected="every syscall that does the same is denied with it",
            source=item.file,
            remediation=f"Add to {item.file}: {', '.join(dict.fromkeys(n for gap in open_ways for n in gap.missing))}.",
        )
    if unknown := unknown_to(item.resolved, seen.platform, seen.library[0] if seen.library else None):
        names = ", ".join(unknown)
        young = syscalls.younger()
        needed = ".".join(map(str, max(young[name].libseccomp for name in unknown)))
        if seen.library:
            version, path = seen.library
            said = ".".join(map(str, version))
            # Debian's 2.5.4-1+deb12u1 knows what 2.5.5 does and still calls itself 2.5.4: so this is no failure.
            observed = f"runc has libseccomp {said}, which as released does not know {names} and skips the rule"
            source = f"{path} --version"
        else:
            observed, source = f"cannot tell whether the runtime's libseccomp knows {names}", "no runc that says so"
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


def _stale(one: Stale) -> Finding:
    return _finding(
        f"left/{one.entry.key}",
        f"{one.entry.key} left the configuration and the node",
        Status.FAIL,
        Severity.MEDIUM,
        observed="still installed",
        expected="removed",
        source=one.entry.key,
        remediation="Run apply, or leave it to the daemon in mode enforce: it is removed.",
    )


def _listed(item: Item) -> str:
    more = len(item.problems) - _PROBLEMS_SHOWN
    lines = [str(problem) for problem in item.problems[:_PROBLEMS_SHOWN]]
    return "; ".join([*lines, f"and {more} more"] if more > 0 else lines)


def _what_stays(item: Item) -> str:
    if item.present.error:
        return f"what is installed cannot be told: {item.present.error}"
    if item.present.content is None:
        return "no earlier version is installed: pods that name it do not start"
    if item.is_ours:
        return f"the last good one stays at {item.path}"
    return f"{item.path} is not the agent's and stays as it is"
