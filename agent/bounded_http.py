"""HTTP exchanges that end: one deadline for all of an exchange, and a bound on its headers.

The timeout of requests is per recv: a server that sends a byte a second, header lines or `100 Continue` holds a request
for as long as it likes. Here the sockets themselves know when the exchange has to be over, so that whatever reads from
them (http.client, urllib3, TLS, a proxy's CONNECT) ends then. It refuses to resolve names within the deadline: that is
the system resolver's, which has timeouts of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

HEADER_BYTES = 64 << 10

_exchange = threading.local()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Everything that this thread sends and reads over our sockets in the block ends after so many seconds.

    Raises what a timeout raises there (`requests.RequestException`, `urllib3.exceptions.HTTPError`, `OSError`).
    """
    outer: float | None = getattr(_exchange, "ends", None)
    ends = time.monotonic() + seconds
    _exchange.ends = ends if outer is None else min(ends, outer)
    try:
        yield
    finally:
        _exchange.ends = outer


class _Socket(socket.socket):
    """Each read and write waits until its own timeout or the deadline, whichever is first. Also the base of TLS."""

    def recv(self, *args: Any) -> bytes:
        with self._limited():
            return super().recv(*args)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        with self._limited():
            return super().recv_into(*args, **kwargs)

    def send(self, *args: Any) -> int:
        with self._limited():
            return super().send(*args)

    def sendall(self, *args: Any) -> None:
        with self._limited():
            super().sendall(*args)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        ends: float | None = getattr(_exchange, "ends", None)
        if ends is None:
            yield
            return
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the exchange is over")
        before = self.gettimeout()
        if before is not None and before <= left:
            yield
            return
        self.settimeout(left)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # closed meanwhile
                self.settimeout(before)


class _TlsSocket(_Socket, ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        with self._limited():
            super().do_handshake(block)


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
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        bounded = _Socket(plain.family, plain.type, plain.proto, plain.detach())
        bounded.settimeout(timeout)
        return bounded


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


def bounded_session() -> requests.Session:
    """A session that reads nothing of the environment, to be used within `deadline`."""
    session = requests.Session()
    session.trust_env = False
    session.adapters.clear()
    adapter = BoundedAdapter(ssl_context=with_deadline(create_urllib3_context()))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def with_deadline(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, which from now on makes TLS sockets that keep the deadline."""
    context.sslsocket_class = _TlsSocket
    return context


def _pools(connection: type[BoundedConnection]) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools, over such connections, with TLS and without."""

    class TlsConnection(connection, HTTPSConnection):  # type: ignore[valid-type, misc]
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}
