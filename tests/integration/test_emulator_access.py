"""Who may do what: tokens, RBAC as it is evaluated, and the words of a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.sandbox.authn import User
from agent.sandbox.server import Sandbox
from tests.support.apiservers import ApiServer, Client

RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"

Rule = dict[str, list[str]]


class Account:
    """A service account with its client, and what is granted to it."""

    def __init__(self, admin: Client, api: ApiServer, namespace: str) -> None:
        self.admin = admin
        self.namespace = namespace
        self.name = f"system:serviceaccount:{namespace}:agent"
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        assert admin.post(path, {"metadata": {"name": "agent"}}).status_code == 201
        answer = admin.post(f"{path}/agent/token", {"spec": {"expirationSeconds": 3600}})
        assert answer.status_code == 201, answer.text
        self.client = api.client(answer.json()["status"]["token"])

    def grant(self, *rules: Rule, namespace: str = "") -> None:
        """Bind rules in the whole cluster, or with a Role in one namespace."""
        kind, plural = ("Role", "roles") if namespace else ("ClusterRole", "clusterroles")
        where = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
        meta = {"metadata": {"name": self.namespace}}
        subject = {"kind": "ServiceAccount", "name": "agent", "namespace": self.namespace}
        reference = {"apiGroup": GROUP, "kind": kind, "name": self.namespace}
        bindings = plural.removesuffix("s") + "bindings"
        assert self.admin.post(f"{where}/{plural}", {**meta, "rules": list(rules)}).status_code == 201
        body = {**meta, "subjects": [subject], "roleRef": reference}
        assert self.admin.post(f"{where}/{bindings}", body).status_code == 201

    def until(self, act: Callable[[], int], wanted: int) -> None:
        """A real server's authorizer follows its watch a moment later."""
        for _ in range(100):
            if act() == wanted:
                return
        assert act() == wanted


@pytest.fixture
def account(client: Client, api: ApiServer, namespace: str) -> Iterator[Account]:
    made = Account(client, api, namespace)
    yield made
    made.client.close()


def rule(verbs: str, group: str, resources: str, names: str = "") -> Rule:
    made = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**made, "resourceNames": names.split()} if names else made


def test_without_a_token_there_is_no_answer(api: ApiServer) -> None:
    """401 Unauthorized for a wrong token, with nothing of what was asked for."""
    client = api.client("nonsense")
    answer = client.get("/api/v1/nodes")
    client.close()
    assert answer.status_code == 401
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


def test_the_refusal_says_who_what_and_where(account: Account, namespace: str) -> None:
    """403 in the words that people search for."""
    answer = account.client.patch("/api/v1/nodes/n/status", {})
    assert answer.status_code == 403
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'nodes "n" is forbidden: User "{account.name}" cannot patch resource "nodes/status" in API group ""'
        " at the cluster scope",
        "reason": "Forbidden",
        "details": {"name": "n", "kind": "nodes"},
        "code": 403,
    }
    answer = account.client.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    assert answer.json()["message"] == (
        f'leases.coordination.k8s.io is forbidden: User "{account.name}" cannot list resource "leases" in API group'
        f' "coordination.k8s.io" in the namespace "{namespace}"'
    )
    answer = account.client.get("/metrics")
    assert answer.json()["message"] == f'forbidden: User "{account.name}" cannot get path "/metrics"'


def test_everybody_known_may_discover(account: Account) -> None:
    """And ask about themselves."""
    for path in ("/version", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/healthz", "/openapi/v3"):
        assert account.client.get(path).status_code == 200, path
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = account.client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    who = answer.json()["status"]["userInfo"]
    assert who["username"] == account.name
    assert set(who["groups"]) == {
        "system:serviceaccounts",
        f"system:serviceaccounts:{account.namespace}",
        "system:authenticated",
    }


def test_a_subresource_is_a_right_of_its_own(account: Account, node: str) -> None:
    """patch on nodes is not patch on nodes/status, nor the other way round."""
    account.grant(rule("patch", "", "nodes/status"))
    path = f"/api/v1/nodes/{node}"
    account.until(lambda: account.client.patch(f"{path}/status", {}).status_code, 200)
    assert account.client.patch(path, {}).status_code == 403
    assert account.client.get(path).status_code == 403


def test_names_restrict_and_cannot_restrict_creation(account: Account, namespace: str) -> None:
    """resourceNames allow get, list and watch by that name only; a create has no name to match."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    account.grant(
        rule("get list watch create update", "coordination.k8s.io", "leases", names="mine"), namespace=namespace
    )
    account.until(lambda: account.client.get(f"{path}/mine").status_code, 404)
    assert account.client.get(f"{path}/other").status_code == 403
    assert account.client.get(path).status_code == 403
    assert account.client.get(path, fieldSelector="metadata.name=mine").status_code == 200
    assert account.client.get(path, fieldSelector="metadata.name=other").status_code == 403
    query = {"watch": "1", "timeoutSeconds": 1, "fieldSelector": "metadata.name=mine"}
    assert account.client.get(path, **query).status_code == 200
    lease = {"metadata": {"name": "mine"}, "spec": {"holderIdentity": "x"}}
    assert account.client.post(path, lease).status_code == 403


def test_a_role_ends_at_its_namespace(account: Account, namespace: str) -> None:
    """A RoleBinding gives nothing elsewhere, not even a list of all namespaces."""
    account.grant(rule("list", "", "pods"), namespace=namespace)
    account.until(lambda: account.client.get(f"/api/v1/namespaces/{namespace}/pods").status_code, 200)
    assert account.client.get("/api/v1/namespaces/default/pods").status_code == 403
    assert account.client.get("/api/v1/pods").status_code == 403


def test_a_cluster_role_holds_everywhere(account: Account, namespace: str) -> None:
    """And its api group has to fit; watch is not list."""
    account.grant(rule("list", "", "pods events"))
    account.until(lambda: account.client.get("/api/v1/pods").status_code, 200)
    assert account.client.get(f"/api/v1/namespaces/{namespace}/events").status_code == 200
    assert account.client.get("/apis/apps/v1/daemonsets").status_code == 403
    assert account.client.get("/api/v1/pods", watch="1").status_code == 403


@pytest.mark.parametrize("resources", ["*", "pods/*", "*/eviction", "pods/eviction"])
def test_wildcards_of_resources(account: Account, namespace: str, resources: str) -> None:
    """ "*" and `*/eviction` cover the subresource; `pods/*` is no wildcard at all."""
    account.grant(rule("create", "", resources))
    path = f"/api/v1/namespaces/{namespace}/pods/nobody/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nobody"}}
    wanted = 403 if resources == "pods/*" else 404
    account.until(lambda: account.client.post(path, body).status_code, wanted)


def test_access_reviews_agree_with_what_happens(account: Account) -> None:
    """kubectl auth can-i."""
    account.grant(rule("get", "", "nodes"))
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    def allowed(verb: str) -> bool:
        spec = {"resourceAttributes": {"verb": verb, "resource": "nodes"}}
        answer = account.client.post(path, {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
                                            "spec": spec})  # fmt: skip
        result: bool = answer.json()["status"]["allowed"]
        return result

    account.until(lambda: int(allowed("get")), 1)
    assert not allowed("patch")


def test_a_token_can_be_bound_to_a_node(client: Client, account: Account, node: str) -> None:
    """Then it says on which one: what an admission policy compares."""
    path = f"/api/v1/namespaces/{account.namespace}/serviceaccounts/agent/token"
    reference = {"kind": "Node", "apiVersion": "v1", "name": node}
    token = client.post(path, {"spec": {"boundObjectRef": reference}}).json()["status"]["token"]
    bound = client.server.client(token)
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = bound.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    bound.close()
    extra = answer.json()["status"]["userInfo"]["extra"]
    assert extra["authentication.kubernetes.io/node-name"] == [node]
    assert client.post(path, {"spec": {"expirationSeconds": 60}}).status_code == 422


def call(sandbox: Sandbox, token: str, path: str = "/api/v1/nodes") -> Any:
    client = ApiServer.of(sandbox).client(token)
    try:
        return client.get(path)
    finally:
        client.close()


@pytest.mark.emulator_only
def test_users_and_groups_can_be_made_up(sandbox: Sandbox) -> None:
    """A token stands for any user; a binding to its group is enough, and revocation is at once."""
    sandbox.add_token("t", User("jane", ("oncall",)))
    assert call(sandbox, "t").status_code == 403
    sandbox.create("clusterroles", {"metadata": {"name": "r"}, "rules": [rule("list", "", "nodes")]})
    subject = {"kind": "Group", "apiGroup": GROUP, "name": "oncall"}
    reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"}
    sandbox.create("clusterrolebindings", {"metadata": {"name": "r"}, "subjects": [subject], "roleRef": reference})
    assert call(sandbox, "t").status_code == 200
    sandbox.revoke_token("t")
    assert call(sandbox, "t").status_code == 401


@pytest.mark.emulator_only
def test_tokens_end(sandbox: Sandbox) -> None:
    """An expired one is a 401; so is none at all where nobody is let in unnamed."""
    sandbox.add_token("old", User("jane"), seconds=-1)
    assert call(sandbox, "old").status_code == 401
    assert call(sandbox, "").status_code == 401
    assert json.loads(call(sandbox, "").text)["reason"] == "Unauthorized"
