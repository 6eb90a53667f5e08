"""Label and field selectors, read as strictly as the API server reads them.

A selector that cannot be read is an error, never one that matches everything. Grammar: apimachinery
pkg/labels/selector.go and pkg/fields/selector.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.config import selector
from agent.config.selector import Selector
from agent.sandbox.catalog import Resource
from agent.sandbox.objects import at
from agent.sandbox.status_errors import Object, bad_request


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``path`` equal or, with ``negated``, not equal to ``value``."""

    path: str
    value: str
    negated: bool


def parse_fields(text: str, resource: Resource) -> tuple[FieldTerm, ...]:
    """``spec.nodeName=a,status.phase!=Failed``.

    Raises ApiError: 400 for a term that cannot be read or a field that this resource does not index.
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
    value = at(obj, path, "")
    if path in ("spec.unschedulable", "spec.hostNetwork"):
        return "true" if value else "false"
    return str(value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Both selectors of a request."""

    labels: Selector
    fields: tuple[FieldTerm, ...]

    @property
    def everything(self) -> bool:
        """Whether nothing can be left out."""
        return not self.labels and not self.fields

    @property
    def single_name(self) -> str:
        """The name that ``metadata.name=`` selects, or empty."""
        return next((term.value for term in self.fields if term.path == "metadata.name" and not term.negated), "")

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected."""
        for term in self.fields:
            if (field_value(obj, term.path) == term.value) == term.negated:
                return False
        return self.labels.matches(obj["metadata"].get("labels") or {})


def read_filter(label_text: str, field_text: str, resource: Resource) -> Filter:
    """Both selectors of a list or a watch. Raises ApiError: 400 with the reason."""
    try:
        labels = selector.parse(label_text)
    except ValueError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error
    return Filter(labels, parse_fields(field_text, resource) if field_text else ())
