"""docs/plugin.md: its captures are what the plugin prints, every command is in it, and every phase was looked at."""

from __future__ import annotations

import difflib

import pytest

from agent.plugin.commands import COMMANDS
from tests.support.agents import ROOT
from tests.support.plugin_captures import markers, normal, renewed
from tests.support.plugin_fleet import SCENES

FILE = ROOT / "docs/plugin.md"
PLUGIN = FILE.read_text()


@pytest.mark.parametrize("name", ["plugin.md", "cluster-audit.md"])
def test_captures_are_what_comes_out(name: str) -> None:
    """Made again against staged fleets; tools/capture-plugin writes them."""
    text = (ROOT / "docs" / name).read_text()
    assert markers(text)
    then, now = normal(text).splitlines(), normal(renewed(text)).splitlines()
    assert list(difflib.unified_diff(then, now, name, "now", lineterm="")) == []


def test_every_command_is_captured() -> None:
    """But for those whose answer is a file or a script, which are explained."""
    shown = {line.partition(" ")[0] for _, line in markers(PLUGIN)}
    assert {command.name for command in COMMANDS} - shown == {"report", "completion"}
    for name in ("report", "completion"):
        assert f"## {name}" in PLUGIN.lower()


def test_every_phase_is_captured() -> None:
    """Every staged fleet stands somewhere in the document."""
    assert {scene for scene, _ in markers(PLUGIN)} == set(SCENES)
