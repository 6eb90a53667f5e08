"""The output of apparmor_parser: the names that it lists, the problems that it reports.

Pure functions on text that was captured from 3.0.8 (Debian 12). They refuse to lose the parser's words: what has no
known form is handed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from agent.errors import Problem

# Not /dev/stdin: that is a link that udev makes, and not everywhere.
STDIN = "/proc/self/fd/0"
_WORDS_LIMIT = 600
_LOCATED = re.compile(
    r"AppArmor parser error(?: for .+?)?(?: in(?: profile)? (?P<in>.+?))? at line (?P<line>\d{1,9}): (?P<words>.*)"
)
_UNLOCATED = re.compile(r"AppArmor parser error(?: for .+?)?: (?P<words>.*)")
_OWN_NAME = re.compile(r"^(?:/\S*/)?apparmor_parser: ")
# Not about the profile: printed where the kernel has no AppArmor, or where nothing can be done.
_NOISE = (
    "Cache read/write disabled",
    "Warning: unable to find a suitable fs in /proc/mounts",
    "Use --subdomainfs to override",
    "Warning from ",
    "Warning: ",
)
_VARIABLE = re.compile(r"Found reference to variable (?P<name>\w+), but is never declared")
_TWICE = re.compile(r"Multiple definitions for (?:hat .+ in )?profile (?P<name>.+?) exist")


def names(stdout: str) -> tuple[str, ...]:
    """Profile names as `-N` lists them, one a line, children as `parent//child`."""
    return tuple(dict.fromkeys(line for line in stdout.split("\n") if line))


def words(stderr: str) -> str:
    """What the parser complains of, without its noise and without the name of the program, in one line."""
    return _one_line(_complaints(stderr))


def _complaints(stderr: str) -> Iterator[str]:
    lines = (_OWN_NAME.sub("", line.strip()) for line in stderr.split("\n"))
    return (line for line in lines if line and not line.startswith(_NOISE))


def _one_line(lines: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(lines))[:_WORDS_LIMIT]


def problems(stderr: str, file: str, text: str) -> tuple[Problem, ...]:
    """Every complaint as a problem of `file`; empty when there is none.

    text: the profile as the parser read it, to find the line that a message without one speaks of. A complaint about
    an included file points to the line that includes it and names the other file and its line.
    """
    found: list[Problem] = []
    rest: list[str] = []
    for line in _complaints(stderr):
        if located := _LOCATED.fullmatch(line):
            found.append(_located(located, file, text))
        elif (unlocated := _UNLOCATED.fullmatch(line)) is not None:
            found.append(Problem(file, 0, "", unlocated["words"].strip()[:_WORDS_LIMIT] or line))
        else:
            rest.append(line)
    if rest:
        message = _one_line(rest)
        found.append(Problem(file, _line_of(message, text), "", message))
    return tuple(dict.fromkeys(found))


def _located(match: re.Match[str], file: str, text: str) -> Problem:
    where, line, message = match["in"], int(match["line"]), match["words"].strip()[:_WORDS_LIMIT]
    if where in (None, STDIN):
        return Problem(file, line, "", message)
    return Problem(file, _including_line(where, text), "", f"in {where}, line {line}: {message}")


def _including_line(path: str, text: str) -> int:
    """The line of the text that includes the file, directly or through another one; 0 when unknown."""
    for number, line in enumerate(text.split("\n"), 1):
        included = re.match(r'\s*#?include\s+(?:if\s+exists\s+)?[<"]?([^>"\s]+)', line)
        if included and (path.endswith(f"/{included[1]}") or f"/{included[1]}/" in path):
            return number
    return 0


def _line_of(message: str, text: str) -> int:
    if variable := _VARIABLE.search(message):
        used = f"@{{{variable['name']}}}"
        lines = enumerate(text.split("\n"), 1)
        return next((number for number, line in lines if used in line and not line.lstrip().startswith("# ")), 0)
    if twice := _TWICE.search(message):
        # The second definition is the one too many.
        return defining_line(text, twice["name"], nth=2)
    return 0


def defining_line(text: str, name: str, *, nth: int = 1) -> int:
    """The line where the profile's definition begins, the nth of that name; 0 when unknown. `parent//child` is written
    as a child or a hat within its parent."""
    begins = re.compile(rf'^[^#]*(?<![\w./-])"?{re.escape(name)}(?![\w./-])[^#]*\{{')
    lines = text.split("\n")
    hits = [number for number, line in enumerate(lines, 1) if begins.search(line)]
    parent, _, child = name.rpartition("//")
    if not hits and parent and (above := defining_line(text, parent)):
        below = defining_line("\n".join(lines[above:]), child, nth=nth)
        return below and above + below
    return hits[nth - 1] if len(hits) >= nth else 0
