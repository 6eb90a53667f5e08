"""Which pods of a node have to go before it reboots: kubectl's drain filters, in kubectl's order.

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
from agent.text import parse_rfc3339

_MIRROR = "kubernetes.io/config.mirror"
# https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-unschedulable
_CORDON_TAINT = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True, slots=True)
class Controller:
    """The owner that will make a pod anew."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Pod:
    """What of a pod decides its fate. terminating_since: seconds since the epoch by the server's clock, None: it lives.

    For a pod with a grace period, that moment is the end of the grace period (metadata.deletionTimestamp).
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False
    terminating_since: float | None = None
    mirror: bool = False
    empty_dir: bool = False
    controller: Controller | None = None
    tolerates_cordon: bool = False

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_daemon(self) -> bool:
        """Whether a DaemonSet made it."""
        return self.controller is not None and self.controller.kind == "DaemonSet"


class Fate(Enum):
    """What is to become of a pod. REFUSED: it would have to go, and the policy does not allow it."""

    GO = "go"
    STAY = "stay"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A fate and why, in words for people."""

    fate: Fate
    why: str = ""


_GO = Judgement(Fate.GO)


def judge(pod: Pod, policy: DrainPolicy, now: float, *, daemon_is_there: bool, is_late: bool = False) -> Judgement:
    """A pod's fate. now: seconds since the epoch.

    daemon_is_there: whether the DaemonSet of a live DaemonSet pod exists; of no meaning for others (`asks_daemon`).
    is_late: it came after the drain began.
    """
    skip_wait = policy.skip_wait_for_delete_timeout
    if skip_wait > 0 and pod.terminating_since is not None and now - pod.terminating_since > skip_wait:
        return Judgement(Fate.STAY, "it has been terminating for long")
    if asks_daemon(pod):
        if daemon_is_there:
            return Judgement(Fate.STAY, "its DaemonSet would make it anew")
        if not policy.force:
            return Judgement(Fate.REFUSED, "its DaemonSet is gone, and drain.force is off")
    if pod.mirror:
        return Judgement(Fate.STAY, "a static pod of the kubelet's")
    if is_late and pod.tolerates_cordon:
        return Judgement(Fate.STAY, "it came after the cordon, which it tolerates, and would come again")
    if pod.finished:
        return _GO
    if pod.empty_dir and not policy.delete_empty_dir_data:
        return Judgement(Fate.REFUSED, "it has an emptyDir, and drain.deleteEmptyDirData is off")
    if pod.controller is None and not policy.force:
        return Judgement(Fate.REFUSED, "nothing would make it anew, and drain.force is off")
    return _GO


def asks_daemon(pod: Pod) -> bool:
    """Whether the fate depends on the pod's DaemonSet being there: finished pods of one go anyway."""
    return pod.is_daemon and not pod.finished


def grace_seconds(policy: DrainPolicy) -> int | None:
    """The grace period to ask for, in whole seconds; None leaves it to the pod."""
    return None if policy.grace_period is None else math.ceil(policy.grace_period)


def pod_of(found: Mapping[str, Any]) -> Pod:
    """A pod from its object."""
    meta, spec, status = (found.get(part) or {} for part in ("metadata", "spec", "status"))
    deleted = meta.get("deletionTimestamp")
    return Pod(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        labels=meta.get("labels") or {},
        finished=status.get("phase") in ("Succeeded", "Failed"),
        terminating_since=_epoch_or_now(deleted),
        mirror=_MIRROR in (meta.get("annotations") or {}),
        empty_dir=any("emptyDir" in volume for volume in spec.get("volumes") or ()),
        controller=_controller(meta.get("ownerReferences") or ()),
        tolerates_cordon=any(_tolerates_cordon(one) for one in spec.get("tolerations") or ()),
    )


def _epoch_or_now(text: object) -> float | None:
    if not text:
        return None
    try:
        return parse_rfc3339(str(text))
    except ValueError:
        return math.inf  # terminating since it cannot be told when: waited for


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
