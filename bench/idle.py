"""What an idle daemon costs in an hour: CPU of the node, requests to the API server.

An hour is put together from its parts: a quiet minute in which nothing happens, times 60, and as many passes as the
default interval makes, each the mean of eight that SIGHUP asked for (which also read the configuration: a little more
than the interval's own). CPU is user and system time of the process and of the children it ran, from /proc/PID/stat.
Probes and scrapes are no idleness of ours; they are a row of their own.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import requests

from agent.config import Config
from bench import imaged
from bench.daemons import running
from bench.figure import Figure
from tests.support.agents import Agent, eventually

_QUIET_SECONDS = 60.0
_PASSES = 8
_ASKED = 200
_SETTLED_SECONDS = 5.0
_CPU_LIMIT_SECONDS, _REQUESTS_LIMIT = 1.0, 1.0
# daemonset.yaml: readiness every 10 s, liveness every 30 s; Prometheus' own default scrapes every minute.
_PROBES_AN_HOUR, _SCRAPES_AN_HOUR = 360 + 120, 60


def figures() -> list[Figure]:
    """A minute and a half."""
    with running(imaged.python()) as agent:
        time.sleep(_SETTLED_SECONDS)
        asked, cpu = _requests(agent), _cpu_seconds(agent)
        time.sleep(_QUIET_SECONDS)
        quiet, quietly_asked = _cpu_seconds(agent) - cpu, _requests(agent) - asked
        asked, cpu = _requests(agent), _cpu_seconds(agent)
        _make_passes(agent)
        passes, asked_by_passes = _cpu_seconds(agent) - cpu, _requests(agent) - asked
        probe, scrape = _cost(agent, "/readyz"), _cost(agent, "/metrics")
    hours = 3600 / _QUIET_SECONDS
    a_pass, passes_an_hour = passes / _PASSES, 3600 / Config().interval
    an_hour = quiet * hours + a_pass * passes_an_hour
    requests_an_hour = quietly_asked * hours + asked_by_passes / _PASSES * passes_an_hour
    served = probe * _PROBES_AN_HOUR + scrape * _SCRAPES_AN_HOUR
    return [
        Figure(
            "CPU idle",
            f"{an_hour:.2f} s an hour: {quiet:.2f} s in a quiet minute, {a_pass * 1000:.0f} ms a pass, "
            f"{passes_an_hour:.0f} passes",
            f"< {_CPU_LIMIT_SECONDS:g} s an hour", an_hour < _CPU_LIMIT_SECONDS,
        ),
        Figure(
            "API requests idle, watches' reconnects aside",
            f"{requests_an_hour:g} an hour: {quietly_asked} in a quiet minute, {asked_by_passes} by {_PASSES} passes",
            f"<= {_REQUESTS_LIMIT:g} an hour", requests_an_hour <= _REQUESTS_LIMIT,
        ),
        Figure(
            "CPU for daemonset.yaml's probes and a scrape a minute",
            f"{served:.2f} s an hour: {probe * 1000:.1f} ms a probe, {scrape * 1000:.1f} ms a scrape",
        ),
    ]  # fmt: skip


def _cpu_seconds(agent: Agent) -> float:
    """User and system time so far, of the process and of its children that have ended; proc(5)."""
    assert agent.process is not None
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _requests(agent: Agent) -> int:
    """What the agent asked so far, without watches; the bench itself is told apart by its name."""
    sandbox = agent.api.sandbox
    assert sandbox is not None
    return sum(one.verb != "watch" and one.user_agent.startswith("node-hardening") for one in sandbox.requests)


def _make_passes(agent: Agent) -> None:
    for number in range(_PASSES):
        done = len(agent.logged("reconcile_completed"))
        agent.signal(signal.SIGHUP)
        eventually(lambda done=done: len(agent.logged("reconcile_completed")) > done, what=f"pass {number + 1}")  # type: ignore[misc]


def _cost(agent: Agent, path: str) -> float:
    """CPU seconds of one answer."""
    before = _cpu_seconds(agent)
    for _ in range(_ASKED):
        requests.get(f"http://127.0.0.1:{agent.port}{path}", timeout=10)
    return (_cpu_seconds(agent) - before) / _ASKED
