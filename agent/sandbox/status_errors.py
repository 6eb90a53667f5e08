"""The emulated API server's refusals: Status objects with the real server's reasons and words.

Clients branch on ``reason``, ``details`` and at times on the message, so the wording follows
apimachinery's pkg/api/errors. This module decides nothing: who raises an error knows why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


def encode(value: Any) -> bytes:
    """Compact JSON, as the wire has it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of ``details.causes``; an empty part is left out of the body."""

    reason: str = ""
    message: str = ""
    field: str = ""

    def body(self) -> Object:
        """The cause as the API writes it."""
        pairs = {"reason": self.reason, "message": self.message, "field": self.field}
        return {key: value for key, value in pairs.items() if value}


@dataclass(slots=True)
class ApiError(Exception):
    """A refusal that becomes an HTTP answer; raised anywhere below the HTTP handlers.

    ``retry_after`` is in seconds and is sent both as a header and in the details, as the real server does.
    """

    code: int
    reason: str
    message: str
    group: str = ""
    kind: str = ""
    name: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after: int = 0
    continue_token: str = ""
    details: bool = True

    def __str__(self) -> str:
        """The message alone."""
        return self.message

    def body(self) -> Object:
        """The Status object (kind, apiVersion, metadata, status, message, reason, details, code)."""
        details: Object = {
            "name": self.name,
            "group": self.group,
            "kind": self.kind,
            "causes": [cause.body() for cause in self.causes],
            "retryAfterSeconds": self.retry_after,
        }
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = {key: value for key, value in details.items() if value}
        status["code"] = self.code
        return status


@dataclass(frozen=True, slots=True)
class Who:
    """What an error is about: ``resource`` is the plural (``nodes``) and ``kind`` the kind (``Node``)."""

    group: str
    resource: str
    kind: str

    @property
    def qualified(self) -> str:
        """``leases.coordination.k8s.io``; the core group adds nothing."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def qualified_kind(self) -> str:
        """``Lease.coordination.k8s.io``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"


def not_found(who: Who, name: str) -> ApiError:
    """404."""
    message = f'{who.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, group=who.group, kind=who.resource, name=name)


def unknown_path() -> ApiError:
    """404 for a resource that the server does not serve."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(who: Who, name: str, *, deleting: bool = False) -> ApiError:
    """409 for a create."""
    prefix = "object is being deleted: " if deleting else ""
    message = f'{prefix}{who.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, group=who.group, kind=who.resource, name=name)


def conflict(who: Who, name: str, why: str = OPTIMISTIC_LOCK) -> ApiError:
    """409 for an update, a patch or a delete."""
    message = f'Operation cannot be fulfilled on {who.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, group=who.group, kind=who.resource, name=name)


def forbidden(who: Who, name: str, why: str, causes: tuple[Cause, ...] = ()) -> ApiError:
    """403."""
    subject = f'{who.qualified} "{name}" is forbidden' if name else f"{who.qualified} is forbidden"
    message = f"{subject}: {why}"
    return ApiError(403, "Forbidden", message, group=who.group, kind=who.resource, name=name, causes=causes)


def forbidden_path(why: str) -> ApiError:
    """403 for a path that is no resource."""
    return ApiError(403, "Forbidden", f"forbidden: {why}")


def unauthorized() -> ApiError:
    """401; the real one has no details either."""
    return ApiError(401, "Unauthorized", "Unauthorized", details=False)


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message, details=False)


def invalid(who: Who, name: str, causes: list[Cause]) -> ApiError:
    """422 with one cause a field; the message lists them as the real server does."""
    texts: list[str] = []
    for cause in causes:
        text = f"{cause.field}: {cause.message}"
        if text not in texts:
            texts.append(text)
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{who.qualified_kind} "{name}" is invalid: {listed}'
    return ApiError(422, "Invalid", message, group=who.group, kind=who.kind, name=name, causes=tuple(causes))


def method_not_allowed() -> ApiError:
    """405."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_acceptable(accepted: str) -> ApiError:
    """406."""
    message = f"406: Not Acceptable\n\nAvailable representations: {accepted}"
    return ApiError(406, "NotAcceptable", message)


def unsupported_media_type(accepted: str) -> ApiError:
    """415."""
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return ApiError(415, "UnsupportedMediaType", message, details=False)


def too_many_requests(message: str, retry_after: int, causes: tuple[Cause, ...] = ()) -> ApiError:
    """429; ``retry_after`` 0 sends no Retry-After."""
    return ApiError(429, "TooManyRequests", message, retry_after=retry_after, causes=causes)


def expired(message: str, continue_token: str = "") -> ApiError:
    """410 with the reason Expired."""
    return ApiError(410, "Expired", message, continue_token=continue_token, details=False)


def timeout(message: str, retry_after: int, causes: tuple[Cause, ...] = ()) -> ApiError:
    """504."""
    return ApiError(504, "Timeout", f"Timeout: {message}", retry_after=retry_after, causes=causes)


def success(who: Who | None = None, name: str = "", uid: str = "") -> Object:
    """The Status of a delete or an eviction that went well."""
    body: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if who is not None:
        details = {"name": name, "group": who.group, "kind": who.resource, "uid": uid}
        body["details"] = {key: value for key, value in details.items() if value}
    return body
