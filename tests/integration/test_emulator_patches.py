"""Merge and strategic merge patches of a Node: what the agent's writes rely on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiservers import Client


def conditions(body: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in body["status"].get("conditions", [])}


def test_merge_patch_deletes_with_null_and_replaces_lists(client: Client, node: str) -> None:
    """RFC 7386."""
    path = f"/api/v1/nodes/{node}"
    client.patch(path, {"metadata": {"annotations": {"a": "1", "b": "2"}}})
    answer = client.patch(path, {"metadata": {"annotations": {"a": None, "c": "3"}}})
    assert answer.json()["metadata"]["annotations"] == {"b": "2", "c": "3"}


def test_a_patch_may_carry_the_version_it_was_made_for(client: Client, node: str) -> None:
    """409 when it is stale; without one a patch applies to whatever is there."""
    path = f"/api/v1/nodes/{node}"
    before = client.get(path).json()["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": before, "annotations": {"a": "1"}}}
    assert client.patch(path, body).status_code == 200
    body["metadata"]["annotations"] = {"a": "2"}
    for kind in ("merge", "strategic"):
        answer = client.patch(path, body, kind)
        assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert client.patch(path, {"metadata": {"resourceVersion": "x"}}).status_code == 500


def test_strategic_merge_merges_conditions_by_type(client: Client, node: str) -> None:
    """Nobody else's conditions are touched; $patch: delete takes one out."""
    path = f"/api/v1/nodes/{node}/status"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    client.patch(path, {"status": {"conditions": [ready]}}, "strategic")
    mine = {"type": "NodeHardened", "status": "True"}
    assert conditions(client.patch(path, {"status": {"conditions": [mine]}}, "strategic").json()) == {
        "Ready": "True",
        "NodeHardened": "True",
    }
    mine["status"] = "False"
    answer = client.patch(path, {"status": {"conditions": [mine]}}, "strategic").json()
    assert conditions(answer) == {"Ready": "True", "NodeHardened": "False"}
    kept = next(item for item in answer["status"]["conditions"] if item["type"] == "Ready")
    assert kept["reason"] == "KubeletReady"
    gone = {"status": {"conditions": [{"type": "NodeHardened", "$patch": "delete"}]}}
    assert conditions(client.patch(path, gone, "strategic").json()) == {"Ready": "True"}


def test_a_merge_patch_replaces_all_conditions(client: Client, node: str) -> None:
    """Which is why the agent must not use it there."""
    path = f"/api/v1/nodes/{node}/status"
    client.patch(path, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    answer = client.patch(path, {"status": {"conditions": [{"type": "NodeHardened", "status": "True"}]}})
    assert conditions(answer.json()) == {"NodeHardened": "True"}


def test_strategic_merge_replaces_taints_whole(client: Client, node: str) -> None:
    """spec.taints has no merge key: whoever patches it without a version loses others' taints."""
    path = f"/api/v1/nodes/{node}"
    client.patch(path, {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, "strategic")
    answer = client.patch(path, {"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}]}}, "strategic")
    assert answer.json()["spec"]["taints"] == [{"key": "b", "effect": "NoSchedule"}]


def test_strategic_merge_adds_to_finalizers_and_deletes_from_them(client: Client, namespace: str) -> None:
    """finalizers are a set; $deleteFromPrimitiveList takes elements out."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    client.post(path, {"metadata": {"name": "a", "finalizers": ["x.io/a"]}})
    added = client.patch(f"{path}/a", {"metadata": {"finalizers": ["x.io/b"]}}, "strategic").json()
    assert sorted(added["metadata"]["finalizers"]) == ["x.io/a", "x.io/b"]
    body = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x.io/a"]}}
    assert client.patch(f"{path}/a", body, "strategic").json()["metadata"]["finalizers"] == ["x.io/b"]
    client.patch(f"{path}/a", {"metadata": {"finalizers": None}})


def test_strategic_merge_needs_the_merge_key(client: Client, node: str) -> None:
    """A condition without its type cannot be merged into others: an error of the server, as it has always been."""
    path = f"/api/v1/nodes/{node}/status"
    client.patch(path, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "strategic")
    body = {"status": {"conditions": [{"status": "True"}]}}
    answer = client.patch(path, body, "strategic")
    assert answer.status_code == 500
    assert "does not contain declared merge key: type" in answer.json()["message"]


def test_patches_of_other_types_are_unsupported(client: Client, node: str) -> None:
    """415."""
    answer = client.patch(f"/api/v1/nodes/{node}", {}, "application/json")
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")


def test_a_patch_to_nonsense_is_invalid(client: Client, node: str) -> None:
    """422 about the patch when its result cannot be decoded, and under Strict when it has unknown fields."""
    path = f"/api/v1/nodes/{node}"
    answer = client.patch(path, {"metadata": {"annotations": {"a": 1}}})
    assert (answer.status_code, answer.json()["details"]["causes"][0]["field"]) == (422, "patch")
    answer = client.patch(path, {"spec": {"unschedulabel": True}}, fieldValidation="Strict")
    assert answer.status_code == 422
    assert 'unknown field "spec.unschedulabel"' in answer.json()["message"]


def test_a_patch_of_an_absent_object_is_not_found(client: Client, unique: str) -> None:
    """404."""
    assert client.patch(f"/api/v1/nodes/{unique}", {}).status_code == 404


@pytest.mark.parametrize("kind", ["merge", "strategic"])
def test_patches_are_made_on_the_newest_version(client: Client, node: str, kind: str) -> None:
    """Two writers of different annotations do not lose each other's."""
    path = f"/api/v1/nodes/{node}"
    client.patch(path, {"metadata": {"annotations": {"zero": "0"}}})
    for name in ("one", "two"):
        body = {"metadata": {"annotations": {name: "1"}}}
        assert client.patch(path, body, kind).status_code == 200
    assert client.get(path).json()["metadata"]["annotations"] == {"zero": "0", "one": "1", "two": "1"}
