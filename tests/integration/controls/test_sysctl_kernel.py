"""Kernel settings set and restored by the real `sysctl`, in network and mount namespaces of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agents import ROOT

_CODE = """
import json, pathlib, sys
from agent.config.choices import Mode
from agent.config.node_sections import Sysctl
from agent.controls import base
from agent.controls.sysctl import SysctlControl
from agent.controls.sysctl.settings import KEYS
from agent.host import Host

leave = tuple(key for key in KEYS if not key.startswith("net.ipv4.conf"))
value = pathlib.Path("/proc/sys/net/ipv4/conf/lo/send_redirects")
shown = []
for mode in (Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT):
    done = base.apply(SysctlControl(Sysctl(mode=mode, leave=leave), Host()))
    failing = [one.id for one in done.findings if one.status == "fail"]
    shown.append([[f"{one.action} {one.outcome}" for one in done.changes], failing, value.read_text().strip()])
print(json.dumps(shown))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces")
@pytest.mark.skipif(not all(map(shutil.which, ("sysctl", "unshare"))), reason="needs sysctl and unshare")
def test_enforce_sets_what_runs_and_audit_restores_it() -> None:
    folders = "/etc/sysctl.d /var/lib/node-hardening"
    script = f'for f in {folders}; do mkdir -p $f; mount -t tmpfs tmpfs $f; done; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", script, sys.executable, _CODE],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, last = json.loads(done.stdout)
    assert first[0][0] == "write done"
    assert {one.partition(" ")[2] for one in first[0]} == {"done"}
    assert (first[1], first[2]) == ([], "0")
    assert second[0] == []
    assert (last[0][-1], last[2]) == ("remove done", "1")
    assert "sysctl/net.ipv4.conf.all.send_redirects" in last[1]


_FILES = {
    "etc/sysctl.d/50-a.conf": "net.ipv4.conf.l?.accept_redirects = 0\nnet.ipv4.conf.lo.send_redirects = 0\n",
    "usr/lib/sysctl.d/50-a.conf": "net.ipv4.conf.lo.send_redirects = 1\nnet.ipv4.conf.lo.accept_source_route = 1\n",
    "etc/sysctl.d/60-b.conf": "-net.ipv4.conf.lo.accept_redirects\nnet/ipv4/conf/lo/secure_redirects = 0\n",
    "run/sysctl.d/70-c.conf": "net.ipv4.conf.lo.log_martians=1\n# net.ipv4.conf.lo.send_redirects = 1\n",
    "etc/sysctl.d/80-d.conf": "net.ipv4.conf.l*.log_martians = 0\n;net.ipv4.conf.lo.arp_filter = 1\n",
    "etc/sysctl.d/90-masked.conf": "",
    "usr/lib/sysctl.d/90-masked.conf": "net.ipv4.conf.lo.arp_filter = 1\n",
    "etc/sysctl.d/95-e": "net.ipv4.conf.lo.arp_filter = 1\n",
    "etc/sysctl.d/97-f.conf": "net.ipv4.conf.lo.arp_ignore = 2\nnet.ipv4.conf.lo.arp_ignore = 1\n",
}
_KEYS = (
    "accept_redirects", "send_redirects", "accept_source_route", "secure_redirects", "log_martians", "arp_filter",
    "arp_ignore",
)  # fmt: skip
_READER = """
import json, pathlib, sys
from agent.host import Host, sysctl_d
values = pathlib.Path("/proc/sys/net/ipv4/conf/lo")
boot = sysctl_d.read(Host(sys.argv[1]))
shown = {}
for name in sys.argv[2:]:
    line = boot.get(f"net.ipv4.conf.lo.{name}")
    shown[name] = [line.value if line else None, (values / name).read_text().strip()]
print(json.dumps(shown))
"""
_SYSTEMD = "/lib/systemd/systemd-sysctl"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces")
@pytest.mark.skipif(not Path(_SYSTEMD).is_file(), reason=f"needs {_SYSTEMD}")
def test_files_are_read_as_the_real_systemd_reads_them(tmp_path: Path) -> None:
    """What the reader finds is what systemd-sysctl sets, and where it finds nothing the kernel's value stays.

    Wildcards leave out `default`, which the kernel copies to interfaces whose own value nothing has set.
    """
    for name, text in _FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    mounts = "".join(
        f"mkdir -p /{folder}; mount --bind {tmp_path}/{folder} /{folder}; "
        for folder in ("etc/sysctl.d", "usr/lib/sysctl.d", "run/sysctl.d")
    )
    read = 'cd /proc/sys/net/ipv4/conf/lo; for k in "$@"; do echo $k $(cat $k); done'
    run = f'({read}) >&2; {_SYSTEMD} 2>/dev/null || true; exec "$exe" -c "$code" "$root" "$@"'
    script = f"exe=$0; code=$1; root=$2; shift 2; {mounts} {run}"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", script, sys.executable, _READER, str(tmp_path), *_KEYS],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before = dict(line.split() for line in done.stderr.splitlines())
    found = json.loads(done.stdout)
    assert {name: expected or before[name] for name, (expected, _) in found.items()} == {
        name: real for name, (_, real) in found.items()
    }
    assert {name for name, (expected, _) in found.items() if expected is None} == {
        "accept_redirects", "accept_source_route", "arp_filter",
    }  # fmt: skip
