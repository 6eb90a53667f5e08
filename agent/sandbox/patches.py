"""JSON merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch, as the API server applies them.

Pure functions over JSON values: none changes its arguments. The strategic merge knows the merge keys of the kinds
that the emulator serves and refuses nothing that the real one takes, but it has no OpenAPI schema: a list that
is not in the table is replaced whole, which is what the real server does with node ``spec.taints``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agent.sandbox.status_errors import Object

MERGE_KEYS = {
    "conditions": "type",
    "addresses": "type",
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "podIPs": "ip",
    "imagePullSecrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "secrets": "name",
    "ownerReferences": "uid",
}
"""Lists that merge by a key (patchMergeKey in k8s.io/api's types), by the name of the field."""

PRIMITIVE_SETS = frozenset({"finalizers"})


class PatchError(Exception):
    """The patch cannot be read: a 400."""


class MergeKeyError(Exception):
    """An element of a list lacks the key by which the list is merged: a 500 without a reason, as it is there."""


class UnprocessablePatchError(Exception):
    """The patch can be read but does not apply to this object: a 422."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result: Object = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902, with add, remove, replace, move, copy and test.

    Raises:
        PatchError: it is no list of operations.
        UnprocessablePatchError: a path is missing or a test failed.
    """
    if not isinstance(operations, list):
        kind = "object" if isinstance(operations, dict) else "value"
        message = f"json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        raise PatchError(f"error decoding patch: {message}")
    document = json.loads(json.dumps(target))
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise PatchError("a JSON patch operation needs op and path")
        apply = _OPERATIONS.get(str(operation.get("op")))
        if apply is None:
            raise UnprocessablePatchError(f"Unexpected kind: {operation.get('op')}")
        document = apply(document, operation)
    return document


def _pointer(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise UnprocessablePatchError(f"the path {path!r} does not start with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _index(part: str, length: int) -> int:
    if not part.isdecimal() or (len(part) > 1 and part[0] == "0") or int(part) >= length:
        raise UnprocessablePatchError(f"no such element in the list: {part}")
    return int(part)


def _child(container: Any, part: str) -> Any:
    if isinstance(container, dict) and part in container:
        return container[part]
    if isinstance(container, list):
        return container[_index(part, len(container))]
    raise UnprocessablePatchError(f"no such path: {part}")


def _resolve(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = _child(document, part)
    return document


def _place(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    parent = _resolve(document, parts[:-1])
    if isinstance(parent, list):
        position = len(parent) if parts[-1] == "-" else _index(parts[-1], len(parent) + 1)
        parent.insert(position, value)
    elif isinstance(parent, dict):
        parent[parts[-1]] = value
    else:
        raise UnprocessablePatchError(f"cannot add below a value at {parts[-1]}")
    return document


def _take(document: Any, parts: list[str]) -> Any:
    if not parts:
        raise UnprocessablePatchError("the whole document cannot be removed")
    parent = _resolve(document, parts[:-1])
    value = _child(parent, parts[-1])
    if isinstance(parent, list):
        parent.pop(int(parts[-1]))
    else:
        parent.pop(parts[-1])
    return value


def _value(operation: Object) -> Any:
    if "value" not in operation:
        raise UnprocessablePatchError(f"operation {operation['op']} has no value")
    return operation["value"]


def _from(operation: Object) -> list[str]:
    if not isinstance(operation.get("from"), str):
        raise UnprocessablePatchError(f"operation {operation['op']} has no from")
    return _pointer(operation["from"])


def _add(document: Any, operation: Object) -> Any:
    return _place(document, _pointer(operation["path"]), _value(operation))


def _remove(document: Any, operation: Object) -> Any:
    _take(document, _pointer(operation["path"]))
    return document


def _replace(document: Any, operation: Object) -> Any:
    parts = _pointer(operation["path"])
    if not parts:
        return _value(operation)
    _take(document, parts)
    return _place(document, parts, _value(operation))


def _move(document: Any, operation: Object) -> Any:
    source, target = _from(operation), _pointer(operation["path"])
    if target[: len(source)] == source and target != source:
        raise UnprocessablePatchError("a value cannot be moved into itself")
    return _place(document, target, _take(document, source))


def _copy(document: Any, operation: Object) -> Any:
    value = json.loads(json.dumps(_resolve(document, _from(operation))))
    return _place(document, _pointer(operation["path"]), value)


def _test(document: Any, operation: Object) -> Any:
    parts = _pointer(operation["path"])
    if _resolve(document, parts) != operation.get("value"):
        raise UnprocessablePatchError(f"testing value {operation['path']} failed: test failed")
    return document


_OPERATIONS: dict[str, Callable[[Any, Object], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def strategic(target: Any, patch: Any, kind: str) -> Any:
    """Strategic merge of ``patch`` into ``target``; ``kind`` tells a Service's ports from a container's.

    Directives: ``$patch: replace|delete|merge``, ``$deleteFromPrimitiveList/x``, ``$setElementOrder/x`` and
    ``$retainKeys``.

    Raises:
        PatchError: the patch or a directive has the wrong shape, or an element lacks its merge key.
    """
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object")
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown patch type: {directive}")
    result: Object = dict(target) if isinstance(target, dict) else {}
    retain = patch.get("$retainKeys")
    if isinstance(retain, list):
        result = {key: value for key, value in result.items() if key in retain}
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(result, key, value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _strategic_value(key, result.get(key), value, kind)
    for key in patch:
        name = key.removeprefix("$setElementOrder/")
        if isinstance(result.get(name), list) and (name != key or _merges(name, kind)):
            order = patch.get(f"$setElementOrder/{name}", patch.get(name))
            before = target.get(name) if isinstance(target, dict) else None
            result[name] = _ordered(result[name], before or [], order, _merge_key(name, kind))
    return result


def _strategic_value(name: str, old: Any, value: Any, kind: str) -> Any:
    if isinstance(value, dict):
        return strategic(old, value, kind)
    if isinstance(value, list):
        return _strategic_list(name, old, value, kind)
    return value


def _directive(result: Object, key: str, value: Any) -> None:
    name = key.partition("/")[2]
    if key.startswith("$deleteFromPrimitiveList/"):
        kept = [element for element in result.get(name) or [] if element not in value]
        result[name] = kept


def _merge_key(name: str, kind: str) -> str | None:
    if name == "ports":
        return "port" if kind == "Service" else "containerPort"
    return MERGE_KEYS.get(name)


def _strategic_list(name: str, old: Any, patch: list[Any], kind: str) -> list[Any]:
    present: list[Any] = list(old) if isinstance(old, list) else []
    if name in PRIMITIVE_SETS:
        return present + [element for element in patch if element not in present]
    merge_key = _merge_key(name, kind)
    replace = [element for element in patch if isinstance(element, dict) and element.get("$patch") == "replace"]
    if replace or merge_key is None:
        return [element for element in patch if element not in replace]
    for element in patch:
        if not isinstance(element, dict) or (merge_key not in element and old):
            shown = (
                " ".join(f"{key}:{value}" for key, value in element.items()) if isinstance(element, dict) else element
            )
            raise MergeKeyError(f"map: map[{shown}] does not contain declared merge key: {merge_key}")
        position = next((at for at, item in enumerate(present) if item.get(merge_key) == element.get(merge_key)), None)
        if element.get("$patch") == "delete":
            present = [item for item in present if item.get(merge_key) != element.get(merge_key)]
        elif position is None:
            present.append(strategic({}, element, kind))
        else:
            present[position] = strategic(present[position], element, kind)
    return present


def _merges(name: str, kind: str) -> bool:
    return name in PRIMITIVE_SETS or _merge_key(name, kind) is not None


def _ordered(merged: list[Any], before: list[Any], order: Any, merge_key: str | None) -> list[Any]:
    """The patch's elements in its order, woven into the others: one of the others goes first only where both were
    there before and it came first (mergeSortedSlice of apimachinery's strategicpatch).
    """

    def name(element: Any) -> Any:
        return element.get(merge_key) if merge_key and isinstance(element, dict) else element

    if not isinstance(order, list):
        raise PatchError("$setElementOrder is a list")
    places = {name(element): at for at, element in reversed(list(enumerate(before)))}
    desired = [name(element) for element in order]
    patched = sorted((item for item in merged if name(item) in desired), key=lambda item: desired.index(name(item)))
    others = [item for item in merged if name(item) not in desired]
    result: list[Any] = []
    while patched and others:
        first, second = places.get(name(others[0])), places.get(name(patched[0]))
        stood_before = first is not None and second is not None and first < second
        result.append((others if stood_before else patched).pop(0))
    return result + others + patched
