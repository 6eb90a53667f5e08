"""What the checks need to know of X.509 certificates: names, validity, serial, key. Nothing is verified.

Just enough DER to reach them; the image carries no library for it. Anything else than a certificate raises.
https://www.rfc-editor.org/rfc/rfc5280#section-4.1
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----")
_MAX_CERTIFICATES = 256
_OID_COMMON_NAME, _OID_ORGANIZATION = b"\x55\x04\x03", b"\x55\x04\x0a"
# certutil.GenerateSelfSignedCertKey makes a throw-away CA called HOST-ca@SECONDS for the kubelet's own certificate.
_OWN_CA = re.compile(rb"-ca@[0-9]{6,}$")
_UTC_TIME, _VERSION, _BMP_STRING = 0x17, 0xA0, 0x1E


class NotACertificate(ValueError):
    """The content holds no certificate that can be read."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. Times are seconds since the epoch. key: SHA-256 of its public key, which two forms of one CA
    share. issuer, subject: raw DER. is_ca is left to the caller: it is a matter of where the file is used."""

    serial: int
    not_before: float
    not_after: float
    issuer: bytes
    subject: bytes
    key: str
    common_name: str
    organizations: tuple[str, ...]

    @property
    def self_issued(self) -> bool:
        """Whether holder and issuer have the same name."""
        return self.issuer == self.subject


def certificates(pem: bytes) -> tuple[Certificate, ...]:
    """Every certificate of a PEM file. Raises NotACertificate when there is none, or one cannot be read."""
    found: list[Certificate] = []
    for block in _PEM.finditer(pem):
        if len(found) == _MAX_CERTIFICATES:
            raise NotACertificate(f"there are more than {_MAX_CERTIFICATES} certificates in it")
        try:
            found.append(parse(base64.b64decode(b"".join(block[1].split()), validate=True)))
        except binascii.Error as error:
            raise NotACertificate("one of its certificates cannot be read") from error
    if not found:
        raise NotACertificate("there is no certificate in it")
    return tuple(found)


def is_self_signed(pem: bytes) -> bool:
    """Whether the holder of a file's first certificate signed it, or a CA that a kubelet made for that one alone.

    Raises NotACertificate.
    """
    first = certificates(pem)[0]
    return first.self_issued or _OWN_CA.search(first.issuer) is not None


def has_private_key(content: bytes) -> bool:
    """Whether a file holds a private key in PEM, whatever it is called."""
    return _PRIVATE_KEY.search(content) is not None


def parse(der: bytes) -> Certificate:
    """One certificate. Raises NotACertificate."""
    try:
        parts = list(_elements(_first(_first(der))))
        at = 1 if parts[0][0] == _VERSION else 0
        serial, issuer, validity, subject, key = (parts[at + offset] for offset in (0, 2, 3, 4, 5))
        begins, ends = (_time(tag, content) for tag, content, _ in list(_elements(validity[1]))[:2])
        names = list(_attributes(subject[1]))
    except (IndexError, StopIteration, ValueError, OverflowError) as error:
        raise NotACertificate("one of its certificates cannot be read") from error
    return Certificate(
        int.from_bytes(serial[1], "big", signed=True), begins, ends, issuer[2], subject[2],
        hashlib.sha256(key[2]).hexdigest(),
        next((value for oid, value in names if oid == _OID_COMMON_NAME), ""),
        tuple(value for oid, value in names if oid == _OID_ORGANIZATION),
    )  # fmt: skip


def _first(data: bytes) -> bytes:
    return next(_elements(data))[1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, content and the whole of each element. Raises IndexError when the data ends early."""
    at = 0
    while at < len(data):
        length, start = data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        end = start + length
        if end > len(data):
            raise IndexError(length)
        yield data[at], data[start:end], data[at:end]
        at = end


def _attributes(name: bytes) -> Iterator[tuple[bytes, str]]:
    for _, relative, _ in _elements(name):
        for _, attribute, _ in _elements(relative):
            (_, oid, _), (tag, value, _) = list(_elements(attribute))[:2]
            yield oid, value.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", errors="replace")


def _time(tag: int, content: bytes) -> float:
    """YYYYMMDDHHMMSSZ, or with two digits of the year. (strptime would load `calendar`.)"""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    if len(text) != len("20261128161500Z") or not text[:-1].isdecimal() or text[-1] != "Z":
        raise ValueError(f"not a time of a certificate: {text[:40]!r}")
    # Not strptime, which loads calendar and locale: 300 KiB on every node.
    return datetime.fromisoformat(f"{text[:8]}T{text[8:14]}+00:00").timestamp()
