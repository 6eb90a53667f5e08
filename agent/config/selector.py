"""Kubernetes label selectors: `app=web,tier!=cache,env in (a,b),gpu,!spot`, and as objects of the API.

The one place that reads them. What cannot be read is a ValueError, never a selector that matches everything or nothing.
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

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

Kind = TypeVar("Kind", dict[Any, Any], list[Any])


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


_OBJECT_OPERATORS = {
    "In": Operator.IN, "NotIn": Operator.NOT_IN, "Exists": Operator.EXISTS, "DoesNotExist": Operator.ABSENT,
}  # fmt: skip


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


def from_object(found: object) -> Selector:
    """A metav1.LabelSelector: matchLabels, matchExpressions. Raises ValueError that names what is wrong.

    A missing one is the caller's matter: it means nothing in a PodDisruptionBudget, everything in a NetworkPolicy.
    https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/validation/validation.go
    """
    if not isinstance(found, Mapping) or found.keys() - {"matchLabels", "matchExpressions"}:
        raise ValueError(f"{shown(str(found))} is not a label selector")
    labels = [_equal(key, value) for key, value in _part(found, "matchLabels", dict).items()]
    return Selector((*labels, *map(_expression, _part(found, "matchExpressions", list))))


def _part(found: Mapping[str, object], key: str, kind: type[Kind]) -> Kind:
    value = found.get(key)
    if value is None:
        return kind()
    if isinstance(value, kind):
        return value
    raise ValueError(f"{shown(str(found))}: {key} is not a {'mapping' if key == 'matchLabels' else 'list'}")


def _equal(key: object, value: object) -> Requirement:
    part = f"{key}={value}"
    return Requirement(_key(part, key), Operator.IN, frozenset({_value(part, value)}))


def _expression(found: object) -> Requirement:
    part = str(found)
    if not isinstance(found, Mapping) or (operator := _OBJECT_OPERATORS.get(str(found.get("operator")))) is None:
        raise ValueError(f"{shown(part)} is not an expression of a label selector")
    values = frozenset(_value(part, value) for value in _part(found, "values", list))
    if (operator in (Operator.IN, Operator.NOT_IN)) != bool(values):
        raise ValueError(f"{shown(part)}: In and NotIn need values, Exists and DoesNotExist have none")
    return Requirement(_key(part, found.get("key")), operator, values)


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


def _key(part: str, name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(KEY, name):
        raise ValueError(f"{shown(part)}: {shown(str(name))} is not a label key")
    return name


def _value(part: str, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(VALUE, value):
        raise ValueError(f"{shown(part)}: {shown(str(value))} is not a label value")
    return value
