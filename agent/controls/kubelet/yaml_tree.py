"""A kubelet configuration file as a tree in which each value knows its file and line, and RFC 7386 merging of those.

Scalars are resolved as go.yaml.in/yaml/v2 does it (`y` is true, 010 is 8), because that is what the kubelet sees. Files
may hold anything: size, depth and the expansion of aliases are bounded. The first document counts.
https://www.rfc-editor.org/rfc/rfc7386, https://github.com/kubernetes-sigs/yaml
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from agent.errors import AgentError
from agent.host import Host
from agent.host.budget import CONFIG_BYTES, Budget, Resource

API_VERSION = "kubelet.config.k8s.io/v1beta1"
KIND = "KubeletConfiguration"

_MAX_DEPTH = 64
_MAX_NODES = 20_000
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("y", "Y", "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
# What go.yaml.in/yaml/v2 reads as a number once `_` is out of it (resolve.go); JSON has no infinity.
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]{1,20}|0[bB][01]{1,70}|0[oO]?[0-7]{1,24}|[1-9][0-9]{0,20}|0)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_NO_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_EXACT = 1 << 53  # what is larger may be another whole number once it has been a float

Scalar: TypeAlias = bool | int | float | str | None


class DocumentRefused(AgentError):
    """The kubelet would not start with such a file. The message names file, line and reason."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value. source: `PATH:LINE` or what stands for it. folder: where relative paths start, empty: the cwd."""

    data: Scalar | Mapping[str, Value] | tuple[Value, ...]
    source: str
    folder: str = ""


Tree: TypeAlias = Mapping[str, Value]


def read(view: Host, path: str, *, label: str = "", folder: str = "") -> Tree:
    """A file as `load` has it, within the view's budget. Raises HostError too."""
    content = view.read_bytes(path, limit_bytes=CONFIG_BYTES)
    return load(content, path, label=label, folder=folder, budget=view.budget)


def load(content: bytes, path: str, *, label: str = "", folder: str = "", budget: Budget | None = None) -> Tree:
    """The first document of a YAML or JSON file, its top a mapping. Raises DocumentRefused, BudgetExceeded.

    label: goes before the path in sources; `drop-in ` for what is merged by RFC 7386.
    budget: what each value counts against.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentRefused(f"{path}:{line}: not UTF-8") from error
    if not text.strip():
        raise DocumentRefused(f"{path}: the file is empty")
    try:
        is_json = text.lstrip().startswith("{")
        if is_json:
            text = _checked_json(text)
        value = _Reader(text, path, label, folder, budget, is_json=is_json).document()
    except json.JSONDecodeError as error:
        raise DocumentRefused(f"{path}:{error.lineno}: begins with {{ and is not JSON: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise DocumentRefused(f"{where}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise DocumentRefused(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from error
    if value is None or not isinstance(value.data, Mapping):
        raise DocumentRefused(f"{path}: not a mapping at the top")
    return value.data


def _checked_json(text: str) -> str:
    """The same text, as libyaml reads it, once it is JSON: Kubernetes takes everything that begins with `{` for that.

    Raises ValueError. JSON's strings cannot hold a raw tab, so every one is white space, which libyaml does not take
    everywhere.
    https://github.com/kubernetes/apimachinery/blob/master/pkg/util/yaml/decoder.go (IsJSONBuffer)
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    json.loads(text, parse_constant=refuse)
    return text.replace("\t", " ")


def require_kind(tree: Tree, path: str, *, api_version: str = API_VERSION, kind: str = KIND) -> None:
    """Raises DocumentRefused unless the document is of this API version and kind."""
    for key, required in (("apiVersion", api_version), ("kind", kind)):
        found = tree.get(key)
        if found is None or found.data is None:
            raise DocumentRefused(f"{path}: {key} is missing, it must be {required}")
        if found.data != required:
            raise DocumentRefused(
                f"{found.source.removeprefix('drop-in ')}: {key} is {shown(found)}, it must be {required}"
            )


def merge(base: Tree, patch: Tree) -> Tree:
    """RFC 7386: null deletes, mappings merge, everything else (lists too) replaces."""
    merged = dict(base)
    for key, value in patch.items():
        if value.data is None:
            merged.pop(key, None)
        elif isinstance(value.data, Mapping):
            old = merged.get(key)
            below = old.data if old is not None and isinstance(old.data, Mapping) else {}
            merged[key] = Value(merge(below, value.data), value.source, value.folder)
        else:
            merged[key] = value
    return merged


def find(tree: Tree, path: str) -> Value | None:
    """The value at a dotted path, or the scalar that is in its way; None when anything on it is missing or null."""
    value: Value | None = None
    for key in path.split("."):
        value = tree.get(key)
        if value is None or value.data is None:
            return None
        if not isinstance(value.data, Mapping):
            return value
        tree = value.data
    return value


def to_document(tree: Tree) -> dict[str, Any]:
    """A document without places: what json.loads would have given."""
    return {key: to_json(value) for key, value in tree.items()}


def to_json(value: Value) -> Any:
    """One value without its place."""
    if isinstance(value.data, Mapping):
        return to_document(value.data)
    if isinstance(value.data, tuple):
        return [to_json(below) for below in value.data]
    return value.data


def graft(document: Any, source: str, depth: int = 0) -> Value:
    """The other way round: a value with places from one without. Raises DocumentRefused where it is nested deeply."""
    if depth > _MAX_DEPTH:
        raise DocumentRefused(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(document, Mapping):
        return Value({str(key): graft(below, source, depth + 1) for key, below in document.items()}, source)
    if isinstance(document, list | tuple):
        return Value(tuple(graft(below, source, depth + 1) for below in document), source)
    return Value(document if isinstance(document, bool | int | float | str) else None, source)


def shown(value: Value) -> str:
    """A value in a message, on one line, cut where it is long; text in quotes so that "true" is not true."""
    data = to_json(value)
    text = {True: "true", False: "false", None: "null"}[data] if isinstance(data, bool | None) else repr(data)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Reader:
    """Events into Values. Not composed: PyYAML's composer on libyaml overruns the stack on deep nesting."""

    def __init__(self, text: str, path: str, label: str, folder: str, budget: Budget | None, *, is_json: bool) -> None:
        self._budget = budget
        self._is_json = is_json
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.CSafeLoader))
        self._label = label
        self._prefix = f"{label}{path}"
        self._path = path
        self._folder = folder
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._nodes = 0

    def document(self) -> Value | None:
        next(self._events)
        if not isinstance(next(self._events), yaml.DocumentStartEvent):
            return None
        return self._value(next(self._events), 0)

    def _value(self, event: Any, depth: int) -> Value:
        line = event.start_mark.line + 1
        before = self._nodes
        self._count(1, line)
        if depth > _MAX_DEPTH:
            raise DocumentRefused(f"{self._path}:{line}: nested deeper than {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise DocumentRefused(f"{self._path}:{line}: the alias {event.anchor} is not defined before this line")
            value, size = self._anchors[event.anchor]
            self._count(size, line)
            return value
        source = f"{self._prefix}:{line}"
        if isinstance(event, yaml.ScalarEvent):
            try:
                scalar = _scalar(event, is_json=self._is_json)
            except ValueError as error:
                raise DocumentRefused(f"{self._path}:{line}: {error}") from error
            value = Value(scalar, source, self._folder)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = Value(tuple(self._items(depth)), source, self._folder)
        else:
            value = Value(self._pairs(depth), source, self._folder)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _count(self, nodes: int, line: int) -> None:
        """What aliases stand for is counted each time: merging and showing would unfold it."""
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise DocumentRefused(f"{self._path}:{line}: more than {_MAX_NODES} values")
        if self._budget is not None:
            self._budget.spend(Resource.VALUES, nodes, f"{self._path}:{line}")

    def _items(self, depth: int) -> Iterator[Value]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._value(event, depth + 1)

    def _pairs(self, depth: int) -> Tree:
        """In order, as go.yaml.in/yaml/v2 has it: of equal keys the last counts, and `<<` replaces what is above it."""
        pairs: dict[str, Value] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise DocumentRefused(f"{self._path}:{line}: a key has to be a word")
            given = next(self._events)
            value = self._value(given, depth + 1)
            if event.value == "<<" and ((event.implicit[0] and not event.style) or event.tag == _MERGE_TAG):
                pairs |= self._merged(value, line, is_alias=isinstance(given, yaml.AliasEvent))
            else:
                # A reader searches for the line of the key; a block mapping's own mark is one line further.
                made = Value(value.data, f"{self._prefix}:{line}", self._folder)
                pairs[event.value] = self._repeated(pairs.get(event.value), made) if self._is_json else made
        return pairs

    def _merged(self, value: Value, line: int, *, is_alias: bool) -> dict[str, Value]:
        """What `<<` stands for: a mapping, or a sequence of which the earlier ones count more."""
        found: dict[str, Value] = {}
        for one in reversed(value.data) if isinstance(value.data, tuple) and not is_alias else (value,):
            if not isinstance(one.data, Mapping):
                raise DocumentRefused(f"{self._path}:{line}: << has to be a mapping or a list of mappings")
            found |= one.data
        return found

    def _repeated(self, old: Value | None, new: Value) -> Value:
        """A name of JSON that is there already. A drop-in becomes a map, where the last counts as a whole; all else is
        decoded by encoding/json into what is there, so that mappings come together, and null may keep the old value."""
        if old is None or old.data is None or self._label:
            return new
        if isinstance(old.data, Mapping) and isinstance(new.data, Mapping):
            both = {key: self._repeated(old.data.get(key), value) for key, value in new.data.items()}
            return Value({**old.data, **both}, new.source, new.folder)
        if type(old.data) is not type(new.data):
            raise DocumentRefused(f"{new.source}: a name that is set twice, to values of different kinds")
        return new


def _scalar(event: Any, *, is_json: bool) -> Scalar:
    """The value of a scalar. Raises ValueError where the kubelet cannot make JSON of it."""
    text: str = event.value
    if not event.implicit[0] or event.style:
        return text
    if is_json:
        return json.loads(text)  # type: ignore[no-any-return]
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NO_JSON.fullmatch(text):
        raise ValueError(f"{text} is a number that JSON does not have")
    return _number(text.replace("_", "") if text[0] in "+-0123456789" else text, text)


def _number(plain: str, text: str) -> int | float | str:
    if _INTEGER.fullmatch(plain):
        digits = plain.lstrip("+-")
        is_old_octal = digits[0] == "0" and digits[1:2].isdigit()
        number = int(digits, 8 if is_old_octal else 0) * (-1 if plain[0] == "-" else 1)
        if -(1 << 63) <= number < 1 << 64:
            return number
    if _FLOAT.fullmatch(plain) and math.isfinite(found := float(plain)):
        return int(found) if found.is_integer() and abs(found) < _EXACT else found
    return text
