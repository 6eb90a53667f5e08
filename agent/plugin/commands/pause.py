"""`pause` and `resume`: hold back every reboot of the cluster, for a time or until somebody lifts it.

They write the ConfigMap that every agent asks for before it takes the lock and before it reboots. A pause that stands
is shown, and replaced only when told so.
"""

from __future__ import annotations

import argparse
from typing import Any

from agent.config import units
from agent.errors import AgentError, UsageError
from agent.kube import CONFIGMAPS
from agent.kube.errors import AlreadyExists, Conflict, NotFound
from agent.plugin import mutations as changes
from agent.plugin.cluster import locks
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.mutations import Change, ChangedMeanwhile, Deed, Told
from agent.plugin.session import Command, Session
from agent.plugin.views.table import age
from agent.reboot.blockers.pause import PAUSE
from agent.text import format_rfc3339

_LABELS = {"app.kubernetes.io/name": "node-hardening-agent"}


def _configure_pause(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="duration", default="", metavar="4h", help="ends by itself after 90m, 4h, 2d …")
    changes.configure(parser, reason="why, for everybody who wonders what they wait for")


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    changes.configure(parser, reason="why, for the Event")


def _pause(options: argparse.Namespace, session: Session) -> int:
    reason = changes.reason_of(options)
    until = _until(options.duration, session.now())
    before = _standing(session)
    if before is not None and before.active:
        reason = reason or before.reason
        if not until and not before.until and reason == before.reason:
            return _said(session, before, f"already paused: {_spelled(before, session.now())}", changed=False)
    who = changes.person(session.kube)
    wanted = Pause(active=True, until=until, reason=reason, by=who)
    spelled = _spelled(wanted, session.now())
    lines = [
        f"replaces the pause that stands: {_spelled(before, session.now())}" if before and before.active else "",
        f"configmap/{PAUSE} in {session.namespace}: {spelled}",
        "no node of the cluster begins a reboot while it stands; hardening goes on",
        *(_held(lock) for lock in locks.read(session.kube, session.namespace) if not lock.is_free),
    ]
    title = "prolong or replace the pause" if before and before.active else "pause every reboot of the cluster"
    if not changes.agreed(session, Change(title, changes.listed(lines)), dry_run=options.dry_run):
        return changes.declined(session)
    made = _write(session, wanted, before, dry_run=options.dry_run)
    told = Told(
        Deed.REBOOTS_PAUSED, f"{who} paused every reboot {spelled}", CONFIGMAPS, PAUSE, session.namespace, _uid(made)
    )
    changes.tell(session, told, who=who, dry_run=options.dry_run)
    said = f"paused {spelled}; lift it with: kubectl node-hardening resume"
    return _said(session, wanted, said, changed=True, dry_run=options.dry_run)


def _resume(options: argparse.Namespace, session: Session) -> int:
    reason = changes.reason_of(options)
    before = _standing(session)
    if before is None:
        return _said(session, Pause(active=False), "not paused", changed=False)
    who = changes.person(session.kube)
    spelled = _spelled(before, session.now())
    lines = [
        f"deletes configmap/{PAUSE} in {session.namespace}: {spelled}",
        "nodes that want a reboot may begin at once, one after another" if before.active else "it holds nothing back",
    ]
    if not changes.agreed(session, Change("lift the pause", tuple(lines)), dry_run=options.dry_run):
        return changes.declined(session)
    try:
        gone = session.kube.delete(
            CONFIGMAPS, PAUSE, session.namespace, resource_version=before.version, dry_run=options.dry_run
        )
    except Conflict as error:
        raise _meanwhile() from error
    except NotFound:
        return _said(session, Pause(active=False), "somebody else has lifted it meanwhile", changed=False)
    message = f"{who} lifted the pause ({spelled})" + (f": {reason}" if reason else "")
    told = Told(Deed.REBOOTS_RESUMED, message, CONFIGMAPS, PAUSE, session.namespace, _uid(gone))
    changes.tell(session, told, who=who, dry_run=options.dry_run)
    return _said(session, Pause(active=False), "the pause is lifted", changed=True, dry_run=options.dry_run)


def _until(duration: str, now: float) -> str:
    """The end as the ConfigMap has it, empty for none. Raises UsageError."""
    if not duration:
        return ""
    try:
        seconds = units.duration(duration)
    except ValueError as error:
        raise UsageError(f"--for: {error}; nothing was changed") from error
    if not 1 <= seconds <= units.YEAR_SECONDS:
        raise UsageError(f"--for {duration}: write 1s to 366d, or leave it out for no end; nothing was changed")
    return format_rfc3339(now + seconds)


def _standing(session: Session) -> Pause | None:
    """The pause that is written down, over or not; None when there is none. Raises KubeError."""
    try:
        return locks.pause_of(session.kube.get(CONFIGMAPS, PAUSE, session.namespace), session.now())
    except NotFound as error:
        if not error.names_object:
            raise
        return None


def _write(session: Session, wanted: Pause, before: Pause | None, *, dry_run: bool) -> dict[str, Any]:
    """Creates it, or replaces exactly what was shown."""
    data = {"until": wanted.until, "reason": wanted.reason, "by": wanted.by}
    meta: dict[str, Any] = {"name": PAUSE, "namespace": session.namespace, "labels": _LABELS}
    try:
        if before is None:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            return session.kube.create(CONFIGMAPS, body, dry_run=dry_run)
        meta["resourceVersion"] = before.version
        return session.kube.patch(
            CONFIGMAPS, PAUSE, {"metadata": meta, "data": data}, session.namespace,
            manager=changes.MANAGER, dry_run=dry_run,
        )  # fmt: skip
    except (AlreadyExists, Conflict) as error:
        raise _meanwhile() from error
    except NotFound as error:
        if before is not None:
            raise _meanwhile() from error
        text = f"there is no namespace {session.namespace}: name the one that the agent runs in with --namespace"
        raise AgentError(text) from error


def _meanwhile() -> ChangedMeanwhile:
    return ChangedMeanwhile("somebody else changed the pause meanwhile; nothing was done: look again")


def _held(lock: Lock) -> str:
    """What becomes of a cycle that has begun. Source: agent/reboot/machine/underway.py, the last questions before the fence."""
    if lock.is_rebooting:
        return f"{lock.holder} holds {lock.name} and is going down, or down: it is finished when it comes back"
    return (
        f"{lock.holder} holds {lock.name}: it is drained on, but not rebooted while the pause stands; "
        "one that waits longer than drain.timeout is rolled back and uncordoned"
    )


def _spelled(pause: Pause, now: float) -> str:
    if not pause.until:
        text = "until somebody lifts it"
    else:
        left = locks.moment(pause.until) - now
        text = f"until {pause.until} ({f'in {age(left + 0.5)}' if left > 0 else 'over'})"
    return text + (f", by {pause.by}" if pause.by else "") + (f": {pause.reason}" if pause.reason else "")


def _uid(found: dict[str, Any]) -> str:
    """Of the object, or of what a Status says was deleted."""
    return str((found.get("metadata") or {}).get("uid") or (found.get("details") or {}).get("uid") or "")


def _said(session: Session, pause: Pause, sentence: str, *, changed: bool, dry_run: bool = False) -> int:
    document = {"paused": pause.active, "until": pause.until, "reason": pause.reason, "by": pause.by}
    return changes.done(session, sentence, document, changed=changed, dry_run=dry_run)


PAUSE_COMMAND = Command("pause", "hold back every reboot of the cluster", _configure_pause, _pause)
RESUME_COMMAND = Command("resume", "lift the pause", _configure_resume, _resume)
