"""Kubernetes' protobuf bodies as JSON, as far as kured sends them: its lock on a DaemonSet, and evictions.

Go clients write protobuf; the emulator reads JSON. Of an object only its metadata is read, and an eviction's options:
what else it has is what the reader was told it has. It refuses kinds that it does not know, rather than lose a part.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding, and for the fields' numbers
generated.proto of k8s.io/api and k8s.io/apimachinery.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

MEDIA = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_STRING, _NUMBER, _TIME, _MAP = "string", "number", "time", "map"
Shape = Mapping[int, tuple[str, Any]]

_PRECONDITIONS: Shape = {1: ("uid", _STRING), 2: ("resourceVersion", _STRING)}
_OPTIONS: Shape = {1: ("gracePeriodSeconds", _NUMBER), 2: ("preconditions", _PRECONDITIONS)}
_META: Shape = {
    1: ("name", _STRING), 3: ("namespace", _STRING), 5: ("uid", _STRING), 6: ("resourceVersion", _STRING),
    7: ("generation", _NUMBER), 8: ("creationTimestamp", _TIME), 11: ("labels", _MAP), 12: ("annotations", _MAP),
}  # fmt: skip
_KINDS: Mapping[str, Shape] = {
    "DaemonSet": {1: ("metadata", _META)},
    "Eviction": {1: ("metadata", _META), 2: ("deleteOptions", _OPTIONS)},
}


def as_json(body: bytes, rest: Mapping[str, Any]) -> bytes:
    """rest: what objects other than evictions have beside their metadata, such as a `spec`.

    Raises:
        ValueError: no such body, or a kind that is not known here.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("does not begin with k8s and a zero")
    envelope = dict(_fields(body[len(_MAGIC) :]))
    head = {number: _bytes(value).decode() for number, value in _fields(_bytes(envelope.get(1, b"")))}
    kind = head.get(2, "")
    if kind not in _KINDS:
        raise ValueError(f"the kind {kind!r} is not known here")
    found = {"apiVersion": head.get(1, ""), "kind": kind, **_message(_bytes(envelope.get(2, b"")), _KINDS[kind])}
    return json.dumps(found if kind == "Eviction" else {**found, **rest}).encode()


def _message(raw: bytes, shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(raw):
        name, form = shape.get(number, ("", ""))
        if form == _MAP:
            pair = {at: _bytes(text).decode() for at, text in _fields(_bytes(value))}
            found.setdefault(name, {})[pair.get(1, "")] = pair.get(2, "")
        elif name:
            found[name] = _value(value, form)
    return found


def _value(value: int | bytes, form: Any) -> Any:
    if form == _NUMBER:
        return value
    if form == _STRING:
        return _bytes(value).decode()
    if form == _TIME:
        seconds = dict(_fields(_bytes(value))).get(1, 0)
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _message(_bytes(value), form)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message or a text belongs")  # noqa: TRY004 - it is the sender's mistake
    return value


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """A message's fields: number and value. https://protobuf.dev/programming-guides/encoding/"""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(raw, at)
            if at + size > len(raw):
                raise ValueError("ends in the middle of a field")
            yield number, raw[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not known")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 64:
        byte = raw[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (value - (1 << 64) if value >> 63 else value), at
    raise ValueError("ends in the middle of a number")
