"""Deny lists: named YAML files with the denied modules, why, and what that breaks.

The format is small and strict, because a misspelt key in a deny list would silently allow a module. Nothing here reads
files: the caller passes text and file name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.config.recognition import DENY_LIST_KIND as KIND
from agent.config.recognition import Claim, claim
from agent.config.schema import API_VERSION
from agent.config.yaml_nodes import Items, Node, Pairs, Scalar, compose
from agent.controls.base import FileType
from agent.errors import ConfigError, Problem
from agent.host import Host

# MODULE_NAME_LEN is 64 - sizeof(unsigned long) with the final NUL: include/linux/module.h, moduleparam.h.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,54}")
_SHOWN_CHARACTERS = 60
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class DeniedModule:
    """One entry. name, submodules: kernel names, `-` written as `_`. reason and breaks: one line each."""

    name: str
    reason: str
    breaks: str = ""
    submodules: tuple[str, ...] = ()


def normal_name(name: str) -> str:
    """A module's name as the kernel and /proc/modules write it. To modprobe `-` and `_` are the same; case matters."""
    return name.replace("-", "_")


def name_problem(name: str) -> str:
    """What is wrong with a module's name, empty for a valid one."""
    if _NAME.fullmatch(name):
        return ""
    if name.endswith((".ko", ".ko.xz", ".ko.zst", ".ko.gz")):
        return f"{_shown(name)} is a file: write the module's name, {name.partition('.ko')[0].rpartition('/')[2]}"
    return f"{_shown(name)} is not a module's name: up to 55 letters, digits, - and _"


def load_list(text: str, file: str) -> tuple[DeniedModule, ...]:
    """The modules of one deny list. file: its name in messages.

    Raises ConfigError with every problem found (file, line, key, what would be right).
    """
    reader = _Reader(file)
    modules = reader.deny_list(compose(text, file))
    if reader.problems:
        raise ConfigError(reader.problems)
    return modules


def lint(text: str, file: str, _host: Host) -> Sequence[Problem]:
    """Every problem of one deny list."""
    try:
        load_list(text, file)
    except ConfigError as error:
        return error.problems
    return ()


def _claim(content: str, path: str) -> Claim:
    known = {"about": (), "breaks": (), "modules": ("reason", "submodules")}
    found = claim(content, path, KIND, known, ("modules",))
    return Claim.NONE if found is Claim.POSSIBLE else found


FILE_TYPE = FileType("module deny list", _claim, lint)


# The keys of a list and of one module, each with what is missing without it; empty where it may be left out.
_SENTENCE = "a sentence for the operator"
_LIST_KEYS = {
    "apiVersion": f"write `apiVersion: {API_VERSION}`", "kind": f"write `kind: {KIND}`", "about": _SENTENCE,
    "breaks": _SENTENCE, "modules": "a list",
}  # fmt: skip
_MODULE_KEYS = {"name": "the module to deny", "reason": _SENTENCE, "breaks": "", "submodules": ""}


class _Reader:
    """Walks the YAML nodes, so that each problem has its line, and continues after each. A node that is None is absent
    and reported already."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Problem] = []

    def deny_list(self, node: Node | None) -> tuple[DeniedModule, ...]:
        if node is None:
            self._wrong(None, "", f"empty: a deny list begins with `apiVersion: {API_VERSION}` and `kind: {KIND}`")
            return ()
        fields = self._fields(node, "", _LIST_KEYS)
        for key, right in (("apiVersion", API_VERSION), ("kind", KIND)):
            self._constant(fields.get(key), key, right)
        for key in ("about", "breaks"):
            self._sentence(fields.get(key), key)
        modules = self._items(fields.get("modules"), "modules", self._module)
        self._twice(fields.get("modules"), modules)
        return modules

    def _module(self, node: Node, key: str) -> DeniedModule | None:
        fields = self._fields(node, key, _MODULE_KEYS)
        name = self._name(fields.get("name"), f"{key}.name")
        reason = self._sentence(fields.get("reason"), f"{key}.reason")
        breaks = self._sentence(fields.get("breaks"), f"{key}.breaks")
        below = self._items(fields.get("submodules"), f"{key}.submodules", self._name)
        return DeniedModule(name, reason, breaks, below) if name is not None else None

    def _twice(self, node: Node | None, modules: Sequence[DeniedModule]) -> None:
        """A duplicate name has two reasons, and removing one would leave the other."""
        first: set[str] = set()
        for module in modules:
            for name in (module.name, *module.submodules):
                if name in first:
                    self._wrong(node, "modules", f"{name} is listed twice: keep one")
                first.add(name)

    def _fields(self, node: Node, key: str, known: Mapping[str, str]) -> dict[str, Node]:
        if not isinstance(node, Pairs):
            self._wrong(node, key, f"has to be a mapping with {', '.join(known)}")
            return {}
        fields: dict[str, Node] = {}
        for name_node, value in node.pairs:
            name = name_node.text
            path = f"{key}.{name}" if key else name
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                meant = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                self._wrong(name_node, path, f"unknown key; {meant}")
            elif name in fields:
                self._wrong(name_node, path, "is given twice")
            else:
                fields[name] = value
        for name, missing in known.items():
            if missing and name not in fields:
                self._wrong(node, f"{key}.{name}" if key else name, f"missing: {missing}")
        return fields

    def _items(self, node: Node | None, key: str, read: Callable[[Node, str], Item | None]) -> tuple[Item, ...]:
        if node is None:
            return ()
        if not isinstance(node, Items) or not node.items:
            self._wrong(node, key, "has to be a list of at least one")
            return ()
        items = (read(item, f"{key}[{index}]") for index, item in enumerate(node.items))
        return tuple(item for item in items if item is not None)

    def _name(self, node: Node | None, key: str) -> str | None:
        if node is None:
            return None
        problem = name_problem(node.text) if isinstance(node, Scalar) else "has to be a module's name"
        if problem or not isinstance(node, Scalar):
            self._wrong(node, key, problem)
            return None
        return normal_name(node.text)

    def _sentence(self, node: Node | None, key: str) -> str:
        """Text for the operator, who cannot judge a list without its reasons and costs."""
        text = " ".join(node.text.split()) if isinstance(node, Scalar) else ""
        if node is not None and not text:
            self._wrong(node, key, "has to be text")
        return text

    def _constant(self, node: Node | None, key: str, right: str) -> None:
        text = node.text if isinstance(node, Scalar) else None
        if node is not None and text != right:
            self._wrong(node, key, f"{'not text' if text is None else _shown(text)}: has to be {right}")

    def _wrong(self, node: Node | None, key: str, message: str) -> None:
        line = node.line if node is not None else 0
        self.problems.append(Problem(self._file, line, key, message))


def near(name: str, known: Iterable[str]) -> str:
    """`did you mean X?` or what there is, for a name that is not among the known ones."""
    there = sorted(known)
    found = difflib.get_close_matches(name, there, 1)
    return f"did you mean {found[0]}?" if found else f"there are {', '.join(there) or 'none'}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
