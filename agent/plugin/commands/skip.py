"""`skip NODE`: opt one node out of reboots, or in again. The agent on it sees the annotation immediately."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from agent.annotations import REBOOT_SKIP
from agent.config.schema import Pool
from agent.kube import NODES
from agent.plugin import mutations
from agent.plugin.cluster import nodes
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.advice import command
from agent.plugin.mutations import AuditEvent, AuditReason
from agent.plugin.session import Command, Session, add_node
from agent.reboot.kube.views import node_view
from agent.reboot.phases import Phase


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)
    parser.add_argument("--off", action="store_true", help="remove the opt-out")
    mutations.configure(parser, reason="why; shown wherever the node's reboot waits")


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = mutations.reason_of(options)
    found = nodes.get(session.kube, options.node)
    row = nodes.row(found, Pool())
    before = row.skip
    if options.off and not _skip(found):
        return _done(session, row, "", f"{row.name} is not opted out", changed=False)
    text = "" if options.off else mutations.signed(reason, session.user)
    if before and before == text:
        return _done(session, row, before, f"{row.name} is opted out already: {before}", changed=False)
    lines = [
        f"annotation {REBOOT_SKIP} on node {row.name}: {f'`{text}`' if text else 'removed'}",
        f"current value: `{before}`" if before else "",
        _follows(row, off=options.off),
    ]
    title = f"let {row.name} reboot again" if options.off else f"opt {row.name} out of reboots"
    if not mutations.confirmed(session, title, lines):
        return mutations.declined(session)
    mutations.swap_node(session, found, {REBOOT_SKIP: text or None}, _skip)
    if options.off:
        code, action = AuditReason.REBOOT_SKIP_REMOVED, f"removed the opt-out ({before})"
        result = f"{row.name} is opted in to reboots again"
    else:
        code, action = AuditReason.REBOOT_SKIP_SET, "opted the node out of reboots"
        result = f"{row.name} is opted out; opt it in again with: {command('skip', row.name, '--off')}"
    mutations.record(session, AuditEvent(code, action, reason, NODES, row.name))
    return _done(session, row, text, result, changed=True)


def _skip(found: Mapping[str, Any]) -> str:
    return node_view(found).annotations.get(REBOOT_SKIP, "")


def _follows(row: NodeRow, *, off: bool) -> str:
    """What happens to the node now. Source: agent/reboot/machine, what interrupts a cycle."""
    if off:
        return "it may reboot as soon as nothing else blocks it"
    match row.phase:
        case Phase.CORDONED | Phase.DRAINING:
            return "its cycle is aborted: uncordoned if the agent cordoned it, and the lock released"
        case Phase.REBOOTING:
            return "it may be too late for the reboot under way: once its command was given, the node goes down"
        case Phase.VERIFYING | Phase.RELEASING:
            return "the reboot under way is finished; the node begins no other"
        case Phase.UNKNOWN:
            return "its reboot status is unknown"
        case _:
            return "it begins no reboot until the annotation is removed; hardening continues"


def _done(session: Session, row: NodeRow, skip: str, sentence: str, *, changed: bool) -> int:
    return mutations.done(session, sentence, {"node": row.name, "skip": skip}, changed=changed)


COMMAND = Command("skip", "opt a node out of reboots, or in again with --off", _configure, _run)
