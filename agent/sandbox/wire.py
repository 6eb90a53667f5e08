"""Bodies and media types: what a request carries, what its sender accepts, how an answer is written.

It refuses what the real server refuses (406, 413, 415) and offers JSON only; YAML is read, never written.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from agent.sandbox import status_errors
from agent.sandbox.status_errors import ApiError, Object, encode

BODY_LIMIT = 3 * 1024 * 1024
GZIP_FROM = 128 * 1024
JSON_TYPES = "application/json, application/yaml"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, before faults had their way with it."""

    code: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


NO_PAGE = Response(404, b"404 page not found\n", "text/plain")


def negotiate(accept: str) -> str:
    """The form that the client wants, of the first media type of an Accept header that can be served.

    It is empty, Table, PartialObjectMetadata or PartialObjectMetadataList.

    Raises ApiError: 406.
    """
    for choice in accept.split(",") if accept.strip() else ["*/*"]:
        media, *rest = (part.strip() for part in choice.split(";"))
        options = dict(part.split("=", 1) for part in rest if "=" in part)
        if media not in ("application/json", "*/*", "application/*", "text/plain"):
            continue
        shape = options.get("as", "")
        if not shape:
            return ""
        known = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
        if shape in known and options.get("g") == "meta.k8s.io" and options.get("v") == "v1":
            return shape
    raise status_errors.not_acceptable(JSON_TYPES)


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body. Raises ApiError: 413 beyond three mebibytes."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = f"Request entity too large: limit is {BODY_LIMIT}"
        raise ApiError(413, "RequestEntityTooLarge", message, details=False) from error


def parse_body(raw: bytes, content_type: str) -> Any:
    """A JSON or YAML body as values; an empty one is None. Raises ApiError: 400 or 415."""
    media = content_type.partition(";")[0].strip()
    if media not in ("", "application/json", "application/yaml", "application/octet-stream", "*/*"):
        raise status_errors.unsupported_media_type(JSON_TYPES)
    if not raw.strip():
        return None
    if media != "application/yaml":
        return parse_json(raw)
    try:
        values = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise status_errors.bad_request(f"error decoding YAML: {error}") from error
    # The JSON decoder takes the kind from the path; the YAML one wants to read it.
    if not isinstance(values, dict) or not values.get("kind") or not values.get("apiVersion"):
        raise status_errors.bad_request("Object 'Kind' is missing in the document")
    return values


def parse_json(raw: bytes) -> Any:
    """JSON. Raises ApiError: 400."""
    try:
        return json.loads(raw)
    except ValueError as error:
        raise status_errors.bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def refusal(error: ApiError) -> Response:
    """A refusal as an answer."""
    headers = (("Retry-After", str(error.retry_after)),) if error.retry_after else ()
    return Response(error.code, encode(error.body()), headers=headers)


def document(value: Object, code: int = 200) -> Response:
    """Any JSON object as an answer."""
    return Response(code, encode(value))


def response(answer: Response, accept_encoding: str, warnings: list[str]) -> web.Response:
    """The HTTP response; large ones are compressed for those who accept it, as the real server does."""
    body = answer.body
    result = web.Response(status=answer.code, content_type=answer.content_type)
    for name, value in answer.headers:
        result.headers[name] = value
    for warning in warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        result.headers.add("Warning", f'299 - "{escaped}"')
    result.headers["Cache-Control"] = "no-cache, private"
    if len(body) > GZIP_FROM and "gzip" in accept_encoding:
        body = gzip.compress(body, compresslevel=1)
        result.headers["Content-Encoding"] = "gzip"
        result.headers["Vary"] = "Accept-Encoding"
    result.body = body
    return result
