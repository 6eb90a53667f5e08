"""Runs inside the virtual machine: does what the tests ask for, over a virtio-serial port, one JSON document a line.

A serial port needs no network, no login and no password, works while /etc is read-only or the disk is full, and stays
open until the last processes of a shutdown are killed. It refuses requests that were meant for another boot: what the
host wrote before a reboot waits in the port and would be done after it.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
from typing import Any

PORT_NAME = "nha.vm.0"
BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


def port() -> str:
    """The port's device; the kernel's own name is enough, udev is not waited for."""
    while True:
        for folder in pathlib.Path("/sys/class/virtio-ports").glob("*"):
            if (folder / "name").read_text().strip() == PORT_NAME:
                return f"/dev/{folder.name}"
        time.sleep(0.1)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """A command with its output and exit code; killed with its group at the timeout (code -9)."""
    child = subprocess.Popen(
        request["argv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        user=request.get("user"),
        group=request.get("user"),
        extra_groups=[] if request.get("user") else None,
        env={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            **request.get("env", {}),
        },
        start_new_session=True,
    )
    try:
        out, err = child.communicate(base64.b64decode(request.get("input", "")), request["timeout"])
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        err += f"\nkilled after {request['timeout']} s".encode()
    return {"code": child.returncode, "out": base64.b64encode(out).decode(), "err": base64.b64encode(err).decode()}


def put(request: dict[str, Any]) -> dict[str, Any]:
    """Writes a file; the folders above it are made."""
    path = pathlib.Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(request["data"]))
    path.chmod(request["mode"])
    return {}


def get(request: dict[str, Any]) -> dict[str, Any]:
    """Reads a file."""
    return {"data": base64.b64encode(pathlib.Path(request["path"]).read_bytes()).decode()}


def answer_of(request: dict[str, Any], boot: str) -> dict[str, Any]:
    """Does what is asked, if it was asked of this boot."""
    if request["boot"] != boot:
        raise RuntimeError(f"asked of boot {request['boot']}, this is {boot}")
    return {"run": run, "put": put, "get": get}[request["op"]](request)


def serve() -> None:
    """Answers until the machine goes down."""
    boot = BOOT_ID.read_text().strip()
    fd = os.open(port(), os.O_RDWR)
    lock = threading.Lock()

    def send(document: dict[str, Any]) -> None:
        line = json.dumps(document).encode() + b"\n"
        with lock:
            while line:
                line = line[os.write(fd, line) :]

    def handle(request: dict[str, Any]) -> None:
        if request["op"] == "hello":
            send({"hello": boot})
            return
        try:
            answer = answer_of(request, boot)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        send({"id": request["id"], **answer})

    send({"hello": boot})
    buffer = b""
    while True:
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            time.sleep(0.05)  # nobody is connected on the host
            continue
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                continue  # the rest of a line that was written to an earlier boot
            threading.Thread(target=handle, args=(request,), daemon=True).start()


if __name__ == "__main__":
    serve()
