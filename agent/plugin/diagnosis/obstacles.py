"""What blocks one reboot, each with its next step; and what would block it after that.

Pure. By the status that the agent published, as far as the live objects (opt-out, locks, windows, pause) still agree.
It refuses to give advice that the agent would not honour: nothing here goes round a window, a budget or the lock.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from agent.config.schema import Reboot
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.node_context import NodeContext
from agent.plugin.diagnosis.advice import Advice, command, kubectl
from agent.plugin.views import table
from agent.reboot.blockers.window import is_open, next_opening, zone
from agent.reboot.lock.pools import usable_slots
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason as R

OUTDATED, LOCK_STUCK, LOCK_INVALID, STATUS_MALFORMED = "AgentOutdated", "LockStuck", "LockInvalid", "StatusMalformed"


def of(context: NodeContext) -> Advice | None:
    """What the agent reports, with what the live objects add; None when that is over by now."""
    row = context.row
    if row.reason is None:
        return _malformed(context) if row.phase is Phase.UNKNOWN else None
    if row.reason in _LIVE:
        return _LIVE[row.reason](context)
    title, short, steps = _STATIC.get(row.reason, ("", "", ()))
    text = row.message or title or row.reason.value
    filled = tuple(step.format(node=row.name, source=context.rules.source) for step in steps)
    return Advice(row.reason.value, text + _end(context), filled, short, row.until)


def also(context: NodeContext) -> Iterator[Advice]:
    """What blocks this node's reboot by the live objects, in the order in which its agent would meet it."""
    yield from filter(None, (look(context) for look in (_skip, _lock, _window, _pause)))


def is_over(context: NodeContext) -> Advice:
    """What the agent reported last does not hold any more by the live objects."""
    acquiring = context.row.reason in (R.ACQUIRING_LOCK, None)
    text = "nothing blocks it" if acquiring else "what its agent reported last is over"
    text += ": it acquires the lock next"
    return Advice(R.ACQUIRING_LOCK.value, text, short=text)


def outdated(context: NodeContext) -> Advice:
    """An agent older than the status annotation: its sentence is shown, and nothing is concluded from it."""
    row = context.row
    return Advice(
        OUTDATED,
        f"agent {row.version or 'of unknown version'} is too old to report details: {row.message}",
        (kubectl("-n", context.namespace, "rollout", "status", "daemonset/node-hardening-agent"),),
        short="agent too old to report details",
    )


def _malformed(context: NodeContext) -> Advice:
    text = "the annotation node-hardening.io/reboot-status is malformed; its agent writes it again when it changes"
    return Advice(STATUS_MALFORMED, text, (kubectl("describe", "node", context.row.name),), short="status malformed")


def _end(context: NodeContext) -> str:
    until = context.row.until
    return f" (until {table.stamp(until)}, in {table.age(until - context.now)})" if until > context.now else ""


# -- what the live objects know better ---------------------------------------------------------------------------------


def _skip(context: NodeContext) -> Advice | None:
    row = context.row
    if not row.skip:
        return None
    step = command("skip", row.name, "--off")
    return Advice(R.OPTED_OUT.value, f"the node is opted out: {row.skip}", (step,), short="the node is opted out")


def _lock(context: NodeContext) -> Advice | None:
    """Every slot of the pool's lock is held by another node."""
    if context.own_lock is not None:
        return None
    slots = [lock for lock in context.locks if lock.pool == context.row.pool]
    busy = [lock for lock in slots if not lock.is_free]
    if context.locks_problem:
        return Advice(R.WAITING_FOR_LOCK.value, f"the locks cannot be read: {context.locks_problem}")
    if not busy or len(busy) < max(len(slots), usable_slots(context.rules.reboot, context.row.pool)):
        return None
    if stuck := next((lock for lock in busy if lock.is_stuck(context.now, context.rules.reboot)), None):
        return _stuck(context, stuck)
    if invalid := next((lock for lock in busy if not lock.holder), None):
        return _invalid(invalid)
    return Advice(
        R.WAITING_FOR_LOCK.value,
        "; ".join(_held(context, lock) for lock in busy),
        tuple(command("why", lock.holder) for lock in busy[:2]),
        short=f"lock {busy[0].name} is held by {busy[0].holder}",
    )


def _held(context: NodeContext, lock: Lock) -> str:
    text = f"lock {lock.name} is held by {lock.holder} for {table.since(lock.acquired, context.now)}"
    holder = context.holders.get(lock.holder)
    if holder is None:
        return f"{text}, whose Node is gone: the next node takes it over"
    if holder.phase is Phase.REBOOTING:
        return f"{text}, which is rebooting"
    return f"{text} ({holder.message or 'no status'})"


def _stuck(context: NodeContext, lock: Lock) -> Advice:
    name = lock.holder
    holder = context.holders.get(name)
    state = "its Node is gone" if holder is None else "Ready" if holder.ready else "NotReady"
    unlock = f"{command('unlock', lock.name)}  # only if it stays down: two nodes may be down at the same time"
    ago = table.since(lock.renewed, context.now)
    return Advice(
        LOCK_STUCK,
        f"lock {lock.name} is stuck: {lock.shown_holder} went down to reboot {ago} ago and did not come back ({state})",
        (
            f"check the console of {name} and bring it back: it then releases the lock",
            kubectl("describe", "node", name),
            unlock,
        )
        if name
        else (unlock,),
        short=f"{lock.shown_holder} holds the lock and did not come back from its reboot",
    )


def _invalid(lock: Lock) -> Advice:
    text = f"lock {lock.name} is held by {lock.shown_holder}: no agent wrote that"
    return Advice(LOCK_INVALID, text, (command("unlock", lock.name),), short=f"lock {lock.name} has an invalid holder")


def _window(context: NodeContext) -> Advice | None:
    config = context.rules.config
    reported = context.row.reason is R.OUTSIDE_WINDOW
    if config is None or not config.reboot.windows:
        text = f"{context.row.message or 'outside the reboot windows'}{_end(context)}"
        return Advice(R.OUTSIDE_WINDOW.value, text, short="outside the reboot windows") if reported else None
    try:
        if is_open(config.reboot.windows, context.now):
            return None
        opening = next_opening(config.reboot.windows, context.now)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError, OverflowError) as error:
        return Advice(R.OUTSIDE_WINDOW.value, f"the windows are unknown here: {error}") if reported else None
    widen = f"widen reboot.windows in {context.rules.source}"
    if opening is None:
        return Advice(R.OUTSIDE_WINDOW.value, "the reboot windows never open", (widen,))
    shown = f"{_in_its_zone(config.reboot, opening)}, in {table.age(opening - context.now)}"
    return Advice(
        R.OUTSIDE_WINDOW.value,
        f"outside the reboot windows; the next opens {shown}",
        (f"wait, or {widen}", command("forecast")),
        short=f"the next window opens {shown}",
        until=opening,
    )


def _in_its_zone(policy: Reboot, moment: float) -> str:
    return datetime.fromtimestamp(moment, zone(policy.windows[0].timezone)).strftime("%a %Y-%m-%d %H:%M %Z")


def _pause(context: NodeContext) -> Advice | None:
    pause = context.pause
    if not pause.active:
        return None
    if not pause.is_known:
        return Advice(R.PAUSED.value, f"whether reboots are paused is {pause.sentence}", short="the pause is unknown")
    by = f" by {pause.by}" if pause.by else ""
    return Advice(
        R.PAUSED.value, f"reboots are paused {pause.sentence}".strip(), (command("resume"),), f"reboots are paused{by}"
    )


_LIVE: Mapping[R, Callable[[NodeContext], Advice | None]] = {
    R.OPTED_OUT: _skip,
    R.WAITING_FOR_LOCK: _lock,
    R.HOLDER_LOST: _lock,
    R.OUTSIDE_WINDOW: _window,
    R.PAUSED: _pause,
    R.ACQUIRING_LOCK: lambda _context: None,
}
# -- what only the agent knows: a text where it has none, a short form for the headline, next steps --------------------
_FIND_SENTINEL = "on the node, find what sets the sentinel again: cat /var/run/reboot-required.pkgs"
_REQUEST = "kubectl node-hardening reboot {node}  # requests one regardless"
_STATIC: Mapping[R, tuple[str, str, tuple[str, ...]]] = {
    R.STATE_UNREADABLE: (
        "the annotation reboot-state cannot be read, so the agent does nothing", "its reboot-state cannot be read",
        ("kubectl get node {node} -o yaml  # is it cordoned? does it hold a lock?",
         "kubectl annotate node {node} node-hardening.io/reboot-state-  # starts from scratch"),
    ),
    R.SENTINEL_UNKNOWN: (
        "whether a reboot is required is unknown", "",
        ("check reboot.sentinel in {source}, and that the directory or command is there on the node", _REQUEST),
    ),
    R.SENTINEL_UNCHANGED: (
        "a reboot is still required after a verified reboot: no other one until the sentinel goes or changes",
        "it was rebooted already, and the sentinel is still there", (_FIND_SENTINEL, _REQUEST),
    ),
    R.BACKING_OFF: (
        "backing off after the last reboot, longer each time", "backing off after the last reboot",
        ("wait: the first back-off is normal, more than one in a row is not", _FIND_SENTINEL,
         "kubectl node-hardening reboot {node}  # requests one without the back-off"),
    ),
    R.MINIMUM_GAP: (
        "minimum gap after the pool's last reboot (reboot.blockers.minimumGap)",
        "minimum gap after the pool's last reboot", ("wait, or lower reboot.blockers.minimumGap in {source}",),
    ),
    R.HARDENING_UNKNOWN: (
        "whether the node is hardened is unknown", "", ("kubectl node-hardening status {node}",),
    ),
    R.KURED_LOCKED: (
        "kured runs in this cluster and holds its lock", "kured's lock",
        ("kubectl -n kube-system get daemonset kured -o yaml  # annotation weave.works/kured-node-lock",
         "if kured is gone permanently: set reboot.lock.kured: off in {source}"),
    ),
    R.BLOCKED_BY_PODS: (
        "blocked by pods on this node", "pods that must not be disturbed",
        ("kubectl get pods -A --field-selector spec.nodeName={node}", "wait until they have ended"),
    ),
    R.BLOCKED_BY_ALERTS: (
        "blocked by Prometheus", "", ("fix what is firing, or see reboot.blockers.prometheus in {source}",),
    ),
    R.BLOCKED_BY_PACKAGE_MANAGER: (
        "blocked by the package manager", "", ("wait until it has finished; if it hangs, check it on the node",),
    ),
    R.BLOCKED_BY_INHIBITOR: (
        "blocked by a shutdown inhibitor", "", ("on the node: systemd-inhibit --list",),
    ),
    R.MAX_UNAVAILABLE: (
        "too many nodes of the pool are unavailable", "",
        ("kubectl get nodes  # NotReady, or cordoned manually: kubectl uncordon NODE",
         "or raise reboot.maxUnavailable in {source}"),
    ),
    R.LOCK_FORBIDDEN: (
        "the API server refuses the lock", "",
        ("kubectl auth can-i update leases --as system:serviceaccount:node-hardening:node-hardening-agent",),
    ),
    R.API_UNREACHABLE: ("the agent cannot reach the API server", "", ()),
    R.WOULD_REBOOT: ("reboot.mode is audit; the agent would reboot it", "", ("set reboot.mode: enforce in {source}",)),
}  # fmt: skip
