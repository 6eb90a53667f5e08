"""Real servers of the tests' own, from Debian's packages: started on free loopback ports and ended with the test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

READY_SECONDS = 240.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def program(name: str, package: str) -> str:
    """The program's path; the test is skipped where it is not installed."""
    path = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package {package}; tools/test-packages)")
    return path


def get(url: str, **query: str) -> requests.Response:
    """A GET that no proxy of the environment sees."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, params=query, timeout=300)


@contextmanager
def daemon(argv: Sequence[str | Path], ready_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once `ready_url` answers 200."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={"HOME": "/nonexistent"},
        )
        try:
            _await_ready(process, ready_url, log)
            yield process
        finally:
            if process.poll() is None:
                process.kill()  # nothing of theirs is worth keeping
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            if get(url).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{url} did not get ready; the log ends with: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def prometheus(path: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A ready Prometheus by the folder's prometheus.yaml: its URL and its process. path: of the program."""
    (port,) = free_ports(1)
    argv = [
        path,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    url = f"http://127.0.0.1:{port}"
    with daemon(argv, f"{url}/-/ready", folder / "log") as process:
        yield url, process
