"""What an eviction's answer means, read from its body and not from its HTTP status alone.

Pure. Source: kubernetes pkg/registry/core/pod/storage/eviction.go; what was tried is in docs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Operation,
    Refused,
    ServerError,
    TooManyRequests,
    refusal_from,
)

_NAMED = re.compile(r"disruption budget (\S+)")
_TWO_BUDGETS = "more than one PodDisruptionBudget"
# Source: kubernetes staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go. A webhook chooses
# the status code of its refusal freely, and KubeVirt's answers 429 while it migrates a virtual machine.
_WEBHOOK_DENIED = re.compile(r"admission webhook \".*\" denied the request")
# Priority and fairness, the in-flight limit and the watch cache. Source: apiserver pkg/server/filters/maxinflight.go.
_OVERLOADED = re.compile(r"too many requests|try again later", re.IGNORECASE)


class Outcome(StrEnum):
    """What became of an eviction."""

    EVICTED = "evicted"  # accepted: the pod terminates; in a dry run: would be
    GONE = "gone"  # no such pod any more
    REPLACED = "replaced"  # another pod has that name; it was not evicted
    BLOCKED = "blocked"  # a PodDisruptionBudget allows no disruption now
    MISCONFIGURED = "misconfigured"  # two PodDisruptionBudgets select the pod: it can never be evicted
    DENIED = "denied"  # an admission webhook, or something else that answers 429 about this pod, refuses for now
    THROTTLED = "throttled"  # the API server is overloaded
    TERMINATING_NAMESPACE = "terminating-namespace"  # the pod goes with its namespace


@dataclass(frozen=True, slots=True)
class Eviction:
    """One eviction's outcome.

    budget: name of the PodDisruptionBudget that blocks, empty when the API server does not name it. message: the
    sender's words. retry_after_seconds: None when it names none.
    """

    outcome: Outcome
    budget: str = ""
    message: str = ""
    retry_after_seconds: float | None = None


def accepted(operation: Operation, document: Any) -> Eviction:
    """What a 2xx answer means: two budgets answer 201 with a Status of code 500 inside. Raises Refused."""
    if isinstance(document, dict) and document.get("kind") == "Status" and document.get("status") == "Failure":
        return refused(refusal_from(operation, document, write=True))
    return Eviction(Outcome.EVICTED)


def refused(error: Refused) -> Eviction:
    """What a refusal means; raises the error itself when it is none of the known outcomes (RBAC, a policy's 403)."""
    if _WEBHOOK_DENIED.search(error.message) and not isinstance(error, Forbidden | Invalid):
        return Eviction(Outcome.DENIED, "", error.message, error.retry_after_seconds)
    if isinstance(error, TooManyRequests):
        return _too_many(error, error.causes.get("DisruptionBudget"))
    if isinstance(error, NotFound) and error.names_object:
        return Eviction(Outcome.GONE, message=error.message)
    # Other conflicts are races inside the API server over the same pod: for the caller to try again.
    if isinstance(error, Conflict) and "UID" in error.message:
        return Eviction(Outcome.REPLACED, message=error.message)
    if isinstance(error, ServerError) and _TWO_BUDGETS in error.message:
        return Eviction(Outcome.MISCONFIGURED, message=error.message)
    if isinstance(error, Forbidden) and "NamespaceTerminating" in error.causes:
        return Eviction(Outcome.TERMINATING_NAMESPACE, message=error.message)
    raise error


def _too_many(error: TooManyRequests, cause: str | None) -> Eviction:
    """A 429 of a budget, of the overloaded server, or of a party in between that refuses this pod."""
    if cause is not None:
        named = _NAMED.search(cause)
        budget = named.group(1) if named else ""
        return Eviction(Outcome.BLOCKED, budget, cause or error.message, error.retry_after_seconds)
    is_overload = not error.message or error.retry_after_seconds is not None or _OVERLOADED.search(error.message)
    outcome = Outcome.THROTTLED if is_overload else Outcome.DENIED
    return Eviction(outcome, "", error.message, error.retry_after_seconds)
