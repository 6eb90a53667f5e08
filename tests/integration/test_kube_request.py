"""The client's calls against an API server: the emulator, and a real one where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.errors import UsageError
from agent.kube import CONFIGMAPS, LEASES, NAMESPACES, NODES, PDBS, PODS, Kube, Object, Outcome, Patch
from agent.kube.errors import AlreadyExists, Conflict, Invalid, NotFound, Stopped, Unauthorized
from tests.support.apiservers import ApiServer
from tests.support.kube import Seams, authority_of, client_of, kube_client


@pytest.fixture
def kube(api: ApiServer) -> Iterator[Kube]:
    made = client_of(api)
    yield made
    made.close()


def configmap(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, node: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.invalid/main:1"}]},
    }


def ready_pod(kube: Kube, namespace: str, name: str, node: str, **labels: str) -> Object:
    """A pod that a disruption budget counts."""
    kube.create(PODS, pod(name, node, **labels), namespace)
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return kube.patch(PODS, name, {"status": status}, namespace, how=Patch.STRATEGIC, subresource="status")


def budget(kube: Kube, namespace: str, name: str, allowed: int, **labels: str) -> None:
    """A disruption budget whose controller has decided how many may go."""
    spec = {"minAvailable": 1, "selector": {"matchLabels": labels}}
    kube.create(PDBS, {"metadata": {"name": name}, "spec": spec}, namespace)
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": allowed,
        "currentHealthy": 2 if allowed else 1,
        "desiredHealthy": 1,
        "expectedPods": 2,
    }
    kube.patch(PDBS, name, {"status": status}, namespace, how=Patch.MERGE, subresource="status")


def test_the_agent_tells_who_it_is(api: ApiServer) -> None:
    """The API server's audit log shows agent, version and node of every request."""
    if api.sandbox is None:
        pytest.skip("a real API server keeps its audit log to itself")
    kube = client_of(api)
    kube.get_raw("/version?from=agent-test")
    agents = {record.user_agent for record in api.sandbox.requests if "agent-test" in record.query}
    assert len(agents) == 1
    assert agents.pop().startswith("node-hardening-agent/")
    kube.close()


def test_the_version_is_read_raw(kube: Kube) -> None:
    """Paths that are no resource give their document as it is."""
    assert kube.get_raw("/version")["major"] == "1"


def test_an_object_is_created_read_and_deleted(kube: Kube, namespace: str) -> None:
    """The plain way of things, with errors that name the object."""
    created = kube.create(CONFIGMAPS, configmap("policy", a="1"), namespace)
    assert kube.get(CONFIGMAPS, "policy", namespace)["metadata"]["uid"] == created["metadata"]["uid"]
    with pytest.raises(AlreadyExists, match=rf"create configmaps/policy in {namespace}: 409 AlreadyExists"):
        kube.create(CONFIGMAPS, configmap("policy"), namespace)
    kube.delete(CONFIGMAPS, "policy", namespace)
    with pytest.raises(NotFound, match=rf"get configmaps/policy in {namespace}: 404 NotFound") as caught:
        kube.get(CONFIGMAPS, "policy", namespace)
    assert caught.value.names_object is True


def test_a_path_that_is_not_served_is_not_a_missing_object(kube: Kube) -> None:
    """An API that a cluster does not have must not read as "the object is gone"."""
    with pytest.raises(NotFound) as caught:
        kube.get_raw("/apis/nothing.example.org/v1/things/one")
    assert caught.value.names_object is False


def test_the_namespace_of_an_object_is_used_and_asked_for(kube: Kube, namespace: str) -> None:
    """metadata.namespace serves as well as the argument; neither is a slip of ours."""
    body = configmap("here")
    body["metadata"]["namespace"] = namespace
    assert kube.create(CONFIGMAPS, body)["metadata"]["namespace"] == namespace
    with pytest.raises(UsageError, match="needs a namespace"):
        kube.create(CONFIGMAPS, configmap("nowhere"))


def test_an_object_that_does_not_validate_names_the_field(kube: Kube, namespace: str) -> None:
    """422 with one cause a field, and no second attempt."""
    with pytest.raises(Invalid) as caught:
        kube.create(LEASES, {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": -1}}, namespace)
    assert len(caught.value.causes) == 1
    assert "spec.leaseDurationSeconds" in caught.value.message
    assert caught.value.attempts == 1


def test_a_patch_with_a_resource_version_is_a_compare_and_swap(kube: Kube, node: str) -> None:
    """Taints are replaced whole: the version guards what others have written meanwhile."""
    version = kube.get(NODES, node)["metadata"]["resourceVersion"]
    taints = [{"key": "a", "effect": "NoSchedule"}]
    patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}
    assert kube.patch(NODES, node, patch)["spec"]["taints"] == taints
    with pytest.raises(Conflict):
        kube.patch(NODES, node, patch)


def test_each_kind_of_patch(kube: Kube, node: str) -> None:
    """Merge takes a key away by null, strategic merges lists by key."""
    kube.patch(NODES, node, {"metadata": {"annotations": {"a": "1", "b": "2"}}})
    merged = kube.patch(NODES, node, {"metadata": {"annotations": {"a": None, "c": "3"}}}, how=Patch.MERGE)
    assert merged["metadata"]["annotations"] == {"b": "2", "c": "3"}

    for condition in ({"type": "A", "status": "True"}, {"type": "B", "status": "False"}):
        body = {"status": {"conditions": [condition]}}
        both = kube.patch(NODES, node, body, how=Patch.STRATEGIC, subresource="status")
    assert {found["type"] for found in both["status"]["conditions"]} >= {"A", "B"}


def test_a_dry_run_changes_nothing(kube: Kube, namespace: str) -> None:
    """Checked by the API server as the real thing would be, and not kept."""
    kube.create(CONFIGMAPS, configmap("dry"), namespace, dry_run=True)
    kube.create(CONFIGMAPS, configmap("kept", a="1"), namespace)
    kube.patch(CONFIGMAPS, "kept", {"data": {"a": "3"}}, namespace, dry_run=True)
    kube.delete(CONFIGMAPS, "kept", namespace, dry_run=True)
    found = {one["metadata"]["name"]: one.get("data") for one in kube.list(CONFIGMAPS, namespace)}
    found.pop("kube-root-ca.crt", None)
    assert found == {"kept": {"a": "1"}}


def test_a_list_comes_in_pages_of_one_version(kube: Kube, namespace: str) -> None:
    """Asked for page by page while it is read; what is created meanwhile is not in it."""
    for number in range(5):
        kube.create(CONFIGMAPS, configmap(f"c{number}"), namespace)
    listing = kube.list(CONFIGMAPS, namespace, page_size=2)
    pages = listing.pages()
    names = [found["metadata"]["name"] for found in next(pages)]
    assert len(names) == 2
    version = listing.resource_version
    kube.create(CONFIGMAPS, configmap("c9"), namespace)
    names += [found["metadata"]["name"] for page in pages for found in page]
    assert [name for name in names if name != "kube-root-ca.crt"] == [f"c{number}" for number in range(5)]
    assert listing.resource_version == version


def test_selectors_choose(kube: Kube, namespace: str, node: str) -> None:
    """By label, by field, and in all namespaces at once."""
    kube.create(PODS, pod("one", node, app="web"), namespace)
    kube.create(PODS, pod("two", node, app="db"), namespace)

    def names(label_selector: str = "", field_selector: str = "") -> list[str]:
        found = kube.list(PODS, label_selector=label_selector, field_selector=field_selector)
        return [one["metadata"]["name"] for one in found]

    where = f"metadata.namespace={namespace}"
    assert names(label_selector="app in (web, mail)", field_selector=where) == ["one"]
    assert names(field_selector=f"spec.nodeName={node}") == ["one", "two"]
    assert names(field_selector="spec.nodeName=nobody") == []
    with pytest.raises(Invalid):
        names(label_selector="app in web")


def test_deleting_only_the_very_one(kube: Kube, namespace: str) -> None:
    """A precondition on the UID, or the version, keeps a same-named successor alive."""
    first = kube.create(CONFIGMAPS, configmap("a"), namespace)["metadata"]
    kube.delete(CONFIGMAPS, "a", namespace, uid=first["uid"])
    second = kube.create(CONFIGMAPS, configmap("a"), namespace)["metadata"]
    with pytest.raises(Conflict):
        kube.delete(CONFIGMAPS, "a", namespace, uid=first["uid"])
    with pytest.raises(Conflict):
        kube.delete(CONFIGMAPS, "a", namespace, resource_version=first["resourceVersion"])
    kube.delete(CONFIGMAPS, "a", namespace, uid=second["uid"], resource_version=second["resourceVersion"])


def test_a_pod_is_deleted_with_the_grace_that_was_asked_for(kube: Kube, namespace: str, node: str) -> None:
    """None leaves the pod its own thirty seconds, a number is another, 0 kills at once."""
    for name in ("own", "five", "none"):
        kube.create(PODS, pod(name, node), namespace)
    kube.delete(PODS, "own", namespace)
    assert kube.get(PODS, "own", namespace)["metadata"]["deletionGracePeriodSeconds"] == 30
    kube.delete(PODS, "five", namespace, grace_seconds=5)
    assert kube.get(PODS, "five", namespace)["metadata"]["deletionGracePeriodSeconds"] == 5
    kube.delete(PODS, "none", namespace, grace_seconds=0)
    with pytest.raises(NotFound):
        kube.get(PODS, "none", namespace)


def test_a_pod_without_a_budget_is_evicted(kube: Kube, namespace: str, node: str) -> None:
    """Accepted: it terminates. Again, it is already going; gone, it is gone."""
    meta = ready_pod(kube, namespace, "web", node, app="web")["metadata"]
    assert kube.evict("web", namespace, uid=meta["uid"]).outcome is Outcome.EVICTED
    assert "deletionTimestamp" in kube.get(PODS, "web", namespace)["metadata"]
    assert kube.evict("web", namespace, uid=meta["uid"], grace_seconds=0).outcome is Outcome.EVICTED
    assert kube.evict("web", namespace, uid=meta["uid"]).outcome is Outcome.GONE


def test_a_budget_blocks_and_is_named(kube: Kube, namespace: str, node: str) -> None:
    """Which budget, in whose words, and that the pod stands."""
    meta = ready_pod(kube, namespace, "web", node, app="web")["metadata"]
    budget(kube, namespace, "keep-web", 0, app="web")
    seen = kube.evict("web", namespace, uid=meta["uid"])
    assert (seen.outcome, seen.budget, seen.retry_after_seconds) == (Outcome.BLOCKED, "keep-web", None)
    assert "needs 1 healthy pods and has 1 currently" in seen.message
    assert "deletionTimestamp" not in kube.get(PODS, "web", namespace)["metadata"]


def test_a_budget_that_was_just_made_asks_for_patience(kube: Kube, namespace: str, node: str) -> None:
    """Its controller has not counted yet: blocked, with a time to come back."""
    meta = ready_pod(kube, namespace, "web", node, app="web")["metadata"]
    kube.create(
        PDBS,
        {"metadata": {"name": "new"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
        namespace,
    )
    seen = kube.evict("web", namespace, uid=meta["uid"])
    assert (seen.outcome, seen.budget, seen.retry_after_seconds) == (Outcome.BLOCKED, "new", 10.0)


def test_a_dry_run_asks_a_budget_without_spending_it(kube: Kube, namespace: str, node: str) -> None:
    """One disruption is allowed: asked twice, and still there for the real one."""
    meta = ready_pod(kube, namespace, "web", node, app="web")["metadata"]
    budget(kube, namespace, "keep-web", 1, app="web")
    for _ in range(2):
        assert kube.evict("web", namespace, uid=meta["uid"], dry_run=True).outcome is Outcome.EVICTED
    assert "deletionTimestamp" not in kube.get(PODS, "web", namespace)["metadata"]
    assert kube.get(PDBS, "keep-web", namespace)["status"]["disruptionsAllowed"] == 1
    assert kube.evict("web", namespace, uid=meta["uid"]).outcome is Outcome.EVICTED


def test_two_budgets_on_one_pod_are_a_misconfiguration(kube: Kube, namespace: str, node: str) -> None:
    """HTTP says 201; only the body says that this pod can never be evicted."""
    meta = ready_pod(kube, namespace, "web", node, app="web")["metadata"]
    budget(kube, namespace, "first", 1, app="web")
    budget(kube, namespace, "second", 1, app="web")
    seen = kube.evict("web", namespace, uid=meta["uid"])
    assert seen.outcome is Outcome.MISCONFIGURED
    assert "more than one PodDisruptionBudget" in seen.message
    assert "deletionTimestamp" not in kube.get(PODS, "web", namespace)["metadata"]


def test_another_pod_of_that_name_is_left_alone(kube: Kube, namespace: str, node: str) -> None:
    """The UID decides, not the name."""
    kube.create(PODS, pod("web", node), namespace)
    seen = kube.evict("web", namespace, uid="00000000-0000-0000-0000-000000000000")
    assert seen.outcome is Outcome.REPLACED
    assert "deletionTimestamp" not in kube.get(PODS, "web", namespace)["metadata"]


def test_a_wrong_token_is_unauthorized_after_one_request(api: ApiServer) -> None:
    """There is nothing to read again, so nothing is tried again."""
    seams = Seams()
    kube = kube_client(api.url, "wrong", authority_of(api), seams)
    with pytest.raises(Unauthorized):
        kube.get(NAMESPACES, "default")
    assert [exchange.outcome for exchange in seams.sent] == ["401"]
    kube.close()


def test_every_request_is_counted_by_few_words(api: ApiServer, namespace: str) -> None:
    """Verb, resource, outcome: no names of objects, so that metrics stay bounded."""
    seams = Seams()
    kube = client_of(api, seams)
    kube.create(CONFIGMAPS, configmap("a"), namespace)
    list(kube.list(CONFIGMAPS, namespace))
    with pytest.raises(NotFound):
        kube.patch(NODES, "nobody", {}, how=Patch.STRATEGIC, subresource="status")
    kube.evict("nobody", namespace, uid="u")
    kube.get_raw("/version")
    kube.delete(CONFIGMAPS, "a", namespace)
    told = [(sent.method, sent.verb, sent.resource, sent.outcome) for sent in seams.sent]
    assert told == [
        ("POST", "create", "configmaps", "201"),
        ("GET", "list", "configmaps", "200"),
        ("PATCH", "patch", "nodes/status", "404"),
        ("POST", "evict", "pods/eviction", "404"),
        ("GET", "get", "nonresource", "200"),
        ("DELETE", "delete", "configmaps", "200"),
    ]
    kube.close()


def test_a_closed_door_sends_nothing(api: ApiServer) -> None:
    """After close, calls are refused by us; metrics do not count what was not sent."""
    seams = Seams()
    kube = client_of(api, seams)
    kube.close()
    with pytest.raises(Stopped, match="the agent is stopping"):
        kube.get(NAMESPACES, "default")
    assert list(kube.follow(NAMESPACES)) == []
    assert seams.sent == []
    assert seams.stop.is_set()


def test_last_words_go_through_after_stop(api: ApiServer, namespace: str) -> None:
    """stop ends waiting and watching; a final write is still one request away."""
    kube = client_of(api)
    kube.stop()
    assert list(kube.watch(NAMESPACES, resource_version="0")) == []
    assert kube.create(CONFIGMAPS, configmap("last-words"), namespace)["metadata"]["name"] == "last-words"
    kube.close()
