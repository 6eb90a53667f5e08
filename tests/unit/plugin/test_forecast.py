"""One pool's forecast: who is counted, what it is reckoned from, and when it is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config import loads
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import NodeRow, Reboot
from agent.plugin.cluster.policy import Policy
from agent.plugin.commands.forecast import Load, Outlook, assumptions, outlook
from agent.plugin.diagnosis.outlook import HAND_OVER_SECONDS, pace_of
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.lease import micro_time
from agent.reboot.state import Phase

NOW = 1.9e9  # Sun 2030-03-17 17:46:40 UTC
FIVE = (300.0,) * 5


def row(
    name: str = "n", *, required: bool | None = True, phase: Phase | None = Phase.WAITING, **more: object
) -> NodeRow:
    base = NodeRow(
        name, f"uid-{name}", "workers", True, False, "6.1", None, None, 0, 0, 0, phase, required, 0.0,
        "waiting for the lock", 0, "", "", "0.1.0", "p", "",
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def rebooted(seconds: float) -> Reboot:
    return Reboot(NOW - 86400, "libc6", "6.1", "6.1", seconds, (), 3, "")


def rules(text: str = "") -> Policy:
    return Policy(loads(text, "config.yaml"), "config.yaml")


def lock(*, holder: str = "n0/uid-n0", stuck: str = "", last: float = 0.0) -> Lock:
    view = LeaseView(
        "node-hardening-reboot-workers-0", "1", holder, LeasePhase.HELD, acquired=micro_time(NOW - 100), stuck=stuck,
        last_reboot=last,
    )  # fmt: skip
    return Lock("workers", 0, view)


def ask(load: Load, *slots: Lock, policy: Policy | None = None, pause: Pause | None = None) -> Outlook:
    return outlook(
        "workers", load, pace_of(load.seconds), slots=slots, rules=policy or rules(),
        pause=pause or Pause(active=False), now=NOW,
    )  # fmt: skip


def test_who_is_counted() -> None:
    """Waiting ones, and those in back-off; not the opted out, those that the loop guard holds, nor the holder."""
    guard = "required still after a proven reboot: not rebooted again until the sentinel goes or changes"
    load = Load()
    for one in (
        row("n0"),
        row("n1"),
        row("n2", skip="disk"),
        row("n3", phase=Phase.FAILED),
        row("n4", phase=Phase.BLOCKED, sentence=guard),
        row("n5", required=None, phase=None),
        row("n6", required=False, phase=Phase.IDLE, history=(rebooted(240.0), rebooted(0.0))),
        row("n7", required=False, phase=Phase.IDLE, skip="disk"),
    ):
        load.count(one, frozenset({"n0"}))
    assert (load.size, load.waiting, load.untold) == (8, 2, 1)
    assert (load.skipped, load.failed, load.stopped) == (["n2"], ["n3"], ["n4"])
    assert load.seconds == [240.0]


def test_a_pool_is_reckoned_from_its_own_reboots() -> None:
    """The holder's rest, then one after another; the cautious answer is the later one."""
    found = ask(Load(size=9, waiting=2, seconds=[*FIVE, 600.0]), lock())
    assert found.under_way == ("n0",)
    assert found.typical.at == NOW + 200 + 300 + 300 + HAND_OVER_SECONDS
    assert found.cautious.at == NOW + 500 + 600 + 600 + HAND_OVER_SECONDS


def test_no_reboot_seen_is_unknown() -> None:
    """Nobody guesses how long one takes."""
    assert ask(Load(size=3, waiting=1)).typical.why == "no reboot was seen yet; say how long one takes: --takes 10m"


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        ("reboot: {concurrency: 3, maxUnavailable: 3}", 300),
        ("reboot: {concurrency: 3, maxUnavailable: 30%}", 300),
        ("reboot: {concurrency: 3, maxUnavailable: 10%}", 906),
        ("reboot: {lock: {releaseDelay: 60s}}", 1086),
        ("reboot: {blockers: {minimumGap: 10m}}", 2100),
    ],
)
def test_the_policy_sets_the_pace(policy: str, seconds: float) -> None:
    """Slots that the budget lets be used, the delay before a lock is given back, the pool's rest."""
    assert ask(Load(size=10, waiting=3, seconds=[300.0]), policy=rules(policy)).typical.at == NOW + seconds


def test_the_gap_counts_from_the_last_reboot() -> None:
    """Of which a free lock still tells."""
    found = ask(
        Load(size=3, waiting=1, seconds=[300.0]), lock(holder="", last=NOW - 60),
        policy=rules("reboot: {blockers: {minimumGap: 10m}}"),
    )  # fmt: skip
    assert found.typical.at == NOW + 540 + 300


def test_a_pause_with_an_end_is_waited_for() -> None:
    """Without one nobody can tell."""
    load = Load(size=3, waiting=1, seconds=[300.0])
    until = Pause(active=True, until="2030-03-17T18:46:40Z", sentence="the cluster's pause")
    assert ask(load, pause=until).typical.at == NOW + 3600 + 300
    for endless in (replace(until, until=""), replace(until, is_known=False), replace(until, until="tomorrow")):
        assert ask(load, pause=endless).typical.why == "the cluster's pause"


@pytest.mark.parametrize(
    ("policy", "slot", "why"),
    [
        (Policy(None, "c", "no such configmap"), lock(), "configuration cannot be told: no such configmap"),
        (rules("reboot: {mode: audit}"), lock(), "never: reboot.mode is audit"),
        (rules(), lock(stuck="n2"), "lock workers/0 is stuck: n0 went down and did not come back"),
        (rules("reboot: {windows: [{days: [mon], start: '10:00', end: '10:01'}]}"), lock(), "more than a year away"),
    ],
)
def test_what_nobody_knows_is_unknown(policy: Policy, slot: Lock, why: str) -> None:
    """And why is said."""
    found = ask(Load(size=900, waiting=800, seconds=[300.0]), slot, policy=policy)
    assert (found.typical.at, why in found.typical.why) == (None, True)


def test_nothing_to_do_is_done_unless_nobody_can_tell() -> None:
    """A node of unknown state is never taken for one that wants nothing."""
    assert ask(Load(size=3)).typical.at == NOW
    assert ask(Load(size=3, untold=3)).typical.at is None


def test_what_it_rests_on_is_said() -> None:
    """Only what has to do with the answers; who is left out is named."""
    done = ask(Load(size=3))
    assert assumptions([done], rules(), Pause(active=False)) == []
    busy = ask(Load(size=3, waiting=1, seconds=[300.0], skipped=["n2"], untold=1))
    told = assumptions([busy], rules(), Pause(active=False))
    assert told[-2:] == ["workers: n2: opted out, not counted", "workers: of 1 node nobody can tell: not counted"]
    assert "there are no windows: one may begin at any time" in told
