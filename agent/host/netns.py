"""Connections from inside a pod's network namespace, without a process in it.

A socket belongs to the namespace in which it was made, and a namespace to a thread: a short-lived thread enters each,
makes its sockets and ends, and no other thread is ever anywhere but where it was. Answers are cut at the limit, and one
deadline holds for all. https://man7.org/linux/man-pages/man2/setns.2.html
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.host.filesystem import opened

_CLONE_NEWNET = 0x40000000
_REPLY_BYTES = 2048
_REFUSED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EACCES, errno.EPERM)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Result(StrEnum):
    """How a connection went, as a finding names it."""

    OPEN = "open"
    REFUSED = "refused"
    TIMEOUT = "no answer"
    NO_ROUTE = "no route"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Connection:
    """result: of the connection. data: the first bytes that came back. error: for Result.ERROR."""

    result: Result
    data: bytes = b""
    error: str = ""


def exchange(
    namespaces: Sequence[str], address: str, port: int, request: bytes, *, timeout_seconds: float
) -> Mapping[str, Connection]:
    """One connection from each namespace, all at the same time; an empty request only connects.

    namespaces: paths such as /proc/812/ns/net, which are the keys of the result; those that are gone have none. Never
    raises.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: dict[str, socket.socket] = {}
    found: dict[str, Connection] = {}
    maker = threading.Thread(target=_make, args=(namespaces, family, made, found), name="netns", daemon=True)
    maker.start()
    maker.join()
    try:
        _run(made, found, (address, port), request, time.monotonic() + timeout_seconds)
    finally:
        for one in made.values():
            one.close()
    return found


def _make(namespaces: Sequence[str], family: int, made: dict[str, socket.socket], found: dict[str, Connection]) -> None:
    """In a thread of its own, which ends in the last namespace that it entered."""
    libc = ctypes.CDLL(None, use_errno=True)
    for path in namespaces:
        try:
            _enter(libc, path)
            made[path] = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            continue  # the pod has ended
        except OSError as error:
            # No connection was tried: EPERM here is a missing capability, and not a firewall.
            is_without_family = error.errno == errno.EAFNOSUPPORT
            result = Result.NO_ROUTE if is_without_family else Result.ERROR
            found[path] = Connection(result, error=os.strerror(error.errno or 0))


def _enter(libc: ctypes.CDLL, path: str) -> None:
    with opened(path, os.O_RDONLY) as fd:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _run(
    made: Mapping[str, socket.socket], found: dict[str, Connection], target: tuple[str, int], request: bytes,
    deadline: float,
) -> None:  # fmt: skip
    """Connects, sends, and reads until the header's end; what is still under way at the deadline had no answer."""
    got: dict[str, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for path, one in made.items():
            number = one.connect_ex(target)
            if number in (0, errno.EINPROGRESS):
                selector.register(one, selectors.EVENT_WRITE, path)
            else:
                found[path] = _failed(number)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                path, one = key.data, made[key.data]
                answer = _connected(one, request) if path not in got else _read(one, got[path])
                if answer is None:
                    got.setdefault(path, bytearray())
                    selector.modify(one, selectors.EVENT_READ, path)
                else:
                    selector.unregister(one)
                    found[path] = answer
    for path in made:
        late = Connection(Result.OPEN, bytes(got[path])) if path in got else Connection(Result.TIMEOUT)
        found.setdefault(path, late)


def _connected(one: socket.socket, request: bytes) -> Connection | None:
    """The answer where there is nothing to ask or the connection failed; None when the request is on its way."""
    number = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return _failed(number)
    if not request:
        return Connection(Result.OPEN)
    with contextlib.suppress(OSError):
        one.send(request)  # a few hundred bytes fit into an empty buffer; an error shows at the read
    return None


def _read(one: socket.socket, data: bytearray) -> Connection | None:
    try:
        chunk = one.recv(_REPLY_BYTES - len(data))
    except BlockingIOError:
        return None
    except OSError:
        return Connection(Result.OPEN, bytes(data))
    data += chunk
    return (
        None if chunk and len(data) < _REPLY_BYTES and b"\r\n\r\n" not in data else Connection(Result.OPEN, bytes(data))
    )


def _failed(number: int) -> Connection:
    if number in _REFUSED:
        return Connection(Result.REFUSED)
    if number == errno.ETIMEDOUT:
        return Connection(Result.TIMEOUT)
    return Connection(Result.NO_ROUTE) if number in _NO_ROUTE else Connection(Result.ERROR, error=os.strerror(number))
