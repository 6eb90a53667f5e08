"""HTTP exchanges that end: within a deadline (bounded_socket), with bounded headers, body and what is in it.

The timeout of requests is per recv: a server that sends a byte a second, header lines or `100 Continue` holds a request
for as long as it likes.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from agent.bounded_socket import connect, with_deadline

HEADER_BYTES = 64 << 10
BODY_BYTES = 8 << 20
# Of Python's objects: a list in a list takes 44 bytes for each byte of JSON, so a limit on the body is not enough. Of
# all answers together, from the first byte until the document is dropped (every thread may read one), and of what
# informers keep of them.
DOCUMENT_BYTES = 40 << 20
# Below this an answer is not counted, so that the usual ones never wait for each other.
SMALL_BYTES = 1 << 20
_WAIT_SECONDS = 2.0
_CHUNK = 1 << 16
_LARGEST_TOP = 100
# At most, with what it adds to the object around it; more where keys repeat and small numbers stand, never less.
_COSTS = ((b"{", 184), (b"[", 88), (b":", 75), (b",", 75))


class TooLarge(ValueError):
    """An answer is larger than what is read or parsed; the message has the limit."""


class Claim:
    """A part of DOCUMENT_BYTES, until it is dropped."""

    _free = threading.Condition()  # re-entrant: the collector may drop a claim while its thread makes another
    _taken = 0

    def __init__(self) -> None:
        self._bytes = 0

    def hold(self, size: int) -> None:
        """So many bytes from now on. Raises TooLarge where others do not drop theirs in time: it is as before then."""
        size = size if size > SMALL_BYTES else 0
        with self._free:
            # The amount, not the order, decides: two that wait for each other give up, and drop theirs.
            if size > self._bytes and not self._free.wait_for(
                lambda: Claim._taken - self._bytes + size <= DOCUMENT_BYTES, _WAIT_SECONDS
            ):
                raise TooLarge(f"answers that could take more than {DOCUMENT_BYTES >> 20} MiB of memory together")
            Claim._taken += size - self._bytes
            self._bytes = size
            self._free.notify_all()

    def __del__(self) -> None:
        self.hold(0)


def kept_bytes(value: object) -> int:
    """The memory of what is kept of an answer: texts, numbers, lists, mappings and dataclasses of them."""
    if isinstance(value, str):
        return 60 + len(value) * (1 if value.isascii() else 4)
    if isinstance(value, Mapping):
        return 240 + sum(100 + kept_bytes(key) + kept_bytes(one) for key, one in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 80 + sum(8 + kept_bytes(one) for one in value)
    if dataclasses.is_dataclass(value):
        return sum(kept_bytes(getattr(value, one.name)) for one in dataclasses.fields(value))
    return 32


class Body(bytearray):
    """The bytes of an answer."""

    def __init__(self, limit_bytes: int = BODY_BYTES) -> None:
        super().__init__()
        self._limit = limit_bytes
        self.claim = Claim()

    def add(self, chunk: bytes) -> None:
        """More of it. Raises TooLarge."""
        size = len(self) + len(chunk)
        is_within = size <= self._limit
        try:
            self.claim.hold(size if is_within else 0)
        except TooLarge:
            self.clear()  # the error may be kept, and this with its frames
            self.claim.hold(0)
            raise
        if not is_within:
            self.clear()
            raise TooLarge(f"an answer of more than {self._limit >> 20} MiB")
        self += chunk


class Document(dict[str, Any]):
    """A JSON object, to be kept for as long as any part of it is used."""

    claim: Claim


def read_body(raw: Any, limit_bytes: int = BODY_BYTES) -> Body:
    """The whole body of urllib3's response. Raises TooLarge, and what reading raises."""
    body = Body(limit_bytes)
    while chunk := raw.read1(_CHUNK, decode_content=False):
        body.add(chunk)
    return body


def memory_of(body: bytes | bytearray) -> int:
    """The bytes that a JSON document could take as text and parsed."""
    # One character beyond Latin-1 makes four bytes of each character in the text, and again in the value.
    width = 2 if body.isascii() and b"\\u" not in body else 8
    return len(body) * width + sum(body.count(mark) * cost for mark, cost in _COSTS)


def parse_json(body: bytes | bytearray) -> Any:
    """The document. Raises TooLarge, before anything is parsed, for what could take too much memory; ValueError."""
    claim = body.claim if isinstance(body, Body) else Claim()
    try:
        return _parsed(body, memory_of(body), claim)
    except ValueError:
        claim.hold(0)
        raise


def _parsed(body: bytes | bytearray, size: int, claim: Claim) -> Any:
    if size > DOCUMENT_BYTES:
        raise TooLarge(f"an answer that could take more than {DOCUMENT_BYTES >> 20} MiB of memory")
    claim.hold(size)
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if size <= SMALL_BYTES:
        return document
    if not isinstance(document, dict) or len(document) > _LARGEST_TOP:
        raise ValueError("it is large, and not an object of a few keys")
    kept = Document(document)
    kept.claim = claim
    return kept


class _HeaderReader:
    """Lines up to the end of the headers, of at most HEADER_BYTES together, interim answers (1xx) included."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = HEADER_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"more than {HEADER_BYTES >> 10} KiB of headers")
        return line

    def close(self) -> None:
        self._file.close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        file: Any = self.fp
        self.fp = _HeaderReader(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # None: there is no body, and the file is closed
                self.fp = file


class BoundedConnection(HTTPConnection):
    """A connection over our sockets; also the base of those with TLS."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        try:
            return connect(self._dns_host.strip("[]"), self.port, self.timeout, self.socket_options or ())
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class BoundedAdapter(HTTPAdapter):
    """What `requests` sends through: sockets with a deadline, bounded headers."""

    def __init__(
        self, *, pool_size: int = 1, connection: type[BoundedConnection] = BoundedConnection, **pool_options: Any
    ) -> None:
        """pool_options: for urllib3's pools."""
        self._options = pool_options
        self._classes = _pools(connection)
        super().__init__(pool_connections=1, pool_maxsize=pool_size)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **kwargs, **self._options)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        context = with_deadline(create_urllib3_context())
        context.load_default_certs()
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=context, **kwargs, **self._options)
        manager.pool_classes_by_scheme = self._classes
        return manager


class OwnTrustAdapter(BoundedAdapter):
    """The authorities are those of its TLS context; the certificate settings of requests do not apply."""

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the context has the authorities, and certifi's must not join them."""


def bounded_session(adapter: BoundedAdapter | None = None) -> requests.Session:
    """A session that reads nothing of the environment, to be used within `deadline`."""
    session = requests.Session()
    session.trust_env = False
    session.adapters.clear()
    adapter = adapter or BoundedAdapter(ssl_context=with_deadline(create_urllib3_context()))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _pools(connection: type[BoundedConnection]) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools, over such connections, with TLS and without."""

    class TlsConnection(connection, HTTPSConnection):  # type: ignore[valid-type, misc]
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}
