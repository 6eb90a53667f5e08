"""An account with exactly the rights that daemonset.yaml gives the agent, in a namespace of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from agent.kube import ClientContext, Kube
from tests.support.access import direct
from tests.support.apiservers import ApiServer, Client

MANIFEST = Path(__file__).parents[2] / "daemonset.yaml"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def shipped_rules(kind: str, namespace: str = "") -> list[dict[str, Any]]:
    """The rules of a ClusterRole, or of the Role in a namespace."""
    for document in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")):
        if document["kind"] == kind and document["metadata"].get("namespace", "") == namespace:
            rules: list[dict[str, Any]] = document["rules"]
            return rules
    raise AssertionError(f"daemonset.yaml has no {kind} in {namespace!r}")


def token_with(client: Client, namespace: str, name: str, cluster: Iterable[Any], own: Iterable[Any]) -> str:
    """A token of a new service account with these rules, cluster-wide and in its own namespace."""
    account = {"metadata": {"name": name}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    group = "rbac.authorization.k8s.io"
    unique = f"{namespace}-{name}"
    for where, what, body in (
        (path, "", account),
        (f"{RBAC}/clusterroles", unique, {"rules": list(cluster)}),
        (f"{RBAC}/namespaces/{namespace}/roles", name, {"rules": list(own)}),
        (
            f"{RBAC}/clusterrolebindings",
            unique,
            {"subjects": subjects, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": unique}},
        ),
        (
            f"{RBAC}/namespaces/{namespace}/rolebindings",
            name,
            {"subjects": subjects, "roleRef": {"apiGroup": group, "kind": "Role", "name": name}},
        ),
    ):
        answer = client.post(where, {**body, "metadata": {"name": what or name}})
        assert answer.status_code == 201, answer.text
    answer = client.post(f"{path}/{name}/token", {"spec": {"expirationSeconds": 3600}})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["status"]["token"]
    return token


def agents_token(client: Client, namespace: str) -> str:
    """A token with the agent's own rights."""
    own = shipped_rules("Role", "node-hardening")
    return token_with(client, namespace, "agent", shipped_rules("ClusterRole"), own)


def client_with(server: ApiServer, token: str, around: ClientContext | None = None) -> Kube:
    """A client with another token than the administrator's."""
    authority = server.ca.read_bytes() if server.ca else b""
    return Kube(direct(server.url, token=token, authority=authority), node="worker-1", around=around)
