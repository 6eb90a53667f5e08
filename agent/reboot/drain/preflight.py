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
from agent.kube import PODS, Eviction, Kube, Outcome, field_selector
from agent.kube.errors import CallFailed, Stopped, Unauthorized, Unreachable
from agent.reboot.drain.drain import DaemonSets
from agent.reboot.drain.filters import DrainAction, Pod, decide_pod, pod_of
from agent.reboot.drain.pdb import Budget, Budgets, misconfigured
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
    daemonsets = DaemonSets(kube)
    answers = []
    selected = field_selector({"spec.nodeName": node})
    for found in kube.list(PODS, label_selector=str(policy.pod_selector), field_selector=selected):
        pod = pod_of(found, policy)
        decision = decide_pod(pod, policy, daemonset_exists=daemonsets.exists(pod))
        if decision.action is DrainAction.KEEP:
            answers.append(Preflight(pod.full_name, Expected.STAYS, decision.why))
        elif decision.action is DrainAction.REFUSE:
            answers.append(Preflight(pod.full_name, Expected.NEVER, decision.why))
        elif pod.must_finish and not pod.finished:
            answers.append(Preflight(pod.full_name, Expected.WAITS, f"must finish first ({pod.must_finish})"))
        elif ask:
            answers.append(_asked(kube, pod, budgets))
        else:
            is_pending = (found.get("status") or {}).get("phase") == "Pending"
            answers.append(_estimated(pod, budgets, is_pending=is_pending))
    return tuple(sorted(answers, key=lambda answer: answer.pod))


def _estimated(pod: Pod, budgets: Budgets, *, is_pending: bool) -> Preflight:
    """What an eviction would be answered, from the budgets as their controller last wrote them.

    Finished, pending and terminating pods are under no budget. Source: kubernetes
    pkg/registry/core/pod/storage/eviction.go. Which pods are healthy is left out: one that is not may go although its
    budget allows nothing.
    """
    if pod.finished or is_pending or pod.terminating_since is not None:
        return Preflight(pod.full_name, Expected.GOES)
    try:
        covering = budgets.covering(pod)
    except KubeError as error:
        return Preflight(pod.full_name, Expected.UNKNOWN, sanitize(f"its disruption budgets cannot be read: {error}"))
    if len(covering) > 1:
        return _misconfigured(pod, covering)
    if not covering or covering[0].allowed:
        return Preflight(pod.full_name, Expected.GOES)
    if covering[0].allowed is None:
        return Preflight(pod.full_name, Expected.UNKNOWN, "its budget has no status yet", str(covering[0]))
    return Preflight(pod.full_name, Expected.WAITS, "its budget allows no disruption now", str(covering[0]))


def _misconfigured(pod: Pod, covering: tuple[Budget, ...]) -> Preflight:
    return Preflight(pod.full_name, Expected.NEVER, misconfigured(pod, covering), ", ".join(map(str, covering)))


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
            return _misconfigured(pod, budgets.over(pod))
        case Outcome.THROTTLED:
            return Preflight(pod.full_name, Expected.UNKNOWN, "the API server throttles")
        case _:
            return Preflight(pod.full_name, Expected.GOES)
