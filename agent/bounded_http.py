"""HTTP exchanges that end: one deadline for all of an exchange, a bound on its headers, its body and what is in it.

The timeout of requests is per recv: a server that sends a byte a second, header lines or `100 Continue` holds a request
for as long as it likes; that of a connection begins again with each address that a name has. Here the sockets
themselves know when the exchange has to be over, so that whatever uses them (http.client, urllib3, TLS, a proxy's
CONNECT) ends then. The system resolver cannot be interrupted: it is waited for no longer than the deadline, and refuses
to be started twice for one name.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

HEADER_BYTES = 64 << 10
BODY_BYTES = 8 << 20
# Of Python's objects: an empty list takes 44 bytes for each byte of JSON, so a limit on the body alone bounds little.
DOCUMENT_BYTES = 48 << 20
_CHUNK = 1 << 16
# At most, with what it adds to the object around it; more where keys repeat and small numbers stand, never less.
_COSTS = ((b"{", 184), (b"[", 88), (b":", 75), (b",", 75))

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


def _seconds_left() -> float | None:
    """Until the deadline, None without one. Raises TimeoutError when it is over."""
    ends: float | None = getattr(_exchange, "ends", None)
    if ends is None:
        return None
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the exchange is over")
    return left


class _Lookup:
    """A name's addresses, from the system resolver in a thread of its own; a caller with the same name waits for it."""

    _running: ClassVar[dict[tuple[str, int], _Lookup]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, int]) -> None:
        self._key = key
        self._ended = threading.Event()
        self._found: list[Any] = []
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="resolver", daemon=True).start()

    @classmethod
    def addresses(cls, host: str, port: int) -> list[Any]:
        """What getaddrinfo finds before the deadline. Raises OSError, TimeoutError among them."""
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
        except socket.gaierror:
            pass  # a name, which takes time
        with cls._lock:
            lookup = cls._running.get((host, port)) or cls((host, port))
            cls._running[host, port] = lookup
        if not lookup._ended.wait(_seconds_left()):
            raise TimeoutError("the host's name is not resolved in time")
        if lookup._error is not None:
            raise lookup._error
        return lookup._found

    def _run(self) -> None:
        try:
            self._found = socket.getaddrinfo(*self._key, type=socket.SOCK_STREAM)
        except OSError as error:
            self._error = error
        finally:
            with self._lock:
                del self._running[self._key]
            self._ended.set()


class BoundedSocket(socket.socket):
    """Each wait ends with its own timeout or the deadline, whichever is first. Also the base of TLS."""

    def connect(self, address: Any) -> None:
        with self._limited():
            super().connect(address)

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
        left, before = _seconds_left(), self.gettimeout()
        if left is None or (before is not None and before <= left):
            yield
            return
        self.settimeout(left)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # closed meanwhile
                self.settimeout(before)


class _TlsSocket(BoundedSocket, ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        with self._limited():
            super().do_handshake(block)


def connect(host: str, port: int, timeout: float | None, options: Iterable[tuple[int, int, Any]]) -> BoundedSocket:
    """A connection to the first address of the host that takes one. Raises OSError: the last one's, or the name's."""
    failed = OSError("the host's name has no address")
    for family, kind, protocol, _, address in _Lookup.addresses(host, port):
        connected = BoundedSocket(family, kind, protocol)
        try:
            for option in options:
                connected.setsockopt(*option)
            connected.settimeout(timeout)
            connected.connect(address)
        except OSError as error:
            connected.close()
            failed = error
        else:
            return connected
    raise failed


class TooLarge(ValueError):
    """An answer is larger than what is read or parsed; the message names which."""


def read_body(raw: Any, limit_bytes: int = BODY_BYTES) -> bytes:
    """The whole body of urllib3's response. Raises TooLarge, and what reading raises."""
    body = bytearray()
    while chunk := raw.read1(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"an answer of more than {limit_bytes >> 20} MiB")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """The document. Raises TooLarge, before anything is parsed, for what could take too much memory; ValueError."""
    # One character beyond Latin-1 makes four bytes of each character in the text, and again in the value.
    width = 2 if body.isascii() and b"\\u" not in body else 8
    if len(body) * width + sum(body.count(mark) * cost for mark, cost in _COSTS) > DOCUMENT_BYTES:
        raise TooLarge(f"an answer that could take more than {DOCUMENT_BYTES >> 20} MiB of memory")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it nests too deep") from None


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
