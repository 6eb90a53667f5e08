"""Findings around the denied modules: the agent's file, lines of other files, the configuration, the kernel.

Pure. Facts that an operator should know and that need no change are `info`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from agent.config.schema import Modprobe
from agent.controls.base import correction
from agent.controls.manifest import STATE_FOLDER, digest
from agent.controls.modprobe.modprobe_d import file_problem
from agent.controls.modprobe.observe import Observation, Running
from agent.controls.modprobe.policy import render
from agent.model import Finding, Severity, Status

CONTROL = "modprobe"
SECTION = "K7"  # of the document: docs/coverage.md
_MODPROBE_NAMES = ("modprobe", "kmod")


def environment_findings(config: Modprobe, seen: Observation) -> Iterator[Finding]:
    """Every finding that is not about one denied module alone."""
    yield from _file(config, seen)
    yield from _unreadable(config, seen)
    yield from _leftovers(config, seen)
    yield from _loaders(seen)
    yield from _policy(seen)
    yield from _unknown(seen)
    if seen.running is not None:
        yield from _kernel(seen.running)


def _finding(
    name: str, title: str, status: Status, observed: str, expected: str = "", *,
    source: str, remediation: str = "", severity: Severity = Severity.MEDIUM,
) -> Finding:  # fmt: skip
    id_ = f"{CONTROL}/{name}"
    return Finding(id_, CONTROL, title, status, severity, observed, expected, source, remediation, section=SECTION)


def _file(config: Modprobe, seen: Observation) -> Iterator[Finding]:
    title = "The agent's modprobe.d file is in place"
    if not seen.policy.denied:
        return
    if problem := file_problem(config.file):
        yield _finding(
            "file", title, Status.FAIL, f"{config.file}: {problem}", "a file that modprobe reads",
            source="modprobe.file", severity=Severity.HIGH,
            remediation="Set modprobe.file to a path such as /etc/modprobe.d/kubernetes-blacklist.conf.",
        )  # fmt: skip
        return
    hidden = next((one for one in seen.configuration.hidden if one.file == config.file), None)
    status, step = Status.FAIL, correction(CONTROL, config.mode)
    if seen.file.problem:
        status, observed, step = Status.UNKNOWN, seen.file.problem, "Fix what the error names."
    elif hidden is not None:
        observed = f"not read: {hidden.by} has the same name in an earlier folder"
        step = f"Remove or rename {hidden.by}, or set modprobe.file to another name."
    elif seen.file.content is None:
        observed = "missing"
    elif seen.file.content != render(seen.policy):
        ours = (entry := seen.installed.get(config.file)) is not None and digest(seen.file.content) in entry.hashes
        observed = "of an older policy" if ours else "not what the agent writes"
    elif seen.file.mode & 0o022:
        observed = f"writable by others (mode {seen.file.mode:04o})"
    else:
        status, observed, step = Status.PASS, "as in the policy", ""
    yield _finding("file", title, status, observed, "as in the policy", source=config.file, remediation=step)
    for one in seen.configuration.hidden:
        if one.by == config.file:
            yield _finding(
                f"hides{one.file}", "No other file is hidden by the agent's", Status.INFO,
                f"{one.file} has the same name and is not read", "", source=one.file, severity=Severity.INFO,
                remediation=f"Move lines of {one.file} that are still needed to a file of another name.",
            )  # fmt: skip


def _unreadable(config: Modprobe, seen: Observation) -> Iterator[Finding]:
    for path, problem in seen.configuration.unreadable.items():
        if path != config.file:
            yield _finding(
                f"unreadable{path}", "Every modprobe.d file can be read", Status.UNKNOWN, problem, "readable",
                source=path, remediation="Fix what the error names: the file may have lines that take precedence.",
            )  # fmt: skip


def _leftovers(config: Modprobe, seen: Observation) -> Iterator[Finding]:
    if seen.manifest_problem:
        yield _finding(
            "manifest", "The manifest of installed files is known", Status.UNKNOWN, seen.manifest_problem, "readable",
            source=f"{STATE_FOLDER}/{CONTROL}.json",
            remediation="Nothing is removed until the manifest can be read; fix or remove it.",
        )  # fmt: skip
    for path in leftovers(config, seen):
        yield _finding(
            f"leftover{path}", "Files of an earlier configuration are removed", Status.FAIL,
            "installed for an earlier configuration", "gone", source=path,
            remediation=correction(CONTROL, config.mode),
        )  # fmt: skip


def leftovers(config: Modprobe, seen: Observation) -> tuple[str, ...]:
    """Files that the agent installed and that the policy no longer has.

    None while `modprobe.file` names a file that modprobe would not read: the last valid one stays until then.
    """
    if seen.policy.denied and file_problem(config.file):
        return ()
    return tuple(path for path in seen.installed if path != config.file or not seen.policy.denied)


def _loaders(seen: Observation) -> Iterator[Finding]:
    """Lines of other modules that load a denied one with a command."""
    for one in seen.policy.denied:
        for line in seen.configuration.loaders(one.name):
            yield _finding(
                f"{one.name}/loader{line.place}", f"Nothing else loads {one.name}", Status.FAIL, f"`{line}`",
                f"no command that loads {one.name}", source=line.place, severity=Severity.HIGH,
                remediation=f"Remove the line from {line.file}: modprobe -i and insmod bypass a denial.",
            )  # fmt: skip


def _policy(seen: Observation) -> Iterator[Finding]:
    for trouble in seen.policy.troubles:
        yield _finding(
            trouble.id, "The configuration is valid", Status.FAIL, trouble.observed, trouble.expected,
            source=trouble.source, remediation=trouble.remediation, severity=Severity.HIGH,
        )  # fmt: skip
    for name in seen.policy.idle:
        yield _finding(
            f"allow/{name}", "Every allowed module is denied otherwise", Status.INFO, f"nothing denies {name}", "",
            source="modprobe.allow", severity=Severity.INFO,
            remediation="Remove it from modprobe.allow, or correct the name.",
        )  # fmt: skip


def _unknown(seen: Observation) -> Iterator[Finding]:
    """Names of the configuration that no kernel here has: right on a node with another kernel, or misspelt."""
    if not all(kernel.needs and kernel.builtin is not None for kernel in seen.kernels):
        return
    known = frozenset().union(*({*(kernel.needs or ()), *(kernel.builtin or ())} for kernel in seen.kernels))
    for one in seen.policy.denied:
        if one.source in ("modprobe.deny", "modprobe.force") and one.name not in known:
            meant = difflib.get_close_matches(one.name, known, 1)
            yield _finding(
                f"{one.name}/name", "Every denied name is a module of this kernel", Status.INFO,
                f"no kernel here has a module {one.name}" + (f"; did you mean {meant[0]}?" if meant else ""),
                source=one.source, severity=Severity.INFO,
                remediation=f"Correct the name in {one.source}, or keep it for nodes whose kernel has the module.",
            )  # fmt: skip


def _kernel(running: Running) -> Iterator[Finding]:
    if running.without_modules:
        yield _finding(
            "kernel", "The kernel can load modules", Status.INFO, "no: built without CONFIG_MODULES",
            source="/proc/modules", severity=Severity.INFO,
        )  # fmt: skip
    if running.disabled:
        yield _finding(
            "modules_disabled", "Loading modules is still possible", Status.INFO,
            "kernel.modules_disabled is 1: nothing can be loaded or unloaded until the next boot", "",
            source="/proc/sys/kernel/modules_disabled", severity=Severity.INFO,
        )  # fmt: skip
    if running.selinux is not None:
        effect = "every domain may make the kernel request modules" if running.selinux else "most domains may not"
        yield _finding(
            "selinux", "SELinux limits which domains make the kernel load modules", Status.INFO,
            f"domain_kernel_load_modules is {'on' if running.selinux else 'off'}: {effect}", "off",
            source="/sys/fs/selinux/booleans/domain_kernel_load_modules", severity=Severity.INFO,
            remediation="Consider `setsebool -P domain_kernel_load_modules off`: it covers every module, listed or not."
            if running.selinux else "",
        )  # fmt: skip
    if running.helper is not None and running.helper.rpartition("/")[2] not in _MODPROBE_NAMES:
        status, severity, observed = Status.UNKNOWN, Severity.HIGH, f"the kernel runs {running.helper}, not modprobe"
        step = "Set kernel.modprobe back to /sbin/modprobe, or check that the program respects modprobe.d."
        if not running.helper:
            status, severity, step = Status.INFO, Severity.INFO, ""
            observed = "kernel.modprobe is empty: the kernel loads nothing on demand"
        yield _finding(
            "helper", "The kernel loads modules with modprobe", status, observed, "/sbin/modprobe",
            source="/proc/sys/kernel/modprobe", remediation=step, severity=severity,
        )  # fmt: skip
