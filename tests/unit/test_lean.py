"""What `run` does not hold: modules that wait until somebody looks into them, methods that classes share."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lean import lazy_import, shared_methods

Defer = Callable[[Mapping[str, Sequence[str]]], None]

_MODULE = """
import nha_lean_log
nha_lean_log.loaded.append(__name__)
VALUE = 42
def double(number): return 2 * number
class Thing:
    def __init__(self, name): self.name = name
"""


@pytest.fixture
def defer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Defer]:
    """Puts modules off for this test: there are nha_lean_a, nha_lean_b, and in the package nha_lean_p one `inside`."""
    (tmp_path / "nha_lean_log.py").write_text("loaded = []\n")
    (tmp_path / "nha_lean_p").mkdir()
    for name in ("nha_lean_a.py", "nha_lean_b.py", "nha_lean_p/__init__.py", "nha_lean_p/inside.py"):
        (tmp_path / name).write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield lazy_import.defer
    for name in [name for name in sys.modules if name.startswith("nha_lean_")]:
        del sys.modules[name]


def loaded() -> list[str]:
    """The modules whose code has run, in order."""
    return list(importlib.import_module("nha_lean_log").loaded)


def module(name: str) -> ModuleType:
    """`import name`."""
    return importlib.import_module(name)


def is_waiting(name: str) -> bool:
    """Whether it was imported and has not loaded yet."""
    return getattr(vars(module(name)).get("__getattr__"), "__module__", "") == lazy_import.__name__


def test_a_module_is_loaded_when_it_is_used(defer: Defer) -> None:
    """Importing it twice runs nothing of it; the first attribute does, once, and for everybody who holds it."""
    defer({"nha_lean_a": ()})
    first, second = module("nha_lean_a"), module("nha_lean_a")
    assert (first is second, loaded(), is_waiting("nha_lean_a")) == (True, [], True)
    assert (first.VALUE, second.double(4), loaded()) == (42, 8, ["nha_lean_a"])
    assert not is_waiting("nha_lean_a")
    assert "__getattr__" not in vars(first)


def test_a_missing_name_is_an_attribute_error(defer: Defer) -> None:
    """As with any module: hasattr answers, and names the module."""
    defer({"nha_lean_a": ()})
    assert not hasattr(module("nha_lean_a"), "nothing")
    with pytest.raises(AttributeError, match=r"nha_lean_a.*nothing"):
        _ = module("nha_lean_a").nothing


def test_a_name_that_is_imported_and_not_called_loads_nothing(defer: Defer) -> None:
    """`from module import name` gets a stand-in; calling it loads the module and does what the name does."""
    defer({"nha_lean_a": ("double", "Thing")})
    scope: dict[str, object] = {}
    exec("from nha_lean_a import double, Thing", scope)
    assert loaded() == []
    double, thing = scope["double"], scope["Thing"]
    assert callable(double)
    assert callable(thing)
    assert (double(21), thing(name="x").name, loaded()) == (42, "x", ["nha_lean_a"])
    assert module("nha_lean_a").double is not double


def test_a_placeholder_for_a_missing_name_raises(defer: Defer) -> None:
    """A library's next version may lack it: an AttributeError, no endless loop."""
    defer({"nha_lean_a": ("gone",)})
    gone = module("nha_lean_a").gone
    with pytest.raises(AttributeError, match="gone"):
        gone()


def test_a_module_inside_a_package_waits_alone(defer: Defer) -> None:
    """The package is loaded as always, the module in it is not."""
    defer({"nha_lean_p.inside": ()})
    inside = module("nha_lean_p.inside")
    assert (loaded(), inside.VALUE, loaded()[1:]) == (["nha_lean_p"], 42, ["nha_lean_p.inside"])


def test_threads_that_use_it_together_see_it_whole(defer: Defer, tmp_path: Path) -> None:
    """The first one loads it, the others wait for the end of that."""
    (tmp_path / "nha_lean_b.py").write_text(f"import time\n{_MODULE}\ntime.sleep(0.2)\nLAST = 'whole'\n")
    defer({"nha_lean_b": ()})
    slow, seen = module("nha_lean_b"), list[str]()
    threads = [threading.Thread(target=lambda: seen.append(slow.LAST)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, loaded()) == (["whole"] * 4, ["nha_lean_b"])


def test_what_is_unloaded_can_be_imported_again(defer: Defer) -> None:
    """Neither sys.modules nor the package keeps it."""
    defer({})
    before = module("nha_lean_p.inside")
    lazy_import.unload("nha_lean_p.inside", "nha_lean_never_imported")
    assert not hasattr(module("nha_lean_p"), "inside")
    assert module("nha_lean_p.inside") is not before


# -- classes ----------------------------------------------------------------------------------------------------------


def make(*, shared: bool) -> type:
    """The same class, with methods of its own or common ones."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Sample:
        number: int
        text: str = dataclasses.field(default="", repr=False)
        aside: object = dataclasses.field(default=None, compare=False)
        unhashed: int = dataclasses.field(default=0, hash=False)

        def method(self) -> int:
            return self.number

    if shared:
        shared_methods.share(Sample)
    return Sample


VALUES = st.tuples(st.integers(0, 3), st.sampled_from(["", "a"]), st.sampled_from([None, 1]), st.integers(0, 1))


@given(VALUES, VALUES)
def test_shared_methods_answer_what_generated_ones_do(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    """Equality, hash and repr, with fields that are left out of each."""
    own, shared = make(shared=False), make(shared=True)
    assert (shared(*one) == shared(*other)) is (own(*one) == own(*other))
    assert hash(shared(*one)) == hash(own(*one))
    assert repr(shared(*one)) == repr(own(*one))
    assert shared(*one) != own(*one)


def test_a_shared_class_is_frozen_as_before() -> None:
    """The same error with the same words, for fields that are there."""
    told = []
    for shared in (False, True):
        value = make(shared=shared)(1)
        with pytest.raises(dataclasses.FrozenInstanceError) as set_error:
            value.number = 2
        with pytest.raises(dataclasses.FrozenInstanceError) as delete_error:
            del value.number
        told.append((str(set_error.value), str(delete_error.value), value.number, value.method()))
    assert told[0] == told[1]


def test_a_value_that_holds_itself_can_be_shown() -> None:
    """The generated repr ends such a ring with dots; so does the common one."""
    ring: list[object] = []
    value = make(shared=True)(ring)
    ring.append(value)
    own: list[object] = []
    own.append(make(shared=False)(own))
    assert repr(value) == repr(own[0])


def test_what_a_class_defines_itself_stays() -> None:
    """Only generated methods are replaced."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Loud:
        number: int

        def __repr__(self) -> str:
            return "loud"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, int) and other == self.number

        def __hash__(self) -> int:
            return 7

    shared_methods.share(Loud)
    assert (repr(Loud(1)), Loud(1) == 1, hash(Loud(1))) == ("loud", True, 7)


def test_a_changeable_class_stays_changeable_and_unhashable() -> None:
    """Without frozen there is nothing to refuse, and no hash."""

    @dataclasses.dataclass(slots=True)
    class Open:
        number: int

    shared_methods.share(Open)
    value = Open(1)
    value.number = 2
    assert value == Open(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)


def test_replace_and_fields_work_on_shared_classes() -> None:
    """The dataclasses module knows them as before."""
    value = make(shared=True)(1, "a")
    assert dataclasses.replace(value, number=2) == type(value)(2, "a")
    assert [field.name for field in dataclasses.fields(value)] == ["number", "text", "aside", "unhashed"]


def test_the_class_that_slots_replaced_is_given_up() -> None:
    """dataclass(slots=True) makes a second class; after sharing nothing holds the first."""

    class Plain:
        __annotations__ = {"number": int}

    first = weakref.ref(Plain)
    second = dataclasses.dataclass(frozen=True, slots=True)(Plain)
    del Plain
    shared_methods.share(second)
    gc.collect()
    assert first() is None
    assert second(3).number == 3  # type: ignore[attr-defined,call-arg]


def test_loading_shares_the_methods_of_every_module(defer: Defer, tmp_path: Path) -> None:
    """All that the package has loaded by then has them, whoever imported it; classes of others are left alone."""
    text = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Value:\n    number: int\n"
    (tmp_path / "nha_lean_p" / "inside.py").write_text(text)
    (tmp_path / "nha_lean_p" / "room.py").write_text("import nha_lean_a\nfrom nha_lean_p.inside import Value\n")
    (tmp_path / "nha_lean_a.py").write_text(text)
    defer({})
    shared_methods.load("nha_lean_p.room")
    ours, theirs = module("nha_lean_p.room").Value, module("nha_lean_a").Value
    assert [vars(cls)["__eq__"].__module__ == "agent.lean.shared_methods" for cls in (ours, theirs)] == [True, False]
    assert ours(1) == ours(1)
