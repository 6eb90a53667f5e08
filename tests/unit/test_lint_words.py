"""tools/lint-words: where a retired word stands, what to write instead, and what it leaves alone."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "lint-words"
MAIN: Callable[[list[str]], int] = runpy.run_path(str(TOOL))["main"]
WORDS = """\
# a comment
doors? -> client
  except next door
at once -> immediately
= class _?Told -> a noun of the field
"""


Lint = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def lint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lint:
    """Checks a file with this text: the exit code, and what is printed."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text(WORDS)

    def run(text: str, *options: str, name: str = "page.md") -> tuple[int, list[str]]:
        Path(name).write_text(text)
        code = MAIN(["--words", "words.txt", *options, name])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_a_retired_word_is_named_with_its_line_and_replacement(lint: Lint) -> None:
    assert lint("A client.\nA Door.\nDoors.\n") == (
        1,
        ["page.md:2: Door -> client", "page.md:3: Doors -> client"],
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("back_door = open_doors()", ["door", "doors"]),
        ("class BackDoor:", ["Door"]),
        ("it happens at\n# once", ["at # once"]),
        ("may_go_at_once()", ["at_once"]),
        ("class Told:", ["class Told"]),
    ],
)
def test_names_and_broken_lines_are_read_as_words(lint: Lint, text: str, found: list[str]) -> None:
    code, lines = lint(text)
    assert (code, [line.split(": ", 1)[1].split(" -> ")[0] for line in lines]) == (1, found)


@pytest.mark.parametrize("text", ["outdoors and doorstep", "the house next\ndoor", "class told:", "at the once", ""])
def test_other_words_and_exceptions_pass(lint: Lint, text: str) -> None:
    assert lint(text) == (0, [])


def test_the_name_of_a_file_is_read_too(lint: Lint) -> None:
    assert lint("", name="back_door.py") == (1, ["back_door.py:0: door -> client"])


def test_count_prints_a_number_for_each_file(lint: Lint) -> None:
    assert lint("door, doors", "--count") == (1, ["    2 page.md"])


def test_a_line_that_is_no_rule_is_refused(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("doors? -> client\nhouse\n")
    with pytest.raises(SystemExit, match=r"words\.txt:2: neither a rule"):
        MAIN(["--words", str(words), str(words)])
