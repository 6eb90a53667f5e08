"""`unlock`: take the reboot lock from a holder that does not come back. The one dangerous command.

It writes what an agent writes that releases the lock, so that every agent understands it: a waiting node takes it, the
old holder finishes without it. Values that no agent would have written do not survive it. It refuses a holder that is
alive unless forced, and to act on anything but what was shown: a Lease that changed in between is left alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.annotations import LOCK_UNLOCKED
from agent.errors import AgentError, KubeError, UsageError
from agent.kube import LEASES, NODES
from agent.kube.errors import Conflict, NotFound
from agent.plugin import mutations
from agent.plugin.cluster import get_or_none, locks, nodes, policy, values
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis import holder
from agent.plugin.diagnosis.advice import command
from agent.plugin.diagnosis.holder import Holder, HolderLiveness
from agent.plugin.mutations import AuditEvent, AuditReason, ChangedMeanwhile
from agent.plugin.session import Command, Session
from agent.reboot.cluster import LeaseView
from agent.reboot.kube.views import lease_body, lease_view, node_view
from agent.reboot.lock.lease import freed, micro_time
from agent.reboot.lock.pools import LEASE_PREFIX

_HEARTBEATS = "kube-node-lease"
_READ_EVERY_SECONDS = 1.0
_LONGEST_WATCH_SECONDS = 3600.0
_TRANSITIONS = 1e6  # more hand-overs than a lock will ever see
_POOL_SIZE = 1e5


class HolderAlive(AgentError):
    """The holder may still reboot under its lock, and --force was not passed."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        default="",
        metavar="POOL/SLOT|NODE",
        help="the lock, or its holder; optional if only one is held",
    )
    parser.add_argument("--force", action="store_true", help="also from a holder that is alive")
    parser.add_argument(
        "--watch", dest="watch_seconds", type=_seconds, default=None, metavar="SECONDS",
        help="how long to watch whether the holder renews it (default: as long as that may take, 30 at most)",
    )  # fmt: skip
    mutations.configure(parser, reason="why; kept in the Event and on the Lease")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_WATCH_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {_LONGEST_WATCH_SECONDS:.0f}")
    return seconds


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = mutations.reason_of(options)
    known = locks.read(session.kube, session.namespace)
    if not options.target and all(lock.is_free for lock in known):
        return mutations.done(session, "no lock is held", {"locks": len(known)}, changed=False)
    lock = choose(known, options.target)
    if lock.is_free:
        return mutations.done(session, f"lock {lock.name} is free", {"lock": lock.name, "holder": ""}, changed=False)
    if not session.yes and session.ask is None and not session.dry_run:
        session.confirm("")  # raises before the user waits for the watch
    rules = policy.read(session.kube, session.namespace)
    seen = _watch(session, lock, rules, options.watch_seconds)
    for fact in holder.facts(seen):
        session.note(fact)
    alive = seen.liveness in (HolderLiveness.ALIVE, HolderLiveness.FRESH)
    if alive and not options.force:
        raise HolderAlive(_refusal(seen))
    lines = [
        f"RISK: {holder.risk(seen)}",
        f"lease {lock.view.name} in {session.namespace}: holder {lock.shown_holder} removed, free for the next node",
        *holder.follows(seen, rules.config.reboot if rules.config is not None else None),
    ]
    if not mutations.confirmed(session, f"take lock {lock.name} from {lock.shown_holder}", lines):
        return mutations.declined(session)
    _free(session, seen.lock, mutations.signed(reason, session.user))
    _record(session, seen, reason)
    document = {
        "lock": lock.name, "holder": lock.holder or None, "holderIs": seen.liveness.name.lower(), "forced": alive,
        "risk": holder.risk(seen),
    }  # fmt: skip
    text = f"lock {lock.name} is free; it was held by {lock.shown_holder}"
    return mutations.done(session, text, document, changed=True)


def choose(known: Sequence[Lock], target: str) -> Lock:
    """The lock that is meant: by its name, its Lease's or its holder's. Raises UsageError that lists the held ones."""
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
    there = ", ".join(f"{lock.name} held by {lock.shown_holder}" for lock in held) or "no lock is held"
    what = "several locks are held" if found else f"no lock and no holder is called {values.text(target, 80)!r}"
    raise UsageError(f"{what}: {there}; nothing was changed")


def _watch(session: Session, lock: Lock, rules: Policy, seconds: float | None) -> Holder:
    """The holder, after its Lease was watched; ends early when it is seen alive. Raises KubeError."""
    limit = holder.watch_seconds(lock) if seconds is None else seconds
    if limit and session.live:
        session.note(f"watching for {limit:.0f}s whether {lock.shown_holder} renews it …")
    newest, watched, ends = lock, 0.0, time.monotonic() + limit
    while (rest := ends - time.monotonic()) > 0 and not _has_changed(lock, newest):
        time.sleep(min(_READ_EVERY_SECONDS, rest))
        newest = _again(session, lock)
        watched = limit - max(0.0, ends - time.monotonic())
    if newest.view.holder != lock.view.holder:
        raise ChangedMeanwhile(f"{lock.shown_holder} does not hold lock {lock.name} any more; nothing was done")
    changed = _has_changed(lock, newest)
    node, boot_id = None, ""
    if found := get_or_none(session.kube, NODES, lock.holder) if lock.holder else None:
        node, boot_id = nodes.row(found, rules.pool), node_view(found).boot_id
    heartbeat = _heartbeat(session, lock.holder) if node is not None else 0.0
    return Holder(newest, node, boot_id, heartbeat, changed, watched, session.now())


def _has_changed(before: Lock, after: Lock) -> bool:
    """Whether the holder wrote. A waiter's mark alone is no sign of its life."""
    return replace(before.view, version="", stuck="") != replace(after.view, version="", stuck="")


def _again(session: Session, lock: Lock) -> Lock:
    try:
        found = locks.lock_of(session.kube.get(LEASES, lock.view.name, session.namespace))
    except NotFound as error:
        raise ChangedMeanwhile(f"lock {lock.name} was deleted meanwhile; nothing was done") from error
    return found or lock


def _heartbeat(session: Session, name: str) -> float:
    """When the node's kubelet last renewed its own Lease; 0 when unknown, which is no evidence of anything."""
    try:
        return values.timestamp(lease_view(session.kube.get(LEASES, name, _HEARTBEATS)).renewed)
    except KubeError:
        return 0.0


def _refusal(seen: Holder) -> str:
    name = seen.lock.holder
    how = "renews it" if seen.liveness is HolderLiveness.ALIVE else "renewed it so recently that it counts as alive"
    return (
        f"{name} {how}; nothing was changed. What it does: {command('why', name)}. "
        f"To make it abort and release the lock: {command('skip', name)}. To take the lock regardless: --force"
    )


def _free(session: Session, lock: Lock, signature: str) -> None:
    """As an agent releases its lock, with who did it beside it. Raises ChangedMeanwhile, KubeError."""
    now = session.now()
    body: dict[str, Any] = lease_body(freed(healed(lock), now), session.namespace)
    body["metadata"]["annotations"][LOCK_UNLOCKED] = f"{micro_time(now)} from {lock.shown_holder}: {signature}"
    try:
        session.kube.patch(
            LEASES, lock.view.name, body, session.namespace, manager=mutations.MANAGER, dry_run=session.dry_run
        )
    except (Conflict, NotFound) as error:
        text = f"lock {lock.name} changed meanwhile: its holder may be alive; nothing was done: check again"
        raise ChangedMeanwhile(text) from error


def healed(lock: Lock) -> LeaseView:
    """The Lease with what an agent may have written: anything else is back at its start. Pure."""
    view = lock.view
    return replace(
        view,
        transitions=int(values.number(view.transitions, _TRANSITIONS)),
        duration_seconds=int(holder.duration_seconds(lock)),
        last_reboot=lock.last_reboot,
        pool_size=int(values.number(view.pool_size, _POOL_SIZE)),
        waited=values.number(view.waited),
        acquired=view.acquired if lock.acquired else "",
        renewed=view.renewed if lock.renewed else "",
    )


def _record(session: Session, seen: Holder, reason: str) -> None:
    """On the Lease, and on the holder's Node, where users look."""
    lock = seen.lock
    was = {HolderLiveness.GONE: "gone", HolderLiveness.SILENT: "silent"}.get(seen.liveness, "alive (forced)")
    action = f"took lock {lock.name} from {lock.shown_holder}, which was {was}"
    about = [(LEASES, lock.view.name, session.namespace)]
    if seen.liveness is not HolderLiveness.GONE:
        about.append((NODES, lock.holder, ""))
    for where in about:
        mutations.record(session, AuditEvent(AuditReason.REBOOT_LOCK_FORCE_RELEASED, action, reason, *where))


COMMAND = Command("unlock", "take the reboot lock from a holder that does not come back (dangerous)", _configure, _run)
