"""Which nodes wait for each other, how their lock is called, and how many of them may be unavailable.

Pure. The control plane, etcd's own nodes among it, is always a pool of its own. It refuses to count a node whose
readiness is unknown as available.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from agent.config.schema import Pool, Reboot
from agent.reboot.cluster import NodeView
from agent.reboot.machine.inputs import Budget
from agent.text import join_limited

CONTROL_PLANE = "control-plane"
WORKERS = "workers"
LEASE_PREFIX = "node-hardening-reboot-"

# https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane
# https://docs.rke2.io/install/server_roles: nodes of etcd alone are as critical.
_CONTROL_PLANE_LABELS = tuple(f"node-role.kubernetes.io/{role}" for role in ("control-plane", "master", "etcd"))
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")


def pool_of(labels: Mapping[str, str], pool: Pool) -> str:
    """The name of a node's pool, fit for a Lease's name; values that differ never share one."""
    if any(label in labels for label in _CONTROL_PLANE_LABELS):
        return CONTROL_PLANE
    value = labels.get(pool.label, "") if pool.label else ""
    if not value:
        return WORKERS
    plain = _NOT_IN_NAMES.sub("-", value.lower()).strip("-")
    if plain == value and value != CONTROL_PLANE:
        return value
    return f"{plain}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def lease_names(pool: str, slots: int) -> tuple[str, ...]:
    """The leases of a pool's lock, predictable so that RBAC can name them."""
    return tuple(f"{LEASE_PREFIX}{pool}-{slot}" for slot in range(slots))


def usable_slots(policy: Reboot, pool: str) -> int:
    """Slots that can be used at all: with more than may be unavailable, nodes would only wait for each other.

    The control plane has its own number, 1 unless `pool.controlPlaneMaxUnavailable` is set: what suits a fleet
    of workers must not cost etcd its quorum.
    """
    if pool == CONTROL_PLANE:
        return policy.pool.control_plane_max_unavailable
    limit = policy.max_unavailable
    return policy.concurrency if limit.endswith("%") else min(policy.concurrency, int(limit))


def allowed_unavailable(policy: Reboot, pool: str, size: int) -> int:
    """`maxUnavailable` for a pool of this size: a count, or a percentage rounded down, but at least one.

    Of a control plane never more than etcd tolerates with one member a node: https://etcd.io/docs/v3.5/faq/
    """
    if pool == CONTROL_PLANE:
        return max(1, min(policy.pool.control_plane_max_unavailable, (size - 1) // 2))
    limit = policy.max_unavailable
    return max(1, size * int(limit[:-1]) // 100) if limit.endswith("%") else int(limit)


def budget(members: Iterable[NodeView], me: str, policy: Reboot, pool: str, holders: Iterable[str]) -> Budget:
    """Whether this node may become unavailable too.

    Counted are nodes of the pool that are not Ready, cordoned by any user or about to be removed, and those that hold
    another slot; this node itself once. members: the whole cluster, read once. holders: of the other slots, `name/uid`;
    one whose Node is gone is not counted.
    """
    size = 0
    unavailable = set()
    about_to_be = frozenset(holders)
    for member in members:
        if not member.runs_agent or pool_of(member.labels, policy.pool) != pool:
            continue
        size += 1
        is_going = bool(member.removal) or f"{member.name}/{member.uid}" in about_to_be
        is_down = not member.ready or member.unschedulable or is_going
        if is_down and member.name != me:
            unavailable.add(member.name)
    allowed = allowed_unavailable(policy, pool, size)
    limit = str(allowed) if pool == CONTROL_PLANE else policy.max_unavailable
    why = f"maxUnavailable {limit} of {size} nodes: {join_limited(sorted(unavailable)) or 'none'} unavailable"
    return Budget(len(unavailable) + 1 <= allowed, why, size, min(usable_slots(policy, pool), allowed))
