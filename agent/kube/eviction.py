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
    NotFound,
    Operation,
    Refused,
    ServerError,
    TooManyRequests,
    refusal_from,
)

_NAMED = re.compile(r"disruption budget (\S+)")
_TWO_BUDGETS = "more than one PodDisruptionBudget"


class Outcome(StrEnum):
    """What became of an eviction."""

    EVICTED = "evicted"  # accepted: the pod terminates; in a dry run: would be
    GONE = "gone"  # no such pod any more
    REPLACED = "replaced"  # another pod has that name; it was not evicted
    BLOCKED = "blocked"  # a PodDisruptionBudget allows no disruption now
    MISCONFIGURED = "misconfigured"  # two PodDisruptionBudgets select the pod: it can never be evicted
    THROTTLED = "throttled"  # the API server has too much to do
    TERMINATING_NAMESPACE = "terminating-namespace"  # the pod goes with its namespace


@dataclass(frozen=True, slots=True)
class Eviction:
    """One eviction's outcome.

    budget: name of the PodDisruptionBudget that blocks, empty when the API server does not tell. message: its words.
    retry_after_seconds: what the API server asks to wait; None when it asks nothing.
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
    """What a refusal means; raises the error itself when it is none of the known outcomes (RBAC, a failing webhook)."""
    causes = {cause.reason: cause for cause in error.causes}
    if isinstance(error, TooManyRequests):
        cause = causes.get("DisruptionBudget")
        if cause is None:
            return Eviction(Outcome.THROTTLED, "", error.message, error.retry_after_seconds)
        named = _NAMED.search(cause.message)
        budget = named.group(1) if named else ""
        return Eviction(Outcome.BLOCKED, budget, cause.message or error.message, error.retry_after_seconds)
    if isinstance(error, NotFound) and error.names_object:
        return Eviction(Outcome.GONE, message=error.message)
    # Other conflicts are races inside the API server over the same pod: for the caller to try again.
    if isinstance(error, Conflict) and "UID" in error.message:
        return Eviction(Outcome.REPLACED, message=error.message)
    if isinstance(error, ServerError) and _TWO_BUDGETS in error.message:
        return Eviction(Outcome.MISCONFIGURED, message=error.message)
    if isinstance(error, Forbidden) and "NamespaceTerminating" in causes:
        return Eviction(Outcome.TERMINATING_NAMESPACE, message=error.message)
    raise error
