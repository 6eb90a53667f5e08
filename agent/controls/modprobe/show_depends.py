"""What the real modprobe would do for each denied module, by name and by every alias of it.

Nothing is loaded (`--show-depends` only prints), and the result does not depend on what is loaded already. One command
covers everything; only when its output is not clean are modules checked one by one. Exit codes are not used: modprobe
ends with 0 for what it would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from agent.controls.modprobe import kmod
from agent.controls.modprobe.modprobe_d import FOLDERS, matches, soft_dependencies
from agent.controls.modprobe.shell import Refusal, refusal
from agent.errors import CommandMissing, HostError
from agent.host import Completed, Host, HostExec

_TIMEOUT_SECONDS = 20.0
_OUTPUT_LIMIT_BYTES = 16 << 20  # a distribution's kernel has 20,000 to 40,000 aliases, 2 MiB of text
_NAMES_A_COMMAND = 400
_NEEDS_KMOD = "Install kmod on the node (Debian, Ubuntu, RHEL: package kmod)."
_TRY_MANUALLY = "Run `modprobe --showconfig` on the node as the agent does (--host-exec) to see its error."

Show = Callable[[Sequence[str]], kmod.ShowDepends]


class LoadOutcome(Enum):
    """What modprobe would do for one module."""

    REFUSED = "refused by name and by every alias"
    PRETENDED = "not loaded, but modprobe would report success"
    LOADS = "would be loaded"
    RUNS = "another command would run"
    NOWHERE = "not refused, and nothing to load"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result for one module. through: the name or alias that is not refused. command: what would run instead."""

    outcome: LoadOutcome
    through: str = ""
    command: str = ""
    aliases: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """Results by module; without any, why (`problem`) and what would help (`remedy`)."""

    results: Mapping[str, LoadResult] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Effective:
    """modprobe's own configuration as it prints it: the first line for each name or pattern, in its order."""

    installs: Mapping[str, str] = field(default_factory=dict)
    softdeps: Mapping[str, str] = field(default_factory=dict)

    def install(self, module: str) -> str:
        """The install command of a module, empty without one."""
        return next((command for pattern, command in self.installs.items() if matches(pattern, module)), "")

    def refuses(self, module: str) -> bool:
        """Whether the module is refused as a dependency; modprobe ignores the install line of one with softdeps."""
        soft = next((rest for pattern, rest in self.softdeps.items() if matches(pattern, module)), "")
        return refusal(self.install(module)) is Refusal.FAILS and not soft_dependencies(soft)


def verify(host: Host, modules: Sequence[str], release: str, needs: Mapping[str, Sequence[str]]) -> Verification:
    """What the node's modprobe would do for each module; where the node has none, the agent's own over its tree.

    release: of the kernel, empty for modprobe's own idea. needs: modules.dep, which tells a denied dependency from a
    denied soft dependency. Raises nothing: problems are in the result.
    """
    if not modules:
        return Verification()
    try:
        base, how = _command(host, release)
        # A modprobe without the option is busybox's, which has no install lines either.
        config = _run(host, [*base, "--showconfig"], how).stdout
    except CommandMissing as error:
        return Verification(problem=str(error), remedy=_NEEDS_KMOD)
    except HostError as error:
        return Verification(problem=str(error), remedy=_NEEDS_KMOD if "option" in str(error) else _TRY_MANUALLY)
    patterns = kmod.aliases(config, modules)
    questions = {name: kmod.usable([kmod.sample(pattern) for pattern in patterns[name]]) for name in modules}
    effective = Effective(kmod.first(config, "install"), kmod.first(config, "softdep"))

    def show(names: Sequence[str]) -> kmod.ShowDepends:
        return _show(host, [*base, "--show-depends", "--all", "--"], names, how)

    try:
        return Verification(_results(questions, effective, show, needs))
    except HostError as error:
        return Verification(problem=str(error), remedy=_TRY_MANUALLY)


def _command(host: Host, release: str) -> tuple[list[str], HostExec]:
    """argv up to the options that choose the tree, and how to run it. Raises CommandMissing."""
    if host.how is HostExec.NSENTER and (tool := host.find_tool("modprobe")) is not None:
        return [tool], HostExec.NSENTER
    tool = host.find_tool("modprobe", how=HostExec.DIRECT)
    if tool is None:
        raise CommandMissing(["modprobe"], "neither on the node nor beside the agent")
    if host.is_running_system:
        return [tool], HostExec.DIRECT
    # -d moves lib/modules and not the configuration; -C is given once a folder, and a same-named file in an earlier
    # one hides the later. A missing folder is an empty one; without any -C modprobe would read its own system's.
    configuration = [option for folder in FOLDERS for option in ("-C", host.real_path(folder))]
    chosen = ["-S", release] if release else []
    return [tool, "-d", host.root, *configuration, *chosen], HostExec.DIRECT


def _show(host: Host, argv: Sequence[str], names: Sequence[str], how: HostExec) -> kmod.ShowDepends:
    """`modprobe --show-depends --all -- NAME…`, in as many commands as it takes."""
    stdout, stderr = "", ""
    for start in range(0, len(names), _NAMES_A_COMMAND):
        done = _run(host, [*argv, *names[start : start + _NAMES_A_COMMAND]], how, 0, 1)  # 1: a name led nowhere
        stdout, stderr = f"{stdout}{done.stdout}\n", f"{stderr}{done.stderr}\n"
    return kmod.answer(stdout, stderr)


def _run(host: Host, argv: Sequence[str], how: HostExec, *good: int) -> Completed:
    """good: exit codes that are no failure, 0 when none is given. Raises HostError, also for output that was cut."""
    done = host.run(argv, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_OUTPUT_LIMIT_BYTES, how=how).check(*good)
    if done.cut:
        raise HostError(f"modprobe: more than {_OUTPUT_LIMIT_BYTES} bytes of output")
    return done


def _results(
    questions: Mapping[str, Sequence[str]], effective: Effective, show: Show, needs: Mapping[str, Sequence[str]]
) -> dict[str, LoadResult]:
    shown = show([word for name, aliases in questions.items() for word in (name, *aliases)])
    if _is_clean(questions, effective, shown):
        return {name: LoadResult(LoadOutcome.REFUSED, aliases=len(aliases)) for name, aliases in questions.items()}
    results = {}
    for name, aliases in questions.items():
        # kmod takes a dependency by its path, so that only its own install line counts and no alias of its name.
        stopped = any(map(effective.refuses, needs.get(name, ())))
        asked = judge(name, show([name]), effective, stopped=stopped)
        if asked.outcome is LoadOutcome.REFUSED and aliases:
            asked = _by_alias(name, aliases, effective, show, stopped=stopped)
        results[name] = replace(asked, aliases=len(aliases))
    return results


def _is_clean(questions: Mapping[str, Sequence[str]], effective: Effective, shown: kmod.ShowDepends) -> bool:
    """Every name has its own refusal, nothing else would run, and none of the objects would be loaded."""
    named = {*shown.insmods, *shown.builtins, *shown.not_found}
    return (
        not named & questions.keys()
        and all(refusal(effective.install(name)) is Refusal.FAILS for name in questions)
        and all(refusal(command) is Refusal.FAILS for command in shown.commands)
    )


def _by_alias(name: str, aliases: Sequence[str], effective: Effective, show: Show, *, stopped: bool) -> LoadResult:
    """The first alias that is not refused. Printing nothing is blacklisted, not found leads nowhere: neither loads."""
    together = show(aliases)
    if name in together.insmods or any(refusal(command) is Refusal.NONE for command in together.commands):
        for alias in aliases:
            asked = judge(name, show([alias]), effective, stopped=stopped)
            if asked.outcome in (LoadOutcome.LOADS, LoadOutcome.RUNS):
                return replace(asked, through=alias)
    return LoadResult(LoadOutcome.REFUSED, name)


def judge(name: str, shown: kmod.ShowDepends, effective: Effective, *, stopped: bool = False) -> LoadResult:
    """What asking modprobe for the module, by its name or an alias, would do. stopped: a hard dependency is denied.

    A denied hard dependency ends modprobe before the insmod that it printed is reached; a denied soft one does not.
    Another module's command (a dependency's, or of what an alias leads to) counts unless the own refusal is reached.
    """
    if name in shown.insmods:
        return LoadResult(LoadOutcome.REFUSED if stopped else LoadOutcome.LOADS, name)
    own = effective.install(name)
    # Options of the module are printed behind its command.
    reached = refusal(own) is Refusal.FAILS and any(f"{command} ".startswith(f"{own} ") for command in shown.commands)
    kinds = {refusal(command): command for command in shown.commands}
    if Refusal.NONE in kinds and not reached:
        return LoadResult(LoadOutcome.RUNS, name, kinds[Refusal.NONE])
    if Refusal.FAILS in kinds:
        return LoadResult(LoadOutcome.REFUSED, name)
    return LoadResult(LoadOutcome.PRETENDED if Refusal.PRETENDS in kinds else LoadOutcome.NOWHERE, name)
