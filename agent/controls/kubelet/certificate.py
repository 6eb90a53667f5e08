"""Whether a serving certificate was issued by another than its holder: the first certificate of a PEM file."""

from __future__ import annotations

import re

from agent.controls.x509 import NotACertificate, certificates

__all__ = ["NotACertificate", "self_signed"]

# certutil.GenerateSelfSignedCertKey makes a throw-away CA called HOST-ca@SECONDS for the kubelet's own certificate.
_OWN_CA = re.compile(rb"-ca@[0-9]{6,}$")


def self_signed(pem: bytes) -> bool:
    """Whether the holder, or a CA that the kubelet made for this one certificate, signed it. Raises NotACertificate."""
    first = certificates(pem)[0]
    return first.self_issued or _OWN_CA.search(first.issuer) is not None
