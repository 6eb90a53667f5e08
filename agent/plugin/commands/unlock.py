"""`unlock`: take the reboot lock from a holder that does not come back. The one dangerous command.

What it writes is what an agent writes that gives the lock back, so that every agent understands it: a waiter takes it,
the old holder finishes without it. It refuses a holder that is alive unless forced, and to go by anything but what was
shown: a Lease that changed in between is left alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.errors import AgentError, KubeError, UsageError
from agent.kube import LEASES, NODES
from agent.kube.errors import Conflict, NotFound
from agent.plugin import mutations as changes
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock
from agent.plugin.diagnosis import holder
from agent.plugin.diagnosis.holder import Holder, Life
from agent.plugin.mutations import Change, ChangedMeanwhile, Deed, Told
from agent.plugin.session import Command, Session
from agent.reboot.cluster import NodeView
from agent.reboot.kube.views import lease_body, lease_view, node_view
from agent.reboot.lock.lease import freed, micro_time
from agent.reboot.lock.pools import LEASE_PREFIX

_HEARTBEATS = "kube-node-lease"
_LOOK_EVERY_SECONDS = 1.0


class HolderAlive(AgentError):
    """The holder may still reboot under its lock, and nobody said to take it all the same."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        default="",
        metavar="POOL/SLOT|NODE",
        help="the lock, or its holder; may be left out for one",
    )
    parser.add_argument("--force", action="store_true", help="also from a holder that is alive")
    parser.add_argument(
        "--watch", dest="watch_seconds", type=_seconds, default=None, metavar="SECONDS",
        help="how long to look whether the holder renews it (default: as long as that may take, 30 at most)",
    )  # fmt: skip
    changes.configure(parser, reason="why, kept in the Event and on the Lease")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600 or math.isnan(seconds):
        raise ValueError(text)
    return seconds


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = changes.reason_of(options)
    known = locks.read(session.kube, session.namespace)
    if not options.target and not any(not lock.is_free for lock in known):
        return changes.done(session, "no lock is held", {"locks": len(known)}, changed=False)
    lock = choose(known, options.target)
    if lock.is_free:
        return changes.done(session, f"lock {lock.name} is free", {"lock": lock.name, "holder": ""}, changed=False)
    if not session.yes and session.ask is None and not options.dry_run:
        session.confirm("")  # said before anybody waits for the watch
    seen = _look(session, lock, options.watch_seconds)
    rules = policy.read(session.kube, session.namespace)
    reboot = rules.config.reboot if rules.config is not None else None
    alive = seen.life in (Life.ALIVE, Life.FRESH)
    for fact in holder.facts(seen):
        session.note(fact)
    if alive and not options.force:
        raise HolderAlive(_refusal(seen))
    who = changes.person(session.kube)
    lines = [
        f"RISK: {holder.risk(seen)}",
        f"lease {lock.view.name} in {session.namespace}: holder {lock.view.holder} taken out, free for the next",
        *holder.follows(seen, reboot),
    ]
    change = Change(f"take lock {lock.name} from {lock.holder}", tuple(lines))
    if not changes.agreed(session, change, dry_run=options.dry_run):
        return changes.declined(session)
    _free(session, seen.lock, changes.signed(reason, who), dry_run=options.dry_run)
    _tell(session, seen, who, reason, dry_run=options.dry_run)
    document = {
        "lock": lock.name, "holder": lock.holder, "holderLooks": seen.life.name.lower(), "forced": alive,
        "risk": holder.risk(seen),
    }  # fmt: skip
    text = f"lock {lock.name} is free; {lock.holder} had it"
    return changes.done(session, text, document, changed=True, dry_run=options.dry_run)


def choose(known: Sequence[Lock], target: str) -> Lock:
    """The lock that is meant: by its name, its Lease's or its holder's. Raises UsageError with those that there are."""
    held = [lock for lock in known if not lock.is_free]
    if target:
        named = [
            lock for lock in known if target in (lock.name, lock.view.name, lock.view.name.removeprefix(LEASE_PREFIX))
        ]
        found = named or [lock for lock in held if lock.holder == target]
    else:
        found = held
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{lock.name} held by {lock.holder}" for lock in held) or "no lock is held"
    what = "several locks are held" if found else f"no lock is called {target!r}, and no node of that name holds one"
    raise UsageError(f"{what}: {there}; nothing was changed")


def _look(session: Session, lock: Lock, watch_seconds: float | None) -> Holder:
    """The holder, after its lease was watched; ends early when it is seen alive. Raises KubeError."""
    patience = holder.watch_seconds(lock) if watch_seconds is None else watch_seconds
    if patience and session.live:
        session.note(f"watching for {patience:.0f} s whether {lock.holder} renews it …")
    newest, watched, ends = lock, 0.0, time.monotonic() + patience
    while (rest := ends - time.monotonic()) > 0 and not _has_moved(lock, newest):
        time.sleep(min(_LOOK_EVERY_SECONDS, rest))
        newest = _again(session, lock)
        watched = patience - max(0.0, ends - time.monotonic())
    if newest.view.holder != lock.view.holder:
        raise ChangedMeanwhile(f"lock {lock.name} has left {lock.holder} by itself meanwhile; nothing was done")
    node = _node(session, lock.holder)
    state = fleet.state_of(node.annotations) if node is not None else None
    return Holder(
        newest, node, state, _heartbeat(session, lock.holder), _has_moved(lock, newest), watched, session.now()
    )


def _has_moved(before: Lock, after: Lock) -> bool:
    """Whether the holder wrote. A waiter's mark alone is no sign of its life."""
    return replace(before.view, version="", stuck="") != replace(after.view, version="", stuck="")


def _again(session: Session, lock: Lock) -> Lock:
    try:
        return replace(lock, view=lease_view(session.kube.get(LEASES, lock.view.name, session.namespace)))
    except NotFound as error:
        raise ChangedMeanwhile(f"lock {lock.name} was deleted meanwhile; nothing was done") from error


def _node(session: Session, name: str) -> NodeView | None:
    try:
        return node_view(session.kube.get(NODES, name))
    except NotFound as error:
        if not error.names_object:
            raise
        return None


def _heartbeat(session: Session, name: str) -> float:
    """When the node's kubelet last renewed its own lease; 0 when that cannot be told, which proves nothing."""
    try:
        return locks.moment(lease_view(session.kube.get(LEASES, name, _HEARTBEATS)).renewed)
    except KubeError:
        return 0.0


def _refusal(seen: Holder) -> str:
    lock = seen.lock
    how = "renews it" if seen.life is Life.ALIVE else "renewed it so lately that it counts as alive"
    return (
        f"{lock.holder} {how}; nothing was changed. What it does: kubectl node-hardening why {lock.holder}. "
        f"To have it stop and give the lock back: kubectl node-hardening skip {lock.holder}. "
        "To take the lock all the same: --force"
    )


def _free(session: Session, lock: Lock, signature: str, *, dry_run: bool) -> None:
    """As an agent gives its lock back, with who did it beside it. Raises ChangedMeanwhile, KubeError."""
    now = session.now()
    body: dict[str, Any] = lease_body(freed(lock.view, now), session.namespace)
    body["metadata"]["annotations"][changes.UNLOCKED] = f"{micro_time(now)} from {lock.holder}: {signature}"
    try:
        session.kube.patch(LEASES, lock.view.name, body, session.namespace, manager=changes.MANAGER, dry_run=dry_run)
    except (Conflict, NotFound) as error:
        text = f"lock {lock.name} changed meanwhile: its holder may be alive; nothing was done: look again"
        raise ChangedMeanwhile(text) from error


def _tell(session: Session, seen: Holder, who: str, reason: str, *, dry_run: bool) -> None:
    """On the Lease, and on the holder's Node, where people look."""
    lock = seen.lock
    looked = {Life.GONE: "gone", Life.ALIVE: "alive (forced)", Life.FRESH: "alive (forced)", Life.SILENT: "silent"}
    why = f": {reason}" if reason else ""
    text = f"{who} took lock {lock.name} from {lock.holder}, which was {looked[seen.life]}{why}"
    about = [Told(Deed.REBOOT_LOCK_FREED, text, LEASES, lock.view.name, session.namespace)]
    if seen.life is not Life.GONE:
        about.append(Told(Deed.REBOOT_LOCK_FREED, text, NODES, lock.holder))
    for told in about:
        changes.tell(session, told, who=who, dry_run=dry_run)


COMMAND = Command("unlock", "take the reboot lock from a holder that does not come back (dangerous)", _configure, _run)
