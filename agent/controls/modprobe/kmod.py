"""What kmod and the kernel print about modules, read into values. Pure functions over text; nothing is run here."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from agent.controls.modprobe.denylists import normal_name

_INSMOD = re.compile(r"insmod (?P<path>/.*?\.ko(?:\.(?:gz|xz|zst))?)(?: .*)?")
_OBJECT = re.compile(r"(?P<name>[^/]+)\.ko(?:\.(?:gz|xz|zst))?")
_NOT_FOUND = re.compile(r"Module (?P<name>\S+) not found")
_RANGE = re.compile(r"\[(?P<not>[!^]?)(?P<set>[^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One line of /proc/modules. references: None when the kernel cannot unload. holders: modules that use it."""

    name: str
    references: int | None
    holders: tuple[str, ...] = ()


def loaded(text: str) -> dict[str, Loaded]:
    """/proc/modules by name: `name size references holders state address`. Lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        name, _, references, holders = words[:4]
        count = int(references) if references.isascii() and references.isdecimal() else None
        found[name] = Loaded(name, count, tuple(holder for holder in holders.split(",") if holder not in ("", "-")))
    return found


def unload_order(loaded: Mapping[str, Loaded], denied: AbstractSet[str]) -> tuple[str, ...]:
    """Denied modules that nothing uses once those before them are gone: dccp_ipv4 first, then dccp.

    A module whose references are more than its holders is in use by a process or a mount, and stays.
    """
    order: list[str] = []
    gone: set[str] = set()
    while True:
        free = sorted(
            name
            for name in denied - gone
            if (module := loaded.get(name)) is not None
            and module.references == len(module.holders)
            and set(module.holders) <= gone
        )
        if not free:
            return tuple(order)
        order += free
        gone |= set(free)


def builtin(text: str) -> frozenset[str]:
    """Names in modules.builtin: one path of an object a line."""
    return frozenset(name for line in text.splitlines() if (name := module_of(line.strip())))


def dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep: every module that the kernel has as a file, with all that it needs (`path: path path`)."""
    found = {}
    for line in text.splitlines():
        path, colon, needed = line.partition(":")
        if colon and (name := module_of(path.strip())):
            found[name] = tuple(below for word in needed.split() if (below := module_of(word)))
    return found


def module_of(path: str) -> str:
    """`kernel/net/sctp/sctp.ko.xz` is `sctp`; empty when the path is none of an object."""
    match = _OBJECT.fullmatch(posixpath.basename(path))
    return normal_name(match["name"]) if match else ""


@dataclass(frozen=True, slots=True)
class ShowDepends:
    """What `modprobe --show-depends` printed: what would be done, in that order.

    insmods: modules whose object would be loaded. commands: install commands that would run. builtins: modules that are
    in the kernel already. not_found: names that lead nowhere. Exit codes mean nothing: 0 also for what is refused.
    """

    insmods: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    builtins: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()


def answer(stdout: str, stderr: str) -> ShowDepends:
    """Reads `modprobe -n -v` or `--show-depends`; lines of other kinds are left out."""
    insmods, commands, builtins = [], [], []
    for line in stdout.splitlines():
        if match := _INSMOD.fullmatch(line):
            insmods.append(module_of(match["path"]))
        elif line.startswith("install "):
            commands.append(line.removeprefix("install ").strip())
        elif line.startswith("builtin "):
            builtins.append(normal_name(line.removeprefix("builtin ").strip()))
    return ShowDepends(tuple(insmods), tuple(commands), tuple(builtins), tuple(_NOT_FOUND.findall(stderr)))


def aliases(show_config: str, modules: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Alias patterns that lead to each of the modules: `modprobe --showconfig` prints its indexes and its own ones."""
    found: dict[str, dict[str, None]] = {module: {} for module in modules}
    for line in show_config.splitlines():
        if line.startswith("alias "):
            words = line.split()
            if len(words) == 3 and words[2] in found:
                found[words[2]][words[1]] = None
    return {module: tuple(patterns) for module, patterns in found.items()}


def first(show_config: str, verb: str) -> dict[str, str]:
    """What `modprobe --showconfig` prints for each name or pattern of a verb: the first line, as modprobe decides."""
    found: dict[str, str] = {}
    for line in show_config.splitlines():
        if line.startswith(f"{verb} "):
            _, name, rest = (*line.split(" ", 2), "")[:3]
            found.setdefault(name, rest.strip())
    return found


def sample(pattern: str) -> str:
    """One name that an alias pattern matches: `usb:v*p[0-9]?` gives `usb:vp00`. modprobe takes names, not patterns."""
    parts: list[str] = []
    end = 0
    for match in _RANGE.finditer(pattern):
        parts += [_literal(pattern[end : match.start()]), _member(match["not"] != "", match["set"])]
        end = match.end()
    return "".join([*parts, _literal(pattern[end:])])


def _literal(text: str) -> str:
    return text.replace("*", "").replace("?", "0")


def _member(negated: bool, members: str) -> str:
    if not negated:
        return members[:1]
    return next((one for one in "0aAzZ_" if not fnmatch.fnmatchcase(one, f"[{members}]")), "~")


def usable(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are safe on modprobe's command line: no path, no option, no NUL or blank, no duplicates."""
    good = (name for name in names if name and name[0] not in "/.-" and not re.search(r"[\s\0]", name))
    return tuple(dict.fromkeys(good))
