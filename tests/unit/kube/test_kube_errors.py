"""Refusals become the right branch, say what a person needs, and never show what is not theirs to show."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from agent.errors import KubeError
from agent.kube import errors
from agent.kube.errors import Operation, refusal, refusal_from

PATCH = Operation("PATCH", "patch", "nodes", "nodes/worker-1", "/api/v1/nodes/worker-1")


def status(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return json.dumps({**body, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "branch"),
    [
        (400, "BadRequest", errors.Invalid),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.Refused),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (503, "ServiceUnavailable", errors.ServerError),
    ],
)
def test_each_status_is_its_own_branch(code: int, reason: str, branch: type[errors.Refused]) -> None:
    """The HTTP status, and the reason where two share one, decide the class."""
    error = refusal(PATCH, code, {}, status(code, reason, "why"), write=True)
    assert type(error) is branch
    assert isinstance(error, KubeError)
    assert (error.status, error.reason, error.message) == (code, reason, "why")


def test_a_refusal_names_action_object_and_reason() -> None:
    """One line tells what was done to what and why it failed."""
    error = refusal(PATCH, 409, {}, status(409, "Conflict", "the object has been modified"), write=True)
    assert str(error) == "patch nodes/worker-1: 409 Conflict: the object has been modified"
    error.attempts = 3
    assert str(error).endswith("(3 attempts)")


def test_causes_are_kept_and_broken_ones_are_left_out() -> None:
    """details.causes arrive as values; what is no cause does not break the error."""
    causes = [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.x"}, "odd", {"reason": 7}]
    error = refusal(PATCH, 422, {}, status(422, "Invalid", "bad", causes=causes), write=True)
    assert error.causes == {"FieldValueRequired": "Required value", "": ""}


@pytest.mark.parametrize(
    ("header", "detail", "expected"),
    [
        ("7", None, 7.0),
        (None, 9, 9.0),
        ("7", 9, 7.0),
        (None, None, None),
        ("Wed, 21 Oct", None, None),
        ("0", 0, None),
        ("9" * 5000, None, 3600.0),
        (None, 10**9, 3600.0),
    ],
)
def test_retry_after_is_read_from_header_or_details(header: str | None, detail: int | None, expected: float) -> None:
    """Seconds from Retry-After, else from the Status; a date or nothing is None."""
    headers = {} if header is None else {"retry-after": header}
    details = {} if detail is None else {"retryAfterSeconds": detail}
    error = refusal(PATCH, 429, headers, status(429, "TooManyRequests", "slow down", **details), write=True)
    assert error.retry_after_seconds == expected


@pytest.mark.parametrize(("code", "write", "expected"), [(500, True, True), (500, False, False), (429, True, False)])
def test_only_a_write_that_met_a_5xx_is_ambiguous(code: int, write: bool, expected: bool) -> None:
    """A 5xx may come after etcd has stored; a 429 and a read never change anything."""
    error = refusal(PATCH, code, {}, status(code), write=write)
    assert error.ambiguous is expected
    assert ("may have been done" in str(error)) is expected


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (
            "text/plain; charset=utf-8",
            b"Too many requests, please try again later.\nmore",
            "Too many requests, please try again later.",
        ),
        ("text/html", b"<html><body>secret page</body></html>", ""),
        ("application/json", b'{"token": "secret"}', ""),
        ("application/json", b'{"kind": "Status", ', ""),
        ("application/json", b"\xff\xfe", ""),
        ("text/plain", b"\x1b[31mred\x00", "[31mred"),
    ],
)
def test_other_bodies_are_not_repeated(content_type: str, body: bytes, expected: str) -> None:
    """Only a Status's words, or one line of plain text, get into a message."""
    assert refusal(PATCH, 502, {"content-type": content_type}, body, write=True).message == expected


@pytest.mark.parametrize(("details", "expected"), [({"name": "worker-1", "kind": "nodes"}, True), ({}, False)])
def test_a_missing_object_is_told_from_a_missing_path(details: dict[str, str], expected: bool) -> None:
    """A 404 for a path that the server does not serve names no object."""
    error = refusal(PATCH, 404, {}, status(404, "NotFound", "not found", **details), write=True)
    assert isinstance(error, errors.NotFound)
    assert error.names_object is expected


@pytest.mark.parametrize(
    ("code", "branch"), [(410, errors.Gone), (None, errors.ServerError), (200, errors.ServerError)]
)
def test_a_status_inside_an_answer_is_judged_by_its_code(code: int | None, branch: type[errors.Refused]) -> None:
    """Watches and evictions carry refusals inside a 2xx; one without a code is a failure of the server."""
    assert type(refusal_from(PATCH, {"kind": "Status", "code": code, "message": "m"}, write=False)) is branch


def test_errors_survive_pickling() -> None:
    """pytest-xdist and multiprocessing carry exceptions by pickle."""
    error = refusal(PATCH, 429, {}, status(429, "TooManyRequests", "slow down"), write=True)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
