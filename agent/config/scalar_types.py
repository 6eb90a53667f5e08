"""What one value of the policy may be: the kinds of scalars, the types that keys of schema.py have, a reader for each.

Readers take the text as the file has it, before YAML 1.1 makes a boolean of `off` or a number of `22:00`. They raise
ValueError with what is wrong and what would be right, and never show a value that may be a secret.
"""

from __future__ import annotations

import datetime as dt
import difflib
import ipaddress
import re
import string
import warnings
import zoneinfo
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

from agent.config import selector, units
from agent.config.selector import Selector
from agent.config.units import shown

MODULE = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,54}$"  # MODULE_NAME_LEN is 64 - sizeof(unsigned long), NUL included
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
OBJECT = rf"^{selector.SUBDOMAIN}/{selector.SUBDOMAIN}$"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
DATE_WITH_YEAR = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
DATE = r"^(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2}$"
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF")
_TEMPLATE_FIELDS = ("node", "event", "message", "cluster", "severity")
LONGEST_REGEXP = 1000


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in its two parts, the host without brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ValueError(f"{shown(text)} has no port: write host:port, e.g. 0.0.0.0:9105 or [::]:9105")
    number = _port(text, port)
    if not host:
        raise ValueError(f"{shown(text)} has no host: write 0.0.0.0{text} or [::]{text} for every address")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), number
        except ValueError as error:
            raise ValueError(f"{shown(host)} is not an IPv6 address") from error
    if ":" in host:
        raise ValueError(f"{shown(text)}: an IPv6 address goes into brackets, e.g. [::1]:9105")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{shown(host)} is neither an address nor a host's name")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise ValueError(f"{shown(host)} is not an IPv4 address") from error
    return host, number


def _port(text: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{shown(text)}: {shown(port)} is not a port from 0 (any free one) to 65535")
    return int(port)


def _flag(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"{shown(text)} is neither true nor false")


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: write some text")
    return text


def _regexp(text: str) -> str:
    if len(text) > LONGEST_REGEXP:
        raise ValueError(f"is longer than {LONGEST_REGEXP} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python warns of changes its meaning in a later version
            re.compile(text)
    except (re.error, Warning, RecursionError, OverflowError) as error:
        raise ValueError(f"{shown(text)} is not a regular expression: {error}") from error
    return text


def _path(text: str) -> str:
    if "://" in text:
        raise ValueError("is a URL: write an absolute path, e.g. of a file that holds the URL")
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} is not an absolute path: begin with /")
    if ".." in text.split("/") or not text.isprintable():
        raise ValueError(f"{shown(text)}: write a path without .. and control characters")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password: secrets go into files")
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError(f"{shown(text)} is not an http or https URL such as http://prometheus:9090")
    if parts.query or parts.fragment or port == 0:
        raise ValueError(f"{shown(text)} is not a base URL: leave out what follows the path")
    return text


def _timezone(text: str) -> str:
    if text == "UTC":
        return text
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            raise ValueError(
                f"{shown(text)} cannot be looked up: there is no time zone data here (package tzdata); UTC needs none"
            ) from error
        near = {name.rpartition("/")[2].lower(): name for name in known} | {name.lower(): name for name in known}
        close = difflib.get_close_matches(text.lower().replace(" ", "_"), near, n=1)
        meant = f"; did you mean {near[close[0]]}?" if close else ""
        raise ValueError(f"{shown(text)} is not an IANA time zone such as Europe/Berlin{meant}") from error
    return text


def _date(text: str) -> str:
    """A day of one year, or of every year; 29 February is one of every year."""
    try:
        if re.fullmatch(DATE, text):
            dt.date.fromisoformat(text if len(text) == len("2026-12-24") else f"2024-{text}")
            return text
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not in the calendar") from error
    raise ValueError(f"{shown(text)} is not a date: write it as 2026-12-24, or 12-24 each year")


def _date_with_year(text: str) -> str:
    """A day of one year."""
    if not re.fullmatch(DATE_WITH_YEAR, text):
        raise ValueError(f"{shown(text)} is not a date, or has no year: write it as 2026-12-24")
    return _date(text)


def _template(text: str) -> str:
    allowed = ", ".join(f"{{{name}}}" for name in _TEMPLATE_FIELDS)
    try:
        fields = [part[1:] for part in string.Formatter().parse(text)]
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not a template: {error}") from error
    for name, form, conversion in fields:
        if name is not None and (name not in _TEMPLATE_FIELDS or form or conversion):
            raise ValueError(f"{shown(name)} is not a field of a template: write {allowed}, and {{{{ for a brace")
    return text


def _address(text: str) -> str:
    split_address(text)
    return text


def _argument(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _matching(pattern: str, right: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{shown(text)} is not {right}")
        return text

    return read


def _or(word: str, read: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: word if text == word else read(text)


_label_value = _matching(selector.VALUE, "a label value: at most 63 letters, digits, - _ . between two of the first")
_label = _matching(selector.KEY, "a label key such as example.com/pool")
_name = _matching(NAME, "a name such as kubernetes, without folder and ending")


class Kind(Enum):
    """What a scalar means beyond its type: text for users, then how it is read and spelled.

    read: text to value; raises ValueError. spell: value to what YAML would hold. plain: written without quotes.
    """

    def __init__(
        self, about: str, read: Callable[[str], Any] = str, spell: Callable[[Any], Any] = str, plain: bool = False
    ) -> None:
        self.about, self.read, self.spell, self.plain = about, read, spell, plain

    FLAG = "true or false", _flag, bool, True
    TEXT = "text"
    WORDS = "text that is not empty", _words
    DURATION = "a duration such as 90s, 10m, 1h30m", units.duration, units.spell_duration
    SIZE = "a size such as 512B, 4KiB, 1MiB", units.size, units.spell_size
    REGEXP = "a regular expression (Python's)", _regexp
    SELECTOR = "a label selector such as app=web,tier!=cache", selector.parse
    PATH = "an absolute path", _path
    PATH_OR_NONE = "an absolute path, or empty", _or("", _path)
    PATH_OR_AUTO = "auto, or an absolute path", _or("auto", _path)
    MODULE = "a kernel module's name", _matching(MODULE, "a kernel module's name such as dccp")
    NAME = "a file's name without folder and ending", _name
    OBJECT_OR_NONE = "namespace/name, or empty", _or("", _matching(OBJECT, "namespace/name such as kube-system/kured"))
    ADDRESS = "host:port, or empty", _or("", _address)
    URL = "an http or https URL, or empty", _or("", _url)
    TIME = "a time of day, HH:MM", units.time_of_day
    DATE = "a date such as 2026-12-24", _date_with_year
    DATE_OR_NONE = "a date such as 2026-12-24, or 12-24 each year, or empty", _or("", _date)
    TIMEZONE = "an IANA time zone such as Europe/Berlin", _timezone
    LABEL = "a label key", _label
    LABEL_OR_NONE = "a label key, or empty", _or("", _label)
    LABEL_VALUE = "a label value", _label_value
    COUNT = "a whole number of one or more", partial(units.whole, least=1), int, True
    NATURAL = "a whole number of zero or more", partial(units.whole, least=0), int, True
    COUNT_OR_PERCENT = "a whole number of one or more, or a percentage such as 10%", units.count_or_percent
    EXIT_CODE = "an exit code from 0 to 255, but not 126 and 127", units.exit_code, int, True
    TEMPLATE = "text with {node}, {event}, {message}, {cluster}, {severity}", _template
    ARGUMENT = "a word of a command", _argument
    ARGV = "a command as a list, its program with an absolute path", str, list


Words = Annotated[str, Kind.WORDS]
Seconds = Annotated[float, Kind.DURATION]  # written with a unit, held as seconds
Bytes = Annotated[int, Kind.SIZE]
Regexp = Annotated[str, Kind.REGEXP]
Path = Annotated[str, Kind.PATH]
PathOrNone = Annotated[str, Kind.PATH_OR_NONE]
PathOrAuto = Annotated[str, Kind.PATH_OR_AUTO]
Module = Annotated[str, Kind.MODULE]
Name = Annotated[str, Kind.NAME]
ObjectNameOrNone = Annotated[str, Kind.OBJECT_OR_NONE]
Address = Annotated[str, Kind.ADDRESS]  # split_address divides it
Url = Annotated[str, Kind.URL]
TimeOfDay = Annotated[str, Kind.TIME]
Date = Annotated[str, Kind.DATE]
DateOrNone = Annotated[str, Kind.DATE_OR_NONE]
Timezone = Annotated[str, Kind.TIMEZONE]  # without time zone data on the machine only UTC is accepted
LabelKey = Annotated[str, Kind.LABEL]
LabelKeyOrNone = Annotated[str, Kind.LABEL_OR_NONE]
LabelValue = Annotated[str, Kind.LABEL_VALUE]
Count = Annotated[int, Kind.COUNT]
Natural = Annotated[int, Kind.NATURAL]
CountOrPercent = Annotated[str, Kind.COUNT_OR_PERCENT]
ExitCode = Annotated[int, Kind.EXIT_CODE]
Template = Annotated[str, Kind.TEMPLATE]
LabelSelector = Annotated[Selector, Kind.SELECTOR]
Command = Annotated[tuple[str, ...], Kind.ARGV]
