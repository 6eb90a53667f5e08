"""Keeping the Node as it should be, with others who write to it too, and an API server that comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent import annotations as keys
from agent.event_reasons import Reason
from agent.kube.errors import Forbidden, Operation, Unreachable
from agent.model import Condition
from agent.report.events import Recorder
from agent.report.node_status import NodeView
from agent.report.publisher import NodePublisher
from agent.text import format_rfc3339
from tests.support.report import EventsInMemory, NodeInMemory

PATCH = Operation("PATCH", "patch", "nodes", "nodes/n1", "/api/v1/nodes/n1")
WELL = Condition(keys.CONDITION_HARDENED, "True", "Hardened", "modprobe: 7/7 passed.")
DRIFTED = Condition(keys.CONDITION_HARDENED, "False", "NotCompliant", "modprobe: 1/7 failed.")
HARDENED = NodeView({keys.STATUS: "hardened", keys.FINDINGS: None}, {keys.LABEL: "true"}, (WELL,))


@dataclass
class Scene:
    """A publisher whose turns a test takes, at a time that a test moves."""

    node: NodeInMemory = field(default_factory=NodeInMemory)
    events: EventsInMemory = field(default_factory=EventsInMemory)
    mono: float = 100.0
    dropped: int = 0
    is_alive: bool = True
    beat: float = 0.0

    def __post_init__(self) -> None:
        def drop() -> None:
            self.dropped += 1

        def beat(at: float) -> None:
            self.beat = at

        recorder = Recorder(self.events, "n1", lambda: 1_000_000 + self.mono, drop)
        self.publisher = NodePublisher(
            self.node,
            recorder,
            "n1",
            wall=lambda: 1_000_000 + self.mono,
            stop=threading.Event(),
            clock=lambda: self.mono,
            alive=lambda: self.is_alive,
            on_heartbeat=beat,
        )

    def settle(self) -> None:
        """Turns until there is nothing to do at this moment."""
        for _ in range(10):
            before = len(self.node.calls) + len(self.events.calls)
            wait = self.publisher.turn()
            if wait is None or (wait > 0 and before == len(self.node.calls) + len(self.events.calls)):
                return

    def somebody(self, do: Callable[[dict[str, Any]], None]) -> None:
        """Another writer changes the Node, and the watch shows it."""
        self.publisher.on_node_event(self.node.change(do))

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.node.shown["metadata"].get("annotations", {}))

    @property
    def conditions(self) -> dict[str, dict[str, str]]:
        return {one["type"]: one for one in self.node.shown["status"].get("conditions", [])}

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events.events.values()]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def published(scene: Scene) -> Scene:
    """A node that shows what it should, with the calls so far forgotten."""
    scene.publisher.offer("hardening", HARDENED)
    scene.settle()
    scene.node.calls.clear()
    return scene


def take_status(node: dict[str, Any]) -> None:
    del node["metadata"]["annotations"][keys.STATUS]


def test_a_first_report_is_two_requests(scene: Scene) -> None:
    """Read, then annotations, label and condition together; and the Event that says so."""
    scene.publisher.offer("hardening", HARDENED)
    scene.settle()
    assert scene.node.calls == ["read", "patch"]
    assert scene.annotations == {keys.STATUS: "hardened"}
    assert scene.node.shown["metadata"]["labels"] == {keys.LABEL: "true"}
    assert scene.conditions["NodeHardened"]["reason"] == "Hardened"
    assert scene.reasons == ["NodeHardened"]


def test_the_same_again_is_no_request(published: Scene) -> None:
    """An idle node costs the API server nothing, whatever others write to their own parts."""
    published.publisher.offer("hardening", HARDENED)

    def others(node: dict[str, Any]) -> None:
        node["metadata"]["annotations"]["other.example/x"] = "1"
        node["status"]["conditions"].append({"type": "Ready", "status": "True"})

    for _ in range(59):
        published.mono += 60
        published.somebody(others)
        published.settle()
    assert published.node.calls == []


def test_an_idle_node_has_a_heartbeat_of_one_request_an_hour(published: Scene) -> None:
    """Of both conditions at once; the publisher wakes for it by itself."""
    reboot = Condition(keys.CONDITION_REBOOT, "False", "Idle", "")
    published.publisher.offer("reboot", NodeView(conditions=(reboot,)))
    published.settle()
    published.node.calls.clear()
    begun = published.mono
    while published.mono < begun + 10 * 3600:
        wait = published.publisher.turn()
        assert wait is not None
        assert 60 <= wait <= 1.1 * 3600
        published.mono += wait
    assert published.node.calls == ["patch"] * 9
    assert published.conditions["NodeHardened"]["status"] == "True"
    assert {one["lastHeartbeatTime"] for one in published.conditions.values()} == {format_rfc3339(published.beat)}
    assert 1_000_000 + published.mono - published.beat <= 1.1 * 3600


def test_what_is_written_anyway_carries_the_heartbeat(published: Scene) -> None:
    """Another condition's change costs one request, and defers the heartbeat's own."""
    for _ in range(20):
        published.mono += 1800
        reboot = Condition(keys.CONDITION_REBOOT, "False", "Idle", str(published.mono))
        published.publisher.offer("reboot", NodeView(conditions=(reboot,)))
        published.settle()
    assert published.node.calls == ["patch"] * 20
    assert published.beat == 1_000_000 + published.mono
    published.publisher.offer("config", NodeView({keys.CONFIG_PROBLEM: "line 3"}))
    published.mono += 1800
    published.settle()
    assert published.beat == 1_000_000 + published.mono


def test_without_a_pass_there_is_no_heartbeat(published: Scene) -> None:
    """Another part alone, after a restart, does not repeat its own condition for it."""
    reboot = Condition(keys.CONDITION_REBOOT, "False", "Idle", "")
    published.publisher.offer("reboot", NodeView(conditions=(reboot,)))
    published.settle()
    published.publisher.withdraw("hardening")
    published.node.calls.clear()
    for _ in range(10):
        published.mono += 3600
        published.publisher.turn()
    assert published.node.calls == []


@pytest.mark.parametrize("forged", ["", "x", "2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_forged_heartbeat_is_corrected_and_no_fight(published: Scene, forged: str) -> None:
    """Ever more slowly while another writer keeps at it."""

    def forge(node: dict[str, Any]) -> None:
        node["status"]["conditions"][0]["lastHeartbeatTime"] = forged

    for _ in range(600):
        published.somebody(forge)
        published.settle()
        published.mono += 1
    assert 1 <= len(published.node.calls) <= 12


def test_an_agent_that_makes_no_passes_has_no_heartbeat(published: Scene) -> None:
    """The publisher's thread alone keeps no node looking alive; it does not spin either."""
    published.is_alive = False
    for _ in range(10):
        published.mono += 3600
        wait = published.publisher.turn()
        assert wait is not None
        assert wait >= 60
    assert published.node.calls == []


def test_parts_are_written_together_and_taken_away_again(published: Scene) -> None:
    """None takes an annotation away; what another part offers stays."""
    published.publisher.offer("config", NodeView({keys.CONFIG_PROBLEM: "line 3"}))
    published.settle()
    assert published.annotations == {keys.STATUS: "hardened", keys.CONFIG_PROBLEM: "line 3"}
    published.publisher.offer("config", NodeView({keys.CONFIG_PROBLEM: None}))
    published.settle()
    assert published.annotations == {keys.STATUS: "hardened"}


@pytest.mark.parametrize("is_done", [True, False])
def test_a_change_of_status_whose_answer_is_lost_has_its_event(published: Scene, is_done: bool) -> None:
    """The patch may have been done: the Node shows it with the next read, and on-call still hears of it, once."""

    def lose(_: object) -> None:
        raise Unreachable(PATCH, "no answer in time", ambiguous=True)

    if is_done:
        published.node.after = lose
    else:
        published.node.fails = [Unreachable(PATCH, "away")]
    published.publisher.offer("hardening", NodeView({keys.STATUS: "failed"}, {}, (DRIFTED,)))
    published.settle()
    published.mono += 60
    published.settle()
    assert published.annotations[keys.STATUS] == "failed"
    assert published.reasons == ["NodeHardened", "HardeningFailed"]
    published.mono += 60
    published.settle()
    assert len(published.events.events) == 2


def test_the_transition_time_moves_with_the_status_alone(published: Scene) -> None:
    """Another message is the same state since the same time; the heartbeat says when it was written."""
    since = published.conditions["NodeHardened"]["lastTransitionTime"]
    published.mono += 60
    same = Condition(WELL.type, "True", WELL.reason, "another sentence")
    published.publisher.offer("hardening", NodeView(HARDENED.annotations, HARDENED.labels, (same,)))
    published.settle()
    condition = published.conditions["NodeHardened"]
    assert (condition["lastTransitionTime"], condition["message"]) == (since, "another sentence")
    assert condition["lastHeartbeatTime"] > since
    published.mono += 60
    published.publisher.offer("hardening", NodeView(HARDENED.annotations, HARDENED.labels, (DRIFTED,)))
    published.settle()
    assert published.conditions["NodeHardened"]["lastTransitionTime"] > since


def test_a_change_of_status_is_an_event_and_the_same_status_none(published: Scene) -> None:
    """hardened -> non-compliant -> hardened: each told with the sentence that explains it; a restart tells nothing."""
    drifted = NodeView({keys.STATUS: "non-compliant", keys.SUMMARY: "modprobe: 1/7 failed."}, {}, (DRIFTED,))
    published.publisher.offer("hardening", drifted)
    published.settle()
    again = Scene(node=published.node)
    again.publisher.offer("hardening", drifted)
    again.settle()
    assert again.events.events == {}
    told = [event["message"] for event in published.events.events.values()]
    assert told == ["new -> hardened.", "hardened -> non-compliant. modprobe: 1/7 failed."]


def test_the_taint_is_lifted_and_only_ours(scene: Scene) -> None:
    """After annotations and condition; the others' taints are as they were, and it is told once."""
    ours, theirs = {"key": keys.TAINT, "effect": "NoSchedule"}, {"key": "gpu", "effect": "NoSchedule"}
    scene.node.change(lambda node: node["spec"].update(taints=[ours, theirs]))
    scene.publisher.offer("hardening", HARDENED)
    scene.settle()
    assert scene.node.shown["spec"]["taints"] == [ours, theirs]
    lifting = NodeView(HARDENED.annotations, HARDENED.labels, HARDENED.conditions, lift_taint=True)
    scene.publisher.offer("hardening", lifting)
    scene.settle()
    assert scene.node.shown["spec"]["taints"] == [theirs]
    assert scene.reasons.count(Reason.STARTUP_TAINT_REMOVED.value) == 1


def test_a_taint_that_somebody_adds_meanwhile_survives(scene: Scene) -> None:
    """Taints are replaced whole, so the version that was read has to be the one that is written: else read again."""
    ours, theirs = {"key": keys.TAINT, "effect": "NoSchedule"}, {"key": "late", "effect": "NoSchedule"}
    scene.node.change(lambda node: node["spec"].update(taints=[ours]))
    # Between the answer to our last write and the next request.
    scene.node.after = lambda _: scene.node.change(lambda node: node["spec"]["taints"].append(theirs))
    scene.publisher.offer("hardening", NodeView(lift_taint=True))
    scene.publisher.turn()
    assert scene.node.shown["spec"]["taints"] == [ours, theirs]
    scene.mono += 1
    scene.settle()
    assert scene.node.shown["spec"]["taints"] == [theirs]


def test_what_somebody_takes_away_comes_back_at_once(published: Scene) -> None:
    """The first time there is nothing to wait for."""
    published.somebody(take_status)
    published.settle()
    assert published.node.calls == ["patch"]
    assert published.annotations[keys.STATUS] == "hardened"


def test_a_fight_slows_down(published: Scene) -> None:
    """Somebody takes the annotation away each time that we write it: a dozen writes in the first quarter of an hour, a
    dozen an hour from then on."""
    for _ in range(900 * 2):
        published.mono += 0.5
        if keys.STATUS in published.annotations:
            published.somebody(take_status)
        published.publisher.turn()
    assert 5 <= len(published.node.calls) <= 14
    published.node.calls.clear()
    for _ in range(3600):
        published.mono += 1
        if keys.STATUS in published.annotations:
            published.somebody(take_status)
        published.publisher.turn()
    assert 6 <= len(published.node.calls) <= 12


def test_news_is_written_at_once_even_in_a_fight(published: Scene) -> None:
    """Only repairs are slowed down: another status of the node is shown when it is known."""
    for _ in range(200):
        published.mono += 0.5
        if keys.STATUS in published.annotations:
            published.somebody(take_status)
        published.publisher.turn()
    published.publisher.offer("hardening", NodeView({keys.STATUS: "non-compliant"}, {}, (DRIFTED,)))
    published.publisher.turn()
    assert published.annotations[keys.STATUS] == "non-compliant"


def test_after_ten_quiet_minutes_repairs_are_prompt_again(published: Scene) -> None:
    """Peace is believed."""
    for _ in range(100):
        published.mono += 1
        if keys.STATUS in published.annotations:
            published.somebody(take_status)
        published.publisher.turn()
    published.mono += 2000
    published.settle()
    published.node.calls.clear()
    for _ in range(2):
        published.mono += 1
        published.somebody(take_status)
        published.settle()
    assert published.node.calls == ["patch", "patch"]


def test_an_answer_never_hides_a_later_change(published: Scene) -> None:
    """The watch shows a change made after our write before the answer to our write is taken in: it is repaired."""
    published.node.after = lambda _: published.somebody(take_status)
    published.publisher.offer("hardening", NodeView({keys.STATUS: "hardened", keys.VERSION: "2"}, {}, (WELL,)))
    published.settle()
    published.mono += 10
    published.settle()
    assert published.annotations == {keys.STATUS: "hardened", keys.VERSION: "2"}


def test_an_old_look_asks_for_nothing(published: Scene) -> None:
    """A watch that is behind shows the Node before our write: nothing is written twice."""
    before = Scene()
    old = before.node.shown
    published.publisher.on_node_event(old)
    published.settle()
    assert published.node.calls == []


def test_a_restored_cluster_is_believed(published: Scene) -> None:
    """From a backup the Node comes back with an older version than we have seen; a list says what is."""
    published.node.register()
    published.node.node["metadata"]["resourceVersion"] = "1"  # type: ignore[index]
    published.publisher.on_node_event(published.node.shown, listed=True)
    published.settle()
    assert published.annotations == {keys.STATUS: "hardened"}


def test_a_node_that_is_not_there_yet_is_waited_for(scene: Scene) -> None:
    """The kubelet registers it after the agent has begun: no request until then, everything then."""
    scene.node.node = None
    scene.publisher.on_node_deleted()
    scene.publisher.offer("hardening", HARDENED)
    for _ in range(100):
        scene.mono += 30
        scene.settle()
    assert scene.node.calls == []
    scene.node.register()
    scene.publisher.on_node_event(scene.node.shown)
    scene.settle()
    assert scene.annotations[keys.STATUS] == "hardened"


def test_a_node_that_was_made_anew_shows_everything_again(published: Scene) -> None:
    """Deleted and registered again: another UID, nothing of ours on it, its start-up taint lifted once more."""
    published.publisher.on_node_deleted()
    published.node.node = None
    published.settle()
    published.node.register(uid="u2")
    published.publisher.on_node_event(published.node.shown)
    published.settle()
    assert published.annotations == {keys.STATUS: "hardened"}
    assert published.conditions["NodeHardened"]["status"] == "True"
    assert published.node.calls == ["patch"]


def test_without_sight_the_node_is_read_before_it_is_written(published: Scene) -> None:
    """While the watch is away anything may have happened."""
    published.publisher.invalidate()
    published.settle()
    assert published.node.calls == []
    published.node.change(take_status)
    published.publisher.offer("config", NodeView({keys.CONFIG_PROBLEM: "x"}))
    published.settle()
    assert published.node.calls == ["read", "patch"]
    assert published.annotations == {keys.STATUS: "hardened", keys.CONFIG_PROBLEM: "x"}


def test_an_api_server_that_is_away_is_tried_ever_more_rarely(scene: Scene) -> None:
    """Up to every half minute, whatever is offered meanwhile; the newest is written when it is back."""
    scene.node.fails = [Unreachable(PATCH, "away")] * 1000
    for number in range(600):
        scene.mono += 1
        scene.publisher.offer("hardening", NodeView({keys.STATUS: "hardened", keys.VERSION: str(number)}))
        scene.publisher.turn()
    assert len(scene.node.calls) <= 30
    scene.node.fails = []
    scene.mono += 30
    scene.settle()
    assert scene.annotations[keys.VERSION] == "599"


def test_events_that_are_refused_do_not_hold_up_the_node(scene: Scene) -> None:
    """Without the right to write Events the Node is as prompt as ever, and what was lost is counted."""
    scene.events.always = Forbidden(PATCH, "events is forbidden", status=403)
    for status in ("hardened", "non-compliant", "hardened"):
        scene.publisher.event(Reason.DRIFT_CORRECTED, f"before {status}")
        scene.publisher.offer("hardening", NodeView({keys.STATUS: status}))
        scene.publisher.turn()
        assert scene.annotations[keys.STATUS] == status
    assert scene.dropped == 6


def test_events_that_wait_do_not_hold_up_the_node(scene: Scene) -> None:
    """Nor do those that are tried again later; and a burst of new ones does not use up the tries of the first."""
    scene.events.always = Unreachable(PATCH, "away")
    for number in range(10):
        scene.publisher.event(Reason.DRIFT_CORRECTED, f"event {number}")
        scene.publisher.offer("hardening", NodeView({keys.VERSION: str(number)}))
        scene.publisher.turn()
        assert scene.annotations[keys.VERSION] == str(number)
    assert (len(scene.events.calls), scene.dropped) == (1, 0)
    scene.events.always = None
    scene.mono += 1
    scene.publisher.turn()
    assert len(scene.events.events) == 10


def test_a_node_that_may_not_be_written_does_not_hold_up_events(scene: Scene) -> None:
    """They are the last thing that still says what is wrong."""
    scene.node.fails = [Forbidden(PATCH, "nodes is forbidden", status=403)] * 9
    scene.publisher.offer("hardening", HARDENED)
    scene.publisher.event(Reason.DRIFT_CORRECTED, "m")
    scene.publisher.turn()
    assert scene.reasons == ["DriftCorrected"]


def test_run_ends_when_it_is_stopped() -> None:
    """At once, also while it waits for something to do."""
    node, stop = NodeInMemory(), threading.Event()
    publisher = NodePublisher(
        node, Recorder(EventsInMemory(), "n1", lambda: 0.0, lambda: None), "n1", wall=lambda: 0.0, stop=stop
    )
    thread = threading.Thread(target=publisher.run)
    thread.start()
    publisher.offer("hardening", HARDENED)
    stop.set()
    publisher.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_stop_during_the_pause_is_not_lost() -> None:
    """`stop` sets the wake-up before the publisher clears it: the thread ends all the same."""
    stop = threading.Event()

    def stop_in_the_pause() -> float:
        if not stop.is_set() and threading.current_thread() is thread:
            stop.set()
            publisher.stop()
        return 0.0

    recorder = Recorder(EventsInMemory(), "n1", lambda: 0.0, lambda: None)
    publisher = NodePublisher(NodeInMemory(), recorder, "n1", wall=lambda: 0.0, stop=stop, clock=stop_in_the_pause)
    thread = threading.Thread(target=publisher.run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_flush_returns_when_the_events_are_delivered() -> None:
    """A node that is about to go down waits for its last words: a running publisher takes them to the API server."""
    stop = threading.Event()
    events = EventsInMemory()
    recorder = Recorder(events, "n1", time.time, lambda: None)
    publisher = NodePublisher(NodeInMemory(), recorder, "n1", wall=time.time, stop=stop)
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        publisher.event(Reason.REBOOTING, "Rebooting")
        assert publisher.flush(30.0)
        assert [body["reason"] for body in events.events.values()] == ["Rebooting"]
    finally:
        stop.set()
        publisher.stop()
        thread.join()


def test_flush_gives_up_after_its_time(scene: Scene) -> None:
    """An API server that takes nothing holds nobody up for longer than was said."""
    clock = iter(range(100, 200))
    publisher = NodePublisher(
        scene.node,
        Recorder(scene.events, "n1", lambda: 0.0, lambda: None),
        "n1",
        wall=lambda: 0.0,
        stop=threading.Event(),
        clock=lambda: next(clock),
    )
    publisher.event(Reason.REBOOTING, "Rebooting")
    assert not publisher.flush(2.0)
    assert next(clock) < 110
