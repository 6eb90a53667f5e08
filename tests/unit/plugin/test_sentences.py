"""Every sentence that a coordinator can say is understood, and means what the coordinator meant by it."""

from __future__ import annotations

import re

import pytest

from agent.config.schema import Pool
from agent.plugin.cluster import nodes as fleet
from agent.plugin.sentences import Hold, understand
from agent.reboot.interfaces import Tick
from agent.reboot.state import Phase
from tests.support import reboot_simulation
from tests.support.plugin_fleet import SCENES, Spoken

_LOGGED = re.compile(r"\[([a-z ]+)\] (.*)$")
# What may be said in each phase; a tick that acts already says what comes next.
_MEANT = {
    "idle": {Hold.NOTHING},
    "unknown": {Hold.UNTOLD, Hold.AWAY, Hold.UNREADABLE},
    "wanted": {Hold.TURN, Hold.NOTHING, Hold.AWAY},
    "waiting": {Hold.LOCK, Hold.TURN, Hold.AWAY},
    "blocked": {
        Hold.SKIP, Hold.GUARD, Hold.BACKOFF, Hold.GAP, Hold.PROOF, Hold.WINDOW, Hold.PAUSE, Hold.KURED, Hold.PODS,
        Hold.ALERTS, Hold.BUDGET, Hold.BLOCKED, Hold.UNTOLD,
    },
    "locked": {Hold.CORDONED, Hold.TURN},
    "cordoned": {Hold.CORDONED, Hold.DRAINING},
    "draining": {Hold.DRAINING, Hold.ALERTS, Hold.PAUSE, Hold.BLOCKED, Hold.PROOF, Hold.UNTOLD, Hold.REBOOTING},
    "rebooting": {Hold.REBOOTING, Hold.VERIFYING, Hold.FAILED},
    "verifying": {Hold.VERIFYING},
    "released": {Hold.RELEASING},
    "rolled back": {Hold.FAILED, Hold.NOTHING},
}  # fmt: skip
_MOVES = {
    ("waiting", "locked"), ("locked", "cordoned"), ("cordoned", "draining"), ("draining", "rebooting"),
    ("rebooting", "verifying"), ("verifying", "released"), ("released", "idle"), ("released", "wanted"),
}  # fmt: skip


def _spoken(monkeypatch: pytest.MonkeyPatch, scene: str) -> list[tuple[Tick, str | None]]:
    """Every tick of a scene, with the phase that a reader of the Node would tell."""
    ticks: list[tuple[Tick, str | None]] = []
    tell = Spoken.tick

    def listen(self: Spoken, tick: Tick) -> None:
        tell(self, tick)
        seen = self.machine.world.nodes[self.machine.name]
        phase = fleet.phase(fleet.state_of(seen.annotations), tick.sentence, tick.required)
        ticks.append((tick, phase.value if phase else None))

    monkeypatch.setattr(Spoken, "tick", listen)
    SCENES[scene]()
    return ticks


@pytest.mark.parametrize("scene", SCENES)
def test_what_a_coordinator_says_is_understood(monkeypatch: pytest.MonkeyPatch, scene: str) -> None:
    """In every phase, and never as something that belongs to another phase."""
    for tick, _ in _spoken(monkeypatch, scene):
        assert understand(tick.sentence).hold in _MEANT[tick.phase], (tick.phase, tick.sentence)


@pytest.mark.parametrize("scene", SCENES)
def test_the_phase_that_the_node_shows_is_the_coordinators(monkeypatch: pytest.MonkeyPatch, scene: str) -> None:
    """Waiting and blocked are not written down: whoever reads the sentence tells the same as who said it.

    A tick that moves on tells of the phase that it came from, and the Node shows the next one already.
    """
    for tick, shown in _spoken(monkeypatch, scene):
        assert shown == tick.phase or (tick.phase, shown) in _MOVES, tick.sentence


@pytest.mark.parametrize("seed", range(6))
def test_sentences_of_random_schedules_are_understood(seed: int) -> None:
    """Faults, crashes and people: whatever happens, nothing is said that the plugin does not know."""
    said = [match[2] for line in reboot_simulation.run(seed, logs=True).log if (match := _LOGGED.search(line))]
    assert said
    assert [sentence for sentence in said if understand(sentence).hold is Hold.OTHER] == []


@pytest.mark.parametrize(
    ("words", "text", "hold"),
    [
        ("opted out on the node: ", "OPS-4711", Hold.SKIP),
        ("blocked by windows: ", "the next opens Mon 2030-01-07 22:00 CET", Hold.WINDOW),
        ("blocked by windows that ", "do not open", Hold.WINDOW),
        ("blocked by the cluster's pause ", "by anna until 2030-01-01T00:00:00Z: x", Hold.PAUSE),
        ("blocked by kured's lock, ", "held by node-9", Hold.KURED),
        ("blocked by pods with ", "app=batch: a/b", Hold.PODS),
        ("blocked by pods that ", "cannot be listed: timeout", Hold.PODS),
        ("blocked by ", "alerts: KubeNodeNotReady", Hold.ALERTS),
        ("blocked by ", "Prometheus at http://p:9090, which cannot be told: x", Hold.ALERTS),
        ("blocked by ", "maxUnavailable 1 of 3 nodes: unavailable are b", Hold.BUDGET),
        ("blocked by ", "something new", Hold.BLOCKED),
        ("the pool rests after its last reboot: ", "5 min", Hold.GAP),
        ("required again soon after the last reboot: waits ", "10 min", Hold.BACKOFF),
        ("failed: ", "the lock was lost; tries again in 10 min", Hold.FAILED),
        ("failed: ", "rebooted, but not proved well within 15 min: x; now: y", Hold.VERIFYING),
        ("", "off", Hold.OFF),
        ("", "", Hold.OFF),
        ("", "something that a later version says", Hold.OTHER),
    ],
)
def test_what_is_left_of_a_sentence(words: str, text: str, hold: Hold) -> None:
    """The words that classify it go, the words for people stay."""
    said = understand(f"{words}{text}")
    assert (said.hold, said.text) == (hold, text)


def test_wrappers_are_looked_through() -> None:
    """Audit, a lock given back and the last no before the command are notes on what holds it, not other holds."""
    audit = understand("audit: blocked by alerts: X")
    assert (audit.hold, audit.audit) == (Hold.ALERTS, True)
    assert understand("gives the lock back: blocked by alerts: X").hold is Hold.ALERTS
    drained = understand("drained, but blocked by alerts: X")
    assert (drained.hold, drained.drained) == (Hold.ALERTS, True)


def test_a_strange_note_is_unknown() -> None:
    """What cannot be read is never idle."""
    row = fleet.row({"metadata": {"annotations": {
        "node-hardening.io/reboot-state": "{", "node-hardening.io/reboot": "not required",
    }}}, Pool())  # fmt: skip
    assert row.phase is Phase.UNKNOWN
