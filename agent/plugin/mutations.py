"""What every change has in common: it is shown, asked for, made by compare-and-swap, and told in an Event.

    who = person(session.kube)
    change = Change("pause every reboot", ("no node begins one until …",), …)
    if changes.agreed(session, change, dry_run=options.dry_run): …

It refuses to change anything that nobody agreed to, and to write over what somebody else wrote meanwhile. An Event that
cannot be delivered never undoes a change: it is said, and that is all.
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
from agent.kube import EVENTS, NODES, Kube, Resource
from agent.kube.errors import Conflict
from agent.plugin.session import NOT_WELL, OK, Session
from agent.reboot.cluster import PREFIX, NodeView
from agent.reboot.kube.views import node_view
from agent.terminal import printable
from agent.text import sanitize

MANAGER = "kubectl-node_hardening"
UNLOCKED = f"{PREFIX}/unlocked"
REASON_CHARACTERS = 200
UNKNOWN = "unknown"
_COMPONENT = "kubectl-node-hardening"
_MESSAGE_CHARACTERS = 1024
_NAME_CHARACTERS = 253
_WHO_CHARACTERS = 80
_SWAPS = 5
_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)


class Deed(StrEnum):
    """The reasons of Events that users cause. Stable, as in agent.event_reasons; agents and `notify` send none."""

    is_risky: bool
    meaning: str

    def __new__(cls, value: str, is_risky: bool, meaning: str) -> Self:
        """A plain string to everybody who compares or sends it."""
        deed = str.__new__(cls, value)
        deed._value_ = value
        deed.is_risky = is_risky
        deed.meaning = meaning
        return deed

    REBOOTS_PAUSED = "RebootsPaused", False, "Somebody paused every reboot of the cluster; who, until when and why"
    REBOOTS_RESUMED = "RebootsResumed", False, "Somebody lifted the pause"
    REBOOT_SKIP_SET = "RebootSkipSet", False, "Somebody opted the node out of reboots; who and why"
    REBOOT_SKIP_LIFTED = "RebootSkipLifted", False, "Somebody lifted the node's opt-out"
    REBOOT_ASKED_FOR = "RebootRequested", False, "Somebody asked for a reboot of the node; who and why"
    REBOOT_LOCK_FREED = (
        "RebootLockForceReleased",
        True,
        "Somebody took the reboot lock from its holder; who, from whom and why",
    )


class ChangedMeanwhile(AgentError):
    """Somebody else changed what was about to be changed; nothing was done."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is about to be done. title: an infinitive. lines: exactly what will change, and what follows from it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """An Event to be. resource and name: what it is about; namespace: of that, empty for a Node."""

    deed: Deed
    message: str
    resource: Resource
    name: str
    namespace: str = ""
    uid: str = ""


def configure(parser: argparse.ArgumentParser, *, reason: str = "") -> None:
    """The options of every change: --yes, --dry-run and, with its help, --reason."""
    if reason:
        parser.add_argument("--reason", default="", metavar="TEXT", help=reason)
    parser.add_argument("-y", "--yes", action="store_true", help="change without asking, for scripts")
    parser.add_argument("--dry-run", action="store_true", help="have the server check it all, and change nothing")


def reason_of(options: argparse.Namespace) -> str:
    """--reason on one line. Raises UsageError for one that is longer than a Node's note of it would be."""
    text = " ".join(str(options.reason).split())
    if len(text) > REASON_CHARACTERS:
        raise UsageError(f"--reason has {len(text)} characters: write at most {REASON_CHARACTERS}; nothing was changed")
    return sanitize(text, REASON_CHARACTERS)


def person(kube: Kube) -> str:
    """Who is asking, as the API server knows them; else as their kubeconfig calls them; else `unknown`.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/ (1.28)
    """
    body = {"apiVersion": _REVIEWS.api_version, "kind": _REVIEWS.kind, "metadata": {}}
    try:
        status = kube.create(_REVIEWS, body).get("status")
    except KubeError:
        status = None
    info = status.get("userInfo") if isinstance(status, dict) else None
    name = info.get("username") if isinstance(info, dict) else None
    return sanitize(name if isinstance(name, str) and name else kube.user, _WHO_CHARACTERS) or UNKNOWN


def signed(reason: str, who: str) -> str:
    """A reason with its author, as it stands on a Node: `new firmware (by alice)`."""
    return f"{reason} (by {who})" if reason else f"by {who}"


def agreed(session: Session, change: Change, *, dry_run: bool) -> bool:
    """Shows what will change and asks. A dry run asks nobody. Raises UsageError where nobody can be asked."""
    session.note(f"{'Would' if dry_run else 'Will'} {change.title}:")
    for line in change.lines:
        for part in session.style.wrap(printable(line), lead="  - ", indent=4):
            session.note(part)
    if dry_run or session.confirm("Go on?"):
        return True
    session.note("nothing was changed")
    return False


def declined(session: Session) -> int:
    """The exit code of somebody who said no."""
    if session.form.is_document:
        session.document({"changed": False})
    return NOT_WELL


def done(session: Session, sentence: str, document: Mapping[str, Any], *, changed: bool, dry_run: bool = False) -> int:
    """Says what became of it. The exit code."""
    if session.form.is_document:
        session.document({"changed": changed and not dry_run, "dryRun": dry_run, **document})
    else:
        session.write(f"dry run, nothing was changed; otherwise: {sentence}" if dry_run else sentence)
    return OK


def swap_node(
    kube: Kube,
    seen: NodeView,
    annotations: Mapping[str, str | None],
    *,
    matters: Callable[[NodeView], object],
    dry_run: bool,
) -> NodeView:
    """Sets annotations of a Node that is still as it was seen, as far as it matters; None takes one away.

    A kubelet writes its Node every few seconds, so another version alone is no reason to stop. Raises
    ChangedMeanwhile, KubeError.
    """
    node = seen
    for _ in range(_SWAPS):
        meta = {"resourceVersion": node.version, "annotations": dict(annotations)}
        try:
            return node_view(kube.patch(NODES, node.name, {"metadata": meta}, manager=MANAGER, dry_run=dry_run))
        except Conflict:
            node = node_view(kube.get(NODES, node.name))
            if node.uid != seen.uid or matters(node) != matters(seen):
                break
    raise ChangedMeanwhile(f"node {seen.name} was changed by somebody else meanwhile; nothing was done: look again")


def tell(session: Session, told: Told, *, who: str, dry_run: bool = False) -> None:
    """Leaves an Event. One that cannot be delivered is only said: the change itself stands."""
    if dry_run:
        return
    try:
        session.kube.create(EVENTS, event(told, who=who, when=session.now(), suffix=secrets.token_hex(8)))
    except KubeError as error:
        session.note(f"the change was made, but its Event was not: {error}")


def event(told: Told, *, who: str, when: float, suffix: str) -> dict[str, Any]:
    """The Event object. For a Node its uid is the Node's *name*: that is how `kubectl describe node` finds it."""
    stamp = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": told.resource.api_version, "kind": told.resource.kind, "name": told.name}
    about["uid"] = told.uid or told.name
    if told.namespace:
        about["namespace"] = told.namespace
    name = f"{told.name[: _NAME_CHARACTERS - 17].rstrip('.-')}.{suffix}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": told.namespace or "default"},
        "involvedObject": about,
        "reason": told.deed.value,
        "message": sanitize(told.message, _MESSAGE_CHARACTERS),
        "type": "Warning" if told.deed.is_risky else "Normal",
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": sanitize(who, _WHO_CHARACTERS),
    }


def listed(sentences: Sequence[str]) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(sentence for sentence in sentences if sentence)
