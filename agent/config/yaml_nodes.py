"""YAML text as nodes that still know their line and how they were written.

Composed from PyYAML's events, not loaded: `off`, `22:00` and `010` keep their text, so what they mean is decided by the
key that they stand under. It refuses what a configuration has no use for (tags, several documents) and bounds what
costs (depth, and what aliases multiply).
https://yaml.org/spec/1.1/#id858600
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from agent.errors import ConfigError, Problem

MAX_DEPTH = 20
MAX_NODES = 20_000
_NULL = ("", "~", "null", "Null", "NULL")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text at a line (1-based). plain: written without quotes."""

    line: int
    text: str
    plain: bool
    size: int = 1

    @property
    def is_null(self) -> bool:
        """Whether YAML reads nothing here."""
        return self.plain and self.text in _NULL


@dataclass(frozen=True, slots=True)
class Items:
    """A list. size: nodes below and this one, those behind aliases counted each time."""

    line: int
    items: tuple[Node, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping as written: duplicate keys and `<<` are still in it."""

    line: int
    pairs: tuple[tuple[Scalar, Node], ...]
    size: int


Node = Scalar | Items | Pairs


def compose(text: str, file: str) -> Node | None:
    """The one document of the text, None when it holds nothing. Raises ConfigError."""
    try:
        return _Composer(file, yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        parts = [part for part in (error.problem, error.context and f"{error.context}{begun}") if part]
        hint = "; indent with spaces, tabs cannot" if r"'\t'" in (error.problem or "") else ""
        raise _wrong(file, mark.line + 1 if mark else 0, f"not YAML: {', '.join(parts)}{hint}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        # The stub says str; the reader hands over the code point.
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise _wrong(file, line, f"not YAML: character U+{code:04X} is not allowed") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets chr() and int() raise on escapes and directives that are out of range.
        raise _wrong(file, 0, f"not YAML: {error}") from error


def _wrong(file: str, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(file, line, "", message)])


class _Composer:
    def __init__(self, file: str, events: Iterator[Any]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node | None:
        next(self._events)  # the stream's start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            return None
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._refused(after, "a second document begins here: the file holds one")
        return None if isinstance(node, Scalar) and node.is_null else node

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._refused(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag not in (None, "!"):
            raise self._refused(event, f"the tag {event.tag} is not read here: leave it out")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # known, not finished
        node = self._collection(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _collection(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            if _SURROGATE.search(event.value):
                raise self._refused(event, "holds half of a surrogate pair, which is no character")
            return Scalar(line, event.value, plain=event.implicit[0] and event.style is None)
        if isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self._until(yaml.SequenceEndEvent, lambda first: self._node(first, depth + 1)))
            return Items(line, items, 1 + sum(item.size for item in items))
        pairs = tuple(self._until(yaml.MappingEndEvent, lambda first: self._pair(first, depth + 1)))
        return Pairs(line, pairs, 1 + sum(value.size for _, value in pairs))

    def _until(self, end: type[Any], read: Callable[[Any], Any]) -> Iterator[Any]:
        """What `read` makes of the events up to the end; counted while it grows, so that a bomb never unfolds."""
        total = 0
        while not isinstance(event := next(self._events), end):
            got = read(event)
            total += (got[1] if isinstance(got, tuple) else got).size
            if total > MAX_NODES:
                raise self._refused(event, f"holds more than {MAX_NODES} values, aliases counted each time")
            yield got

    def _pair(self, event: Any, depth: int) -> tuple[Scalar, Node]:
        key = self._node(event, depth)
        if not isinstance(key, Scalar):
            raise self._refused(event, "a key has to be a word, not a list or mapping")
        return key, self._node(next(self._events), depth)

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            known = event.anchor in self._anchors
            what = "is used inside itself" if known else "is not defined before this line"
            raise self._refused(event, f"the anchor {event.anchor} {what}")
        return node

    def _refused(self, event: Any, message: str) -> ConfigError:
        return _wrong(self._file, event.start_mark.line + 1, message)
