"""Runs as a process of its own: loads an installed profile with the real libseccomp, then tries things under it.

    python seccomp_child.py PROFILE FOLDER PROBE...      writes one JSON object, probe: what came of it

It reads the profile as the runtimes do (OCI's keys, nothing else), and what it prints is what the kernel answered.
"""

from __future__ import annotations

import ctypes
import errno
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pyseccomp as seccomp

# Younger than Debian 12's libseccomp; one number on every architecture.
_NUMBERS = {"fchmodat2": 452, "io_uring_setup": 425, "clone3": 435}
_NOT_KNOWN = -1  # __NR_SCMP_ERROR; other negative numbers are syscalls of other architectures


def load(path: Path) -> None:
    """What runc and crun do with OCI's LinuxSeccomp."""
    document = json.loads(path.read_text())
    default = _action(document["defaultAction"], document.get("defaultErrnoRet", errno.EPERM))
    loaded = seccomp.SyscallFilter(default)
    for name in document.get("architectures", []):
        try:
            loaded.add_arch(getattr(seccomp.Arch, name.removeprefix("SCMP_ARCH_")))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
    for rule in document.get("syscalls", []):
        action = _action(rule["action"], rule.get("errnoRet", errno.EPERM))
        if action == default:
            continue
        args = [
            seccomp.Arg(
                arg["index"],
                getattr(seccomp, arg["op"].removeprefix("SCMP_CMP_")),
                arg["value"],
                arg.get("valueTwo", 0),
            )
            for arg in rule.get("args", [])
        ]
        for name in rule["names"]:
            if (number := _number(name)) is not None:
                loaded.add_rule(action, number, *args)
    loaded.load()


def _action(name: str, number: int) -> int:
    word = name.removeprefix("SCMP_ACT_")
    if word in ("ERRNO", "TRACE"):
        return int(getattr(seccomp, word)(number))
    return int(getattr(seccomp, word))


def _number(name: str) -> int | None:
    number = int(seccomp.resolve_syscall(seccomp.Arch.NATIVE, name))
    return _NUMBERS.get(name) if number == _NOT_KNOWN else number


def _raw(name: str, *args: object) -> str:
    number = _number(name)
    if number is None or number < 0:
        return "no such syscall on this machine"
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(number, *args)
    if name == "clone" and answer == 0:
        os._exit(0)  # the new process: this program goes on in its parent
    if answer >= 0:
        return "ok"
    return errno.errorcode[ctypes.get_errno()]


def _socket(family: int, kind: int, protocol: int) -> str:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def _files(folder: Path) -> str:
    path = folder / "written"
    path.write_text("text")
    (folder / "made").mkdir()
    path.rename(folder / "made" / "moved")
    assert (folder / "made" / "moved").read_text() == "text"
    assert [entry.name for entry in (folder / "made").iterdir()] == ["moved"]
    os.mkfifo(folder / "fifo")
    return "ok"


def _threads(_: Path) -> str:
    done: list[int] = []
    threads = [threading.Thread(target=done.append, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "ok" if sorted(done) == list(range(8)) else f"{done}"


def _programs(folder: Path) -> str:
    subprocess.run(["/bin/true"], check=True)
    out = subprocess.run(
        ["/bin/sh", "-c", "ls -l / | wc -l; echo $(id -u) > id; cp id copy; mv copy moved; sleep 0.01; cat moved"],
        check=True,
        capture_output=True,
        cwd=folder,
        text=True,
    )
    return "ok" if out.stdout and not out.stderr else out.stderr


def _web(_: Path) -> str:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{server.server_port}/", timeout=20) as answer:
        body = answer.read()
    server.shutdown()
    server.server_close()
    return "ok" if body == b"hello" else repr(body)


def _file(folder: Path) -> bytes:
    path = folder / "mine"
    path.touch()
    return bytes(path)


def _fchmod(folder: Path) -> str:
    with open(_file(folder), "rb") as stream:
        return _raw("fchmod", stream.fileno(), 0o600)


AT_FDCWD = -100
S_IFCHR = 0o020000
PROBES: dict[str, Callable[[Path], str]] = {
    "files": _files,
    "threads": _threads,
    "programs": _programs,
    "web": _web,
    "chmod": lambda folder: _raw("chmod", _file(folder), 0o600),
    "fchmod": _fchmod,
    "fchmodat": lambda folder: _raw("fchmodat", AT_FDCWD, _file(folder), 0o600),
    "fchmodat2": lambda folder: _raw("fchmodat2", AT_FDCWD, _file(folder), 0o600, 0),
    "unshare": lambda _: _raw("unshare", 0x10000000),
    "clone(newuser)": lambda _: _raw("clone", 0x10000000 | 17, None, None, None, None),
    "clone3": lambda _: _raw("clone3", None, 0),
    "io_uring_setup": lambda _: _raw("io_uring_setup", 1, None),
    "ptrace": lambda _: _raw("ptrace", 0, 0, None, None),
    "keyctl": lambda _: _raw("keyctl", 0, -1, 0),
    "bpf": lambda _: _raw("bpf", 0, None, 0),
    "userfaultfd": lambda _: _raw("userfaultfd", 0),
    "perf_event_open": lambda _: _raw("perf_event_open", None, 0, -1, -1, 0),
    "mount": lambda _: _raw("mount", None, None, None, 0, None),
    "setns": lambda _: _raw("setns", -1, 0),
    "process_vm_readv": lambda _: _raw("process_vm_readv", os.getpid(), None, 0, None, 0, 0),
    "open_by_handle_at": lambda _: _raw("open_by_handle_at", -1, None, 0),
    "personality(no randomisation)": lambda _: _raw("personality", 0x0040000),
    "personality(asked)": lambda _: _raw("personality", 0xFFFFFFFF),
    "mknod(device)": lambda folder: _raw("mknodat", AT_FDCWD, bytes(folder / "null"), S_IFCHR | 0o600, 0x103),
    "socket(unix)": lambda _: _socket(socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "socket(tcp)": lambda _: _socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "socket(udp6)": lambda _: _socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0),
    "socket(route)": lambda _: _socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "socket(netfilter)": lambda _: _socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),
    "socket(vsock)": lambda _: _socket(socket.AF_VSOCK, socket.SOCK_STREAM, 0),
    "socket(alg)": lambda _: _socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0),
    "socket(packet)": lambda _: _socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "socket(sctp)": lambda _: _socket(socket.AF_INET, socket.SOCK_STREAM, 132),
    "socket(dccp)": lambda _: _socket(socket.AF_INET, 6, 0),
    "socket(tipc)": lambda _: _socket(30, socket.SOCK_SEQPACKET, 0),
}


def main() -> None:
    """Loads the filter first: all that is tried, and the interpreter's own way out, happens under it."""
    profile, folder, *probes = sys.argv[1:]
    load(Path(profile))
    sys.stdout.write(json.dumps({probe: PROBES[probe](Path(folder)) for probe in probes}))


if __name__ == "__main__":
    main()
