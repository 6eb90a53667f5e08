"""The user's terminal: colour and width, text that cannot control it, documents that any stream can hold.

Shared by the agent's command line and the kubectl plugin. Colour on a terminal only; control characters from a node's
files or a Node object are escaped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import yaml

_MINIMUM_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Style:
    """How to write: whether the terminal shows colour, and its width in columns (None: no limit)."""

    colour: bool = False
    width: int | None = None

    def paint(self, text: str, code: str) -> str:
        """The text in a colour (an SGR code such as `31;1`), or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text

    def wrap(self, text: str, *, lead: str = "", indent: int = 0) -> list[str]:
        """The text behind its lead, wrapped at the terminal's width; further lines start at column `indent`.

        indent: also the lead's width, since the length of a painted one is not its width.
        A further line never begins with the arrow of a suggested command: the text may quote what others wrote.
        """
        if self.width is None:
            return [lead + text]
        columns = max(self.width - indent, _MINIMUM_WIDTH)
        lines = textwrap.wrap(text, columns, break_on_hyphens=False) or [""]
        return [lead + lines[0], *(" " * indent + re.sub("^->", "=>", line) for line in lines[1:])]


def style_of(stream: TextIO | None, environment: Mapping[str, str]) -> Style:
    """Colour and width for a terminal; neither for a file or a pipe. NO_COLOR is respected (https://no-color.org)."""
    if stream is None or not stream.isatty():
        return Style()
    return Style(
        colour=not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        width=shutil.get_terminal_size().columns,
    )


def document_text(document: Mapping[str, Any], form: str, stream: TextIO) -> str:
    """A document as `json` or `yaml`; for a stream with less than UTF-8 escaped, so that it is read back unchanged."""
    shows_all = (getattr(stream, "encoding", None) or "").lower() in ("", "utf-8", "utf8")
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=not shows_all) + "\n"
    plain = json.loads(json.dumps(document))  # enums and tuples as YAML has them
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=shows_all, width=120)


def discard_output() -> None:
    """Sends standard output to /dev/null once its pipe is closed: what is buffered would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """The text on one line, unprintable characters (escape sequences, stray bytes) written as \\x1b."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
