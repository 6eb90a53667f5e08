"""The page's sections about reboots: locks, pause, who waits for what, and the reboots of the past. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.page import components as parts
from agent.plugin.page.aggregate import Snapshot
from agent.plugin.page.components import PLAIN, Cell, Head
from agent.plugin.page.markup import Html, command, element, join, said, text
from agent.plugin.page.summary import Tone, paused
from agent.plugin.page.waiting_table import Wait, waits
from agent.plugin.views import history as past
from agent.plugin.views import table as render
from agent.plugin.views.fleet import Overview
from agent.reboot.state import Phase

_LOCKS_SHOWN = 60


def reboots(shot: Snapshot, anchors: Mapping[str, str]) -> Html:
    """The locks, the pause, and what holds the others back."""
    seen = shot.seen
    return parts.section(
        "reboots", "Reboots now", element("p", *_pause(seen)), _locks(seen, anchors), *_waits(seen, anchors)
    )


def _pause(seen: Overview) -> Iterator[object]:
    if not seen.pause.is_known:
        yield parts.chip(Tone.WARN, "unknown")
        yield " Whether reboots are paused cannot be told; the agents take that for a pause."
    elif seen.pause.active:
        yield parts.chip(Tone.HELD, "paused")
        yield " Reboots are paused "
        yield element("bdi", paused(seen))
        yield "."
    else:
        yield "Reboots are not paused."


def _locks(seen: Overview, anchors: Mapping[str, str]) -> Html:
    if seen.locks_problem:
        return element(
            "p", parts.chip(Tone.WARN, "unknown"), " Who holds the locks cannot be read: ", said(seen.locks_problem)
        )
    if not seen.locks:
        return element("p", "There is no lock yet: no node has asked for one.")
    heads = [
        Head("Lock", "tight"), Head("State", "tight"), Head("Held by"), Head("For", "tight"),
        Head("Waiting for it", "number"), Head("What the holder says", "words"), Head("Last reboot", "tight"),
    ]  # fmt: skip
    by_uid = {row.uid: row for row in seen.rows}
    lines = ((PLAIN, _lock(lock, seen, by_uid, anchors)) for lock in seen.locks[:_LOCKS_SHOWN])
    left = len(seen.locks) - _LOCKS_SHOWN
    more = element("p", f"and {render.count(left, 'more lock')}") if left > 0 else ""
    return join((parts.table("The reboot locks: who holds one may be down", heads, lines), more))


def _lock(lock: Lock, seen: Overview, by_uid: Mapping[str, NodeRow], anchors: Mapping[str, str]) -> list[Cell | object]:
    waiting = sum(row.pool == lock.pool and row.phase is Phase.WAITING for row in seen.rows)
    last = lock.view.last_reboot
    ended = Cell(render.stamp(last)) if last else Cell("\u2013", blank=True)
    if lock.is_free:
        nobody = Cell("\u2013", blank=True)
        return [said(lock.name), parts.chip(Tone.QUIET, "free"), nobody, nobody, f"{waiting:,}", nobody, ended]
    tone, words = (Tone.BAD, "stuck") if lock.is_stuck else (Tone.BUSY, "held")
    holder = by_uid.get(lock.holder_uid)
    says = said(holder.sentence) if holder is not None else text("its Node is not among those that were read")
    return [
        said(lock.name), parts.chip(tone, words), parts.node(lock.holder, anchors), parts.age(lock.acquired, seen.now),
        f"{waiting:,}", says, ended,
    ]  # fmt: skip


def _waits(seen: Overview, anchors: Mapping[str, str]) -> Iterator[Html]:
    found, left = waits(seen)
    if not found:
        return
    heads = [
        Head("What holds them back", "words"), Head("Nodes", "number"), Head("Which nodes", "words"),
        Head("The longest", "tight"), Head("Next step", "words"),
    ]  # fmt: skip
    lines = ((PLAIN, _wait(wait, seen, anchors)) for wait in found)
    yield element("h3", "Why reboots wait")
    yield parts.table("Nodes that want a reboot and do not begin it", heads, lines)
    if left:
        yield element("p", f"and {render.count(left, 'more node')} for other reasons")


def _wait(wait: Wait, seen: Overview, anchors: Mapping[str, str]) -> list[Cell | object]:
    return [
        said(wait.said, 400), f"{wait.nodes.total:,}", parts.nodes(wait.nodes, anchors),
        parts.age(wait.since, seen.now), _steps(wait.next),
    ]  # fmt: skip


def _steps(some: Sequence[str]) -> Html:
    """Commands as such; the rest is advice in words."""
    return join(
        element("span", command(one), class_="step") if one.startswith("kubectl ") else element("div", one)
        for one in some
    )


# -- the past ----------------------------------------------------------------------------------------------------------


def history(shot: Snapshot, anchors: Mapping[str, str]) -> Html:
    """The last reboots of all nodes."""
    known = shot.past
    if not known.last:
        return parts.section("history", "Past reboots", element("p", "No reboot by an agent is on record."))
    heads = [
        Head("Node", "name"), Head("When", "tight"), Head("Took", "tight"), Head("Kernel", "words"),
        Head("Why", "words"), Head("Phases", "words"), Head("Pods", "number"), Head("Slowest pod", "words"),
    ]  # fmt: skip
    lines = (
        (
            PLAIN,
            [
                parts.node(name, anchors), Cell(render.stamp(one.at), sort=str(one.at)), render.age(one.seconds),
                _kernel(one.kernel_before, one.kernel_after), parts.none_or(one.reason, characters=160),
                said(past.phases(one), 200), f"{one.pods:,}", parts.none_or(one.slowest),
            ],
        )
        for name, one in known.last
    )  # fmt: skip
    shown = f"the last {len(known.last):,} are shown" if known.total > len(known.last) else "all are shown"
    took = f"from cordon to uncordon {render.age(known.median)} in the middle, {render.age(known.longest)} at most"
    of = f"{render.count(known.total, 'reboot')} of {render.count(known.nodes, 'node')} (each remembers its last five)"
    return parts.section(
        "history", "Past reboots", element("p", f"{of}; {shown}; {took}."), parts.table("Newest first", heads, lines)
    )


def _kernel(before: str, after: str) -> Html:
    if not before or before == after:
        return said(after, 60) if after else element("span", "unknown", class_="faint")
    return join((said(before, 60), text(" \u2192 "), said(after, 60)))
