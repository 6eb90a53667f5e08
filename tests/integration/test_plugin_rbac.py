"""docs/rbac.yaml: readers look at everything and change nothing, operators can act, and neither has a right to spare.

On the emulator, whose log tells which rights were used, and on a real kube-apiserver.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import Config, revision
from agent.plugin.commands import COMMANDS
from agent.reboot.lock.pools import CONTROL_PLANE, WORKERS, lease_names
from tests.support import agents
from tests.support.agents import NAMESPACE
from tests.support.apiservers import ApiServer, Client
from tests.support.typed import Person, Typed

MANIFEST = Path(__file__).resolve().parents[2] / "docs" / "rbac.yaml"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LOCK = "node-hardening-reboot-workers-0"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
CONFIGMAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
READER, OPERATOR = "node-hardening-reader", "node-hardening-operator"
_PATHS = {
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": RBAC + "/namespaces/{namespace}/roles",
    "RoleBinding": RBAC + "/namespaces/{namespace}/rolebindings",
}
# Followed only by `status --watch`, which another test looks at.
WATCHED = {
    (READER, "", "", "nodes", "watch"),
    (READER, NAMESPACE, "coordination.k8s.io", "leases", "watch"),
    (READER, NAMESPACE, "", "configmaps", "list"),
    (READER, NAMESPACE, "", "configmaps", "watch"),
}


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def granted() -> Iterator[tuple[tuple[str, str, str, str, str], list[str]]]:
    """Every right as (role, namespace, group, resource, verb), and the names it is restricted to."""
    for one in documents():
        if one["kind"] in ("Role", "ClusterRole"):
            meta = one["metadata"]
            for rule in one["rules"]:
                for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
                    yield (
                        (meta["name"], meta.get("namespace", ""), group, resource, verb),
                        rule.get("resourceNames", []),
                    )


class Staff:
    """A reader and an operator with tokens of their own, by the manifest's very bindings; a node and its policy."""

    def __init__(self, api: ApiServer, client: Client, namespace: str, node: str) -> None:
        self.api, self.client, self.node = api, client, node
        self._accounts = namespace
        agents.install(client)
        for name in ("reader", "operator"):
            account = {"metadata": {"name": name}}
            assert client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", account).status_code == 201
        for one in documents():
            self._apply(one)
        held = json.dumps({"v": 1, "revision": "0" * 12, "target": revision(Config()), "phase": "CanaryFailed"})
        shown = {
            "node-hardening.io/status": "non-compliant", "node-hardening.io/version": "0.2.0",
            "node-hardening.io/rollout": held,
        }  # fmt: skip
        patch = {"metadata": {"annotations": shown}}
        assert client.patch(f"/api/v1/nodes/{node}", patch).status_code == 200
        config = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": ""}}
        client.post(CONFIGMAPS, config)
        self.tokens = {name: self._token(name) for name in ("reader", "operator")}

    def _apply(self, one: dict[str, Any]) -> None:
        if "subjects" in one:
            names = [subject["name"].removeprefix("node-hardening-").removesuffix("s") for subject in one["subjects"]]
            one["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": self._accounts} for name in names]
            one["metadata"]["name"] += f"-{self._accounts}"
        answer = self.client.post(_PATHS[one["kind"]].format(namespace=one["metadata"].get("namespace", "")), one)
        assert answer.status_code in (201, 409), answer.text

    def _token(self, name: str) -> str:
        path = f"/api/v1/namespaces/{self._accounts}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        answer = self.client.post(path, body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["status"]["token"])

    def user(self, name: str) -> str:
        """As the API server knows them."""
        return f"system:serviceaccount:{self._accounts}:{name}"

    def types(self, name: str, *argv: str) -> Typed:
        """One of them at the keyboard."""
        return Person(self.api, token=self.tokens[name]).types(*argv)

    def may(self, name: str, method: str, path: str, body: Any = None) -> bool:
        """Whether RBAC lets them, by trying; changes are only tried dry."""
        asking = self.api.client(self.tokens[name])
        try:
            answer = asking.request(
                method, path, json=body, params={} if method == "GET" else {"dryRun": "All"},
                headers={"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {},
            )  # fmt: skip
        finally:
            asking.close()
        return answer.status_code != 403

    def hold(self) -> None:
        """A node that is gone holds the workers' lock."""
        spec = {"holderIdentity": "gone/uid", "acquireTime": "2026-01-01T00:00:00.000000Z"}
        self.client.delete(f"{LEASES}/{LOCK}")
        assert self.client.post(LEASES, {"metadata": {"name": LOCK}, "spec": spec}).status_code == 201

    def busy_pod(self, name: str) -> None:
        """A pod on the node under a budget that allows nothing."""
        where = f"/api/v1/namespaces/{self._accounts}/pods"
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": True}
        spec = {"nodeName": self.node, "containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
        for pod, references in ((name, []), (f"{name}-daemon", [owner])):
            meta = {"name": pod, "labels": {"app": name}, "ownerReferences": references}
            assert self.client.post(where, {"metadata": meta, "spec": spec}).status_code == 201
            self.client.patch(f"{where}/{pod}/status", {"status": {"phase": "Running"}})
        budgets = f"/apis/policy/v1/namespaces/{self._accounts}/poddisruptionbudgets"
        budget = {"metadata": {"name": name}, "spec": {"minAvailable": 9, "selector": {"matchLabels": {"app": name}}}}
        assert self.client.post(budgets, budget).status_code == 201
        status = {
            "observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 9,
            "expectedPods": 1,
        }  # fmt: skip
        assert self.client.patch(f"{budgets}/{name}/status", {"status": status}).status_code == 200


@pytest.fixture
def staff(api: ApiServer, client: Client, namespace: str, node: str) -> Iterator[Staff]:
    """See Staff. What it made cluster-wide is taken away again, for other tests' locks and nodes."""
    made = Staff(api, client, namespace, node)
    made.busy_pod("busy")
    yield made
    for path in (
        f"{CONFIGMAPS}/node-hardening-pause",
        f"{CONFIGMAPS}/node-hardening-rollout",
        f"{CONFIGMAPS}/node-hardening-config",
        f"{LEASES}/{LOCK}",
    ):
        client.delete(path)
    client.delete(f"/api/v1/nodes/{node}")


def reads(node: str) -> list[list[str]]:
    """Every command that only looks."""
    return [
        ["status"], ["status", node], ["why", node], ["history"], ["history", node], ["forecast"],
        ["preflight"], ["preflight", node], ["diff", node], ["status", "-o", "json"],
        ["audit"], ["audit", node], ["report", "-O", "-"], ["policy", node], ["rollout"], ["rollout", "status"],
        ["denials"], ["denials", node], ["denials", "busy"], ["record", "status"],
    ]  # fmt: skip


def changes(node: str) -> list[list[str]]:
    """Every command that changes something, in an order in which each has something to change."""
    return [
        ["pause", "--yes"], ["pause", "--yes", "--reason", "again"], ["resume", "--yes"], ["skip", node, "--yes"],
        ["skip", node, "--off", "--yes"], ["reboot", node, "--yes"], ["unlock", "--yes", "--watch", "0.1"],
        ["rollout", "abort", "--yes"], ["rollout", "promote", "--yes", "--reason", "known"],
    ]  # fmt: skip


def test_every_command_is_tried() -> None:
    """A new one joins readers or operators; completion asks for nothing that status does not."""
    tried = {line[0] for line in [*reads("n"), *changes("n")]}
    assert {command.name for command in COMMANDS} - tried == {"completion"}


def test_a_reader_can_look_at_everything(staff: Staff) -> None:
    """No command is refused anything; a drain is estimated, and says so."""
    staff.hold()
    for line in reads(staff.node):
        typed = staff.types("reader", *line)
        assert typed.code in (0, 1), (line, typed)
        assert typed.error == ""
        assert "cannot" not in typed.err, (line, typed.err)
    estimated = staff.types("reader", "preflight", staff.node)
    assert "estimated from the disruption budgets" in estimated.err
    assert "allows no disruption now" in estimated.out


def test_a_reader_is_refused_every_change(staff: Staff) -> None:
    """Each ends with exit 3, with nothing written."""
    staff.hold()
    before = staff.client.get(f"/api/v1/nodes/{staff.node}").json()
    for line in changes(staff.node):
        typed = staff.types("reader", *line)
        if line[0] != "resume" and "--off" not in line:  # there is nothing to take away
            assert (typed.code, "403 Forbidden" in typed.error) == (3, True), (line, typed)
    assert staff.client.get(f"/api/v1/nodes/{staff.node}").json()["metadata"] == before["metadata"]
    assert staff.client.get(f"{CONFIGMAPS}/node-hardening-pause").status_code == 404
    assert staff.client.get(f"{LEASES}/{LOCK}").json()["spec"]["holderIdentity"] == "gone/uid"


def test_an_operator_can_do_everything(staff: Staff) -> None:
    """Looking, and each change down to its Event; a drain is asked for pod by pod."""
    staff.hold()
    for line in [*reads(staff.node), *changes(staff.node)]:
        typed = staff.types("operator", *line)
        assert (typed.code in (0, 1), typed.error) == (True, ""), (line, typed)
        assert "its Event was not" not in typed.err
    asked = staff.types("operator", "-o", "json", "preflight", staff.node)
    assert json.loads(asked.out)["by"] == "dry-run evictions"
    assert staff.client.get(f"{LEASES}/{LOCK}").json()["spec"].get("holderIdentity") is None
    notes = staff.client.get(f"/api/v1/nodes/{staff.node}").json()["metadata"]["annotations"]
    assert notes["node-hardening.io/reboot-request"] == f"by {staff.user('operator')}"


def test_neither_can_do_more(staff: Staff) -> None:
    """Asked by requests that RBAC would let through or not, whatever else may be wrong with them."""
    node, configs = f"/api/v1/nodes/{staff.node}", "/api/v1/namespaces/kube-system/configmaps"
    nothing: dict[str, Any] = {"metadata": {"annotations": {"a": "b"}}}
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    tries: list[tuple[str, str, Any]] = [
        ("GET", "/api/v1/secrets", None),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets", None),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/s", None),
        ("GET", "/api/v1/configmaps", None),
        ("GET", CONFIGMAPS, None),
        ("GET", f"{CONFIGMAPS}/node-hardening-apparmor", None),
        ("GET", f"{configs}/any", None),
        ("PATCH", f"{CONFIGMAPS}/node-hardening-config", nothing),
        ("POST", configs, {"metadata": {"name": "any"}}),
        ("PATCH", f"{node}/status", nothing),
        ("DELETE", node, None),
        ("GET", f"{node}/proxy/metrics", None),
        ("DELETE", f"{pods}/p", None),
        ("GET", f"{pods}/p/log", None),
        ("POST", f"{pods}/p/exec", None),
        ("PATCH", f"{LEASES}/another", nothing),
        ("DELETE", f"{LEASES}/{LOCK}", None),
        ("POST", LEASES, {"metadata": {"name": "x"}}),
        ("PATCH", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{staff.node}", nothing),
        ("PATCH", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/node-hardening-agent", nothing),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/node-hardening-agent/token", {}),
        ("GET", f"{RBAC}/clusterroles", None),
    ]
    for name in ("reader", "operator"):
        allowed = [f"{method} {path}" for method, path, body in tries if staff.may(name, method, path, body)]
        assert allowed == [], name
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": NAMESPACE}}
    for method, path, body in (("PATCH", node, nothing), ("POST", f"{pods}/p/eviction", evict)):
        assert [staff.may(name, method, path, body) for name in ("reader", "operator")] == [False, True]


def test_the_live_table_may_follow_what_it_shows(staff: Staff) -> None:
    """`status --watch`: Nodes, locks, and of ConfigMaps the pause alone."""
    one = "?fieldSelector=metadata.name%3Dnode-hardening-pause"
    for path in ("/api/v1/nodes", LEASES, f"{CONFIGMAPS}{one}"):
        watch = f"{path}{'&' if '?' in path else '?'}watch=1&timeoutSeconds=1"
        assert staff.may("reader", "GET", path), path
        assert staff.may("reader", "GET", watch), watch


@pytest.mark.emulator_only
def test_no_right_is_to_spare(staff: Staff) -> None:
    """Every right of either role is used by a command; nothing that a command asks for is refused."""
    sandbox = staff.api.sandbox
    assert sandbox is not None
    staff.hold()
    for line in reads(staff.node):
        staff.types("reader", *line)
    for line in [*reads(staff.node), *changes(staff.node)]:
        staff.types("operator", *line)
    used = set()
    for name, role in (("reader", READER), ("operator", OPERATOR)):
        mine = [one for one in sandbox.requests if one.user == staff.user(name)]
        assert [f"{one.verb} {one.path}" for one in mine if one.status == 403] == []
        for one in mine:
            # Every user may ask about themselves, and for the server's version.
            if one.resource and one.group not in ("authorization.k8s.io", "authentication.k8s.io"):
                used.add((role, one.group, f"{one.resource}/{one.subresource}".rstrip("/"), one.verb))
    reader = {right for right, _ in granted() if right[0] == READER} - WATCHED
    assert {(READER, *right[2:]) for right in reader} == {one for one in used if one[0] == READER}
    spare = {right for right, _ in granted() if right[0] == OPERATOR and (OPERATOR, *right[2:]) not in used}
    assert spare == set()


def test_names_are_restricted_where_rbac_can() -> None:
    """The locks by the names that the code gives them, the pause and the policy; no star, nothing aggregated."""
    locks = [*lease_names(WORKERS, 1), *lease_names(CONTROL_PLANE, 1)]
    named = {right: names for right, names in granted() if names}
    for (role, namespace, _, resource, _), names in named.items():
        assert namespace == NAMESPACE
        if resource == "leases":
            assert (role, names) == (OPERATOR, locks)
        else:
            assert set(names) <= {"node-hardening-pause", "node-hardening-rollout", "node-hardening-config"}
    bare = {(right[3], right[4]) for right, names in granted() if right[1] == NAMESPACE and not names}
    assert bare == {("leases", "list"), ("leases", "watch"), ("configmaps", "create"), ("events", "create")}
    assert "*" not in MANIFEST.read_text().replace("# ", "")
    for one in documents():
        assert "aggregationRule" not in one
        assert list(one["metadata"]["labels"]) == ["app.kubernetes.io/name"]
        for subject in one.get("subjects", []):
            assert (subject["kind"], subject["name"].startswith("node-hardening-")) == ("Group", True)
