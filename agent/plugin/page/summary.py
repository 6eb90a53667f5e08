"""The page's first answer: how the fleet stands in one sentence, what to look at first, and what could not be told.

Pure. Whatever could not be told is said apart, and is never a part of what is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.model import Severity, Status
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.obstacles import ask
from agent.plugin.page.aggregate import Group, Snapshot
from agent.plugin.views import fleet as overview
from agent.plugin.views import table as render
from agent.plugin.views.fleet import Overview
from agent.reboot.state import Phase
from agent.report.node_status import ComplianceStatus


class Tone(StrEnum):
    """How something stands; every tone has a sign and words besides its colour."""

    GOOD = "good"
    BAD = "bad"
    HELD = "held"
    WARN = "warn"  # it cannot be told
    BUSY = "busy"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to look at. step: a command to type, empty for none. where: the page's section that says more."""

    tone: Tone
    said: str
    step: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """headline: one sentence. points: the worst first. untold: what could not be told, in sentences."""

    tone: Tone
    headline: str
    points: tuple[Point, ...]
    untold: tuple[str, ...]


_URGENT = (Tone.BAD, Tone.WARN, Tone.HELD, Tone.BUSY, Tone.QUIET, Tone.GOOD)


def judge(shot: Snapshot) -> Judgement:
    """The judgement."""
    seen = shot.seen
    untold = tuple(_untold(shot))
    points = tuple(sorted(_points(shot), key=lambda point: _URGENT.index(point.tone)))
    if not seen.rows:
        what = f"with the labels {shot.heading.selector}" if shot.heading.selector else "in this cluster"
        return Judgement(Tone.WARN, f"There is no node {what}: nothing can be said.", points, untold)
    known_bad = sum(_is_known_bad(row) for row in seen.rows)
    doubtful = sum(overview.is_trouble(row) and not _is_known_bad(row) for row in seen.rows)
    stuck = sum(lock.is_stuck for lock in seen.locks)
    whole = render.count(len(seen.rows), "node")
    if known_bad or stuck:
        parts = [f"{known_bad:,} of {whole} {_need(known_bad)} attention"] if known_bad else []
        if doubtful:
            parts.append(f"{doubtful:,} more cannot be told" if parts else f"{doubtful:,} of {whole} cannot be told")
        if stuck:
            parts.append("the reboot lock is stuck" if stuck == 1 else f"{stuck} reboot locks are stuck")
        return Judgement(Tone.BAD, f"{_sentence(parts)}.", points, untold)
    if doubtful or untold:
        what = f"{doubtful:,} of {whole} cannot be told" if doubtful else "not everything could be told"
        return Judgement(Tone.WARN, f"Nothing is known to be wrong, but {what}.", points, untold)
    all_of = "The only node is" if len(seen.rows) == 1 else f"All {whole} are"
    busy = sum(row.wants_reboot for row in seen.rows)
    wants = f"; {render.count(busy, 'node')} {'wants' if busy == 1 else 'want'} a reboot" if busy else ""
    return Judgement(Tone.GOOD, f"{all_of} hardened{wants}.", points, untold)


def standing(row: NodeRow) -> tuple[Tone, str]:
    """The node in a word or two; what a silent node said last is not called well."""
    match row.standing:
        case None:
            return Tone.WARN, overview.NO_AGENT
        case ComplianceStatus.HARDENED if row.is_well:
            return Tone.GOOD, "hardened"
        case ComplianceStatus.HARDENED if not overview.is_trouble(row):
            return Tone.BUSY, "hardened, now down"
        case ComplianceStatus.HARDENED:
            return Tone.WARN, "hardened earlier"
        case ComplianceStatus.UNKNOWN:
            return Tone.WARN, "unknown"
        case word:
            return Tone.BAD, word.value


def reboot(row: NodeRow, stuck: bool) -> tuple[Tone, str]:
    """The reboot in a word or two."""
    if stuck:
        return Tone.BAD, "stuck"
    match row.phase:
        case None:
            return Tone.QUIET, "nobody looks"
        case Phase.IDLE:
            return Tone.QUIET, "none wanted"
        case Phase.FAILED:
            return Tone.BAD, "failed"
        case Phase.UNKNOWN:
            return Tone.WARN, "unknown"
        case Phase.BLOCKED | Phase.WAITING | Phase.WANTED as phase:
            return Tone.HELD if phase is Phase.BLOCKED else Tone.QUIET, phase.value
        case phase:
            return Tone.BUSY, phase.value


def stands(rows: Sequence[NodeRow]) -> list[tuple[Tone, str, int]]:
    """Nodes by how they stand, in the order of a reader's interest; the words are `standing`'s."""
    found = Counter(standing(row) for row in rows)
    order = [Tone.GOOD, Tone.BAD, Tone.HELD, Tone.WARN, Tone.BUSY, Tone.QUIET]
    return [(*key, found[key]) for key in sorted(found, key=lambda key: (order.index(key[0]), -found[key], key[1]))]


def _is_known_bad(row: NodeRow) -> bool:
    """Known to be wrong, rather than unknown."""
    return row.standing in (ComplianceStatus.NON_COMPLIANT, ComplianceStatus.FAILED) or row.phase is Phase.FAILED


def _need(number: int) -> str:
    return "needs" if number == 1 else "need"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _sentence(parts: Sequence[str]) -> str:
    joined = "; ".join(parts)
    return joined[0].upper() + joined[1:]


# -- what to look at ---------------------------------------------------------------------------------------------------


def _points(shot: Snapshot) -> Iterator[Point]:
    seen = shot.seen
    for lock in seen.locks:
        if lock.is_stuck:
            yield _stuck(lock, seen)
    yield from _hardening(shot)
    yield from _silent(seen)
    yield from _refused(seen)
    yield from _rebooting(seen)


def _stuck(lock: Lock, seen: Overview) -> Point:
    ago = f" {render.since(lock.renewed, seen.now)} ago" if lock.renewed else ""
    waits = sum(row.pool == lock.pool and row.phase is Phase.WAITING for row in seen.rows)
    who = f"; {render.count(waits, 'node')} {'waits' if waits == 1 else 'wait'} for it" if waits else ""
    text = f"The lock {lock.name} is stuck: {lock.holder} went down to reboot{ago} and did not come back{who}."
    return Point(Tone.BAD, text, ask("why", lock.holder), "reboots")


def _hardening(shot: Snapshot) -> Iterator[Point]:
    rows = shot.seen.rows
    bad = [row for row in rows if row.standing in (ComplianceStatus.NON_COMPLIANT, ComplianceStatus.FAILED)]
    if bad:
        failing = [group for group in shot.groups if group.status is Status.FAIL]
        worst = f" The worst: {_worst(failing[0])}." if failing else " They do not say in what."
        text = f"{render.count(len(bad), 'node')} {_are(len(bad))} not hardened.{worst}"
        yield Point(Tone.BAD, text, ask("why", bad[0].name), "findings")
    unknown = [row for row in rows if row.standing is ComplianceStatus.UNKNOWN]
    if unknown:
        who = "it is" if len(unknown) == 1 else "they are"
        text = f"Of {render.count(len(unknown), 'node')} it cannot be told whether {who} hardened."
        yield Point(Tone.WARN, text, ask("why", unknown[0].name), "findings")


def _worst(group: Group) -> str:
    severity = f"{group.severity.value} " if group.severity is not Severity.INFO else ""
    return f"{severity}{group.id} on {render.count(group.nodes.total, 'node')}"


def _silent(seen: Overview) -> Iterator[Point]:
    none = [row for row in seen.rows if row.standing is None]
    if none:
        step = f"kubectl -n {seen.namespace} get pods -o wide"
        yield Point(Tone.WARN, f"No agent ever looked at {render.count(len(none), 'node')}.", step, "nodes")
    away = [row for row in seen.rows if row.ready is not True and row.phase not in (Phase.REBOOTING, Phase.VERIFYING)]
    if away:
        text = f"{render.count(len(away), 'node')} {_are(len(away))} not Ready: what they say is as old as that."
        yield Point(Tone.WARN, text, f"kubectl describe node {away[0].name}", "nodes")
    ready, wanted = seen.rules.agents or (0, 0)
    not_ready = sum(row.ready is not True for row in seen.rows)
    if wanted - ready > not_ready:
        text = f"{ready:,} of {wanted:,} agents are ready; the others' nodes show what they said last."
        yield Point(Tone.WARN, text, f"kubectl -n {seen.namespace} get pods -o wide", "agents")


def _refused(seen: Overview) -> Iterator[Point]:
    refused = [row for row in seen.rows if row.config_problem]
    if refused:
        go = "goes" if len(refused) == 1 else "go"
        text = f"{render.count(len(refused), 'node')} refused the configuration, and {go} on with the last good one."
        yield Point(Tone.HELD, text, ask("why", refused[0].name), "agents")


def _rebooting(seen: Overview) -> Iterator[Point]:
    failed = [row for row in seen.rows if row.phase is Phase.FAILED]
    if failed:
        text = f"The reboot of {render.count(len(failed), 'node')} failed and was rolled back."
        yield Point(Tone.BAD, text, ask("why", failed[0].name), "nodes")
    if seen.pause.active and seen.pause.is_known:
        yield Point(Tone.HELD, f"Reboots are paused {paused(seen)}.", ask("resume"), "reboots")
    waits = [row for row in seen.rows if row.wants_reboot and row.phase is not Phase.FAILED]
    if waits:
        oldest = min((row.since for row in waits if row.since), default=0.0)
        longest = f", one of them for {render.since(oldest, seen.now)}" if oldest else ""
        plural = "a reboot is wanted or under way"
        yield Point(Tone.QUIET, f"On {render.count(len(waits), 'node')} {plural}{longest}.", ask("forecast"), "reboots")


def paused(seen: Overview) -> str:
    """How long, by whom and why, after `paused`."""
    return seen.pause.sentence.removeprefix("the cluster's pause").strip() or "until somebody resumes them"


# -- what could not be told --------------------------------------------------------------------------------------------


def _untold(shot: Snapshot) -> Iterator[str]:
    seen = shot.seen
    if seen.locks_problem:
        yield f"Who holds the reboot locks: they cannot be read ({seen.locks_problem})."
    if seen.pause.active and not seen.pause.is_known:
        yield f"Whether reboots are paused: {seen.pause.sentence}."
    if seen.rules.problem:
        yield f"The agents' configuration, and with it windows and pools: {seen.rules.problem}."
    if seen.rules.agents is None:
        yield "How many agents run: the DaemonSet cannot be read, or has no status yet."
    if shot.unlisted:
        text = render.count(shot.unlisted, "finding")
        yield f"{text} that the Nodes had no room for: in no group below, and in the agents' logs."
    if shot.groups_left:
        yield f"At least {render.count(shot.groups_left, 'finding')} of other kinds than the page has room for."
    unsure = [row for row in seen.rows if row.phase is Phase.UNKNOWN]
    if unsure:
        yield f"Whether {render.count(len(unsure), 'node')} {_need(len(unsure))} a reboot (first {unsure[0].name})."
