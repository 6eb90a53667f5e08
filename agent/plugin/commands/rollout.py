"""`rollout status|promote|abort`: how far a changed policy is, and a user's decision about it.

A decision is a ConfigMap that agents read and only users write. It names the policy's revision, so that it does not
count for the next change. The part of it that is about profiles is known to the nodes alone: of what they report about
the policy of the ConfigMap, the revision that most of them wait for is the newest; where none waits, the one that most
have in force.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config import Config, revision, units
from agent.errors import AgentError, UsageError
from agent.kube import CONFIGMAPS, NODES
from agent.plugin import mutations
from agent.plugin.cluster import get_or_none, nodes, policy, values
from agent.plugin.diagnosis.advice import command
from agent.plugin.mutations import AuditEvent, AuditReason
from agent.plugin.session import NOT_WELL, OK, UNKNOWN_USER, Command, Session
from agent.plugin.views.table import BAD, GOOD, WARN, Cell, Column, count, since, table
from agent.rollout import reports
from agent.rollout.decision import Canary, Order, Phase, Verdict
from agent.rollout.reports import ORDERS

_COLOURS = {Verdict.VERIFIED: GOOD, Verdict.FAILED: BAD, Verdict.UNKNOWN: WARN}
_SHOWN = 100
_EXPLAINED = 3
_EFFECTS = {
    Order.PROMOTE: "every node takes it with its next poll, within ten minutes, whatever the canaries report",
    Order.ABORT: "every node keeps its last policy, and the canaries return to theirs within ten minutes",
}
_DONE = {Order.PROMOTE: "promoted", Order.ABORT: "aborted"}
_AUDITS = {Order.PROMOTE: AuditReason.ROLLOUT_PROMOTED, Order.ABORT: AuditReason.ROLLOUT_ABORTED}


@dataclass(slots=True)
class Fleet:
    """What the Nodes show. policy: the revision of the ConfigMap's. running: nodes by revision.

    targets: nodes for which a revision is not decided: its phase, and whether they hold it back or are trying it.
    unkept: nodes whose disk keeps no copy of what they use, so that they hold no changed profiles back.
    """

    policy: str
    running: Counter[str] = field(default_factory=Counter)
    targets: Counter[tuple[str, Phase, bool]] = field(default_factory=Counter)
    canaries: list[Canary] = field(default_factory=list)
    silent: int = 0
    unkept: int = 0

    @property
    def newest(self) -> str:
        """The newest revision, of the policy and its profiles."""
        waited_for: Counter[str] = Counter()
        for (target, _, _), number in self.targets.items():
            waited_for[target] += number
        for found in (waited_for, self.running):
            known = [one for one, _ in found.most_common() if reports.policy_of(one) == self.policy]
            if known:
                return known[0]
        return self.policy

    @property
    def pending(self) -> Counter[Phase]:
        """Nodes that hold the newest revision back, by phase."""
        newest, found = self.newest, Counter[Phase]()
        for (target, phase, is_held), number in self.targets.items():
            if target == newest and is_held:
                found[phase] += number
        return found

    @property
    def others(self) -> int:
        """Nodes that hold another revision back: they have other profiles, or have not seen the newest yet."""
        return sum(number for (target, _, is_held), number in self.targets.items() if is_held and target != self.newest)

    @property
    def is_undecided(self) -> bool:
        """Whether a node holds the newest revision back or is trying it."""
        return any(target == self.newest for target, _, _ in self.targets)


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = ["status", *(order.value for order in Order)]
    parser.add_argument("action", nargs="?", choices=actions, default="status", help="default: status")
    mutations.configure(parser, reason="why; kept in the ConfigMap and the Event")


def _run(options: argparse.Namespace, session: Session) -> int:
    rules = policy.read(session.kube, session.namespace)
    if rules.config is None:
        raise AgentError(f"the policy is unknown: {rules.problem}")
    orders = get_or_none(session.kube, CONFIGMAPS, ORDERS, session.namespace) or {}
    fleet = _fleet(session, rules.config)
    newest = fleet.newest
    if options.action == "status":
        return _status(session, rules.config, newest, fleet, orders)
    return _decide(options, session, newest, fleet, orders)


def _fleet(session: Session, config: Config) -> Fleet:
    found = Fleet(revision(config))
    for page in session.kube.list(NODES, page_size=nodes.PAGE_SIZE).pages():
        while page:
            node = page.pop(0)
            report = reports.report(node)
            found.silent += not report.revision
            found.unkept += not report.is_kept
            found.running[report.revision] += bool(report.revision)
            if report.target and report.phase is not None:
                found.targets[report.target, report.phase, report.revision != report.target] += 1
            canary = reports.canary(node, config.rollout.canary) if config.rollout.canary else None
            found.canaries += [canary] if canary is not None else []
    return found


def _status(session: Session, config: Config, newest: str, fleet: Fleet, orders: Mapping[str, Any]) -> int:
    order = reports.order(orders, newest)
    # What a user decided is no trouble.
    kept = fleet.pending[Phase.ABORTED] if order is Order.ABORT else 0
    held = sum(fleet.pending.values()) + fleet.others - kept
    if session.form.is_document:
        canaries = [
            {"node": values.name(one.name), "revision": one.revision or None, "verdict": one.verdict.value,
             "ready": one.ready_since > 0, "since": one.since or None}
            for one in fleet.canaries
        ]  # fmt: skip
        session.document(
            {"revision": newest, "canary": str(config.rollout.canary), "soakSeconds": config.rollout.soak,
             "urgent": config.rollout.urgent, "order": order.value if order else None, "canaries": canaries,
             "pending": {phase.value: number for phase, number in fleet.pending.items()}, "pendingOther": fleet.others,
             "nodes": {name: number for name, number in fleet.running.items() if name}, "noReport": fleet.silent,
             "notKept": fleet.unkept}
        )  # fmt: skip
        return NOT_WELL if held else OK
    if not config.rollout.canary:
        session.write(f"policy {newest} has no rollout.canary: every node takes a change immediately")
        return OK
    urgent = ", urgent: it does not wait" if config.rollout.urgent else ""
    soak = units.spell_duration(config.rollout.soak)
    session.write(f"policy {newest}: canaries {values.text(str(config.rollout.canary))}, soak {soak}{urgent}")
    if order is not None and not kept:
        session.write(f"{_DONE[order]} {_signed(orders)}")
    session.write(_canaries(session, fleet, newest) if fleet.canaries else "no node matches rollout.canary")
    for name, number in sorted(fleet.running.items()):
        if name:
            session.write(f"{count(number, 'node')} on policy {name}{' (this one)' if name == newest else ''}")
    _exceptions(session, fleet)
    if kept:
        session.write(f"kept the last policy on {count(kept, 'node')}: aborted {_signed(orders)}")
    for phase, number in sorted((fleet.pending - Counter({Phase.ABORTED: kept})).items()):
        session.write(session.style.paint(f"pending on {count(number, 'node')}: {phase.value}", WARN))
    if fleet.others:
        held_back = count(fleet.others, "node holds", "nodes hold")
        session.write(session.style.paint(f"{held_back} back another policy, or this one with other profiles", WARN))
    if order is None and Phase.FAILED in fleet.pending:
        failed = sorted(one.name for one in fleet.canaries if (one.revision, one.verdict) == (newest, Verdict.FAILED))
        for name in failed[:_EXPLAINED]:
            session.write(f"  -> {command('why', values.name(name))}")
        session.write(f"  -> correct the policy, or {command('rollout', 'abort')}")
    return NOT_WELL if held else OK


def _exceptions(session: Session, fleet: Fleet) -> None:
    """Nodes that are no part of the rollout."""
    if fleet.silent:
        session.write(f"{count(fleet.silent, 'node')} without a report")
    if fleet.unkept:
        text = f"{count(fleet.unkept, 'node')} without a copy on disk: changed profiles are not held back there"
        session.write(session.style.paint(text, WARN))


def _canaries(session: Session, fleet: Fleet, newest: str) -> str:
    now = session.now()
    columns = [Column("CANARY", elastic=True), Column("POLICY"), Column("VERDICT"), Column("SINCE"), Column("READY")]
    rows = [
        [values.name(one.name), one.revision + (" (this one)" if one.revision == newest else "") or "-",
         Cell(one.verdict.value, _COLOURS[one.verdict]), since(one.since, now), "yes" if one.ready_since else "no"]
        for one in sorted(fleet.canaries, key=lambda one: one.name)[:_SHOWN]
    ]  # fmt: skip
    more = len(fleet.canaries) - _SHOWN
    return table(columns, rows, session.style) + (f"and {more} more\n" if more > 0 else "")


def _decide(options: argparse.Namespace, session: Session, newest: str, fleet: Fleet, orders: Mapping[str, Any]) -> int:
    reason, order = mutations.reason_of(options), Order(options.action)
    held = sum(fleet.pending.values())
    if reports.order(orders, newest) is order:
        return _done(session, newest, order, f"policy {newest} is {_DONE[order]} already", changed=False)
    if not fleet.is_undecided:
        raise UsageError(f"policy {newest} is not being rolled out: nothing to {order.value}; nothing was changed")
    data = {"decision": order.value, "revision": newest, "reason": reason, "by": session.user}
    lines = (f"configmap/{ORDERS} in {session.namespace}: {order.value} policy {newest}",
             f"{count(held, 'node holds', 'nodes hold')} it back: {_EFFECTS[order]}")  # fmt: skip
    if not mutations.confirmed(session, f"{order.value} policy {newest}", lines):
        return mutations.declined(session)
    version = values.text(values.part(orders, "metadata").get("resourceVersion"))
    made = mutations.put_config_map(session, ORDERS, data, version, what="the rollout")
    uid = values.text(values.part(made, "metadata").get("uid"))
    action = f"{_DONE[order]} policy {newest}"
    audit = AuditEvent(_AUDITS[order], action, reason, CONFIGMAPS, ORDERS, session.namespace, uid)
    mutations.record(session, audit)
    return _done(session, newest, order, f"policy {newest} is {_DONE[order]}: {_EFFECTS[order]}", changed=True)


def _done(session: Session, newest: str, order: Order, sentence: str, *, changed: bool) -> int:
    return mutations.done(session, sentence, {"revision": newest, "decision": order.value}, changed=changed)


def _signed(orders: Mapping[str, Any]) -> str:
    data = values.part(orders, "data")
    who, why = values.text(data.get("by"), 80), values.text(data.get("reason"))
    return f"by {who or UNKNOWN_USER}" + (f": {why}" if why else "")


COMMAND = Command("rollout", "how far a changed policy is rolled out; promote or abort it", _configure, _run)
