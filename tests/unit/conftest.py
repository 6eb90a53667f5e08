"""The guard of the fast tier: no test in here opens a socket or starts a process, and one that tries says so loudly."""

from __future__ import annotations

import socket
import subprocess
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def _no_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: str) -> Any:
        def refused(*args: object, **_: object) -> NoReturn:
            pytest.fail(f"a unit test {what}: {args[1:]!r}; it belongs into tests/integration")

        return refused

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse("started a process"))
    monkeypatch.setattr(socket.socket, "connect", refuse("opened a connection"))
