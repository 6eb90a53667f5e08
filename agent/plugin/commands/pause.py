"""`pause` and `resume`: block every reboot of the cluster, for a time or until resumed.

They write the ConfigMap that every agent reads before it acquires the lock and before it reboots. A current pause is
shown, and replaced only after confirmation.
"""

from __future__ import annotations

import argparse
from typing import Any

from agent.kube import CONFIGMAPS
from agent.kube.errors import Conflict, NotFound
from agent.plugin import mutations
from agent.plugin.cluster import get_or_none, locks, values
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.diagnosis.advice import command
from agent.plugin.mutations import AuditEvent, AuditReason
from agent.plugin.session import Command, Session, duration_of
from agent.plugin.views.table import age
from agent.reboot.blockers.pause import PAUSE
from agent.text import format_rfc3339

_NOT_PAUSED = Pause(active=False)


def _configure_pause(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="duration", default="", metavar="4h", help="ends by itself after 90m, 4h, 2d …")
    mutations.configure(parser, reason="why; shown wherever a reboot waits for it")


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    mutations.configure(parser, reason="why; kept in the Event")


def _pause(options: argparse.Namespace, session: Session) -> int:
    reason = mutations.reason_of(options)
    until = ""
    if options.duration:
        seconds = duration_of("--for", options.duration, ", or leave it out for no end; nothing was changed")
        until = format_rfc3339(session.now() + seconds)
    before = _current(session)
    replaced = before if before is not None and before.active else None
    if replaced is not None:
        reason = reason or replaced.reason
        if not until and not replaced.until and reason == replaced.reason:
            return _done(session, replaced, f"already paused: {_spelled(replaced, session.now())}", changed=False)
    pause = Pause(active=True, until=until, reason=reason, by=session.user)
    spelled = _spelled(pause, session.now())
    lines = [
        f"replaces the current pause: {_spelled(replaced, session.now())}" if replaced else "",
        f"configmap/{PAUSE} in {session.namespace}: {spelled}",
        "no node begins a reboot until it ends; hardening continues",
        *(_held(lock) for lock in locks.read(session.kube, session.namespace) if not lock.is_free),
    ]
    title = "replace the current pause" if replaced else "pause every reboot of the cluster"
    if not mutations.confirmed(session, title, lines):
        return mutations.declined(session)
    data = {"until": pause.until, "reason": pause.reason, "by": pause.by}
    made = mutations.put_config_map(session, PAUSE, data, before.version if before else "", what="the pause")
    _record(session, AuditReason.REBOOTS_PAUSED, f"paused every reboot {spelled}", "", made)
    return _done(session, pause, f"paused {spelled}; end it with: {command('resume')}", changed=True)


def _resume(options: argparse.Namespace, session: Session) -> int:
    reason = mutations.reason_of(options)
    before = _current(session)
    if before is None:
        return _done(session, _NOT_PAUSED, "not paused", changed=False)
    spelled = _spelled(before, session.now())
    lines = [
        f"deletes configmap/{PAUSE} in {session.namespace}: {spelled}",
        "pending nodes may begin to reboot immediately, one after another" if before.active else "it blocks nothing",
    ]
    if not mutations.confirmed(session, "end the pause", lines):
        return mutations.declined(session)
    try:
        gone = session.kube.delete(
            CONFIGMAPS, PAUSE, session.namespace, resource_version=before.version, dry_run=session.dry_run
        )
    except Conflict as error:
        raise mutations.meanwhile("the pause") from error
    except NotFound:
        return _done(session, _NOT_PAUSED, "another user has ended it meanwhile", changed=False)
    _record(session, AuditReason.REBOOTS_RESUMED, f"ended the pause ({spelled})", reason, gone)
    return _done(session, _NOT_PAUSED, "reboots are resumed", changed=True)


def _current(session: Session) -> Pause | None:
    """The pause that exists, over or not; None when there is none. Raises KubeError."""
    found = get_or_none(session.kube, CONFIGMAPS, PAUSE, session.namespace)
    return locks.pause_of(found, session.now()) if found is not None else None


def _held(lock: Lock) -> str:
    """What happens to a cycle that has begun. Source: agent/reboot/machine, the last checks before the command."""
    if lock.is_rebooting:
        return f"{lock.shown_holder} holds {lock.name} and is rebooting: it finishes when it comes back"
    return (
        f"{lock.shown_holder} holds {lock.name}: its drain continues, but it does not reboot until the pause ends; "
        "one that waits longer than drain.timeout is rolled back and uncordoned"
    )


def _spelled(pause: Pause, now: float) -> str:
    if not pause.until:
        text = "until resumed"
    else:
        left = values.timestamp(pause.until) - now
        text = f"until {pause.until} ({f'in {age(left + 0.5)}' if left > 0 else 'over'})"
    return text + (f", by {pause.by}" if pause.by else "") + (f": {pause.reason}" if pause.reason else "")


def _record(session: Session, code: AuditReason, action: str, why: str, found: dict[str, Any]) -> None:
    """found: the object, or a Status that names what was deleted."""
    uid = values.part(found, "metadata").get("uid") or values.part(found, "details").get("uid")
    mutations.record(session, AuditEvent(code, action, why, CONFIGMAPS, PAUSE, session.namespace, values.text(uid)))


def _done(session: Session, pause: Pause, sentence: str, *, changed: bool) -> int:
    document = {"paused": pause.active, "until": pause.until, "reason": pause.reason, "by": pause.by}
    return mutations.done(session, sentence, document, changed=changed)


PAUSE_COMMAND = Command("pause", "block every reboot of the cluster", _configure_pause, _pause)
RESUME_COMMAND = Command("resume", "end the pause", _configure_resume, _resume)
