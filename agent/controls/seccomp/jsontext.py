"""JSON with the line of every value, so that a finding can say where the mistake is.

The standard parser forgets positions and silently keeps the last of two equal keys. This one keeps both and refuses
what a profile never needs: deep nesting, NaN, a byte order mark.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from agent.errors import ConfigError, Problem

DEPTH_LIMIT: Final = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DIGITS_LIMIT = 25  # 2**64 has 20; int() of a very long text is slow and, past 4300 digits, an error
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, number, true, false or null. A whole number is an int; one with a point or an exponent is a float."""

    line: int
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Array:
    """A list of values."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One `key: value` of an object."""

    line: int
    key: str
    value: Node


@dataclass(frozen=True, slots=True)
class Object:
    """Members in file order; a key that stands there twice is here twice."""

    line: int
    members: tuple[Member, ...]


Node = Scalar | Array | Object


def shown(value: object) -> str:
    """A value as it goes into a message: JSON, ASCII, short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(text: str, file: str) -> Node:
    """The document. Raises ConfigError with the one problem after which nothing more can be read."""
    return _Parser(text, file).document()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._strings = json.JSONDecoder()
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> Node:
        if self._text.startswith("\ufeff"):
            raise self._stop("begins with a byte order mark: save it as plain UTF-8")
        if not self._text.strip():
            raise self._stop("is empty: a profile is at least a defaultAction and a list of syscalls")
        found = self._value(0)
        self._skip()
        if self._at < len(self._text):
            raise self._stop(f"something stands after the end of the document: {self._here()}")
        return found

    def _value(self, depth: int) -> Node:
        if depth > DEPTH_LIMIT:
            raise self._stop(f"nested more than {DEPTH_LIMIT} deep: no profile is")
        self._skip()
        line = self._line()
        first = self._text[self._at : self._at + 1]
        if first == "{":
            return Object(line, tuple(self._members(depth)))
        if first == "[":
            return Array(line, tuple(self._items(depth)))
        if first == '"':
            return Scalar(line, self._string())
        if match := _NUMBER.match(self._text, self._at):
            self._at = match.end()
            whole = match[1] is None and match[2] is None and len(match[0]) <= _DIGITS_LIMIT
            return Scalar(line, int(match[0]) if whole else float(match[0]))
        for word, meaning in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return Scalar(line, meaning)
        raise self._stop(f"a value is missing here, found {self._here()}")

    def _members(self, depth: int) -> list[Member]:
        members: list[Member] = []
        while self._more("}", first=not members):
            line = self._line()
            if self._text[self._at : self._at + 1] != '"':
                raise self._stop(f"a key in double quotes is missing here, found {self._here()}")
            key = self._string()
            self._skip()
            if self._text[self._at : self._at + 1] != ":":
                raise self._stop(f"':' is missing after {shown(key)}, found {self._here()}")
            self._at += 1
            members.append(Member(line, key, self._value(depth + 1)))
        return members

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while self._more("]", first=not items):
            items.append(self._value(depth + 1))
        return items

    def _more(self, end: str, *, first: bool) -> bool:
        """Steps over the bracket or comma; False when the closing bracket was there."""
        if first:
            self._at += 1
        self._skip()
        here = self._text[self._at : self._at + 1]
        if here == end:
            self._at += 1
            return False
        if first:
            return True
        if here != ",":
            raise self._stop(f"',' or '{end}' is missing here, found {self._here()}")
        self._at += 1
        self._skip()
        if self._text[self._at : self._at + 1] == end:
            raise self._stop(f"a comma stands before '{end}': JSON has no trailing commas")
        return True

    def _string(self) -> str:
        try:
            text, self._at = self._strings.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = min(error.pos, len(self._text))
            raise self._stop(f"this text cannot be read: {error.msg}") from error
        return str(text)

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        if self._text.startswith(("//", "/*", "#"), self._at):
            raise self._stop('JSON has no comments: use a "comment" key')

    def _here(self) -> str:
        rest = self._text[self._at : self._at + 20].split("\n", maxsplit=1)[0]
        return shown(rest) if rest else "the end of the line" if self._at < len(self._text) else "the end of the file"

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at - 1) + 1

    def _stop(self, message: str) -> ConfigError:
        return ConfigError([Problem(self._file, self._line(), "", message)])
