"""Label and field selectors, read as strictly as the API server reads them.

A selector that cannot be read is an error, never one that matches everything. Grammar: apimachinery
pkg/labels/selector.go and pkg/fields/selector.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.sandbox.catalog import Resource
from agent.sandbox.objects import at
from agent.sandbox.status_errors import Object, bad_request

_TOKEN = re.compile(r"\s*(?:(?P<op>!=|==|=|!|,|\(|\)|<|>)|(?P<word>[^\s=!,()<>]+))")
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?)?")


class SelectorError(Exception):
    """The selector cannot be read; the message has the place."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; ``operator`` is in, notin, exists or absent."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """A missing label satisfies ``!=`` and ``notin``, as in the real one."""
        if self.operator == "exists":
            return self.key in labels
        if self.operator == "absent":
            return self.key not in labels
        if self.operator == "in":
            return labels.get(self.key) in self.values
        return labels.get(self.key) not in self.values


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements together; none at all matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        found = labels or {}
        return all(requirement.matches(found) for requirement in self.requirements)


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise SelectorError(f"unable to parse requirement: {text!r}")
            self._tokens.append(match.group("op") or match.group("word"))
            at = match.end()
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def expect(self, desired: str) -> None:
        found = self.next()
        if found != desired:
            raise SelectorError(f"unable to parse requirement: found {found!r} expected: {desired!r}")


def parse_labels(text: str) -> LabelSelector:
    """``a=b,c!=d,e in (f,g),h notin (i),j,!k``.

    Raises:
        SelectorError: a key, a value or the grammar is wrong.
    """
    tokens = _Tokens(text)
    requirements: list[Requirement] = []
    while tokens.peek():
        requirements.append(_requirement(tokens))
        if tokens.peek():
            tokens.expect(",")
            if not tokens.peek():
                raise SelectorError("unable to parse requirement: found '', expected: identifier after ','")
    return LabelSelector(tuple(requirements))


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek() == "!":
        tokens.next()
        return Requirement(_key(tokens.next()), "absent")
    key = _key(tokens.next())
    operator = tokens.peek()
    if operator in ("", ","):
        return Requirement(key, "exists")
    tokens.next()
    if operator in ("=", "=="):
        return Requirement(key, "in", frozenset({_single(tokens)}))
    if operator == "!=":
        return Requirement(key, "notin", frozenset({_single(tokens)}))
    if operator in ("in", "notin"):
        return Requirement(key, operator, _values(tokens))
    raise SelectorError(f"unable to parse requirement: found {operator!r}, expected: in, notin, =, ==, !=")


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise SelectorError(f"unable to parse requirement: <nil>: Invalid value: {text!r}: not a label key")
    return text


def _single(tokens: _Tokens) -> str:
    if tokens.peek() in ("", ","):
        return ""
    return _label_value(tokens.next())


def _values(tokens: _Tokens) -> frozenset[str]:
    tokens.expect("(")
    values: set[str] = set()
    while True:
        if tokens.peek() in (",", ")"):
            values.add("")
        else:
            values.add(_label_value(tokens.next()))
        token = tokens.next()
        if token == ")":
            return frozenset(values)
        if token != ",":
            raise SelectorError(f"unable to parse requirement: found {token!r}, expected: ',' or ')'")


def _label_value(text: str) -> str:
    if len(text) > 63 or not _VALUE.fullmatch(text):
        raise SelectorError(f"unable to parse requirement: Invalid value: {text!r}: not a label value")
    return text


def from_object(selector: Object | None) -> LabelSelector | None:
    """A metav1.LabelSelector (matchLabels, matchExpressions); None for a null one, which matches nothing.

    Raises:
        SelectorError: an operator is unknown or lacks its values.
    """
    if selector is None:
        return None
    requirements = [
        Requirement(key, "in", frozenset({value})) for key, value in (selector.get("matchLabels") or {}).items()
    ]
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    for expression in selector.get("matchExpressions") or []:
        operator = operators.get(str(expression.get("operator")))
        values = frozenset(expression.get("values") or [])
        if operator is None or (operator in ("in", "notin")) != bool(values):
            raise SelectorError(f"{expression.get('operator')!r} is not a valid label selector operator")
        requirements.append(Requirement(str(expression.get("key")), operator, values))
    return LabelSelector(tuple(requirements))


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``path`` equal or, with ``negated``, not equal to ``value``."""

    path: str
    value: str
    negated: bool


def parse_fields(text: str, resource: Resource) -> tuple[FieldTerm, ...]:
    """``spec.nodeName=a,status.phase!=Failed``.

    Raises:
        ApiError: 400 for a term that cannot be read or a field that this resource does not index.
    """
    known = {"metadata.name", *resource.fields}
    if resource.namespaced:
        known.add("metadata.namespace")
    terms: list[FieldTerm] = []
    for part in filter(None, _split_fields(text)):
        match = re.match(r"((?:[^=!\\]|\\.)*?)(!=|==|=)(.*)", part, re.DOTALL)
        if match is None:
            raise bad_request(f'unable to parse field selector: invalid selector: "{part}"; can\'t understand "{part}"')
        path, operator, value = match.groups()
        if path not in known:
            if resource.fields:
                raise bad_request(f"field label not supported: {path}")
            common = 'only "metadata.name", "metadata.namespace"'
            raise bad_request(f'"{path}" is not a known field selector: {common}')
        terms.append(FieldTerm(path, re.sub(r"\\([\\,=])", r"\1", value), operator == "!="))
    return tuple(terms)


def _split_fields(text: str) -> list[str]:
    return re.split(r"(?<!\\),", text)


def field_value(obj: Object, path: str) -> str:
    """The string that the server indexes at ``path``; a missing one is empty, ``spec.unschedulable`` a bool."""
    if path == "source":
        return str(at(obj, "source.component") or obj.get("reportingComponent") or "")
    value = at(obj, path, "")
    if path in ("spec.unschedulable", "spec.hostNetwork"):
        return "true" if value else "false"
    return str(value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Both selectors of a request."""

    labels: LabelSelector = LabelSelector()
    fields: tuple[FieldTerm, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing can be left out."""
        return not self.labels.requirements and not self.fields

    @property
    def single_name(self) -> str:
        """The name that ``metadata.name=`` selects, or empty."""
        return next((term.value for term in self.fields if term.path == "metadata.name" and not term.negated), "")

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected."""
        for term in self.fields:
            if (field_value(obj, term.path) == term.value) == term.negated:
                return False
        return self.labels.matches(obj["metadata"].get("labels"))


def read_filter(label_text: str, field_text: str, resource: Resource) -> Filter:
    """Both selectors of a list, a watch or a deletecollection.

    Raises:
        ApiError: 400 with the reason.
    """
    try:
        labels = parse_labels(label_text)
    except SelectorError as error:
        raise bad_request(str(error)) from error
    return Filter(labels, parse_fields(field_text, resource) if field_text else ())
