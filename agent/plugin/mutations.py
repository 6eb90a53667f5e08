"""What every change has in common: it is shown, confirmed, made by compare-and-swap, and recorded in an Event.

    who = user_name(session.kube)
    change = Change("pause every reboot", ("no node begins one until …",), …)
    if mutations.confirmed(session, change, dry_run=options.dry_run): …

It refuses to change anything without confirmation, and to overwrite what another writer changed meanwhile. An Event
that cannot be delivered never undoes a change: it is reported, and that is all.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from agent.errors import AgentError, KubeError, UsageError
from agent.kube import CONFIGMAPS, EVENTS, NODES, Kube, Resource
from agent.kube.errors import AlreadyExists, Conflict, NotFound
from agent.plugin.cluster import values
from agent.plugin.session import NOT_WELL, OK, Session
from agent.reboot.kube.views import node_view
from agent.text import sanitize

MANAGER = "kubectl-node_hardening"
REASON_CHARACTERS = 200
UNKNOWN = "unknown"
_COMPONENT = "kubectl-node-hardening"
_MESSAGE_CHARACTERS = 1024
_NAME_CHARACTERS = 253
_WHO_CHARACTERS = 80
_SWAPS = 5
_LABELS = {"app.kubernetes.io/name": "node-hardening-agent"}
_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)


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
class Change:
    """What is about to be done. title: an infinitive. lines: exactly what will change, and what follows from it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An Event to be. resource and name: what it is about; namespace: of that, empty for a Node."""

    reason: AuditReason
    message: str
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


def user_info(kube: Kube) -> Mapping[str, Any]:
    """The user as the API server knows them: username, groups, extra. Raises KubeError.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/ (1.28)
    """
    body = {"apiVersion": _REVIEWS.api_version, "kind": _REVIEWS.kind, "metadata": {}}
    return values.part(values.part(kube.create(_REVIEWS, body), "status"), "userInfo")


def user_name(kube: Kube) -> str:
    """The user's name, as the API server has it; else as their kubeconfig calls them; else `unknown`."""
    try:
        name = values.text(user_info(kube).get("username"), _WHO_CHARACTERS)
    except KubeError:
        name = ""
    return name or sanitize(kube.user, _WHO_CHARACTERS) or UNKNOWN


def signed(reason: str, who: str) -> str:
    """A reason with its author, as it is written on a Node: `new firmware (by alice)`."""
    return f"{reason} (by {who})" if reason else f"by {who}"


def confirmed(session: Session, change: Change, *, dry_run: bool) -> bool:
    """Shows what will change and waits for confirmation, except in a dry run. Raises UsageError without a terminal."""
    session.note(f"{'Would' if dry_run else 'Will'} {change.title}:")
    for line in change.lines:
        for part in session.style.wrap(line, lead="  - ", indent=4):
            session.note(part)
    if dry_run or session.confirm("Continue?"):
        return True
    session.note("nothing was changed")
    return False


def declined(session: Session) -> int:
    """The exit code after a no."""
    if session.form.is_document:
        session.document({"changed": False})
    return NOT_WELL


def done(session: Session, sentence: str, document: Mapping[str, Any], *, changed: bool, dry_run: bool = False) -> int:
    """Reports the result and returns the exit code."""
    if session.form.is_document:
        session.document({"changed": changed and not dry_run, "dryRun": dry_run, **document})
    else:
        session.write(f"dry run, nothing was changed; otherwise: {sentence}" if dry_run else sentence)
    return OK


def swap_node(
    kube: Kube,
    found: Mapping[str, Any],
    annotations: Mapping[str, str | None],
    *,
    matters: Callable[[Mapping[str, Any]], object],
    dry_run: bool,
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
            kube.patch(NODES, shown.name, {"metadata": meta}, manager=MANAGER, dry_run=dry_run)
            return
        except Conflict:
            newest = kube.get(NODES, shown.name)
            if node_view(newest).uid != shown.uid or matters(newest) != matters(found):
                break
    raise ChangedMeanwhile(f"node {shown.name} was changed by another writer meanwhile; nothing was done: check again")


def put_config_map(
    session: Session, name: str, data: Mapping[str, str], version: str, *, what: str, dry_run: bool
) -> dict[str, Any]:
    """Creates a ConfigMap in the agent's namespace, or replaces the data of exactly the version that was shown.

    what: it is about, for messages. Raises ChangedMeanwhile, AgentError.
    """
    meta: dict[str, Any] = {"name": name, "namespace": session.namespace, "labels": _LABELS}
    try:
        if not version:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(data)}
            return session.kube.create(CONFIGMAPS, body, dry_run=dry_run)
        meta["resourceVersion"] = version
        body = {"metadata": meta, "data": dict(data)}
        return session.kube.patch(CONFIGMAPS, name, body, session.namespace, manager=MANAGER, dry_run=dry_run)
    except (AlreadyExists, Conflict) as error:
        raise meanwhile(what) from error
    except NotFound as error:
        if version:
            raise meanwhile(what) from error
        text = f"there is no namespace {session.namespace}: pass the agent's with --namespace"
        raise AgentError(text) from error


def meanwhile(what: str) -> ChangedMeanwhile:
    """Another user was faster."""
    return ChangedMeanwhile(f"another user changed {what} meanwhile; nothing was done: check again")


def record(session: Session, audit: AuditEvent, *, who: str, dry_run: bool = False) -> None:
    """Creates an Event. One that cannot be delivered is only reported: the change itself stands."""
    if dry_run:
        return
    try:
        session.kube.create(EVENTS, event(audit, who=who, when=session.now(), suffix=secrets.token_hex(8)))
    except KubeError as error:
        session.note(f"the change was made, but its Event was not: {values.text(str(error))}")


def event(audit: AuditEvent, *, who: str, when: float, suffix: str) -> dict[str, Any]:
    """The Event object. For a Node its uid is the Node's *name*: that is how `kubectl describe node` finds it."""
    stamp = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": audit.resource.api_version, "kind": audit.resource.kind, "name": audit.name}
    about["uid"] = audit.uid or audit.name
    if audit.namespace:
        about["namespace"] = audit.namespace
    name = f"{audit.name[: _NAME_CHARACTERS - 17].rstrip('.-')}.{suffix}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": audit.namespace or "default"},
        "involvedObject": about,
        "reason": audit.reason.value,
        "message": sanitize(audit.message, _MESSAGE_CHARACTERS),
        "type": "Warning" if audit.reason.is_risky else "Normal",
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": sanitize(who, _WHO_CHARACTERS),
    }


def listed(sentences: Sequence[str]) -> tuple[str, ...]:
    """Those that are not empty."""
    return tuple(sentence for sentence in sentences if sentence)
