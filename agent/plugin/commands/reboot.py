"""`reboot NODE`: ask for a reboot, by the path that every reboot takes: lock, drain, windows, proof.

It writes the annotation that the node's agent answers. It refuses to reboot anything by itself, and to ask once more
while a reboot is under way, which would bring a second one behind it.
"""

from __future__ import annotations

import argparse

from agent.kube import NODES
from agent.plugin import mutations as changes
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.nodes import DISRUPTED, NodeRow
from agent.plugin.diagnosis import inquiry
from agent.plugin.mutations import Change, Deed, Told
from agent.plugin.session import Command, Session, add_node
from agent.reboot.cluster import REQUEST, NodeView
from agent.reboot.kube.views import node_view
from agent.reboot.state import Phase

_UNDER_WAY = DISRUPTED | {Phase.LOCKED, Phase.RELEASING}


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)
    changes.configure(parser, reason="why; it is shown on the node and kept in its history")


def _run(options: argparse.Namespace, session: Session) -> int:
    reason = changes.reason_of(options)
    found = fleet.get(session.kube, options.node)
    rules = policy.read(session.kube, session.namespace)
    node, row = node_view(found), fleet.row(found, rules.pool)
    if row.phase in _UNDER_WAY:
        text = (
            f"{row.name} is at it already: {row.sentence}; asking again would reboot it twice, so nothing was changed"
        )
        return _said(session, row, text, changed=False)
    if row.requested:
        text = f"asked for already: {row.requested}; now: {row.sentence or 'no agent answers'}"
        return _said(session, row, text, changed=False)
    who = changes.person(session.kube)
    wanted = changes.signed(reason, who)
    stand = inquiry.held_back_by(session, row, rules, locks.read(session.kube, session.namespace))
    lines = [
        f"annotation {REQUEST} on node {row.name}: `{wanted}`",
        f"it wants one anyway ({row.sentence}): asking does not move it forward" if row.required else "",
        "its agent takes the lock, cordons, drains and reboots it as soon as nothing holds it back",
        *(f"holds it back now: {one}" for one in stand),
        "" if stand else "nothing holds it back now: expect it to begin within seconds",
        f"preview of the drain: kubectl node-hardening preflight {row.name}",
    ]
    if not changes.agreed(
        session, Change(f"ask for a reboot of {row.name}", changes.listed(lines)), dry_run=options.dry_run
    ):
        return changes.declined(session)
    changes.swap_node(session.kube, node, {REQUEST: wanted}, matters=_matters, dry_run=options.dry_run)
    message = f"{who} asked for a reboot" + (f": {reason}" if reason else "")
    changes.tell(session, Told(Deed.REBOOT_ASKED_FOR, message, NODES, row.name), who=who, dry_run=options.dry_run)
    text = f"a reboot of {row.name} is asked for; follow it with: kubectl node-hardening why {row.name}"
    return _said(session, row, text, changed=True, wanted=wanted, stand=stand, dry_run=options.dry_run)


def _matters(node: NodeView) -> object:
    """A request of somebody else, or a cycle that has begun meanwhile."""
    state = fleet.state_of(node.annotations)
    begun = state is not None and state.phase in _UNDER_WAY
    return node.annotations.get(REQUEST, ""), begun


def _said(
    session: Session,
    row: NodeRow,
    sentence: str,
    *,
    changed: bool,
    wanted: str = "",
    stand: tuple[str, ...] = (),
    dry_run: bool = False,
) -> int:
    document = {"node": row.name, "request": wanted or row.requested, "heldBackBy": list(stand), "said": row.sentence}
    return changes.done(session, sentence, document, changed=changed, dry_run=dry_run)


COMMAND = Command("reboot", "ask for a reboot of a node, by the same path as every other", _configure, _run)
