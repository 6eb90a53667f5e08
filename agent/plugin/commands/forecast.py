"""`forecast`: when the last waiting node of each pool will be done, with what that rests on.

Reckoned from the windows, the locks and how long reboots took so far. It refuses to guess where one of them is not
known: the answer is then `unknown`, and why.
"""

from __future__ import annotations

import argparse
import zoneinfo
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.config import units
from agent.config.schema import Mode, Reboot
from agent.errors import UsageError
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis.outlook import Finish, Pace, Roll, finish, pace_of
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_selector
from agent.plugin.views.progress import Progress
from agent.plugin.views.table import WARN, Cell, Column, age, count, stamp, table
from agent.reboot.pools import allowed_unavailable, usable_slots
from agent.reboot.state import Phase
from agent.text import join_limited


@dataclass(slots=True)
class Load:
    """One pool's nodes, counted while they are read. Names are kept only where one is told of them."""

    size: int = 0
    waiting: int = 0
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    untold: int = 0
    seconds: list[float] = field(default_factory=list)

    def count(self, row: NodeRow, holders: frozenset[str]) -> None:
        """A node goes to where it belongs; who holds a lock is under way, and counted there."""
        self.size += 1
        self.seconds += [one.seconds for one in row.history if one.seconds > 0]
        if row.name in holders:
            return
        if row.skip and row.wants_reboot:
            self.skipped.append(row.name)
        elif row.required is None and not row.wants_reboot:
            self.untold += 1
        elif row.phase is Phase.FAILED:
            self.failed.append(row.name)
            self.waiting += 1
        elif row.wants_reboot and _is_stopped(row):
            self.stopped.append(row.name)
        elif row.wants_reboot:
            self.waiting += 1


@dataclass(frozen=True, slots=True)
class Outlook:
    """One pool's answer. pace: None when no reboot was seen."""

    pool: str
    load: Load
    under_way: tuple[str, ...]
    pace: Pace | None
    typical: Finish
    cautious: Finish


def _is_stopped(row: NodeRow) -> bool:
    """Held by the loop guard: no waiting ends that. Source: agent/reboot/machine/decide.py, _idle."""
    return row.phase is Phase.BLOCKED and row.sentence.startswith("required still after a proven reboot")


def _configure(parser: argparse.ArgumentParser) -> None:
    add_selector(parser)
    parser.add_argument(
        "--takes", default="", metavar="10m", help="how long one reboot takes, instead of what was seen"
    )


def _run(options: argparse.Namespace, session: Session) -> int:
    now = session.now()
    given = _given(options.takes)
    rules = policy.read(session.kube, session.namespace)
    known = locks.read(session.kube, session.namespace)
    pause = locks.pause(session.kube, session.namespace, now)
    holders = frozenset(lock.holder for lock in known if not lock.is_free)
    loads: dict[str, Load] = defaultdict(Load)
    with Progress(session.err, live=session.live) as progress:
        keep = Keep(history=True)
        for row in fleet.rows(session.kube, rules.pool, selector=options.selector, keep=keep, progress=progress):
            loads[row.pool].count(row, holders)
    everything = [seconds for load in loads.values() for seconds in load.seconds]
    outlooks = []
    for pool in sorted(loads):
        slots = [lock for lock in known if lock.pool == pool]
        pace = given or pace_of(loads[pool].seconds) or pace_of(everything)
        outlooks.append(outlook(pool, loads[pool], pace, slots=slots, rules=rules, pause=pause, now=now))
    if session.form.is_document:
        session.document(
            {"pools": [_document(one) for one in outlooks], "assumes": assumptions(outlooks, rules, pause)}
        )
    else:
        _show(session, outlooks, assumptions(outlooks, rules, pause), now)
    return NOT_WELL if any(one.typical.at is None for one in outlooks) else OK


def outlook(
    pool: str, load: Load, pace: Pace | None, *, slots: Sequence[Lock], rules: Policy, pause: Pause, now: float
) -> Outlook:
    """One pool's answer. pace: None when nobody knows. slots: its locks. Pure."""
    held = [lock for lock in slots if not lock.is_free]
    under_way = tuple(lock.holder for lock in held)
    if not load.waiting and not under_way:
        untold = f"of {count(load.untold, 'node')} nobody can tell whether a reboot is wanted"
        nothing = Finish(None, untold) if load.untold else Finish(now)
        return Outlook(pool, load, under_way, pace, nothing, nothing)
    why = _unknown(held, pace, rules, pause)
    if why or pace is None or rules.config is None:
        return Outlook(pool, load, under_way, pace, Finish(None, why), Finish(None, why))
    reboot = rules.config.reboot
    begins = max(now, locks.moment(pause.until)) if pause.active else now
    roll = Roll(
        waiting=load.waiting,
        under_way=tuple(max(0.0, now - lock.acquired) for lock in held),
        slots=min(usable_slots(reboot), allowed_unavailable(reboot.max_unavailable, load.size), reboot.concurrency),
        gap_seconds=reboot.blockers.minimum_gap,
        last_reboot=max((lock.view.last_reboot for lock in slots), default=0.0),
    )
    both = [_finish(roll, seconds, reboot, begins) for seconds in (pace.typical, pace.cautious)]
    return Outlook(pool, load, under_way, pace, *both)


def _unknown(held: Sequence[Lock], pace: Pace | None, rules: Policy, pause: Pause) -> str:
    """Why nobody can tell; empty when it can be told."""
    if rules.config is None:
        return f"the agents' configuration cannot be told: {rules.problem}"
    if rules.config.reboot.mode is not Mode.ENFORCE:
        return f"never: reboot.mode is {rules.config.reboot.mode.value}"
    if pause.active and not (pause.is_known and locks.moment(pause.until)):
        return pause.sentence
    stuck = [lock for lock in held if lock.is_stuck]
    if stuck:
        return f"lock {stuck[0].name} is stuck: {stuck[0].holder} went down and did not come back"
    return "no reboot was seen yet; say how long one takes: --takes 10m" if pace is None else ""


def _given(takes: str) -> Pace | None:
    """What a person says. Raises UsageError."""
    if not takes:
        return None
    try:
        seconds = units.duration(takes)
    except ValueError as error:
        raise UsageError(f"--takes: {error}") from error
    if not 1 <= seconds <= units.YEAR_SECONDS:
        raise UsageError(f"--takes {takes}: write 1s to 366d")
    return Pace(0, seconds, seconds)


def _finish(roll: Roll, seconds: float, reboot: Reboot, begins: float) -> Finish:
    try:
        return finish(roll, seconds + reboot.lock.release_delay, reboot.windows, begins)
    except zoneinfo.ZoneInfoNotFoundError as error:
        return Finish(None, f"this machine knows no time zone of a window: {error.args[0]}")


def assumptions(outlooks: Sequence[Outlook], rules: Policy, pause: Pause) -> list[str]:
    """What the answers rest on, and who is left out of them."""
    told = []
    reckoned = [one for one in outlooks if one.typical.at is not None and (one.load.waiting or one.under_way)]
    if reckoned:
        if any(one.pace is not None and one.pace.seen for one in reckoned):
            told.append("reboots take as long as those that were seen: the median; if slow, as nine of ten")
        told.append("nothing else holds a node back: no alert, no disruption budget, no node down by itself")
        if pause.active:
            told.append(f"the pause ends as it says, {pause.until}")
        if rules.config is not None and not rules.config.reboot.windows:
            told.append("there are no windows: one may begin at any time")
    for one in outlooks:
        for names, what in (
            (one.load.skipped, "opted out, not counted"),
            (one.load.stopped, "held by the loop guard, not counted"),
            (one.load.failed, "in back-off after a failure, counted as if the next try went well"),
        ):
            if names:
                told.append(f"{one.pool}: {join_limited(names)}: {what}")
        if one.load.untold and one.typical.at is not None:
            told.append(f"{one.pool}: of {count(one.load.untold, 'node')} nobody can tell: not counted")
    return told


def _show(session: Session, outlooks: Sequence[Outlook], assumed: Sequence[str], now: float) -> None:
    columns = [
        Column("POOL", elastic=True), Column("WAITING"), Column("NOW"), Column("A REBOOT TAKES"), Column("DONE"),
        Column("IF SLOW"),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for one in outlooks:
        seen = f"{one.pace.seen} seen" if one.pace and one.pace.seen else "as you say"
        pace = f"{age(one.pace.typical)} ({seen})" if one.pace else "unknown"
        under_way = join_limited(one.under_way, most=2) or "-"
        rows.append([
            one.pool, str(one.load.waiting), under_way, pace, _when(one, one.typical, now),
            _when(one, one.cautious, now) if one.typical.at is not None else "",
        ])  # fmt: skip
    session.write(table(columns, rows, session.style))
    for one in outlooks:
        if one.typical.at is None:
            session.write(f"{one.pool}: unknown: {one.typical.why}")
    for line in assumed:
        for part in session.style.wrap(line, lead="  - ", indent=4):
            session.write(part)


def _when(one: Outlook, end: Finish, now: float) -> Cell:
    if end.at is None:
        return Cell("unknown", WARN)
    if not one.load.waiting and not one.under_way:
        return Cell("nothing waits")
    return Cell(f"{stamp(end.at)} (in {age(end.at - now)})")


def _document(one: Outlook) -> dict[str, Any]:
    pace = (
        {"seen": one.pace.seen, "typicalSeconds": one.pace.typical, "cautiousSeconds": one.pace.cautious}
        if one.pace
        else None
    )
    return {
        "pool": one.pool, "nodes": one.load.size, "waiting": one.load.waiting, "underWay": list(one.under_way),
        "skipped": one.load.skipped, "failed": one.load.failed, "stopped": one.load.stopped, "unknown": one.load.untold,
        "pace": pace, "doneAt": one.typical.at, "doneAtIfSlow": one.cautious.at, "why": one.typical.why,
    }  # fmt: skip


COMMAND = Command("forecast", "when the last waiting node will be done", _configure, _run)
