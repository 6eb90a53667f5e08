"""JSON merge patch (RFC 7386) and strategic merge patch, as the API server applies them. JSON patch is a 415 here.

Pure functions over JSON values: none changes its arguments. The strategic merge knows the merge keys of the kinds
that the emulator serves and refuses nothing that the real one takes, but it has no OpenAPI schema: a list that
is not in the table is replaced whole, which is what the real server does with node ``spec.taints``.
"""

from __future__ import annotations

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


def strategic(target: Any, patch: Any, kind: str) -> Any:
    """Strategic merge of ``patch`` into ``target``; ``kind`` tells a Service's ports from a container's.

    Directives: ``$patch: replace|delete|merge``, ``$deleteFromPrimitiveList/x``, ``$setElementOrder/x`` and
    ``$retainKeys``.

    Raises PatchError: the patch or a directive has the wrong shape, or an element lacks its merge key.
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
