"""One YAML file in, one frozen Config out, or all of its problems.

It never guesses: an unknown key, a bare number where a unit is needed and a value of another type are problems that
name file, line, key path and what would be right. Nothing of a file with a problem is used.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.config import suggestions, units, validation
from agent.config.groups import REMOVED, Assignment, Override
from agent.config.overrides import CLUSTER_WIDE
from agent.config.scalar_types import Kind
from agent.config.schema import API_VERSION, KIND, Config
from agent.config.schema_tree import Choice, Form, Key, Leaf, Many, Nullable, Overlay, Section, Table, keys
from agent.config.yaml_nodes import Items, Node, Pairs, Scalar, compose, problem_at
from agent.errors import ConfigError, Problem

MAX_BYTES = 256 << 10
_HEADER = {"apiVersion": API_VERSION, "kind": KIND}


def load(path: str | Path, *, explicit: bool = True) -> Config:
    """The configuration in the file; the default one when the file is not explicit and does not exist.

    Raises ConfigError with every problem, also for a file that cannot be read.
    """
    return loads(text_of(path, explicit=explicit), str(path))


def text_of(path: str | Path, *, explicit: bool) -> str:
    """The file's text; an empty one when the file is not explicit and does not exist.

    A dangling symlink is an error: a ConfigMap's mount that lost its key. Raises ConfigError.
    """
    if not explicit:
        try:
            os.lstat(path)
        except FileNotFoundError:
            return ""
        except OSError:
            pass  # permissions, a file in place of a folder: reading reports what is wrong
    file = str(path)
    return decode(read_content(file, MAX_BYTES), file)


def read_content(file: str, limit_bytes: int) -> bytes:
    """The content of a regular file. Raises ConfigError."""
    try:
        content = read_beginning(file, limit_bytes + 1)
    except OSError as error:
        raise problem_at(file, 0, f"cannot be read: {error.strerror or error}") from error
    if len(content) > limit_bytes:
        raise problem_at(file, 0, f"is larger than {units.spell_size(limit_bytes)}")
    return content


def read_beginning(file: str, limit_bytes: int) -> bytes:
    """At most so many bytes of a regular file of the agent's own pod. Raises OSError."""
    # O_NONBLOCK: a FIFO in the file's place must not block the agent.
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return stream.read(limit_bytes)


def read_whole(file: str, limit_bytes: int) -> bytes:
    """The same file whole. Raises OSError, also past the limit."""
    content = read_beginning(file, limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"larger than {limit_bytes} bytes")
    return content


def decode(content: bytes, file: str) -> str:
    """The text of a file. Raises ConfigError with the line that is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise problem_at(file, line, "is not UTF-8 text: save it as UTF-8") from error


def loads(text: str, file: str) -> Config:
    """The configuration in the text; `file` is its name in problems. Raises ConfigError with every problem."""
    return read(text, file)[0]


def read(text: str, file: str) -> tuple[Config, Mapping[str, int]]:
    """The configuration in the text, and the line of each key in it by its path. Raises ConfigError."""
    if len(text) > MAX_BYTES:
        raise problem_at(file, 0, f"is larger than {units.spell_size(MAX_BYTES)}")
    reader = _Reader(file)
    config = reader.config(compose(text, file))
    for key, message in validation.broken(config, reader.lines.keys(), reader.wrong):
        reader.report(reader.line(key), key, message)
    if reader.problems:
        raise ConfigError(reader.problems)
    return config, reader.lines


class _Wrong(Exception):
    """A value whose problem is reported already."""


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.wrong: set[str] = set()

    def line(self, key: str) -> int:
        """The key's line, or that of the nearest section around it in the file; 0 for none."""
        while key and key not in self.lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key, 0)

    def report(self, line: int, key: str, message: str) -> None:
        self.problems.append(Problem(self._file, line, key, message))
        self.wrong.add(key)

    def config(self, node: Node | None) -> Config:
        if node is None:
            return Config()
        if not isinstance(node, Pairs):
            self.report(node.line, "", f"holds {_kind_of(node)}: it must be a mapping with keys such as modprobe")
            return Config()
        config = self._section(Config, node, "", _HEADER)
        assert isinstance(config, Config)  # noqa: S101 - _section makes what it is asked for
        return config

    def _section(self, make: type[Any], node: Node, path: str, header: dict[str, str] | None = None) -> Any:
        known = keys(make)
        values: dict[str, Any] = {}
        for name, value in self._pairs(node, path):
            here = _below(path, name.text)
            self.lines[here] = name.line
            if header and name.text in header:
                self._header(value, here, header[name.text])
            elif name.text not in known:
                self.report(name.line, here, suggestions.unknown_key(name.text, make, path, tuple(header or ())))
            else:
                with suppress(_Wrong):
                    values[known[name.text].attribute] = self._key(known[name.text], value, here)
        return make(**values)

    def _override(self, node: Node, path: str) -> Override:
        """Its own keys, and those of the policy that it changes."""
        pairs = tuple(self._pairs(node, path))
        own, rest = (
            Pairs(node.line, tuple(pair for pair in pairs if (pair[0].text in keys(Override)) is mine), node.size)
            for mine in (True, False)
        )
        made: Override = self._section(Override, own, path)
        return replace(made, changes=tuple(self._changes(Config, rest, path, ())))

    def _changes(self, make: type[Any], node: Node, path: str, above: tuple[str, ...]) -> Iterator[Assignment]:
        known = keys(make)
        for name, value in self._pairs(node, path):
            here, place = _below(path, name.text), (*above, name.text)
            self.lines[here] = name.line
            if why := CLUSTER_WIDE.get(".".join(place)):
                self.report(name.line, here, f"cannot differ from node to node: {why}")
            elif name.text not in known:
                also = () if above else tuple(keys(Override))
                self.report(name.line, here, suggestions.unknown_key(name.text, make, ".".join(above), also))
            else:
                with suppress(_Wrong):
                    yield from self._change(known[name.text], value, here, place)

    def _change(self, key: Key, node: Node, path: str, place: tuple[str, ...]) -> Iterator[Assignment]:
        match key.form:
            case Section(make):
                if not (isinstance(node, Scalar) and node.is_null):
                    yield from self._changes(make, node, path, place)
            case Table(name, item):
                for entry, value in self._pairs(node, path):
                    here = _below(path, entry.text)
                    self.lines[here] = entry.line
                    gone = isinstance(value, Scalar) and value.is_null
                    found = REMOVED if gone else self._value(item, value, here)
                    yield Assignment((*place, self._read(name.kind, entry, here)), found, entry.line)
            case _:
                yield Assignment(place, self._key(key, node, path), node.line)

    def _header(self, node: Node, path: str, right: str) -> None:
        if not isinstance(node, Scalar) or node.text != right:
            shown = units.shown(node.text) if isinstance(node, Scalar) else _kind_of(node)
            self.report(node.line, path, f"{shown} is not supported by this agent: write {right}")

    def _key(self, key: Key, node: Node, path: str) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            if isinstance(key.form, Nullable):
                return None
            if key.may_be_null:
                return key.default
            empty = ', or write "" for none' if key.default == "" else ""
            empty = ", or write [] for none" if isinstance(key.form, Many) else empty
            raise self._refused(node, path, f"has no value: leave the key out for its default{empty}")
        value = self._value(key.form, node, path)
        form = key.form.inner if isinstance(key.form, Nullable) else key.form
        if isinstance(form, Leaf):
            self._bounds(key, form, value, node, path)
        return value

    def _bounds(self, key: Key, form: Leaf, value: Any, node: Node, path: str) -> None:
        spell = form.kind.spell
        most = units.YEAR_SECONDS if key.most is None and form.kind is Kind.DURATION else key.most
        if key.least is not None and value < key.least:
            raise self._refused(node, path, f"{spell(value)} is too little: at least {spell(key.least)}")
        if most is not None and value > most:
            raise self._refused(node, path, f"{spell(value)} is too much: at most {spell(most)}")

    def _value(self, form: Form, node: Node, path: str) -> Any:
        match form:
            case Overlay():
                return self._override(node, path)
            case Section(make):
                return self._section(make, node, path)
            case Nullable(inner):
                return self._value(inner, node, path)
            case Many(item):
                return self._list(item, node, path)
            case Table():
                return self._table(form, node, path)
            case Choice():
                return self._choice(form, node, path)
            case Leaf(Kind.ARGV):
                return self._argv(node, path)
            case Leaf(kind):
                return self._leaf(kind, node, path)

    def _list(self, form: Form, node: Node, path: str) -> tuple[Any, ...]:
        if not isinstance(node, Items):
            wrapped = f": write [{node.text}]" if isinstance(node, Scalar) and len(node.text) <= 40 else ""
            raise self._refused(node, path, f"is {_kind_of(node)}, it must be a list{wrapped}")
        values = []
        for index, item in enumerate(node.items):
            here = f"{path}[{index}]"
            self.lines[here] = item.line
            with suppress(_Wrong):
                values.append(self._value(form, item, here))
        return tuple(values)

    def _argv(self, node: Node, path: str) -> tuple[str, ...]:
        if not isinstance(node, Items):
            right = "it must be a list, one argument an entry, e.g. [/usr/bin/systemctl, reboot]"
            raise self._refused(node, path, f"is {_kind_of(node)}; {right}")
        words = self._list(Leaf(Kind.ARGUMENT), node, path)
        if node.items and words and len(words) == len(node.items) and not words[0].startswith("/"):
            raise self._refused(
                node.items[0],
                f"{path}[0]",
                f"{units.shown(words[0])} is not an absolute path: there is no shell and no PATH to look it up",
            )
        return words

    def _table(self, form: Table, node: Node, path: str) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for name, value in self._pairs(node, path):
            here = _below(path, name.text)
            self.lines[here] = name.line
            with suppress(_Wrong):
                table[self._read(form.key.kind, name, here)] = self._value(form.value, value, here)
        return table

    def _choice(self, form: Choice, node: Node, path: str) -> Any:
        text = self._scalar(node, path).text
        # Tools that read YAML 1.1 hand `off` on as false.
        if isinstance(node, Scalar) and node.plain and text in ("false", "False") and "off" in form.words:
            text = "off"
        if text in form.words:
            return form.enum(text)
        raise self._refused(node, path, suggestions.wrong_word(text, form.words))

    def _leaf(self, kind: Kind, node: Node, path: str) -> Any:
        scalar = self._scalar(node, path)
        if kind.plain and not scalar.plain:
            raise self._refused(node, path, f"is text, not {kind.about}: write it without quotes")
        return self._read(kind, scalar, path)

    def _read(self, kind: Kind, scalar: Scalar, path: str) -> Any:
        try:
            return kind.read(scalar.text)
        except ValueError as error:
            raise self._refused(scalar, path, str(error)) from error

    def _scalar(self, node: Node, path: str) -> Scalar:
        if not isinstance(node, Scalar):
            raise self._refused(node, path, f"is {_kind_of(node)}, it must be a single value")
        if node.is_null:
            raise self._refused(node, path, 'has no value: write one, or "" for none')
        return node

    def _pairs(self, node: Node, path: str) -> Iterator[tuple[Scalar, Node]]:
        """The pairs of a mapping, each key once; merge keys (`<<`) fold in what is not there. Raises _Wrong."""
        if not isinstance(node, Pairs):
            raise self._refused(node, path, f"is {_kind_of(node)}, it must be a mapping")
        seen: dict[str, int] = {}
        merged: list[Node] = []
        for name, value in node.pairs:
            if name.plain and name.text == "<<":
                merged += value.items if isinstance(value, Items) else [value]
            elif name.text in seen:
                here = _below(path, name.text)
                self.report(name.line, here, f"is given twice, first in line {seen[name.text]}")
            else:
                seen[name.text] = name.line
                yield name, value
        for more in merged:
            if not isinstance(more, Pairs):
                self.report(more.line, path, f"<< takes mappings, not {_kind_of(more)}")
                continue
            for name, value in self._pairs(more, path):
                if name.text not in seen:
                    seen[name.text] = name.line
                    yield name, value

    def _refused(self, node: Node, path: str, message: str) -> _Wrong:
        self.report(node.line, path, message)
        return _Wrong(message)


def _below(path: str, name: str) -> str:
    """The path of a key, quoted and cut where the key is no plain word."""
    name = name if name.isprintable() and len(name) <= 100 else units.shown(name)
    return f"{path}.{name}" if path else name


def _kind_of(node: Node) -> str:
    match node:
        case Items():
            return "a list"
        case Pairs():
            return "a mapping"
        case _:
            return "empty" if node.is_null else "a single value"
