"""Linting of profiles where they are written: for the nodes that `--target` names, else for what most nodes are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.config.recognition import Claim
from agent.controls.base import FileType
from agent.controls.seccomp import syscalls
from agent.controls.seccomp.equivalent_syscalls import gaps
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.profile import Profile
from agent.controls.seccomp.resolver import Platform, resolve
from agent.errors import ConfigError, Problem, UsageError

_NEWEST: Final = (99, 0)


@dataclass(frozen=True, slots=True)
class Target:
    """Nodes that a profile is linted for. machine: uname's. oldest: the kernel from which on they are supported."""

    machine: str
    oldest: tuple[int, int] = (0, 0)


# What most nodes are; one folder of profiles goes to all of them, so each profile has to be right on both.
EVERYWHERE: Final = (Target("x86_64"), Target("aarch64"))


def target(word: str) -> Target:
    """`amd64/5.15`: an architecture by any usual name, and the oldest kernel. Raises UsageError."""
    spelling, _, release = word.partition("/")
    machine = syscalls.machine_named(spelling)
    platform = Platform.of(machine or "", release)
    if machine is None or (platform.kernel is None and word != spelling):
        raise UsageError(f"--target {word}: not ARCHITECTURE or ARCHITECTURE/KERNEL, such as amd64/5.15 or arm64")
    return Target(machine, platform.kernel or (0, 0))


def lint(text: str, file: str, targets: Sequence[Target] = EVERYWHERE) -> list[Problem]:
    """Everything that is wrong with a profile; empty when it can be installed on every target, whatever its kernel."""
    try:
        profile = read(text, file)
    except ConfigError as error:
        return list(error.problems)
    problems: dict[Problem, None] = {}
    for one in targets:
        kernels = _kernels(profile, one.oldest)
        for kernel, before in zip(kernels, (None, *kernels), strict=False):
            found = _refused(profile, Platform(one.machine, kernel), file)
            if before is None:
                problems.update(dict.fromkeys(found))
                if found:
                    break
            else:
                note = f"(on Linux before {before[0]}.{before[1]})"
                problems.update((replace(each, message=f"{each.message} {note}"), None) for each in found)
    return sorted(problems)


def _kernels(profile: Profile, oldest: tuple[int, int]) -> list[tuple[int, int]]:
    """The first kernel of each form that the profile takes, newest first: it is another one from each minKernel on."""
    conditions = [gate for rule in profile.rules for gate in (rule.includes, rule.excludes) if gate]
    gates = {gate.min_kernel for gate in conditions if gate.min_kernel and gate.min_kernel > oldest}
    return sorted({oldest} | gates, reverse=True)


def _refused(profile: Profile, platform: Platform, file: str) -> Sequence[Problem]:
    try:
        resolve(profile, platform, file)
    except ConfigError as error:
        return error.problems
    return ()


def advise(text: str, file: str, targets: Sequence[Target] = EVERYWHERE) -> list[Problem]:
    """What a valid profile leaves open: syscalls that do the same as one that it denies. Not a reason to refuse it."""
    found: dict[Problem, None] = {}
    for one in targets:
        try:
            resolved = resolve(read(text, file), Platform(one.machine, _NEWEST), file)
        except ConfigError:
            continue
        found |= {Problem(file, 0, "syscalls", str(gap)): None for gap in gaps(resolved)}
    return list(found)


_TOP_KEYS = {"defaultAction", "architectures", "archMap", "syscalls"}
_BROKEN_PROFILE = re.compile(r'"(?:default)?[Aa]ction"\s*:\s*"SCMP_ACT_')


def _claim(content: str, path: str) -> Claim:
    """By the values of a profile: an action at its top, or rules that name syscalls."""
    if not path.endswith(".json") and not content[:1000].lstrip().startswith("{"):
        return Claim.NONE
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return Claim.CERTAIN if _BROKEN_PROFILE.search(content) else Claim.POSSIBLE
    if not isinstance(document, dict):
        return Claim.POSSIBLE
    rules = [rule for part in document.values() if isinstance(part, list) for rule in part if isinstance(rule, dict)]
    actions = [value for part in (document, *rules) for value in part.values() if isinstance(value, str)]
    in_place = Path(path).parent.name == "seccomp" and (not document or bool(_TOP_KEYS & document.keys()))
    evident = in_place or any(action.startswith("SCMP_ACT_") for action in actions)
    return Claim.CERTAIN if evident else Claim.POSSIBLE


def file_type(targets: Sequence[Target] = EVERYWHERE) -> FileType:
    """Profiles as they are linted for these targets."""
    return FileType(
        "seccomp profile",
        _claim,
        lambda content, path, _host: lint(content, path, targets),
        lambda content, path: advise(content, path, targets),
        lambda words: file_type(tuple(map(target, words))),
    )


FILE_TYPE = file_type()
