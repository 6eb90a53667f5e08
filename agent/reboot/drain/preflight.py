"""What a drain of a node would meet, asked without touching anything: dry-run evictions, one a pod.

A dry run spends no disruption budget, so each pod is answered for alone: two pods of one budget that allows a single
disruption both may go, though not at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.config.schema import Drain as DrainPolicy
from agent.kube import PODS, Eviction, Kube, Outcome, field_selector
from agent.kube.errors import CallFailed, Stopped, Unauthorized, Unreachable
from agent.reboot.drain.budgets import Budgets, misconfigured
from agent.reboot.drain.drain import daemon_is_there
from agent.reboot.drain.filters import Fate, Pod, asks_daemon, judge, pod_of
from agent.reboot.words import plain


class Expected(StrEnum):
    """What a drain would do with a pod, or what would keep it from it."""

    GOES = "goes"
    STAYS = "stays"  # a DaemonSet's, a static one: not the drain's business
    WAITS = "waits"  # its disruption budget allows nothing now
    NEVER = "never"  # refused by the policy, by two budgets or by the API server: no waiting mends it
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Preflight:
    """One pod's answer. why: in words, empty where it just goes. budget: `namespace/name (owner)` of what refuses."""

    pod: str
    expected: Expected
    why: str = ""
    budget: str = ""


def preflight(
    kube: Kube, node: str, policy: DrainPolicy, *, wall: Callable[[], float] = time.time
) -> tuple[Preflight, ...]:
    """Every pod of a node with what a drain would meet, by name. One LIST, one request a pod that would have to go.

    Raises KubeError when the pods cannot be listed, or the API server goes away in the middle.
    """
    budgets = Budgets(kube)
    daemons: dict[str, bool] = {}
    answers = []
    selected = field_selector({"spec.nodeName": node})
    for found in kube.list(PODS, label_selector=str(policy.pod_selector), field_selector=selected):
        pod = pod_of(found)
        there = False
        if asks_daemon(pod) and pod.controller is not None:
            if pod.controller.uid not in daemons:
                daemons[pod.controller.uid] = daemon_is_there(kube, pod.namespace, pod.controller)
            there = daemons[pod.controller.uid]
        judgement = judge(pod, policy, wall(), daemon_is_there=there)
        if judgement.fate is Fate.STAY:
            answers.append(Preflight(pod.full_name, Expected.STAYS, judgement.why))
        elif judgement.fate is Fate.REFUSED:
            answers.append(Preflight(pod.full_name, Expected.NEVER, judgement.why))
        else:
            answers.append(_asked(kube, pod, budgets))
    return tuple(sorted(answers, key=lambda answer: answer.pod))


def _asked(kube: Kube, pod: Pod, budgets: Budgets) -> Preflight:
    try:
        return _meaning(pod, kube.evict(pod.name, pod.namespace, uid=pod.uid, dry_run=True), budgets)
    except (Unreachable, Stopped, Unauthorized):
        raise
    except CallFailed as error:
        expected = Expected.UNKNOWN if error.status >= 500 else Expected.NEVER
        return Preflight(pod.full_name, expected, plain(error.message))


def _meaning(pod: Pod, eviction: Eviction, budgets: Budgets) -> Preflight:
    match eviction.outcome:
        case Outcome.BLOCKED:
            budget = str(budgets.named(pod.namespace, eviction.budget)) if eviction.budget else ""
            return Preflight(pod.full_name, Expected.WAITS, plain(eviction.message), budget)
        case Outcome.MISCONFIGURED:
            covering = budgets.over(pod)
            named = ", ".join(str(budget) for budget in covering)
            return Preflight(pod.full_name, Expected.NEVER, misconfigured(pod, covering), named)
        case Outcome.THROTTLED:
            return Preflight(pod.full_name, Expected.UNKNOWN, "the API server throttles")
        case _:
            return Preflight(pod.full_name, Expected.GOES)
