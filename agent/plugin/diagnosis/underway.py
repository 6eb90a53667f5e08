"""Where a reboot is that has begun, or how it failed: in words, with its deadline and its next step. Pure."""

from __future__ import annotations

import re

from agent.config.schema import OnTimeout
from agent.plugin.cluster.node_context import Facts
from agent.plugin.diagnosis.advice import Reason, ask
from agent.plugin.sentences import Hold, Said
from agent.plugin.views import table as render
from agent.reboot.steps import backoff_seconds

# `held by shop/web (Deployment web); shop/api (app api)`: a budget as agent/reboot/drain/pdb.py writes it.
_BUDGET = re.compile(r"(?:held by|;) ([a-z0-9.-]+)/([a-z0-9.-]+)")


NOT_BACK = "not-back"
_PAST_THE_DEADLINE = {
    OnTimeout.ABORT: "gives up and uncordons",
    OnTimeout.DELETE: "begins to delete what is left",
    OnTimeout.FORCE: "reboots all the same",
}


def under_way(facts: Facts, said: Said) -> Reason:
    entered = facts.state.entered.wall if facts.state is not None and facts.state.entered is not None else 0.0
    since = f" for {render.since(entered, facts.now)}" if entered else ""
    name = facts.row.name
    steps: tuple[str, ...] = ()
    match said.hold:
        case Hold.DRAINING:
            return _draining(facts, said, entered)
        case Hold.REBOOTING:
            return _going_down(facts, entered)
        case Hold.VERIFYING:
            text = f"back with another boot id{since}, and not proved well yet: {said.text or facts.row.sentence}"
            steps = (ask("status", name), f"kubectl describe node {name}")
        case Hold.RELEASING:
            text = f"its cycle ends: {facts.row.sentence}"
        case _:
            text = f"{facts.row.sentence}, cordoned{since}"
    return Reason(said.hold.value, text, steps)


def _going_down(facts: Facts, entered: float) -> Reason:
    """On its way down or up; past the timeouts it is called lost, as its waiting neighbours do."""
    name, config = facts.row.name, facts.rules.config
    limit = config.reboot.reboot_timeout + config.reboot.verify_timeout if config is not None else 0.0
    lock = facts.own_lock
    ago = render.since(entered, facts.now)
    if (lock is not None and lock.is_stuck) or (limit and entered and facts.now - entered > limit):
        slot = lock.name if lock is not None else f"{facts.row.pool}/0"
        return Reason(
            NOT_BACK,
            f"went down to reboot {ago} ago and did not come back (longer than rebootTimeout and verifyTimeout)",
            (
                f"look at {name}'s console and bring it back: it goes on by itself from there",
                f"kubectl describe node {name}",
                f"{ask('unlock', slot)}  # lets the others go on; only when it stays down",
            ),
        )
    ready = "" if facts.row.ready is True else "; the node is not Ready, as it should be"
    text = f"the reboot command was given {ago} ago; waits for another boot id{ready}"
    return Reason(Hold.REBOOTING.value, text, until=entered + limit if limit and entered else 0.0)


def _draining(facts: Facts, said: Said, entered: float) -> Reason:
    name, config = facts.row.name, facts.rules.config
    until = entered + config.reboot.drain.timeout if config is not None and entered else 0.0
    limit = ""
    if config is not None and until:
        limit = f"; {_PAST_THE_DEADLINE[config.reboot.drain.on_timeout]} at {render.stamp(until)} (drain.timeout)"
    budgets = [f"kubectl -n {space} describe pdb {pdb}" for space, pdb in _BUDGET.findall(facts.row.sentence)]
    return Reason(
        said.hold.value if said.drained else Hold.DRAINING.value,
        f"{facts.row.sentence}, for {render.since(entered, facts.now)}{limit}",
        (ask("preflight", name), *budgets),
        until=until,
    )


def failed(facts: Facts, said: Said) -> Reason:
    state, config = facts.state, facts.rules.config
    why, _, _ = said.text.partition("; tries again in ")
    until = 0.0
    if state is not None and state.entered is not None and config is not None:
        until = state.entered.wall + backoff_seconds(config.reboot, max(state.failures, 1))
    again = (
        f"; it tries again at {render.stamp(until)}, in {render.age(until - facts.now)}" if until > facts.now else ""
    )
    number = f" (attempt {facts.row.failures})" if facts.row.failures else ""
    return Reason(
        Hold.FAILED.value,
        f"the last attempt failed{number}: {why}{again}",
        (
            f"kubectl describe node {facts.row.name}  # Event RebootFailed",
            f"mend the cause, or keep it from trying: {ask('skip', facts.row.name)}",
        ),
        until=until,
    )
