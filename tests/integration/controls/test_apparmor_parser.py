"""What the real apparmor_parser accepts and refuses, and how its words reach people."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.bundled_profiles import shipped_profiles
from agent.config.choices import ParserChoice
from agent.controls.apparmor import lint
from agent.controls.apparmor.parser import Chooser, Parser, Tool
from agent.errors import CommandMissing, HostError
from agent.host import Completed, Host, HostExec
from agent.host.filesystem import FileStat
from tests.support.apparmor_kernel import PARSER, StandIn, cannot_load

pytestmark = pytest.mark.skipif(not Path(PARSER).exists(), reason="needs Debian's apparmor (apparmor_parser)")

SHIPPED = sorted(shipped_profiles("apparmor").iterdir())


@pytest.fixture(scope="module")
def host() -> Host:
    return Host("/")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_profiles_are_accepted(host: Host, path: Path) -> None:
    """Every shipped profile passes -N and -Q -K, defines the name that its header tells pods, and warns of nothing."""
    text = path.read_text()
    assert lint(text, str(path), host) == []
    names = Parser(host).lint(text.encode(), str(path)).names
    assert len(names) == 1
    assert f"localhostProfile: {names[0]}\n" in text
    assert f"localhost/{names[0]}\n" in text
    assert "# Breaks:" in text
    argv = [PARSER, "-Q", "-K", "--warn=all", "--kernel-features", "/etc/apparmor.d/abi/3.0", str(path)]
    warned = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    assert [line for line in warned.splitlines() if "Cache read/write" not in line] == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("profile a {\n  deny /x w\n}\n", 3, "syntax error, unexpected TOK_CLOSE, expecting TOK_END_OF_RULE"),
        ("profile a {\n  capability fly,\n}\n", 2, "Invalid capability fly."),
        ("profile a flags=(nope) {\n}\n", 1, "Invalid profile flag: nope."),
        ("profile a {\n  include <abstractions/none>\n}\n", 2, "Could not open 'abstractions/none'"),
        ("profile a {\n  /x/@{NOPE}/y r,\n}\n", 2, "Found reference to variable NOPE, but is never declared"),
        ("profile a { }\n\nprofile a { }\n", 3, "Multiple definitions for profile a exist,bailing out."),
        ("profile a {\n", 2, "syntax error, unexpected end of file"),
        ("", 0, "defines no profile"),
        ("# only a comment\n", 0, "defines no profile"),
        ("profile unconfined { }\n", 1, "the name `unconfined` is reserved by the kernel"),
        ("@{v}=x\nprofile a@{v} { }\n", 2, "holds a quote, backslash, control character or variable"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(host: Host, text: str, line: int, message: str) -> None:
    """Each fault is one problem with the person's file, the line and the parser's own words."""
    found = lint(text, "team/profile", host)
    assert [(one.file, one.line) for one in found] == [("team/profile", line)]
    assert message in found[0].message


def test_a_fault_in_an_included_file_names_that_file(host: Host, tmp_path: Path) -> None:
    """The problem points to the line that includes, and tells file and line of the fault."""
    (tmp_path / "abstractions").mkdir()
    (tmp_path / "abstractions/ours").write_text("  file,\n  bogus rule,\n")
    text = "profile a {\n  include <abstractions/ours>\n}\n"
    found = lint(text, str(tmp_path / "a"), host)
    assert [one.line for one in found] == [2]
    assert found[0].message.startswith(f"in {tmp_path}/abstractions/ours, line 2: syntax error")


def test_what_is_kept_is_the_same_policy_without_its_includes(host: Host) -> None:
    """The flattened text compiles to the same bytes as the text with includes: it can stand in for it for good."""
    text = (
        b"abi <abi/3.0>,\ninclude <tunables/global>\nprofile a {\n"
        b"  include <abstractions/base>\n  include if exists <local/a>\n  @{HOME}/** r,\n}\n"
    )
    flat = Parser(host).lint(text, "a").flat
    assert b"include <" not in b"\n".join(line for line in flat.split(b"\n") if not line.lstrip().startswith(b"#"))

    def compiled(content: bytes) -> bytes:
        argv = [PARSER, "-K", "-S", "--kernel-features", "/etc/apparmor.d/abi/3.0", "/proc/self/fd/0"]
        return subprocess.run(argv, input=content, capture_output=True, check=True).stdout

    assert compiled(flat) == compiled(text)


def test_binary_noise_and_odd_names(host: Host) -> None:
    """Bytes that are no text are a problem; names with blanks, brackets and globs are names."""
    assert Parser(host).lint(bytes(range(256)) * 8, "noise").problems
    names = Parser(host).lint(b'profile "a b (enforce)" { profile kid { } }\n/usr/{s,}bin/x { }\n', "odd").names
    assert set(names) == {"a b (enforce)", "a b (enforce)//kid", "/usr/{s,}bin/x"}


def test_nothing_is_loaded_where_the_tree_has_no_kernel(tmp_path: Path) -> None:
    """Below another host root without securityfs the parser is not even started to load."""
    with pytest.raises(HostError, match="nothing can be loaded there"):
        Parser(Host(tmp_path)).load(b"profile a { }\n")


@pytest.mark.skipif(cannot_load() != "", reason=cannot_load())
def test_a_short_name_is_removed(tmp_path: Path) -> None:
    """3.0.8 dies in -R of names shorter than its header where the kernel's features are not the tree's own."""
    (tmp_path / "work").mkdir()
    stand_in = StandIn(tmp_path / "node", tmp_path / "work")
    parser = Parser(Host(tmp_path / "node"), tool=Tool(str(stand_in.parser), HostExec.DIRECT))
    parser.load(b"profile c { }\n")
    parser.remove("c")
    assert stand_in.profiles == {}


def test_no_parser_is_not_no_problem(tmp_path: Path) -> None:
    """Without the program nothing can be said: an error, never an empty list."""
    with pytest.raises(CommandMissing):
        Parser(Host(tmp_path), tool=Tool("/nonexistent/apparmor_parser", HostExec.DIRECT)).lint(b"profile a { }", "a")


class TwoParsers(Host):
    """A node with a parser of its own beside the image's: the real one behind other version numbers."""

    def __init__(self, root: Path, image: str, node: str) -> None:
        super().__init__(root, how=HostExec.NSENTER)
        self.versions_asked = 0
        for folder, version in (("image", image), ("node", node)):
            program = root / folder / "apparmor_parser"
            program.parent.mkdir(parents=True)
            program.write_text(
                f'#!/bin/sh\ncase "$*" in -V) echo "AppArmor parser version {version}";; *) exec {PARSER} "$@";; esac\n'
            )
            program.chmod(0o755)

    def find_tool(self, name: str, *, how: HostExec | None = None) -> str | None:
        """Of the node's namespaces when it would run there."""
        place = f"{'node' if how is HostExec.NSENTER else 'image'}/{name}"
        return self.real_path(f"/{place}") if self.exists(f"/{place}") else None

    def stat(self, path: str) -> FileStat:
        """The node's paths are this machine's here."""
        return super().stat(path.removeprefix(self.root))

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        """All on this machine."""
        self.versions_asked += "-V" in argv
        return super().run(argv, **(options | {"how": HostExec.DIRECT}))


@pytest.mark.parametrize(
    ("image", "node", "wanted", "expected"),
    [
        ("3.0.8", "4.0.1", ParserChoice.NEWEST, HostExec.NSENTER),
        ("3.0.8", "4.0.1", ParserChoice.IMAGE, HostExec.DIRECT),
        ("4.1.0", "4.0.1~really4.0.1-0ubuntu0.24.04.4", ParserChoice.NEWEST, HostExec.DIRECT),
        ("4.1.0", "4.0.1", ParserChoice.NODE, HostExec.NSENTER),
        ("3.0.8", "3.0.10", ParserChoice.NEWEST, HostExec.NSENTER),
        ("3.0.8", "3.0.8", ParserChoice.NEWEST, HostExec.DIRECT),
        ("3.0.8", "nonsense", ParserChoice.NEWEST, HostExec.DIRECT),
    ],
)
def test_the_newer_parser_is_used_unless_one_is_chosen(
    tmp_path: Path, image: str, node: str, wanted: ParserChoice, expected: HostExec
) -> None:
    """Versions are numbers, and are asked for once for each program file."""
    host = TwoParsers(tmp_path, image, node)
    chooser = Chooser(host, wanted)
    assert {chooser.tool().how for _ in range(3)} == {expected}
    assert host.versions_asked == (2 if wanted is ParserChoice.NEWEST else 0)
    assert Parser(host, tool=chooser.tool()).lint(b"profile a { }\n", "a").names == ("a",)


def test_profiles_with_includes_of_their_own_are_linted_with_the_images_parser(tmp_path: Path) -> None:
    """The node's does not reach the agent's folder, however new it is."""
    host = TwoParsers(tmp_path, "3.0.8", "4.0.1")
    assert Chooser(host).tool(own_includes=True).how is HostExec.DIRECT


def test_a_parser_that_was_chosen_and_is_missing_is_named(tmp_path: Path) -> None:
    """The other one does not stand in for it."""
    host = TwoParsers(tmp_path, "3.0.8", "3.0.8")
    (tmp_path / "node/apparmor_parser").unlink()
    assert Chooser(host).tool().how is HostExec.DIRECT
    with pytest.raises(CommandMissing, match="not found on the node"):
        Chooser(host, ParserChoice.NODE).tool()


_PIECES = st.sampled_from(
    ["profile ", "a", "b//c", " {", "}", "\n", "file,", "deny ", "/x ", "rw", ",", "include <abstractions/base>", "@{",
     "^", '"', "\\", "flags=(", "complain", ")", "#", "capability ", "é", "\x00", "**", "[", "/**", "-> "]
)  # fmt: skip


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PIECES, max_size=20).map("".join))
def test_any_text_is_accepted_or_refused_with_reason(host: Host, text: str) -> None:
    """Whatever stands in a file, linting ends in problems of that file or in names, and never in an exception.

    Few examples: each one starts the parser. The messages themselves are put to thousands in the unit tests.
    """
    linted = Parser(host).lint(text.encode(), "any")
    assert bool(linted.problems) != bool(linted.flat)
    assert all(one.file == "any" and one.message for one in linted.problems)
    assert linted.problems or linted.names
