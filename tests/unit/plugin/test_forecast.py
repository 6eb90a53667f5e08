"""One pool's forecast: who is counted, what it is calculated from, and when it is unknown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from agent.config import loads
from agent.config.choices import Mode
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import NodeRow, Reboot
from agent.plugin.cluster.policy import Policy
from agent.plugin.commands.forecast import Outlook, PoolLoad, assumptions, outlook
from agent.plugin.diagnosis.outlook import HAND_OVER_SECONDS, Rules, cycle_time
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.lease import micro_time
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from tests.support.plugin_rows import a_lock, a_row

NOW = 1.8e9  # Fri 2027-01-15 08:00:00 UTC
FIVE = (300.0,) * 5


def row(
    name: str = "n", *, required: bool | None = True, phase: Phase | None = Phase.WAITING, **more: object
) -> NodeRow:
    base = a_row(name, phase=phase, required=required)
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
    return a_lock(view)


def pool(size: int, pending: int = 0, **more: Any) -> PoolLoad:
    """A pool in which so many wait; `ask` gives them a policy."""
    return PoolLoad(size, Counter({Rules(): pending} if pending else {}), **more)


def ask(load: PoolLoad, *slots: Lock, policy: Policy | None = None, pause: Pause | None = None) -> Outlook:
    """By one policy that all nodes of the pool have."""
    reboot, waiting = (policy or rules()).reboot, load.waiting.total()
    if reboot.mode is Mode.ENFORCE:
        some = Counter({Rules(reboot.windows, reboot.lock.release_delay): waiting} if waiting else {})
        load = replace(load, waiting=some)
    else:
        load = replace(load, waiting=Counter(), inactive={reboot.mode: ["n"] * waiting})
    return outlook(
        "workers", load, cycle_time(load.seconds), slots=slots, rules=policy or rules(),
        pause=pause or Pause(active=False), now=NOW,
    )  # fmt: skip


def test_who_is_counted() -> None:
    """Waiting ones, and those in back-off; not the opted out, those that the loop guard holds, nor the holder."""
    load = PoolLoad()
    for one in (
        row("n0"),
        row("n1"),
        row("n2", skip="disk"),
        row("n3", phase=Phase.ROLLED_BACK),
        row("n4", phase=Phase.BLOCKED, reason=StatusReason.SENTINEL_UNCHANGED),
        row("n5", required=None, phase=None),
        row("n6", required=False, phase=Phase.IDLE, history=(rebooted(240.0), rebooted(0.0))),
        row("n7", required=False, phase=Phase.IDLE, skip="disk"),
    ):
        load.count(one, frozenset({"n0"}), rules().reboot)
    assert (load.size, load.pending, load.unknown) == (8, 2, 1)
    assert (load.skipped, load.failed, load.stopped) == (["n2"], ["n3"], ["n4"])
    assert load.seconds == [240.0]


def test_a_pool_is_calculated_from_its_own_reboots() -> None:
    """The holder's rest, then one after another; the cautious answer is the later one."""
    found = ask(pool(size=9, pending=2, seconds=[*FIVE, 600.0]), lock())
    assert found.under_way == ("n0",)
    assert found.typical.at == NOW + 200 + 300 + 300 + HAND_OVER_SECONDS
    assert found.cautious.at == NOW + 500 + 600 + 600 + HAND_OVER_SECONDS


def test_no_recorded_reboot_is_unknown() -> None:
    """Its duration is not guessed."""
    assert (
        ask(pool(size=3, pending=1)).typical.why == "no reboot was recorded yet; pass how long one takes: --takes 10m"
    )


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
    """Slots that the budget lets be used, the delay before a lock is released, the pool's minimum gap."""
    assert ask(pool(size=10, pending=3, seconds=[300.0]), policy=rules(policy)).typical.at == NOW + seconds


def test_the_gap_counts_from_the_last_reboot() -> None:
    """Which a free lock still records."""
    found = ask(
        pool(size=3, pending=1, seconds=[300.0]), lock(holder="", last=NOW - 60),
        policy=rules("reboot: {blockers: {minimumGap: 10m}}"),
    )  # fmt: skip
    assert found.typical.at == NOW + 540 + 300


def test_a_pause_with_an_end_is_waited_for() -> None:
    """Without one the answer is unknown."""
    load = pool(size=3, pending=1, seconds=[300.0])
    until = Pause(active=True, until="2027-01-15T09:00:00Z", sentence="by anna")
    assert ask(load, pause=until).typical.at == NOW + 3600 + 300
    for endless in (replace(until, until=""), replace(until, is_known=False), replace(until, until="tomorrow")):
        assert ask(load, pause=endless).typical.why == "reboots are paused by anna"


@pytest.mark.parametrize(
    ("policy", "slot", "why"),
    [
        (Policy(None, "c", "no such configmap"), lock(), "configuration: no such configmap"),
        (rules("reboot: {mode: audit}"), lock(), "never: reboot.mode is audit"),
        (rules(), lock(stuck="n2"), "lock workers/0 is stuck: n0 did not come back from its reboot"),
        (rules("reboot: {windows: [{days: [mon], start: '10:00', end: '10:01'}]}"), lock(), "more than a year away"),
    ],
)
def test_what_is_unknown_is_reported_with_its_reason(policy: Policy, slot: Lock, why: str) -> None:
    """Never a guess."""
    found = ask(pool(size=900, pending=800, seconds=[300.0]), slot, policy=policy)
    assert (found.typical.at, why in found.typical.why) == (None, True)


def test_nothing_to_do_is_done_unless_something_is_unknown() -> None:
    """A node of unknown state is never taken for one that wants nothing."""
    assert ask(pool(size=3)).typical.at == NOW
    assert ask(pool(size=3, unknown=3)).typical.at is None


def test_its_assumptions_are_listed() -> None:
    """Only what has to do with the answers; who is left out is named."""
    done = ask(pool(size=3))
    assert assumptions([done], Pause(active=False)) == []
    busy = ask(pool(size=3, pending=1, seconds=[300.0], skipped=["n2"], unknown=1))
    lines = assumptions([busy], Pause(active=False))
    assert lines[-2:] == ["workers: n2: opted out, not counted", "workers: 1 node unknown, not counted"]
    assert "no windows: a reboot may begin at any time" in lines


OVERRIDES = """
reboot: {mode: enforce, lock: {releaseDelay: 10s}}
overrides:
  - {name: night, nodeSelector: pool=night, reboot: {windows: [{start: "22:00", end: "04:00"}]}}
  - {name: slow, nodeSelector: pool=slow, reboot: {lock: {releaseDelay: 10m}, rebootTimeout: 3h}}
  - {name: never, nodeSelector: pool=never, reboot: {mode: audit}}
"""


def overridden(*pools: str, holders: frozenset[str] = frozenset()) -> PoolLoad:
    """Pending nodes of one pool of reboots, with these labels and OVERRIDES as their policy."""
    load, policy = PoolLoad(seconds=[300.0]), rules(OVERRIDES)
    for number, name in enumerate(pools):
        one = row(f"n{number}", labels={"pool": name})
        load.count(one, holders, policy.of_node(one.labels).reboot)
    return load


def forecast(load: PoolLoad, *slots: Lock) -> Outlook:
    return outlook(
        "workers", load, cycle_time(load.seconds), slots=slots, rules=rules(OVERRIDES), pause=Pause(active=False),
        now=NOW,
    )  # fmt: skip


def test_each_node_waits_by_its_own_policy() -> None:
    """The windows of one node neither hold the others up nor are used by them."""
    night = 14 * 3600
    assert forecast(overridden("", "")).typical.at == NOW + 2 * 310 + HAND_OVER_SECONDS
    assert forecast(overridden("night", "", "")).typical.at == NOW + night + 310
    assert forecast(overridden("slow", "")).typical.at == NOW + 310 + 900 + HAND_OVER_SECONDS


def test_a_node_whose_policy_reboots_nothing_is_not_waited_for_and_named() -> None:
    found = forecast(overridden("never", ""))
    assert (found.typical.at, found.load.pending) == (NOW + 310, 2)
    assert "workers: n0: reboot.mode is audit, not counted" in assumptions([found], Pause(active=False))
    assert forecast(overridden("never")).typical.why == "never: reboot.mode is audit"


def test_a_holder_is_judged_by_its_own_policy() -> None:
    """Its timeouts say when it is stuck, its delay when the lock is released."""
    holder = frozenset({"n0"})
    view = replace(lock().view, phase=LeasePhase.REBOOTING, acquired=micro_time(NOW - 100))
    rebooting = replace(a_lock(view), renewed=NOW - 2 * 3600)
    assert "is stuck" in forecast(overridden("", "", holders=holder), rebooting).typical.why
    found = forecast(overridden("slow", "", holders=holder), rebooting)
    assert found.typical.at == NOW + 300 + 600 - 100 + 310
