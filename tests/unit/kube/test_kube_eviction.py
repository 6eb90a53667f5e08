"""What an eviction's answer means, for each answer that kube-apiserver gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.kube import Eviction, Outcome
from agent.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Operation,
    Refused,
    ServerError,
    Unauthorized,
    refusal,
)
from agent.kube.eviction import accepted, refused

EVICT = Operation("POST", "evict", "pods/eviction", "pods/web-1 in shop", "/…/eviction")
TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def answer(code: int, reason: str, message: str, headers: dict[str, str] | None = None, **details: Any) -> Refused:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return refusal(EVICT, code, headers or {}, json.dumps({**body, "details": details}).encode(), write=True)


def budget(message: str, headers: dict[str, str] | None = None) -> Refused:
    causes = [{"reason": "DisruptionBudget", "message": message}]
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    return answer(429, "TooManyRequests", text, headers, causes=causes)


def test_a_budget_that_blocks_is_named() -> None:
    """The 429 with the cause DisruptionBudget; there is no Retry-After when no disruption is allowed."""
    message = "The disruption budget web needs 2 healthy pods and has 2 currently"
    assert refused(budget(message)) == Eviction(Outcome.BLOCKED, "web", message, None)


def test_a_budget_whose_status_lags_asks_for_patience() -> None:
    """The same cause, with ten seconds to wait."""
    message = "The disruption budget web is still being processed by the server."
    assert refused(budget(message, {"retry-after": "10"})) == Eviction(Outcome.BLOCKED, "web", message, 10.0)


def test_a_budget_without_a_name_still_blocks() -> None:
    """Other words than today's must not turn a blocked eviction into throttling."""
    assert refused(budget("no")) == Eviction(Outcome.BLOCKED, "", "no", None)


def test_throttling_is_not_a_budget() -> None:
    """A 429 of the overloaded API server: plain text, a Retry-After, or its own words."""
    plain = refusal(EVICT, 429, {"content-type": "text/plain", "retry-after": "1"}, b"Too many requests", write=True)
    assert refused(plain) == Eviction(Outcome.THROTTLED, "", "Too many requests", 1.0)
    busy = "the server has received too many requests and has asked us to try again later"
    assert refused(answer(429, "TooManyRequests", busy)).outcome is Outcome.THROTTLED
    assert refused(answer(429, "TooManyRequests", "")).outcome is Outcome.THROTTLED


WEBHOOK = 'admission webhook "evict.example.com" denied the request: the VM migrates'


@pytest.mark.parametrize("status", [404, 409, 429, 500, 503])
def test_a_webhooks_refusal_is_no_throttling_whatever_its_status(status: int) -> None:
    """The sender chooses the code freely; its words are kept. A 404 of a webhook is no pod that is gone."""
    error = answer(status, "TooManyRequests", WEBHOOK, name="web-1", kind="pods")
    assert refused(error) == Eviction(Outcome.DENIED, "", WEBHOOK, None)


def test_a_webhook_that_names_a_time_is_no_throttling_either() -> None:
    """Its Retry-After is about this pod alone."""
    body = json.dumps({"kind": "Status", "status": "Failure", "code": 429, "message": WEBHOOK}).encode()
    error = refusal(EVICT, 429, {"retry-after": "20"}, body, write=True)
    assert refused(error) == Eviction(Outcome.DENIED, "", WEBHOOK, 20.0)


def test_a_429_about_this_pod_is_a_refusal() -> None:
    """Somebody in between who is neither the overloaded server nor a budget."""
    assert refused(answer(429, "TooManyRequests", "database is rebalancing")).outcome is Outcome.DENIED


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_webhooks_final_no_stays_an_error(status: int) -> None:
    """Trying again is no use until somebody changes the rules."""
    with pytest.raises(Refused):
        refused(answer(status, "Forbidden", WEBHOOK))


@pytest.mark.parametrize("document", [{"kind": "Status", "status": "Success"}, {"kind": "Eviction"}, {}])
def test_an_accepted_eviction(document: dict[str, str]) -> None:
    """Whatever stands in a 2xx that is no failure."""
    assert accepted(EVICT, document) == Eviction(Outcome.EVICTED)


def test_two_budgets_are_a_misconfiguration_though_the_status_is_201() -> None:
    """The one answer that lies in its status line; also when a proxy or a later version says 500 openly."""
    body = {"kind": "Status", "status": "Failure", "message": TWO, "code": 500}
    assert accepted(EVICT, body) == Eviction(Outcome.MISCONFIGURED, "", TWO)
    assert refused(answer(500, "", TWO)).outcome is Outcome.MISCONFIGURED


def test_a_failure_inside_a_201_that_is_not_known_is_raised() -> None:
    """Never taken for an eviction."""
    with pytest.raises(ServerError, match="something new"):
        accepted(EVICT, {"kind": "Status", "status": "Failure", "message": "something new", "code": 500})


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (answer(404, "NotFound", 'pods "web-1" not found', name="web-1", kind="pods"), Outcome.GONE),
        (
            answer(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
            Outcome.REPLACED,
        ),
        (
            answer(403, "Forbidden", "terminating", causes=[{"reason": "NamespaceTerminating"}]),
            Outcome.TERMINATING_NAMESPACE,
        ),
    ],
)
def test_a_pod_that_is_going_or_gone(error: Refused, outcome: Outcome) -> None:
    """Done, replaced by another of that name, or leaving with its namespace."""
    assert refused(error).outcome is outcome


@pytest.mark.parametrize(
    ("error", "branch"),
    [
        (answer(403, "Forbidden", "cannot create resource pods/eviction"), Forbidden),
        (answer(404, "NotFound", "the server could not find the requested resource"), NotFound),
        (answer(409, "Conflict", "the object has been modified"), Conflict),
        (answer(401, "Unauthorized", "Unauthorized"), Unauthorized),
        (answer(422, "Invalid", "bad"), Invalid),
        (answer(500, "InternalError", "failed calling webhook"), ServerError),
    ],
)
def test_what_says_nothing_about_the_pod_is_raised(error: Refused, branch: type[Refused]) -> None:
    """RBAC, a server without this API, a race, a failing webhook."""
    with pytest.raises(branch) as caught:
        refused(error)
    assert caught.value is error
