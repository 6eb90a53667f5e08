"""The page's first answer: the fleet's status in one sentence, what to look at first, and what is unknown.

Pure. Whatever is unknown is listed apart, and never counts as hardened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.model import Severity, Status
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.advice import command, kubectl
from agent.plugin.page.aggregate import Group, Snapshot
from agent.plugin.views import fleet
from agent.plugin.views.fleet import Fleet
from agent.plugin.views.table import count, since
from agent.reboot.phases import Phase
from agent.report.compliance import ComplianceStatus

# A fleet of this size is listed completely; of a bigger one only what needs attention.
_LISTED_COMPLETELY = 100
_LISTED = 500
_NOT_HARDENED = (ComplianceStatus.NON_COMPLIANT, ComplianceStatus.FAILED)


class Tone(StrEnum):
    """What something is, in the order of a reader's interest; each has a sign and words besides its colour."""

    GOOD = "good"
    BAD = "bad"
    HELD = "held"
    WARN = "warn"  # unknown
    BUSY = "busy"
    QUIET = "quiet"


_URGENT = (Tone.BAD, Tone.WARN, Tone.HELD, Tone.BUSY, Tone.QUIET, Tone.GOOD)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to look at. step: a command to type, empty for none. section: of the page, with more about it."""

    tone: Tone
    message: str
    step: str = ""
    section: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """headline: one sentence. points: the worst first. unknown: what is unknown, in sentences."""

    tone: Tone
    headline: str
    points: tuple[Point, ...]
    unknown: tuple[str, ...]


def summarize(shot: Snapshot) -> Summary:
    """The summary."""
    seen = shot.fleet
    unknown = tuple(_unknown(shot))
    points = tuple(sorted(_points(shot), key=lambda point: _URGENT.index(point.tone)))
    if not seen.rows:
        where = f"matches {shot.heading.selector}" if shot.heading.selector else "in this cluster"
        return Summary(Tone.WARN, f"No node {where}.", points, unknown)
    return Summary(*_headline(seen, is_complete=not unknown), points, unknown)


def _headline(seen: Fleet, *, is_complete: bool) -> tuple[Tone, str]:
    bad = sum(_is_known_bad(row) for row in seen.rows)
    doubtful = sum(fleet.is_trouble(row) and not _is_known_bad(row) for row in seen.rows)
    stuck = len(seen.stuck)
    whole = count(len(seen.rows), "node")
    unknown = f"{doubtful:,} unknown" if bad else f"{doubtful:,} of {whole} unknown"
    if bad or stuck:
        parts = [f"{bad:,} of {whole} {_need(bad)} attention"] if bad else []
        parts += [unknown] if doubtful else []
        parts += [count(stuck, "reboot lock") + (" is stuck" if stuck == 1 else " are stuck")] if stuck else []
        return Tone.BAD, f"{'; '.join(parts)}."
    if doubtful or not is_complete:
        return Tone.WARN, f"No problem is known, but {unknown if doubtful else 'not everything could be read'}."
    all_of = "The only node is" if len(seen.rows) == 1 else f"All {whole} are"
    busy = sum(row.wants_reboot for row in seen.rows)
    reboots = f"; {count(busy, 'node')} {_need(busy)} a reboot" if busy else ""
    return Tone.GOOD, f"{all_of} hardened{reboots}."


def compliance(row: NodeRow) -> tuple[Tone, str]:
    """The node in a word or two; what a silent node reported last is not called hardened."""
    match row.compliance:
        case None:
            return Tone.WARN, fleet.NO_AGENT
        case ComplianceStatus.HARDENED if row.is_well:
            return Tone.GOOD, "hardened"
        case ComplianceStatus.HARDENED if not fleet.is_trouble(row):
            return Tone.BUSY, "hardened, rebooting"
        case ComplianceStatus.HARDENED:
            return Tone.WARN, "hardened earlier"
        case ComplianceStatus.UNKNOWN:
            return Tone.WARN, "unknown"
        case word:
            return Tone.BAD, word.value


def reboot(row: NodeRow, *, stuck: bool) -> tuple[Tone, str]:
    """The reboot in a word or two."""
    if stuck:
        return Tone.BAD, "stuck"
    if row.phase is None:
        return Tone.QUIET, "off" if row.mode else "no status"
    tones = {Phase.ROLLED_BACK: Tone.BAD, Phase.UNKNOWN: Tone.WARN, Phase.BLOCKED: Tone.HELD}
    tones |= dict.fromkeys((Phase.IDLE, Phase.WAITING, Phase.PENDING), Tone.QUIET)
    return tones.get(row.phase, Tone.BUSY), row.phase.value


def by_compliance(rows: Sequence[NodeRow]) -> list[tuple[Tone, str, int]]:
    """Nodes by status, in the order of a reader's interest; the words are those of `compliance`."""
    found = Counter(map(compliance, rows))
    order = list(Tone)
    return [(*key, found[key]) for key in sorted(found, key=lambda key: (order.index(key[0]), -found[key], key[1]))]


def listed(seen: Fleet) -> tuple[tuple[NodeRow, ...], tuple[NodeRow, ...]]:
    """Rows of the nodes' table, worst first, and the quiet ones that are only named."""
    if len(seen.rows) <= _LISTED_COMPLETELY:
        return seen.rows, ()
    loud = tuple(row for row in seen.rows if not fleet.is_quiet(row))
    return loud[:_LISTED], tuple(row for row in seen.rows if fleet.is_quiet(row))


def _is_known_bad(row: NodeRow) -> bool:
    """Known to be wrong, rather than unknown."""
    return row.compliance in _NOT_HARDENED or row.phase is Phase.ROLLED_BACK


def _need(number: int) -> str:
    return "needs" if number == 1 else "need"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


# -- what to look at ---------------------------------------------------------------------------------------------------


def _points(shot: Snapshot) -> Iterator[Point]:
    seen = shot.fleet
    for lock in seen.locks:
        if not lock.is_free and not lock.holder:
            text = f"Lock {lock.name} is held by {lock.shown_holder}."
            yield Point(Tone.BAD, text, command("unlock", lock.name), "reboots")
        elif seen.is_stuck(lock):
            yield _stuck(lock, seen)
    yield from _hardening(shot)
    yield from _cluster(shot)
    yield from _silent(seen)
    yield from _agents(seen)
    yield from _rebooting(seen)
    refused = [row for row in seen.rows if row.denials]
    if refused:
        text = f"Profiles refuse calls of containers on {count(len(refused), 'node')}."
        yield Point(Tone.HELD, text, command("denials"))


def _stuck(lock: Lock, seen: Fleet) -> Point:
    ago = f" {since(lock.renewed, seen.now)} ago" if lock.renewed else ""
    waits = sum(row.pool == lock.pool and row.phase is Phase.WAITING for row in seen.rows)
    who = f"; {count(waits, 'node')} {'waits' if waits == 1 else 'wait'} for it" if waits else ""
    text = f"Lock {lock.name} is stuck: {lock.holder} went down to reboot{ago} and did not come back{who}."
    return Point(Tone.BAD, text, command("why", lock.holder), "reboots")


def _hardening(shot: Snapshot) -> Iterator[Point]:
    rows = shot.fleet.rows
    bad = [row for row in rows if row.compliance in _NOT_HARDENED]
    if bad:
        failing = [group for group in shot.groups if group.status is Status.FAIL]
        worst = f" Worst: {_worst(failing[0])}." if failing else " Their Nodes do not list why."
        text = f"{count(len(bad), 'node')} {_are(len(bad))} not hardened.{worst}"
        yield Point(Tone.BAD, text, command("why", bad[0].name), "findings")
    unknown = [row for row in rows if row.compliance is ComplianceStatus.UNKNOWN]
    if unknown:
        has = "has" if len(unknown) == 1 else "have"
        text = f"{count(len(unknown), 'node')} {has} unknown status."
        yield Point(Tone.WARN, text, command("why", unknown[0].name), "findings")


def _cluster(shot: Snapshot) -> Iterator[Point]:
    failing = [one for one in shot.cluster.report.findings if one.status is Status.FAIL] if shot.cluster else []
    if failing:
        worst = f"Worst: {failing[0].severity.value} {failing[0].id}."
        text = f"{count(len(failing), 'check')} of the cluster failed. {worst}"
        yield Point(Tone.BAD, text, command("audit", "--cluster"), "cluster")


def _worst(group: Group) -> str:
    severity = f"{group.severity.value} " if group.severity is not Severity.INFO else ""
    return f"{severity}{group.id} on {count(group.nodes.total, 'node')}"


def _silent(seen: Fleet) -> Iterator[Point]:
    pods = kubectl("-n", seen.namespace, "get", "pods", "-o", "wide")
    unchecked = sum(row.compliance is None for row in seen.rows)
    if unchecked:
        text = f"{count(unchecked, 'node')} {'was' if unchecked == 1 else 'were'} never checked by an agent."
        yield Point(Tone.WARN, text, pods, "nodes")
    away = [row for row in seen.rows if row.ready is not True and row.phase not in (Phase.REBOOTING, Phase.VERIFYING)]
    if away:
        text = f"{count(len(away), 'node')} {_are(len(away))} NotReady: their reports are as old as that."
        yield Point(Tone.WARN, text, kubectl("describe", "node", away[0].name), "nodes")
    ready, desired = seen.rules.agents or (0, 0)
    if desired - ready > sum(row.ready is not True for row in seen.rows):
        text = f"{ready:,}/{desired:,} agents are ready; the others' nodes show their last report."
        yield Point(Tone.WARN, text, pods, "agents")


def _agents(seen: Fleet) -> Iterator[Point]:
    rejected = [row for row in seen.rows if row.config_problem]
    if rejected:
        text = f"{count(len(rejected), 'node')} rejected the configuration; last valid configuration in use."
        yield Point(Tone.HELD, text, command("why", rejected[0].name), "agents")
    outdated = [row for row in seen.rows if row.is_outdated]
    if outdated:
        text = f"{count(len(outdated), 'node')} with an agent too old to report details."
        yield Point(Tone.HELD, text, command("why", outdated[0].name), "nodes")


def _rebooting(seen: Fleet) -> Iterator[Point]:
    failed = [row for row in seen.rows if row.phase is Phase.ROLLED_BACK]
    if failed:
        text = f"The reboot of {count(len(failed), 'node')} failed and was rolled back."
        yield Point(Tone.BAD, text, command("why", failed[0].name), "nodes")
    if seen.pause.active and seen.pause.is_known:
        text = f"Reboots are paused {seen.pause.sentence or 'until resumed'}."
        yield Point(Tone.HELD, text, command("resume"), "reboots")
    waits = [row for row in seen.rows if row.wants_reboot and row.phase is not Phase.ROLLED_BACK]
    if waits:
        oldest = min((row.since for row in waits if row.since), default=0.0)
        longest = f"; longest pending {since(oldest, seen.now)}" if oldest else ""
        text = f"{count(len(waits), 'reboot')} pending or running{longest}."
        yield Point(Tone.QUIET, text, command("forecast"), "reboots")


# -- what is unknown ---------------------------------------------------------------------------------------------------


def _unknown(shot: Snapshot) -> Iterator[str]:
    seen = shot.fleet
    if seen.locks_problem:
        yield f"Reboot locks: they cannot be read ({seen.locks_problem})."
    if seen.pause.active and not seen.pause.is_known:
        yield f"Whether reboots are paused: {seen.pause.sentence}."
    if seen.rules.problem:
        yield f"The agents' configuration, and with it windows and pools: {seen.rules.problem}."
    if seen.rules.agents is None:
        yield "How many agents run: the DaemonSet cannot be read, or has no status yet."
    if shot.unlisted:
        yield f"{count(shot.unlisted, 'finding')} that did not fit on the Nodes: only in the agents' logs."
    if shot.groups_left:
        yield f"At least {count(shot.groups_left, 'finding')} of other kinds than fit on the page."
    unread = shot.cluster.report.counts[Status.UNKNOWN] if shot.cluster else 0
    if unread:
        yield f"{count(unread, 'check')} of the cluster: what they need could not be read."
    unsure = [row for row in seen.rows if row.phase is Phase.UNKNOWN]
    if unsure:
        yield f"Whether {count(len(unsure), 'node')} {_need(len(unsure))} a reboot (first {unsure[0].name})."
