"""Shared methods for the agent's frozen dataclasses, in place of five that are generated for each of them.

Functions lose their annotations too.

A class keeps its fields, its `__init__` and its own methods; equality, hash, repr and immutability do not change:
https://docs.python.org/3.11/library/dataclasses.html. Classes of libraries stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, NoReturn


def load(*names: str) -> None:
    """Imports the agent's modules one by one and shares in between: the next one uses the memory that is freed."""
    for name in names:
        importlib.import_module(name)
        for cls in _dataclasses(f"{name.partition('.')[0]}."):
            share(cls)
        forget_annotations()
        gc.collect()


def forget_annotations() -> None:
    """Frees the annotations of all functions that are loaded: the daemon reads those of classes only."""
    for function in gc.get_objects():
        if type(function) is FunctionType:
            function.__annotations__ = None  # type: ignore[assignment]


def share(cls: type) -> None:
    """Gives a dataclass the shared methods in place of its generated ones."""
    methods = vars(cls)
    for name, common in _COMMON.items():
        if _is_generated(methods.get(name)):
            setattr(cls, name, common)
    # dataclass(slots=True) makes the class a second time, and until Python 3.14 this keeps the first one in memory:
    # https://github.com/python/cpython/issues/135228.
    leftover = methods.get("__weakref__")
    if leftover is not None and leftover.__objclass__ is not cls:
        delattr(cls, "__weakref__")


def _dataclasses(prefix: str) -> Iterator[type]:
    """Those that loaded modules define, by the prefix of the module's name."""
    for name, module in list(sys.modules.items()):
        if name.startswith(prefix):
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name and "__dataclass_fields__" in vars(value):
                    yield value


def _is_generated(method: object) -> bool:
    """Whether dataclasses generated it; a method of the class itself comes from a file."""
    code = getattr(getattr(method, "__wrapped__", method), "__code__", None)
    return code is not None and code.co_filename == "<string>"


@functools.cache
def _compared(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if field.compare)


@functools.cache
def _hashed(cls: type) -> tuple[str, ...]:
    return tuple(
        field.name for field in dataclasses.fields(cls) if (field.compare if field.hash is None else field.hash)
    )


def _values(subject: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple([getattr(subject, name) for name in names])


def _equal(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    names = _compared(self.__class__)
    return _values(self, names) == _values(other, names)


def _hash(self: Any) -> int:
    return hash(_values(self, _hashed(self.__class__)))


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _refuse_to_set(_self: Any, name: str, _value: Any) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: Any, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_COMMON: Mapping[str, Any] = {
    "__eq__": _equal,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse_to_set,
    "__delattr__": _refuse_to_delete,
}
