"""`forecast`: when the last pending node of each pool will be done, with its assumptions.

Calculated from the windows, the locks and the durations of past reboots. It refuses to guess where one of them is
unknown: the answer is then `unknown`, with the reason.
"""

from __future__ import annotations

import argparse
import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.config.choices import Mode
from agent.config.schema import Reboot
from agent.plugin.cluster import locks, policy, values
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.clusters import node_rows
from agent.plugin.diagnosis.outlook import CycleTime, Finish, Roll, Rules, cycle_time, finish
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_selector, duration_of
from agent.plugin.views.table import WARN, Cell, Column, age, count, rfc3339, stamp, table
from agent.reboot.lock.pools import allowed_unavailable, usable_slots
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from agent.text import join_limited


@dataclass(slots=True)
class PoolLoad:
    """One pool's nodes, counted while they are read. Names are kept only where they are listed.

    waiting: nodes by their rules, which overrides may set. inactive: pending ones whose policy reboots nothing, by its
    mode. holding: the section of those that hold a lock.
    """

    size: int = 0
    waiting: Counter[Rules] = field(default_factory=Counter)
    inactive: dict[Mode, list[str]] = field(default_factory=dict)
    holding: dict[str, Reboot] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    unknown: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Nodes that need a reboot and have not begun."""
        return self.waiting.total() + sum(map(len, self.inactive.values()))

    def count(self, row: NodeRow, holders: frozenset[str], reboot: Reboot) -> None:
        """Each node once; one that holds a lock is under way, and counted there. reboot: of the node's policy."""
        self.size += 1
        self.seconds += [one.seconds for one in row.history if one.seconds > 0]
        if row.name in holders:
            self.holding[row.name] = reboot
            return
        if row.skip and row.wants_reboot:
            self.skipped.append(row.name)
        elif row.required is None and not row.wants_reboot:
            self.unknown += 1
        elif row.wants_reboot and row.reason is StatusReason.SENTINEL_UNCHANGED and row.phase is not Phase.ROLLED_BACK:
            self.stopped.append(row.name)  # held by the loop guard: no waiting ends that
        elif row.wants_reboot:
            self._wait(row, reboot)

    def _wait(self, row: NodeRow, reboot: Reboot) -> None:
        if row.phase is Phase.ROLLED_BACK:
            self.failed.append(row.name)
        if reboot.mode is Mode.ENFORCE:
            self.waiting[Rules(reboot.windows, reboot.lock.release_delay)] += 1
        else:
            self.inactive.setdefault(reboot.mode, []).append(row.name)


@dataclass(frozen=True, slots=True)
class Outlook:
    """One pool's answer. cycle: None when no reboot was recorded."""

    pool: str
    load: PoolLoad
    under_way: tuple[str, ...]
    cycle: CycleTime | None
    typical: Finish
    cautious: Finish


def _configure(parser: argparse.ArgumentParser) -> None:
    add_selector(parser)
    parser.add_argument(
        "--takes", default="", metavar="10m", help="how long one reboot takes, instead of what was recorded"
    )


def _run(options: argparse.Namespace, session: Session) -> int:
    now = session.now()
    seconds = duration_of("--takes", options.takes) if options.takes else 0.0
    given = CycleTime(0, seconds, seconds) if seconds else None
    rules = policy.read(session.kube, session.namespace)
    known = locks.read(session.kube, session.namespace)
    pause = locks.pause(session.kube, session.namespace, now)
    holders = frozenset(lock.holder for lock in known if lock.holder)
    loads: dict[str, PoolLoad] = defaultdict(PoolLoad)
    for row in node_rows(session, rules.pool, options.selector, Keep(history=True, labels=True)):
        loads[row.pool].count(row, holders, rules.of_node(row.labels).reboot)
    everything = [one for load in loads.values() for one in load.seconds]
    outlooks = []
    for pool in sorted(loads):
        slots = [lock for lock in known if lock.pool == pool]
        cycle = given or cycle_time(loads[pool].seconds) or cycle_time(everything)
        outlooks.append(outlook(pool, loads[pool], cycle, slots=slots, rules=rules, pause=pause, now=now))
    if session.form.is_document:
        session.document({"pools": [_document(one) for one in outlooks], "assumes": assumptions(outlooks, pause)})
    else:
        _show(session, outlooks, assumptions(outlooks, pause), now)
    return NOT_WELL if any(one.typical.at is None for one in outlooks) else OK


def outlook(
    pool: str,
    load: PoolLoad,
    cycle: CycleTime | None,
    *,
    slots: Sequence[Lock],
    rules: Policy,
    pause: Pause,
    now: float,
) -> Outlook:
    """One pool's answer. cycle: None when unknown. slots: its locks. Pure."""
    held = [lock for lock in slots if not lock.is_free]
    under_way = tuple(lock.shown_holder for lock in held)
    if not load.pending and not under_way:
        unknown = f"whether {count(load.unknown, 'node')} {'needs' if load.unknown == 1 else 'need'} a reboot"
        nothing = Finish(None, unknown) if load.unknown else Finish(now)
        return Outlook(pool, load, under_way, cycle, nothing, nothing)
    why = _unknown(held, cycle, load, rules, pause=pause, now=now)
    if why or cycle is None or rules.config is None:
        return Outlook(pool, load, under_way, cycle, Finish(None, why), Finish(None, why))
    reboot = rules.config.reboot
    begins = max(now, values.timestamp(pause.until)) if pause.active else now
    roll = Roll(
        pending=load.waiting,
        under_way=tuple(max(0.0, now - lock.acquired) - _of(lock, load, rules).lock.release_delay for lock in held),
        slots=min(usable_slots(reboot, pool), allowed_unavailable(reboot, pool, load.size)),
        gap_seconds=reboot.blockers.minimum_gap,
        last_reboot=max((lock.last_reboot for lock in slots), default=0.0),
    )
    both = [_finish(roll, seconds, begins) for seconds in (cycle.typical, cycle.cautious)]
    return Outlook(pool, load, under_way, cycle, *both)


def _of(lock: Lock, load: PoolLoad, rules: Policy) -> Reboot:
    """The section of the lock's holder; that of all nodes where its Node is not there."""
    return load.holding.get(lock.holder, rules.reboot)


def _unknown(
    held: Sequence[Lock], cycle: CycleTime | None, load: PoolLoad, rules: Policy, *, pause: Pause, now: float
) -> str:
    """Why the answer is unknown; empty when it is not."""
    if rules.config is None:
        return f"the agents' configuration: {rules.problem}"
    if load.inactive and not load.waiting:
        return f"never: reboot.mode is {' or '.join(sorted(load.inactive))}"
    if pause.active and not (pause.is_known and values.timestamp(pause.until)):
        return f"reboots are paused {pause.sentence}".strip()
    for lock in held:
        if lock.is_stuck(now, _of(lock, load, rules)) or not lock.holder:
            return f"lock {lock.name} is stuck: {lock.shown_holder} did not come back from its reboot"
    return "no reboot was recorded yet; pass how long one takes: --takes 10m" if cycle is None else ""


def _finish(roll: Roll, seconds: float, begins: float) -> Finish:
    try:
        return finish(roll, seconds, begins)
    except zoneinfo.ZoneInfoNotFoundError as error:
        return Finish(None, f"this machine has no time zone {error.args[0]}, which a window uses")


def assumptions(outlooks: Sequence[Outlook], pause: Pause) -> list[str]:
    """What the answers assume, and which nodes they leave out."""
    lines = []
    calculated = [one for one in outlooks if one.typical.at is not None and (one.load.pending or one.under_way)]
    if calculated:
        if any(one.cycle is not None and one.cycle.recorded for one in calculated):
            lines.append("reboots take as long as recorded ones: the median; if slow, the 90th percentile")
        lines.append("nothing else blocks a node: no alert, no disruption budget, no node that is down")
        if pause.active:
            lines.append(f"the pause ends at {pause.until}")
        if any(not waiting.windows for one in calculated for waiting in one.load.waiting):
            lines.append("no windows: a reboot may begin at any time")
    for one in outlooks:
        for names, what in (
            *((names, f"reboot.mode is {mode}, not counted") for mode, names in one.load.inactive.items()),
            (one.load.skipped, "opted out, not counted"),
            (one.load.stopped, "stopped by the loop guard, not counted"),
            (one.load.failed, "backing off after a failure, counted as if the next try succeeds"),
        ):
            if names:
                lines.append(f"{one.pool}: {join_limited(names)}: {what}")
        if one.load.unknown and one.typical.at is not None:
            lines.append(f"{one.pool}: {count(one.load.unknown, 'node')} unknown, not counted")
    return lines


def _show(session: Session, outlooks: Sequence[Outlook], assumed: Sequence[str], now: float) -> None:
    columns = [
        Column("POOL", elastic=True), Column("PENDING"), Column("NOW"), Column("A REBOOT TAKES"), Column("DONE"),
        Column("IF SLOW"),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for one in outlooks:
        recorded = f"{one.cycle.recorded} recorded" if one.cycle and one.cycle.recorded else "as given"
        takes = f"{age(one.cycle.typical)} ({recorded})" if one.cycle else "unknown"
        under_way = join_limited(one.under_way, most=2) or "-"
        rows.append([
            one.pool, str(one.load.pending), under_way, takes, _when(one, one.typical, now),
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
    if not one.load.pending and not one.under_way:
        return Cell("none pending")
    return Cell(f"{stamp(end.at)} (in {age(end.at - now)})")


def _document(one: Outlook) -> dict[str, Any]:
    cycle, load = one.cycle, one.load
    return {
        "pool": one.pool, "nodes": load.size, "pending": load.pending, "underWay": list(one.under_way),
        "skipped": load.skipped, "failed": load.failed, "stopped": load.stopped, "unknown": load.unknown,
        "cycle": {"recorded": cycle.recorded, "typicalSeconds": cycle.typical, "cautiousSeconds": cycle.cautious}
        if cycle else None,
        "doneAt": rfc3339(one.typical.at or 0.0), "doneAtIfSlow": rfc3339(one.cautious.at or 0.0),
        "why": one.typical.why,
    }  # fmt: skip


COMMAND = Command("forecast", "when the last pending node will be done", _configure, _run)
