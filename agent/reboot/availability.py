"""Which nodes count in a pool's unavailability budget, and which are about to be removed. Pure.

A node that an autoscaler removes is as good as gone although it is Ready and schedulable: it counts as unavailable, and
does not take the reboot lock. A node that cannot run this agent (Windows, virtual) is in no pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/utils/taints/taints.go
# https://karpenter.sh/docs/concepts/disruption/ (karpenter.sh/disruption before v1)
# https://kubernetes.io/docs/reference/labels-annotations-taints/ (shutdown, out-of-service)
_REMOVAL_TAINTS = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
    }
)
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")
# https://virtual-kubelet.io/docs/architecture/, https://docs.aws.amazon.com/eks/latest/userguide/fargate.html
_VIRTUAL_LABELS = {"type": "virtual-kubelet", "eks.amazonaws.com/compute-type": "fargate"}
_VIRTUAL_TAINT = "virtual-kubelet.io/provider"


def removal_reason(node: Mapping[str, Any]) -> str:
    """Why a Node object is about to go away, such as `taint karpenter.sh/disrupted`; empty when it is not."""
    if _part(node, "metadata").get("deletionTimestamp"):
        return "the Node is being deleted"
    found = next((key for key in _taint_keys(node) if key in _REMOVAL_TAINTS), "")
    return f"taint {found}" if found else ""


def runs_agent(node: Mapping[str, Any]) -> bool:
    """Whether this agent can run there at all: a real machine with Linux, as far as the Node object shows."""
    labels = _part(_part(node, "metadata"), "labels")
    reported = _part(_part(node, "status"), "nodeInfo").get("operatingSystem")
    if any(found not in (None, "", "linux") for found in (reported, *map(labels.get, _OS_LABELS))):
        return False
    is_virtual = any(labels.get(key) == text for key, text in _VIRTUAL_LABELS.items())
    return not is_virtual and _VIRTUAL_TAINT not in _taint_keys(node)


def _taint_keys(node: Mapping[str, Any]) -> Iterable[str]:
    taints = _part(node, "spec").get("taints")
    found = [taint.get("key") for taint in taints if isinstance(taint, dict)] if isinstance(taints, list) else []
    return [key for key in found if isinstance(key, str)]


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}
