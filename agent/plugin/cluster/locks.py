"""Who holds what back: the reboot locks (Leases) and the cluster's pause (a ConfigMap), as they lie in the namespace.

It refuses to judge from here whether a holder is alive: that takes watching, and remote clocks are only ever shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import KubeError
from agent.kube import CONFIGMAPS, LEASES, Kube
from agent.kube.errors import NotFound
from agent.reboot.blockers.pause import PAUSE, judge
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.kube.views import lease_view
from agent.reboot.lock.pools import LEASE_PREFIX
from agent.text import parse_rfc3339


@dataclass(frozen=True, slots=True)
class Lock:
    """One slot of a pool's lock. view: the Lease, its version included, for whoever has to swap it."""

    pool: str
    slot: int
    view: LeaseView

    @property
    def name(self) -> str:
        """As people type it: `workers/0`."""
        return f"{self.pool}/{self.slot}"

    @property
    def is_free(self) -> bool:
        """Nobody holds it."""
        return not self.view.holder

    @property
    def holder(self) -> str:
        """The holder's node name, empty when free."""
        return self.view.holder.rpartition("/")[0]

    @property
    def holder_uid(self) -> str:
        """The UID of the Node that took it: another Node of that name is not the holder."""
        return self.view.holder.rpartition("/")[2]

    @property
    def acquired(self) -> float:
        """Epoch seconds by the holder's clock, 0 when unknown."""
        return moment(self.view.acquired)

    @property
    def renewed(self) -> float:
        """Epoch seconds by the holder's clock, 0 when unknown."""
        return moment(self.view.renewed)

    @property
    def is_stuck(self) -> bool:
        """A waiter has said that the holder went down to reboot and does not come back."""
        return bool(self.view.stuck) and not self.is_free

    @property
    def is_rebooting(self) -> bool:
        """The holder may have given the reboot command: its silence proves nothing."""
        return self.view.phase is LeasePhase.REBOOTING


@dataclass(frozen=True, slots=True)
class Pause:
    """The cluster's pause. active: reboots are held back, also when `is_known` is False. until: as it is written."""

    active: bool
    sentence: str = ""
    until: str = ""
    reason: str = ""
    by: str = ""
    is_known: bool = True
    version: str = ""  # of the ConfigMap, empty when there is none


def read(kube: Kube, namespace: str) -> tuple[Lock, ...]:
    """Every lock of the namespace, by pool and slot. Raises KubeError."""
    found = (lock_of(one) for one in kube.list(LEASES, namespace))
    return tuple(sorted((lock for lock in found if lock is not None), key=lambda lock: (lock.pool, lock.slot)))


def lock_of(found: Mapping[str, Any]) -> Lock | None:
    """A Lease as a lock; None for a Lease that is none of ours."""
    seen = lease_view(found)
    pool, _, slot = seen.name.removeprefix(LEASE_PREFIX).rpartition("-")
    if not seen.name.startswith(LEASE_PREFIX) or not pool or not slot.isdecimal():
        return None
    return Lock(pool, int(slot), seen)


def pause(kube: Kube, namespace: str, now: float) -> Pause:
    """The pause as the agents understand it. Never raises KubeError: one that cannot be read holds reboots back."""
    try:
        found = kube.get(CONFIGMAPS, PAUSE, namespace)
    except NotFound:
        return Pause(active=False)
    except KubeError as error:
        return Pause(active=True, sentence=f"the cluster's pause cannot be told: {error}", is_known=False)
    return pause_of(found, now)


def pause_of(found: Mapping[str, Any], now: float) -> Pause:
    """What a ConfigMap says. Pure."""
    verdict = judge(found, now)
    data = found.get("data")
    data = data if isinstance(data, dict) else {}
    until, reason, by = (str(data.get(key) or "") for key in ("until", "reason", "by"))
    version = str((found.get("metadata") or {}).get("resourceVersion") or "")
    return Pause(verdict.blocked, verdict.by, until, reason, by, version=version)


def moment(text: str) -> float:
    """Epoch seconds of an RFC 3339 time, 0 for none."""
    try:
        return parse_rfc3339(text)
    except ValueError:
        return 0.0
