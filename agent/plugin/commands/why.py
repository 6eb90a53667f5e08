"""`why NODE`: one ordered verdict, and what to type next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from agent.denials.document import State
from agent.plugin.cluster import node_context
from agent.plugin.cluster.denials import NodeDenials
from agent.plugin.cluster.node_context import NodeContext
from agent.plugin.diagnosis.advice import Advice, command
from agent.plugin.diagnosis.verdict import Verdict, verdict
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_node
from agent.plugin.views import fleet, table
from agent.reboot.phases import Phase
from agent.report.compliance import ComplianceStatus

_INDENT = 4


def _run(options: argparse.Namespace, session: Session) -> int:
    context = node_context.read(session.kube, session.namespace, options.node, session.now())
    found = verdict(context)
    session.show(lambda: document(context, found), lambda: text(context, found, session))
    return OK if found.well else NOT_WELL


def document(context: NodeContext, found: Verdict) -> dict[str, Any]:
    """The verdict for programs. `code` is stable; `until` is RFC 3339 or absent."""
    row, seen = context.row, _seen(context)
    return {
        "node": row.name,
        "well": found.well,
        "verdict": found.headline,
        "hardening": {
            "status": row.compliance,
            "reasons": [_advice(one) for one in found.hardening],
        },
        "reboot": {**fleet.reboot_document(row), "reasons": [_advice(one) for one in found.reboot]},
        "denials": {"state": seen.state, "refusedRows": seen.refused} if seen else None,
    }


def _advice(advice: Advice) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": advice.code, "message": advice.message, "next": advice.next}
    return shown | {"until": table.rfc3339(advice.until)} if advice.until else shown


def text(context: NodeContext, found: Verdict, session: Session) -> str:
    """The verdict as text: the headline, then what is in the way in order, each with its next steps."""
    style = session.style
    lines = [style.paint(line, table.GOOD if found.well else table.BOLD) for line in style.wrap(found.headline)]
    if found.hardening:
        sure = context.row.compliance is ComplianceStatus.HARDENED
        lines += ["", style.paint("Why this is uncertain" if sure else "Why it is not hardened", table.BOLD)]
        lines += _list(found.hardening, session)
    if found.reboot:
        lines += ["", *(style.paint(line, table.BOLD) for line in style.wrap(_title(context), indent=_INDENT))]
        lines += _list(found.reboot, session)
    seen = _seen(context)
    if seen is not None and (seen.refused or seen.state is State.BLIND):
        lines += ["", *style.wrap(f"{_denials(seen)}: {command('denials', context.row.name)}")]
    return "\n".join(lines)


def _seen(context: NodeContext) -> NodeDenials | None:
    """Not what a silent agent saw last: that it is silent is among the reasons."""
    return None if context.row.silent_since else context.denials


def _denials(seen: NodeDenials) -> str:
    if seen.state is State.BLIND:
        return "What profiles refuse its containers is not visible"
    return f"Profiles refuse its containers {table.count(seen.refused, 'kind')} of call"


def _title(context: NodeContext) -> str:
    row = context.row
    if row.is_disrupted:
        return "Where its reboot is"
    if row.phase is Phase.UNKNOWN:
        return "Why that is unknown"
    requested = f", requested: {row.requested}" if row.requested else ""
    since = ""
    if row.since and row.phase is not Phase.ROLLED_BACK:
        since = f" (pending for {table.since(row.since, context.now)}{requested})"
    return f"Why it does not reboot now{since}"


def _list(reasons: Sequence[Advice], session: Session) -> list[str]:
    style = session.style
    lines = []
    for number, advice in enumerate(reasons, 1):
        lines += style.wrap(advice.message, lead=f"{number:>2}. ", indent=_INDENT)
        # The same steps for several reasons in a row are below the last of them.
        repeats = number < len(reasons) and reasons[number].next == advice.next
        for step in () if repeats else advice.next:
            lines += table.step(step, style, indent=_INDENT)
    return lines


COMMAND = Command("why", "why a node is not hardened, or does not reboot now, and what to do next", add_node, _run)
