"""The only access to the API server: credentials, requests, watches and evictions, behind one small interface.

    access = find(os.environ)                                   # in-cluster, or a kubeconfig
    kube = Kube(access, node="worker-1")
    node = kube.get(NODES, "worker-1")
    for pod in kube.list(PODS, field_selector=field_selector({"spec.nodeName": "worker-1"})): ...

It refuses to know the host (exec plugins run through a callable that is passed in) and to know what the objects mean.
"""

from __future__ import annotations

from agent.kube.access import find
from agent.kube.client import FIELD_MANAGER, Kube, Object, Patch
from agent.kube.credentials import Access
from agent.kube.eviction import Eviction, Outcome
from agent.kube.request import ClientContext, RequestMetric
from agent.kube.resources import (
    ACCESS_REVIEWS,
    CONFIGMAPS,
    DAEMONSETS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PDBS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
    Resource,
    field_selector,
)
from agent.kube.retry import RetryPolicy
from agent.kube.watch import Change, EventType, Informer, Listing, Watch

__all__ = [
    "ACCESS_REVIEWS",
    "CONFIGMAPS",
    "DAEMONSETS",
    "EVENTS",
    "FIELD_MANAGER",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PDBS",
    "PERSISTENT_VOLUMES",
    "PODS",
    "VOLUME_ATTACHMENTS",
    "Access",
    "Change",
    "ClientContext",
    "EventType",
    "Eviction",
    "Informer",
    "Kube",
    "Listing",
    "Object",
    "Outcome",
    "Patch",
    "RequestMetric",
    "Resource",
    "RetryPolicy",
    "Watch",
    "field_selector",
    "find",
]
