"""The PodDisruptionBudgets that refuse evictions: who owns them, which pods they cover, when they allow one again.

A budget that refuses is watched by name, so that the next eviction is tried when its status changes and not by the
clock. What cannot be read is left out: a name without its owner is still a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.bounded_http import Claim, TooLarge, kept_bytes
from agent.config.selector import Selector, from_object
from agent.errors import KubeError
from agent.kube import PDBS, Kube, field_selector
from agent.reboot.drain.filters import Pod
from agent.reboot.drain.informer import ResourceInformer
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
# Each is a thread and a connection. More budgets than this refuse on one node only where nothing is allowed at all.
_MOST_WATCHED = 16
_SYNC_SECONDS = 2.0
_CALL_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget.

    owner: for display, empty when unknown. selector: None where it has none, which covers nothing. problem: why its
    selector cannot be read. allowed: disruptions now, None while its controller has not reported on this generation.
    version: resourceVersion.
    """

    namespace: str
    name: str
    owner: str = ""
    selector: Selector | None = field(default=None, compare=False)
    problem: str = field(default="", compare=False)
    allowed: int | None = field(default=None, compare=False)
    version: str = field(default="", compare=False)

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}"
        return f"{name} ({self.owner})" if self.owner else name

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    def covers(self, pod: Pod) -> bool:
        """Whether the pod is under it, as far as that is known; see problem."""
        return pod.namespace == self.namespace and self.selector is not None and self.selector.matches(pod.labels)


class Budgets:
    """The budgets of one drain: those that refuse are watched until `close`."""

    def __init__(self, kube: Kube, on_change: Callable[[], None] = lambda: None) -> None:
        """on_change: called in a watch's thread when a budget allows a disruption, or is deleted."""
        self._kube = kube
        self._on_change = on_change
        self._informers: dict[tuple[str, str], ResourceInformer[Budget]] = {}
        self._namespaces: dict[str, tuple[Budget, ...] | str] = {}
        self._claim = Claim()
        self._kept = 0

    def watch(self, namespace: str, name: str) -> Budget:
        """A budget that has refused, watched from now on; bare while it cannot be read."""
        key = (namespace, name)
        if key not in self._informers and len(self._informers) < _MOST_WATCHED:
            follow = self._kube.follow(PDBS, namespace, field_selector=field_selector({"metadata.name": name}))
            self._informers[key] = ResourceInformer(follow, budget_of, self._changed)
        return self.current(key, _SYNC_SECONDS) or Budget(namespace, name)

    def current(self, key: tuple[str, str], wait_seconds: float = 0.0) -> Budget | None:
        """A watched budget as it is now; None where it is deleted. A bare one while it is not known."""
        informer = self._informers.get(key)
        try:
            found = informer.items(wait_seconds) if informer else None
        except KubeError:
            found = None
        return Budget(*key) if found is None else next(iter(found.values()), None)

    def over(self, pod: Pod) -> tuple[Budget, ...]:
        """All budgets that a pod is under; none where they cannot be read."""
        try:
            return self.covering(pod)
        except KubeError:
            return ()

    def covering(self, pod: Pod) -> tuple[Budget, ...]:
        """All budgets that a pod is under; one LIST of its namespace the first time. Raises KubeError."""
        if pod.namespace not in self._namespaces:
            self._namespaces[pod.namespace] = self._all(pod.namespace)
        known = self._namespaces[pod.namespace]
        if isinstance(known, str):
            raise KubeError(known)
        for budget in known:
            if budget.problem:
                raise KubeError(f"the selector of {budget} cannot be read: {budget.problem}")
        return tuple(budget for budget in known if budget.covers(pod))

    def _all(self, namespace: str) -> tuple[Budget, ...] | str:
        """Those of a namespace, or why they cannot be read or kept."""
        found: list[Budget] = []
        kept = self._kept
        try:
            for one in self._kube.within(_CALL_SECONDS).list(PDBS, namespace):
                found.append(budget_of(one))
                kept += kept_bytes(found[-1])
                self._claim.hold(kept)
        except (KubeError, TooLarge) as error:
            self._claim.hold(self._kept)
            return str(error)
        self._kept = kept
        return tuple(found)

    def close(self) -> None:
        """Ends the watches and forgets everything."""
        self._kept = 0
        self._claim.hold(0)
        for informer in self._informers.values():
            informer.close()
        self._informers.clear()
        self._namespaces.clear()

    def _changed(self, _uid: str, budget: Budget | None) -> None:
        if budget is None or budget.allowed:
            self._on_change()


def misconfigured(pod: Pod, budgets: tuple[Budget, ...]) -> str:
    """Why a pod under two budgets can never be evicted."""
    named = join_limited((str(budget) for budget in budgets), characters=160)
    which = f": {named}" if named else ""
    return f"{pod.full_name} matches more than one disruption budget, so it cannot be evicted{which}"


def budget_of(found: Mapping[str, Any]) -> Budget:
    """A budget from its object."""
    meta = found.get("metadata") or {}
    selector, problem = _selector((found.get("spec") or {}).get("selector"))
    status = found.get("status") or {}
    allowed = status.get("disruptionsAllowed")
    is_current = type(allowed) is int and status.get("observedGeneration", 0) >= meta.get("generation", 0)
    return Budget(
        meta.get("namespace", ""),
        meta.get("name", ""),
        _owner(meta),
        selector,
        problem,
        allowed if is_current else None,
        str(meta.get("resourceVersion", "")),
    )


def _owner(meta: Mapping[str, Any]) -> str:
    references = meta.get("ownerReferences") or ()
    for one in sorted(references, key=lambda reference: not reference.get("controller")):
        return sanitize(f"{one.get('kind', '')} {one.get('name', '')}", 100)
    labels = meta.get("labels") or {}
    found = next((labels[name] for name in _OWNER_LABELS if labels.get(name)), "")
    return sanitize(f"app {found}", 100) if found else ""


def _selector(found: object) -> tuple[Selector | None, str]:
    """A budget's selector, or why it cannot be read."""
    try:
        return (None if found is None else from_object(found)), ""
    except ValueError as error:
        return None, sanitize(str(error), 200)
