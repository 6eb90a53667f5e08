"""The findings: one for each denied module, and one for whatever makes a denial ineffective.

Pure. A module passes only when the real modprobe would refuse it and the running kernel does not have it. A denial
without effect (loaded, built in, another line takes precedence) is `fail`, with the line's file and number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.config.schema import Modprobe
from agent.controls.base import correction
from agent.controls.modprobe.environment import CONTROL, SECTION, environment_findings
from agent.controls.modprobe.modprobe_d import ConfigLine
from agent.controls.modprobe.observe import Kernel, Observation
from agent.controls.modprobe.policy import Denied, render
from agent.controls.modprobe.shell import Refusal, refusal
from agent.controls.modprobe.show_depends import LoadOutcome, LoadResult
from agent.model import Finding, Severity, Status


@dataclass(frozen=True, slots=True)
class _Assessment:
    """A finding without its module."""

    status: Status
    observed: str
    remediation: str = ""
    severity: Severity = Severity.HIGH
    source: str = ""
    needs_reboot: bool = False


def findings(config: Modprobe, seen: Observation) -> Iterator[Finding]:
    """Every finding of the control."""
    for one in seen.policy.denied:
        yield _module(config, seen, one)
    yield from environment_findings(config, seen)


def _module(config: Modprobe, seen: Observation, one: Denied) -> Finding:
    if seen.running is not None and seen.running.without_modules:
        answer = _builtin(seen, one) or _Assessment(Status.NOT_APPLICABLE, "this kernel cannot load modules")
    else:
        answer = _refused(config, seen, one) or _effective(config, seen, one)
    part = f" (part of {one.part_of})" if one.part_of else ""
    return Finding(
        f"{CONTROL}/{one.name}", CONTROL, f"Kernel module {one.name}{part} is refused", answer.status, answer.severity,
        answer.observed, "refused, and not in the running kernel",
        answer.source or _install_place(seen, one.name) or config.file, answer.remediation, answer.needs_reboot,
        section=SECTION,
    )  # fmt: skip


def _refused(config: Modprobe, seen: Observation, one: Denied) -> _Assessment | None:
    """Why the module is not refused, or unknown; None when modprobe refuses it on every kernel."""
    for kernel in seen.kernels:
        asked = kernel.verification.results.get(one.name)
        if asked is None:
            return _unverified(config, seen, kernel, one)
        if asked.outcome not in (LoadOutcome.REFUSED, LoadOutcome.PRETENDED):
            return _not_refused(config, seen, kernel, one, asked)
    return None


def _unverified(config: Modprobe, seen: Observation, kernel: Kernel, one: Denied) -> _Assessment:
    lines = seen.configuration.beside(kernel.softdeps)
    install = lines.install_line(one.name)
    around = lines.bypasses_install(one.name)
    reason = kernel.verification.problem or "modprobe did not answer"
    if install is None or refusal(install.rest) is Refusal.NONE or around:
        blame = around or install
        because = f"`{blame}` in {blame.place}" if blame else "no install line refuses it"
        remedy = _remedy(config, seen, around, install)
        return _Assessment(Status.FAIL, f"not refused: {because}", remedy, source=blame.place if blame else config.file)
    unread = f"; {', '.join(seen.configuration.unreadable.values())}" if seen.configuration.unreadable else ""
    observed = f"refused by {install.place}{unread}; not verified: {reason}"
    return _Assessment(Status.UNKNOWN, observed, kernel.verification.remedy, source=install.place)


def _not_refused(config: Modprobe, seen: Observation, kernel: Kernel, one: Denied, asked: LoadResult) -> _Assessment:
    lines = seen.configuration.beside(kernel.softdeps)
    install = lines.install_line(one.name)
    around = lines.bypasses_install(one.name)
    through = "" if asked.through == one.name else f" through the alias {asked.through}"
    if asked.outcome is LoadOutcome.NOWHERE:
        absent = kernel.needs is not None and one.name not in kernel.needs
        observed = "not refused, and not in this kernel" if absent else "not refused"
        return _Assessment(Status.FAIL, observed, _remedy(config, seen, around, install), Severity.LOW, config.file)
    if through and (named := _alias_line(seen, asked.through)) is not None:
        observed = f"loads{through}: `{named}` in {named.place}"
        return _Assessment(Status.FAIL, observed, f"Remove the line from {named.file}.", source=named.place)
    if asked.outcome is LoadOutcome.RUNS:
        line = install if install is not None and refusal(install.rest) is Refusal.NONE else None
        because = f"`{line}` in {line.place}" if line else f"modprobe would run `{asked.command}`"
        observed = f"not refused{through}: {because}"
        return _Assessment(
            Status.FAIL, observed, _remedy(config, seen, None, line), source=line.place if line else "modprobe"
        )
    if around is not None:
        observed = f"loads{through}: `{around}` in {around.place} makes modprobe skip install lines"
        return _Assessment(Status.FAIL, observed, _remedy(config, seen, around, install), source=around.place)
    if install is not None and refusal(install.rest) is not Refusal.NONE:
        observed = f"loads{through} despite `{install}` in {install.place}"
        remedy = f"Run `modprobe --show-depends {asked.through}` on the node."
        return _Assessment(Status.FAIL, observed, remedy, source="modprobe")
    return _Assessment(Status.FAIL, f"it loads{through}", _remedy(config, seen, None, install), source="modprobe")


def _remedy(config: Modprobe, seen: Observation, around: ConfigLine | None, install: ConfigLine | None) -> str:
    """The next step: another file's line first, then ours."""
    for line, what in ((around, "softdep"), (install, "install")):
        if line is not None and line.file != config.file and (what == "softdep" or refusal(line.rest) is Refusal.NONE):
            if line.file.startswith("/lib/modules/") and seen.file.content == render(seen.policy):
                return f"Let modprobe.file sort before modules.softdep (its name decides): {config.file} does not."
            if not line.file.startswith("/lib/modules/"):
                return f"Remove the line from {line.file}, or let modprobe.file sort before it: the first line wins."
    return correction(CONTROL, config.mode)


def _effective(config: Modprobe, seen: Observation, one: Denied) -> _Assessment:
    """The module is refused: whether the running kernel has it anyway."""
    answers = [kernel.verification.results[one.name] for kernel in seen.kernels]
    refused = _how(seen, one, answers)
    if (built := _builtin(seen, one)) is not None:
        return built
    if seen.running is not None and seen.running.loaded is None:
        step = "Let the agent read the node's /proc/modules (daemonset.yaml mounts the node's /proc)."
        problem = seen.running.loaded_problem
        return _Assessment(Status.UNKNOWN, f"{refused}; unknown whether it is loaded: {problem}", step)
    if seen.running is not None and one.name in (seen.running.loaded or {}):
        return _loaded(config, seen, one, refused)
    state = "not loaded" if seen.running is not None else "no kernel runs on this tree"
    for release in (kernel.release for kernel in seen.kernels if kernel.builtin is None):
        observed = f"{refused}, and {state}; unknown whether it is built in: no modules.builtin for {release}"
        step = f"Put the kernel's /lib/modules/{release} on the node, or check its configuration."
        return _Assessment(Status.UNKNOWN, observed, step, Severity.LOW)
    return _Assessment(Status.PASS, f"{refused}; {state}{_absent(seen, one)}")


def _how(seen: Observation, one: Denied, answers: Sequence[LoadResult]) -> str:
    aliases = max((asked.aliases for asked in answers), default=0)
    by = f" and by {aliases} alias{'es' if aliases != 1 else ''}" if aliases else ""
    if any(asked.outcome is LoadOutcome.PRETENDED for asked in answers):
        line = seen.configuration.install_line(one.name)
        place = f" (`{line}` in {line.place})" if line else ""
        return f"not loaded by name{by}, though modprobe reports success{place}"
    return f"refused by name{by}"


def _absent(seen: Observation, one: Denied) -> str:
    kernels = [kernel for kernel in seen.kernels if kernel.release]
    if kernels and all(kernel.needs is not None and one.name not in kernel.needs for kernel in kernels):
        return f"; not in kernel {', '.join(kernel.release for kernel in kernels)}"
    return ""


def _builtin(seen: Observation, one: Denied) -> _Assessment | None:
    releases = [kernel.release for kernel in seen.kernels if kernel.builtin and one.name in kernel.builtin]
    in_sysfs = seen.running is not None and one.name in seen.running.builtin
    if not releases and not in_sysfs:
        return None
    where = f"built into kernel {', '.join(releases)}" if releases else "built into the running kernel"
    source = f"/lib/modules/{releases[0]}/modules.builtin" if releases else f"/sys/module/{one.name}"
    skipped = sorted(seen.running.skipped & _initcalls(one.name)) if seen.running is not None else []
    if skipped:
        observed = f"{where}; the kernel's command line skips {skipped[0]}, by its name the module's init function"
        step = f"Check that `dmesg` has `initcall {skipped[0]} blacklisted`."
        return _Assessment(Status.INFO, observed, step, Severity.INFO, source)
    step = (
        f"Boot with initcall_blacklist=FUNCTION (the module's init function, often {one.name}_init), use a kernel that "
        f"has it as a module, or accept it with modprobe.allow: [{one.name}]."
    )
    return _Assessment(Status.FAIL, f"{where}: no modprobe configuration denies it", step, Severity.MEDIUM, source)


def _initcalls(name: str) -> frozenset[str]:
    """Usual names of init functions; which of them is this module's is not recorded on a node."""
    after = ("_init", "_module_init", "_mod_init", "_init_module", "_fs_init")
    return frozenset((*(f"{name}{end}" for end in after), f"init_{name}", f"init_{name}_fs", f"af_{name}_init"))


def _loaded(config: Modprobe, seen: Observation, one: Denied, refused: str) -> _Assessment:
    running = seen.running
    assert running is not None and running.loaded is not None  # noqa: S101, PT018 - checked by the caller
    module = running.loaded[one.name]
    reboot = seen.initramfs.reboot_advice(one.name, config.file, render(seen.policy))
    source = "/proc/modules"
    if module.holders:
        users = f"used by {', '.join(module.holders)}"
        step = f"Unload {', '.join(module.holders)} first, or {reboot}."
    elif module.references is None:
        users = "this kernel cannot unload modules"
        step = f"{reboot[0].upper()}{reboot[1:]}."
    elif module.references:
        users = f"in use ({module.references} references)"
        step = f"Stop what uses it (sockets, mounts) and unload it, or {reboot}."
    else:
        users = "unused"
        step = f"Set modprobe.unload: true, run `rmmod {one.name}` on the node, or {reboot}."
        if config.unload and not running.may_unload:
            step = f"Run `rmmod {one.name}` on the node: this tree is not the running system, so the agent did not."
        elif config.unload:
            step = f"The next apply unloads it; otherwise run `rmmod {one.name}` on the node to see why it fails."
    observed = f"{refused} from now on, but loaded; {users}"
    return _Assessment(Status.FAIL, observed, step, source=source, needs_reboot=True)


def _install_place(seen: Observation, name: str) -> str:
    line = seen.configuration.install_line(name)
    return line.place if line else ""


def _alias_line(seen: Observation, alias: str) -> ConfigLine | None:
    """The install line that carries an alias for a name, where it would run something."""
    line = seen.configuration.install_line(alias)
    return line if line is not None and refusal(line.rest) is Refusal.NONE else None
