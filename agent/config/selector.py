"""Kubernetes label selectors: `app=web,tier!=cache,env in (a,b),gpu,!spot`.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.config.units import shown

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
SUBDOMAIN = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
KEY = rf"^(?:(?=[^/]{{1,253}}/){SUBDOMAIN}/)?{_NAME}$"
VALUE = rf"^(?:{_NAME})?$"
# A comma inside parentheses belongs to a set; one outside parts requirements.
_PART = re.compile(r"(?:[^,()]|\([^()]*\))+")
_EQUALITY = re.compile(r"([^=!\s]+)\s*(==|!=|=)\s*(\S*)")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(r"(!?)\s*(\S+)")


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector. values is empty for EXISTS and ABSENT."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As the API server does it: notin and != also match objects without the key."""
        match self.operator:
            case Operator.IN:
                return self.key in labels and labels[self.key] in self.values
            case Operator.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements have to match; the empty selector matches everything. `text` is as written."""

    requirements: tuple[Requirement, ...] = ()
    text: str = ""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Selector:
    """Reads a selector. Raises ValueError that names the part that is wrong."""
    if not text.strip():
        return Selector()
    parts = _PART.findall(text)
    if ",".join(parts) != text:
        raise ValueError(f"{shown(text)}: parentheses or commas out of place")
    return Selector(tuple(_requirement(part.strip()) for part in parts), text)


def _requirement(part: str) -> Requirement:
    if found := _SET.fullmatch(part):
        name, word, inside = found.groups()
        values = frozenset(_value(part, value.strip()) for value in inside.split(","))
        return Requirement(_key(part, name), Operator(word), values)
    if found := _EQUALITY.fullmatch(part):
        name, sign, value = found.groups()
        operator = Operator.NOT_IN if sign == "!=" else Operator.IN
        return Requirement(_key(part, name), operator, frozenset({_value(part, value)}))
    if found := _EXISTS.fullmatch(part):
        absent, name = found.groups()
        return Requirement(_key(part, name), Operator.ABSENT if absent else Operator.EXISTS)
    raise ValueError(f"{shown(part)} is not key=value, key!=value, key in (a,b), key notin (a,b), key or !key")


def _key(part: str, name: str) -> str:
    if not re.fullmatch(KEY, name):
        raise ValueError(f"{shown(part)}: {shown(name)} is not a label key")
    return name


def _value(part: str, value: str) -> str:
    if not re.fullmatch(VALUE, value):
        raise ValueError(f"{shown(part)}: {shown(value)} is not a label value")
    return value
