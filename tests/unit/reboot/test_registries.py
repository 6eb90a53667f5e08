"""One row in its registry is all that the agent needs to know of a blocker or of a reboot method."""

from __future__ import annotations

import random
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import cast

import pytest

from agent.config.choices import RebootMethod
from agent.config.schema import Reboot
from agent.host import Host
from agent.kube import Kube
from agent.reboot import blockers, rebooters
from agent.reboot.blockers import BlockerContext, BlockerSpec, make_blockers
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.interfaces import BlockerResult
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from tests.support.access import direct
from tests.support.reboot_agent import Agents
from tests.support.reboot_world import World


class Tide:
    """A dummy that always blocks."""

    name = "tide"
    late = True

    def check(self) -> BlockerResult:
        return BlockerResult(blocked=True, by="high tide")


class Lever(StrEnum):
    """A word beside those of the schema."""

    PULL = "pull"


class PullRebooter:
    """A dummy method."""

    def reboot(self) -> None:
        """Nothing."""


def test_a_new_blocker_needs_a_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made for the policy, holds the reboot back, and the status has its name, reason and message."""
    row = BlockerSpec("tide", StatusReason.BLOCKED, lambda _context: Tide())
    monkeypatch.setattr(blockers, "BLOCKERS", (row,))

    def make(policy: Reboot, dependencies: Dependencies) -> Coordinator:
        kube = Kube(direct("http://127.0.0.1:1"), node="n0")
        made = make_blockers(BlockerContext(policy, kube, "n0", "ns", dependencies.clock))
        return Coordinator(policy, replace(dependencies, blockers=made))

    world = World()
    machine = world.add_machine("n0")
    machine.want("sentinel")
    Agents(Reboot(), random.Random(1), make).on(machine)
    world.pass_time(60.0)
    tick = machine.last_tick
    assert tick is not None
    assert (tick.status.phase, tick.status.reason, tick.status.blocked_by) == (
        Phase.BLOCKED,
        StatusReason.BLOCKED,
        "tide",
    )
    assert "high tide" in tick.status.sentence


def test_a_new_reboot_method_needs_a_row_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rebooters, "REBOOTERS", {Lever.PULL: lambda _policy, _host: PullRebooter()})
    policy = Reboot(method=cast(RebootMethod, Lever.PULL))
    assert isinstance(rebooters.make_rebooter(policy, Host(tmp_path)), PullRebooter)
