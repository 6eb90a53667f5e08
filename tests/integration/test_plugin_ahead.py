"""forecast, preflight, and what reboot and unlock announce: on fleets as their daemons write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent.plugin.commands.preflight import NodePreflight, summary
from agent.reboot.drain import Expected, Preflight
from agent.sandbox.server import Sandbox
from tests.support.plugin_fleet import SCENES
from tests.support.plugin_screen import Screen, Shown, emulator


@pytest.fixture(scope="module")
def still() -> Iterator[Sandbox]:
    """One emulator for all scenes."""
    with emulator() as sandbox:
        yield sandbox


@dataclass
class Stage:
    """Whatever scene is asked for."""

    sandbox: Sandbox

    def type(self, scene: str, line: str) -> Shown:
        """One command line in front of it."""
        staged = SCENES[scene]()
        staged.put_on(self.sandbox)
        return Screen(self.sandbox, staged).type(line)


@pytest.fixture
def stage(still: Sandbox) -> Stage:
    """See Stage."""
    return Stage(still)


# -- forecast ----------------------------------------------------------------------------------------------------------


def test_a_forecast_by_windows_and_by_what_somebody_says(stage: Stage) -> None:
    """Nothing seen yet is unknown; three nodes of an hour and a half go into one night from Monday on."""
    unknown = stage.type("outside-window", "forecast")
    assert (unknown.code, "no reboot was recorded yet" in unknown.out) == (1, True)
    found = stage.type("outside-window", "forecast --takes 90m")
    assert found.code == 0
    assert "2026-11-17 01:30Z (in 3d16h)" in found.out  # 21:00Z is 22:00 in Berlin, and three times 90 minutes
    document = json.loads(stage.type("outside-window", "forecast --takes 3h -o json").out)
    (pool,) = document["pools"]
    assert (pool["pool"], pool["pending"], pool["underWay"]) == ("workers", 3, [])
    # Begun at 22:00 and 01:00; the third does not fit and goes into Tuesday's night.
    assert pool["doneAt"] == "2026-11-18T00:00:00Z"


def test_a_forecast_from_reboots_that_were_seen(stage: Stage) -> None:
    """After a round there is a pace; with nothing waiting there is nothing to calculate."""
    document = json.loads(stage.type("done", "forecast -o json").out)
    (pool,) = document["pools"]
    assert pool["cycle"]["recorded"] == 3
    assert 60 < pool["cycle"]["typicalSeconds"] < 600
    assert (pool["pending"], document["assumes"]) == (0, [])


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ("stuck", "lock workers/0 is stuck"),
        ("paused", "the pause ends at 2026-11-11T02:00:00Z"),
        ("skipped", "node-1: opted out, not counted"),
        ("looping", "stopped by the loop guard, not counted"),
        ("failed", "backing off after a failure, counted as if the next try succeeds"),
        ("sentinel-unknown", "unknown, not counted"),
    ],
)
def test_what_a_forecast_leaves_out_or_rests_on_is_said(stage: Stage, scene: str, words: str) -> None:
    """In each phase that makes one uncertain."""
    assert words in stage.type(scene, "forecast --takes 10m").out


def test_a_pace_that_is_none_is_exit_2(stage: Stage) -> None:
    """As everywhere."""
    for text in ("10", "0", "-1m"):
        assert stage.type("calm", f"forecast --takes={text}").code == 2


# -- preflight ---------------------------------------------------------------------------------------------------------


def test_a_preflight_names_pod_budget_and_owner_and_changes_nothing(stage: Stage) -> None:
    """Those that hold it up; with -o wide all of them; of the fleet, only nodes that wait and are not down."""
    stage.type("draining", "status")
    screen = Screen(stage.sandbox, SCENES["draining"]())
    before = stage.sandbox.list("pods", "shop"), stage.sandbox.list("poddisruptionbudgets", "shop")
    found = screen.type("preflight node-1")
    assert found.code == 1
    assert "shop/web-node-1-0  waits  budget shop/web (app shop) allows no disruption now" in found.out
    assert "would be blocked now: 3 pods on node-1: 1 has to wait, 2 can be evicted" in found.out
    assert "agent" not in found.out
    assert "node-hardening-agent" in screen.type("preflight node-1 -o wide").out
    fleet = screen.type("preflight")
    assert (fleet.code, "2 of 2 pending nodes would be blocked now" in fleet.out) == (1, True)
    document = json.loads(screen.type("preflight -o json").out)
    assert (document["by"], [one["node"] for one in document["nodes"]]) == ("dry-run evictions", ["node-1", "node-2"])
    assert (stage.sandbox.list("pods", "shop"), stage.sandbox.list("poddisruptionbudgets", "shop")) == before


def test_a_drain_that_would_go_through_is_exit_0(stage: Stage) -> None:
    """And so is a fleet in which nothing waits."""
    free = stage.type("calm", "preflight node-1")
    assert (free.code, free.out.startswith("a drain would complete now: ")) == (0, True)
    calm = stage.type("calm", "preflight")
    assert (calm.code, calm.out) == (0, "no node has a reboot pending; pass a NODE to check one anyway\n")


def test_a_summary_counts_in_order_of_trouble() -> None:
    """Singular and plural; nothing on the node is a sentence too."""
    pods = [Preflight(f"a/{n}", one) for n, one in enumerate([*Expected, Expected.GOES, Expected.NEVER])]
    text = "7 pods on n: 2 cannot be evicted, 1 has to wait, 1 unknown, 2 can be evicted, 1 stays"
    assert summary(NodePreflight("n", tuple(pods))) == text
    assert summary(NodePreflight("n", ())) == "0 pods on n"


def test_defaults_are_assumed_only_aloud(stage: Stage) -> None:
    """Without the agents' configuration a preflight is an answer with a reservation, never exit 0."""
    stage.type("calm", "status")
    stage.sandbox.delete("configmaps", "node-hardening-config", "node-hardening")
    found = Screen(stage.sandbox, SCENES["calm"]()).type("preflight node-1")
    assert (found.code, "the defaults are assumed" in found.err) == (1, True)


# -- what is announced before a change ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scene", "line", "words"),
    [
        ("draining", "reboot node-2", "lock workers/0 is held by node-3 for 15m"),
        ("draining", "reboot node-2", "maxUnavailable 1 of 3 nodes: node-3 unavailable"),
        ("outside-window", "reboot node-1", "windows: the next opens Mon 2026-11-16 22:00 CET"),
        ("paused", "reboot node-1", "the cluster's pause by anna@example.org"),
        ("failed", "reboot node-1", "backing off after a failure: "),
        ("without-agent", "reboot node-2", "no agent reports on this node: nothing would happen"),
        ("calm", "reboot node-1", "nothing blocks it now: expect it to begin within seconds"),
        ("waiting", "skip node-3", "its cycle is aborted: uncordoned if the agent cordoned it"),
        ("rebooting", "skip node-3", "it may be too late for the reboot under way"),
        ("verifying", "skip node-3", "the reboot under way is finished; the node begins no other"),
        ("calm", "skip node-1", "it begins no reboot until the annotation is removed"),
        (
            "draining",
            "pause",
            "node-3 holds workers/0: its drain continues, but it does not reboot until",
        ),
        ("rebooting", "pause", "node-3 holds workers/0 and is rebooting"),
        ("stuck", "unlock --watch 0", "RISK: TWO NODES DOWN AT THE SAME TIME"),
        ("stuck", "unlock --watch 0", "kubectl delete node node-3"),
    ],
)
def test_what_will_follow_is_said_before(stage: Stage, scene: str, line: str, words: str) -> None:
    """Exactly what this fleet's agents would make of it."""
    typed = stage.type(scene, f"{line} --dry-run")
    assert typed.code == 0
    assert words in " ".join(typed.err.split()).replace(" - ", " ")


def test_a_cycle_that_runs_is_not_asked_for_again(stage: Stage) -> None:
    """In every phase in which a second request would bring a second reboot."""
    for scene in ("waiting", "draining", "rebooting", "verifying"):
        typed = stage.type(scene, "reboot node-3 --yes")
        assert (typed.code, "another request would reboot it twice" in typed.out) == (0, True), scene
