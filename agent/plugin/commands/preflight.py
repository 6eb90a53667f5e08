"""`preflight [NODE]`: what would block a drain now. Nothing is cordoned, nothing evicted.

Each pod is checked by a dry-run eviction. RBAC does not distinguish that from a real one, so users who may not evict
get an estimate from the disruption budgets, marked as such.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.config.schema import Drain
from agent.errors import KubeError
from agent.kube import ACCESS_REVIEWS, Kube
from agent.plugin.cluster import nodes, policy, values
from agent.plugin.cluster.policy import Policy
from agent.plugin.session import NOT_WELL, OK, Command, Form, Session, add_node, add_selector
from agent.plugin.views.progress import Progress
from agent.plugin.views.table import BAD, GOOD, WARN, Cell, Column, count, table
from agent.reboot.drain import Expected, Preflight, preflight
from agent.reboot.kube.views import node_view

_HOLDS_UP = (Expected.NEVER, Expected.WAITS, Expected.UNKNOWN)
_ORDER = (*_HOLDS_UP, Expected.GOES, Expected.STAYS)
_VERBS = {
    Expected.NEVER: ("cannot be evicted", "cannot be evicted"),
    Expected.WAITS: ("has to wait", "have to wait"),
    Expected.UNKNOWN: ("unknown", "unknown"),
    Expected.GOES: ("can be evicted", "can be evicted"),
    Expected.STAYS: ("stays", "stay"),
}
_COLOURS = {Expected.NEVER: BAD, Expected.WAITS: WARN, Expected.UNKNOWN: WARN, Expected.GOES: GOOD}


@dataclass(frozen=True, slots=True)
class NodePreflight:
    """One node's pods, those first that block the drain."""

    node: str
    pods: tuple[Preflight, ...]

    @property
    def held(self) -> tuple[Preflight, ...]:
        """Pods that a drain would not evict immediately."""
        return tuple(pod for pod in self.pods if pod.expected in _HOLDS_UP)

    def counts(self) -> Counter[Expected]:
        """How many there are of each."""
        return Counter(pod.expected for pod in self.pods)


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser, optional=True)
    add_selector(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    rules = policy.read(session.kube, session.namespace)
    if rules.config is None:
        session.note(f"the agents' drain settings are unknown ({rules.problem}): the defaults are assumed")
    if options.node:
        names = [node_view(nodes.get(session.kube, options.node)).name]
    else:
        rows = nodes.rows(session.kube, rules.pool, selector=options.selector)
        names = [row.name for row in rows if row.wants_reboot and not row.is_disrupted]
        if not names and not session.form.is_document:
            session.write("no node has a reboot pending; pass a NODE to check one anyway")
            return OK
    ask = may_evict(session.kube)
    answers = []
    with Progress(session.err, live=session.live) as progress:
        for number, name in enumerate(names, start=1):
            answers.append(look(session, name, _drain(session, rules, name), ask=ask))
            progress(number, len(names))
    _show(session, answers, one=bool(options.node), asked=ask)
    return NOT_WELL if any(answer.held for answer in answers) or rules.config is None else OK


def _drain(session: Session, rules: Policy, node: str) -> Drain:
    """The settings on one node, which overrides may change; the defaults where they are unknown."""
    if rules.config is not None and rules.config.overrides:
        rules = rules.of_node(node_view(nodes.get(session.kube, node)).labels)
    return rules.reboot.drain


def look(session: Session, node: str, drain: Drain, *, ask: bool) -> NodePreflight:
    """One node. Raises KubeError."""
    found = preflight(session.kube, node, drain, ask=ask)
    text = values.text
    pods = (Preflight(text(one.pod), one.expected, text(one.why), text(one.budget)) for one in found)
    return NodePreflight(node, tuple(sorted(pods, key=lambda pod: (_ORDER.index(pod.expected), pod.pod))))


def may_evict(kube: Kube) -> bool:
    """Whether this user may evict pods, and with that make a dry run of it. Unknown counts as no."""
    attributes = {"verb": "create", "resource": "pods", "subresource": "eviction"}
    body = {"apiVersion": ACCESS_REVIEWS.api_version, "kind": ACCESS_REVIEWS.kind, "metadata": {}}
    try:
        answer = kube.create(ACCESS_REVIEWS, {**body, "spec": {"resourceAttributes": attributes}})
    except KubeError:
        return False
    return values.part(answer, "status").get("allowed") is True


def summary(answer: NodePreflight) -> str:
    """`12 pods on worker-1: 1 cannot be evicted, 9 can be evicted, 2 stay`."""
    counts = answer.counts()
    parts = [f"{counts[one]} {_VERBS[one][counts[one] != 1]}" for one in _ORDER if counts[one]]
    return f"{count(len(answer.pods), 'pod')} on {answer.node}" + (f": {', '.join(parts)}" if parts else "")


def _show(session: Session, answers: Sequence[NodePreflight], *, one: bool, asked: bool) -> None:
    if session.form.is_document:
        nodes = [{"node": answer.node, "pods": [_document(pod) for pod in answer.pods]} for answer in answers]
        session.document({"by": "dry-run evictions" if asked else "estimate", "nodes": nodes})
        return
    if one:
        _show_pods(session, answers[0])
    else:
        _show_nodes(session, answers)
    if not asked:
        session.note(
            "estimated from the disruption budgets: you may not evict pods, and a dry run needs the same permission"
        )


def _show_pods(session: Session, answer: NodePreflight) -> None:
    shown = answer.pods if session.form is Form.WIDE else answer.held
    if shown:
        columns = [Column("POD", elastic=True, least=16), Column("DRAIN"), Column("WHY", elastic=True, least=24)]
        rows: list[list[Cell | str]] = [
            [pod.pod, Cell(pod.expected.value, _COLOURS.get(pod.expected, "")), _why(pod)] for pod in shown
        ]
        session.write(table(columns, rows, session.style))
    verdict = "would be blocked" if answer.held else "would complete"
    session.write(f"a drain {verdict} now: {summary(answer)}")


def _show_nodes(session: Session, answers: Sequence[NodePreflight]) -> None:
    columns = [
        Column("NODE", elastic=True, least=12), Column("EVICTABLE"), Column("WAIT"), Column("NEVER"), Column("UNKNOWN"),
        Column("FIRST OBSTACLE", elastic=True, least=24),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for answer in sorted(answers, key=lambda answer: (not answer.held, answer.node)):
        counts, held = answer.counts(), answer.held
        numbers = [
            _number(counts[one], one) for one in (Expected.GOES, Expected.WAITS, Expected.NEVER, Expected.UNKNOWN)
        ]
        rows.append([answer.node, *numbers, f"{held[0].pod}: {_why(held[0])}" if held else ""])
    session.write(table(columns, rows, session.style))
    held_up = sum(1 for answer in answers if answer.held)
    session.write(f"{held_up} of {count(len(answers), 'pending node')} would be blocked now")


def _number(number: int, expected: Expected) -> Cell:
    return Cell(str(number), _COLOURS[expected] if number and expected is not Expected.GOES else "")


def _why(pod: Preflight) -> str:
    """The budget is more specific than the API server's message."""
    if pod.expected is Expected.WAITS and pod.budget:
        return f"budget {pod.budget} allows no disruption now"
    return pod.why


def _document(pod: Preflight) -> dict[str, str]:
    return {"pod": pod.pod, "expected": pod.expected.value, "why": pod.why, "budget": pod.budget}


COMMAND = Command("preflight", "what would block a drain now; changes nothing", _configure, _run)
