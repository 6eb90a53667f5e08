"""What blocks reboots cluster-wide: the locks (Leases) and the pause (a ConfigMap) in the agent's namespace.

It refuses to decide from here whether a holder is alive: that takes watching, and remote clocks are only ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.schema import Reboot
from agent.errors import KubeError
from agent.kube import CONFIGMAPS, LEASES, Kube
from agent.plugin.cluster import get_or_none, values
from agent.reboot.blockers.pause import PAUSE, judge
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.kube.views import lease_view
from agent.reboot.lock.pools import LEASE_PREFIX

_NAME = re.compile(re.escape(LEASE_PREFIX) + r"(?P<pool>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)-(?P<slot>[0-9]{1,4})")
_HOLDER_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Lock:
    """One slot of a pool's lock.

    view: the Lease as it is, only for whoever has to swap it. holder: the holder's Node name, empty when free or when
    what stands there is no Node name. acquired, renewed, last_reboot: epoch seconds by the holder's clock, 0 when
    unknown. stuck_by: the waiter that reported the holder as stuck.
    """

    pool: str
    slot: int
    view: LeaseView
    holder: str = ""
    holder_uid: str = ""
    acquired: float = 0.0
    renewed: float = 0.0
    last_reboot: float = 0.0
    stuck_by: str = ""

    @property
    def name(self) -> str:
        """As commands take it: `workers/0`."""
        return f"{self.pool}/{self.slot}"

    @property
    def is_free(self) -> bool:
        """Not held, not even by a name that is malformed."""
        return not self.view.holder

    @property
    def shown_holder(self) -> str:
        """The holder for display, marked where it is no Node name."""
        return self.holder or f"an invalid holder ({values.text(self.view.holder, _HOLDER_CHARACTERS)!r})"

    @property
    def is_rebooting(self) -> bool:
        """The holder may have given the reboot command: its silence is no evidence."""
        return self.view.phase is LeasePhase.REBOOTING

    def is_stuck(self, now: float, policy: Reboot) -> bool:
        """The holder went down and did not come back: a waiter reported it, or its Lease is older than the timeouts.

        The last node of a roll and a pool of one have no waiter, so that age alone has to do.
        """
        if self.is_free:
            return False
        limit = policy.reboot_timeout + policy.verify_timeout
        return bool(self.stuck_by) or (self.is_rebooting and 0 < self.renewed < now - limit)


@dataclass(frozen=True, slots=True)
class Pause:
    """The cluster's pause. active: reboots are blocked, also when `is_known` is False. until: as it is written."""

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


def read_or_problem(kube: Kube, namespace: str) -> tuple[tuple[Lock, ...], str]:
    """The same, and the reason where they cannot be read."""
    try:
        return read(kube, namespace), ""
    except KubeError as error:
        return (), values.text(str(error))


def lock_of(found: Mapping[str, Any]) -> Lock | None:
    """A Lease as a lock; None for a Lease that is not one of ours."""
    view = lease_view(found)
    named = _NAME.fullmatch(view.name)
    if named is None:
        return None
    holder, _, uid = view.holder.rpartition("/")
    return Lock(
        named["pool"],
        int(named["slot"]),
        view,
        holder=values.name(holder),
        holder_uid=values.text(uid, _HOLDER_CHARACTERS),
        acquired=values.timestamp(view.acquired),
        renewed=values.timestamp(view.renewed),
        last_reboot=values.timestamp(view.last_reboot),
        stuck_by=values.text(view.stuck, _HOLDER_CHARACTERS),
    )


def pause(kube: Kube, namespace: str, now: float) -> Pause:
    """The pause as the agents understand it. Never raises KubeError: one that cannot be read blocks reboots."""
    try:
        found = get_or_none(kube, CONFIGMAPS, PAUSE, namespace)
    except KubeError as error:
        return Pause(active=True, sentence=f"unknown: {values.text(str(error))}", is_known=False)
    return pause_of(found, now) if found is not None else Pause(active=False)


def pause_of(found: Mapping[str, Any], now: float) -> Pause:
    """The pause of a ConfigMap. Pure."""
    try:
        active = judge(found, now).blocked
    except (ValueError, OverflowError):  # an end that no calendar has: not understood, so it blocks
        active = True
    data = values.part(found, "data")
    until, reason, by = (values.text(data.get(key)) for key in ("until", "reason", "by"))
    version = values.text(values.part(found, "metadata").get("resourceVersion"))
    sentence = " ".join(one for one in (f"by {by}" if by else "", f"until {until}" if until else "") if one)
    sentence += f": {reason}" if reason else ""
    return Pause(active, sentence, until, reason, by, version=version)
