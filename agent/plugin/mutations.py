"""What every change has in common: it is shown, confirmed, made by compare-and-swap, and recorded in an Event.

    if mutations.confirmed(session, "pause every reboot", ["no node begins one until …", …]): …

It refuses to change anything without confirmation, and to overwrite what another writer changed meanwhile. An Event
that cannot be delivered never undoes a change: it is reported, and that is all.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from agent.errors import AgentError, KubeError, UsageError
from agent.kube import CONFIGMAPS, EVENTS, NODES, Resource
from agent.kube.errors import AlreadyExists, Conflict, NotFound
from agent.plugin.cluster import values
from agent.plugin.session import NOT_WELL, OK, USER_CHARACTERS, Session
from agent.reboot.kube.views import node_view
from agent.text import format_rfc3339, sanitize

MANAGER = "kubectl-node_hardening"
REASON_CHARACTERS = 200
_COMPONENT = "kubectl-node-hardening"
_MESSAGE_CHARACTERS = 1024
_NAME_CHARACTERS = 253
_SWAPS = 5
_LABELS = {"app.kubernetes.io/name": "node-hardening-agent"}


class AuditReason(StrEnum):
    """The reasons of Events about what users do. Stable; agents never send them, nor does `notify`."""

    is_risky: bool
    meaning: str

    def __new__(cls, value: str, is_risky: bool, meaning: str) -> Self:
        """A plain string for whoever compares or sends it."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.is_risky = is_risky
        reason.meaning = meaning
        return reason

    REBOOTS_PAUSED = "RebootsPaused", False, "A user paused every reboot of the cluster; who, until when and why"
    REBOOTS_RESUMED = "RebootsResumed", False, "A user ended the pause"
    REBOOT_SKIP_SET = "RebootSkipSet", False, "A user opted the node out of reboots; who and why"
    REBOOT_SKIP_REMOVED = "RebootSkipRemoved", False, "A user removed the node's opt-out"
    REBOOT_REQUESTED = "RebootRequested", False, "A user requested a reboot of the node; who and why"
    ROLLOUT_PROMOTED = "RolloutPromoted", True, "A user promoted a policy to all nodes; who and why"
    ROLLOUT_ABORTED = "RolloutAborted", False, "A user stopped the rollout of a policy; who and why"
    REBOOT_LOCK_FORCE_RELEASED = (
        "RebootLockForceReleased", True, "A user took the reboot lock from its holder; who, from whom and why",
    )  # fmt: skip


class ChangedMeanwhile(AgentError):
    """Another writer changed what was about to be changed; nothing was done."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An Event to be. action: what the user did, behind their name; why: what they wrote as the reason.

    resource and name: what it is about; namespace: of that, empty for a Node.
    """

    reason: AuditReason
    action: str
    why: str
    resource: Resource
    name: str
    namespace: str = ""
    uid: str = ""


def configure(parser: argparse.ArgumentParser, *, reason: str = "") -> None:
    """The options of every change: --yes, --dry-run and, with its help, --reason."""
    if reason:
        parser.add_argument("--reason", default="", metavar="TEXT", help=reason)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--dry-run", action="store_true", help="let the API server check everything; change nothing")


def reason_of(options: argparse.Namespace) -> str:
    """--reason on one line. Raises UsageError for one that is longer than what the agents keep of it."""
    text = " ".join(str(options.reason).split())
    if len(text) > REASON_CHARACTERS:
        raise UsageError(f"--reason has {len(text)} characters: write at most {REASON_CHARACTERS}; nothing was changed")
    return sanitize(text, REASON_CHARACTERS)


def signed(reason: str, who: str) -> str:
    """A reason with its author, as it is written on a Node: `new firmware (by alice)`."""
    return f"{reason} (by {who})" if reason else f"by {who}"


def confirmed(session: Session, title: str, lines: Iterable[str]) -> bool:
    """Shows what will change and waits for confirmation, except in a dry run. Raises UsageError without a terminal.

    title: an infinitive. lines: exactly what will change, and what follows from it; empty ones are left out.
    """
    session.note(f"{'Would' if session.dry_run else 'Will'} {title}:")
    for line in filter(None, lines):
        for part in session.style.wrap(line, lead="  - ", indent=4):
            session.note(part)
    if session.dry_run or session.confirm("Continue?"):
        return True
    session.note("nothing was changed")
    return False


def declined(session: Session) -> int:
    """The exit code after a no."""
    if session.form.is_document:
        session.document({"changed": False})
    return NOT_WELL


def done(session: Session, sentence: str, document: Mapping[str, Any], *, changed: bool) -> int:
    """Reports the result and returns the exit code. changed: it was made, or would have been but for --dry-run."""
    dry_run = changed and session.dry_run
    if session.form.is_document:
        session.document({"changed": changed and not dry_run, "dryRun": dry_run, **document})
    else:
        session.write(f"dry run, nothing was changed; otherwise: {sentence}" if dry_run else sentence)
    return OK


def swap_node(
    session: Session,
    found: Mapping[str, Any],
    annotations: Mapping[str, str | None],
    matters: Callable[[Mapping[str, Any]], object],
) -> None:
    """Sets annotations of a Node that is still as it was shown, as far as it matters; None removes one.

    A kubelet writes its Node every few seconds, so another version alone is no reason to stop. Raises
    ChangedMeanwhile, KubeError.
    """
    shown = node_view(found)
    newest = found
    for _ in range(_SWAPS):
        meta = {"resourceVersion": node_view(newest).version, "annotations": dict(annotations)}
        try:
            session.kube.patch(NODES, shown.name, {"metadata": meta}, manager=MANAGER, dry_run=session.dry_run)
            return
        except Conflict:
            newest = session.kube.get(NODES, shown.name)
            if node_view(newest).uid != shown.uid or matters(newest) != matters(found):
                break
    raise ChangedMeanwhile(f"node {shown.name} was changed by another writer meanwhile; nothing was done: check again")


def put_config_map(session: Session, name: str, data: Mapping[str, str], version: str, *, what: str) -> dict[str, Any]:
    """Creates a ConfigMap in the agent's namespace, or replaces the data of exactly the version that was shown.

    what: it is about, for messages. Raises ChangedMeanwhile, AgentError.
    """
    kube, namespace, dry_run = session.kube, session.namespace, session.dry_run
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "labels": _LABELS}
    try:
        if not version:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(data)}
            return kube.create(CONFIGMAPS, body, dry_run=dry_run)
        body = {"metadata": {**meta, "resourceVersion": version}, "data": dict(data)}
        return kube.patch(CONFIGMAPS, name, body, namespace, manager=MANAGER, dry_run=dry_run)
    except (AlreadyExists, Conflict) as error:
        raise meanwhile(what) from error
    except NotFound as error:
        if version:
            raise meanwhile(what) from error
        raise AgentError(f"there is no namespace {namespace}: pass the agent's with --namespace") from error


def meanwhile(what: str) -> ChangedMeanwhile:
    """Another user was faster."""
    return ChangedMeanwhile(f"another user changed {what} meanwhile; nothing was done: check again")


def record(session: Session, audit: AuditEvent) -> None:
    """Creates an Event. One that cannot be delivered is only reported: the change itself stands."""
    if session.dry_run:
        return
    try:
        session.kube.create(EVENTS, event(audit, who=session.user, when=session.now(), suffix=secrets.token_hex(8)))
    except KubeError as error:
        session.note(f"the change was made, but its Event was not: {values.text(str(error))}")


def event(audit: AuditEvent, *, who: str, when: float, suffix: str) -> dict[str, Any]:
    """The Event object. For a Node its uid is the Node's *name*: that is how `kubectl describe node` finds it."""
    about = {"apiVersion": audit.resource.api_version, "kind": audit.resource.kind, "name": audit.name}
    about["uid"] = audit.uid or audit.name
    if audit.namespace:
        about["namespace"] = audit.namespace
    name = f"{audit.name[: _NAME_CHARACTERS - 17].rstrip('.-')}.{suffix}"
    message = f"{who} {audit.action}" + (f": {audit.why}" if audit.why else "")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": audit.namespace or "default"},
        "involvedObject": about,
        "reason": audit.reason.value,
        "message": sanitize(message, _MESSAGE_CHARACTERS),
        "type": "Warning" if audit.reason.is_risky else "Normal",
        "count": 1,
        "firstTimestamp": format_rfc3339(when),
        "lastTimestamp": format_rfc3339(when),
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": sanitize(who, USER_CHARACTERS),
    }
