"""The texts inside files: what a ConfigMap or the chart's values hold becomes files on a node, so it is linted as such.

It reads ConfigMaps, alone, in a List or beside other objects, and Helm values: of the chart, of another chart, and
within objects that install it (Argo CD, Flux, kustomize). Every other object is ignored.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.config.recognition import Claim, documents, outline, policy_claim, word
from agent.config.yaml_nodes import Items, Node, Pairs, Scalar, compose_manifest
from agent.controls import registry
from agent.errors import ConfigError, Problem

POLICY = "policy"
CHART = "node-hardening-agent"
_LISTS = ("List", "ConfigMapList")
_VALUES = ("values", "valuesObject", "valuesInline")  # of Application, HelmRelease, HelmChart, Kustomization
# As daemonset.yaml and the chart call them, also with the hash that kustomize appends.
_OUR_NAME = rf"node-hardening-(config|{'|'.join(registry.profile_kinds())})(?:-[a-z0-9]{{10}})?"
_NAMED_AS_OURS = re.compile(rf"""name["']?:[ \t]*["']?{_OUR_NAME}\b""")


@dataclass(frozen=True, slots=True)
class Text:
    """One text to lint. first_line: how many lines precede it in its file (0 unless it is inside a manifest).

    is_named: the user named its file, not a folder. type: what it is, by where it is; empty where its content decides.
    """

    file: str
    name: str
    content: str
    first_line: int = 0
    is_named: bool = False
    type: str = ""


def texts(text: Text) -> tuple[Text, ...]:
    """The text itself, or the texts inside it when it is a manifest with ConfigMaps, or values of the chart.

    Raises ConfigError.
    """
    if text.type or not (text.is_named or text.name.lower().endswith((".yaml", ".yml", ".json"))):
        return (text,)
    parts = list(documents(text.content)) if "ConfigMap" in text.content else []
    if any(_holds_texts(document) for _, document in parts):
        return tuple(one for line, document in parts for one in _objects(document, line, text))
    if CHART in text.content and is_object(text.content):
        installed = [one for line, part in documents(text.content) for one in _installed(part, line, text)]
        return tuple(installed) or (text,)
    return tuple(_values(text, is_ours=False)) or (text,)


def is_object(content: str) -> bool:
    """Whether the text holds Kubernetes objects, which say what they are."""
    found = (outline(document) for _, document in documents(content))
    return any(word(keys, "kind") and word(keys, "apiVersion") for keys in found)


def names_our_map(content: str) -> bool:
    """Whether the text, which may be broken, calls a ConfigMap as ours are called."""
    return "ConfigMap" in content and bool(_NAMED_AS_OURS.search(content))


def _holds_texts(document: str) -> bool:
    kind = word(outline(document), "kind")
    return kind == "ConfigMap" or (kind in _LISTS and "ConfigMap" in document)


def _objects(document: str, line: int, text: Text) -> Iterator[Text]:
    if not _holds_texts(document):
        yield replace(text, content=document, first_line=line, is_named=False)
        return
    for top in compose_manifest("\n" * line + document, text.file):
        yield from _inside(top, text)


def _inside(document: Node | None, text: Text) -> Iterator[Text]:
    top = _mapping(document)
    what, items = _word(top, "kind"), top.get("items")
    if what in _LISTS and isinstance(items, Items):
        for item in items.items:
            yield from _inside(item, text)
    if what == "ConfigMap":
        name = re.fullmatch(_OUR_NAME, _word(_mapping(top.get("metadata")), "name"))
        place = "" if name is None else POLICY if name[1] == "config" else name[1]
        yield from _entries(top.get("data"), text, place)
        for one in _entries(top.get("binaryData"), text, place):
            try:
                decoded = base64.b64decode("".join(one.content.split()), validate=True).decode(errors="replace")
            except binascii.Error as error:
                raise ConfigError([Problem(text.file, one.first_line + 1, one.name, f"not base64: {error}")]) from error
            yield replace(one, content=decoded)


def _entries(data: Node | None, text: Text, place: str) -> Iterator[Text]:
    for name, value in _mapping(data).items():
        if isinstance(value, Scalar):
            yield Text(text.file, name, value.text, value.line if value.block else value.line - 1, type=place)


def _installed(document: str, line: int, text: Text) -> Iterator[Text]:
    """The chart's values inside of an object that installs it."""
    if CHART not in document or "{{" in document:
        return
    lines = text.content.split("\n")
    stack: list[Node] = list(compose_manifest("\n" * line + document, text.file))
    while stack:
        node = stack.pop()
        for key, value in _mapping(node).items():
            if key not in _VALUES:
                stack.append(value)
            elif isinstance(value, Scalar):
                block = value.line if value.block else value.line - 1
                yield from _values(replace(text, content=value.text, first_line=block), is_ours=True)
            elif isinstance(value, Pairs) and value.pairs:
                first = value.pairs[0][0].line - 1
                yield from _values(replace(text, content=_mapping_at(lines[first:]), first_line=first), is_ours=True)
        if isinstance(node, Items):
            stack += node.items


def _mapping_at(lines: Sequence[str]) -> str:
    """The mapping in block style that begins in the first line, as a text of its own."""
    width = len(lines[0]) - len(lines[0].lstrip(" "))
    own = itertools.takewhile(lambda line: not line.strip() or not line[:width].strip(), lines)
    return textwrap.dedent("\n".join(own))


def _values(text: Text, *, is_ours: bool) -> Iterator[Text]:
    """The policy and the profiles in values of the chart, also below the chart's name in another chart's values."""
    keys = outline(text.content)
    if "kind" in keys:
        return
    if CHART in keys:
        yield from _values(_block(text, *keys[CHART]), is_ours=True)
        return
    is_ours = is_ours or CHART in keys.get("image", (0, ""))[1]
    policy = [replace(_block(text, *keys["config"]), name="config.yaml", type=POLICY)] if "config" in keys else []
    is_ours = is_ours or any(policy_claim(one.content, one.name) is Claim.CERTAIN for one in policy)
    if is_ours:
        yield from policy
        for top in compose_manifest("\n" * text.first_line + text.content, text.file):
            for kind, data in _mapping(_mapping(top).get("profiles")).items():
                if kind in registry.profile_kinds():
                    yield from _entries(data, text, kind)


def _block(text: Text, offset: int, value: str) -> Text:
    """The value of a key as a text of its own."""
    first, _, rest = value.partition("\n")
    first = "" if first.lstrip()[:1] in ("", "#") else first
    line = text.first_line + text.content.count("\n", 0, offset)
    return replace(text, content=textwrap.dedent(f"{first}\n{rest}"), first_line=line, is_named=False)


def _mapping(node: Node | None) -> Mapping[str, Node]:
    return {key.text: value for key, value in node.pairs} if isinstance(node, Pairs) else {}


def _word(mapping: Mapping[str, Node], key: str) -> str:
    value = mapping.get(key)
    return value.text if isinstance(value, Scalar) else ""
