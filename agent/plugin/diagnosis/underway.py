"""Where a reboot is that has begun, or how it failed: with its deadline and its next step. Pure."""

from __future__ import annotations

from agent.config.choices import OnTimeout
from agent.plugin.cluster import values
from agent.plugin.cluster.node_context import NodeContext
from agent.plugin.diagnosis.advice import Advice, command, kubectl
from agent.plugin.views import table
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason

NOT_BACK = "NotBack"
_PAST_THE_DEADLINE = {
    OnTimeout.ABORT: "aborts and uncordons",
    OnTimeout.DELETE: "deletes the remaining pods",
    OnTimeout.FORCE: "reboots regardless",
}


def under_way(context: NodeContext) -> Advice:
    """In a phase from the lock to its release, or rolled back."""
    row = context.row
    match row.phase:
        case Phase.DRAINING:
            return _draining(context)
        case Phase.REBOOTING:
            return _rebooting(context)
        case Phase.ROLLED_BACK:
            return _rolled_back(context)
        case phase:
            steps = (command("status", row.name), kubectl("describe", "node", row.name))
            text = f"{row.message or phase}{_since(context)}"
            return Advice(_code(context), text, steps if phase is Phase.VERIFYING else (), until=row.until)


def _code(context: NodeContext) -> str:
    row = context.row
    return row.reason.value if row.reason is not None else str(row.phase)


def _since(context: NodeContext) -> str:
    return f", for {table.since(context.row.since, context.now)}" if context.row.since else ""


def _rebooting(context: NodeContext) -> Advice:
    """On its way down or up; past the timeouts it is called lost, whether another node waits or not."""
    row, policy, lock = context.row, context.rules.reboot, context.own_lock
    limit = policy.reboot_timeout + policy.verify_timeout
    deadline = row.until or (row.since + limit if row.since else 0.0)
    ago = f"{table.since(row.since, context.now)} ago" if row.since else "at an unknown time"
    if (lock is not None and lock.is_stuck(context.now, policy)) or 0 < deadline < context.now:
        unlock = command("unlock", lock.name if lock is not None else f"{row.pool}/0")
        return Advice(
            NOT_BACK,
            f"went down to reboot {ago} and did not come back (longer than rebootTimeout and verifyTimeout)",
            (
                f"check the console of {row.name} and bring it back: its agent then continues by itself",
                kubectl("describe", "node", row.name),
                f"{unlock}  # lets other nodes reboot; only if it stays down",
            ),
        )
    ready = "" if row.ready is True else "; the node is not Ready, as expected"
    text = f"the reboot command was given {ago}; waiting for the node to come back{ready}"
    return Advice(StatusReason.REBOOTING.value, text, until=deadline)


def _draining(context: NodeContext) -> Advice:
    row, policy = context.row, context.rules.reboot
    limit = ""
    if row.until:
        limit = f"; {_PAST_THE_DEADLINE[policy.drain.on_timeout]} at {table.stamp(row.until)} (drain.timeout)"
    budgets = []
    for one in row.drain.budgets if row.drain is not None else ():
        namespace, name = values.name(one.namespace), values.name(one.name)
        if namespace and name:
            budgets.append(kubectl("-n", namespace, "describe", "pdb", name))
    steps = (command("preflight", row.name), *budgets)
    return Advice(_code(context), f"{row.message or 'draining'}{_since(context)}{limit}", steps, until=row.until)


def _rolled_back(context: NodeContext) -> Advice:
    row = context.row
    again = ""
    if row.until > context.now:
        again = f"; next try at {table.stamp(row.until)}, in {table.age(row.until - context.now)}"
    number = f" (attempt {row.failures})" if row.failures else ""
    return Advice(
        _code(context),
        f"{row.message or 'the last attempt failed'}{number}{again}",
        (
            f"{kubectl('describe', 'node', row.name)}  # Event RebootFailed",
            f"fix the cause, or opt the node out: {command('skip', row.name)}",
        ),
        until=row.until,
    )
