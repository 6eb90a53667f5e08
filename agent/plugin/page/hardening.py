"""The page's sections about hardening: counts, what could not be told, findings by control, nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.model import Status
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.obstacles import ask
from agent.plugin.page import components as parts
from agent.plugin.page.aggregate import Group, Snapshot, Value, by_control
from agent.plugin.page.components import PLAIN, Cell, Head
from agent.plugin.page.markup import Html, command, element, join, said
from agent.plugin.page.summary import Tone, reboot, standing, stands
from agent.plugin.views import fleet as overview
from agent.plugin.views import table as render
from agent.plugin.views.fleet import Overview

# A fleet of this size is listed whole; of a bigger one only what has something to say.
_LISTED_WHOLE = 100
_LISTED = 500
_GROUPS_SHOWN = 150
_POOLS_SHOWN = 30
_QUIET_NAMES = 5000
_POLICY_CHARACTERS = 8


def listed(seen: Overview) -> tuple[tuple[NodeRow, ...], tuple[NodeRow, ...]]:
    """Rows of the nodes' table, worst first, and the quiet ones that are only named."""
    if len(seen.rows) <= _LISTED_WHOLE:
        return seen.rows, ()
    loud = tuple(row for row in seen.rows if not overview.is_quiet(row))
    return loud[:_LISTED], tuple(row for row in seen.rows if overview.is_quiet(row))


# -- counts ------------------------------------------------------------------------------------------------------------


def counts(shot: Snapshot) -> Html:
    """How many, by how they stand and by pool."""
    seen = shot.seen
    standings = stands(seen.rows)
    tiles = [_tile(tone, number, words) for tone, words, number in standings]
    busy = overview.phases(seen.rows)
    wanted = sum(row.wants_reboot for row in seen.rows)
    tiles.append(_tile(Tone.QUIET, wanted, "want a reboot, or are in one"))
    words = ", ".join(f"{number:,} {phase}" for phase, number in busy.items())
    return parts.section(
        "counts",
        render.count(len(seen.rows), "node"),
        _bar(standings) if seen.rows else "",
        element("ul", *tiles, class_="tiles"),
        element("p", f"Reboots: {words}." if words else "Reboots: none wanted."),
        _pools(seen),
    )


def _tile(tone: Tone, number: int, words: str) -> Html:
    return element("li", element("b", f"{number:,}"), parts.mark(tone), " ", words, class_=f"tile {tone.value}")


def _bar(standings: Sequence[tuple[Tone, str, int]]) -> Html:
    """Shares as a bar; the tiles below say the same in numbers."""
    whole = sum(number for _, _, number in standings)
    rects, at = [], 0.0
    for tone, _, number in standings:
        width = 100.0 * number / whole
        gap = 0.25 if at + width < 99.9 else 0.0
        size = f"{max(width - gap, 0.05):.2f}%"
        rects.append(element("rect", x=f"{at:.2f}%", y="0", width=size, height="100%", class_=tone.value))
        at += width
    return element("svg", *rects, class_="bar", aria_hidden="true")


def _pools(seen: Overview) -> Html:
    by_pool: dict[str, list[NodeRow]] = {}
    for row in seen.rows:
        by_pool.setdefault(row.pool, []).append(row)
    heads = [
        Head("Pool"), Head("Nodes", "number"), Head("Hardened", "number"), Head("Not hardened", "number"),
        Head("Cannot be told", "number"), Head("Reboot wanted", "number"), Head("Down for it", "number"),
    ]  # fmt: skip
    pools = sorted(by_pool.items())
    lines = ((PLAIN, _pool(name, rows)) for name, rows in pools[:_POOLS_SHOWN])
    left = len(pools) - _POOLS_SHOWN
    more = element("p", f"and {render.count(left, 'more pool')}") if left > 0 else ""
    return join(
        (parts.table("Nodes that wait for each other's reboots are one pool.", heads, lines, class_="small"), more)
    )


def _pool(name: str, rows: Sequence[NodeRow]) -> list[object]:
    tones = [standing(row)[0] for row in rows]
    good, bad = tones.count(Tone.GOOD), tones.count(Tone.BAD)
    rest = len(rows) - good - bad
    wanted, down = sum(row.wants_reboot for row in rows), sum(row.is_down for row in rows)
    return [said(name), *(f"{number:,}" for number in (len(rows), good, bad, rest, wanted, down))]


def untold(sentences: Iterable[str]) -> Html:
    """What could not be told."""
    items = (element("li", element("bdi", sentence)) for sentence in sentences)
    return parts.section("untold", "What could not be told", element("ul", *items))


# -- findings ----------------------------------------------------------------------------------------------------------


def findings(shot: Snapshot, anchors: Mapping[str, str]) -> Html:
    """Equal findings of all nodes together, by control."""
    if not shot.groups:
        silent = sum(row.standing is None for row in shot.seen.rows)
        but = f" {render.count(silent, 'node')} had no agent to look." if silent else ""
        looked = "Nobody has looked." if silent == len(shot.seen.rows) else f"No agent found anything wrong.{but}"
        return parts.section("findings", "Findings", element("p", looked))
    shown = shot.groups[:_GROUPS_SHOWN]
    tables = (_control(control, groups, anchors) for control, groups in by_control(shown).items())
    left = len(shot.groups) - len(shown)
    more = element("p", f"and {render.count(left, 'more kind')} of findings, less severe than these") if left else ""
    return parts.section("findings", "Findings by control", *tables, more)


def _control(control: str, groups: Sequence[Group], anchors: Mapping[str, str]) -> Html:
    failing = sum(group.status is Status.FAIL for group in groups)
    words = [f"{failing:,} fail" + ("s" if failing == 1 else "")] if failing else []
    if len(groups) > failing:
        words.append(f"{len(groups) - failing:,} cannot be told")
    heads = [
        Head("Finding", "name id"), Head("Severity", "tight"), Head("Result", "tight"), Head("Nodes", "number"),
        Head("Observed", "words"), Head("Which nodes", "words"), Head("Next step", "words"),
    ]  # fmt: skip
    lines = ((PLAIN, _group(group, anchors)) for group in groups)
    title = element("h3", said(control or "without a name"), element("span", f": {', '.join(words)}", class_="faint"))
    return join((title, parts.table(f"What {control or 'it'} found, worst first", heads, lines)))


def _group(group: Group, anchors: Mapping[str, str]) -> list[Cell | object]:
    fails = group.status is Status.FAIL
    result = parts.chip(Tone.BAD, "fails") if fails else parts.chip(Tone.WARN, "cannot be told")
    first = group.nodes.names[0]
    step = said(group.remediation) if group.remediation else parts.steps([ask("diff", first)])
    return [
        said(group.id, 120), parts.severity(group.severity), result, f"{group.nodes.total:,}", _values(group),
        parts.nodes(group.nodes, anchors), step,
    ]  # fmt: skip


def _values(group: Group) -> Html:
    lines = [_value(one, alone=len(group.values) == 1 and not group.other_values) for one in group.values]
    if group.other_values:
        lines.append(element("div", f"something else on {render.count(group.other_values, 'node')}", class_="faint"))
    return join(lines)


def _value(one: Value, *, alone: bool) -> Html:
    expected = join((element("span", ", expected ", class_="faint"), said(one.expected, 200))) if one.expected else ""
    where = "" if alone else element("span", f" on {render.count(one.nodes, 'node')}", class_="faint")
    observed = said(one.observed, 200) if one.observed else element("span", "nothing", class_="faint")
    return element("div", observed, expected, where)


# -- nodes -------------------------------------------------------------------------------------------------------------


def nodes(shot: Snapshot, anchors: Mapping[str, str], rows: Sequence[NodeRow], quiet: Sequence[NodeRow]) -> Html:
    """Worst first; in a big fleet the well ones are only named."""
    seen = shot.seen
    stuck = {lock.holder_uid for lock in seen.locks if lock.is_stuck}
    heads = [
        Head("Node", "name"), Head("Pool", "tight"), Head("Hardened"), Head("Worst finding", "words"),
        Head("Node is", "tight"), Head("Reboot", "tight"), Head("Wanted for", "tight"),
        Head("What its agent says", "words"), Head("Agent", "tight"),
    ]  # fmt: skip
    lines = (
        ({"id": anchors.get(row.name), "data_stands": standing(row)[1]}, _node(row, seen, row.uid in stuck))
        for row in rows
    )
    inside: list[object] = []
    if rows:
        inside.append(parts.table("Who needs somebody first, then who is under way, who waits, and the rest by name",
                                  heads, lines, id="nodes-table"))  # fmt: skip
    left = len(seen.rows) - len(rows) - len(quiet)
    if left > 0:
        inside.append(element("p", f"and {render.count(left, 'more node')} that are not well, counted above: ",
                              command(ask("status", "--all"))))  # fmt: skip
    if quiet:
        inside.append(_quiet(quiet))
    return parts.section("nodes", "Nodes, worst first", *(inside or [element("p", "There are none.")]))


def _node(row: NodeRow, seen: Overview, stuck: bool) -> list[Cell | object]:
    tone, words = standing(row)
    phase = reboot(row, stuck)
    ready = {True: (Tone.QUIET, "Ready"), False: (Tone.HELD, "not Ready"), None: (Tone.WARN, "not heard of")}
    state = [parts.chip(*ready[row.ready])]
    if row.cordoned:
        state.append(element("div", "cordoned"))
    says = [said(row.sentence)] if row.sentence else []
    says += [element("div", "opted out: ", said(row.skip, 160))] if row.skip and row.skip not in row.sentence else []
    says += [element("div", "asked for: ", said(row.requested, 160))] if row.requested else []
    says += [element("div", "configuration refused: ", said(row.config_problem))] if row.config_problem else []
    agent = join((said(row.version or "unknown", 20), element("div", row.policy[:_POLICY_CHARACTERS], class_="faint")))
    return [
        said(row.name), said(row.pool, 24), parts.chip(tone, words), _worst(row), join(state), parts.chip(*phase),
        parts.age(row.since if row.wants_reboot else 0.0, seen.now),
        Cell(join(says) if says else "\u2013", blank=not says),
        Cell("\u2013", blank=True) if row.standing is None else agent,
    ]  # fmt: skip


def _worst(row: NodeRow) -> Cell:
    if row.worst is None:
        return Cell("\u2013", blank=True)
    more = row.failing + row.unknown + row.more - 1
    rest = element("div", f"and {more:,} more", class_="faint") if more else ""
    return Cell(join((parts.severity(row.worst.severity), " ", said(row.worst.id, 120), rest)))


def _quiet(rows: Sequence[NodeRow]) -> Html:
    """Names by pool, behind a click."""
    by_pool: dict[str, list[str]] = {}
    for row in rows[:_QUIET_NAMES]:
        by_pool.setdefault(row.pool, []).append(row.name)
    lists = [
        element("p", element("b", said(pool), f" ({len(names):,}): "), join((said(name) for name in names), ", "))
        for pool, names in sorted(by_pool.items())
    ]
    left = len(rows) - _QUIET_NAMES
    more = element("p", f"and {render.count(left, 'more node')}") if left > 0 else ""
    title = f"{render.count(len(rows), 'node')} that are well, with nothing to do"
    return element("details", element("summary", title), *lists, more, class_="names")
