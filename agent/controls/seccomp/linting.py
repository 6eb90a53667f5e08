"""Linting of profiles where they are written, for no node in particular."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.config.recognition import Claim
from agent.controls.base import FileType
from agent.controls.seccomp.equivalent_syscalls import gaps
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.profile import Profile
from agent.controls.seccomp.resolver import Platform, resolve
from agent.errors import ConfigError, Problem

# What most nodes are; one folder of profiles goes to all of them, so each profile has to be right on both.
_PLATFORMS: Final = (Platform("x86_64", (99, 0)), Platform("aarch64", (99, 0)))


def lint(text: str, file: str) -> list[Problem]:
    """Everything that is wrong with a profile; empty when it can be installed."""
    try:
        profile = read(text, file)
    except ConfigError as error:
        return list(error.problems)
    problems: dict[Problem, None] = {}
    for platform in _PLATFORMS:
        try:
            resolve(profile, platform, file)
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    for first in () if problems else _first_kernels(profile):
        older = (first[0], first[1] - 1) if first[1] else (first[0] - 1, 99)
        for platform in _PLATFORMS:
            try:
                resolve(profile, replace(platform, kernel=older), file)
            except ConfigError as error:
                before = f"(on Linux before {first[0]}.{first[1]})"
                problems.update((replace(one, message=f"{one.message} {before}"), None) for one in error.problems)
    return sorted(problems)


def _first_kernels(profile: Profile) -> list[tuple[int, int]]:
    """Versions from which on the profile is another one: on both sides of each it has to be right."""
    conditions = [gate for rule in profile.rules for gate in (rule.includes, rule.excludes) if gate]
    return sorted({gate.min_kernel for gate in conditions if gate.min_kernel})


def advise(text: str, file: str) -> list[Problem]:
    """What a valid profile leaves open: syscalls that do the same as one that it denies. Not a reason to refuse it."""
    try:
        resolved = resolve(read(text, file), _PLATFORMS[0], file)
    except ConfigError:
        return []
    return [
        Problem(file, 0, "syscalls", f"{gap.what}: denies {', '.join(gap.denied)} and not {', '.join(gap.missing)}")
        for gap in gaps(resolved)
    ]


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
    evident = any(action.startswith("SCMP_ACT_") for action in actions) or Path(path).parent.name == "seccomp"
    return Claim.CERTAIN if evident else Claim.POSSIBLE


FILE_TYPE = FileType("seccomp profile", _claim, lambda content, path, _host: lint(content, path), advise)
