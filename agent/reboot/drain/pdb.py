"""The disruption budget that refuses an eviction, and whom to ask about it.

Read once a budget and cycle, for people and to know which other pods it will refuse. What cannot be read is left out:
a name without its owner is still a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import KubeError
from agent.kube import PDBS, Kube
from agent.reboot.drain.filters import Pod
from agent.text import join_limited, sanitize

# The recommended labels first. https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
_OWNER_LABELS = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "helm.sh/release",
    "release",
    "app",
    "k8s-app",
)


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget.

    owner: in words, empty when nothing tells. selector: its LabelSelector, as it stands. allowed: disruptions now, None
    when its controller has not said.
    """

    namespace: str
    name: str
    owner: str = ""
    selector: Mapping[str, Any] | None = field(default=None, compare=False)
    allowed: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}"
        return f"{name} ({self.owner})" if self.owner else name

    def covers(self, pod: Pod) -> bool:
        """Whether the pod is under it, as far as that is known."""
        return pod.namespace == self.namespace and selects(self.selector, pod.labels)


class Budgets:
    """What was read in this cycle."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[tuple[str, str], Budget] = {}
        self._namespaces: dict[str, tuple[Budget, ...]] = {}

    def named(self, namespace: str, name: str) -> Budget:
        """A budget by its name; one GET the first time."""
        known = self._known.get((namespace, name))
        if known is None:
            try:
                known = budget_of(self._kube.get(PDBS, name, namespace))
            except KubeError:
                known = Budget(namespace, name)
            self._known[namespace, name] = known
        return known

    def over(self, pod: Pod) -> tuple[Budget, ...]:
        """All budgets that a pod is under; one LIST of its namespace the first time."""
        known = self._namespaces.get(pod.namespace)
        if known is None:
            try:
                known = tuple(budget_of(found) for found in self._kube.list(PDBS, pod.namespace))
            except KubeError:
                known = ()
            self._namespaces[pod.namespace] = known
        return tuple(budget for budget in known if budget.covers(pod))

    def forget(self) -> None:
        """Reads again from now on: somebody may have mended them."""
        self._known.clear()
        self._namespaces.clear()


def misconfigured(pod: Pod, budgets: tuple[Budget, ...]) -> str:
    """Why a pod under two budgets can never be evicted, and what would mend it."""
    named = join_limited((str(budget) for budget in budgets), characters=160)
    which = f": {named}" if named else ""
    return f"{pod.full_name} is under more than one disruption budget, which no eviction passes{which}"


def budget_of(found: Mapping[str, Any]) -> Budget:
    """A budget from its object."""
    meta = found.get("metadata") or {}
    selector = (found.get("spec") or {}).get("selector")
    status = found.get("status") or {}
    allowed = status.get("disruptionsAllowed")
    is_told = type(allowed) is int and status.get("observedGeneration", 0) >= meta.get("generation", 0)
    return Budget(meta.get("namespace", ""), meta.get("name", ""), _owner(meta), selector, allowed if is_told else None)


def _owner(meta: Mapping[str, Any]) -> str:
    references = meta.get("ownerReferences") or ()
    for one in sorted(references, key=lambda reference: not reference.get("controller")):
        return sanitize(f"{one.get('kind', '')} {one.get('name', '')}", 100)
    labels = meta.get("labels") or {}
    found = next((labels[name] for name in _OWNER_LABELS if labels.get(name)), "")
    return sanitize(f"app {found}", 100) if found else ""


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches; an absent one matches nothing, an empty one everything.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """
    if selector is None:
        return False
    if any(labels.get(key) != text for key, text in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(one, labels) for one in selector.get("matchExpressions") or ())


def _meets(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    name, values = requirement.get("key", ""), requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return labels.get(name) in values
        case "NotIn":
            return labels.get(name) not in values
        case "Exists":
            return name in labels
        case "DoesNotExist":
            return name not in labels
        case _:
            return False
