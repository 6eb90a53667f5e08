"""Cordoned, nothing evicted yet: the hooks before the drain, then the drain's delay. Pure."""

from __future__ import annotations

from agent.reboot.interfaces import HookStage
from agent.reboot.machine.decisions import Decision, Write
from agent.reboot.machine.inputs import Inputs
from agent.reboot.machine.interruptions import hooks_of, hooks_seconds, interrupted, renewal_seconds
from agent.reboot.machine.transitions import elapsed_in, enter
from agent.reboot.phases import Phase
from agent.reboot.state import Cordoned, Draining
from agent.reboot.status import StatusReason


def cordoned(inputs: Inputs, state: Cordoned) -> Decision:
    """To the first eviction."""
    policy = inputs.policy
    limit = policy.drain.timeout + policy.drain.delay + hooks_seconds(policy.hooks.pre_drain)
    if (ended := interrupted(inputs, state, limit)) is not None:
        return ended
    if (hooked := hooks_of(inputs, state, HookStage.PRE_DRAIN, policy.hooks.pre_drain)) is not None:
        return hooked
    rest = policy.drain.delay - elapsed_in(inputs, state)
    if rest > 0:
        return Decision(
            Phase.CORDONED,
            StatusReason.CORDONED,
            "cordoned; the drain begins after drain.delay",
            wait_seconds=min(rest, renewal_seconds(inputs)),
            until=state.entered.wall + policy.drain.delay,
        )
    draining = Write(enter(inputs, state, Draining))
    return Decision(Phase.CORDONED, StatusReason.CORDONED, "starting the drain", draining)
