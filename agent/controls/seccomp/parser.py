"""Reads a profile in any of its three forms and lists everything that is wrong with it, each with line and key.

Read are the OCI form, the old one with `name` and Docker's (`archMap`, `includes`, `excludes`). Refused is what a
runtime would drop without a word: an unknown key, a misspelt syscall, a comparison that is never true.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from agent.config.yaml_nodes import Node, Pairs, compose_json
from agent.controls.seccomp import syscalls
from agent.controls.seccomp.profile import (
    ACTIONS,
    CAPABILITIES,
    EPERM,
    FLAGS,
    LETS_THROUGH,
    MASKED,
    OPERATORS,
    VALUE_LIMIT,
    WITH_ERRNO,
    Arg,
    Profile,
    Rule,
    RuleCondition,
)
from agent.controls.seccomp.schema_reader import Member, Shape, shown
from agent.errors import ConfigError, Problem

SIZE_LIMIT_BYTES: Final = 1 << 20  # a ConfigMap holds no more
DEPTH_LIMIT: Final = 16
_PROFILE_KEYS = (
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "architectures",
    "archMap",
    "flags",
    "listenerPath",
    "listenerMetadata",
    "syscalls",
)
_RULE_KEYS = ("names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes")
_KERNEL = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})([.\-+].*)?")


def read(content: bytes | str, file: str) -> Profile:
    """The profile. Raises ConfigError with every problem of the file."""
    shape = Shape(file)
    profile = _profile(shape, compose_json(_decoded(content, file), file, max_depth=DEPTH_LIMIT))
    if shape.problems or profile is None:
        raise ConfigError(shape.problems)
    return profile


def _decoded(content: bytes | str, file: str) -> str:
    size = len(content)
    if size > SIZE_LIMIT_BYTES:
        raise ConfigError([Problem(file, 0, "", f"is {size} bytes long; {SIZE_LIMIT_BYTES} is the most for a profile")])
    if isinstance(content, str):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8 text")]) from error


def _profile(shape: Shape, node: Node) -> Profile | None:
    found = shape.members(node, "", _PROFILE_KEYS, "a seccomp profile")
    if found is None or not isinstance(node, Pairs):
        return None
    default = _default_action(shape, node, found)
    number = _errno(shape, found, "", ("defaultErrnoRet", "defaultErrno"), default)
    archs = tuple(
        filter(None, (_architecture(shape, *item) for item in shape.texts(found.get("architectures"), "architectures")))
    )
    arch_map = _arch_map(shape, found.get("archMap"))
    if archs and arch_map:
        shape.problem(found["archMap"].line, "archMap", "stands beside architectures, which CRI-O refuses: keep one")
    flags = tuple(
        flag
        for line, key, text in shape.texts(found.get("flags"), "flags")
        if (flag := shape.word(line, key, text, FLAGS, "flag"))
    )
    rules = [
        _rule(shape, item, f"syscalls[{at}]") for at, item in enumerate(shape.items(found.get("syscalls"), "syscalls"))
    ]
    good = tuple(rule for rule, _ in filter(None, rules))
    listener = shape.text(found.get("listenerPath"), "listenerPath") or ""
    metadata = shape.text(found.get("listenerMetadata"), "listenerMetadata") or ""
    _check_listener(shape, found, good, listener, metadata)
    if default is not None and default in LETS_THROUGH - {"SCMP_ACT_LOG"} and not found.get("syscalls"):
        shape.problem(
            found["defaultAction"].line, "defaultAction", "allows everything and there is no rule: this is no filter"
        )
    if default is None:
        return None
    return Profile(
        default_action=default,
        default_errno=number,
        default_line=found["defaultAction"].line,
        architectures=archs,
        arch_map=arch_map,
        flags=tuple(dict.fromkeys(flags)),
        listener_path=listener,
        listener_metadata=metadata,
        rules=good,
        old_names=sum(old for _, old in filter(None, rules)),
    )


def _default_action(shape: Shape, node: Pairs, found: dict[str, Member]) -> str | None:
    member = found.get("defaultAction")
    if member is None:
        why = (
            "runtimes take a profile without it and without syscalls as no filter at all"
            if not found.get("syscalls")
            else "runtimes refuse the profile without it"
        )
        shape.problem(node.line, "defaultAction", f"is missing: {why}. SCMP_ACT_ERRNO denies what no rule allows")
        return None
    action = shape.word(member.line, "defaultAction", shape.text(member, "defaultAction"), ACTIONS, "action")
    if action == "SCMP_ACT_NOTIFY":
        shape.problem(member.line, "defaultAction", "SCMP_ACT_NOTIFY cannot be the default: use it in rules")
        return None
    return action


def _architecture(shape: Shape, line: int, key: str, text: str | None) -> str | None:
    return shape.word(line, key, text, tuple(syscalls.ARCHITECTURES), "architecture")


def _arch_map(shape: Shape, member: Member | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    entries: list[tuple[str, tuple[str, ...]]] = []
    for at, item in enumerate(shape.items(member, "archMap")):
        key = f"archMap[{at}]"
        found = shape.members(item, key, ("architecture", "subArchitectures"), "an entry of archMap")
        if found is None:
            continue
        if "architecture" not in found:
            shape.problem(item.line, f"{key}.architecture", "is missing: an entry maps one architecture")
            continue
        path = f"{key}.architecture"
        name = _architecture(shape, found["architecture"].line, path, shape.text(found["architecture"], path))
        subs = [
            _architecture(shape, *sub) for sub in shape.texts(found.get("subArchitectures"), f"{key}.subArchitectures")
        ]
        if name:
            entries.append((name, tuple(filter(None, subs))))
    return tuple(entries)


def _rule(shape: Shape, node: Node, key: str) -> tuple[Rule, bool] | None:
    """The rule, and whether it is written in the old form."""
    found = shape.members(node, key, _RULE_KEYS, "a rule")
    if found is None:
        return None
    before = len(shape.problems)
    names = _names(shape, node, found, key)
    action = None
    if "action" in found:
        path = f"{key}.action"
        action = shape.word(found["action"].line, path, shape.text(found["action"], path), ACTIONS, "action")
    else:
        shape.problem(node.line, f"{key}.action", "is missing: a rule without it is refused when the container starts")
    number = _errno(shape, found, key, ("errnoRet", "errno"), action)
    if action == "SCMP_ACT_NOTIFY" and "write" in names:
        shape.problem(
            node.line, key, "runc cannot start a container whose write goes to SCMP_ACT_NOTIFY: leave write out"
        )
    args = [
        _arg(shape, item, f"{key}.args[{at}]") for at, item in enumerate(shape.items(found.get("args"), f"{key}.args"))
    ]
    includes = _gate(shape, found.get("includes"), f"{key}.includes")
    excludes = _gate(shape, found.get("excludes"), f"{key}.excludes")
    if len(shape.problems) > before or action is None:
        return None
    rule = Rule(names, action, number, tuple(filter(None, args)), node.line, key, includes, excludes)
    return rule, "name" in found


def _names(shape: Shape, node: Node, found: dict[str, Member], key: str) -> tuple[str, ...]:
    before = len(shape.problems)
    written = shape.texts(found.get("names"), f"{key}.names")
    # Old Docker wrote `"name": ""` beside `names`; the empty one means nothing.
    if (old := shape.text(found.get("name"), f"{key}.name")) and "name" in found:
        if written:
            shape.problem(found["name"].line, f"{key}.name", "stands beside names, which runtimes refuse: keep names")
        written = [*written, (found["name"].line, f"{key}.name", old)]
    if not written and len(shape.problems) == before:
        shape.problem(node.line, f"{key}.names", "is missing or empty: a rule names at least one syscall")
    known = syscalls.table()
    return tuple(
        name for line, path, name in written if shape.word(line, path, name, known.keys(), "syscall") is not None
    )


def _errno(shape: Shape, found: dict[str, Member], key: str, keys: tuple[str, str], action: str | None) -> int | None:
    """The number that goes with ERRNO and TRACE; EPERM where none is given, as in runc and crun."""
    prefix = f"{key}." if key else ""
    by_number, by_name = (found.get(name) for name in keys)
    most = WITH_ERRNO.get(action or "", max(WITH_ERRNO.values()))
    number = shape.whole(by_number, f"{prefix}{keys[0]}", most)
    text = shape.text(by_name, f"{prefix}{keys[1]}")
    if by_name is not None and text:
        name = shape.word(by_name.line, f"{prefix}{keys[1]}", text, tuple(errno.errorcode.values()), "error name")
        named = next((value for value, word in errno.errorcode.items() if word == name), None)
        if number is not None and named is not None and named != number:
            shape.problem(by_name.line, f"{prefix}{keys[1]}", f"{text} is {named} but {keys[0]} is {number}: keep one")
        number = named if number is None else number
    given = by_number or (by_name if text else None)
    if given is not None and action is not None and action not in WITH_ERRNO:
        shape.problem(
            given.line, f"{prefix}{given.key}", f"goes only with {' or '.join(WITH_ERRNO)}, not with {action}"
        )
    if action not in WITH_ERRNO:
        return None
    return EPERM if number is None else number


def _arg(shape: Shape, node: Node, key: str) -> Arg | None:
    found = shape.members(node, key, ("index", "value", "valueTwo", "op"), "an argument's comparison")
    if found is None:
        return None
    for name in ("index", "op", "value"):
        if name not in found:
            shape.problem(node.line, f"{key}.{name}", "is missing: a comparison has index, op and value")
    index = shape.whole(found.get("index"), f"{key}.index", 5)
    value = shape.whole(found.get("value"), f"{key}.value", VALUE_LIMIT)
    two = shape.whole(found.get("valueTwo"), f"{key}.valueTwo", VALUE_LIMIT) or 0
    op = None
    if "op" in found:
        op = shape.word(found["op"].line, f"{key}.op", shape.text(found["op"], f"{key}.op"), OPERATORS, "operator")
    if index is None or value is None or op is None:
        return None
    if two and op != MASKED:
        shape.problem(
            found["valueTwo"].line, f"{key}.valueTwo", f"goes only with {MASKED}; {op} compares with value alone"
        )
    if op == MASKED and two & ~value:
        wrong = (
            f"{two:#x} has bits outside the mask {value:#x}, so it is never equal: value is the mask, valueTwo the bits"
        )
        shape.problem(found["valueTwo"].line, f"{key}.valueTwo", wrong)
    if op == MASKED and not value:
        wrong = "the mask 0 compares nothing: leave the comparison out"
        shape.problem(found["value"].line, f"{key}.value", wrong)
    if (op, value) in (("SCMP_CMP_LT", 0), ("SCMP_CMP_GT", VALUE_LIMIT)):
        shape.problem(found["value"].line, f"{key}.value", f"no argument is {op} {value}: this rule would never apply")
    return Arg(index, op, value, two)


def _gate(shape: Shape, member: Member | None, key: str) -> RuleCondition | None:
    if member is None:
        return None
    found = shape.members(member.value, key, ("caps", "arches", "minKernel"), key.rsplit(".", 1)[-1])
    if not found:
        return None
    caps = [
        shape.word(line, path, text, CAPABILITIES, "capability")
        for line, path, text in shape.texts(found.get("caps"), f"{key}.caps")
    ]
    arches: list[str] = []
    for line, path, text in shape.texts(found.get("arches"), f"{key}.arches"):
        if name := syscalls.arch_named(text):
            arches.append(name)
        else:
            shape.problem(line, path, f"{shown(text)} is no architecture; amd64, arm64, ppc64le, s390x and riscv64 are")
    kernel = shape.text(found.get("minKernel"), f"{key}.minKernel")
    version = _KERNEL.fullmatch(kernel) if kernel else None
    if kernel and version is None:
        shape.problem(found["minKernel"].line, f"{key}.minKernel", f"{shown(kernel)} is no kernel version such as 4.8")
    gate = RuleCondition(
        tuple(filter(None, caps)), tuple(arches), (int(version[1]), int(version[2])) if version else None
    )
    return gate if gate != RuleCondition() else None


def _check_listener(
    shape: Shape, found: dict[str, Member], rules: tuple[Rule, ...], listener: str, metadata: str
) -> None:
    """runc refuses NOTIFY without a listener and metadata without one (libcontainer, finalizeSeccomp)."""
    for rule in rules:
        if rule.action == "SCMP_ACT_NOTIFY" and not listener:
            message = "SCMP_ACT_NOTIFY needs listenerPath, the socket of the program that decides"
            shape.problem(rule.line, f"{rule.key}.action", message)
    if metadata and not listener:
        shape.problem(found["listenerMetadata"].line, "listenerMetadata", "needs listenerPath beside it")
    if listener and not (listener.startswith("/") and listener.isprintable()):
        shape.problem(found["listenerPath"].line, "listenerPath", f"must be an absolute path, not {shown(listener)}")
