"""The dataclasses of the schema as a tree of forms, for the loader, the JSON Schema and the reference.

It reads type hints and nothing else: no YAML, files or messages.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from agent.config.groups import Override
from agent.config.scalar_types import Kind
from agent.config.schema import Config


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar, or an argv."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of an enum."""

    enum: type[StrEnum]

    @property
    def words(self) -> tuple[str, ...]:
        """What may be written."""
        return tuple(member.value for member in self.enum)


@dataclass(frozen=True, slots=True)
class Nullable:
    """The inner form, or null."""

    inner: Form


@dataclass(frozen=True, slots=True)
class Many:
    """A list, held as a tuple."""

    item: Form


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping whose keys the user chooses."""

    key: Leaf
    value: Form


@dataclass(frozen=True, slots=True)
class Section:
    """A dataclass of the schema."""

    make: type[Any]


@dataclass(frozen=True, slots=True)
class Overlay(Section):
    """A section whose file also holds keys of the whole policy, where they may differ: an override."""


Form = Leaf | Choice | Nullable | Many | Table | Section


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. name: in the file. attribute: of the dataclass. least, most: bounds."""

    name: str
    attribute: str
    form: Form
    default: Any
    about: str
    least: float | None
    most: float | None

    @property
    def may_be_null(self) -> bool:
        """Whether `key:` with nothing behind it is read: as null, or as the default where that cannot be misread."""
        match self.form:
            case Nullable() | Section():
                return True
            case Many() | Table():
                return not self.default
            case _:
                return False


def keys(section: type[Any]) -> Mapping[str, Key]:
    """The keys of a section by their name in the file, in the schema's order."""
    return _keys(section)  # type: ignore[arg-type]  # a class is hashable, though mypy doubts it of type[Any]


@functools.cache  # reading type hints costs, and a file may hold a thousand sections of one kind
def _keys(section: type[Any]) -> Mapping[str, Key]:
    hints = get_type_hints(section, include_extras=True)
    found = (_key(field, hints[field.name]) for field in dataclasses.fields(section) if field.metadata)
    return types.MappingProxyType({key.name: key for key in found})


def paths(section: type[Any] = Config, above: str = "") -> Iterator[tuple[str, Key]]:
    """Every key below a section with its dotted path; items of a list are `windows[].start`."""
    for key in keys(section).values():
        path = f"{above}{key.name}"
        yield path, key
        match key.form:
            case Section(make):
                yield from paths(make, f"{path}.")
            case Many(Section(make)):
                yield from paths(make, f"{path}[].")


def camel(attribute: str) -> str:
    """`on_timeout` as in the file: `onTimeout`."""
    first, *rest = attribute.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _key(field: dataclasses.Field[Any], hint: Any) -> Key:
    make = field.default_factory
    default = field.default if make is dataclasses.MISSING else make()
    return Key(camel(field.name), field.name, _form(hint), default, **field.metadata)


def _form(hint: Any) -> Form:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Leaf(next(extra for extra in arguments[1:] if isinstance(extra, Kind)))
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return Nullable(_form(inner))
    if origin is tuple:
        return Many(_form(arguments[0]))
    if origin is Mapping:
        key = _form(arguments[0])
        assert isinstance(key, Leaf), hint  # noqa: S101 - a mistake in the schema, not in a file
        return Table(key, _form(arguments[1]))
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)  # noqa: S101 - the same
        return Overlay(hint) if hint is Override else Section(hint)
    if issubclass(hint, StrEnum):
        return Choice(hint)
    return Leaf({bool: Kind.FLAG, str: Kind.TEXT}[hint])
