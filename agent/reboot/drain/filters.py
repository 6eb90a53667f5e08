"""Which pods of a node have to go before it reboots, and in which order: kubectl's drain filters, in kubectl's order.

Pure. Source: kubernetes staging/src/k8s.io/kubectl/pkg/drain/filters.go. One thing is added: a pod that arrives while
the node is being drained and tolerates the cordon would come back after every eviction, so it stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agent.config.schema import Drain as DrainPolicy
from agent.text import format_rfc3339, join_limited, parse_rfc3339

_MIRROR = "kubernetes.io/config.mirror"
# https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-unschedulable
_CORDON_TAINT = "node.kubernetes.io/unschedulable"
# What the kubelet's graceful shutdown calls critical. Source: kubernetes pkg/apis/scheduling/types.go.
_SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Controller:
    """The owner that recreates a pod."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Pod:
    """What of a pod decides what becomes of it.

    terminating_since: when its deletion was requested, seconds since the epoch by the server's clock, for display only;
    None while it lives, inf when unreadable. grace_seconds: of that deletion. evict_last: critical and storage pods.
    must_finish: why it has to finish by itself, empty when it may be evicted. claims: its PersistentVolumeClaims.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False
    terminating_since: float | None = None
    grace_seconds: float = 0.0
    finalizers: tuple[str, ...] = ()
    mirror: bool = False
    empty_dir: bool = False
    controller: Controller | None = None
    tolerates_cordon: bool = False
    evict_last: bool = False
    must_finish: str = ""
    claims: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def owner(self) -> tuple[str, str]:
        """Equal for the pods of one controller, and for a pod that is recreated under its own name."""
        return self.namespace, self.controller.uid if self.controller else self.name


class DrainAction(Enum):
    """What happens to a pod. REFUSE: it would have to go, and the policy does not allow it."""

    EVICT = "evict"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class DrainDecision:
    """What happens to a pod and why, as text for users."""

    action: DrainAction
    why: str = ""


_EVICT = DrainDecision(DrainAction.EVICT)


def decide_pod(
    pod: Pod, policy: DrainPolicy, *, daemonset_exists: bool, terminating_seconds: float = 0.0, is_late: bool = False
) -> DrainDecision:
    """What happens to a pod.

    daemonset_exists: whether the DaemonSet of a live DaemonSet pod exists; ignored for others (`depends_on_daemonset`).
    terminating_seconds: how long the caller has seen it terminate, by its own monotonic clock. is_late: it arrived
    after the drain began.
    """
    skip_wait = policy.skip_wait_for_delete_timeout
    if skip_wait > 0 and pod.terminating_since is not None and terminating_seconds > skip_wait:
        return DrainDecision(DrainAction.KEEP, "terminating for longer than drain.skipWaitForDeleteTimeout")
    if depends_on_daemonset(pod):
        if daemonset_exists:
            return DrainDecision(DrainAction.KEEP, "managed by a DaemonSet (ignored)")
        if not policy.force:
            return DrainDecision(DrainAction.REFUSE, "its DaemonSet is gone, and drain.force is off")
    if pod.mirror:
        return DrainDecision(DrainAction.KEEP, "static pod (ignored)")
    if is_late and pod.tolerates_cordon:
        return DrainDecision(DrainAction.KEEP, "arrived after the cordon, which it tolerates (ignored)")
    if pod.finished:
        return _EVICT
    if pod.empty_dir and not policy.delete_empty_dir_data:
        return DrainDecision(DrainAction.REFUSE, "it has an emptyDir, and drain.deleteEmptyDirData is off")
    if pod.controller is None and not policy.force:
        return DrainDecision(DrainAction.REFUSE, "no controller recreates it, and drain.force is off")
    return _EVICT


def depends_on_daemonset(pod: Pod) -> bool:
    """Whether the decision depends on the pod's DaemonSet: finished pods of one are evicted anyway."""
    return pod.controller is not None and pod.controller.kind == "DaemonSet" and not pod.finished


def requested_grace(policy: DrainPolicy) -> int | None:
    """The grace period to ask for, in whole seconds; None leaves it to the pod."""
    return None if policy.grace_period is None else math.ceil(policy.grace_period)


def describe_termination(pod: Pod) -> str:
    """`Terminating since 2030-01-31T22:00:00Z, finalizer example.com/hold`."""
    since = pod.terminating_since
    text = "Terminating" if since is None or math.isinf(since) else f"Terminating since {format_rfc3339(since)}"
    if not pod.finalizers:
        return text
    return f"{text}, finalizer{'s' if len(pod.finalizers) > 1 else ''} {join_limited(pod.finalizers, 3)}"


def pod_of(found: Mapping[str, Any], policy: DrainPolicy) -> Pod:
    """A pod from its object. policy: decides which pods are evicted last, and which have to finish."""
    meta, spec, status = (found.get(part) or {} for part in ("metadata", "spec", "status"))
    labels = meta.get("labels") or {}
    grace = meta.get("deletionGracePeriodSeconds")
    grace = float(grace) if isinstance(grace, int) else 0.0
    priority = spec.get("priority")
    is_critical = isinstance(priority, int) and priority >= _SYSTEM_CRITICAL_PRIORITY
    return Pod(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        labels=labels,
        finished=status.get("phase") in ("Succeeded", "Failed"),
        terminating_since=_deletion_requested(meta.get("deletionTimestamp"), grace),
        grace_seconds=grace,
        finalizers=tuple(meta.get("finalizers") or ()),
        mirror=_MIRROR in (meta.get("annotations") or {}),
        empty_dir=any("emptyDir" in volume for volume in spec.get("volumes") or ()),
        controller=_controller(meta.get("ownerReferences") or ()),
        tolerates_cordon=any(_tolerates_cordon(one) for one in spec.get("tolerations") or ()),
        evict_last=is_critical or any(selector.matches(labels) for selector in policy.evict_last),
        must_finish=_must_finish(labels, meta.get("annotations") or {}, policy),
        claims=tuple(_claims(meta.get("name", ""), spec)),
    )


def _must_finish(labels: Mapping[str, str], annotations: Mapping[str, str], policy: DrainPolicy) -> str:
    wait = policy.wait_for
    selector = next((one for one in wait.pods if one.matches(labels)), None)
    if selector is not None:
        return f"label selector {selector}"
    found = next((key for key, text in wait.annotations.items() if annotations.get(key) == text), None)
    return f"annotation {found}" if found else ""


def _claims(name: str, spec: Mapping[str, Any]) -> list[str]:
    """https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#persistentvolumeclaim-naming."""
    found = []
    for volume in spec.get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if isinstance(claim, dict):
            found.append(str(claim.get("claimName", "")))
        elif "ephemeral" in volume:
            found.append(f"{name}-{volume.get('name', '')}")
    return found


def _deletion_requested(text: object, grace_seconds: float) -> float | None:
    """metadata.deletionTimestamp is the end of the grace period."""
    if not text:
        return None
    try:
        return parse_rfc3339(str(text)) - grace_seconds
    except ValueError:
        return math.inf


def _controller(references: Any) -> Controller | None:
    for one in references:
        if one.get("controller"):
            return Controller(one.get("kind", ""), one.get("name", ""), one.get("uid", ""))
    return None


def _tolerates_cordon(toleration: Mapping[str, Any]) -> bool:
    """Source: kubernetes pkg/scheduler/framework/plugins/nodeunschedulable, core/v1/helper ToleratesTaint."""
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        return False
    exists = toleration.get("operator") == "Exists"
    name = toleration.get("key") or ""
    if not name:
        return exists
    return name == _CORDON_TAINT and (exists or not toleration.get("value"))
