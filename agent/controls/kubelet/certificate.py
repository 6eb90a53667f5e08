"""Whether a serving certificate was issued by another than its holder: the first certificate of a PEM file.

Just enough DER to reach issuer and subject; nothing is verified. The image carries no X.509 library for it.
https://www.rfc-editor.org/rfc/rfc5280#section-4.1
"""

from __future__ import annotations

import base64
import binascii
import re

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# certutil.GenerateSelfSignedCertKey makes a throw-away CA called HOST-ca@SECONDS for the kubelet's own certificate.
_OWN_CA = re.compile(rb"-ca@[0-9]{6,}$")
_COMMON_NAME = b"\x06\x03\x55\x04\x03"


class NotACertificate(ValueError):
    """The file holds no certificate that can be read."""


def self_signed(pem: bytes) -> bool:
    """Whether the holder, or a CA that the kubelet made for this one certificate, signed it. Raises NotACertificate."""
    found = _PEM.search(pem)
    if found is None:
        raise NotACertificate("there is no certificate in it")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True)
        issuer, subject = _names(der)
    except (binascii.Error, IndexError) as error:
        raise NotACertificate("its first certificate cannot be read") from error
    return issuer == subject or _OWN_CA.search(_common_name(issuer)) is not None


def _names(der: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject, raw, out of Certificate { TBSCertificate { [0] version?, serial, algorithm, issuer, … } }."""
    body = _content(_content(der)[1])[1]
    tag, _, rest = _element(body)
    if tag == 0xA0:
        _, _, rest = _element(rest)  # the version was there: this was the serial
    _, _, rest = _element(rest)  # the algorithm
    _, issuer, rest = _element(rest)
    _, _, rest = _element(rest)  # validity
    _, subject, _ = _element(rest)
    return issuer, subject


def _content(data: bytes) -> tuple[int, bytes]:
    tag, content, _ = _element(data)
    return tag, content


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows. Raises IndexError when the data ends early."""
    length, start = data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise IndexError(length)
    return data[0], data[start : start + length], data[start + length :]


def _common_name(name: bytes) -> bytes:
    at = name.rfind(_COMMON_NAME)
    if at < 0:
        return b""
    _, content, _ = _element(name[at + len(_COMMON_NAME) :])
    return content
