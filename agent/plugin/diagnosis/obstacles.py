"""What holds one reboot back, each in words with its next step; and what would hold it back after that.

Pure. It refuses to give advice that the agent would not honour: nothing here goes round a window, a budget or the lock.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from agent.config.schema import Reboot
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.node_context import Facts
from agent.plugin.diagnosis.advice import Reason, ask
from agent.plugin.diagnosis.underway import failed, under_way
from agent.plugin.sentences import Hold, Said
from agent.plugin.views import table as render
from agent.reboot.blockers.window import is_open, next_opening, zone
from agent.reboot.state import Phase

__all__ = ["Reason", "also", "ask", "of", "over", "unreadable"]


def of(facts: Facts, said: Said) -> Reason | None:
    """What the agent's sentence says, with what the live objects add; None when that is over by now."""
    made = _MAKERS[said.hold](facts, said) if said.hold in _MAKERS else _other(facts, said)
    if made is None:
        return None
    if said.audit:
        return Reason("audit", f"reboot.mode is audit; it would: {made.said}", made.next, until=made.until)
    return made


def also(facts: Facts) -> Iterator[Reason]:
    """What holds this node's reboot back by the live objects, in the order in which its agent would meet it."""
    for look in (_skip, _lock, _window, _pause):
        found = look(facts, None)
        if found is not None:
            yield found


def unreadable(facts: Facts, problem: str) -> Reason:
    """The node's note was damaged: the agent does nothing rather than guess."""
    told = f" ({problem})" if problem else ""
    return Reason(
        Hold.UNREADABLE.value,
        f"the annotation reboot-state cannot be read{told}, so the agent does nothing",
        (
            f"kubectl get node {facts.row.name} -o yaml  # is it cordoned? does it hold a lock? {ask('status')}",
            f"kubectl annotate node {facts.row.name} node-hardening.io/reboot-state-  # starts anew",
        ),
        short="its note cannot be read",
    )


# -- before the lock ---------------------------------------------------------------------------------------------------


def _skip(facts: Facts, _said: Said | None) -> Reason | None:
    why = facts.row.skip
    if not why:
        return None
    step = ask("skip", facts.row.name, "--off")
    return Reason(Hold.SKIP.value, f"the node is opted out: {why}", (step,), short="the node is opted out")


def _untold(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.UNTOLD.value,
        f"it cannot be told whether a reboot is required: {said.text}",
        (
            f"check reboot.sentinel in {facts.rules.source}, and that the folder or command is there on the node",
            f"{ask('reboot', facts.row.name)}  # asks for one all the same",
        ),
    )


def _guard(facts: Facts, _said: Said) -> Reason:
    last = facts.row.history[0].at if facts.row.history else 0.0
    when = f" of {render.stamp(last)}" if last else ""
    return Reason(
        Hold.GUARD.value,
        f"a reboot is still required after the proven one{when}: not again, until the sentinel goes or changes",
        (
            "on the node, find what leaves the sentinel behind: cat /var/run/reboot-required.pkgs",
            f"{ask('reboot', facts.row.name)}  # asks for one more all the same",
        ),
        short="it was rebooted already, and the sentinel is still there",
    )


def _backoff(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.BACKOFF.value,
        f"wanted again soon after the last reboot: it rests {said.text}, longer each time",
        (
            "on the node, find what asks again and again: cat /var/run/reboot-required.pkgs",
            f"{ask('reboot', facts.row.name)}  # asks for one without the rest",
        ),
        short="it rests after the last one",
    )


def _gap(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.GAP.value,
        f"the pool rests after its last reboot, {said.text} more (reboot.blockers.minimumGap)",
        (f"wait, or lower reboot.blockers.minimumGap in {facts.rules.source}",),
        short="the pool rests after its last reboot",
    )


def _lock(facts: Facts, said: Said | None) -> Reason | None:
    """Every slot of the pool's lock is somebody else's."""
    if facts.own_lock is not None:
        return None
    busy = [lock for lock in facts.locks if lock.pool == facts.row.pool and not lock.is_free]
    slots = max(len([lock for lock in facts.locks if lock.pool == facts.row.pool]), _slots(facts))
    if facts.locks_problem and said is not None:
        return Reason(Hold.LOCK.value, f"it waits for the lock; who holds it cannot be read: {facts.locks_problem}")
    if not busy or len(busy) < slots:
        return None
    stuck = next((lock for lock in busy if lock.is_stuck), None)
    if stuck is not None:
        return _stuck(facts, stuck)
    held = "; ".join(_held(facts, lock) for lock in busy)
    return Reason(
        Hold.LOCK.value,
        held,
        tuple(ask("why", lock.holder) for lock in busy[:2]),
        short=f"{busy[0].holder} has the lock {busy[0].name}",
    )


def _held(facts: Facts, lock: Lock) -> str:
    text = f"the lock {lock.name} is held by {lock.holder} for {render.since(lock.acquired, facts.now)}"
    holder = facts.holders.get(lock.holder)
    if holder is None:
        return f"{text}, whose Node is gone: the next that asks takes it over"
    if holder.phase is Phase.REBOOTING:
        return f"{text}, which went down to reboot"
    return f"{text}, which says: {holder.sentence or 'nothing'}"


def _stuck(facts: Facts, lock: Lock) -> Reason:
    holder = facts.holders.get(lock.holder)
    state = "its Node is gone" if holder is None else "Ready" if holder.ready else "not Ready"
    return Reason(
        "lock-stuck",
        f"the lock {lock.name} is stuck: {lock.holder} went down to reboot"
        f" {render.since(lock.renewed, facts.now)} ago and did not come back ({state})",
        (
            f"look at {lock.holder}'s console and bring it back: it then gives the lock back by itself",
            f"kubectl describe node {lock.holder}",
            f"{ask('unlock', lock.name)}  # only when it stays down: two nodes may be down at once",
        ),
        short=f"{lock.holder} has the lock and did not come back from its reboot",
    )


def over(said: Said) -> Reason:
    """What the agent said last does not hold any more by the live objects."""
    text = "nothing holds it back" if said.hold is Hold.TURN else "what its agent named last is over"
    return Reason(Hold.TURN.value, f"{text}: it asks for the lock in a moment", short=f"{text}, it is about to begin")


def _slots(facts: Facts) -> int:
    return facts.rules.config.reboot.concurrency if facts.rules.config is not None else 1


# -- the blockers ------------------------------------------------------------------------------------------------------


def _proof(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.PROOF.value,
        f"it cannot be told whether the node is hardened: {said.text}",
        (ask("status", facts.row.name),),
    )


def _window(facts: Facts, said: Said | None) -> Reason | None:
    config = facts.rules.config
    if config is None or not config.reboot.windows:
        if said is None:
            return None
        return Reason(Hold.WINDOW.value, f"outside of the reboot windows: {said.text}", short="outside of its windows")
    try:
        if is_open(config.reboot.windows, facts.now):
            return None
        opening = next_opening(config.reboot.windows, facts.now)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError, OverflowError) as error:
        return None if said is None else Reason(Hold.WINDOW.value, f"the windows cannot be told here: {error}")
    if opening is None:
        step = f"widen reboot.windows in {facts.rules.source}"
        return Reason(Hold.WINDOW.value, "the reboot windows never open", (step,))
    shown = _in_its_zone(config.reboot, opening)
    return Reason(
        Hold.WINDOW.value,
        f"outside of the reboot windows; the next opens {shown}, in {render.age(opening - facts.now)}",
        (f"wait, or widen reboot.windows in {facts.rules.source}", ask("forecast")),
        short=f"the next window opens {shown}, in {render.age(opening - facts.now)}",
        until=opening,
    )


def _in_its_zone(policy: Reboot, moment: float) -> str:
    return datetime.fromtimestamp(moment, zone(policy.windows[0].timezone)).strftime("%a %Y-%m-%d %H:%M %Z")


def _pause(facts: Facts, _said: Said | None) -> Reason | None:
    pause = facts.pause
    if not pause.active:
        return None
    if not pause.is_known:
        return Reason(Hold.PAUSE.value, pause.sentence, short="the pause cannot be read")
    told = pause.sentence.removeprefix("the cluster's pause").strip()
    return Reason(
        Hold.PAUSE.value,
        f"reboots are paused {told}".strip(),
        (ask("resume"),),
        short="reboots are paused" + (f" by {pause.by}" if pause.by else ""),
    )


def _kured(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.KURED.value,
        f"kured runs in this cluster and its lock is in the way: {said.text}",
        (
            "kubectl -n kube-system get daemonset kured -o yaml  # annotation weave.works/kured-node-lock",
            f"where kured is gone for good: set reboot.lock.kured: off in {facts.rules.source}",
        ),
        short="kured's lock",
    )


def _pods(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.PODS.value,
        f"pods that must not be disturbed run here: with {said.text}" if "cannot" not in said.text else said.text,
        (f"kubectl get pods -A --field-selector spec.nodeName={facts.row.name}", "wait until they have ended"),
        short="pods that must not be disturbed run here",
    )


def _alerts(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.ALERTS.value,
        f"Prometheus holds it back: {said.text}",
        (f"mend what is firing, or see reboot.blockers.prometheus in {facts.rules.source}",),
        short=said.text if said.text.startswith("alerts: ") else "Prometheus",
    )


def _budget(facts: Facts, said: Said) -> Reason:
    return Reason(
        Hold.BUDGET.value,
        f"too many nodes of the pool {facts.row.pool} are unavailable already: {said.text}",
        (
            "kubectl get nodes  # NotReady, or SchedulingDisabled by hand: kubectl uncordon NODE",
            f"or raise reboot.maxUnavailable in {facts.rules.source}",
        ),
        short="too many nodes of its pool are unavailable",
    )


# -- the rest ----------------------------------------------------------------------------------------------------------


def _away(_facts: Facts, said: Said) -> Reason:
    return Reason(Hold.AWAY.value, f"the agent cannot look at the node or the cluster: {said.text}")


def _other(facts: Facts, said: Said) -> Reason:
    return Reason(Hold.OTHER.value, said.text or facts.row.sentence)


def _damaged(facts: Facts, said: Said) -> Reason:
    return unreadable(facts, said.text)


def _drained_or(make: Callable[[Facts, Said], Reason | None]) -> Callable[[Facts, Said], Reason | None]:
    """The same hold, met by a node that is drained already and holds the lock."""

    def made(facts: Facts, said: Said) -> Reason | None:
        found = make(facts, said)
        if found is None or not said.drained:
            return found
        return Reason(found.code, f"drained already, but {found.said}", found.next, found.short, found.until)

    return made


_MAKERS: Mapping[Hold, Callable[[Facts, Said], Reason | None]] = {
    Hold.UNREADABLE: _damaged,
    Hold.SKIP: _skip,
    Hold.UNTOLD: _drained_or(_untold),
    Hold.GUARD: _guard,
    Hold.BACKOFF: _backoff,
    Hold.FAILED: failed,
    Hold.GAP: _gap,
    Hold.LOCK: _lock,
    Hold.TURN: lambda _facts, _said: None,
    Hold.PROOF: _drained_or(_proof),
    Hold.WINDOW: _window,
    Hold.PAUSE: _drained_or(_pause),
    Hold.KURED: _drained_or(_kured),
    Hold.PODS: _drained_or(_pods),
    Hold.ALERTS: _drained_or(_alerts),
    Hold.BUDGET: _budget,
    Hold.CORDONED: under_way,
    Hold.DRAINING: under_way,
    Hold.REBOOTING: under_way,
    Hold.VERIFYING: under_way,
    Hold.RELEASING: under_way,
    Hold.AWAY: _away,
}
