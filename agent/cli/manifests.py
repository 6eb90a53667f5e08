"""The texts inside Kubernetes manifests: what a ConfigMap holds becomes files on a node, so it is linted as such.

It reads ConfigMaps, alone or in a List, and ignores every other object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.config.yaml_nodes import Items, Node, Pairs, Scalar, compose_manifest


@dataclass(frozen=True, slots=True)
class Text:
    """One text to lint. first_line: how many lines precede it in its file (0 unless it is inside a manifest)."""

    file: str
    name: str
    content: str
    first_line: int = 0


def texts(text: Text) -> tuple[Text, ...]:
    """The text itself, or the texts inside it when it is a manifest with ConfigMaps. Raises ConfigError."""
    if not text.name.endswith((".yaml", ".yml")) or "ConfigMap" not in text.content:
        return (text,)
    documents = compose_manifest(text.content, text.file)
    return tuple(one for document in documents for one in _inside(document, text)) or (text,)


def _inside(document: Node | None, text: Text) -> Iterator[Text]:
    top = _mapping(document)
    kind, items = top.get("kind"), top.get("items")
    what = kind.text if isinstance(kind, Scalar) else ""
    if what in ("List", "ConfigMapList") and isinstance(items, Items):
        for item in items.items:
            yield from _inside(item, text)
    if what == "ConfigMap":
        for name, value in _mapping(top.get("data")).items():
            if isinstance(value, Scalar):
                yield Text(text.file, name, value.text, value.line if value.block else value.line - 1)


def _mapping(node: Node | None) -> Mapping[str, Node]:
    return {key.text: value for key, value in node.pairs} if isinstance(node, Pairs) else {}
