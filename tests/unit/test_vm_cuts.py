"""What tests/vm/removed_parts.py takes out is still where its list says, and so are the tests that notice."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.vm.harness.cuts import ROUNDS, Cut

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("cut", [cut for cuts in ROUNDS.values() for cut in cuts], ids=lambda cut: cut.what)
def test_every_edit_finds_its_place_once(cut: Cut) -> None:
    """A refactoring takes the list with it."""
    found = {(file, old): (ROOT / "agent" / file).read_text().count(old) for file, old, _ in cut.edits}
    assert set(found.values()) == {1}, found


def test_every_test_has_a_part_without_which_it_was_seen_to_fail() -> None:
    """And every name of the list is a test. Parametrized ones by their name alone."""
    there = {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests/vm").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {test.partition("[")[0] for cuts in ROUNDS.values() for cut in cuts for test in cut.tests} == there
