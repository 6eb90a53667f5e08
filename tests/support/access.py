"""Access to a test's API server, known by its URL."""

from __future__ import annotations

from agent.kube.credentials import Access, Fixed, StoredCredentials, Trust


def direct(server: str, *, token: str = "", authority: bytes = b"", namespace: str = "default") -> Access:
    """With a token or none, a PEM authority or none."""
    return Access(
        server,
        Trust(Fixed(authority) if authority else None),
        StoredCredentials(Fixed(token.encode()) if token else None),
        namespace,
    )
