"""Text from outside in the agent's own: printable, on one line, of bounded length. And hosts and times as others read
them.

Pure. Package names, alert names, the reason of a pause and the last line of a command end in annotations, Events and
notifications; none of them may break a line, move a terminal's cursor or fill the object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

_LAST_SECOND = 253402300799.0  # 9999-12-31T23:59:59Z


def sanitize(text: str, limit: int = 200) -> str:
    """The text on one line of at most `limit` characters, unprintable characters as blanks, cut with an ellipsis."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: limit * 4])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def join_limited(names: Iterable[str], most: int = 5, characters: int = 63) -> str:
    """`a, b, c and 4 more`: each name once, sanitized to `characters`, in the given order."""
    known = list(dict.fromkeys(filter(None, (sanitize(name, characters) for name in names))))
    text = ", ".join(known[:most])
    return f"{text} and {len(known) - most} more" if len(known) > most else text


def url_host(address: str) -> str:
    """A host as a URL has it: an IPv6 address stands in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def last_line(text: str, limit: int = 200) -> str:
    """The last line that is not blank, sanitized: where Unix tools put the reason of a failure."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sanitize(lines[-1], limit) if lines else ""


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Raises ValueError, also for a time without an offset."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{sanitize(text, 40)!r} is not a time such as 2030-01-31T22:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time: {error}") from error


def format_rfc3339(seconds: float, *, timespec: str = "seconds") -> str:
    """`2030-01-31T22:00:00Z` of seconds since the epoch. timespec: as in datetime.isoformat.

    A time before 1970 or after the year 9999, which may be forged, is the first or the last of these.
    """
    moment = datetime.fromtimestamp(min(max(0.0, seconds), _LAST_SECOND), UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
