"""How pods go: graceful deletion and the eviction subresource with its budgets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiservers import Client

CONTAINERS = [{"name": "c", "image": "i"}]


class Pods:
    """Pods and budgets of one namespace and node, without anybody who looks after them."""

    def __init__(self, client: Client, namespace: str, node: str) -> None:
        self.client = client
        self.node = node
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"

    def add(self, name: str, phase: str = "Running", ready: bool = True, **meta: Any) -> dict[str, Any]:
        body = {
            "metadata": {"name": name, "labels": {"app": "web"}, **meta},
            "spec": {"nodeName": self.node, "containers": CONTAINERS},
        }
        answer = self.client.post(self.pods, body)
        assert answer.status_code == 201, answer.text
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
        patched = self.client.patch(f"{self.pods}/{name}/status", {"status": status}, "strategic")
        result: dict[str, Any] = patched.json()
        return result

    def budget(self, name: str, allowed: int, healthy: int = 1, **spec: Any) -> None:
        selector = {"matchLabels": {"app": "web"}}
        body = {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": selector, **spec}}
        assert self.client.post(self.budgets, body).status_code == 201
        status = {
            "observedGeneration": 1,
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": 1,
            "expectedPods": 1,
        }
        assert self.client.patch(f"{self.budgets}/{name}/status", {"status": status}).status_code == 200

    def evict(self, name: str, options: dict[str, Any] | None = None, **query: Any) -> Any:
        body: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        if options is not None:
            body["deleteOptions"] = options
        return self.client.post(f"{self.pods}/{name}/eviction", body, **query)

    def get(self, name: str) -> dict[str, Any]:
        result: dict[str, Any] = self.client.get(f"{self.pods}/{name}").json()
        return result

    def gone(self, name: str) -> bool:
        return self.client.get(f"{self.pods}/{name}").status_code == 404

    def allowed(self, name: str) -> int:
        status: dict[str, int] = self.client.get(f"{self.budgets}/{name}").json()["status"]
        return status["disruptionsAllowed"]


@pytest.fixture
def pods(client: Client, namespace: str, node: str) -> Pods:
    return Pods(client, namespace, node)


def test_a_new_pod_has_defaults_and_no_status_of_its_own(pods: Pods) -> None:
    """Pending, thirty seconds of grace, a container's defaults."""
    body = {"metadata": {"name": "p"}, "spec": {"containers": CONTAINERS}, "status": {"phase": "Running"}}
    pod = pods.client.post(pods.pods, body).json()
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 30
    assert pod["spec"]["restartPolicy"] == "Always"
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"


def test_a_pod_needs_containers_and_keeps_its_node(pods: Pods) -> None:
    """422 for none, and for moving a stored pod."""
    assert pods.client.post(pods.pods, {"metadata": {"name": "p"}}).status_code == 422
    pods.add("p")
    answer = pods.client.patch(f"{pods.pods}/p", {"spec": {"nodeName": "elsewhere"}})
    assert answer.status_code == 422
    assert answer.json()["details"]["causes"][0]["reason"] == "FieldValueForbidden"


def test_deleting_a_pod_on_a_node_marks_it(pods: Pods) -> None:
    """It waits for its kubelet; the grace period may be shortened, never lengthened; zero ends it."""
    pods.add("p")
    marked = pods.client.delete(f"{pods.pods}/p").json()
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    pods.client.delete(f"{pods.pods}/p", {"gracePeriodSeconds": 60})
    assert pods.get("p")["metadata"]["deletionGracePeriodSeconds"] == 30
    pods.client.delete(f"{pods.pods}/p", {"gracePeriodSeconds": 5})
    shorter = pods.get("p")["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    assert shorter["deletionTimestamp"] < marked["metadata"]["deletionTimestamp"]
    assert pods.client.delete(f"{pods.pods}/p", {"gracePeriodSeconds": 0}).status_code == 200
    assert pods.gone("p")


def test_a_pod_without_a_node_or_finished_goes_at_once(pods: Pods) -> None:
    """There is no kubelet to wait for."""
    pods.client.post(pods.pods, {"metadata": {"name": "p"}, "spec": {"containers": CONTAINERS}})
    pods.client.delete(f"{pods.pods}/p")
    assert pods.gone("p")
    pods.add("q", phase="Succeeded")
    pods.client.delete(f"{pods.pods}/q")
    assert pods.gone("q")


def test_an_eviction_without_a_budget_deletes(pods: Pods) -> None:
    """201 with a Status; the pod is marked and says why."""
    pods.add("p")
    answer = pods.evict("p", {"gracePeriodSeconds": 7})
    assert (answer.status_code, answer.json()["status"]) == (201, "Success")
    pod = pods.get("p")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 7
    reasons = {item["type"]: item.get("reason") for item in pod["status"]["conditions"]}
    assert reasons["DisruptionTarget"] == "EvictionByEvictionAPI"
    assert pods.evict("p").status_code == 201
    assert pods.evict("nobody").status_code == 404


def test_a_spent_budget_refuses(pods: Pods) -> None:
    """429 with the cause that tells it from throttling, and no Retry-After."""
    pods.add("p")
    pods.budget("b", allowed=0)
    answer = pods.evict("p")
    assert answer.status_code == 429
    assert "Retry-After" not in answer.headers
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "reason": "TooManyRequests",
        "details": {
            "causes": [
                {
                    "reason": "DisruptionBudget",
                    "message": "The disruption budget b needs 1 healthy pods and has 1 currently",
                }
            ]
        },
        "code": 429,
    }
    assert "deletionTimestamp" not in pods.get("p")["metadata"]


def test_a_budget_that_nobody_has_looked_at_refuses_for_now(pods: Pods) -> None:
    """While its status lags behind its generation: 429 with Retry-After 10."""
    pods.add("p")
    selector = {"matchLabels": {"app": "web"}}
    pods.client.post(pods.budgets, {"metadata": {"name": "b"}, "spec": {"minAvailable": 0, "selector": selector}})
    answer = pods.evict("p")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    assert answer.json()["details"]["retryAfterSeconds"] == 10
    cause = answer.json()["details"]["causes"][0]
    assert cause["message"] == "The disruption budget b is still being processed by the server."


def test_an_eviction_spends_the_budget(pods: Pods) -> None:
    """One less, the pod noted as disrupted, and the next one is refused."""
    pods.add("p")
    pods.add("q")
    pods.budget("b", allowed=1)
    assert pods.evict("p").status_code == 201
    status = pods.client.get(f"{pods.budgets}/b").json()["status"]
    assert status["disruptionsAllowed"] == 0
    assert list(status["disruptedPods"]) == ["p"]
    assert pods.evict("q").status_code == 429


def test_a_dry_run_eviction_checks_and_spends_nothing(pods: Pods) -> None:
    """In the query or in the options: a preflight, pod by pod."""
    pods.add("p")
    pods.budget("b", allowed=1)
    assert pods.evict("p", dryRun="All").status_code == 201
    assert pods.evict("p", {"dryRun": ["All"]}).status_code == 201
    assert (pods.allowed("b"), "deletionTimestamp" in pods.get("p")["metadata"]) == (1, False)
    pods.client.patch(f"{pods.budgets}/b/status", {"status": {"disruptionsAllowed": 0}})
    assert pods.evict("p", dryRun="All").status_code == 429


def test_another_pod_of_the_same_name_is_not_evicted(pods: Pods) -> None:
    """409 when the uid of the precondition is another's; 201 when it is right."""
    pod = pods.add("p")
    answer = pods.evict("p", {"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert "deletionTimestamp" not in pods.get("p")["metadata"]
    assert pods.evict("p", {"preconditions": {"uid": pod["metadata"]["uid"]}}).status_code == 201


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Pending"])
def test_budgets_do_not_hold_what_does_not_run(pods: Pods, phase: str) -> None:
    """Finished and pending pods go in spite of a spent budget."""
    pods.add("p", phase=phase, ready=False)
    pods.budget("b", allowed=0)
    assert pods.evict("p").status_code == 201


def test_budgets_do_not_hold_what_is_going(pods: Pods) -> None:
    """A terminating pod neither."""
    pods.add("p")
    pods.client.delete(f"{pods.pods}/p")
    pods.budget("b", allowed=0)
    assert pods.evict("p").status_code == 201


def test_an_unready_pod_goes_while_enough_others_are_healthy(pods: Pods) -> None:
    """It is not counted, so it does not spend; with too few healthy ones it is held unless the policy says so."""
    pods.add("sick", ready=False)
    pods.budget("b", allowed=0, healthy=1)
    assert pods.evict("sick").status_code == 201
    pods.client.delete(f"{pods.budgets}/b")
    pods.add("sicker", ready=False)
    pods.budget("c", allowed=0, healthy=0)
    assert pods.evict("sicker").status_code == 429
    pods.client.delete(f"{pods.budgets}/c")
    pods.budget("d", allowed=0, healthy=0, unhealthyPodEvictionPolicy="AlwaysAllow")
    assert pods.evict("sicker").status_code == 201


def test_two_budgets_on_one_pod_are_a_misconfiguration(pods: Pods) -> None:
    """A Status with code 500, no reason and no cause; the status line differs between versions, the body does not."""
    pods.add("p")
    pods.budget("b", allowed=1)
    pods.budget("c", allowed=1)
    answer = pods.evict("p")
    assert answer.status_code in (201, 500)
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        "code": 500,
    }
    assert (pods.allowed("b"), pods.allowed("c")) == (1, 1)


def test_an_eviction_names_its_pod(pods: Pods) -> None:
    """400 when body and URL disagree or the body is something else; 405 for another verb."""
    pods.add("p")
    path = f"{pods.pods}/p/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}}
    assert pods.client.post(path, body).status_code == 400
    assert pods.client.post(path, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}).status_code == 400
    assert pods.client.get(path).status_code == 405
