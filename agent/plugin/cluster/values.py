"""Untrusted values of API objects, as rows keep them: printable, on one line, of bounded length, in range.

Anyone who can write a Node or a Lease writes these values, so this is the one place where they are sanitized; nothing
behind it has to. What is malformed or out of range is absent: an empty text, 0, no name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from agent.text import parse_rfc3339, sanitize

T = TypeVar("T", bound=StrEnum)
Other = TypeVar("Other")
TEXT_CHARACTERS = 400
_JSON_CHARACTERS = 256 * 1024  # all annotations of an object together, by the API server's own limit
_LATEST = 4102444800.0  # 2100-01-01: no clock that is worth showing is past it
_NUMBER = 1e9
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def text(value: object, characters: int = TEXT_CHARACTERS) -> str:
    """One printable line; empty for what is no string."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= characters and value.isprintable() else sanitize(value, characters)


def name(value: object) -> str:
    """The name of an object (a DNS subdomain); empty for anything else, so that it never reaches a command line."""
    return value if isinstance(value, str) and len(value) <= 253 and _NAME.fullmatch(value) else ""


def timestamp(value: object) -> float:
    """Epoch seconds of an RFC 3339 time, or a number of them; 0 for what is neither, or not between 1970 and 2100."""
    try:
        found = parse_rfc3339(value) if isinstance(value, str) else number(value, _LATEST)
    except ValueError:
        return 0.0
    return found if 0 < found < _LATEST else 0.0


def number(value: object, most: float = _NUMBER) -> float:
    """A number from 0 to `most`; 0 for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0.0
    return float(value) if 0 <= value <= most else 0.0


def part(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A mapping within mappings, by its path; empty where there is none."""
    for key in keys:
        found = value.get(key)
        value = found if isinstance(found, dict) else {}
    return value


def mapping(text: str) -> Mapping[str, Any]:
    """A JSON object; empty for text that is none."""
    try:
        found = json.loads(text) if 0 < len(text) <= _JSON_CHARACTERS else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The mappings of a list; empty for what is none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    """The texts of a list; empty for what is none."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def choice(kind: type[T], value: object, other: Other) -> T | Other:
    """The member of an enum with this value; else the other."""
    try:
        return kind(str(value))
    except ValueError:
        return other


def entries(value: object) -> list[dict[str, Any]] | None:
    """The mappings of a JSON list; None for text that is none."""
    if not isinstance(value, str) or len(value) > _JSON_CHARACTERS:
        return None
    try:
        found = json.loads(value) if value else []
    except (ValueError, RecursionError):
        return None
    return mappings(found) if isinstance(found, list) else None
