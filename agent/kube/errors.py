"""What can go wrong between the agent and the API server, as a tree by status.

Every error names the object and the action, and carries the fields of the Status object. It refuses to carry tokens,
query strings or raw bodies: only a Status object's own message, or the first line of a plain-text answer, are shown.

    KubeError (agent/errors.py)
    ├── NoCredentials          the credentials are not available (token file, exec plugin)
    └── CallFailed             one operation; carries operation, status, reason, causes, ambiguous, attempts
        ├── Unreachable        no whole answer: network, TLS, timeout, cut connection
        ├── Malformed          an answer that is not valid: not JSON, a redirect
        │   └── ResponseTooLarge
        ├── Stopped            not sent: the client is closed
        └── Refused            the API server refused (405, 413, 415 … are this class itself)
            ├── Unauthorized   401
            ├── Forbidden      403
            ├── NotFound       404
            ├── Conflict       409
            │   └── AlreadyExists
            ├── Gone           410, list again
            ├── Invalid        400, 422
            ├── TooManyRequests 429, with retry_after_seconds
            └── ServerError    5xx

`ambiguous` is True when a write may have been done although no answer confirms it: read the object again first.
Source of the Status object's fields: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.bounded_http import parse_json
from agent.errors import KubeError

_PLAIN_TEXT_LIMIT = 200
_LONGEST_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One request, as errors, logs and metrics name it.

    method: of HTTP. verb: get, list, watch, create, update, patch, delete or evict. resource: the plural, with a
    subresource after a slash, or `nonresource`: few values, fit for a metric's label. subject: for messages, such as
    `pods/web-1 in shop`. path: of the URL, without its query.
    """

    method: str
    verb: str
    resource: str
    subject: str
    path: str

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"


class NoCredentials(KubeError):
    """The credentials are not available; the message names where they were expected."""


class CallFailed(KubeError):
    """One operation failed. `attempts`: how often it was tried. `causes`: messages of `details.causes` by reason."""

    def __init__(
        self,
        operation: Operation,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        causes: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(operation, message)
        self.operation = operation
        self.message = message
        self.status = status
        self.reason = reason
        self.causes = causes or {}
        self.retry_after_seconds = retry_after_seconds
        self.ambiguous = ambiguous
        self.attempts = 1

    def __str__(self) -> str:
        what = f"{self.status} {self.reason}".strip() if self.status else ""
        text = ": ".join(part for part in (str(self.operation), what, self.message) if part)
        if self.ambiguous:
            text += " (it may have been done)"
        return f"{text} ({self.attempts} attempts)" if self.attempts > 1 else text


class Unreachable(CallFailed):
    """No whole answer came. `repeatable` is False where another attempt does not help (an untrusted certificate)."""

    def __init__(self, operation: Operation, message: str, *, ambiguous: bool = False, repeatable: bool = True) -> None:
        super().__init__(operation, message, ambiguous=ambiguous)
        self.repeatable = repeatable


class Malformed(CallFailed):
    """The answer is not valid."""


class ResponseTooLarge(Malformed):
    """The answer is larger than what is read; a list can be read in smaller pages."""


class Stopped(CallFailed):
    """The client is closed: nothing was sent."""


class Refused(CallFailed):
    """The API server answered with a refusal. `is_transient`: the same request may succeed a moment later."""

    is_transient = False


class Unauthorized(Refused):
    """401: the token or certificate is not accepted."""


class Forbidden(Refused):
    """403: RBAC or admission refuses."""


class NotFound(Refused):
    """404. `names_object`: an object does not exist, rather than a path that the server does not serve."""

    names_object = False


class Conflict(Refused):
    """409: another client changed the object, or a precondition does not hold."""


class AlreadyExists(Conflict):
    """409 of a create."""


class Gone(Refused):
    """410: this resourceVersion or continue token is too old; list again."""


class Invalid(Refused):
    """400 or 422: the request or object is wrong; another attempt does not help."""


class TooManyRequests(Refused):
    """429: throttled, or a PodDisruptionBudget that allows no disruption (kube/eviction.py distinguishes them)."""

    is_transient = True


class ServerError(Refused):
    """5xx: the API server, or a proxy in front of it, has failed."""

    is_transient = True


_BRANCHES: Mapping[int, type[Refused]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def refusal(
    operation: Operation, status: int, headers: Mapping[str, str], body: bytes | bytearray, *, write: bool
) -> Refused:
    """The error for an HTTP answer of 400 and above.

    write: the operation changes something, so that a 5xx leaves open whether it was done (etcd may time out after it
    has stored, a proxy after it has passed the request on). A 429 is sent before anything is processed.
    """
    document = _status_object(body) or {"message": _first_line(headers.get("content-type", ""), body)}
    return _refused(operation, status, document, _seconds(headers.get("retry-after")), write)


def refusal_from(operation: Operation, document: Mapping[str, Any], *, write: bool) -> Refused:
    """The error for a Status object that came inside a successful answer or a watch; its own `code` decides."""
    code = document.get("code")
    return _refused(operation, code if isinstance(code, int) and code >= 400 else 500, document, None, write)


def _refused(
    operation: Operation, status: int, document: Mapping[str, Any], retry_after: float | None, write: bool
) -> Refused:
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    reason = text_or_empty(document.get("reason"))
    branch = _BRANCHES.get(status, ServerError if status >= 500 else Refused)
    if branch is Conflict and reason == "AlreadyExists":
        branch = AlreadyExists
    error = branch(
        operation,
        text_or_empty(document.get("message")),
        status=status,
        reason=reason,
        causes=_causes(details.get("causes")),
        retry_after_seconds=retry_after if retry_after is not None else _seconds(details.get("retryAfterSeconds")),
        ambiguous=write and branch is ServerError,
    )
    if isinstance(error, NotFound):
        error.names_object = bool(details.get("name"))
    return error


def _status_object(body: bytes | bytearray) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except ValueError:  # a UnicodeDecodeError is one too
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}


def _causes(values: object) -> dict[str, str]:
    entries = [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
    return {text_or_empty(one.get("reason")): text_or_empty(one.get("message")) for one in entries}


def text_or_empty(value: object) -> str:
    """A field of an object, empty where it is no text."""
    return value if isinstance(value, str) else ""


def _seconds(value: object) -> float | None:
    """Retry-After in seconds, an hour at most; the API server never sends a date, so that one is as good as none."""
    text = str(value).strip() if value is not None else ""
    seconds = float(text) if text.isascii() and text.isdigit() else 0.0
    return min(seconds, _LONGEST_RETRY_AFTER_SECONDS) if seconds > 0 else None


def _first_line(content_type: str, body: bytes | bytearray) -> str:
    """The first line of a text/plain answer (in-flight limit, kubelet); anything else may be a page, or ours."""
    if not content_type.startswith("text/plain"):
        return ""
    line = body[:_PLAIN_TEXT_LIMIT].decode(errors="replace").strip().partition("\n")[0]
    return "".join(letter for letter in line if letter.isprintable())
