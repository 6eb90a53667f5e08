"""The parts that tests/vm/removed_parts.py takes out of the agent are there: a stale one would test nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.harness.cuts import ROUNDS

AGENT = Path(__file__).parents[2] / "agent"
EDITS = sorted({edit for cuts in ROUNDS.values() for cut in cuts for edit in cut.edits})


@pytest.mark.parametrize(("file", "old", "new"), EDITS)
def test_each_edit_replaces_a_text_that_is_there_once(file: str, old: str, new: str) -> None:
    assert (AGENT / file).read_text().count(old) == 1
    assert new != old
