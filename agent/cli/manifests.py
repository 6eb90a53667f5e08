"""The texts inside Kubernetes manifests: what a ConfigMap holds becomes files on a node, so it is linted as such.

It reads ConfigMaps, alone or in a List, and leaves every other object alone. Depth is bounded before anything is
composed: PyYAML's composer on libyaml overruns the stack on deep nesting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from agent.errors import ConfigError, Problem

MAX_DEPTH = 64
_NESTS = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_ENDS = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


@dataclass(frozen=True, slots=True)
class Text:
    """One text to lint. first_line: how many lines stand before it in its file (0 unless it is inside a manifest)."""

    file: str
    name: str
    content: str
    first_line: int = 0


def texts(text: Text) -> tuple[Text, ...]:
    """The text itself, or the texts inside it when it is a manifest with ConfigMaps. Raises ConfigError."""
    if not text.name.endswith((".yaml", ".yml")) or "ConfigMap" not in text.content:
        return (text,)
    try:
        _check_depth(text)
        documents = list(yaml.compose_all(text.content, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise _wrong(text, mark.line + 1 if mark else 0, f"not YAML: {reason}") from error
    inside = tuple(one for document in documents for one in _inside(document, text))
    return inside or (text,)


def _check_depth(text: Text) -> None:
    depth = 0
    for event in yaml.parse(text.content, Loader=yaml.CSafeLoader):
        depth += isinstance(event, _NESTS)
        depth -= isinstance(event, _ENDS)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise _wrong(text, line, f"nested deeper than {MAX_DEPTH} levels")


def _wrong(text: Text, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(text.file, line, "", message)])


def _inside(document: yaml.Node | None, text: Text) -> Iterator[Text]:
    top = _mapping(document)
    kind = top.get("kind")
    what = kind.value if isinstance(kind, yaml.ScalarNode) else ""
    items = top.get("items")
    if what in ("List", "ConfigMapList") and isinstance(items, yaml.SequenceNode):
        for item in items.value:
            yield from _inside(item, text)
    if what != "ConfigMap":
        return
    for name, value in _mapping(top.get("data")).items():
        if isinstance(value, yaml.ScalarNode):
            before = value.start_mark.line + (1 if value.style in ("|", ">") else 0)
            yield Text(text.file, name, value.value, before)


def _mapping(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
