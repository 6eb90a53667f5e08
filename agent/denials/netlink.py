"""The kernel's three netlink services that are read: audit records, audit's state, and processes that begin.

All need the node's own network namespace: in another one `bind` succeeds and nothing ever arrives. It sends two
questions (AUDIT_GET, AUDIT_LIST_RULES) and a subscription to process events, and nothing that changes the node.
https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/audit.h, include/uapi/linux/cn_proc.h
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.denials.records import LARGEST_BYTES
from agent.errors import HostError

_AUDIT, _CONNECTOR = 9, 11  # NETLINK_AUDIT, NETLINK_CONNECTOR
_READLOG = 1  # AUDIT_NLGRP_READLOG
_SO_RCVBUFFORCE = 33
RECEIVE_BYTES: Final = 4 << 20  # the default holds some 170 records
_CONNECTOR_BYTES = 1 << 20
_EVENT_BYTES = 1024
_DRAINED = 16384
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_GET, _LIST_RULES = 1000, 1013
_DONE, _ERROR, _REQUEST = 3, 2, 1
_ANSWER_SECONDS = 1.0
_ANSWERS = 1024
_STATUS = struct.Struct("=8I")  # audit_status: mask enabled failure pid rate_limit backlog_limit lost backlog
_RULE = struct.Struct("=3I64I64I64I")  # audit_rule_data up to values: flags, action, field_count, mask, fields
_EXCLUDE, _MSGTYPE = 5, 12  # AUDIT_FILTER_EXCLUDE, AUDIT_MSGTYPE
_PROCESSES = 1  # CN_IDX_PROC, CN_VAL_PROC
_CONNECTOR_MESSAGE = struct.Struct("=IIIIHH")  # cn_msg
_EVENT = struct.Struct("=IIQ4I")  # proc_event: what, cpu, time, the first four numbers
_LISTEN, _IGNORE = 1, 2
FORK: Final = 1
EXEC: Final = 2


class AuditUnavailable(HostError):
    """The socket cannot be opened. number: of errno."""

    def __init__(self, error: OSError) -> None:
        self.number = error.errno or 0
        super().__init__(f"audit records cannot be read: {error.strerror}")


class AuditSocket:
    """Every audit record from now on. Beside auditd and journald, which get theirs all the same."""

    def __init__(self, receive_bytes: int = RECEIVE_BYTES) -> None:
        """receive_bytes: of the kernel's queue for this socket. Raises AuditUnavailable."""
        with contextlib.ExitStack() as opened:
            try:
                kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
                self._socket = opened.enter_context(socket.socket(socket.AF_NETLINK, kind, _AUDIT))
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
                self._socket.bind((0, _READLOG))
            except OSError as error:
                raise AuditUnavailable(error) from error
            opened.pop_all()

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def read(self) -> tuple[int, bytes] | None:
        """Type and text of the next record; None when there is none. Raises OSError (ENOBUFS: some were dropped).

        (0, b"") for a message that is not the kernel's: whoever sends those must not keep the caller here.
        """
        try:
            data, (sender, _) = self._socket.recvfrom(LARGEST_BYTES)
        except BlockingIOError:
            return None
        if sender or len(data) < _HEADER.size:  # 0 is the kernel
            return 0, b""
        return int.from_bytes(data[4:6], sys.byteorder), data[_HEADER.size :]

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class AuditState:
    """What the kernel reports. auditd: its daemon's process, 0 for none. excluded: record types that a rule drops."""

    auditd: int
    rate_limit: int
    excluded: frozenset[int] = frozenset()


def audit_state() -> AuditState | None:
    """None where the kernel does not answer: in another PID namespace, or without CAP_AUDIT_CONTROL."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _AUDIT) as asked:
            status = next((body for kind, body in _answers(asked, _GET) if kind == _GET), b"")
            if len(status) < _STATUS.size:
                return None
            rules = [body for kind, body in _answers(asked, _LIST_RULES) if kind == _LIST_RULES]
    except OSError:
        return None
    _, _, _, pid, rate, _, _, _ = _STATUS.unpack_from(status)
    return AuditState(pid, rate, frozenset(one for rule in rules for one in _excluded(rule)))


def _answers(asked: socket.socket, kind: int) -> Iterator[tuple[int, bytes]]:
    """What comes until the kernel's last message, in a second at most; one answer for a question that has one."""
    asked.sendto(_HEADER.pack(_HEADER.size, kind, _REQUEST, kind, 0), (0, 0))
    end = time.monotonic() + _ANSWER_SECONDS
    for _ in range(_ANSWERS):
        asked.settimeout(max(end - time.monotonic(), 0.001))
        data, (sender, _groups) = asked.recvfrom(LARGEST_BYTES)
        if sender or len(data) < _HEADER.size:
            continue
        _, answer, _, sequence, _ = _HEADER.unpack_from(data)
        if sequence != kind:
            continue  # the end of the answer before
        if answer in (_DONE, _ERROR):
            return
        yield answer, data[_HEADER.size :]
        if kind == _GET:
            return


def _excluded(rule: bytes) -> Iterator[int]:
    if len(rule) < _RULE.size:
        return
    numbers = _RULE.unpack_from(rule)
    fields, values = numbers[67:131], numbers[131:195]
    if numbers[0] & 0xF == _EXCLUDE:
        yield from (value for field, value in zip(fields, values, strict=True) if field == _MSGTYPE)


class ProcessEvents:
    """Processes that begin, of the whole node: some three messages each, so it is open only while it is needed."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no such service."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _CONNECTOR_BYTES)
            self._socket.bind((0, _PROCESSES))
            self._send(_LISTEN)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def drain(self) -> Iterator[tuple[int, int, int]]:
        """(FORK, parent, child) and (EXEC, process, 0) as they happened; threads are left out."""
        for _ in range(_DRAINED):
            try:
                data, (sender, _) = self._socket.recvfrom(_EVENT_BYTES)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # some were dropped: what they were about is unattributed, and counted
                return
            if sender or len(data) < _HEADER.size + _CONNECTOR_MESSAGE.size + _EVENT.size:
                continue
            what, _, _, _, two, three, four = _EVENT.unpack_from(data, _HEADER.size + _CONNECTOR_MESSAGE.size)
            if what == FORK and three == four:
                yield FORK, two, four
            elif what == EXEC:
                yield EXEC, two, 0

    def close(self) -> None:
        """Ends the subscription, which older kernels count until it is ended, then the socket."""
        with contextlib.suppress(OSError):
            self._send(_IGNORE)
        self._socket.close()

    def _send(self, operation: int) -> None:
        body = _CONNECTOR_MESSAGE.pack(_PROCESSES, _PROCESSES, 0, 0, 4, 0) + struct.pack("=I", operation)
        self._socket.sendto(_HEADER.pack(_HEADER.size + len(body), _DONE, 0, 0, os.getpid()) + body, (0, 0))
