"""`policy NODE`: the policy of one node, merged for its labels, and where each value comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

from agent.config import revision
from agent.config.overrides import Origin, matching, origins
from agent.config.validation import refused
from agent.errors import AgentError
from agent.plugin.cluster import nodes, policy, values
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_node
from agent.plugin.views.table import FAINT, WARN, Cell, Column, table
from agent.reboot.kube.views import node_view
from agent.rollout import reports


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)
    parser.add_argument("--all", action="store_true", help="defaults too")


def _run(options: argparse.Namespace, session: Session) -> int:
    found = nodes.get(session.kube, options.node)
    rules = policy.read(session.kube, session.namespace)
    if rules.config is None:
        raise AgentError(f"the policy is unknown: {rules.problem}")
    labels = node_view(found).labels
    chosen = matching(rules.config, labels)
    newest, running = revision(rules.config), reports.report(found).revision
    clashes = [f"{key}: {message}" for key, message in refused(rules.config, chosen)]
    listed = [one for one in origins(rules.config, rules.lines, labels) if options.all or one.override or one.line]
    names = [one.name for one in chosen]
    if session.form.is_document:
        session.document(
            {"node": options.node, "source": rules.source, "revision": newest, "inForce": running or None,
             "overrides": names, "contradictions": clashes, "values": [document(one) for one in listed]}
        )  # fmt: skip
        return NOT_WELL if clashes else OK
    session.write(f"{rules.source}, revision {newest}; overrides for {options.node}: {', '.join(names) or 'none'}")
    for clash in clashes:
        session.write(session.style.paint(f"contradiction: {values.text(clash)}", WARN))
    if reports.policy_of(running) not in ("", newest):
        session.write(f"in force is revision {running}: kubectl node-hardening rollout status")
    session.write(shown(listed, session) if listed else "every value is the default (--all lists them)")
    return NOT_WELL if clashes else OK


def shown(listed: list[Origin], session: Session) -> str:
    """A table of values and where they come from."""
    columns = [Column("KEY"), Column("VALUE", elastic=True, least=20), Column("FROM")]
    rows = [
        (values.text(one.key), values.text(json.dumps(one.value)), Cell(one.source, "" if one.line else FAINT))
        for one in listed
    ]
    return table(columns, rows, session.style)


def document(one: Origin) -> dict[str, Any]:
    """One value for programs."""
    return {"key": one.key, "value": one.value, "override": one.override or None, "line": one.line or None}


COMMAND = Command("policy", "a node's policy, merged for its labels, and where each value comes from", _configure, _run)
