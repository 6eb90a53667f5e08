"""Turns a profile of any form into the one that containerd and CRI-O both enforce, for one kind of node.

Both hand the file to the runtime as OCI's LinuxSeccomp, and Go's decoder drops the keys it does not know: `name`,
`archMap`, `includes`, `excludes`. So those are resolved here, where the machine and its kernel are known. Refused is a
profile that libseccomp would enforce differently from how it reads: rules that contradict each other, or nothing left.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.controls.seccomp import libseccomp, syscalls
from agent.controls.seccomp.profile import EPERM, LETS_THROUGH, MASKED, Arg, Profile, Rule, RuleCondition, strictness
from agent.errors import ConfigError, Problem

_RELEASE = re.compile(r"([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Platform:
    """What a profile is resolved for. machine: uname's. kernel: (major, minor), None where it is unknown."""

    machine: str
    kernel: tuple[int, int] | None

    @classmethod
    def of(cls, machine: str, kernel_release: str) -> Platform:
        """From uname's fields, e.g. `x86_64` and `6.1.0-18-amd64`."""
        match = _RELEASE.match(kernel_release)
        return cls(machine, (int(match[1]), int(match[2])) if match else None)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A profile as it goes to the runtimes. notes: what was changed, each a few words for users."""

    content: bytes
    default_action: str
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]
    notes: tuple[str, ...]


def resolve(profile: Profile, platform: Platform, file: str) -> Resolved:
    """The profile for this platform; the same input gives the same bytes. Raises ConfigError."""
    notes: list[str] = []
    if profile.old_names:
        many = "1 rule" if profile.old_names == 1 else f"{profile.old_names} rules"
        notes.append(f"{many} with the old `name` written as `names`, which runtimes read")
    architectures = _architectures(profile, platform, notes)
    kept = [rule for rule in profile.rules if _applies(rule, profile, platform, notes)]
    split = _first_wins([single for rule in kept for single in _split(rule, notes)], profile, notes)
    # A chain that is the beginning of another one goes first: libseccomp refuses the other order.
    rules = _merged(sorted(split, key=lambda rule: len(rule.args)))
    problems = _contradictions(split, profile, file)
    for order in (split, rules):  # as it was meant, and as it is written
        if not problems:
            architectures, problems = _loadable(order, architectures, profile, file, notes)
    has_effect = any(rule.effect != profile.effect for rule in rules)
    if profile.default_action == "SCMP_ACT_ALLOW" and not has_effect and not problems:
        message = "allows everything and no rule denies or logs anything on this node: this is no filter"
        problems.append(Problem(file, profile.default_line, "defaultAction", message))
    if problems:
        raise ConfigError(problems)
    content = json.dumps(_document(profile, architectures, rules), indent=2) + "\n"
    return Resolved(content.encode(), profile.default_action, architectures, rules, tuple(dict.fromkeys(notes)))


def _architectures(profile: Profile, platform: Platform, notes: list[str]) -> tuple[str, ...]:
    """This machine's architectures, as far as the profile names them; all of them where it names none.

    A syscall of an architecture that is not listed kills the thread (libseccomp's default for bad architectures), and
    one of another byte order cannot even be added to the filter (libseccomp: EDOM).
    """
    family = syscalls.family_of(platform.machine)
    if not family:
        notes.append(f"architectures left as they are: {platform.machine} is not known here")
        return profile.architectures
    named = profile.architectures
    if profile.arch_map:
        named = next(((arch, *subs) for arch, subs in profile.arch_map if arch == family[0]), ())
        notes.append(f"archMap resolved for {platform.machine}")
    elif not named:
        notes.append(f"architectures filled in for {platform.machine}: {', '.join(map(_short, family))}")
    if not named:
        return family
    result = tuple(arch for arch in family if arch in named or arch == family[0])
    if foreign := [arch for arch in dict.fromkeys(named) if arch not in family]:
        notes.append(f"architectures of other machines left out: {', '.join(map(_short, foreign))}")
    if family[0] not in named:
        notes.append(f"this machine's own architecture added: {_short(family[0])}")
    return result


def _applies(rule: Rule, profile: Profile, platform: Platform, notes: list[str]) -> bool:
    """Whether the rule holds on this node. Capabilities are the container's, and one file serves all containers.

    So a rule for containers that have a capability is taken the strict way: one that lets through more than the
    default does is left out, one that lets through less stays.
    """
    loosens = strictness(rule.action) > strictness(profile.default_action)
    here = syscalls.family_of(platform.machine)
    arch = syscalls.ARCHITECTURES[here[0]] if here else platform.machine
    for gate, including in ((rule.includes, True), (rule.excludes, False)):
        if gate is None:
            continue
        if gate.arches and (arch in gate.arches) is not including:
            notes.append("rules for other machines left out")
            return False
        if gate.min_kernel and not _kernel_allows(
            gate.min_kernel, platform, notes, including=including, loosens=loosens
        ):
            return False
    if rule.includes and rule.includes.caps:
        if loosens:
            notes.append(f"left out what only containers with {_caps(rule.includes)} may do (one file serves all)")
            return False
        notes.append(f"kept for all containers what was meant for those with {_caps(rule.includes)}")
    if rule.excludes and rule.excludes.caps:
        notes.append(f"kept for all containers what was meant for those without {_caps(rule.excludes)}")
    return True


def _kernel_allows(
    least: tuple[int, int], platform: Platform, notes: list[str], *, including: bool, loosens: bool
) -> bool:
    if platform.kernel is None:
        notes.append("the kernel's version is unknown: rules with minKernel are read the strict way")
        return not loosens
    notes.append(f"minKernel resolved for Linux {platform.kernel[0]}.{platform.kernel[1]}")
    return (platform.kernel >= least) is including


def _split(rule: Rule, notes: list[str]) -> Iterable[Rule]:
    """Two comparisons of one argument cannot stand in one libseccomp rule: runc and crun then take each as its own."""
    if max(Counter(arg.index for arg in rule.args).values(), default=0) < 2:
        return (replace(rule, args=tuple(sorted(rule.args))),)
    notes.append(
        "comparisons of the same argument written as rules of their own, as runtimes read them (either, not both)"
    )
    return tuple(replace(rule, args=(arg,)) for arg in dict.fromkeys(rule.args))


def _first_wins(rules: Sequence[Rule], profile: Profile, notes: list[str]) -> list[Rule]:
    """Of two unconditional actions for one syscall runtimes skip the default one, else enforce the first.

    Podman's, CRI-O's and Buildah's stock profile has such a pair (setns), one of which is meant for containers without
    a capability. Where no capability makes the difference, the two contradict each other and are left for refusal.
    """
    winners: dict[str, Rule] = {}
    for rule in sorted((one for one in rules if not one.args), key=lambda one: one.effect == profile.effect):
        for name in rule.names:
            winners.setdefault(name, rule)
    found = []
    for rule in rules:
        lost = [
            name
            for name in rule.names
            if not rule.args
            and winners[name].effect != rule.effect
            and (_needs_capability(rule) or _needs_capability(winners[name]))
        ]
        notes += [
            f"{name} is {_short(winners[name].action)} {_at(winners[name])} and {_short(rule.action)} {_at(rule)}: "
            f"{_short(winners[name].action)} is enforced, as by every runtime"
            for name in dict.fromkeys(lost)
        ]
        if names := tuple(name for name in rule.names if name not in lost):
            found.append(replace(rule, names=names))
    return found


def _needs_capability(rule: Rule) -> bool:
    return any(condition is not None and condition.caps for condition in (rule.includes, rule.excludes))


def _loadable(
    rules: Sequence[Rule], architectures: tuple[str, ...], profile: Profile, file: str, notes: list[str]
) -> tuple[tuple[str, ...], list[Problem]]:
    """The architectures for which libseccomp takes the rules. One that the profile names is a problem instead."""
    added = [rule for rule in rules if rule.effect != profile.effect]
    asked = {arch for one, subs in profile.arch_map for arch in (one, *subs)} | set(profile.architectures)
    kept = list(architectures)
    problems: dict[str, Problem] = {}
    for arch in architectures:
        if (found := libseccomp.clash(added, arch)) is None:
            continue
        rule, name, other = found
        message = (
            f"{name} is {_short(rule.action)} here and {_short(other.action)} {_at(other)}: libseccomp refuses two "
            f"actions where {_short(arch)} compares the same, and no container starts; keep one of them"
        )
        if arch in asked or arch == architectures[0]:
            problems.setdefault(rule.key, Problem(file, rule.line, rule.key, message))
        else:
            kept.remove(arch)
            notes.append(f"{_short(arch)} left out, where libseccomp refuses two actions for {name}")
    return tuple(kept), list(problems.values())


def _contradictions(rules: Sequence[Rule], profile: Profile, file: str) -> list[Problem]:
    """Rules about one syscall of which libseccomp would silently keep one, or that it refuses (EEXIST)."""
    by_name: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for name in dict.fromkeys(rule.names):
            by_name[name].append(rule)
    problems: dict[tuple[str, str], Problem] = {}
    for name, about in by_name.items():
        plain = next((rule for rule in about if not rule.args), None)
        seen: dict[tuple[Arg, ...], Rule] = {}
        for rule in about:
            other = plain or seen.setdefault(rule.args, rule)
            message = ""
            if other.effect != rule.effect:
                message = f"{name} is {_short(rule.action)} here and {_short(other.action)} {_at(other)}: " + (
                    "without args that one always wins; keep one of them"
                    if plain is not None
                    else "libseccomp refuses two actions for the same arguments; keep one of them"
                )
            elif rule.effect == profile.effect and any(
                strictness(looser.action) > strictness(rule.action) for looser in about
            ):
                message = (
                    f"{name} is the default action here, and runtimes skip such rules: "
                    "what the other rules allow stays allowed. Narrow their args instead"
                )
            if message:
                problems.setdefault((rule.key, message), Problem(file, rule.line, rule.key, message))
    return list(problems.values())


def _merged(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules with the same effect and arguments as one, names sorted; in the order in which they first appear."""
    groups: dict[tuple[object, ...], list[Rule]] = defaultdict(list)
    plain: dict[tuple[str, int | None], set[str]] = defaultdict(set)
    for rule in rules:
        groups[rule.effect, rule.args].append(rule)
        if not rule.args:
            plain[rule.effect].update(rule.names)
    merged: list[Rule] = []
    for group in groups.values():
        first = group[0]
        names = {name for rule in group for name in rule.names}
        if first.args:  # what is unconditional anyway is no stricter with arguments
            names -= plain[first.effect]
        if names:
            merged.append(replace(first, names=tuple(sorted(names)), includes=None, excludes=None))
    return tuple(merged)


def _document(profile: Profile, architectures: tuple[str, ...], rules: Iterable[Rule]) -> dict[str, Any]:
    fields = {
        "defaultAction": profile.default_action,
        "defaultErrnoRet": _number(profile.default_errno),
        "architectures": list(architectures),
        "flags": list(profile.flags),
        "listenerPath": profile.listener_path,
        "listenerMetadata": profile.listener_metadata,
        "syscalls": [_rule_document(rule) for rule in rules],
    }
    return _filled(fields)


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, "", [])}


def _rule_document(rule: Rule) -> dict[str, Any]:
    args = [_arg_document(arg) for arg in rule.args]
    return _filled({"names": list(rule.names), "action": rule.action, "errnoRet": _number(rule.errno), "args": args})


def _arg_document(arg: Arg) -> dict[str, Any]:
    two = {"valueTwo": arg.value_two} if arg.op == MASKED else {}
    return {"index": arg.index, "value": arg.value, **two, "op": arg.op}


def _number(errno: int | None) -> int | None:
    """EPERM is what runtimes take where nothing is given, older ones always: it is not written."""
    return None if errno == EPERM else errno


def denied(resolved: Resolved) -> tuple[Rule, ...]:
    """The rules that deny something; empty where the default denies already, so that no rule is needed to."""
    if resolved.default_action not in LETS_THROUGH:
        return ()
    return tuple(rule for rule in resolved.rules if rule.action not in LETS_THROUGH)


def _short(word: str) -> str:
    return word.removeprefix("SCMP_ARCH_").removeprefix("SCMP_ACT_")


def _at(rule: Rule) -> str:
    return f"on line {rule.line}"


def _caps(gate: RuleCondition) -> str:
    return ", ".join(gate.caps)
