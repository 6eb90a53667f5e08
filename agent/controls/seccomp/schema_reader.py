"""Reads typed values from JSON nodes for parser.py and collects every problem instead of stopping at the first.

A wrong type is a problem with what would be right, never converted.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator

from agent.config.yaml_nodes import Items, Node, Pairs, Scalar
from agent.errors import Problem

_COMMENTS = ("comment", "_comment")
_GUESSES = 20  # difflib takes milliseconds against a long list
_PROBLEMS = 200


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
    """The problems of one file, and how a word that is not known becomes one."""

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

    def word(self, line: int, key: str, word: str | None, words: Collection[str], what: str) -> str | None:
        """The word when it is one of `words`; else it is noted, with the nearest or with all of them."""
        if word is None or word in words:
            return word
        guess = self.did_you_mean(word, words)
        choice = "" if guess or len(words) > 12 else f"; choose one of {', '.join(words)}"
        self.problem(line, key, f"{shown(word)} is no {what}{guess or choice}")
        return None

    def object(self, node: Node, key: str, allowed: Collection[str], what: str) -> Object | None:
        """The node as an object; None when it is none."""
        if isinstance(node, Pairs):
            return Object(self, node, key, allowed, what)
        self.problem(node.line, key, f"must be an object ({what}), not {_kind(node)}")
        return None


class Object:
    """One object's values by key. line, key: where it stands. A value that cannot be used is a problem, and None.

    Unknown and repeated keys are noted, comments and nulls left out.
    """

    def __init__(self, shape: Shape, node: Pairs, key: str, allowed: Collection[str], what: str) -> None:
        self.shape, self.line, self.key = shape, node.line, key
        self._members: dict[str, tuple[int, Node]] = {}
        seen: dict[str, int] = {}
        for name, value in node.pairs:
            path = join(key, name.text)
            if name.text in seen:
                shape.problem(name.line, path, f"is given twice, first on line {seen[name.text]}: keep one")
                continue
            seen[name.text] = name.line
            if name.text in _COMMENTS:
                _check_comment(shape, name.line, path, value)
            elif name.text not in allowed:
                guess = shape.did_you_mean(name.text, allowed)
                known = "" if guess else f"; known here: {', '.join(sorted(allowed))}, comment"
                shape.problem(name.line, path, f"no such key in {what}{guess or known}")
            elif value_of(value) is not None:
                self._members[name.text] = name.line, value

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def path(self, name: str) -> str:
        """The key path of a member; of the object itself without a name."""
        return join(self.key, name) if name else self.key

    def line_of(self, name: str) -> int:
        """The line of a member's key; the object's where there is none."""
        return self._members[name][0] if name in self else self.line

    def problem(self, name: str, message: str) -> None:
        """Notes a problem of a member, or of the object itself without a name."""
        self.shape.problem(self.line_of(name), self.path(name), message)

    def text(self, name: str) -> str | None:
        """A text."""
        if name not in self:
            return None
        if isinstance(text := value_of(self._members[name][1]), str):
            return text
        self.problem(name, f"must be a text in double quotes, not {_kind(self._members[name][1])}")
        return None

    def word(self, name: str, words: Collection[str], what: str) -> str | None:
        """A text that is one of `words`."""
        return self.shape.word(self.line_of(name), self.path(name), self.text(name), words, what)

    def whole(self, name: str, largest: int) -> int | None:
        """A whole number from 0 to `largest`."""
        if name not in self:
            return None
        node = self._members[name][1]
        value = value_of(node)
        if not isinstance(value, int) or isinstance(value, bool):
            self.problem(name, f"must be a whole number from 0 to {largest}, not {_kind(node)}")
        elif not 0 <= value <= largest:
            self.problem(name, f"must be from 0 to {largest}, not {value}")
        else:
            return value
        return None

    def object(self, name: str, allowed: Collection[str]) -> Object | None:
        """An object."""
        return self.shape.object(self._members[name][1], self.path(name), allowed, name) if name in self else None

    def objects(self, name: str, allowed: Collection[str], what: str) -> Iterator[Object]:
        """A list of objects."""
        for path, item in self._items(name):
            if (found := self.shape.object(item, path, allowed, what)) is not None:
                yield found

    def texts(self, name: str) -> Iterator[tuple[int, str, str]]:
        """A list of texts, each with its line and key path."""
        for path, item in self._items(name):
            if isinstance(text := value_of(item), str):
                yield item.line, path, text
            else:
                self.shape.problem(item.line, path, f"must be a text in double quotes, not {_kind(item)}")

    def words(self, name: str, words: Collection[str], what: str) -> tuple[str, ...]:
        """A list of texts that are among `words`."""
        checked = (self.shape.word(line, path, text, words, what) for line, path, text in self.texts(name))
        return tuple(filter(None, checked))

    def _items(self, name: str) -> Iterator[tuple[str, Node]]:
        if name not in self:
            return
        node = self._members[name][1]
        if isinstance(node, Items):
            yield from ((f"{self.path(name)}[{number}]", item) for number, item in enumerate(node.items))
        else:
            self.problem(name, f"must be a list, not {_kind(node)}")


def _check_comment(shape: Shape, line: int, key: str, value: Node) -> None:
    nodes = value.items if isinstance(value, Items) else (value,)
    if not all(isinstance(value_of(node), str | None) for node in nodes):
        shape.problem(line, key, "a comment is a text or a list of texts")


def join(key: str, name: str) -> str:
    """A key path with one more step; names that would break a line or a terminal are quoted."""
    plain = name if name.isascii() and name.isprintable() and len(name) <= 60 else shown(name)
    return f"{key}.{plain}" if key else plain


def _kind(node: Node) -> str:
    if isinstance(node, Pairs):
        return "an object"
    return "a list" if isinstance(node, Items) else shown(value_of(node))
