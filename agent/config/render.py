"""A Config as plain data, written as a user would: for the fingerprint, the schema's defaults and the docs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from agent.config.groups import REMOVED, Override, Rollout
from agent.config.schema import Config
from agent.config.schema_tree import Choice, Form, Leaf, Many, Nullable, Overlay, Section, Table, keys

_FINGERPRINT_LENGTH = 12


def spelled(form: Form, value: Any) -> Any:
    """A value of this form as YAML or JSON would hold it."""
    match form:
        case Overlay(make):
            header = {name: spelled(key.form, getattr(value, key.attribute)) for name, key in keys(make).items()}
            return header | _changed(value)
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
        case Leaf(kind):
            return kind.spell(value)


def _changed(override: Override) -> dict[str, Any]:
    """What an override sets, as the file would hold it."""
    found: dict[str, Any] = {}
    for change in override.changes:
        place: dict[str, Any] = found
        section: type[Any] = Config
        for number, name in enumerate(change.path):
            form = keys(section)[name].form
            if isinstance(form, Section):
                section, place = form.make, place.setdefault(name, {})
                continue
            if isinstance(form, Table) and number + 1 < len(change.path):
                entry = str(spelled(form.key, change.path[-1]))
                value = None if change.value is REMOVED else spelled(form.value, change.value)
                place.setdefault(name, {})[entry] = value
            else:
                place[name] = spelled(form, change.value)
            break
    return found


def fingerprint(config: Config) -> str:
    """A short stable hash of the effective configuration: equal for files that ask for the same."""
    return _hash(spelled(Section(Config), config))


def revision(config: Config) -> str:
    """A short hash of what a policy sets beside the defaults: equal on every node, and for agents of two versions.

    How it is rolled out is no part of it.
    """
    return _hash(_asked(replace(config, rollout=Rollout())))


def _hash(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def _asked(section: Any) -> dict[str, Any]:
    found = {}
    for name, key in keys(type(section)).items():
        value = getattr(section, key.attribute)
        if value != key.default:
            found[name] = _asked(value) if isinstance(key.form, Section) else spelled(key.form, value)
    return found
