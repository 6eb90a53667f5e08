"""The command line as people and scripts start it: a process, its exit code, what it says and where."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
AGENT = (sys.executable, "-m", "agent")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
_PATIENCE_SECONDS = 300.0  # a bound for what hangs; no test measures with it


def agent(
    *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the agent to its end. Its environment is only what a test gives; no output of it may be a traceback."""
    options: dict[str, Any] = {"capture_output": True, "timeout": _PATIENCE_SECONDS, **more}
    done = subprocess.run(
        [*AGENT, *map(str, args)],
        env={**_ENVIRONMENT, **(env or {})},
        cwd=cwd or ROOT,
        text=True,
        check=False,
        **options,
    )
    assert "Traceback" not in (done.stderr or ""), done.stderr
    assert "Exception ignored" not in (done.stderr or ""), done.stderr
    return done


def shell(
    script: str, *args: str | Path, env: Mapping[str, str] | None = None, patience_seconds: float = _PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs a line of shell in which `"$@"` is the agent with these arguments."""
    return subprocess.run(
        ["/bin/bash", "-c", script, "sh", *AGENT, *map(str, args)],
        env={**_ENVIRONMENT, **(env or {})},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=patience_seconds,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on standard output."""
    read = json.loads(done.stdout)
    assert isinstance(read, dict)
    return read


def on_terminal(*args: str | Path, columns: int, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and what a terminal of that width is sent."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [*AGENT, *map(str, args)],
        env={**_ENVIRONMENT, "TERM": "xterm-256color", **(env or {})},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        sent = bytearray()
        while chunk := _read(mine):
            sent += chunk
        code = process.wait(_PATIENCE_SECONDS)
    os.close(mine)
    return code, sent.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: nobody has the other side open any more
        return b""


def policy(folder: Path, text: str = "kubelet: {probe: false}\n", name: str = "policy.yaml") -> Path:
    """A policy's file. Of a sandboxed kubelet no port is asked, unless the test says otherwise."""
    path = folder / name
    path.write_text(text)
    return path


def without_tools(*names: str) -> str:
    """A line of shell that runs `"$@"` where these programs are not installed. Needs root and mount namespaces."""
    folders = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
    found = {
        os.path.realpath(f"{folder}/{name}")
        for folder in folders
        for name in names
        if Path(f"{folder}/{name}").exists()
    }
    # kmod's tools are symlinks to one program. A device without execute bits hides a program even from root.
    hide = "".join(f"mount --bind /dev/null {path} && " for path in sorted(found))
    return f'unshare --mount --propagation private /bin/sh -c \'{hide}exec "$@"\' sh "$@"'


def can_unshare() -> bool:
    """Whether this machine lets tests have mounts of their own."""
    argv = ["unshare", "--mount", "--propagation", "private", "mount", "--bind", "/dev/null", "/dev/null"]
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=300).returncode == 0
    except OSError:
        return False
