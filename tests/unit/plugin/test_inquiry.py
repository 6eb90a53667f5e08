"""What would block a reboot before any agent has reported: the parts that need no cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config import loads
from agent.config.schema import Reboot
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.inquiry import by_locks, by_node
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.lease import micro_time
from agent.reboot.phases import Phase
from tests.support.plugin_rows import a_lock, a_row

NOW = 1.8e9
WELL = a_row("n1", phase=Phase.IDLE, required=False)


def lock(holder: str, slot: int = 0, *, stuck: str = "", last_reboot: float = 0.0) -> Lock:
    phase = LeasePhase.HELD if holder else LeasePhase.NONE
    view = LeaseView(
        f"node-hardening-reboot-workers-{slot}", "1", holder, phase, acquired=micro_time(NOW - 300), stuck=stuck,
        last_reboot=last_reboot,
    )  # fmt: skip
    return a_lock(view)


def policy(text: str) -> Reboot:
    return loads(f"reboot: {text}", "config.yaml").reboot


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (replace(WELL, version=""), "no agent reports on this node: nothing would happen"),
        (replace(WELL, ready=False), "the node is NotReady: its agent may not be running"),
        (replace(WELL, ready=None), "the node is not reporting"),
        (replace(WELL, skip="disk"), "opted out on the node: disk (kubectl node-hardening skip n1 --off)"),
        (replace(WELL, phase=Phase.ROLLED_BACK, message="x"), "backing off after a failure: x"),
        (replace(WELL, config_problem="line 3"), "rejected the newest configuration"),
    ],
)
def test_what_the_node_itself_shows(row: NodeRow, words: str) -> None:
    """One sentence each; a node that is well has nothing to list."""
    (sentence,) = by_node(row)
    assert words in sentence
    assert list(by_node(WELL)) == []


def test_a_lock_holds_back_when_every_slot_is_anothers() -> None:
    """Not while one is free, nor where the node itself has it; a stuck one names the way out."""
    two = policy("{concurrency: 2, maxUnavailable: 2}")
    other, free = lock("n2/uid-n2"), lock("", 1)
    assert list(by_locks(WELL, Reboot(), [other], NOW)) == ["lock workers/0 is held by n2 for 5m"]
    assert list(by_locks(WELL, two, [other, free], NOW)) == []
    assert list(by_locks(WELL, two, [other], NOW)) == []  # a slot that was never taken has no Lease
    assert len(list(by_locks(WELL, two, [other, lock("n3/uid-n3", 1)], NOW))) == 2
    assert list(by_locks(WELL, Reboot(), [lock("n1/uid-n1")], NOW)) == []
    (stuck,) = by_locks(WELL, Reboot(), [lock("n2/uid-n2", stuck="n3")], NOW)
    assert stuck.endswith("which went down and did not come back (kubectl node-hardening unlock workers/0)")


def test_the_minimum_gap_has_its_end() -> None:
    """The gap counts from the last reboot in any slot."""
    rests = policy("{blockers: {minimumGap: 10m}}")
    (sentence,) = by_locks(WELL, rests, [lock("", last_reboot=NOW - 60)], NOW)
    assert sentence == "minimum gap after the pool's last reboot, until 2027-01-15 08:09Z (in 9m)"
    assert list(by_locks(WELL, rests, [lock("", last_reboot=NOW - 601)], NOW)) == []
