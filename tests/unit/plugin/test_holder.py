"""A lock's holder: what it is taken for, which risk is named, what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config.schema import Reboot
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.holder import (
    MOST_WATCHED_SECONDS,
    Holder,
    HolderLiveness,
    facts,
    follows,
    risk,
    watch_seconds,
)
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.lease import micro_time
from agent.reboot.phases import Phase
from tests.support.plugin_rows import a_lock, a_row

NOW = 1.8e9


def lease(phase: LeasePhase = LeasePhase.REBOOTING, renewed: float = NOW - 1800, **more: object) -> LeaseView:
    base = LeaseView(
        "node-hardening-reboot-workers-0", "7", "worker-1/uid-1", phase, micro_time(renewed), micro_time(NOW - 1900),
        60, 3, "c", "boot-1", pool_size=5,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def node(**more: object) -> NodeRow:
    base = {"uid": "uid-1", "cordoned": True, "ready": None, "phase": Phase.REBOOTING}
    return a_row("worker-1", **{**base, **more})


def seen(view: LeaseView | None = None, at: NodeRow | None = node(), **more: object) -> Holder:  # noqa: B008
    base = Holder(a_lock(view or lease()), at, "boot-1" if at else "", NOW - 1750, False, 25.0, NOW)
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("holder", "liveness"),
    [
        (seen(at=None), HolderLiveness.GONE),
        (seen(at=node(uid="uid-2")), HolderLiveness.GONE),
        (seen(at=node(uid="uid-2"), changed=True), HolderLiveness.GONE),
        (seen(changed=True), HolderLiveness.ALIVE),
        (seen(lease(renewed=NOW - 59)), HolderLiveness.FRESH),
        (seen(lease(renewed=NOW + 3600)), HolderLiveness.FRESH),  # its clock runs ahead: no evidence of silence
        (seen(lease(renewed=NOW - 61)), HolderLiveness.SILENT),
        (seen(lease(renewed=NOW - 61, duration_seconds=120)), HolderLiveness.FRESH),
        (seen(lease(renewed=NOW - 61, duration_seconds=0)), HolderLiveness.SILENT),
        (seen(lease(phase=LeasePhase.HELD)), HolderLiveness.SILENT),
    ],
)
def test_what_a_holder_is_taken_for(holder: Holder, liveness: HolderLiveness) -> None:
    """Only what was seen to change, and time by the longer clock, make it silent; silence is no death."""
    assert holder.liveness is liveness


def test_only_a_holder_that_is_gone_is_without_risk() -> None:
    """Two nodes down at the same time are named wherever that may come to pass."""
    assert risk(seen(at=None)).startswith("none known")
    assert risk(seen()).startswith("TWO NODES DOWN AT THE SAME TIME: worker-1 may be down")
    for alive in (seen(changed=True), seen(lease(renewed=NOW))):
        assert "alive and may be about to go down: two nodes of the pool may be down at the same time" in risk(alive)
    assert risk(seen(lease(LeasePhase.HELD))).startswith("small: worker-1 has not rebooted")


def test_a_renewal_is_waited_for_as_long_as_one_takes() -> None:
    """A third of the lease and a little; a long lease is not sat out."""
    assert watch_seconds(a_lock(lease())) == 25.0
    assert watch_seconds(a_lock(lease(duration_seconds=3600))) == MOST_WATCHED_SECONDS


@pytest.mark.parametrize(
    ("holder", "limit", "words"),
    [
        (seen(), "1", "the pool keeps waiting regardless: worker-1 is NotReady and uses up maxUnavailable 1"),
        (seen(), "20%", "the pool keeps waiting regardless"),
        (seen(), "40%", "worker-1 is NotReady and keeps counting against maxUnavailable 40%"),
        (seen(), "2", "keeps counting against maxUnavailable 2"),
        (seen(at=node(ready=True)), "1", "worker-1 is cordoned and uses up maxUnavailable 1"),
        (seen(lease(pool_size=0)), "20%", "keeps counting against maxUnavailable 20%"),
    ],
)
def test_whether_the_pool_continues_is_reported(holder: Holder, limit: str, words: str) -> None:
    """A freed lock alone does not help where the budget is used up; then the text names what does."""
    text = " ".join(follows(holder, Reboot(max_unavailable=limit)))
    assert words in text
    assert ("kubectl delete node worker-1" in text) is ("keeps waiting" in text)


def test_an_unknown_policy_is_unknown() -> None:
    """Never the default."""
    assert "unknown whether the pool continues" in " ".join(follows(seen(), None))


def test_nothing_follows_where_nothing_is_left() -> None:
    """A holder that is gone, and one that is well, count against no other node."""
    assert list(follows(seen(at=None), Reboot())) == []
    well = seen(lease(LeasePhase.HELD), node(ready=True, cordoned=False, phase=Phase.IDLE))
    assert list(follows(well, Reboot())) == []


def test_everything_seen_is_listed() -> None:
    """Lock, phase, renewal and how it was looked at; Node, kubelet, boot and note."""
    text = "\n".join(facts(seen(lease(stuck="worker-2"))))
    for words in (
        "lock workers/0 (lease node-hardening-reboot-workers-0) is held by worker-1, acquired 31m ago",
        "phase: rebooting (it may have given the reboot command)",
        "renewed 30m ago by its own clock; not changed while watched for 25s",
        "reported as stuck by worker-2",
        "node worker-1 is not reporting, cordoned, last kubelet heartbeat 29m ago",
        "it runs the same boot as when the lock entered this phase",
        "its status: rebooting",
    ):
        assert words in text
    assert "another boot than" in "\n".join(facts(seen(boot_id="boot-2")))
    assert "an unknown boot" in "\n".join(facts(seen(boot_id="")))
    assert "its status: none" in "\n".join(facts(seen(at=node(phase=None))))
    assert "the Lease was forged or damaged" in "\n".join(facts(seen(lease(holder="x; reboot/uid"), at=None)))
    assert "does not exist any more" in "\n".join(facts(seen(at=None)))
    assert "is another one by the same name" in "\n".join(facts(seen(at=node(uid="other"))))
    assert "ahead of this clock" in "\n".join(facts(seen(lease(renewed=NOW + 100))))
