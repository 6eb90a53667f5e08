"""An EnvironmentFile= of systemd: `KEY=value` lines whose quotes and escapes are those of systemd, not of a shell.

https://github.com/systemd/systemd/blob/main/src/basic/env-file.c (parse_env_file_internal)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.errors import HostError

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_COMMENT = re.compile(r"[#;](?:[^\\\r\n]|\\[^\r\n])*(\\?)")
_KEY = re.compile(r"([^=\r\n]*)(=?)")
_SINGLE = re.compile("'([^']*)'?")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)\\?"?', re.DOTALL)
_PLAIN = re.compile(r"(?:[^\\\r\n]|\\.)*\\?", re.DOTALL)
_WHITE = " \t\r\n"


def parse(text: str, path: str) -> Mapping[str, str]:
    """The variables that a file sets, the last of a name. What is no variable's name is left out, as systemd does it.

    Raises HostError where systemd refuses the file, and where its versions differ: before 254 a comment continues after
    a backslash at its end.
    """
    if "\ufffd" in text:
        raise HostError(f"{path}: not UTF-8, which systemd refuses")
    found: dict[str, str] = {}
    at = 0
    while (at := _after_white(text, at)) < len(text):
        if comment := _COMMENT.match(text, at):
            if comment[1]:
                raise HostError(f"{path}: a comment ends with a backslash, which versions of systemd read differently")
            at = comment.end()
            continue
        key = _KEY.match(text, at)
        assert key is not None  # noqa: S101 - it matches everything
        at = key.end()
        if key[2]:
            value, at = _value(text, at)
            if _NAME.fullmatch(name := key[1].rstrip(_WHITE)):
                found[name] = value
    return found


def _after_white(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at


def _value(text: str, at: int) -> tuple[str, int]:
    """A value and where it ends: quoted parts one after the other, then the rest of the line as it is."""
    parts = ""
    while True:
        while at < len(text) and text[at] in " \t":
            at += 1
        if single := _SINGLE.match(text, at):
            parts, at = parts + single[1], single.end()
        elif double := _DOUBLE.match(text, at):
            # An escaped line end is nothing; any other character but these keeps its backslash.
            parts += re.sub(r'\\(?:\n|(["\\`$]))', lambda found: found[1] or "", double[1])
            at = double.end()
        else:
            break
    plain = _PLAIN.match(text, at)
    assert plain is not None  # noqa: S101 - it matches everything
    kept = plain[0]
    # White space at the end goes, unless a backslash stands before it.
    stripped = kept.rstrip(" \t")
    if (len(stripped) - len(stripped.rstrip("\\"))) % 2:
        stripped = kept[: len(stripped) + 1]
    return parts + re.sub(r"\\(.?)", lambda found: found[1].strip("\r\n"), stripped, flags=re.DOTALL), plain.end()
