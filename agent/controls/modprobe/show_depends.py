"""The proof: what the real modprobe would do for each denied module, by name and by every alias that leads to it.

Nothing is loaded (`--show-depends` only prints), and the answer does not depend on what is loaded already. One command
asks about everything at once; only when its answer is not clean are modules asked about one by one. Refuses to trust
an exit code: modprobe ends with 0 for what it would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from agent.controls.modprobe import kmod
from agent.controls.modprobe.modprobe_d import FOLDERS, Refusal, refusal
from agent.errors import CommandMissing, HostError
from agent.host import Completed, Host, HostExec

_TIMEOUT_SECONDS = 20.0
_SHOW_CONFIG_LIMIT_BYTES = 16 << 20  # a distribution's kernel has 20,000 to 40,000 aliases, 2 MiB of text
_NAMES_A_COMMAND = 400
_NEEDS_KMOD = "Install kmod on the node (Debian, Ubuntu, RHEL: package kmod)."
_TRY_BY_HAND = "Run `modprobe --showconfig` on the node the way the agent does (--host-exec) to see what it says."

Show = Callable[[Sequence[str]], kmod.ShowDepends]


class LoadOutcome(Enum):
    """What modprobe would do for one module."""

    REFUSED = "refused by name and by every alias"
    PRETENDED = "not loaded, but modprobe would report success"
    LOADS = "would be loaded"
    RUNS = "another command would run"
    NOWHERE = "not refused; there is nothing to load"


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer for one module. through: the name or alias that is not refused. command: what would run instead."""

    verdict: LoadOutcome
    through: str = ""
    command: str = ""
    aliases: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """Answers by module; without any, why there are none (`problem`) and what would help (`remedy`)."""

    answers: Mapping[str, Asked] = field(default_factory=dict)
    installs: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""


class Modprobe:
    """The node's modprobe; where the node has none, the agent's own over the node's tree."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def ask(self, modules: Sequence[str], release: str, needs: Mapping[str, Sequence[str]]) -> Proof:
        """What would happen for each module. release: of the kernel, empty for modprobe's own idea.

        needs: modules.dep, by which a denied dependency is told from a denied soft dependency. Raises nothing: what
        stands in the way is in the proof.
        """
        if not modules:
            return Proof()
        try:
            base, how = self._command(release)
            shown = self._run([*base, "--showconfig"], how)
            # A modprobe that does not know the option is busybox's, and that one knows no install lines either.
            shown.check()
        except CommandMissing as error:
            return Proof(problem=str(error), remedy=_NEEDS_KMOD)
        except HostError as error:
            return Proof(problem=str(error), remedy=_NEEDS_KMOD if "option" in str(error) else _TRY_BY_HAND)
        patterns = kmod.aliases(shown.stdout, modules)
        questions = {name: kmod.usable([kmod.sample(pattern) for pattern in patterns[name]]) for name in modules}
        installs = kmod.installs(shown.stdout)

        def show(names: Sequence[str]) -> kmod.ShowDepends:
            return self._show([*base, "--show-depends", "--all", "--"], names, how)

        try:
            return Proof(_answers(questions, installs, show, needs), installs)
        except HostError as error:
            return Proof(problem=str(error), remedy=_TRY_BY_HAND)

    def _command(self, release: str) -> tuple[list[str], HostExec]:
        """argv up to the options that choose the tree, and how to run it. Raises CommandMissing."""
        host = self._host
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

    def _show(self, argv: Sequence[str], names: Sequence[str], how: HostExec) -> kmod.ShowDepends:
        """`modprobe --show-depends --all -- NAME…`, in as many commands as it takes."""
        parts = []
        for start in range(0, len(names), _NAMES_A_COMMAND):
            done = self._run([*argv, *names[start : start + _NAMES_A_COMMAND]], how)
            done.check(0, 1)  # 1: a name led nowhere
            if done.cut:
                raise HostError("modprobe --show-depends: said more than can be taken in")
            parts.append(kmod.answer(done.stdout, done.stderr))
        return kmod.joined(parts)

    def _run(self, argv: Sequence[str], how: HostExec) -> Completed:
        return self._host.run(argv, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_SHOW_CONFIG_LIMIT_BYTES, how=how)


def _answers(
    questions: Mapping[str, Sequence[str]], installs: Mapping[str, str], show: Show, needs: Mapping[str, Sequence[str]]
) -> dict[str, Asked]:
    if _is_clean(questions, installs, show([word for name, aliases in questions.items() for word in (name, *aliases)])):
        return {name: Asked(LoadOutcome.REFUSED, aliases=len(aliases)) for name, aliases in questions.items()}
    by_name = {name: show([name]) for name in questions}
    # As a hard dependency each of these stops what needs it.
    denied = frozenset(name for name, said in by_name.items() if name not in said.insmods and _has(said, Refusal.FAILS))
    answers = {}
    for name, aliases in questions.items():
        stopped = bool(denied & set(needs.get(name, ())))
        asked = judge_name(name, by_name[name], stopped=stopped)
        if asked.verdict is LoadOutcome.REFUSED and aliases:
            commands = {alias: installs[alias] for alias in aliases if alias in installs}
            asked = _by_alias(name, aliases, commands, show, stopped=stopped)
        answers[name] = replace(asked, aliases=len(aliases))
    return answers


def _is_clean(questions: Mapping[str, Sequence[str]], installs: Mapping[str, str], said: kmod.ShowDepends) -> bool:
    """Every name has its own refusal, nothing else would run, and none of the objects would be loaded."""
    named = {*said.insmods, *said.builtins, *said.not_found}
    return (
        not named & questions.keys()
        and all(refusal(installs.get(name, "")) is Refusal.FAILS for name in questions)
        and all(refusal(command) is Refusal.FAILS for command in said.commands)
    )


def _by_alias(name: str, aliases: Sequence[str], commands: Mapping[str, str], show: Show, *, stopped: bool) -> Asked:
    """The first alias that is not refused. commands: install lines that carry an alias for a name."""
    other = next((alias for alias, command in commands.items() if refusal(command) is Refusal.NONE), "")
    if other:
        return Asked(LoadOutcome.RUNS, other, commands[other])
    if stopped or name not in show(aliases).insmods:
        # Printing nothing is blacklisted, not found leads nowhere: neither loads anything.
        return Asked(LoadOutcome.REFUSED, name)
    return Asked(LoadOutcome.LOADS, next((alias for alias in aliases if name in show([alias]).insmods), aliases[0]))


def judge_name(name: str, said: kmod.ShowDepends, *, stopped: bool) -> Asked:
    """What `modprobe NAME` comes to. stopped: one of its hard dependencies is denied.

    A denied hard dependency ends modprobe before the insmod that it printed is reached; a denied soft one does not.
    """
    if name in said.insmods:
        return Asked(LoadOutcome.REFUSED if stopped else LoadOutcome.LOADS, name)
    if _has(said, Refusal.FAILS):
        return Asked(LoadOutcome.REFUSED, name)
    if _has(said, Refusal.PRETENDS):
        return Asked(LoadOutcome.PRETENDED, name)
    if said.commands:
        return Asked(LoadOutcome.RUNS, name, said.commands[-1])
    return Asked(LoadOutcome.NOWHERE, name)


def _has(said: kmod.ShowDepends, kind: Refusal) -> bool:
    return any(refusal(command) is kind for command in said.commands)
