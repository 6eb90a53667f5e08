"""What a drain of a node would meet, without touching anything: dry-run evictions, one a pod.

A dry run spends no disruption budget, so each pod is answered for alone: two pods of one budget that allows a single
disruption both may go, though not together. RBAC does not distinguish a dry run from an eviction, so that a reader gets
an estimate from the budgets' own status instead, unknown where a budget has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.config.schema import Drain as DrainPolicy
from agent.errors import KubeError
from agent.kube import PDBS, PODS, Eviction, Kube, Outcome, field_selector
from agent.kube.errors import CallFailed, Stopped, Unauthorized, Unreachable
from agent.reboot.drain.drain import daemonset_exists
from agent.reboot.drain.filters import DrainAction, Pod, decide_pod, depends_on_daemonset, pod_of
from agent.reboot.drain.pdb import Budget, Budgets, budget_of, misconfigured
from agent.text import sanitize


class Expected(StrEnum):
    """What a drain would do with a pod, or what would keep it from it."""

    GOES = "goes"
    STAYS = "stays"  # a DaemonSet's, a static one: not the drain's business
    WAITS = "waits"  # its disruption budget allows nothing now
    NEVER = "never"  # refused by the policy, by two budgets or by the API server: waiting does not help
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Preflight:
    """One pod's answer. why: in words, empty where it just goes. budget: `namespace/name (owner)` of what refuses."""

    pod: str
    expected: Expected
    why: str = ""
    budget: str = ""


def preflight(kube: Kube, node: str, policy: DrainPolicy, *, ask: bool = True) -> tuple[Preflight, ...]:
    """Every pod of a node with what a drain would meet, by name. One LIST, one request a pod that would have to go.

    ask: without, no eviction is tried; one LIST of budgets a namespace. Raises KubeError when the pods cannot be
    listed, or the API server becomes unreachable meanwhile.
    """
    budgets = Budgets(kube)
    estimate = Estimate(kube)
    daemonsets: dict[str, bool] = {}
    answers = []
    selected = field_selector({"spec.nodeName": node})
    for found in kube.list(PODS, label_selector=str(policy.pod_selector), field_selector=selected):
        pod = pod_of(found, policy)
        exists = False
        if depends_on_daemonset(pod) and pod.controller is not None:
            if pod.controller.uid not in daemonsets:
                daemonsets[pod.controller.uid] = daemonset_exists(kube, pod.namespace, pod.controller)
            exists = daemonsets[pod.controller.uid]
        decision = decide_pod(pod, policy, daemonset_exists=exists)
        if decision.action is DrainAction.KEEP:
            answers.append(Preflight(pod.full_name, Expected.STAYS, decision.why))
        elif decision.action is DrainAction.REFUSE:
            answers.append(Preflight(pod.full_name, Expected.NEVER, decision.why))
        elif pod.must_finish and not pod.finished:
            answers.append(Preflight(pod.full_name, Expected.WAITS, f"must finish first ({pod.must_finish})"))
        elif ask:
            answers.append(_asked(kube, pod, budgets))
        else:
            answers.append(estimate.of(pod, is_pending=(found.get("status") or {}).get("phase") == "Pending"))
    return tuple(sorted(answers, key=lambda answer: answer.pod))


class Estimate:
    """What an eviction would be answered, from the budgets as their controller last wrote them.

    Source: kubernetes pkg/registry/core/pod/storage/eviction.go. Which pods are healthy is left out: one that is not
    may go although its budget allows nothing.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._namespaces: dict[str, tuple[Budget, ...] | KubeError] = {}

    def of(self, pod: Pod, *, is_pending: bool) -> Preflight:
        """One pod's answer; finished, pending and terminating pods are under no budget."""
        if pod.finished or is_pending or pod.terminating_since is not None:
            return Preflight(pod.full_name, Expected.GOES)
        known = self._budgets(pod.namespace)
        if isinstance(known, KubeError):
            return Preflight(
                pod.full_name, Expected.UNKNOWN, sanitize(f"its disruption budgets cannot be read: {known}")
            )
        covering = tuple(budget for budget in known if budget.covers(pod))
        if len(covering) > 1:
            named = ", ".join(str(budget) for budget in covering)
            return Preflight(pod.full_name, Expected.NEVER, misconfigured(pod, covering), named)
        if not covering or covering[0].allowed:
            return Preflight(pod.full_name, Expected.GOES)
        if covering[0].allowed is None:
            return Preflight(pod.full_name, Expected.UNKNOWN, "its budget has no status yet", str(covering[0]))
        return Preflight(pod.full_name, Expected.WAITS, "its budget allows no disruption now", str(covering[0]))

    def _budgets(self, namespace: str) -> tuple[Budget, ...] | KubeError:
        if namespace not in self._namespaces:
            try:
                found = tuple(budget_of(one) for one in self._kube.list(PDBS, namespace))
            except KubeError as error:
                self._namespaces[namespace] = error
            else:
                self._namespaces[namespace] = found
        return self._namespaces[namespace]


def _asked(kube: Kube, pod: Pod, budgets: Budgets) -> Preflight:
    try:
        return _meaning(pod, kube.evict(pod.name, pod.namespace, uid=pod.uid, dry_run=True), budgets)
    except (Unreachable, Stopped, Unauthorized):
        raise
    except CallFailed as error:
        expected = Expected.UNKNOWN if error.status >= 500 else Expected.NEVER
        return Preflight(pod.full_name, expected, sanitize(error.message))


def _meaning(pod: Pod, eviction: Eviction, budgets: Budgets) -> Preflight:
    match eviction.outcome:
        case Outcome.BLOCKED:
            found = next((one for one in budgets.over(pod) if one.name == eviction.budget), None)
            budget = str(found or f"{pod.namespace}/{eviction.budget}") if eviction.budget else ""
            return Preflight(pod.full_name, Expected.WAITS, sanitize(eviction.message), budget)
        case Outcome.DENIED:
            return Preflight(pod.full_name, Expected.WAITS, sanitize(eviction.message))
        case Outcome.MISCONFIGURED:
            covering = budgets.over(pod)
            named = ", ".join(str(budget) for budget in covering)
            return Preflight(pod.full_name, Expected.NEVER, misconfigured(pod, covering), named)
        case Outcome.THROTTLED:
            return Preflight(pod.full_name, Expected.UNKNOWN, "the API server throttles")
        case _:
            return Preflight(pod.full_name, Expected.GOES)
