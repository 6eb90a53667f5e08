"""Kernel settings set and restored by the real `sysctl`, in network and mount namespaces of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

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
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
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
