"""Tables that fit, ages that are read at a glance, words that come next on the command line."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.plugin.cluster import values
from agent.plugin.commands import COMMANDS
from agent.plugin.complete import candidates
from agent.plugin.main import parser
from agent.plugin.session import Form, Session
from agent.plugin.views import table
from agent.plugin.views.progress import Progress
from agent.plugin.views.table import Cell, Column
from agent.terminal import Style


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (600, "10m"), (7199, "119m"), (7200, "2h"),
        (7500, "2h5m"), (86400, "1d"), (100000, "1d3h"), (8 * 86400, "8d"), (1e7, "115d"),
    ],
)  # fmt: skip
def test_ages(seconds: float, shown: str) -> None:
    """Two units at most, as kubectl has them."""
    assert table.age(seconds) == shown


def test_no_moment_is_a_dash() -> None:
    """0 stands for never."""
    assert (table.since(0.0, 1e9), table.stamp(0.0), table.rfc3339(0.0)) == ("-", "-", None)
    assert table.rfc3339(1_794_348_800.0) == "2026-11-10T22:13:20Z"


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=8), st.integers(30, 200))
def test_a_table_fits_the_terminal(rows: list[tuple[str, str]], width: int) -> None:
    """Whatever stands in the cells: elastic columns give way, and no cell breaks a line."""
    columns = [Column("NAME", elastic=True), Column("WHAT", elastic=True)]
    clean = [[values.text(one) for one in row] for row in rows]
    text = table.table(columns, clean, Style(width=width))
    assert text.count("\n") == len(rows) + 1
    assert all(len(line) <= width for line in text.split("\n"))
    assert all(line.isprintable() for line in text.split("\n"))


def test_colour_does_not_move_columns() -> None:
    """Escape sequences have no width."""
    rows: list[list[Cell | str]] = [[Cell("a", table.BAD), "b"], ["long", "c"]]
    plain = table.table([Column("X"), Column("Y")], rows, Style())
    coloured = table.table([Column("X"), Column("Y")], rows, Style(colour=True))
    assert "\x1b[31;1ma\x1b[0m   " in coloured
    assert plain.splitlines()[1] == "a     b"


def test_a_bar_is_shown_from_the_second_page_on_and_taken_away() -> None:
    """On a terminal only."""
    err = io.StringIO()
    with Progress(err, live=True) as progress:
        progress(3, 3)
        assert err.getvalue() == ""
        progress(500, 5000)
        assert "500 of 5,000 nodes" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[K")
    quiet = io.StringIO()
    with Progress(quiet, live=False) as progress:
        progress(500, 5000)
    assert quiet.getvalue() == ""


# -- the session -------------------------------------------------------------------------------------------------------


def _session(answer: str | None, *, yes: bool = False) -> Session:
    ask = None if answer is None else lambda _question: answer
    nothing = io.StringIO()
    return Session(
        lambda: pytest.fail("no cluster is needed"), "n", Form.TABLE, nothing, nothing, lambda: 0.0, ask=ask, yes=yes
    )


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)]
)
def test_only_yes_is_yes(answer: str, agreed: bool) -> None:
    """The end of input is a no."""
    assert _session(answer).confirm("Continue?") is agreed


def test_no_terminal_is_no_consent() -> None:
    """But for --yes."""
    with pytest.raises(UsageError, match="pass --yes"):
        _session(None).confirm("Continue?")
    assert _session(None, yes=True).confirm("Continue?")


# -- completion --------------------------------------------------------------------------------------------------------


def _offered(*words: str) -> list[str]:
    names = {"NODE": ["node-1", "node-2", "other"]}
    found = candidates(parser(COMMANDS), words, lambda what: names["NODE"] if "NODE" in what else [])
    return [line.partition("\t")[0] for line in found]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("st",), ["status"]),
        (("why", "node-"), ["node-1", "node-2"]),
        (("why", "node-1", ""), []),
        (("-n", "other", "wh"), ["why"]),
        (("status", "-o", "j"), ["json"]),
        (("status", "--wat"), ["--watch"]),
        (("-o", "json", "why", "oth"), ["other"]),
        (("completion", "z"), ["zsh"]),
        (("nonsense", ""), [command.name for command in COMMANDS]),
    ],
)
def test_what_may_come_next(words: tuple[str, ...], offered: list[str]) -> None:
    """Commands, options, their values, and names of the cluster."""
    assert _offered(*words) == offered


def test_nothing_typed_offers_every_command() -> None:
    """With what it does."""
    assert _offered("") == [command.name for command in COMMANDS]
    described = list(candidates(parser(COMMANDS), [""], lambda _what: []))
    assert all("\t" in line and line.partition("\t")[2] for line in described)


def test_every_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each names the exit codes, and fits."""
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            parser(COMMANDS).parse_args([command.name, "--help"])
        assert ended.value.code == 0
        assert "exit codes:" in capsys.readouterr().out
