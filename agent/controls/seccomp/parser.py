"""Reads a profile in any of its three forms and lists everything that is wrong with it, each with line and key.

Read are the OCI form, the old one with `name` and Docker's (`archMap`, `includes`, `excludes`). Refused is what a
runtime would drop without a word: an unknown key, a misspelt syscall, a comparison that is never true.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from agent.config.yaml_nodes import compose_json
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
from agent.controls.seccomp.schema_reader import Object, Shape, shown
from agent.errors import ConfigError, Problem

SIZE_LIMIT_BYTES: Final = 1 << 20  # a ConfigMap holds no more
DEPTH_LIMIT: Final = 16
_PROFILE_KEYS = (
    "defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags", "listenerPath",
    "listenerMetadata", "syscalls",
)  # fmt: skip
_RULE_KEYS = ("names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes")
_ARG_KEYS = ("index", "value", "valueTwo", "op")
_ARCH_KEYS = ("architecture", "subArchitectures")
_ERROR_NAMES = {name: number for number, name in errno.errorcode.items()}
_KERNEL = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})([.\-+].*)?")


def read(content: bytes | str, file: str) -> Profile:
    """The profile. Raises ConfigError with every problem of the file."""
    shape = Shape(file)
    document = compose_json(_decoded(content, file), file, max_depth=DEPTH_LIMIT)
    found = shape.object(document, "", _PROFILE_KEYS, "a seccomp profile")
    profile = _profile(found) if found is not None else None
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


def _profile(found: Object) -> Profile | None:
    default = _default_action(found)
    number = _errno(found, "defaultErrnoRet", "defaultErrno", default)
    architectures = found.words("architectures", syscalls.ARCHITECTURES, "architecture")
    arch_map = tuple(filter(None, map(_arch_entry, found.objects("archMap", _ARCH_KEYS, "an entry of archMap"))))
    if architectures and arch_map:
        found.problem("archMap", "stands beside architectures, which CRI-O refuses: keep one")
    flags = found.words("flags", FLAGS, "flag")
    rules = [made for made in map(_rule, found.objects("syscalls", _RULE_KEYS, "a rule")) if made is not None]
    good = tuple(rule for rule, _ in rules)
    listener = found.text("listenerPath") or ""
    metadata = found.text("listenerMetadata") or ""
    _check_listener(found, good, listener, metadata)
    if default in LETS_THROUGH - {"SCMP_ACT_LOG"} and "syscalls" not in found:
        found.problem("defaultAction", "allows everything and there is no rule: this is no filter")
    if default is None:
        return None
    return Profile(
        default_action=default,
        default_errno=number,
        default_line=found.line_of("defaultAction"),
        architectures=architectures,
        arch_map=arch_map,
        flags=tuple(dict.fromkeys(flags)),
        listener_path=listener,
        listener_metadata=metadata,
        rules=good,
        old_names=sum(is_old for _, is_old in rules),
    )


def _default_action(found: Object) -> str | None:
    if "defaultAction" not in found:
        why = (
            "runtimes refuse the profile without it"
            if "syscalls" in found
            else "runtimes take a profile without it and without syscalls as no filter at all"
        )
        found.problem("defaultAction", f"is missing: {why}. SCMP_ACT_ERRNO denies what no rule allows")
        return None
    action = found.word("defaultAction", ACTIONS, "action")
    if action == "SCMP_ACT_NOTIFY":
        found.problem("defaultAction", "SCMP_ACT_NOTIFY cannot be the default: use it in rules")
        return None
    return action


def _arch_entry(found: Object) -> tuple[str, tuple[str, ...]] | None:
    if "architecture" not in found:
        found.problem("architecture", "is missing: an entry maps one architecture")
        return None
    name = found.word("architecture", syscalls.ARCHITECTURES, "architecture")
    subs = found.words("subArchitectures", syscalls.ARCHITECTURES, "architecture")
    return (name, subs) if name else None


def _rule(found: Object) -> tuple[Rule, bool] | None:
    """The rule, and whether it is written in the old form."""
    problems = found.shape.problems
    before = len(problems)
    names = _names(found)
    if "action" not in found:
        found.problem("action", "is missing: a rule without it is refused when the container starts")
    action = found.word("action", ACTIONS, "action")
    number = _errno(found, "errnoRet", "errno", action)
    if action == "SCMP_ACT_NOTIFY" and "write" in names:
        found.problem("", "runc cannot start a container whose write goes to SCMP_ACT_NOTIFY: leave write out")
    args = tuple(filter(None, map(_arg, found.objects("args", _ARG_KEYS, "an argument's comparison"))))
    includes, excludes = _gate(found, "includes"), _gate(found, "excludes")
    if len(problems) > before or action is None:
        return None
    return Rule(names, action, number, args, found.line, found.key, includes, excludes), "name" in found


def _names(found: Object) -> tuple[str, ...]:
    before = len(found.shape.problems)
    written = list(found.texts("names"))
    # Old Docker wrote `"name": ""` beside `names`; the empty one means nothing.
    if old := found.text("name"):
        if written:
            found.problem("name", "stands beside names, which runtimes refuse: keep names")
        written.append((found.line_of("name"), found.path("name"), old))
    if not written and len(found.shape.problems) == before:
        found.problem("names", "is missing or empty: a rule names at least one syscall")
    checked = (found.shape.word(line, path, name, syscalls.table().keys(), "syscall") for line, path, name in written)
    return tuple(filter(None, checked))


def _errno(found: Object, by_number: str, by_name: str, action: str | None) -> int | None:
    """The number that goes with ERRNO and TRACE; EPERM where none is given, as in runc and crun."""
    number = found.whole(by_number, WITH_ERRNO.get(action or "", max(WITH_ERRNO.values())))
    if text := found.text(by_name):
        named = _ERROR_NAMES.get(found.word(by_name, _ERROR_NAMES, "error name") or "")
        if number is not None and named is not None and named != number:
            found.problem(by_name, f"{text} is {named} but {by_number} is {number}: keep one")
        number = named if number is None else number
    given = by_number if by_number in found else by_name if text else ""
    if given and action is not None and action not in WITH_ERRNO:
        found.problem(given, f"goes only with {' or '.join(WITH_ERRNO)}, not with {action}")
    if action not in WITH_ERRNO:
        return None
    return EPERM if number is None else number


def _arg(found: Object) -> Arg | None:
    for name in ("index", "op", "value"):
        if name not in found:
            found.problem(name, "is missing: a comparison has index, op and value")
    index = found.whole("index", 5)
    value = found.whole("value", VALUE_LIMIT)
    two = found.whole("valueTwo", VALUE_LIMIT) or 0
    op = found.word("op", OPERATORS, "operator")
    if index is None or value is None or op is None:
        return None
    if two and op != MASKED:
        found.problem("valueTwo", f"goes only with {MASKED}; {op} compares with value alone")
    if op == MASKED and two & ~value:
        outside = f"{two:#x} has bits outside the mask {value:#x}"
        found.problem("valueTwo", f"{outside}, so it is never equal: value is the mask, valueTwo the bits")
    if op == MASKED and not value:
        found.problem("value", "the mask 0 compares nothing: leave the comparison out")
    if (op, value) in (("SCMP_CMP_LT", 0), ("SCMP_CMP_GT", VALUE_LIMIT)):
        found.problem("value", f"no argument is {op} {value}: this rule would never apply")
    return Arg(index, op, value, two)


def _gate(rule: Object, name: str) -> RuleCondition | None:
    found = rule.object(name, ("caps", "arches", "minKernel"))
    if found is None:
        return None
    caps = found.words("caps", CAPABILITIES, "capability")
    arches: list[str] = []
    for line, path, text in found.texts("arches"):
        if arch := syscalls.arch_named(text):
            arches.append(arch)
        else:
            message = f"{shown(text)} is no architecture; amd64, arm64, ppc64le, s390x and riscv64 are"
            found.shape.problem(line, path, message)
    kernel = found.text("minKernel")
    version = _KERNEL.fullmatch(kernel) if kernel else None
    if kernel and version is None:
        found.problem("minKernel", f"{shown(kernel)} is no kernel version such as 4.8")
    gate = RuleCondition(caps, tuple(arches), (int(version[1]), int(version[2])) if version else None)
    return gate if gate != RuleCondition() else None


def _check_listener(found: Object, rules: tuple[Rule, ...], listener: str, metadata: str) -> None:
    """runc refuses NOTIFY without a listener and metadata without one (libcontainer, finalizeSeccomp)."""
    for rule in rules:
        if rule.action == "SCMP_ACT_NOTIFY" and not listener:
            message = "SCMP_ACT_NOTIFY needs listenerPath, the socket of the program that decides"
            found.shape.problem(rule.line, f"{rule.key}.action", message)
    if metadata and not listener:
        found.problem("listenerMetadata", "needs listenerPath beside it")
    if listener and not (listener.startswith("/") and listener.isprintable()):
        found.problem("listenerPath", f"must be an absolute path, not {shown(listener)}")
