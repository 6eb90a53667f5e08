"""One attempt of one request: sent, worth a retry, or refused for good.

Follows no redirects, reads neither ~/.netrc nor the environment's CA variables, and never puts a URL in an error.
Proxies of the environment are used, because chat services are outside the cluster.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # typeshed leaves it out

import requests

from agent import __version__
from agent.bounded_http import bounded_session
from agent.bounded_socket import deadline
from agent.config.loader import read_whole
from agent.errors import AgentError
from agent.kube.network_errors import NETWORK, words

_SECRET_LIMIT = 16 << 10
_ANSWER_LIMIT = 16 << 10
_LONGEST_RETRY_AFTER_SECONDS = 300.0
# `no_service`, `channel_is_archived`, `Invalid routing key`: words alone cannot contain a URL or a key.
_HARMLESS = re.compile(rb"[A-Za-z][A-Za-z_ ,.']{1,79}")
_LATER = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Post:
    """One request. The URL and what identifies us in the body are secrets; neither is in the repr."""

    url: str = field(repr=False)
    body: Any = field(repr=False)
    refused_text: str = ""  # a response that begins so is a refusal, whatever its status


class NotSent(AgentError):
    """One attempt failed. is_final: a retry is useless. after_seconds: the receiver's Retry-After."""

    def __init__(self, message: str, *, is_final: bool = False, after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.is_final = is_final
        self.after_seconds = after_seconds


def secret(path: str) -> str:
    """A secret's one line, read for each attempt: it may have been rotated. Raises NotSent, worth a retry."""
    try:
        text = read_whole(path, _SECRET_LIMIT).decode().strip()
    except OSError as error:
        raise NotSent(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NotSent(f"{path} is not text") from error
    if not text or not text.isprintable():
        raise NotSent(f"{path} should hold one line with the secret, and nothing else")
    return text


def url_in(path: str) -> str:
    """A URL from its file. Raises NotSent without it."""
    text = secret(path)
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or " " in text:
        raise NotSent(f"{path} holds no http or https URL")
    return text


def send(post: Post, *, timeout_seconds: float, environment: Mapping[str, str]) -> None:
    """Sends it once. Raises NotSent. environment: for its proxies."""
    headers = {
        "User-Agent": f"node-hardening-agent/{__version__}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }
    with bounded_session() as session, deadline(timeout_seconds):
        session.proxies = dict(proxies(post.url, environment))
        try:
            with session.post(
                post.url,
                data=json.dumps(post.body).encode(),
                headers=headers,
                timeout=timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                _judge(post, response, _answer(response))
        except NETWORK as error:
            raise NotSent(words(error)) from None  # its text carries the URL
        except ValueError as error:
            raise NotSent(f"invalid request ({type(error).__name__})", is_final=True) from None


def _answer(response: requests.Response) -> bytes:
    """The beginning of the response, as far as it arrives in time."""
    body = bytearray()
    with contextlib.suppress(*NETWORK):  # the status is there, and that decides
        while len(body) < _ANSWER_LIMIT and (chunk := response.raw.read1(4096, decode_content=False)):
            body += chunk
    return bytes(body)


def _judge(post: Post, response: requests.Response, body: bytes) -> None:
    status = response.status_code
    if post.refused_text and body.startswith(post.refused_text.encode()):
        raise NotSent(f"refused in a response with status {status}")
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise NotSent(f"redirect ({status}) not followed: is the URL right?", is_final=True)
    reason = _HARMLESS.fullmatch(body.strip())
    message = f"HTTP status {status}" + (f": {reason.group().decode()}" if reason else "")
    raise NotSent(
        message,
        is_final=status < 500 and status not in _LATER,
        after_seconds=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(text: str) -> float:
    """Seconds; a date counts as none."""
    text = text.strip()
    return min(float(text), _LONGEST_RETRY_AFTER_SECONDS) if text.isascii() and text.isdigit() else 0.0


def proxies(url: str, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The proxy for a URL by HTTP(S)_PROXY, ALL_PROXY and NO_PROXY; loopback is always reached directly."""
    known = {name.lower(): text for name, text in environment.items() if name.lower().endswith("_proxy") and text}
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass_environment(host, {"no": known.get("no_proxy", "")}):
        return {}
    proxy = known.get(f"{parts.scheme}_proxy") or known.get("all_proxy")
    return {parts.scheme: proxy} if proxy else {}
