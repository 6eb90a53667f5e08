"""What a stolen token tries to write, and the admission policies of daemonset.yaml that refuse it.

docs/security.md lists the same; the whole cycle of an agent under these policies is in test_reboots.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from requests import Response

from tests.support import agents
from tests.support.agents import NAMESPACE, eventually
from tests.support.apiservers import ApiServer, Client
from tests.support.sites import LEASES

PREFIX = "node-hardening.io"
Object = dict[str, Any]
NOW = "2026-11-28T08:00:00.000000Z"


LOCK = "node-hardening-reboot-x-0"
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
NO_TIME = "9999-12-31T23:59:59-23:59"

# What is written, by the words of the table in docs/security.md ("refused by admission"), one section a test below.
# Of a Node: the body, and the subresource. Tried on the own Node and on another.
NODE: Mapping[str, Sequence[tuple[Object, str]]] = {
    "a label that is not ours": [
        ({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}, ""),
        ({"metadata": {"labels": {"kubernetes.io/hostname": "other"}}}, ""),
        ({"metadata": {"labels": {"kubernetes.io/hostname": None}}}, ""),
        ({"metadata": {"labels": {"attracts": "pods"}}}, "/status"),
    ],
    "an annotation that is not ours": [
        ({"metadata": {"annotations": {"example.com/x": "2"}}}, ""),
        ({"metadata": {"annotations": {"example.com/x": None}}}, ""),
    ],
    "a finalizer": [({"metadata": {"finalizers": ["example.com/never"]}}, "")],
    "an owner": [({"metadata": {"ownerReferences": [OWNER]}}, "")],
    "a taint that is not ours": [({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}}, "")],
    "the provider ID": [({"spec": {"providerID": "cloud://other"}}, "")],
    "the pod network": [({"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]}}, "")],
    "an address": [({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}}, "/status")],
    "capacity": [
        ({"status": {"capacity": {"cpu": "999"}}}, "/status"),
        ({"status": {"allocatable": {"cpu": "999"}}}, "/status"),
    ],
    "the boot ID": [({"status": {"nodeInfo": {"bootID": "forged"}}}, "/status")],
    "the kubelet's port": [({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}, "/status")],
    "an image": [({"status": {"images": [{"names": ["x"], "sizeBytes": 1}]}}, "/status")],
    "a volume in use": [({"status": {"volumesInUse": ["x"]}}, "/status")],
    "a condition that is not ours": [
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "/status"),
        ({"status": {"conditions": [{"type": "Mine", "status": "True"}]}}, "/status"),
    ],
}
# Of a Lease that is created: name, spec, annotations, more metadata.
NEW_LOCK: Mapping[str, Sequence[tuple[str, Object, Object, Object]]] = {
    "a Lease that is no reboot lock": [("other", {}, {}, {})],
    "another node as holder": [(LOCK, {"holderIdentity": "nobody/uid"}, {}, {})],
    "a number out of range": [
        (LOCK, {"leaseTransitions": 2**31 - 1}, {}, {}),
        (LOCK, {"leaseDurationSeconds": 2**31 - 1}, {}, {}),
    ],
    "a time out of range": [
        (LOCK, {field: time}, {}, {})
        for field in ("acquireTime", "renewTime")
        for time in ("0001-01-01T00:00:01.000000Z", "2100-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z")
    ],
    "a long value": [(LOCK, {}, {"stuck": "x" * 400}, {})],
    "an annotation of a lock that is not ours": [
        (LOCK, {}, {"example.com/other": "x"}, {}),
        (LOCK, {}, {"other": "x"}, {}),
    ],
    "a label of a lock": [(LOCK, {}, {}, {"labels": {"a": "b"}})],
    "a finalizer of a lock": [(LOCK, {}, {}, {"finalizers": ["example.com/never"]})],
}
# Of a lock that another node holds.
OTHERS_LOCK: Mapping[str, Sequence[Object]] = {
    "release of another's lock": [{"spec": {"holderIdentity": None}}],
    "another's lock for a third node": [{"spec": {"holderIdentity": "third/uid"}}],
    "renewal of another's lock": [{"spec": {"renewTime": NOW}}],
    "a number of another's lock out of range": [{"spec": {"leaseTransitions": 2**31 - 1}}],
    "the phase of another's lock": [{"metadata": {"annotations": {f"{PREFIX}/phase": "rebooting"}}}],
    "the last reboot in another's lock": [{"metadata": {"annotations": {f"{PREFIX}/last-reboot": NO_TIME}}}],
    "a long value in another's lock": [{"metadata": {"annotations": {f"{PREFIX}/stuck": "x" * 400}}}],
    "an annotation of another's lock that is not ours": [
        {"metadata": {"annotations": {"example.com/large": "x" * 100_000}}},
        {"metadata": {"annotations": {f"{PREFIX}/other": "x"}}},
    ],
    "a finalizer of another's lock": [{"metadata": {"finalizers": ["example.com/never"]}}],
}
# Of an Event about the own Node, what is changed.
EVENT: Mapping[str, Sequence[Callable[[Stolen], Object]]] = {
    "an Event about another object": [
        lambda stolen: {"involvedObject": {"kind": "Node", "name": stolen.b, "uid": stolen.b}},
        lambda _: {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}},
    ],
    "an Event under another name": [
        lambda stolen: {"source": {"component": "kubelet", "host": stolen.a}},
        lambda stolen: {"source": {"component": "node-hardening-agent", "host": stolen.b}},
        lambda stolen: {"reportingInstance": stolen.b},
        lambda _: {"reportingComponent": "kubelet"},
    ],
    "an annotation of an Event": [lambda _: {"metadata": {"generateName": "e-", "annotations": {"a": "b" * 100_000}}}],
    "a finalizer of an Event": [
        lambda _: {"metadata": {"generateName": "e-", "finalizers": ["example.com/never"]}},
        lambda _: {"metadata": {"generateName": "e-", "ownerReferences": [OWNER]}},
    ],
}
OTHERS_EVENT = "a change of another's Event"
# How each is refused: by one validation of one policy, and never because an expression has no value.
OWN_NODE, NODE_FIELDS, LOCKS, EVENTS = (
    f"node-hardening-agent-{name}" for name in ("own-node", "node-fields", "locks", "events")
)
MESSAGES: Mapping[tuple[str, str], Sequence[str]] = {
    (NODE_FIELDS, "the node hardening agent may only change labels below"): ["a label that is not ours"],
    (NODE_FIELDS, "the node hardening agent may only change annotations below"): ["an annotation that is not ours"],
    (NODE_FIELDS, "the node hardening agent may only change its own taints"): ["a taint that is not ours"],
    (NODE_FIELDS, "the node hardening agent may only change the conditions"): ["a condition that is not ours"],
    (NODE_FIELDS, "the node hardening agent may not change finalizers, owners or the network of a Node"): [
        "a finalizer", "an owner", "the provider ID", "the pod network",
    ],
    (NODE_FIELDS, "the node hardening agent may not change the status of a Node but for its own conditions"): [
        "an address", "capacity", "the boot ID", "the kubelet's port", "an image", "a volume in use",
    ],
    (LOCKS, "the node hardening agent may only write Leases called"): ["a Lease that is no reboot lock"],
    (LOCKS, "may only take a lock for its own node, release its own, or mark another's as stuck"): [
        "another node as holder", "release of another's lock", "another's lock for a third node",
        "renewal of another's lock", "a number of another's lock out of range", "the phase of another's lock",
        "the last reboot in another's lock", "an annotation of another's lock that is not ours",
    ],
    (LOCKS, "a reboot lock has a holder below 300 characters and annotations of ours below 400"): [
        "a long value", "an annotation of a lock that is not ours",
        "a long value in another's lock",
    ],
    (LOCKS, "a reboot lock has a duration of a week at most"): ["a number out of range", "a time out of range"],
    (LOCKS, "the node hardening agent may not change labels, finalizers or owners of a Lease"): [
        "a label of a lock", "a finalizer of a lock", "a finalizer of another's lock",
    ],
    (EVENTS, "the node hardening agent may only write Events of its own"): [
        "an Event under another name", OTHERS_EVENT,
    ],
    (EVENTS, "the node hardening agent may only write Events about its own Node, the reboot locks"): [
        "an Event about another object",
    ],
    (EVENTS, "the node hardening agent may not set annotations, finalizers or owners of an Event"): [
        "an annotation of an Event", "a finalizer of an Event",
    ],
}  # fmt: skip
REFUSAL = re.compile(r"ValidatingAdmissionPolicy '(.+)' with binding '\1' denied request: (.+)")
ELSEWHERE = ("another Node", "a pod of another node")  # tried in test_manifest.py


def tried(writes: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Each write of a section, by the words of the documentation."""
    return [pytest.param(one, what, id=what) for what in writes for one in writes[what]]


def assert_refused(answer: Response, what: str) -> None:
    """By the validation that is there for it, in the same words on the emulator and on a real API server."""
    status = answer.json()
    assert (answer.status_code, status.get("reason")) == (403, "Forbidden"), status
    found = REFUSAL.fullmatch(status["details"]["causes"][0]["message"])
    assert found is not None
    assert status["message"].endswith(f" is forbidden: {found[0]}")
    (policy, message) = next(refusal for refusal, whats in MESSAGES.items() if what in whats)
    assert found[1] == policy
    assert message in found[2]


@dataclass
class Stolen:
    """The token of node A's agent; node B is another. `admin` is nobody that a policy looks at."""

    a: str
    b: str
    token: Client
    admin: Client

    def node(self, body: Object, *, of: str = "", sub: str = "", kind: str = "merge") -> Response:
        return self.token.patch(f"/api/v1/nodes/{of or self.a}{sub}", body, kind)

    def event(self, namespace: str = "default", **changes: Any) -> Response:
        body = {
            "metadata": {"generateName": "e-", "namespace": namespace},
            "involvedObject": {"kind": "Node", "name": self.a, "uid": self.a},
            "reason": "R", "message": "m", "type": "Normal", "count": 1,
            "source": {"component": "node-hardening-agent", "host": self.a},
            "reportingComponent": "node-hardening-agent", "reportingInstance": self.a,
        } | changes  # fmt: skip
        return self.token.post(f"/api/v1/namespaces/{namespace}/events", body)

    def lock(self, name: str, spec: Object, notes: Object | None = None, **meta: Any) -> Response:
        """Creates one."""
        notes = {key if "/" in key else f"{PREFIX}/{key}": value for key, value in (notes or {}).items()}
        body = {"metadata": {"name": name, "annotations": notes, **meta}, "spec": spec}
        return self.token.post(LEASES, body)

    def change(self, name: str, body: Object) -> Response:
        return self.token.patch(f"{LEASES}/{name}", body)


@pytest.fixture
def stolen(api: ApiServer, client: Client, unique: str) -> Iterator[Stolen]:
    agents.install(client, agents.ALL_BUT_THE_AGENT)
    a, b = f"{unique}-a", f"{unique}-b"
    for name in (a, b):
        labels = {"kubernetes.io/hostname": name}
        node = {"metadata": {"name": name, "labels": labels, "annotations": {"example.com/x": "1"}}}
        assert client.post("/api/v1/nodes", node).status_code == 201
        condition = {"type": "Ready", "status": "True", "reason": "R", "message": "m"}
        status = {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "conditions": [condition]}
        assert client.patch(f"/api/v1/nodes/{name}/status", {"status": status}, "strategic").status_code == 200
    made = Stolen(a, b, api.client(agents.token(client, a)), client)
    # Policies are compiled some time after they were stored, each by itself.
    forged = {"metadata": {"labels": {"x": "1"}}}
    eventually(
        lambda: (
            made.node({}, of=b).status_code == 403
            # A label that was there already would not be refused.
            and made.token.patch(f"/api/v1/nodes/{a}", forged, dryRun="All").status_code == 403
            and made.lock("other", {}).status_code == 403
            and made.event(reportingInstance=b).status_code == 403
        ),
        what="the admission policies in force",
    )
    yield made
    made.token.close()


@pytest.fixture
def lock(stolen: Stolen, unique: str) -> Iterator[str]:
    """The name of a lock, which is one that RBAC lets an agent patch."""
    name = "node-hardening-reboot-workers-0"
    yield name
    stolen.admin.delete(f"{LEASES}/{name}")


def test_the_agents_own_writes_pass(stolen: Stolen) -> None:
    """Cordon, keys of ours, conditions, the taint taken away; others' values repeated do no harm."""
    taints = [{"key": f"{PREFIX}/not-hardened", "effect": "NoSchedule"}, {"key": "x", "effect": "NoSchedule"}]
    stolen.admin.patch(f"/api/v1/nodes/{stolen.a}", {"spec": {"taints": taints}})
    assert stolen.node({"spec": {"unschedulable": True}, "metadata": {"annotations": {f"{PREFIX}/reboot": "x"}}}).ok
    assert stolen.node({"metadata": {"labels": {f"{PREFIX}/hardened": "true", "kubernetes.io/hostname": stolen.a}}}).ok
    assert stolen.node({"metadata": {"labels": {f"{PREFIX}/hardened": None}}, "spec": {"unschedulable": None}}).ok
    assert stolen.node({"spec": {"taints": taints[1:]}}).ok
    ours = {"type": "NodeHardened", "status": "True", "reason": "R", "message": "m"}
    step = {"metadata": {"annotations": {f"{PREFIX}/reboot": "y"}}, "status": {"conditions": [ours]}}
    assert stolen.node(step, sub="/status", kind="strategic").ok
    found = stolen.admin.get(f"/api/v1/nodes/{stolen.a}").json()
    assert found["metadata"]["annotations"][f"{PREFIX}/reboot"] == "y"
    assert "NodeHardened" in [one["type"] for one in found["status"]["conditions"]]


@pytest.mark.parametrize(("write", "what"), tried(NODE))
def test_a_node_keeps_what_is_not_ours(stolen: Stolen, write: tuple[Object, str], what: str) -> None:
    body, sub = write
    before = stolen.admin.get(f"/api/v1/nodes/{stolen.a}").json()
    assert_refused(stolen.node(body, sub=sub, kind="strategic"), what)
    assert stolen.node(body, of=stolen.b, sub=sub, kind="strategic").status_code == 403
    assert stolen.admin.get(f"/api/v1/nodes/{stolen.a}").json() == before


def test_a_lock_goes_through_its_life(stolen: Stolen, lock: str) -> None:
    """Taken, renewed, fenced, released, taken over, and another's marked as stuck."""
    mine, theirs = f"{stolen.a}/uid", f"{stolen.b}/uid"
    spec = {"holderIdentity": mine, "renewTime": NOW, "leaseDurationSeconds": 60, "leaseTransitions": 1}
    assert stolen.lock(lock, spec, {"phase": "held", "cycle": "c", "last-reboot": NOW}).ok
    fence = {"metadata": {"annotations": {f"{PREFIX}/phase": "rebooting"}}, "spec": {"renewTime": NOW}}
    assert stolen.change(lock, fence).ok
    assert stolen.change(lock, {"spec": {"holderIdentity": None}}).ok
    stolen.admin.patch(f"{LEASES}/{lock}", {"spec": {"holderIdentity": theirs}})
    assert stolen.change(lock, {"metadata": {"annotations": {f"{PREFIX}/stuck": stolen.a}}}).ok
    taken = {"metadata": {"annotations": {f"{PREFIX}/taken-from": theirs}}, "spec": {"holderIdentity": mine}}
    assert stolen.change(lock, taken).ok


@pytest.mark.parametrize(("write", "what"), tried(NEW_LOCK))
def test_a_forged_lock_is_not_created(stolen: Stolen, write: tuple[str, Object, Object, Object], what: str) -> None:
    name, spec, notes, meta = write
    assert_refused(stolen.lock(name, spec, notes, **meta), what)


@pytest.mark.parametrize(("body", "what"), tried(OTHERS_LOCK))
def test_another_nodes_lock_is_left_alone(stolen: Stolen, lock: str, body: Object, what: str) -> None:
    theirs = {"metadata": {"name": lock}, "spec": {"holderIdentity": f"{stolen.b}/uid", "leaseTransitions": 1}}
    assert stolen.admin.post(LEASES, theirs).status_code == 201
    assert_refused(stolen.change(lock, body), what)


def test_the_agents_own_events_pass(stolen: Stolen) -> None:
    about = {"kind": "Lease", "name": "node-hardening-reboot-workers-0", "namespace": NAMESPACE}
    assert stolen.event().ok
    assert stolen.event(NAMESPACE, involvedObject=about).ok


def test_a_holder_is_short(stolen: Stolen, lock: str) -> None:
    assert_refused(stolen.lock(lock, {"holderIdentity": f"{stolen.a}/" + "x" * 300}), "a long value")


@pytest.mark.parametrize(("changes", "what"), tried(EVENT))
def test_an_event_is_about_the_own_node_under_the_own_name(
    stolen: Stolen, changes: Callable[[Stolen], Object], what: str
) -> None:
    assert_refused(stolen.event(**changes(stolen)), what)


def test_anothers_event_is_not_changed(stolen: Stolen, unique: str) -> None:
    body = {
        "metadata": {"name": unique, "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": stolen.a, "uid": stolen.a},
        "reason": "R", "message": "m", "source": {"component": "kubelet", "host": stolen.a},
    }  # fmt: skip
    events = "/api/v1/namespaces/default/events"
    assert stolen.admin.post(events, body).status_code == 201
    ours = {"source": {"component": "node-hardening-agent", "host": stolen.a}, "message": "forged"}
    assert_refused(stolen.token.patch(f"{events}/{unique}", ours), OTHERS_EVENT)
