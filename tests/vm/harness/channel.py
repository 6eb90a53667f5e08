"""The host's end of the port into a machine: requests, answers, and which boot is talking."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class MachineGone(Exception):
    """The machine went down, or into another boot, before it answered."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended in the machine."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs: refusals come on either."""
        return self.out + self.err


class Channel:
    """Connected to the socket of one QEMU process; ends with it."""

    def __init__(self, path: Path, is_alive: Callable[[], bool], patience_seconds: float = 30.0) -> None:
        """Waits for QEMU to make the socket. Raises MachineGone when it ends instead."""
        self._socket = _connect(path, is_alive, patience_seconds)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._state = threading.Condition()
        self._sending = threading.Lock()
        self.boot: str | None = None
        self.closed = False
        threading.Thread(target=self._read, name=f"channel {path}", daemon=True).start()

    def close(self) -> None:
        """Lets go of the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def await_boot(self, other_than: str | None, seconds: float) -> str:
        """The id of the running boot once it talks and is another one. Raises MachineGone, TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            with self._state:
                if self.boot not in (None, other_than):
                    return str(self.boot)
                if self.closed:
                    raise MachineGone("the machine went off")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the machine did not talk within {seconds:g} s")
                self._state.wait(min(left, 2.0))
            self._send({"op": "hello"})

    def ask(self, op: str, seconds: float, **values: Any) -> dict[str, Any]:
        """One request. Raises MachineGone; TimeoutError; RuntimeError with what the machine says of it."""
        number, answer = next(self._numbers), Future[dict[str, Any]]()
        with self._state:
            if self.closed or self.boot is None:
                raise MachineGone("the machine is off")
            boot = self.boot
            self._waiting[number] = answer
        self._send({"id": number, "op": op, "boot": boot, **values})
        try:
            got = answer.result(seconds)
        except FutureTimeout as error:
            raise TimeoutError(
                f"{op} {values.get('argv') or values.get('path')}: no answer in {seconds:g} s"
            ) from error
        finally:
            with self._state:
                self._waiting.pop(number, None)
        if "error" in got:
            raise RuntimeError(f"{op} {values.get('argv') or values.get('path')}: {got['error']}")
        return got

    def run(
        self, argv: Sequence[str], seconds: float, *, data: bytes, user: int | None, env: Mapping[str, str]
    ) -> Done:
        """A command."""
        values: dict[str, Any] = {"argv": list(argv), "timeout": seconds, "env": dict(env)}
        if user is not None:
            values["user"] = user
        if data:
            values["input"] = base64.b64encode(data).decode()
        got = self.ask("run", seconds + 30, **values)
        out, err = (base64.b64decode(got[key]).decode(errors="replace") for key in ("out", "err"))
        return Done(tuple(argv), got["code"], out, err)

    def _send(self, document: Mapping[str, Any]) -> None:
        try:
            with self._sending:
                self._socket.sendall(json.dumps(document).encode() + b"\n")
        except OSError as error:
            raise MachineGone(f"the machine went off: {error}") from error

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                chunk = self._socket.recv(1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        with self._state:
            self.closed = True
            self._fail("the machine went off")
            self._state.notify_all()

    def _take(self, line: bytes) -> None:
        try:
            document = json.loads(line)
        except ValueError:
            return  # cut in two by a reset
        with self._state:
            if "hello" in document:
                if self.boot not in (None, document["hello"]):
                    self._fail("the machine was booted again")
                self.boot = document["hello"]
                self._state.notify_all()
                return
            future = self._waiting.get(document.get("id"))
        if future is not None and not future.done():
            future.set_result(document)

    def _fail(self, why: str) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(MachineGone(why))


def _connect(path: Path, is_alive: Callable[[], bool], patience_seconds: float) -> socket.socket:
    deadline = time.monotonic() + patience_seconds
    while True:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(str(path))
            return made
        except OSError as error:
            made.close()
            if not is_alive() or time.monotonic() >= deadline:
                raise MachineGone(f"QEMU did not open {path}") from error
            time.sleep(0.05)
