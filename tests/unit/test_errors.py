"""The error tree: what each error says, and which branch it is on."""

from __future__ import annotations

import errno

import pytest

from agent import errors
from agent.errors import (
    AgentError,
    CommandFailed,
    ConfigError,
    HostFileError,
    HostFileMissing,
    Problem,
)


def test_everything_raised_on_purpose_is_an_agent_error() -> None:
    """One `except AgentError` in the loop sees them all; nothing else is caught there."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert len(found) >= 12
    assert all(issubclass(one, AgentError) for one in found)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("f.yaml", 3, "reboot.windows[0].start", "is late"), "f.yaml:3: reboot.windows[0].start: is late"),
        (Problem("f.yaml", 3, "", "is late"), "f.yaml:3: is late"),
        (Problem("f.yaml", 0, "a.b", "is missing"), "f.yaml: a.b: is missing"),
        (Problem("f.yaml", 0, "", "cannot be read"), "f.yaml: cannot be read"),
    ],
)
def test_a_problem_reads_like_a_compilers(problem: Problem, text: str) -> None:
    """file:line: key: message, so that editors jump there."""
    assert str(problem) == text


def test_a_config_error_lists_every_problem_in_file_order() -> None:
    """One line each, files together, lines counted as numbers."""
    late, early, other = Problem("a", 10, "k", "x"), Problem("a", 9, "k", "y"), Problem("b", 1, "k", "z")
    error = ConfigError([other, late, early])
    assert error.problems == (early, late, other)
    assert str(error) == "a:9: k: y\na:10: k: x\nb:1: k: z"


@pytest.mark.parametrize(
    ("number", "branch"),
    [
        (errno.ENOENT, HostFileMissing),
        (errno.ENOTDIR, HostFileMissing),
        (errno.EACCES, HostFileError),
        (errno.EIO, HostFileError),
        (errno.ELOOP, HostFileError),
    ],
)
def test_only_what_is_not_there_is_missing(number: int, branch: type[HostFileError]) -> None:
    """Every other errno is "cannot tell"."""
    error = HostFileError.of("read", "/etc/x", OSError(number, "why"))
    assert type(error) is branch
    assert (error.action, error.path, error.errno, error.reason) == ("read", "/etc/x", number, "why")
    assert str(error) == "cannot read /etc/x: why"


def test_an_os_error_without_a_number_still_says_why() -> None:
    """Python raises some of them with a text alone."""
    assert str(HostFileError.of("read", "/x", OSError("odd"))) == "cannot read /x: odd"


def test_a_failed_command_names_its_code_or_signal() -> None:
    """With the tool's own words behind it, where it had any."""
    assert str(CommandFailed(["/sbin/modprobe", "x"], 1, "not found")) == "modprobe: exit code 1: not found"
    assert str(CommandFailed(["/sbin/modprobe", "x"], 2, "")) == "modprobe: exit code 2"
    assert str(CommandFailed(["/sbin/modprobe", "x"], -9, "")) == "modprobe: was ended by signal 9"
