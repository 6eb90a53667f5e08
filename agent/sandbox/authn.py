"""Who is asking: bearer tokens to users, with tokens for service accounts that expire and can be revoked.

An unknown token is always a 401, also where anonymous requests are let in. Nothing here decides what a user may do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.sandbox import status_errors
from agent.sandbox.status_errors import Object

AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """What a token stands for; ``extra`` is what admission policies can read (the node's name, the pod's)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all_groups(self) -> tuple[str, ...]:
        """The user's own groups and the one that everybody known is in."""
        return (*self.groups, AUTHENTICATED)

    def info(self) -> Object:
        """The API's UserInfo, as reviews and admission policies have it."""
        extra = {key: list(values) for key, values in self.extra.items()}
        found = {"username": self.name, "uid": self.uid, "groups": list(self.all_groups), "extra": extra}
        return {key: value for key, value in found.items() if value}


ADMIN = User("sandbox-admin", (MASTERS,))


class Authenticator:
    """The tokens that the server knows."""

    def __init__(self, clock: Callable[[], datetime], anonymous: User | None) -> None:
        """``anonymous`` is who a request without a token is; None refuses it with 401."""
        self._clock = clock
        self._anonymous = anonymous
        self._grants: dict[str, tuple[User, datetime | None]] = {}

    def add(self, token: str, user: User, expires: datetime | None = None) -> None:
        """Let a token in; without ``expires`` it never ends."""
        self._grants[token] = user, expires

    def revoke(self, token: str) -> None:
        """Refuse a token from now on."""
        self._grants.pop(token, None)

    def issue(self, user: User, seconds: int) -> tuple[str, datetime]:
        """A new token for ``seconds``, and when it ends."""
        token = f"sandbox-{secrets.token_urlsafe(24)}"
        expires = self._clock() + timedelta(seconds=seconds)
        self.add(token, user, expires)
        return token, expires

    def authenticate(self, authorization: str | None) -> User:
        """The user of an Authorization header. Raises ApiError: 401."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            if self._anonymous is None:
                raise status_errors.unauthorized()
            return self._anonymous
        user, expires = self._grants.get(token, (None, None))
        if user is None or (expires is not None and expires <= self._clock()):
            raise status_errors.unauthorized()
        return user


def service_account(
    namespace: str, name: str, uid: str = "", extra: Mapping[str, tuple[str, ...]] | None = None
) -> User:
    """The user that a service account's token stands for."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra or {})
