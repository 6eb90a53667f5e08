"""`skip NODE`: opt one node out of reboots, or in again. The agent on it sees the annotation at once."""

from __future__ import annotations

import argparse

from agent.kube import NODES
from agent.plugin import mutations as changes
from agent.plugin.cluster import nodes as fleet
from agent.plugin.mutations import Change, Deed, Told
from agent.plugin.session import Command, Session, add_node
from agent.reboot.cluster import SKIP, NodeView
from agent.reboot.kube.views import node_view
from agent.reboot.state import Phase


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)
    parser.add_argument("--off", action="store_true", help="take the opt-out away again")
    changes.configure(parser, reason="why, shown wherever the node is said to wait")


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = changes.reason_of(options)
    node = node_view(fleet.get(session.kube, options.node))
    before = _skip(node)
    if options.off and not before:
        return _said(session, node, "", f"{node.name} is not opted out", changed=False)
    who = changes.person(session.kube)
    wanted = "" if options.off else changes.signed(reason, who)
    if before and before == wanted:
        return _said(session, node, before, f"{node.name} is opted out already: {before}", changed=False)
    lines = [
        f"annotation {SKIP} on node {node.name}: {f'`{wanted}`' if wanted else 'taken away'}",
        f"replaces what stands there: `{before}`" if before and wanted else f"it said: `{before}`" if before else "",
        _follows(node, off=options.off),
    ]
    title = (
        f"{'opt' if not options.off else 'let'} {node.name} {'out of reboots' if not options.off else 'reboot again'}"
    )
    if not changes.agreed(session, Change(title, changes.listed(lines)), dry_run=options.dry_run):
        return changes.declined(session)
    changes.swap_node(session.kube, node, {SKIP: wanted or None}, matters=_skip, dry_run=options.dry_run)
    if options.off:
        message = f"{who} lifted the opt-out ({before})" + (f": {reason}" if reason else "")
        told = Told(Deed.REBOOT_SKIP_LIFTED, message, NODES, node.name)
        said = f"{node.name} takes its turn at reboots again"
    else:
        message = f"{who} opted the node out of reboots" + (f": {reason}" if reason else "")
        told = Told(Deed.REBOOT_SKIP_SET, message, NODES, node.name)
        said = f"{node.name} is opted out; let it in again with: kubectl node-hardening skip {node.name} --off"
    changes.tell(session, told, who=who, dry_run=options.dry_run)
    return _said(session, node, wanted, said, changed=True, dry_run=options.dry_run)


def _skip(node: NodeView) -> str:
    return node.annotations.get(SKIP, "")


def _follows(node: NodeView, *, off: bool) -> str:
    """What becomes of the node now. Source: agent/reboot/machine/underway.py, what interrupts a cycle."""
    state = fleet.state_of(node.annotations)
    if off:
        return "it may begin as soon as nothing else holds it back"
    match state.phase if state is not None else None:
        case Phase.CORDONED | Phase.DRAINING:
            return "its cycle is given up: uncordoned where the agent cordoned it, and the lock given back"
        case Phase.REBOOTING:
            return "it may be too late for the reboot that is under way: once its command was given, the node goes down"
        case Phase.VERIFYING | Phase.RELEASING:
            return "the reboot that is under way is finished; the node begins no other"
        case None:
            return "its reboot note cannot be read, so that nothing is done on it anyway"
        case _:
            return "it begins no reboot until the annotation is taken away; hardening goes on"


def _said(session: Session, node: NodeView, skip: str, sentence: str, *, changed: bool, dry_run: bool = False) -> int:
    return changes.done(session, sentence, {"node": node.name, "skip": skip}, changed=changed, dry_run=dry_run)


COMMAND = Command("skip", "opt a node out of reboots, or in again with --off", _configure, _run)
