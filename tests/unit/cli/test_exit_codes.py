"""The exit code of a defect: neither 0 nor 1, which a script reads as a result."""

from __future__ import annotations

import pytest

from agent.cli import common
from agent.plugin import main as plugin


def _defect() -> int:
    raise TypeError("nobody foresaw this")


def test_a_defect_of_the_agents_commands_is_not_noncompliance(capsys: pytest.CaptureFixture[str]) -> None:
    """1 says that something does not comply; a defect says nothing about the node."""
    assert common.answer(_defect) == common.COULD_NOT
    assert "TypeError: nobody foresaw this" in capsys.readouterr().err


def test_a_defect_of_the_plugin_does_not_ask_for_attention(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor with the plugin, where 1 says that something needs attention."""
    monkeypatch.setattr(plugin, "run", lambda *_: _defect())
    assert plugin.main(["status"]) == 3
    assert "TypeError: nobody foresaw this" in capsys.readouterr().err
