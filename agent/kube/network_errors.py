"""Network failures: what requests, urllib3, http.client and ssl raise, as one error with a short message.

It refuses to repeat their messages, which carry URLs with queries.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator

import requests
import urllib3

from agent.kube.errors import Operation, Unreachable

# All that sending a request, or reading an answer, raises where the network is at fault.
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
# Nothing was sent: the connection was never there.
_UNSENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.ClosedPoolError,
)


def unreachable(operation: Operation, server: str, error: Exception, *, write: bool) -> Unreachable:
    """What a failure of the network means for an operation; a write that may have arrived is ambiguous."""
    chain = list(_chain(error))
    if why := _distrust(chain):
        return Unreachable(operation, f"the certificate of {server} is not trusted: {why}", repeatable=False)
    unsent = any(isinstance(link, _UNSENT) for link in chain)
    return Unreachable(operation, f"{server}: {_words(chain)}", ambiguous=write and not unsent)


def words(error: Exception) -> str:
    """A short message about a failure on the way to any server, without its URL."""
    chain = list(_chain(error))
    why = _distrust(chain)
    return f"the certificate is not trusted: {why}" if why else _words(chain)


def _distrust(chain: list[BaseException]) -> str:
    """Why the server's certificate is not accepted; empty where that is not the failure."""
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return link.verify_message
        if isinstance(link, urllib3.exceptions.SSLError) and "ingerprint" in str(link):
            return "it is not the one that was expected"
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that it wraps, by cause, reason or argument, outermost first."""
    todo, seen = [error], set[int]()
    while todo:
        link = todo.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        wrapped = [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
        todo += [inner for inner in wrapped if isinstance(inner, BaseException)]


def _words(chain: list[BaseException]) -> str:
    """A short message of the innermost error; the outer ones repeat it around a URL with its query."""
    for link in chain:
        if isinstance(link, urllib3.exceptions.NameResolutionError):
            return "the host's name does not resolve"
        if isinstance(link, urllib3.exceptions.NewConnectionError):
            # A ConnectTimeoutError by inheritance; what it wraps is more precise.
            continue
        if isinstance(link, requests.ConnectTimeout | urllib3.exceptions.ConnectTimeoutError):
            return "no connection in time"
        if isinstance(link, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError | TimeoutError):
            return "no answer in time"
        if isinstance(link, urllib3.exceptions.IncompleteRead | http.client.IncompleteRead):
            return "the connection was cut during the answer"
        if isinstance(link, http.client.RemoteDisconnected):
            return "the connection was cut before an answer"
    for link in reversed(chain):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror.lower()
    return type(chain[-1]).__name__
