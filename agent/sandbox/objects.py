"""Looking into objects: the value at a path, a condition by its type. None of it changes what it is given."""

from __future__ import annotations

from typing import Any

from agent.sandbox.status_errors import Object


def at(obj: Object, path: str, missing: Any = None) -> Any:
    """What is at a dotted path; ``missing`` where there is nothing, null or an empty value."""
    found: Any = obj
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found or missing


def condition_of(obj: Object, kind: str) -> Object:
    """The condition of this type in the status; empty without one."""
    return next((item for item in at(obj, "status.conditions", []) if item.get("type") == kind), {})


def with_condition(obj: Object, condition: Object) -> Object:
    """The object with this condition, in place of the one of its type."""
    others = [item for item in at(obj, "status.conditions", []) if item.get("type") != condition["type"]]
    return {**obj, "status": {**at(obj, "status", {}), "conditions": [*others, condition]}}


def is_ready(obj: Object) -> bool:
    """Whether the Ready condition is True: of a node or a pod."""
    return condition_of(obj, "Ready").get("status") == "True"
