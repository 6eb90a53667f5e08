"""Events: one for each thing that happened, counted up, and never in the way of the work."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.event_reasons import Reason
from agent.kube.errors import Conflict, Forbidden, Invalid, NotFound, Operation, Refused, ServerError, Unreachable
from agent.report.events import Event, Recorder, Regarding
from agent.text import format_rfc3339
from tests.support.report import EventsInMemory

POST = Operation("POST", "create", "events", "events in default", "/api/v1/namespaces/default/events")
MENDED = Event(Regarding.node("n1"), Reason.DRIFT_CORRECTED, "mended: write /etc/x")


@dataclass
class Scene:
    """A recorder at a time that a test moves."""

    api: EventsInMemory = field(default_factory=EventsInMemory)
    now: float = 1_000_000.0
    dropped: int = 0
    delivered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, *, forgetful: bool = True) -> None:
        """Another process of the agent; forgetful: on a node that lost what was delivered."""
        if forgetful:
            self.delivered = set[str]()

        def drop() -> None:
            self.dropped += 1

        self.recorder = Recorder(self.api, "n1", lambda: self.now, drop, self.delivered)

    def tell(self, event: Event = MENDED, *, after: float = 0.0) -> None:
        """It happens, and is delivered."""
        self.now += after
        self.recorder.record(event)
        self.recorder.deliver()

    @property
    def counts(self) -> list[int]:
        return [event["count"] for event in self.api.events.values()]


def test_an_event_as_kubectl_describe_finds_it() -> None:
    """In namespace default, and about a Node whose uid is the node's name, as the kubelet's are."""
    scene = Scene()
    scene.tell()
    (event,) = scene.api.events.values()
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"}
    assert (event["type"], event["reason"], event["count"]) == ("Normal", "DriftCorrected", 1)
    assert event["source"] == {"component": "node-hardening-agent", "host": "n1"}


@pytest.mark.parametrize("reason", list(Reason))
def test_the_reasons_urgency_is_the_type(reason: Reason) -> None:
    """What on-call must see is a Warning."""
    scene = Scene()
    scene.tell(Event(Regarding.node("n1"), reason, "m"))
    (event,) = scene.api.events.values()
    assert event["type"] == ("Normal" if reason.urgency.value == "Normal" else "Warning")


def test_a_repeated_one_counts_up() -> None:
    """The same thing half a minute later is the same object; another message is another."""
    scene = Scene()
    for _ in range(3):
        scene.tell(after=31)
    assert scene.counts == [3]
    scene.tell(Event(MENDED.regarding, MENDED.reason, "something else"))
    assert scene.counts == [3, 1]


def test_a_flapping_cause_does_not_write_every_second() -> None:
    """Within thirty seconds it is only counted, and the count is made good with the next write."""
    scene = Scene()
    for _ in range(30):
        scene.tell(after=1)
    assert scene.api.calls == ["create"]
    scene.tell(after=1)
    assert (scene.counts, scene.api.calls) == ([31], ["create", "patch"])


def test_a_restarted_agent_goes_on_counting() -> None:
    """The name is made from what is said, so the Event of the process before is found and counted up."""
    scene = Scene()
    scene.tell()
    scene.restart()
    scene.tell(after=60)
    assert scene.counts == [2]


def test_after_the_api_server_has_forgotten_it_a_new_one_is_made() -> None:
    """Whether its --event-ttl is the usual hour, or shorter than we think."""
    scene = Scene()
    scene.tell()
    scene.api.events.clear()
    scene.tell(after=3601)
    assert (scene.counts, scene.api.calls) == ([1], ["create", "create"])
    scene.api.events.clear()
    scene.tell(after=60)
    assert (scene.counts, scene.dropped) == ([1], 0)


@pytest.mark.parametrize("after", [0, 1], ids=["before its count is read", "before its count is written"])
@pytest.mark.parametrize("restarted", [True, False])
def test_one_that_expires_before_its_count_is_patched_is_created_again(restarted: bool, after: int) -> None:
    """The answer was that it exists; the PATCH that follows finds it expired. What happened must not be lost."""
    scene = Scene()
    scene.tell()
    if restarted:
        scene.restart()
    left = [after]

    def expire() -> None:
        if not left[0]:
            scene.api.events.clear()
        left[0] -= 1

    scene.api.before_patch = expire
    scene.tell(after=3601)
    scene.recorder.deliver()
    assert (scene.counts, scene.dropped, scene.recorder.waiting) == ([1], 0, False)
    (event,) = scene.api.events.values()
    assert event["firstTimestamp"] == format_rfc3339(scene.now)


@pytest.mark.parametrize("count", [2**31 - 1, -5, 0, None])
def test_a_forged_count_does_not_lose_the_event(count: int | None) -> None:
    """Anyone who may write Events can write any count; ours stays one that the API server takes."""
    scene = Scene()
    scene.tell()
    (event,) = scene.api.events.values()
    scene.restart()
    event["count"] = count
    scene.tell(after=60)
    assert (event["lastTimestamp"], scene.dropped) == (format_rfc3339(scene.now), 0)


def test_a_failed_write_is_not_counted_twice() -> None:
    """The API server is away while the count goes up: it is tried again and the number is right."""
    scene = Scene()
    scene.tell()
    scene.api.fails = [Unreachable(POST, "away")] * 3
    scene.tell(after=60)
    for _ in range(3):
        scene.recorder.deliver()
    assert (scene.counts, scene.dropped, scene.recorder.waiting) == ([2], 0, False)


def test_a_keyed_one_is_told_once() -> None:
    """A restarted process tells the same happening again: one Event with count 1."""
    scene = Scene()
    event = Event(MENDED.regarding, Reason.REBOOTING, "goes down", key="cycle-7/rebooting")
    for _ in range(3):
        scene.tell(event, after=60)
    scene.restart()
    scene.tell(event, after=60)
    assert scene.counts == [1]


def test_a_keyed_one_that_was_delivered_costs_no_request_after_a_restart() -> None:
    """What the node remembers is enough; what it does not remember is created, and may exist already."""
    scene = Scene()
    event = Event(MENDED.regarding, Reason.REBOOTING, "goes down", key="cycle-7/rebooting")
    scene.tell(event)
    scene.restart(forgetful=False)
    scene.tell(event, after=7200)
    assert len(scene.api.calls) == 1
    scene.restart(forgetful=True)
    scene.tell(event)
    assert (len(scene.api.calls), scene.counts) == (2, [1])


@pytest.mark.parametrize(
    "error",
    [
        Forbidden(POST, "events is forbidden", status=403),
        Forbidden(POST, "unable to create new content in namespace default because it is being terminated", status=403),
        NotFound(POST, "namespaces default not found", status=404),
        Invalid(POST, "is invalid", status=422),
        Refused(POST, "request entity too large", status=413),
    ],
    ids=lambda error: str(error.message).split(" ", maxsplit=1)[0],
)
def test_what_stays_refused_is_given_up_at_once(error: Refused) -> None:
    """RBAC that is missing, a namespace that goes away: one request, counted, and the next Event has its turn."""
    scene = Scene()
    scene.api.fails = [error]
    scene.recorder.record(MENDED)
    scene.recorder.record(Event(MENDED.regarding, Reason.NODE_HARDENED, "well"))
    assert scene.recorder.deliver()
    assert (scene.api.calls, scene.dropped) == (["create", "create"], 1)
    assert [event["reason"] for event in scene.api.events.values()] == ["NodeHardened"]


@pytest.mark.parametrize(
    "error", [Unreachable(POST, "away"), ServerError(POST, "etcd", status=500), Conflict(POST, "m", status=409)]
)
def test_what_may_pass_is_tried_five_times(error: Refused) -> None:
    """Then it is given up and counted, and nothing was raised."""
    scene = Scene()
    scene.api.always = error
    scene.recorder.record(MENDED)
    assert [scene.recorder.deliver() for _ in range(5)] == [False, False, False, False, True]
    assert (scene.dropped, scene.recorder.waiting) == (1, False)


def test_a_full_queue_loses_the_oldest() -> None:
    """The newest says more about now."""
    scene = Scene()
    for number in range(250):
        scene.recorder.record(Event(MENDED.regarding, MENDED.reason, f"m{number}"))
    scene.recorder.deliver()
    told = [event["message"] for event in scene.api.events.values()]
    assert (scene.dropped, told[0], told[-1], len(told)) == (50, "m50", "m249", 200)


def test_an_event_about_a_lease_is_in_its_namespace() -> None:
    """Where `kubectl describe lease` looks for it."""
    scene = Scene()
    lease = Regarding("Lease", "node-hardening-reboot-workers-0", "u", "node-hardening", "coordination.k8s.io/v1")
    scene.tell(Event(lease, Reason.REBOOT_LOCK_ACQUIRED, "m"))
    ((namespace, _),) = scene.api.events
    (event,) = scene.api.events.values()
    assert namespace == "node-hardening"
    assert event["involvedObject"]["namespace"] == "node-hardening"


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,4}", fullmatch=True)


@given(NAMES.filter(lambda name: len(name) <= 253), st.text(st.characters(), max_size=3000))
def test_any_event_is_one_that_the_api_server_takes(name: str, message: str) -> None:
    """A name of at most 253 characters that is a DNS subdomain, a message of at most 1024 that can be stored."""
    scene = Scene()
    scene.tell(Event(Regarding.node(name), Reason.NODE_NON_COMPLIANT, message))
    (event,) = scene.api.events.values()
    called = event["metadata"]["name"]
    assert len(called) <= 253
    assert all(label and label[0] != "-" and label[-1] != "-" for label in called.split("."))
    assert len(event["message"].encode().decode()) <= 1024
