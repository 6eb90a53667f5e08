"""Prints the JSON Schema of the configuration (`python -m tools.config_schema`), for editors and the chart's values.

It describes form. What needs more than one key, time zone data or a compiler is left to the agent's loader; the schema
never refuses what the loader accepts.
https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from agent.config import scalar_types, selector, units
from agent.config.overrides import CLUSTER_WIDE
from agent.config.render import spelled
from agent.config.scalar_types import Kind
from agent.config.schema import API_VERSION, KIND, Config
from agent.config.schema_tree import Choice, Form, Key, Leaf, Many, Nullable, Overlay, Section, Table, keys

_TEXT: Mapping[str, Any] = {"type": "string"}


def _text(pattern: str, *words: str) -> Mapping[str, Any]:
    described = {**_TEXT, "pattern": pattern}
    return {"anyOf": [{"enum": list(words)}, described]} if words else described


def _number(least: int, **more: Any) -> Mapping[str, Any]:
    return {"type": "integer", "minimum": least, **more}


SCALARS: Mapping[Kind, Mapping[str, Any]] = {
    Kind.FLAG: {"type": "boolean"},
    Kind.TEXT: _TEXT,
    Kind.WORDS: _text(r"\S"),
    Kind.DURATION: {"anyOf": [_text(units.DURATION), {"const": 0}]},
    Kind.SIZE: {"anyOf": [_text(units.SIZE), {"const": 0}]},
    Kind.REGEXP: {**_TEXT, "format": "regex", "maxLength": scalar_types.LONGEST_REGEXP},
    Kind.SELECTOR: _TEXT,
    Kind.PATH: _text("^/"),
    Kind.PATH_OR_NONE: _text("^/", ""),
    Kind.PATH_OR_AUTO: _text("^/", "auto"),
    Kind.MODULE: _text(scalar_types.MODULE),
    Kind.NAME: _text(scalar_types.NAME),
    Kind.OBJECT_OR_NONE: _text(scalar_types.OBJECT, ""),
    Kind.ADDRESS: _text(r"^.+:[0-9]{1,5}$", ""),
    Kind.URL: _text(r"^https?://[^/?#@]", ""),
    Kind.TIME: _text(units.TIME),
    Kind.DATE: _text(scalar_types.DATE_WITH_YEAR),
    Kind.DATE_OR_NONE: _text(scalar_types.DATE, ""),
    Kind.TIMEZONE: _text(r"^[A-Za-z]"),
    Kind.LABEL: _text(selector.KEY),
    Kind.LABEL_OR_NONE: _text(selector.KEY, ""),
    Kind.LABEL_VALUE: _text(selector.VALUE),
    Kind.COUNT: _number(1),
    Kind.NATURAL: _number(0),
    Kind.COUNT_OR_PERCENT: {"anyOf": [_number(1), _text(r"^[1-9][0-9]{0,8}$"), _text(units.PERCENT)]},
    Kind.EXIT_CODE: _number(0, maximum=255, **{"not": {"enum": [126, 127]}}),
    Kind.TEMPLATE: _TEXT,
    Kind.ARGUMENT: _TEXT,
    Kind.ARGV: {"type": "array", "prefixItems": [_text("^/")], "items": _TEXT},
}


def schema() -> dict[str, Any]:
    """The whole schema as JSON data."""
    body = _section(Config)
    header = {
        "apiVersion": {"const": API_VERSION, "description": "the form of this file"},
        "kind": {"const": KIND, "description": "what this file is"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{KIND} {API_VERSION}",
        **body,
        "type": ["object", "null"],
        "properties": {**header, **body["properties"]},
    }


def about(key: Key) -> str:
    """What a key is for, with its bounds, in one line."""
    form = key.form.inner if isinstance(key.form, Nullable) else key.form
    bounds: list[str] = []
    if isinstance(form, Leaf):
        spell = form.kind.spell
        bounds += [f"at least {spell(key.least)}"] if key.least is not None else []
        bounds += [f"at most {spell(key.most)}"] if key.most is not None else []
    return f"{key.about} ({', '.join(bounds)})" if bounds else key.about


def _section(make: type[Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": _first_line(make),
        "properties": {name: _key(key) for name, key in keys(make).items()},
        "additionalProperties": False,
    }


def _key(key: Key) -> dict[str, Any]:
    described = {**_form(key.form), "description": about(key)}
    if described.get("type") == "integer":
        described |= {"minimum": int(key.least)} if key.least is not None else {}
        described |= {"maximum": int(key.most)} if key.most is not None else {}
    if key.may_be_null and "null" not in described.get("type", ()):
        described = _or_null(described)
    return described if isinstance(key.form, Section) else {**described, "default": spelled(key.form, key.default)}


def _form(form: Form) -> dict[str, Any]:
    match form:
        case Overlay(make):
            own = _section(make)
            rest = {name: _key(key) for name, key in keys(Config).items() if name not in CLUSTER_WIDE}
            return {**own, "properties": {**own["properties"], **_changeable(rest, "")}}
        case Section(make):
            return _section(make)
        case Nullable(inner):
            return _or_null(_form(inner))
        case Many(item):
            return {"type": "array", "items": _form(item)}
        case Table(key, value):
            return {"type": "object", **_names(SCALARS[key.kind]), "additionalProperties": _form(value)}
        case Choice():
            # YAML 1.1 makes false of a bare `off`; the loader reads both.
            return {"enum": [*form.words, *([False] if "off" in form.words else [])]}
        case Leaf(kind):
            return dict(SCALARS[kind])


def _changeable(described: Mapping[str, dict[str, Any]], above: str) -> dict[str, Any]:
    """The keys that an override may set, without defaults; null removes an entry of a mapping."""
    found = {}
    for name, one in described.items():
        if (path := f"{above}{name}") in CLUSTER_WIDE:
            continue
        changed = {key: value for key, value in one.items() if key != "default"}
        if "properties" in one:
            changed["properties"] = _changeable(one["properties"], f"{path}.")
        elif isinstance(one.get("additionalProperties"), dict):
            changed["additionalProperties"] = _or_null(one["additionalProperties"])
        found[name] = changed
    return found


def _names(of_key: Mapping[str, Any]) -> dict[str, Any]:
    """Names in JSON are text, also those that are numbers in YAML."""
    if of_key["type"] == "integer":
        return {"propertyNames": {"pattern": r"^(?!12[67]$)(?:[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$"}}
    return {"propertyNames": {"pattern": of_key["pattern"]}}


def _or_null(described: dict[str, Any]) -> dict[str, Any]:
    match described:
        case {"type": str(kind)}:
            return {**described, "type": [kind, "null"]}
        case {"anyOf": list(choices)}:
            return {**described, "anyOf": [*choices, {"type": "null"}]}
        case _:
            return {"anyOf": [described, {"type": "null"}]}


def _first_line(make: type[Any]) -> str:
    return re.split(r"\n\s*\n", make.__doc__ or "", maxsplit=1)[0].strip()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
