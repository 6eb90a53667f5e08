"""A library that is replaced while a process runs it, as the kernel shows it from another mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.controls.updates.restarts import Restarts, Survey
from agent.host import Host

# Below a folder that is the child's own; beside the library, memory and a file of its own that it may execute.
_CHILD = """
import ctypes, mmap, os, re, shutil, sys, tempfile
ctypes.CDLL("libm.so.6")
library = re.search(r"/\\S*libm[.-]\\S*", open("/proc/self/maps").read())[0]
shutil.copy(library, "/opt/libdemo.so")
ctypes.CDLL("/opt/libdemo.so")
os.unlink("/opt/libdemo.so")
kept = []
for fd in (os.memfd_create("jit"), tempfile.TemporaryFile().fileno()):
    os.ftruncate(fd, 4096)
    kept.append(mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, and unshare")
def test_a_replaced_library_is_found_until_the_service_is_restarted(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    for pid, cgroup in ((1, "/init.scope"), (7, "/system.slice/demo.service")):
        (tmp_path / f"proc/{pid}").mkdir()
        (tmp_path / f"proc/{pid}/cgroup").write_text(f"0::{cgroup}\n")
    script = 'mount -t tmpfs -o exec tmpfs /opt; exec "$0" -c "$1"'
    argv = ["unshare", "--mount", "sh", "-ec", script, sys.executable, _CHILD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        (tmp_path / "proc/1/maps").symlink_to("/proc/self/maps")
        (tmp_path / "proc/7/maps").symlink_to(f"/proc/{child.pid}/maps")
        assert Survey(Host(tmp_path)).read() == Restarts(2, {"demo.service": ("libdemo.so",)}, {})
        child.stdin.close()
        child.wait(timeout=30)
    assert Survey(Host(tmp_path)).read() == Restarts(1, {}, {})
