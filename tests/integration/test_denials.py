"""The daemon with `denials`: on the Node, in the metrics, gone when it is off; and nothing of it loaded then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import requests

from agent.config.choices import DenialsMode
from agent.config.node_sections import Denials
from agent.denials.netlink import AuditSocket, AuditUnavailable
from agent.denials.observer import Observer
from agent.host import Host
from agent.report.publisher import NodePublisher
from tests.support import agents
from tests.support.agents import Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.daemons import free_ports
from tests.unit.denials.test_observer import Shown

# A seccomp filter of its own that logs getppid, then that call so often; it needs no privilege.
_LOGS = """
import ctypes, struct, sys
libc = ctypes.CDLL(None)
program = [(32, 0, 0, 0), (21, 0, 1, 110), (6, 0, 0, 0x7ffc0000), (6, 0, 0, 0x7fff0000)]
held = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("HP", 4, ctypes.addressof(held)), 0, 0) == 0
for _ in range(int(sys.argv[1])): libc.syscall(110)
"""


@pytest.fixture
def agent(api: ApiServer, client: Client, node: str, tmp_path: Path) -> Iterator[Agent]:
    """A running agent that observes."""
    agents.install(client)
    made = Agent(api, client, node, tmp_path / node, {"denials": {"mode": "observe"}}, port=free_ports(1)[0])
    with running(made):
        yield made


def test_the_node_shows_that_denials_are_not_visible(agent: Agent) -> None:
    """Never just no rows: this machine's records are not of a node that is a tree. Off removes it again."""
    shown = json.loads(str(eventually(lambda: agent.annotation("denials"), what="denials")))
    assert (shown["state"], shown["reason"]) == ("blind", "no-kernel")
    metrics = requests.get(f"http://127.0.0.1:{agent.port}/metrics", timeout=300).text
    assert "node_hardening_denials_visible 0.0" in metrics
    agent.write_policy(denials={"mode": "off"})
    eventually(lambda: agent.annotation("denials") is None, what="the annotation removed")


def test_off_loads_nothing_of_it() -> None:
    """What `run` imports, and the thread of a policy that has it off."""
    code = """
import sys
from agent.cli import run
from agent.lean import shared_methods
shared_methods.load(*run.PACKAGES)
print([name for name in sys.modules if name.startswith("agent.denials")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=agents.ROOT)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def observer() -> Iterator[tuple[Observer, Shown]]:
    """On this machine's own kernel, where it has audit and lets this user read it."""
    try:
        AuditSocket().close()
    except AuditUnavailable as error:
        pytest.skip(str(error))
    shown = Shown()
    made = Observer(Host("/"), Denials(mode=DenialsMode.OBSERVE), cast("NodePublisher", shown), shown.metrics)
    yield made, shown
    made.end()
    made.close()


def test_records_of_this_kernel_add_up(observer: tuple[Observer, Shown]) -> None:
    """The agent's own record arrives, then a process' two thousand, none lost, each counted."""
    one, shown = observer
    _until(one, lambda: shown.seeing is not None)
    if not shown.seeing:
        pytest.skip("this machine's audit records do not arrive: another network namespace, or a rule")
    before = one._received
    subprocess.run([sys.executable, "-c", _LOGS, "2000"], check=True)
    _until(one, lambda: one._received - before >= 2000)
    assert one._serials.lost == 0
    rows = one._rows()
    assert ("getppid" if os.uname().machine == "x86_64" else "syscall 110") in {row[6] for row in rows}


def _until(one: Observer, done: Any) -> None:
    """Turns until then; ten seconds at most."""
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        one._due(0.0)
        one.turn()
