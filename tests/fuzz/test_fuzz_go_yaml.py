"""Twenty thousand configurations as operators write YAML, beside what Go's YAML reads in them.

The scalars' values are captured from go.yaml.in/yaml/v2 (go_yaml_scalars.txt); documents are put together of them in
block and flow style, with quotes, anchors, merges and keys that stand twice, and their values with them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent.controls.kubelet import yaml_tree
from agent.controls.kubelet.yaml_tree import DocumentRefused

pytestmark = pytest.mark.fuzz

KEYS = ("authentication", "anonymous", "enabled", "readOnlyPort", "a", "B", "evictionHard", "x-y", "k8s.io/z")
FLOW_ENDS = set(",[]{}")
REFUSED = object()


def scalars() -> dict[str, Any]:
    """Value by spelling; REFUSED where JSON has none."""
    found: dict[str, Any] = {}
    for line in (Path(__file__).with_name("go_yaml_scalars.txt")).read_text().splitlines():
        if not line.startswith("#"):
            value, words = line.split(": ", 1)
            for word in words.split():
                found[word] = word if value == "text" else REFUSED if value == "refused" else json.loads(value)
    return found


SCALARS = scalars()
PLAIN = [word for word, value in SCALARS.items() if value is not REFUSED]


class Writer:
    """Documents and their values. `anchors`: those that stand before, with their value."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.anchors: dict[str, dict[str, Any]] = {}
        self.names = 0

    def scalar(self, *, in_flow: bool) -> tuple[str, Any]:
        word = self.chance.choice(PLAIN)
        while in_flow and (FLOW_ENDS & set(word) or word[-1:] == ":"):
            word = self.chance.choice(PLAIN)
        match self.chance.randrange(8):
            case 0:
                return f'"{word}"', word
            case 1:
                return f"'{word.replace(chr(39), chr(39) * 2)}'", word
            case 2:
                return f"!!str {word}", word
            case _:
                return word, SCALARS[word]

    def flow(self, depth: int) -> tuple[str, Any]:
        kind = self.chance.randrange(3) if depth else 0
        if kind == 0:
            return self.scalar(in_flow=True)
        parts = [self.flow(depth - 1) for _ in range(self.chance.randint(0, 3))]
        if kind == 1:
            return f"[{', '.join(text for text, _ in parts)}]", [value for _, value in parts]
        keys = self.chance.sample(KEYS, len(parts))
        pairs = list(zip(keys, parts, strict=True))
        return "{" + ", ".join(f"{key}: {text}" for key, (text, _) in pairs) + "}", {k: v for k, (_, v) in pairs}

    def mapping(self, indent: str, depth: int) -> tuple[list[str], dict[str, Any]]:
        lines: list[str] = []
        merged: dict[str, Any] = {}
        value: dict[str, Any] = {}
        if self.anchors and self.chance.random() < 0.2:
            name, merged = self.chance.choice(list(self.anchors.items()))
            lines.append(f"{indent}<<: *{name}")
        for key in self.chance.choices(KEYS, k=self.chance.randint(1, 4)):
            comment = self.chance.choice(("", "", "", " # y", "\t# no"))
            if depth and self.chance.random() < 0.4:
                self.names += 1
                anchor = f"n{self.names}" if self.chance.random() < 0.4 else ""
                below, inner = self.mapping(f"{indent}  ", depth - 1)
                lines += [f"{indent}{key}:{f' &{anchor}' if anchor else ''}", *below]
                value[key] = inner
                if anchor:
                    self.anchors[anchor] = inner
            elif self.chance.random() < 0.2:
                items = [self.scalar(in_flow=False) for _ in range(self.chance.randint(1, 3))]
                lines += [f"{indent}{key}:", *(f"{indent}- {text}" for text, _ in items)]
                value[key] = [one for _, one in items]
            else:
                text, value[key] = self.flow(2) if self.chance.random() < 0.3 else self.scalar(in_flow=False)
                lines.append(f"{indent}{key}: {text}{comment}")
        return lines, {**merged, **value}

    def document(self) -> tuple[str, dict[str, Any]]:
        self.anchors.clear()
        lines, value = self.mapping("", 3)
        end = self.chance.choice(("", "\n", "\n", "\n---\nother: document\n", "\n...\n"))
        return self.chance.choice(("", "", "---\n", "# y: n\n")) + "\n".join(lines) + end, value


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_documents_are_read_as_by_go(count: int) -> None:
    """Value for value, texts and numbers and booleans apart."""
    writer = Writer(random.Random(20261128))
    for _ in range(count):
        text, value = writer.document()
        found = {key: yaml_tree.to_json(one) for key, one in yaml_tree.load(text.encode(), "/f").items()}
        assert same(found, value), text


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type: 1 is not true. JSON has one kind of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return not isinstance(other, bool | str | None) and one == float(other)
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


@pytest.mark.parametrize("word", [word for word, value in SCALARS.items() if value is REFUSED])
def test_what_json_cannot_hold_is_refused(word: str) -> None:
    """Infinity and what is no number: the kubelet does not start."""
    with pytest.raises(DocumentRefused, match=r"/f:2: .* JSON does not have"):
        yaml_tree.load(f"a: 1\nb: {word}\n".encode(), "/f")


def test_json_is_read_as_json() -> None:
    """1.0 is no whole number there, and no word is a boolean that YAML alone has."""
    found = yaml_tree.load(b'{"a": 1.0, "b": 1e2, "c": "y", "d": 10}', "/f")
    assert [repr(yaml_tree.to_json(value)) for value in found.values()] == ["1.0", "100.0", "'y'", "10"]
