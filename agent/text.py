"""Other people's text in our sentences: printable, on one line, of bounded length; and times as the API writes them.

Pure. Package names, alert names, reasons of a pause and a command's last line end in annotations and notifications.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def sanitize(text: str, characters: int = 200) -> str:
    """On one line, without what cannot be printed, cut with an ellipsis."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: characters * 4])
    line = " ".join(line.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def join_limited(names: Iterable[str], most: int = 5, characters: int = 63) -> str:
    """`a, b, c and 4 more`: each name once, in the order given."""
    known = list(dict.fromkeys(filter(None, (sanitize(name, characters) for name in names))))
    text = ", ".join(known[:most])
    return f"{text} and {len(known) - most} more" if len(known) > most else text


def last_line(text: str, characters: int = 200) -> str:
    """The last line that says something: that is where Unix tools put the reason."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sanitize(lines[-1], characters) if lines else ""


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Raises ValueError; a time without an offset is none."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{sanitize(text, 40)!r} is not a time such as 2030-01-31T22:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time: {error}") from error


def format_rfc3339(seconds: float) -> str:
    """A time for people, in UTC: `2030-01-31T22:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
