"""Reads typed values from JSON nodes for parser.py and collects every problem instead of stopping at the first.

A wrong type is a problem with what would be right, never converted.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from dataclasses import dataclass

from agent.config.yaml_nodes import Items, Node, Pairs, Scalar
from agent.errors import Problem

_COMMENTS = ("comment", "_comment")
_GUESSES = 20  # difflib takes milliseconds against a long list
_PROBLEMS = 200


@dataclass(frozen=True, slots=True)
class Member:
    """One `key: value` of an object."""

    line: int
    key: str
    value: Node


def shown(value: object) -> str:
    """A value in a message: JSON, ASCII, short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def value_of(node: Node) -> object:
    """The Python value of a scalar; a list and an object have none."""
    if not isinstance(node, Scalar):
        return ...
    return json.loads(node.text) if node.plain else node.text


class Shape:
    """Problems of one file, and the ways to read values that add to them. A value that cannot be used is None."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._guesses = 0

    def problem(self, line: int, key: str, message: str) -> None:
        """Notes one problem, 200 at most."""
        if len(self.problems) < _PROBLEMS:
            self.problems.append(Problem(self.file, line, key, message))

    def did_you_mean(self, word: str, words: Collection[str]) -> str:
        """`; did you mean X?` where something is near, else nothing."""
        if self._guesses >= _GUESSES or len(word) > 64:
            return ""
        self._guesses += 1
        folded = {known.lower(): known for known in words}
        near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.72)
        return f"; did you mean {folded[near[0]]}?" if near else ""

    def members(self, node: Node, key: str, allowed: Collection[str], what: str) -> dict[str, Member] | None:
        """An object's members by key: unknown and repeated ones noted, comments and nulls left out."""
        if not isinstance(node, Pairs):
            self.problem(node.line, key, f"must be an object ({what}), not {_kind(node)}")
            return None
        found: dict[str, Member] = {}
        seen: dict[str, int] = {}
        for name, value in node.pairs:
            member = Member(name.line, name.text, value)
            path = join(key, member.key)
            if member.key in seen:
                self.problem(member.line, path, f"is given twice, first on line {seen[member.key]}: keep one")
                continue
            seen[member.key] = member.line
            if member.key in _COMMENTS:
                self._comment(member, path)
            elif member.key not in allowed:
                guess = self.did_you_mean(member.key, allowed)
                known = "" if guess else f"; known here: {', '.join(sorted(allowed))}, comment"
                self.problem(member.line, path, f"no such key in {what}{guess or known}")
            elif value_of(value) is not None:
                found[member.key] = member
        return found

    def text(self, member: Member | None, key: str) -> str | None:
        """A text. None when it is not there or not a text."""
        if member is None:
            return None
        if isinstance(text := value_of(member.value), str):
            return text
        self.problem(member.line, key, f"must be a text in double quotes, not {_kind(member.value)}")
        return None

    def whole(self, member: Member | None, key: str, largest: int) -> int | None:
        """A whole number from 0 to `largest`."""
        if member is None:
            return None
        value = value_of(member.value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.problem(member.line, key, f"must be a whole number from 0 to {largest}, not {_kind(member.value)}")
            return None
        if not 0 <= value <= largest:
            self.problem(member.line, key, f"must be from 0 to {largest}, not {value}")
            return None
        return value

    def items(self, member: Member | None, key: str) -> tuple[Node, ...]:
        """A list's items."""
        if member is None:
            return ()
        if isinstance(member.value, Items):
            return member.value.items
        self.problem(member.line, key, f"must be a list, not {_kind(member.value)}")
        return ()

    def texts(self, member: Member | None, key: str) -> list[tuple[int, str, str]]:
        """A list of texts, each with its line and key path."""
        found: list[tuple[int, str, str]] = []
        for number, item in enumerate(self.items(member, key)):
            path = f"{key}[{number}]"
            if isinstance(text := value_of(item), str):
                found.append((item.line, path, text))
            else:
                self.problem(item.line, path, f"must be a text in double quotes, not {_kind(item)}")
        return found

    def word(self, line: int, key: str, word: str | None, words: Collection[str], what: str) -> str | None:
        """The word when it is one of `words`; else it is noted, with the nearest or with all of them."""
        if word is None or word in words:
            return word
        guess = self.did_you_mean(word, words)
        choice = "" if guess or len(words) > 12 else f"; choose one of {', '.join(words)}"
        self.problem(line, key, f"{shown(word)} is no {what}{guess or choice}")
        return None

    def _comment(self, member: Member, key: str) -> None:
        nodes = member.value.items if isinstance(member.value, Items) else (member.value,)
        if not all(isinstance(value_of(node), str | None) for node in nodes):
            self.problem(member.line, key, "a comment is a text or a list of texts")


def join(key: str, name: str) -> str:
    """A key path with one more step; names that would break a line or a terminal are quoted."""
    plain = name if name.isascii() and name.isprintable() and len(name) <= 60 else shown(name)
    return f"{key}.{plain}" if key else plain


def _kind(node: Node) -> str:
    if isinstance(node, Pairs):
        return "an object"
    return "a list" if isinstance(node, Items) else shown(value_of(node))
