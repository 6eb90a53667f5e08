"""How each kind of scalar is read, spelled and described: one row for loader, fingerprint, JSON Schema and reference.

Readers take the text as it stands in the file, before YAML 1.1 makes a boolean of `off` or a number of `22:00`. They
raise ValueError with what is wrong and what would be right, and never show a value that may be a secret.
"""

from __future__ import annotations

import datetime as dt
import difflib
import ipaddress
import re
import string
import warnings
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent.config import selector, units
from agent.config.scalars import Kind
from agent.config.units import shown

_MODULE = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,54}$"  # MODULE_NAME_LEN is 64 - sizeof(unsigned long), NUL included
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
_OBJECT = rf"^{selector.SUBDOMAIN}/{selector.SUBDOMAIN}$"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_DATE = r"^(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2}$"
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF")
_TEMPLATE_FIELDS = ("node", "event", "message", "cluster", "severity")
_LONGEST_REGEXP = 1000


@dataclass(frozen=True, slots=True)
class ScalarType:
    """One kind. read: text to value. spell: value to what YAML would hold. schema: its JSON Schema.

    plain: it has to stand without quotes (YAML's own numbers and booleans).
    """

    read: Callable[[str], Any]
    spell: Callable[[Any], Any] = str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    plain: bool = False


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
        raise ValueError("is empty: say something")
    return text


def _regexp(text: str) -> str:
    if len(text) > _LONGEST_REGEXP:
        raise ValueError(f"is longer than {_LONGEST_REGEXP} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of today means something else tomorrow
            re.compile(text)
    except (re.error, Warning, RecursionError, OverflowError) as error:
        raise ValueError(f"{shown(text)} is not a regular expression: {error}") from error
    return text


def _path(text: str) -> str:
    if "://" in text:
        raise ValueError("is a URL; wanted is an absolute path, e.g. that of a file which holds the URL")
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} is not an absolute path: begin with /")
    if ".." in text.split("/") or not text.isprintable():
        raise ValueError(f"{shown(text)}: a path without .. and control characters is wanted")
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
        if re.fullmatch(_DATE, text):
            dt.date.fromisoformat(text if len(text) == len("2026-12-24") else f"2024-{text}")
            return text
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not in the calendar") from error
    raise ValueError(f"{shown(text)} is not a date: write it as 2026-12-24, or 12-24 for every year")


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


def _label_value(text: str) -> str:
    if not re.fullmatch(selector.VALUE, text):
        raise ValueError(
            f"{shown(text)} is not a label's value: at most 63 letters, digits, - _ . between two of the first"
        )
    return text


def _matching(pattern: str, wanted: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{shown(text)} is not {wanted}")
        return text

    return read


def _or(word: str, read: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: word if text == word else read(text)


def _text_schema(pattern: str, *words: str) -> Mapping[str, Any]:
    simple = {"type": "string", "pattern": pattern}
    return {"anyOf": [{"enum": list(words)}, simple]} if words else simple


def _number_schema(least: int, most: int | None = None) -> Mapping[str, Any]:
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


_ABSOLUTE = r"^/"
_label = _matching(selector.KEY, "a label's key such as example.com/pool")

MEANINGS: Mapping[Kind, ScalarType] = {
    Kind.FLAG: ScalarType(_flag, bool, {"type": "boolean"}, plain=True),
    Kind.TEXT: ScalarType(str),
    Kind.WORDS: ScalarType(_words, schema=_text_schema(r"\S")),
    Kind.DURATION: ScalarType(
        units.duration, units.spell_duration, {"anyOf": [_text_schema(units.DURATION), {"const": 0}]}
    ),
    Kind.SIZE: ScalarType(units.size, units.spell_size, {"anyOf": [_text_schema(units.SIZE), {"const": 0}]}),
    Kind.REGEXP: ScalarType(_regexp, schema={"type": "string", "format": "regex", "maxLength": _LONGEST_REGEXP}),
    Kind.SELECTOR: ScalarType(selector.parse),
    Kind.PATH: ScalarType(_path, schema=_text_schema(_ABSOLUTE)),
    Kind.PATH_OR_NONE: ScalarType(_or("", _path), schema=_text_schema(_ABSOLUTE, "")),
    Kind.PATH_OR_AUTO: ScalarType(_or("auto", _path), schema=_text_schema(_ABSOLUTE, "auto")),
    Kind.MODULE: ScalarType(_matching(_MODULE, "a kernel module's name such as dccp"), schema=_text_schema(_MODULE)),
    Kind.NAME: ScalarType(
        _matching(_NAME, "a name such as kubernetes, without folder and ending"), schema=_text_schema(_NAME)
    ),
    Kind.OBJECT_OR_NONE: ScalarType(
        _or("", _matching(_OBJECT, "namespace/name such as kube-system/kured")), schema=_text_schema(_OBJECT, "")
    ),
    Kind.ADDRESS: ScalarType(_or("", _address), schema=_text_schema(r"^.+:[0-9]{1,5}$", "")),
    Kind.URL: ScalarType(_or("", _url), schema=_text_schema(r"^https?://[^/?#@]", "")),
    Kind.TIME: ScalarType(units.time_of_day, schema=_text_schema(units.TIME)),
    Kind.DATE_OR_NONE: ScalarType(_or("", _date), schema=_text_schema(_DATE, "")),
    Kind.TIMEZONE: ScalarType(_timezone, schema=_text_schema(r"^[A-Za-z]")),
    Kind.LABEL: ScalarType(_label, schema=_text_schema(selector.KEY)),
    Kind.LABEL_OR_NONE: ScalarType(_or("", _label), schema=_text_schema(selector.KEY, "")),
    Kind.LABEL_VALUE: ScalarType(_label_value, schema=_text_schema(selector.VALUE)),
    Kind.COUNT: ScalarType(lambda text: units.whole(text, 1), int, _number_schema(1), plain=True),
    Kind.NATURAL: ScalarType(lambda text: units.whole(text, 0), int, _number_schema(0), plain=True),
    Kind.COUNT_OR_PERCENT: ScalarType(
        units.count_or_percent,
        schema={"anyOf": [_number_schema(1), _text_schema(r"^[1-9][0-9]{0,8}$"), _text_schema(units.PERCENT)]},
    ),
    Kind.EXIT_CODE: ScalarType(
        units.exit_code, int, {"type": "integer", "minimum": 0, "maximum": 255, "not": {"enum": [126, 127]}}, plain=True
    ),
    Kind.TEMPLATE: ScalarType(_template),
    Kind.ARGUMENT: ScalarType(_argument),
}
