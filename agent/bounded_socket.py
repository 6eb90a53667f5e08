"""Connections that end: one deadline for all that a thread does over them.

A socket's timeout begins again with each recv, and with each address that a name has. Here the sockets themselves know
when the exchange has to be over, so that whatever uses them (http.client, urllib3, TLS, a proxy's CONNECT) ends then.
The system resolver cannot be interrupted: it is waited for no longer than the deadline, and refuses to be started twice
for one name.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

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
    """A name's addresses, from the system resolver in a thread of its own; whoever needs the same name waits for it."""

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


def with_deadline(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, which from now on makes TLS sockets that keep the deadline."""
    context.sslsocket_class = _TlsSocket
    return context
