"""A Config as plain data, spelled as people write it: what the fingerprint, the schema's defaults and the docs show."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from agent.config.scalar_types import MEANINGS
from agent.config.scalars import Kind
from agent.config.schema import Config
from agent.config.schema_tree import Choice, Form, Leaf, Many, Nullable, Section, Table, keys

_FINGERPRINT_LENGTH = 12


def document(config: Config) -> dict[str, Any]:
    """Every key with its value, defaults too."""
    shown = spelled(Section(Config), config)
    assert isinstance(shown, dict)  # noqa: S101 - a section is spelled as a mapping
    return shown


def differences(config: Any) -> dict[str, Any]:
    """What a section has beyond its defaults; of a Config, the shortest file that loads to an equal one."""
    shown: dict[str, Any] = {}
    for name, key in keys(type(config)).items():
        value = getattr(config, key.attribute)
        if value != key.default:
            shown[name] = differences(value) if isinstance(key.form, Section) else _shortest(key.form, value)
    return shown


def _shortest(form: Form, value: Any) -> Any:
    if isinstance(form, Many) and isinstance(form.item, Section):
        return [differences(one) for one in value]
    return spelled(form, value)


def spelled(form: Form, value: Any) -> Any:
    """A value of this form as YAML or JSON would hold it."""
    match form:
        case Section(make):
            return {name: spelled(key.form, getattr(value, key.attribute)) for name, key in keys(make).items()}
        case Nullable(inner):
            return None if value is None else spelled(inner, value)
        case Many(item):
            return [spelled(item, one) for one in value]
        case Table(key, item):
            return {str(spelled(key, name)): spelled(item, value[name]) for name in sorted(value)}
        case Choice():
            return value.value
        case Leaf(Kind.ARGV):
            return list(value)
        case Leaf(kind):
            return MEANINGS[kind].spell(value)


def fingerprint(config: Config) -> str:
    """A short stable hash of the effective configuration: equal for files that ask for the same."""
    text = json.dumps(document(config), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_LENGTH]
