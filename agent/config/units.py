"""Durations, sizes, times and numbers: read exactly or refused with the right spelling.

A bare number is refused where a unit is needed: 300 is five minutes to one reader and five hours to the next.
"""

from __future__ import annotations

import re

YEAR_SECONDS = 366 * 86400.0
DURATION = r"^(?:0|(?=[0-9])(?:[0-9]{1,9}d)?(?:[0-9]{1,9}h)?(?:[0-9]{1,9}m)?(?:[0-9]{1,9}s)?(?:[0-9]{1,9}ms)?)$"
SIZE = r"^(?:0|[0-9]{1,15}(?:B|KiB|MiB|GiB))$"
TIME = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"
PERCENT = r"^(?:[1-9][0-9]?|100)%$"

_DURATION_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SIZE_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_PART = re.compile(r"([0-9]+)(ms|[dhms])")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
# How other tools write these units.
_LOOSE_DURATION = re.compile(r"([0-9]{1,9})\s*(milli|ms|d|h|m|s)[a-z]*", re.IGNORECASE)
_LOOSE_SIZE = re.compile(r"([0-9]{1,15})\s*([kmg]?)(?:i?b?|ytes)", re.IGNORECASE)
_LOOSE_TIME = re.compile(r"([01]?[0-9]|2[0-4])(?::([0-5][0-9])(?::[0-5][0-9])?)?\s*([ap]m)?", re.IGNORECASE)


def shown(text: str) -> str:
    """A value in a message: quoted, control characters visible, cut where it is long."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}…"


def duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m`, `2d`, `500ms` or 0. Raises ValueError."""
    if re.fullmatch(DURATION, text):
        return sum(int(count) * _DURATION_MS[unit] for count, unit in _PART.findall(text)) / 1000
    if _NUMBER.fullmatch(text) and not text.startswith("-"):
        number = int(text)
        minutes = spell_duration(number) if number >= 60 else f"{number}m"
        raise ValueError(f"{text} has no unit: write {number}s or {minutes}")
    if text.startswith("-"):
        raise ValueError(f"{shown(text)} is negative: write 0s or more")
    raise ValueError(f"{shown(text)} is not a duration: write it as 90s, 10m or 1h30m{_meant(_loose_duration(text))}")


def spell_duration(seconds: float) -> str:
    """The shortest exact spelling, e.g. 5400.0 as `1h30m`; 0 is `0s`."""
    left = round(seconds * 1000)
    text = ""
    for unit, size in _DURATION_MS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def size(text: str) -> int:
    """Bytes of `512B`, `4KiB`, `1MiB`, `1GiB` or 0. Raises ValueError."""
    if re.fullmatch(SIZE, text):
        unit = next((unit for unit in _SIZE_BYTES if text.endswith(unit)), "")
        return int(text.removesuffix(unit)) * _SIZE_BYTES.get(unit, 1)
    if _NUMBER.fullmatch(text) and not text.startswith("-"):
        raise ValueError(f"{text} has no unit: write {text}B or {text}KiB")
    raise ValueError(f"{shown(text)} is not a size: write it as 512B, 4KiB or 1MiB{_meant(_loose_size(text))}")


def spell_size(size_bytes: int) -> str:
    """The largest unit that is exact, e.g. 4096 as `4KiB`."""
    unit = next((unit for unit, size in _SIZE_BYTES.items() if size_bytes % size == 0), "B")
    return f"{size_bytes // _SIZE_BYTES[unit]}{unit}" if size_bytes else "0B"


def whole(text: str, least: int, most: int = 10**9) -> int:
    """A whole number within bounds. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a whole number")
    number = int(text)
    if not least <= number <= most:
        raise ValueError(f"{number} is out of range: write {least} to {most}")
    return number


def count_or_percent(text: str) -> str:
    """`3` or `10%`, unchanged. Raises ValueError."""
    if re.fullmatch(PERCENT, text):
        return text
    if text.endswith("%"):
        raise ValueError(f"{shown(text)} is not a percentage from 1% to 100%")
    try:
        return str(whole(text, 1))
    except ValueError as error:
        raise ValueError(f"{error}, or a percentage such as 10%") from error


def exit_code(text: str) -> int:
    """0 to 255 without the two that a shell uses when it ran nothing. Raises ValueError."""
    code = whole(text, 0, 255)
    if code in (126, 127):
        raise ValueError(f"{code} means that the command could not be started: that is always unknown")
    return code


def time_of_day(text: str) -> str:
    """HH:MM. Raises ValueError."""
    if re.fullmatch(TIME, text):
        return text
    raise ValueError(f"{shown(text)} is not a time of day: write it as 22:00{_meant(_loose_time(text))}")


def _meant(better: str) -> str:
    return f"; did you mean {better}?" if better else ""


def _loose_duration(text: str) -> str:
    parts = _LOOSE_DURATION.findall(text)
    if not parts or re.sub(r"[\s,]|and", "", _LOOSE_DURATION.sub("", text)):
        return ""
    seconds = sum(int(n) * _DURATION_MS["ms" if u.lower() in ("ms", "milli") else u.lower()] for n, u in parts) / 1000
    return spell_duration(seconds)


def _loose_size(text: str) -> str:
    if not (found := _LOOSE_SIZE.fullmatch(text)):
        return ""
    count, prefix = found.groups()
    return f"{count}{prefix.upper()}iB" if prefix else f"{count}B"


def _loose_time(text: str) -> str:
    if not (found := _LOOSE_TIME.fullmatch(text)):
        return ""
    hour, minute, half = int(found[1]), found[2] or "00", (found[3] or "").lower()
    if half and not 1 <= hour <= 12:
        return ""
    hour = hour % 12 + (12 if half == "pm" else 0) if half else hour % 24
    return f"{hour:02}:{minute}"
