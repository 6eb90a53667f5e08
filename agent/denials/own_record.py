"""The test record: one of the agent's own, to learn whether records arrive: without it "no denials" would mean nothing.

A short-lived thread takes a name that was never used, gives itself (and no other thread) a seccomp filter that logs a
syscall which does not exist, makes that syscall and ends. What exclude rules, actions_logged, audit=0 or a network
namespace of its own would keep from being read, they keep from this record too.
"""

from __future__ import annotations

import ctypes
import secrets
import struct
import threading
from collections.abc import Callable
from typing import Final

from agent.denials.records import Kind, Record

NUMBER: Final = 16383  # of no syscall on any architecture; the filter comes before the table of syscalls
_SET_NAME, _SET_SECCOMP, _FILTER, _NO_NEW_PRIVS = 15, 22, 2, 38
_LOG, _ALLOW = 0x7FFC0000, 0x7FFF0000
# Load the number; if it is ours, log, else allow: https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
_PROGRAM = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (0x06, 0, 0, _LOG), (0x06, 0, 0, _ALLOW)]
_PREFIX = "nha-"


class OwnRecord:
    """One at a time. `send`, then show it every record that `is_one` until one `is_ours`."""

    def __init__(self, make: Callable[[str], None]) -> None:
        """make: has the kernel make a record of NUMBER by a process of that name."""
        self._make, self._name = make, ""

    def send(self) -> None:
        """Makes the record."""
        self._name = f"{_PREFIX}{secrets.token_hex(5)}"
        self._make(self._name)

    def is_one(self, record: Record) -> bool:
        """Whether it is a test record: the last, one that came too late, another agent's. No denial is one."""
        return record.kind is Kind.SECCOMP and record.number == NUMBER and record.comm.startswith(_PREFIX)

    def is_ours(self, record: Record) -> bool:
        """Whether this test record is the one that was sent last."""
        return record.comm == self._name


def log_one_call(name: str) -> None:
    """In a thread under a filter of its own; waits a millisecond for it."""
    thread = threading.Thread(target=_call, args=(name.encode(),), name="denials-own-record", daemon=True)
    thread.start()
    thread.join()


def _call(name: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    program = b"".join(struct.pack("=HBBI", *one) for one in _PROGRAM)
    held = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(_PROGRAM), ctypes.addressof(held))  # sock_fprog
    libc.prctl(_SET_NAME, name, 0, 0, 0)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_SET_SECCOMP, _FILTER, fprog, 0, 0)
    libc.syscall(NUMBER)
