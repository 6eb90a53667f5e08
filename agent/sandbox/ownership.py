"""Who applied which field: the sets behind ``metadata.managedFields`` and what a later write takes from them.

Only server-side apply is tracked: a plain update takes the fields that it changes from their owner, but owns none
itself, so it never conflicts with an apply that comes later. The real server tracks updates too. The form is FieldsV1
(sigs.k8s.io/structured-merge-diff).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.sandbox.patches import MERGE_KEYS, PRIMITIVE_SETS
from agent.sandbox.status_errors import Object

Path = tuple[str, ...]
"""Steps as FieldsV1 names them: ``f:name``, ``k:{"type":"Ready"}``, ``v:"x"``; ``.`` is the element itself."""

_NEVER_OWNED = frozenset({
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owner:
    """One manager's applied fields of one subresource."""

    manager: str
    subresource: str
    fields: frozenset[Path]
    time: str


def applied_fields(obj: Object) -> frozenset[Path]:
    """The fields that an applied object names, without those that have no owner."""
    content = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
    meta = {key: value for key, value in (content.get("metadata") or {}).items() if key not in _NEVER_OWNED}
    content.pop("metadata", None)
    if meta:
        content["metadata"] = meta
    return frozenset(_leaves(content, ()))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _below(key, item, (*path, f"f:{key}"))
    elif path:
        yield path


def _below(name: str, value: Any, path: Path) -> Iterator[Path]:
    key = MERGE_KEYS.get(name)
    if isinstance(value, list) and name in PRIMITIVE_SETS:
        for item in value:
            yield (*path, f"v:{json.dumps(item)}")
    elif isinstance(value, list) and key is not None:
        for item in value:
            element = (*path, _element(key, item.get(key)))
            yield (*element, ".")
            yield from _leaves(item, element)
    else:
        yield from _leaves(value, path)


def _element(key: str, value: Any) -> str:
    return "k:" + json.dumps({key: value}, separators=(",", ":"))


def lookup(obj: Any, path: Path) -> Any:
    """The value at a path, None when there is none."""
    for step in path:
        kind, _, rest = step.partition(":")
        if step == ".":
            continue
        if kind == "f":
            obj = obj.get(rest) if isinstance(obj, dict) else None
        elif kind == "k":
            desired = json.loads(rest).items()
            obj = next((item for item in obj or [] if all(item.get(key) == value for key, value in desired)), None)
        else:
            obj = rest if json.loads(rest) in (obj or []) else None
    return obj


def without(obj: Any, path: Path) -> Any:
    """A copy of the object without what is at the path; an element named by ``.`` goes whole."""
    step, rest = path[0], path[1:]
    kind, _, name = step.partition(":")
    if kind == "f" and isinstance(obj, dict) and name in obj:
        if not rest:
            return {key: value for key, value in obj.items() if key != name}
        return {**obj, name: without(obj[name], rest)}
    if kind == "k" and isinstance(obj, list):
        desired = json.loads(name).items()
        hits = [item for item in obj if all(item.get(key) == value for key, value in desired)]
        if rest == (".",):
            return [item for item in obj if item not in hits]
        return [without(item, rest) if item in hits else item for item in obj]
    if kind == "v" and isinstance(obj, list):
        return [item for item in obj if item != json.loads(name)]
    return obj


def shown(path: Path) -> str:
    """The path as conflicts name it: ``.metadata.annotations.x``, ``.status.conditions[type="Ready"].status``."""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        elif kind == "v":
            text += f"[={rest}]"
    return text


def read(meta: Object) -> list[Owner]:
    """The owners in ``managedFields``; entries of updates are passed over."""
    owners = []
    for entry in meta.get("managedFields") or []:
        if entry.get("operation") == "Apply":
            fields = frozenset(_unpack(entry.get("fieldsV1") or {}, ()))
            owners.append(Owner(entry.get("manager", ""), entry.get("subresource", ""), fields, entry.get("time", "")))
    return owners


def _unpack(fields: Object, path: Path) -> Iterator[Path]:
    for step, below in fields.items():
        if below:
            yield from _unpack(below, (*path, step))
        else:
            yield (*path, step)


def write(owners: list[Owner], api_version: str) -> list[Object]:
    """``managedFields``; an owner of nothing is left out."""
    entries = []
    for owner in owners:
        if not owner.fields:
            continue
        tree: Object = {}
        for path in sorted(owner.fields):
            place = tree
            for step in path:
                place = place.setdefault(step, {})
        entry: Object = {
            "manager": owner.manager, "operation": "Apply", "apiVersion": api_version, "time": owner.time,
            "fieldsType": "FieldsV1", "fieldsV1": tree,
        }  # fmt: skip
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    return entries


def after_update(new: Object, old: Object, api_version: str) -> None:
    """Take from every owner the fields that a plain write changed; ``new``'s metadata is changed in place."""
    meta = new["metadata"]
    meta.setdefault("managedFields", old["metadata"].get("managedFields"))
    if not meta["managedFields"]:
        del meta["managedFields"]
        return
    kept = []
    for owner in read(meta):
        fields = frozenset(path for path in owner.fields if lookup(new, path) == lookup(old, path))
        kept.append(Owner(owner.manager, owner.subresource, fields, owner.time))
    meta["managedFields"] = write(kept, api_version)
    if not meta["managedFields"]:
        del meta["managedFields"]
