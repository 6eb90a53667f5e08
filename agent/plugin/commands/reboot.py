"""`reboot NODE`: request a reboot, by the path that every reboot takes: lock, drain, windows, verification.

It writes the annotation that the node's agent acts on. It refuses to reboot anything by itself, and to request another
one while a reboot is under way, which would bring a second one behind it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from agent.annotations import REBOOT_REQUEST
from agent.kube import NODES
from agent.plugin import mutations
from agent.plugin.cluster import locks, nodes, policy
from agent.plugin.cluster.nodes import UNDER_WAY, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis import inquiry
from agent.plugin.diagnosis.advice import command
from agent.plugin.mutations import AuditEvent, AuditReason
from agent.plugin.session import Command, Session, add_node
from agent.reboot.status import StatusReason


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)
    mutations.configure(parser, reason="why; shown on the node and kept in its history")


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = mutations.reason_of(options)
    found = nodes.get(session.kube, options.node)
    rules = policy.read(session.kube, session.namespace)
    known = locks.read(session.kube, session.namespace)
    row = nodes.with_locks(nodes.row(found, rules.pool), known)
    if row.phase in UNDER_WAY:
        text = f"{row.name} is {row.phase} already; another request would reboot it twice, so nothing was changed"
        return _done(session, row, text, changed=False)
    if row.requested:
        text = f"requested already: {row.requested}; now: {row.message or 'no agent reports'}"
        return _done(session, row, text, changed=False)
    request = mutations.signed(reason, session.user)
    blocked = inquiry.blocked_by(session, row, rules, known)
    lines = [f"annotation {REBOOT_REQUEST} on node {row.name}: `{request}`", *_follows(row, blocked)]
    if not mutations.confirmed(session, f"request a reboot of {row.name}", lines):
        return mutations.declined(session)
    mutations.swap_node(session, found, {REBOOT_REQUEST: request}, lambda node: _matters(node, rules))
    audit = AuditEvent(AuditReason.REBOOT_REQUESTED, "requested a reboot", reason, NODES, row.name)
    mutations.record(session, audit)
    text = f"a reboot of {row.name} is requested; follow it with: {command('why', row.name)}"
    return _done(session, row, text, changed=True, request=request, blocked=blocked)


def _follows(row: NodeRow, blocked: tuple[str, ...]) -> Iterator[str]:
    """What the request changes, and what still blocks it."""
    if row.reason in (StatusReason.BACKING_OFF, StatusReason.SENTINEL_UNCHANGED):
        yield f"it does not wait any longer for its back-off or the loop guard ({row.message})"
    elif row.required:
        yield f"it needs one already ({row.message}): the request does not move it forward"
    yield "its agent acquires the lock, cordons, drains and reboots it as soon as nothing blocks it"
    yield from (f"blocked now: {one}" for one in blocked)
    if not blocked:
        yield "nothing blocks it now: expect it to begin within seconds"
    yield f"preview of the drain: {command('preflight', row.name)}"


def _matters(found: Mapping[str, Any], rules: Policy) -> object:
    """Another user's request, or a cycle that has begun meanwhile."""
    row = nodes.row(found, rules.pool)
    return row.requested, row.phase in UNDER_WAY


def _done(
    session: Session, row: NodeRow, sentence: str, *, changed: bool, request: str = "", blocked: tuple[str, ...] = ()
) -> int:
    document = {
        "node": row.name, "request": request or row.requested, "blockedBy": list(blocked), "message": row.message,
    }  # fmt: skip
    return mutations.done(session, sentence, document, changed=changed)


COMMAND = Command("reboot", "request a reboot of a node, by the same path as every other", _configure, _run)
