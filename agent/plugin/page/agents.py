"""The page's section about the agents: versions and policies in force, where they differ, what was refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.page import components as parts
from agent.plugin.page.aggregate import Snapshot, named
from agent.plugin.page.components import PLAIN, Cell, Head, Line
from agent.plugin.page.markup import Html, element, said
from agent.plugin.page.summary import Tone
from agent.plugin.views import table as render
from agent.plugin.views.fleet import Overview

_PROBLEMS_SHOWN = 30


def agents(shot: Snapshot, anchors: Mapping[str, str]) -> Html:
    """Which versions and policies are in force, and on which nodes they differ from the most."""
    seen = shot.seen
    none = named(row for row in seen.rows if row.standing is None)
    heads = [
        Head("Version"),
        Head("Policy", "tight"),
        Head("Nodes", "number"),
        Head("Compared", "tight"),
        Head("Which nodes", "words"),
    ]
    lines: list[Line] = [(PLAIN, _mix(shot, number, anchors)) for number in range(len(shot.mixes))]
    if none.total:
        dash, unknown = Cell("\u2013", blank=True), parts.chip(Tone.WARN, "unknown")
        lines.append((PLAIN, ["no agent", dash, f"{none.total:,}", unknown, parts.nodes(none, anchors)]))
    caption = "Versions, and hashes of configuration and profiles, as the agents say them"
    body = [parts.table(caption, heads, lines)] if lines else []
    return parts.section("agents", "Agents and policies", element("p", *_rules(seen)), *body, *_refused(seen, anchors))


def _mix(shot: Snapshot, number: int, anchors: Mapping[str, str]) -> list[Cell | object]:
    mix = shot.mixes[number]
    word: object = Cell("all alike", blank=True)
    if len(shot.mixes) > 1:
        word = parts.chip(Tone.HELD, "differs") if number else parts.chip(Tone.QUIET, "the most")
    policy = said(mix.policy, 64) if mix.policy else element("span", "unknown", class_="faint")
    return [said(mix.version or "unknown", 60), policy, f"{mix.nodes.total:,}", word, parts.nodes(mix.nodes, anchors)]


def _rules(seen: Overview) -> Iterator[object]:
    if seen.rules.problem:
        yield parts.chip(Tone.WARN, "unknown")
        yield " The configuration: "
        yield said(seen.rules.problem)
    else:
        yield "The configuration is in "
        yield said(seen.rules.source)
        yield "."
    if seen.rules.agents is not None:
        ready, wanted = seen.rules.agents
        yield f" {ready:,} of {render.count(wanted, 'agent')} {'is' if ready == 1 else 'are'} ready."
    else:
        yield " How many agents are ready cannot be told."


def _refused(seen: Overview, anchors: Mapping[str, str]) -> Iterator[Html]:
    by_problem: dict[str, list[NodeRow]] = {}
    for row in seen.rows:
        if row.config_problem and (row.config_problem in by_problem or len(by_problem) < _PROBLEMS_SHOWN):
            by_problem.setdefault(row.config_problem, []).append(row)
    if not by_problem:
        return
    heads = [Head("Why", "words"), Head("Nodes", "number"), Head("Which nodes", "words")]
    lines = (
        (PLAIN, [said(problem), f"{len(rows):,}", parts.nodes(named(rows), anchors)])
        for problem, rows in by_problem.items()
    )
    yield element("h3", "Configurations that were refused")
    yield parts.table("These nodes go on with the last good one", heads, lines)
