"""The resolved configuration: which modules are denied and why, and the file for modprobe.

A list that is missing or broken removes nothing: what the agent's file denied before stays denied, and a `Trouble` has
the reason. Nothing here reads the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from agent.config.essential_modules import ESSENTIAL_MODULES
from agent.config.schema import Modprobe
from agent.controls.modprobe.denylists import DeniedModule, load_list, name_problem, near, normal_name
from agent.errors import ConfigError

REFUSED_BY = "/bin/false"
_HEADER = """\
# Maintained by node-hardening-agent (control modprobe): manual changes are replaced at the next pass.
# To change it, set modprobe.lists, modprobe.deny and modprobe.allow in the agent's configuration.
#
# blacklist  refuses the kernel's requests by alias, such as a container's socket() makes
# install    refuses the module by name and as a dependency of another one
# softdep    an empty one, since modprobe skips the install line of a module that has soft dependencies
"""
_COMMENT_CHARACTERS = 110


@dataclass(frozen=True, slots=True)
class Denied:
    """One module that is refused. part_of: the module whose submodule it is, empty for a module by itself."""

    name: str
    reason: str
    source: str
    part_of: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A part of the configuration that is ignored. id: the last part of the finding's id."""

    id: str
    observed: str
    expected: str
    source: str
    remediation: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole answer. denied: in the order of the lists. idle: names in `allow` that nothing denies."""

    denied: tuple[Denied, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    idle: tuple[str, ...] = ()
    names: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(one.name for one in self.denied))


def resolve(
    config: Modprobe, folder: Path, kept: Iterable[str] = (), needed: Mapping[str, str] = MappingProxyType({})
) -> Policy:
    """The policy of a configuration. folder: where the named lists are.

    kept: what the agent's file denies now; added only while a list cannot be read. needed: what the node runs on, with
    the reason; left out unless it is forced or denied already, since the node runs on it all the same. An allowed
    module includes its submodules; an allowed submodule is only itself.
    """
    troubles: list[Trouble] = []
    allow = {normal_name(name) for name in _good(config.allow, "allow", troubles)}
    found: dict[str, Denied] = {}
    lost = False
    for name in config.lists:
        modules = _load(name, folder, troubles)
        lost = lost or modules is None
        for member in _members(modules or (), f"list {name}"):
            found.setdefault(member.name, member)
    force = {normal_name(name) for name in _good(config.force, "force", troubles)}
    for key, names in (("deny", _good(config.deny, "deny", troubles)), ("force", sorted(force))):
        for name in map(normal_name, names):
            found.setdefault(name, Denied(name, f"listed in modprobe.{key}", f"modprobe.{key}"))
    before = frozenset(kept)
    if lost:
        reason = "denied before; kept while a list cannot be read"
        for name in kept:
            found.setdefault(name, Denied(name, reason, "the agent's own file"))
    idle = tuple(sorted(allow - found.keys()))
    refused = needed.keys() - force - (before - ESSENTIAL_MODULES.keys())
    denied = [one for one in found.values() if not allow & {one.name, one.part_of}]
    troubles += [_in_use(one, needed[one.name]) for one in denied if one.name in refused]
    return Policy(tuple(one for one in denied if one.name not in refused), tuple(troubles), idle)


def _in_use(one: Denied, why: str) -> Trouble:
    leave_out = (
        f"add {one.name} to modprobe.allow" if one.source.startswith("list ") else "remove it from modprobe.deny"
    )
    step = f"To keep it, {leave_out}; to deny it all the same, list it in modprobe.force."
    observed = f"not denied, because the node runs on it: {why}"
    return Trouble(f"needed/{one.name}", observed, "a module that the node does not run on", one.source, step)


def render(policy: Policy) -> bytes:
    """The file: the same policy gives the same bytes. Every module keeps its reason beside it."""
    text = [_HEADER]
    reason = ""
    for one in policy.denied:
        why = f"{one.part_of or one.name}: {one.reason} ({one.source})"
        if why != reason:
            text.append(f"\n{_comment(why)}")
            reason = why
        text.append(f"blacklist {one.name}\ninstall {one.name} {REFUSED_BY}\nsoftdep {one.name} pre:\n")
    return "".join(text).encode()


def _members(modules: Iterable[DeniedModule], source: str) -> Iterable[Denied]:
    for module in modules:
        yield Denied(module.name, module.reason, source)
        for below in module.submodules:
            yield Denied(below, module.reason, source, module.name)


def _load(name: str, folder: Path, troubles: list[Trouble]) -> Sequence[DeniedModule] | None:
    path, known = folder / f"{name}.yaml", _known(folder)
    if name in known:
        try:
            return load_list(path.read_text(encoding="utf-8"), str(path))
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            observed, expected = "; ".join(str(error).splitlines()), "a deny list that can be read whole"
            source, step = str(path), "Fix the list (`node-hardening-agent validate FILE` shows the same)"
    else:
        observed = f"there is no deny list {name}; {near(name, known)}"
        expected = f"one of {', '.join(known) or 'none: the folder of lists is empty'}"
        source, step = "modprobe.lists", "Write an existing list into modprobe.lists"
    step = f"{step}; until then what was denied stays denied."
    troubles.append(Trouble(f"list/{name}", observed, expected, source, step))
    return None


def _known(folder: Path) -> Sequence[str]:
    try:
        return sorted(path.stem for path in folder.iterdir() if path.suffix == ".yaml")
    except OSError:
        return []


def _good(names: Iterable[str], key: str, troubles: list[Trouble]) -> list[str]:
    """The valid names; a trouble for each other one."""
    good = []
    for name in names:
        if problem := name_problem(name):
            id_ = f"{key}/{re.sub(r'[^A-Za-z0-9_.-]', '_', name[:60])}"
            step = f"Correct the name in modprobe.{key}; the rest of the policy is in place."
            troubles.append(Trouble(id_, problem, "a kernel module's name, as lsmod shows it", f"modprobe.{key}", step))
        else:
            good.append(name)
    return good


def _comment(text: str) -> str:
    """Text as comment lines, without backslashes: one at a line's end would continue the comment."""
    words = re.sub(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split()
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > _COMMENT_CHARACTERS and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}"
    return "".join(f"#{line}\n" for line in lines)
