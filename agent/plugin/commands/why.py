"""`why NODE`: one ordered verdict, and what to type next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from agent.plugin.cluster import node_context as facts
from agent.plugin.cluster.node_context import Facts
from agent.plugin.diagnosis.verdict import Reason, Verdict, verdict
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_node
from agent.plugin.views import table as render
from agent.reboot.state import Phase
from agent.report.node_status import ComplianceStatus
from agent.terminal import printable

_INDENT = 4


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    known = facts.read(session.kube, session.namespace, options.node, session.now())
    found = verdict(known)
    if session.form.is_document:
        session.document(document(known, found))
    else:
        session.write(text(known, found, session))
    return OK if found.well else NOT_WELL


def document(known: Facts, found: Verdict) -> dict[str, Any]:
    """The verdict for programs. `code` is stable; `until` is RFC 3339 or absent."""
    row = known.row
    return {
        "node": row.name,
        "well": found.well,
        "verdict": found.headline,
        "hardening": {
            "status": row.standing.value if row.standing else None,
            "reasons": [_reason(one) for one in found.hardening],
        },
        "reboot": {
            "phase": row.phase.value if row.phase else None,
            "required": row.required,
            "since": render.rfc3339(row.since),
            "sentence": row.sentence,
            "reasons": [_reason(one) for one in found.reboot],
        },
    }


def _reason(reason: Reason) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": reason.code, "said": reason.said, "next": list(reason.next)}
    return shown | {"until": render.rfc3339(reason.until)} if reason.until else shown


def text(known: Facts, found: Verdict, session: Session) -> str:
    """The verdict for eyes: the headline, then what stands in the way in order, each with its next steps."""
    style = session.style
    lines = [
        style.paint(line, render.GOOD if found.well else render.BOLD) for line in style.wrap(printable(found.headline))
    ]
    if found.hardening:
        sure = known.row.standing is ComplianceStatus.HARDENED
        title = "What makes that doubtful" if sure else "Why it is not hardened"
        lines += ["", style.paint(title, render.BOLD)]
        lines += _reasons(found.hardening, session)
    if found.reboot:
        lines += ["", *(style.paint(line, render.BOLD) for line in style.wrap(_title(known), indent=_INDENT))]
        lines += _reasons(found.reboot, session)
    return "\n".join(lines)


def _title(known: Facts) -> str:
    row, now = known.row, known.now
    if row.is_down:
        return "Where its reboot is"
    if row.phase is Phase.UNKNOWN:
        return "Why that cannot be told"
    why = f" by {known.state.reason}" if known.state is not None and known.state.reason else ""
    asked = f", asked for: {row.requested}" if row.requested else ""
    since = f"(wanted for {render.since(row.since, now)}{why}{asked})" if row.since else ""
    return f"Why it does not reboot now {printable(since)}".rstrip()


def _reasons(reasons: Sequence[Reason], session: Session) -> list[str]:
    style = session.style
    lines = []
    for number, reason in enumerate(reasons, 1):
        lead = f"{number:>2}. "
        lines += style.wrap(printable(reason.said), lead=lead, indent=_INDENT)
        for step in reason.next:
            arrow = " " * _INDENT + style.paint("->", render.FAINT) + " "
            # A command is one line, however long: it is there to be pasted.
            if step.startswith("kubectl "):
                lines.append(arrow + "  ".join(printable(part) for part in step.split("  ")))
            else:
                lines += style.wrap(printable(step), lead=arrow, indent=_INDENT + 3)
    return lines


COMMAND = Command("why", "why a node is not hardened, or does not reboot now, and what to do next", _configure, _run)
