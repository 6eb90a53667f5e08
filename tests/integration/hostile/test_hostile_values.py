"""Values that an API server accepts and an attacker chooses, in every object that the agent reads: none raises.

Types are the API server's to hold (a test beside reboot/views.py tries other shapes as well); texts, numbers and times
are anybody's who may write the object.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent import kube
from agent.config.schema import Drain, Lock
from agent.kube import Change, EventType, Resource
from agent.plugin.cluster import policy
from agent.plugin.cluster.locks import lock_of
from agent.plugin.cluster.node_context import pod_of
from agent.reboot import history
from agent.reboot.blockers.kured import KuredBlocker
from agent.reboot.blockers.pause import PauseBlocker
from agent.reboot.drain import filters, pdb
from agent.reboot.drain.volumes import VolumeAttachments
from agent.reboot.kube.views import lease_body, lease_view, node_view
from agent.reboot.state import Cycle, Releasing, Stamp, decode
from agent.report.publisher import NodeSnapshot
from tests.support.rooms import Clocks

Object = dict[str, Any]
TIMES = (
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "2026-01-01T00:00:00Z",
    "now",
)
TEXTS = st.sampled_from(
    [
        *TIMES,
        "",
        "true",
        "-1",
        "9" * 400,
        "1e999",
        "NaN",
        "[" * 3000,
        '{"v":1}',
        "\x1b[2J\x07",
        "a\u202eb",
        "x" * 9000,
        "/",
    ]
) | st.text(max_size=30)
NUMBERS = st.sampled_from([0, -1, 2**31 - 1, -(2**31), 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from([1e308, float("inf"), float("nan"), 10**300]) | TEXTS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
    max_leaves=12,
)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=4)
OWNERS = st.lists(
    st.fixed_dictionaries(
        {"kind": TEXTS, "name": TEXTS, "uid": TEXTS, "apiVersion": TEXTS, "controller": st.booleans()}
    ),
    max_size=2,
)
META = st.fixed_dictionaries(
    {"name": TEXTS, "namespace": TEXTS, "uid": TEXTS, "resourceVersion": TEXTS},
    optional={
        "labels": LABELS, "annotations": LABELS, "ownerReferences": OWNERS,
        "deletionTimestamp": st.sampled_from(TIMES), "deletionGracePeriodSeconds": NUMBERS,
        "creationTimestamp": st.sampled_from(TIMES),
    },
)  # fmt: skip
REQUIREMENTS = st.lists(
    st.fixed_dictionaries(
        {"key": TEXTS, "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Other"])},
        optional={"values": st.lists(TEXTS, max_size=2)},
    ),
    max_size=2,
)
SELECTORS = st.fixed_dictionaries({}, optional={"matchLabels": LABELS, "matchExpressions": REQUIREMENTS})
PODS = st.fixed_dictionaries({
    "metadata": META,
    "spec": st.fixed_dictionaries({"nodeName": TEXTS}, optional={
        "terminationGracePeriodSeconds": NUMBERS, "priority": NUMBERS, "priorityClassName": TEXTS,
        "volumes": st.lists(st.fixed_dictionaries({"name": TEXTS}, optional={
            "emptyDir": st.just({}), "persistentVolumeClaim": st.fixed_dictionaries({"claimName": TEXTS}),
        }), max_size=2),
        "tolerations": st.lists(st.fixed_dictionaries({}, optional={
            "key": TEXTS, "operator": TEXTS, "effect": TEXTS, "value": TEXTS, "tolerationSeconds": NUMBERS,
        }), max_size=2),
    }),
    "status": st.fixed_dictionaries({}, optional={"phase": TEXTS, "startTime": st.sampled_from(TIMES)}),
})  # fmt: skip
BUDGETS = st.fixed_dictionaries({
    "metadata": META,
    "spec": st.fixed_dictionaries({}, optional={"selector": SELECTORS, "maxUnavailable": NUMBERS | TEXTS}),
    "status": st.dictionaries(
        st.sampled_from(["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]), NUMBERS
    ),
})  # fmt: skip
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Ready", "NodeHardened", "RebootRequired"]) | TEXTS, "status": TEXTS},
        optional={"reason": TEXTS, "message": TEXTS, "lastTransitionTime": st.sampled_from(TIMES)},
    ),
    max_size=4,
)
NODES = st.fixed_dictionaries({
    "metadata": META,
    "spec": st.fixed_dictionaries({}, optional={
        "unschedulable": st.booleans(),
        "taints": st.lists(st.fixed_dictionaries({"key": TEXTS, "effect": TEXTS}), max_size=2),
    }),
    "status": st.fixed_dictionaries({}, optional={
        "conditions": CONDITIONS, "nodeInfo": st.fixed_dictionaries({"bootID": TEXTS}),
    }),
})  # fmt: skip


@dataclass
class OneObject:
    """A client whose every answer is this object, as far as blockers ask."""

    found: Object

    def get(self, *_: object) -> Object:
        return self.found

    find = get

    def list(self, *_: object, **__: object) -> list[Object]:
        return [self.found]


@dataclass
class Following(OneObject):
    """A client that follows one object, and answers reads with another."""

    other: Object

    def follow(self, *_: object) -> Any:
        return _Followed(self.found)

    def get(self, *_: object) -> Object:
        return self.other


@dataclass
class _Followed:
    found: Object

    def __iter__(self) -> Iterator[Change]:
        yield Change(EventType.LISTING)
        yield Change(EventType.ADDED, self.found)
        yield Change(EventType.SYNCED)
        self.ended.wait(10)

    def close(self) -> None:
        self.ended.set()

    def __post_init__(self) -> None:
        self.ended = threading.Event()


@dataclass
class Answers:
    """A client with one object of each kind."""

    objects: Mapping[Resource, Object]

    def get(self, resource: Resource, *_: object) -> Object:
        return self.objects[resource]


@given(NODES)
def test_a_node_is_read(found: Object) -> None:
    assert len(node_view(found).boot_id) <= 300
    assert node_view(found).ready in (True, False, None)
    assert not NodeSnapshot.of(found).is_older_than(NodeSnapshot.of(found))


@given(TEXTS | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps({"v": 1, "phase": "idle", "since": value})))
def test_the_state_is_read_or_refused(text: str) -> None:
    """What is read can be written again, and its times can be shown."""
    try:
        state = decode(text)
    except ValueError:
        return
    assert decode(state.encode()) is not None
    assert not isinstance(state, Cycle) or 0 <= state.since < 253402300800


@given(TEXTS | JSON.map(json.dumps))
def test_the_history_stays_short(text: str) -> None:
    assert (
        len(json.loads(history.with_entry(text, Releasing(cycle="c", entered=Stamp("b", 1.0, 1.0)), kernel="6.1"))) <= 5
    )


@given(JSON, st.booleans())
def test_kureds_lock_blocks_or_not(value: Any, several: bool) -> None:
    holder = {"nodeID": "n", "created": "2026-01-01T00:00:00Z", "TTL": value}
    for text in (json.dumps(value), json.dumps({"maxOwners": 2, "locks": [holder, value]} if several else holder)):
        found = {"metadata": {"name": "kured", "annotations": {"weave.works/kured-node-lock": text}}}
        client: Any = OneObject(found)
        assert KuredBlocker(Lock(), client, "node-1", Clocks()).check().blocked in (True, False)


@given(st.fixed_dictionaries({}, optional={"until": TEXTS, "by": TEXTS, "reason": TEXTS}))
def test_a_pause_blocks_in_one_short_line(data: dict[str, str]) -> None:
    client: Any = OneObject({"data": data})
    result = PauseBlocker(client, "ns", Clocks()).check()
    assert len(result.by) < 600
    assert result.by.isprintable()


@given(BUDGETS, PODS)
def test_pods_and_budgets_are_read(budget: Object, pod: Object) -> None:
    assert isinstance(pdb.budget_of(budget).covers(filters.pod_of(pod, Drain())), bool)


LEASES = st.fixed_dictionaries({
    "metadata": META,
    "spec": st.fixed_dictionaries({}, optional={
        "holderIdentity": TEXTS, "leaseDurationSeconds": NUMBERS, "leaseTransitions": NUMBERS,
        "acquireTime": st.sampled_from(TIMES), "renewTime": st.sampled_from(TIMES),
    }),
})  # fmt: skip
DAEMONSETS = st.fixed_dictionaries({
    "metadata": META,
    "spec": st.fixed_dictionaries({"template": st.fixed_dictionaries({"spec": st.fixed_dictionaries({
        "volumes": st.lists(st.fixed_dictionaries({
            "name": st.just("config") | TEXTS, "configMap": st.fixed_dictionaries({"name": TEXTS}),
        }), max_size=2),
    })})}),
    "status": st.dictionaries(st.sampled_from(["desiredNumberScheduled", "numberReady"]), NUMBERS),
})  # fmt: skip
AGENT_PODS = st.fixed_dictionaries({
    "metadata": META,
    "status": st.fixed_dictionaries({"phase": TEXTS}, optional={
        "containerStatuses": st.lists(st.fixed_dictionaries(
            {"ready": st.booleans(), "restartCount": NUMBERS},
            optional={"state": st.fixed_dictionaries({"waiting": st.fixed_dictionaries({"reason": TEXTS})})},
        ), max_size=2),
    }),
})  # fmt: skip


@given(LEASES, st.sampled_from(["node-hardening-reboot-workers-0", "other"]))
def test_a_lock_is_read_and_can_be_taken(found: Object, name: str) -> None:
    """By agents, which write it again, and by the plugin, which shows it."""
    found["metadata"] |= {"name": name, "resourceVersion": "7"}  # which the API server writes
    written = lease_body(lease_view(found), "ns")
    assert len(json.dumps(written)) < 4096
    assert lease_view(written) is not None
    shown = lock_of(found)
    assert shown is None or all(text.isprintable() for text in (shown.holder, shown.holder_uid, shown.stuck_by))


@given(DAEMONSETS, TEXTS)
def test_the_plugin_reads_the_policy(found: Object, text: str) -> None:
    """The DaemonSet leads to the ConfigMap, and that holds anything."""
    client: Any = Answers({kube.DAEMONSETS: found, kube.CONFIGMAPS: {"data": {"config.yaml": text}}})
    read = policy.read(client, "ns")
    assert read.source.isprintable()
    assert read.problem.isprintable()


@given(AGENT_PODS)
def test_the_plugin_reads_the_agents_pod(found: Object) -> None:
    pod = pod_of(found)
    assert pod.trouble.isprintable()
    assert 0 <= pod.restarts < 1e12


@given(META, TEXTS, TEXTS)
def test_an_attached_volume_is_read(meta: Object, node: str, volume: str) -> None:
    """And the claim that its PersistentVolume names."""
    spec = {"nodeName": node, "source": {"persistentVolumeName": volume}}
    client: Any = Following(
        {"metadata": meta, "spec": spec}, {"spec": {"claimRef": {"namespace": node, "name": volume}}}
    )
    attachments = VolumeAttachments(client, node, lambda: None)
    left = attachments.left({"ns/claim"})
    assert left is not None
    assert all(one.isprintable() and len(one) < 200 for one in left)
    attachments.close()
