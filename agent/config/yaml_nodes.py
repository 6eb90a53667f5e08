"""YAML and JSON as nodes that know their line and how they were written: policy, deny lists, manifests, profiles.

Composed from PyYAML's events, not loaded: `off`, `22:00` and `010` keep their text, so the key decides what they mean.
Bounded in depth and in what aliases multiply; PyYAML's own composer on libyaml overruns the stack on deep nesting.
https://yaml.org/spec/1.1/#id858600
"""

from __future__ import annotations

import bisect
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from agent.errors import ConfigError, Problem

MAX_DEPTH = 20
MAX_NODES = 20_000
MANIFEST_DEPTH = 64
_MANIFEST_NODES = 500_000
_NULL = ("", "~", "null", "Null", "NULL")
# A string, a bracket or other mark, or a number or word.
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*"|[{}\[\],:]|[-+.\w]+)')
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")  # in Python's JSON, not in the grammar
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text at a line (1-based). plain: written without quotes. block: begins in the line below (`|` and `>`)."""

    line: int
    text: str
    plain: bool
    block: bool = False
    size: int = 1

    @property
    def is_null(self) -> bool:
        """Whether YAML reads null here."""
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
    """The one document of the text, None when it is empty. Raises ConfigError, also for tags."""
    with _yaml_errors(text, file):
        return _Composer(file, yaml.parse(text, Loader=yaml.SafeLoader)).document()


def compose_manifest(text: str, file: str) -> list[Node]:
    """Every document of a manifest, which may hold objects of any kind: tags and keys that are no text are ignored.

    Raises ConfigError.
    """
    with _yaml_errors(text, file):
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        return list(_Composer(file, events, strict=False, depth=MANIFEST_DEPTH, nodes=_MANIFEST_NODES).documents())


@contextlib.contextmanager
def _yaml_errors(text: str, file: str) -> Iterator[None]:
    """PyYAML's errors as ConfigError."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        parts = [part for part in (error.problem, error.context and f"{error.context}{begun}") if part]
        hint = "; indent with spaces, not with tabs" if r"'\t'" in (error.problem or "") else ""
        raise problem_at(file, mark.line + 1 if mark else 0, f"not YAML: {', '.join(parts)}{hint}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        # The stub declares str; the reader passes the code point.
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise problem_at(file, line, f"not YAML: character U+{code:04X} is not allowed") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets chr() and int() raise on escapes and directives that are out of range.
        raise problem_at(file, 0, f"not YAML: {error}") from error


def problem_at(file: str, line: int, message: str) -> ConfigError:
    """The error for one problem of a file; line 0: of the whole."""
    return ConfigError([Problem(file, line, "", message)])


def compose_json(text: str, file: str, *, max_depth: int) -> Node:
    """A JSON document as the same nodes, by the strict grammar: only strings are not plain. Raises ConfigError.

    https://www.rfc-editor.org/rfc/rfc8259
    """
    depth = 0
    for token in _JSON_TOKEN.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[1], 0)
        if depth > max_depth:
            raise problem_at(file, text.count("\n", 0, token.start()) + 1, f"nested deeper than {max_depth} levels")
        if token[1] in _NO_NUMBERS:
            raise problem_at(file, text.count("\n", 0, token.start()) + 1, f"not JSON: {token[1]} is no number")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise problem_at(file, error.lineno, f"not JSON: {error.msg}{_json_hint(text, error.pos)}") from error
    except ValueError as error:
        raise problem_at(file, 0, f"not JSON: {error}") from error
    return _JsonComposer(text).document()


def _json_hint(text: str, position: int) -> str:
    if not text.strip():
        return "; the file is empty"
    at = text[position : position + 2]
    if at.startswith("#") or at in ("//", "/*"):
        return '; JSON has no comments, use a "comment" key'
    # Python 3.13 names the comma, earlier ones what is behind it.
    ends = text[position:].removeprefix(",").lstrip()[:1] in ("}", "]")
    return "; JSON has no trailing commas" if ends else ""


class _JsonComposer:
    """Nodes of a text that is valid JSON."""

    def __init__(self, text: str) -> None:
        self._tokens = _JSON_TOKEN.finditer(text)
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> Node:
        return self._node(next(self._tokens))

    def _node(self, token: re.Match[str]) -> Node:
        line = bisect.bisect(self._newlines, token.start()) + 1
        match token[1]:
            case "{":
                pairs = tuple((self._scalar(key), self._value()) for key in self._until("}"))
                return Pairs(line, pairs, 1 + sum(value.size for _, value in pairs))
            case "[":
                items = tuple(self._node(item) for item in self._until("]"))
                return Items(line, items, 1 + sum(item.size for item in items))
        return self._scalar(token)

    def _until(self, end: str) -> Iterator[re.Match[str]]:
        """The first token of each item, up to the closing bracket."""
        while (token := next(self._tokens))[1] != end:
            if token[1] != ",":
                yield token

    def _value(self) -> Node:
        next(self._tokens)  # the colon
        return self._node(next(self._tokens))

    def _scalar(self, token: re.Match[str]) -> Scalar:
        line, text = bisect.bisect(self._newlines, token.start()) + 1, token[1]
        return Scalar(line, json.loads(text), plain=False) if text[0] == '"' else Scalar(line, text, plain=True)


class _Composer:
    def __init__(
        self, file: str, events: Iterator[Any], *, strict: bool = True, depth: int = MAX_DEPTH, nodes: int = MAX_NODES
    ) -> None:
        self._file, self._events = file, events
        self._strict, self._max_depth, self._max_nodes = strict, depth, nodes
        self._anchors: dict[str, Node | None] = {}

    def documents(self) -> Iterator[Node]:
        next(self._events)  # the stream's start
        while isinstance(next(self._events), yaml.DocumentStartEvent):
            self._anchors.clear()
            yield self._node(next(self._events), 0)
            next(self._events)  # the document's end

    def document(self) -> Node | None:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        node = self._node(next(self._events), 0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._refused(after, "a second document begins here: the file holds one")
        return None if isinstance(node, Scalar) and node.is_null else node

    def _node(self, event: Any, depth: int) -> Node:
        if depth > self._max_depth:
            raise self._refused(event, f"nested deeper than {self._max_depth} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if self._strict and event.tag not in (None, "!"):
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
            plain = event.implicit[0] and not event.style
            return Scalar(line, event.value, plain=plain, block=event.style in ("|", ">"))
        if isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self._until(yaml.SequenceEndEvent, lambda first: self._node(first, depth + 1)))
            return Items(line, items, 1 + sum(item.size for item in items))
        pairs = tuple(self._until(yaml.MappingEndEvent, lambda first: self._pair(first, depth + 1)))
        named = tuple((key, value) for key, value in pairs if isinstance(key, Scalar))
        return Pairs(line, named, 1 + sum(value.size for _, value in pairs))

    def _until(self, end: type[Any], read: Callable[[Any], Any]) -> Iterator[Any]:
        """What `read` makes of the events up to the end; counted while it grows, so that a bomb never unfolds."""
        total = 0
        while not isinstance(event := next(self._events), end):
            got = read(event)
            total += (got[1] if isinstance(got, tuple) else got).size
            if total > self._max_nodes:
                raise self._refused(event, f"holds more than {self._max_nodes} values, aliases counted each time")
            yield got

    def _pair(self, event: Any, depth: int) -> tuple[Node, Node]:
        key = self._node(event, depth)
        if self._strict and not isinstance(key, Scalar):
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
        return problem_at(self._file, event.start_mark.line + 1, message)
