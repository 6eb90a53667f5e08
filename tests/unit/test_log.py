"""The agent's log: one line an event, JSON unless somebody's terminal reads it, never a level below the policy's."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from agent import log
from agent.config.choices import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The log is set up for the process: the next test finds it as this one did."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def written(level: LogLevel, form: LogFormat, stream: io.StringIO) -> list[str]:
    """What two events and an exception leave on the stream."""
    log.configure(level, form, "node-1", stream)
    logger = structlog.get_logger()
    logger.debug("looked", path="/x")
    logger.warning("non-compliant", control="modprobe")
    try:
        int("broken")
    except ValueError:
        logger.exception("failed")
    return stream.getvalue().splitlines()


def test_json_carries_node_level_and_time_on_one_line() -> None:
    """A traceback too: one line an event, so that no collector tears it apart."""
    lines = [json.loads(line) for line in written(LogLevel.INFO, LogFormat.AUTO, io.StringIO())]
    assert [(line["event"], line["level"], line["node"]) for line in lines] == [
        ("non-compliant", "warning", "node-1"),
        ("failed", "error", "node-1"),
    ]
    assert lines[0]["control"] == "modprobe"
    assert lines[0]["timestamp"].endswith("Z")
    assert "ValueError: invalid literal" in lines[1]["exception"]


@pytest.mark.parametrize(("level", "events"), [(LogLevel.DEBUG, 3), (LogLevel.WARNING, 2), (LogLevel.ERROR, 1)])
def test_the_level_decides_what_is_said(level: LogLevel, events: int) -> None:
    """Nothing below it."""
    assert len(written(level, LogFormat.JSON, io.StringIO())) == events


def test_a_terminal_gets_text_and_a_file_gets_it_when_asked() -> None:
    """`auto` looks at the stream; `text` and `json` do not."""
    assert not written(LogLevel.INFO, LogFormat.AUTO, Terminal())[0].startswith("{")
    assert "non-compliant" in written(LogLevel.INFO, LogFormat.TEXT, io.StringIO())[0]
    assert written(LogLevel.INFO, LogFormat.JSON, Terminal())[0].startswith("{")
