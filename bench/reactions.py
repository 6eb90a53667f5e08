"""How soon the node follows: a profile is put into the mounted folder, a file of ours is changed by somebody else.

Each sample is a daemon of its own. Moments are seen by looking every five milliseconds, at the node's files and, past
HTTP, at the emulator's Node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import imaged
from bench.daemons import running
from bench.figure import Figure, below
from tests.support.agents import Agent

_RUNS = 7
_LOOK_SECONDS = 0.005
_PATIENCE_SECONDS = 30.0
_SETTLED_SECONDS = 2.0
_LIMIT_SECONDS = 2.0
_DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
_PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}


@dataclass(frozen=True, slots=True)
class _Sample:
    """Seconds."""

    installed: float
    annotated: float
    mended: float


def figures() -> list[Figure]:
    """Half a minute. Raises TimeoutError when something never happens."""
    python = imaged.python()
    samples = [_sample(python) for _ in range(_RUNS)]
    return [
        below("profile changed -> installed on the node", [one.installed for one in samples], _LIMIT_SECONDS, "s"),
        below("profile changed -> in the annotations", [one.annotated for one in samples], _LIMIT_SECONDS, "s"),
        below("our file changed by somebody -> mended", [one.mended for one in samples], _LIMIT_SECONDS, "s"),
    ]


def _sample(python: imaged.Python) -> _Sample:
    with running(python) as agent:
        time.sleep(_SETTLED_SECONDS)
        before = agent.annotation("policy")
        began = time.monotonic()
        agent.replace(agent.folder.parent / "shipped" / "seccomp" / "team.json", json.dumps(_PROFILE))
        installed = _moment(agent.root.at("/var/lib/kubelet/seccomp/team.json").exists) - began
        annotated = _moment(lambda: _policy(agent) != before) - began
        time.sleep(_SETTLED_SECONDS)
        ours = agent.root.at(_DENY_FILE)
        good = ours.read_text()
        began = time.monotonic()
        ours.write_text("# somebody was here\n")
        mended = _moment(lambda: ours.read_text() == good) - began
    return _Sample(installed, annotated, mended)


def _policy(agent: Agent) -> str | None:
    return agent.annotation("policy")


def _moment(holds: Callable[[], bool]) -> float:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic()
