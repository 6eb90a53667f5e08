"""Creating, reading, replacing and deleting: what the API server promises to every writer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiservers import Client

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


def configmaps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def lease(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}


def causes(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(cause.get("field", ""), cause.get("reason", "")) for cause in body["details"]["causes"]]


def test_create_fills_in_what_the_server_owns(client: Client, namespace: str) -> None:
    """A created object has a uid, a time, a version, and neither status nor deletion that the client made up."""
    body = {
        "metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"},
        "data": {"k": "v"},
    }
    answer = client.post(configmaps(namespace), body)
    created = answer.json()
    assert answer.status_code == 201
    assert created["kind"] == "ConfigMap"
    assert created["apiVersion"] == "v1"
    assert created["data"] == {"k": "v"}
    meta = created["metadata"]
    assert meta["uid"] != "mine"
    assert not meta["creationTimestamp"].startswith("2001")
    assert int(meta["resourceVersion"]) > 0
    assert meta["namespace"] == namespace
    assert client.get(f"{configmaps(namespace)}/a").json() == created


def test_generate_name_adds_five_characters(client: Client, namespace: str) -> None:
    """generateName makes a name of its own for each object."""
    names = {
        client.post(configmaps(namespace), {"metadata": {"generateName": "g-"}}).json()["metadata"]["name"]
        for _ in range(3)
    }
    assert len(names) == 3
    assert {len(name) for name in names} == {len("g-") + 5}


def test_a_second_object_of_the_same_name_is_already_exists(client: Client, namespace: str) -> None:
    """409 with the reason AlreadyExists, which is not the reason of a stale write."""
    client.post(configmaps(namespace), {"metadata": {"name": "a"}})
    answer = client.post(configmaps(namespace), {"metadata": {"name": "a"}})
    assert answer.status_code == 409
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "a" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 409,
    }


def test_an_absent_object_is_not_found(client: Client, namespace: str) -> None:
    """404 names the resource with its group."""
    answer = client.get(LEASES.format(namespace) + "/nope")
    assert answer.status_code == 404
    assert answer.json()["message"] == 'leases.coordination.k8s.io "nope" not found'
    assert answer.json()["details"] == {"name": "nope", "group": "coordination.k8s.io", "kind": "leases"}


def test_an_absent_namespace_takes_no_objects(client: Client) -> None:
    """A create in a namespace that is not there is a 404 about the namespace; a list of it is empty."""
    answer = client.post(configmaps("no-such-namespace"), {"metadata": {"name": "a"}})
    assert (answer.status_code, answer.json()["message"]) == (404, 'namespaces "no-such-namespace" not found')
    assert client.get(configmaps("no-such-namespace")).json()["items"] == []


def test_an_unknown_resource_is_not_found(client: Client) -> None:
    """Paths outside of the API are 404."""
    assert client.get("/api/v1/nonsense").status_code == 404
    assert client.get("/apis/nonsense.io/v1/things").status_code == 404
    assert client.get("/nonsense").status_code == 404


def test_a_wrong_method_is_405(client: Client, namespace: str) -> None:
    """A verb that the path does not have."""
    answer = client.put(configmaps(namespace), {})
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")


def test_a_stale_resource_version_is_a_conflict(client: Client, namespace: str) -> None:
    """409 Conflict for a PUT with the version of before, and the object is as the other writer left it."""
    path = configmaps(namespace)
    first = client.post(path, {"metadata": {"name": "a"}, "data": {"k": "0"}}).json()
    second = client.put(f"{path}/a", {**first, "data": {"k": "1"}})
    assert second.status_code == 200
    answer = client.put(f"{path}/a", {**first, "data": {"k": "2"}})
    assert answer.status_code == 409
    body = answer.json()
    assert (body["reason"], body["details"]) == ("Conflict", {"name": "a", "kind": "configmaps"})
    assert body["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to'
        " the latest version and try again"
    )
    assert client.get(f"{path}/a").json()["data"] == {"k": "1"}


def test_a_put_without_a_version_replaces_unless_the_resource_forbids_it(client: Client, namespace: str) -> None:
    """ConfigMaps take an unconditional PUT; Leases insist on a resourceVersion, as a lock wants it."""
    path = configmaps(namespace)
    client.post(path, {"metadata": {"name": "a"}, "data": {"k": "0"}})
    assert client.put(f"{path}/a", {"metadata": {"name": "a"}, "data": {"k": "1"}}).status_code == 200
    leases = LEASES.format(namespace)
    client.post(leases, lease("l", holderIdentity="x"))
    answer = client.put(f"{leases}/l", lease("l", holderIdentity="y"))
    assert answer.status_code == 422
    assert causes(answer.json()) == [("metadata.resourceVersion", "FieldValueInvalid")]


def test_another_uid_is_a_conflict_for_put_and_invalid_for_patch(client: Client, namespace: str) -> None:
    """A PUT's uid is a precondition; in a PATCH it is an immutable field."""
    path = configmaps(namespace)
    client.post(path, {"metadata": {"name": "a"}})
    other = "11111111-1111-1111-1111-111111111111"
    answer = client.put(f"{path}/a", {"metadata": {"name": "a", "uid": other}})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    patched = client.patch(f"{path}/a", {"metadata": {"uid": other}})
    assert (patched.status_code, set(causes(patched.json()))) == (422, {("metadata.uid", "FieldValueInvalid")})


def test_a_write_that_changes_nothing_costs_no_version(client: Client, namespace: str) -> None:
    """PUT and PATCH of the same content leave the resourceVersion."""
    path = configmaps(namespace)
    first = client.post(path, {"metadata": {"name": "a"}, "data": {"k": "0"}}).json()
    again = client.put(f"{path}/a", first).json()
    patched = client.patch(f"{path}/a", {"data": {"k": "0"}}).json()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert patched["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_url_and_body_have_to_agree(client: Client, namespace: str) -> None:
    """Another name or namespace in the body is a 400."""
    path = configmaps(namespace)
    client.post(path, {"metadata": {"name": "a"}})
    answer = client.put(f"{path}/a", {"metadata": {"name": "b"}})
    assert answer.status_code == 400
    assert answer.json()["message"] == "the name of the object (b) does not match the name on the URL (a)"
    answer = client.post(path, {"metadata": {"name": "b", "namespace": "default"}})
    assert answer.status_code == 400
    assert "the namespace of the provided object does not match" in answer.json()["message"]
    answer = client.patch(f"{path}/a", {"metadata": {"name": "c"}})
    assert answer.status_code == 400


def test_a_version_at_creation_is_refused(client: Client, namespace: str) -> None:
    """resourceVersion belongs to the server."""
    answer = client.post(configmaps(namespace), {"metadata": {"name": "a", "resourceVersion": "1"}})
    assert answer.status_code == 500
    assert answer.json()["message"] == "resourceVersion should not be set on objects to be created"


@pytest.mark.parametrize(
    ("metadata", "field", "reason"),
    [
        ({}, "metadata.name", "FieldValueRequired"),
        ({"name": "Not_A_Name"}, "metadata.name", "FieldValueInvalid"),
        ({"name": "a", "labels": {"a b": "c"}}, "metadata.labels", "FieldValueInvalid"),
        ({"name": "a", "labels": {"a": "c d"}}, "metadata.labels", "FieldValueInvalid"),
        ({"name": "a", "labels": {"x/y/z": "c"}}, "metadata.labels", "FieldValueInvalid"),
        ({"name": "a", "annotations": {"-bad": "c"}}, "metadata.annotations", "FieldValueInvalid"),
        ({"name": "a", "annotations": {"big": "x" * 262144}}, "metadata.annotations", "FieldValueTooLong"),
    ],
)
def test_bad_metadata_is_invalid(
    client: Client, namespace: str, metadata: dict[str, Any], field: str, reason: str
) -> None:
    """422 with a cause that names the field."""
    answer = client.post(configmaps(namespace), {"metadata": metadata})
    body = answer.json()
    assert (answer.status_code, body["reason"]) == (422, "Invalid")
    assert (field, reason) in causes(body)
    assert body["details"]["kind"] == "ConfigMap"
    assert body["message"].startswith(f'ConfigMap "{metadata.get("name", "")}" is invalid: {field}: ')


def test_annotations_just_within_the_limit_are_taken(client: Client, namespace: str) -> None:
    """256 KiB of keys and values together."""
    answer = client.post(configmaps(namespace), {"metadata": {"name": "a", "annotations": {"k": "x" * 262143}}})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("taint", "field", "reason"),
    [
        ({"key": "a", "effect": "Never"}, "metadata.taints[0].effect", "FieldValueNotSupported"),
        ({"key": "a"}, "metadata.taints[0].effect", "FieldValueRequired"),
        ({"key": "a b", "effect": "NoSchedule"}, "metadata.taints[0].key", "FieldValueInvalid"),
        ({"key": "a", "value": "b c", "effect": "NoSchedule"}, "metadata.taints[0].value", "FieldValueInvalid"),
    ],
)
def test_bad_taints_are_invalid(client: Client, node: str, taint: dict[str, Any], field: str, reason: str) -> None:
    """422 for keys, values and effects that do not exist."""
    answer = client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [taint]}})
    assert answer.status_code == 422
    assert (field, reason) in causes(answer.json())


def test_taints_are_unique_by_key_and_effect(client: Client, node: str) -> None:
    """422 Duplicate."""
    taint = {"key": "a", "effect": "NoSchedule"}
    answer = client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [taint, {**taint, "value": "x"}]}})
    assert answer.status_code == 422
    assert ("metadata.taints[1]", "FieldValueDuplicate") in causes(answer.json())


def test_values_of_the_wrong_type_are_a_bad_request(client: Client, namespace: str) -> None:
    """A number where a string belongs cannot be decoded."""
    answer = client.post(configmaps(namespace), {"metadata": {"name": "a", "annotations": {"n": 1}}})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert "cannot unmarshal number into Go struct field" in answer.json()["message"]
    answer = client.post(configmaps(namespace), {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}})
    assert answer.status_code == 400


def test_unknown_fields_vanish_or_are_refused_under_strict(client: Client, namespace: str) -> None:
    """By default a misspelt field is dropped with a warning; fieldValidation=Strict refuses it."""
    body = lease("l", holderIdentityy="x", holderIdentity="y")
    answer = client.post(LEASES.format(namespace), body, fieldValidation="Strict")
    assert answer.status_code == 400
    assert 'strict decoding error: unknown field "spec.holderIdentityy"' in answer.json()["message"]
    answer = client.post(LEASES.format(namespace), body)
    assert answer.status_code == 201
    assert answer.json()["spec"] == {"holderIdentity": "y"}
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.holderIdentityy\\""'


def test_lease_times_have_six_digits(client: Client, namespace: str) -> None:
    """MicroTime refuses whole seconds; a duration has to be positive."""
    leases = LEASES.format(namespace)
    answer = client.post(leases, lease("l", renewTime="2024-01-02T03:04:05Z"))
    assert answer.status_code == 400
    answer = client.post(leases, lease("l", renewTime="2024-01-02T03:04:05.000006Z", leaseDurationSeconds=15))
    assert answer.status_code == 201
    assert answer.json()["spec"] == {"renewTime": "2024-01-02T03:04:05.000006Z", "leaseDurationSeconds": 15}
    answer = client.post(leases, lease("m", leaseDurationSeconds=0))
    assert causes(answer.json()) == [("spec.leaseDurationSeconds", "FieldValueInvalid")]


def test_a_new_node_is_tainted_not_ready_and_may_bring_its_status(client: Client, unique: str) -> None:
    """As a kubelet registers itself."""
    body = {"metadata": {"name": unique}, "status": {"nodeInfo": {"bootID": "b", "kernelVersion": "6.1"}}}
    created = client.post("/api/v1/nodes", body).json()
    assert created["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    assert created["status"]["nodeInfo"]["bootID"] == "b"
    assert created["status"]["nodeInfo"]["machineID"] == ""


def test_status_and_spec_are_written_apart(client: Client, node: str) -> None:
    """A write to the node leaves its status; one to nodes/status leaves its spec but takes metadata."""
    path = f"/api/v1/nodes/{node}"
    both = {"spec": {"unschedulable": True}, "status": {"phase": "Running"}}
    assert "phase" not in client.patch(path, both).json()["status"]
    assert client.get(path).json()["spec"]["unschedulable"] is True
    both = {"metadata": {"annotations": {"a": "b"}}, "spec": {"unschedulable": None}, "status": {"phase": "Running"}}
    patched = client.patch(f"{path}/status", both).json()
    assert patched["status"]["phase"] == "Running"
    assert patched["spec"]["unschedulable"] is True
    assert patched["metadata"]["annotations"] == {"a": "b"}


def test_a_node_cannot_change_what_identifies_it(client: Client, node: str) -> None:
    """providerID may be set once."""
    path = f"/api/v1/nodes/{node}"
    assert client.patch(path, {"spec": {"providerID": "one"}}).status_code == 200
    answer = client.patch(path, {"spec": {"providerID": "two"}})
    assert answer.status_code == 422


def test_generation_counts_changes_of_the_spec_only(client: Client, namespace: str) -> None:
    """Labels and status do not move it."""
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    body = {"metadata": {"name": "p"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
    assert client.post(path, body).json()["metadata"]["generation"] == 1
    assert client.patch(f"{path}/p", {"metadata": {"labels": {"x": "y"}}}).json()["metadata"]["generation"] == 1
    assert client.patch(f"{path}/p/status", {"status": {"currentHealthy": 3}}).json()["metadata"]["generation"] == 1
    assert client.patch(f"{path}/p", {"spec": {"minAvailable": 2}}).json()["metadata"]["generation"] == 2


def test_budgets_have_one_bound(client: Client, namespace: str) -> None:
    """minAvailable and maxUnavailable exclude each other; a percentage is checked."""
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    for spec, field in (
        ({"minAvailable": 1, "maxUnavailable": 1}, "spec"),
        ({"minAvailable": "many"}, "spec.minAvailable"),
        ({"maxUnavailable": -1}, "spec.maxUnavailable"),
    ):
        answer = client.post(path, {"metadata": {"name": "p"}, "spec": {**spec, "selector": {}}})
        assert answer.status_code == 422
        assert field in [name for name, _ in causes(answer.json())]


def test_dry_run_stores_nothing(client: Client, namespace: str) -> None:
    """dryRun=All answers as if, for every verb; another value is refused."""
    path = configmaps(namespace)
    answer = client.post(path, {"metadata": {"name": "a"}}, dryRun="All")
    assert answer.status_code == 201
    assert client.get(f"{path}/a").status_code == 404
    client.post(path, {"metadata": {"name": "a"}, "data": {"k": "0"}})
    before = client.get(f"{path}/a").json()
    assert client.patch(f"{path}/a", {"data": {"k": "1"}}, dryRun="All").json()["data"] == {"k": "1"}
    assert client.put(f"{path}/a", {**before, "data": {"k": "2"}}, dryRun="All").json()["data"] == {"k": "2"}
    assert client.delete(f"{path}/a", dryRun="All").status_code == 200
    assert client.get(f"{path}/a").json() == before
    assert client.post(path, {"metadata": {"name": "b"}}, dryRun="Some").status_code == 422


def test_delete_answers_with_the_uid_and_checks_preconditions(client: Client, namespace: str) -> None:
    """A Status with the details; 409 for another uid or version; 404 the second time."""
    path = configmaps(namespace)
    created = client.post(path, {"metadata": {"name": "a"}}).json()
    for preconditions in ({"uid": "other"}, {"resourceVersion": "1"}):
        answer = client.delete(f"{path}/a", {"preconditions": preconditions})
        assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    answer = client.delete(f"{path}/a", {"preconditions": {"uid": created["metadata"]["uid"]}})
    assert answer.status_code == 200
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]},
    }
    assert client.delete(f"{path}/a").status_code == 404


def test_finalizers_hold_an_object(client: Client, namespace: str) -> None:
    """Deletion marks it, the last finalizer's removal ends it, and none may be added meanwhile."""
    path = configmaps(namespace)
    client.post(path, {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    marked = client.delete(f"{path}/a")
    assert marked.status_code == 200
    assert "deletionTimestamp" in marked.json()["metadata"]
    assert marked.json()["metadata"]["deletionGracePeriodSeconds"] == 0
    answer = client.patch(f"{path}/a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    assert answer.status_code == 422
    again = client.post(path, {"metadata": {"name": "a"}})
    assert (again.status_code, again.json()["message"]) == (
        409,
        'object is being deleted: configmaps "a" already exists',
    )
    assert client.patch(f"{path}/a", {"metadata": {"finalizers": None}}).status_code == 200
    assert client.get(f"{path}/a").status_code == 404


def test_a_terminating_namespace_takes_nothing_new(client: Client, namespace: str) -> None:
    """403 with the cause NamespaceTerminating."""
    assert client.delete(f"/api/v1/namespaces/{namespace}").status_code == 200
    answer = client.post(configmaps(namespace), {"metadata": {"name": "a"}})
    assert answer.status_code == 403
    assert [cause["reason"] for cause in answer.json()["details"]["causes"]] == ["NamespaceTerminating"]
    assert client.delete("/api/v1/namespaces/default").status_code == 403


def test_bodies_of_other_types_are_refused(client: Client, namespace: str) -> None:
    """415 for the body, 406 for the answer, 400 for what is no JSON, 413 for too much of it."""
    path = configmaps(namespace)
    assert client.request("POST", path, data="x", headers={"Content-Type": "text/csv"}).status_code == 415
    answer = client.request("GET", path, headers={"Accept": "text/csv"})
    assert answer.status_code == 406
    bad = client.request("POST", path, data="{", headers={"Content-Type": "application/json"})
    assert (bad.status_code, bad.json()["reason"]) == (400, "BadRequest")
    huge = client.post(path, {"metadata": {"name": "a"}, "data": {"k": "x" * 4_000_000}})
    assert (huge.status_code, huge.json()["reason"]) == (413, "RequestEntityTooLarge")
    document = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: doc\n"
    yaml = client.request("POST", path, data=document, headers={"Content-Type": "application/yaml"})
    assert yaml.status_code == 201


def test_events_belong_to_the_namespace_of_what_they_are_about(client: Client, namespace: str, node: str) -> None:
    """An event about a Node lives in default; one about a namespaced object beside it."""
    about = {"kind": "Node", "name": node, "uid": node}
    event = {
        "metadata": {"generateName": "e-"},
        "involvedObject": about,
        "reason": "R",
        "message": "m",
        "type": "Normal",
    }
    assert client.post("/api/v1/namespaces/default/events", event).status_code == 201
    answer = client.post(f"/api/v1/namespaces/{namespace}/events", event)
    assert answer.status_code == 422
    assert causes(answer.json()) == [("involvedObject.namespace", "FieldValueInvalid")]
    modern = {**event, "eventTime": "2024-01-02T03:04:05.000006Z"}
    answer = client.post("/api/v1/namespaces/default/events", modern)
    assert answer.status_code == 422
    fields = {field for field, _ in causes(answer.json())}
    assert fields == {"reportingComponent", "reportingInstance", "action"}
