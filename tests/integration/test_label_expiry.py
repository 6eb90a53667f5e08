"""docs/label-expiry.yaml: the API server expires the label of a silent agent when the kubelet reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml

from agent.report.node_status import SILENT_SECONDS
from agent.text import format_rfc3339
from tests.support.apiservers import ApiServer, Client
from tests.support.cli import ROOT

LABEL = "node-hardening.io/hardened"
NOW = 1_800_000_000
POLICY, BINDING = yaml.safe_load_all((ROOT / "docs/label-expiry.yaml").read_text())
GROUP = "/apis/admissionregistration.k8s.io/v1"


def test_the_policy_calls_silent_what_the_plugin_does() -> None:
    """One limit for both."""
    (silent,) = [one["expression"] for one in POLICY["spec"]["matchConditions"] if one["name"] == "agent-is-silent"]
    hours, minutes = divmod(timedelta(seconds=SILENT_SECONDS).seconds // 60, 60)
    assert f'duration("{hours}h{minutes}m")' in silent


def _conditions(agent_age: float) -> list[dict[str, str]]:
    common = {"status": "True", "lastTransitionTime": format_rfc3339(NOW - 10 * 86400)}
    return [
        {**common, "type": "Ready", "reason": "KubeletReady", "lastHeartbeatTime": format_rfc3339(NOW)},
        {**common, "type": "NodeHardened", "reason": "Hardened", "lastHeartbeatTime": format_rfc3339(NOW - agent_age)},
    ]


@pytest.fixture
def expiring(client: Client) -> Iterator[None]:
    """The policy in force; gone afterwards, since other tests share the server."""
    for plural, one in (("mutatingadmissionpolicies", POLICY), ("mutatingadmissionpolicybindings", BINDING)):
        done = client.post(f"{GROUP}/{plural}", one)
        assert done.status_code == 201, done.text
    yield
    for plural, one in (("mutatingadmissionpolicybindings", BINDING), ("mutatingadmissionpolicies", POLICY)):
        client.delete(f"{GROUP}/{plural}/{one['metadata']['name']}")


def _report(api: ApiServer, name: str, conditions: list[dict[str, str]]) -> dict[str, Any]:
    """The kubelet's status patch, and the Node after it."""
    kubelet = api.client()
    kubelet.session.headers.update({"Impersonate-User": f"system:node:{name}", "Impersonate-Group": "system:masters"})
    done = kubelet.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": conditions}}, "strategic")
    kubelet.close()
    assert done.status_code == 200, done.text
    node: dict[str, Any] = done.json()
    return node


@pytest.mark.usefixtures("expiring")
def test_the_label_of_a_silent_agent_expires(api: ApiServer, client: Client, unique: str) -> None:
    """With the condition, and no earlier; an agent that is back has both again."""
    meta = {"name": unique, "labels": {LABEL: "true", "other": "kept"}, "annotations": {"kept": "1"}}
    client.post("/api/v1/nodes", {"metadata": meta})
    deadline = time.monotonic() + 60
    while True:  # the server takes a moment to compile the policy
        node = _report(api, unique, _conditions(SILENT_SECONDS + 1))
        if node["metadata"]["labels"][LABEL] == "false" or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert node["metadata"]["labels"] == {LABEL: "false", "other": "kept"}
    assert node["metadata"]["annotations"] == {"kept": "1"}
    before = {one["type"]: one for one in _conditions(SILENT_SECONDS + 1)}
    after = {one["type"]: one for one in node["status"]["conditions"]}
    assert after["Ready"] == before["Ready"]
    assert (after["NodeHardened"]["status"], after["NodeHardened"]["reason"]) == ("Unknown", "AgentSilent")
    assert after["NodeHardened"]["lastHeartbeatTime"] == before["NodeHardened"]["lastHeartbeatTime"]
    client.patch(f"/api/v1/nodes/{unique}", {"metadata": {"labels": {LABEL: "true"}}})
    node = _report(api, unique, _conditions(SILENT_SECONDS - 1))
    assert node["metadata"]["labels"][LABEL] == "true"
    assert [one["status"] for one in node["status"]["conditions"]] == ["True", "True"]


@pytest.mark.usefixtures("expiring")
@pytest.mark.parametrize("conditions", [[], _conditions(0)[:1], [{"type": "NodeHardened", "status": "True"}]])
def test_a_node_without_a_heartbeat_still_reports(
    api: ApiServer, client: Client, unique: str, conditions: list[dict[str, str]]
) -> None:
    """The policy is in no kubelet's way."""
    client.post("/api/v1/nodes", {"metadata": {"name": unique, "labels": {LABEL: "true"}}})
    assert _report(api, unique, conditions)["metadata"]["labels"][LABEL] == "true"
