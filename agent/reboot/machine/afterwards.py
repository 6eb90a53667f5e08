"""From another boot id to a free lock: the proof, the release, and the back-off after a failure.

Pure, as the machine is. It fails closed: a node that is not proved well keeps its cordon and its lock, and goes on
trying, because a late recovery should still end well.
"""

from __future__ import annotations

from dataclasses import replace

from agent.reboot.interfaces import HookStage, Outcome
from agent.reboot.machine import announcements
from agent.reboot.machine.inputs import Decision, Fetch, Inputs, Query, Release, Renew, StepHooks, Write, duration
from agent.reboot.machine.transitions import backoff_seconds, drop_cordon_ownership, reset, roll_back, succeed
from agent.reboot.state import NodeState, Phase, Stamp

_PROOF_POLL_SECONDS = 3.0
_POLL_SECONDS = 300.0


def verifying(seen: Inputs, state: NodeState) -> Decision:
    """Boot id on the Node, Ready, a fresh heartbeat, hardening, hooks: then the cordon goes."""
    if state.boot == seen.now.boot:
        return roll_back(seen, state, "the boot id is the old one again", lost=seen.mine is None)
    if seen.mine is not None and seen.renew_due:
        return Decision(Phase.VERIFYING, "renews the lock", Renew(seen.mine))
    if (disowned := drop_cordon_ownership(seen, state)) is not None:
        return disowned
    elapsed = state.entered.elapsed(seen.now) if state.entered else None
    if elapsed is None:
        text = "booted once more while it was being proved"
        return Decision(Phase.VERIFYING, text, Write(replace(state, entered=Stamp.of(seen.now))))
    missing = _missing(seen)
    if isinstance(missing, Query):
        return Decision(Phase.VERIFYING, "proves the node", Fetch(missing))
    if missing:
        return _unproved(seen, state, missing, late=elapsed > seen.policy.verify_timeout)
    if seen.policy.hooks.post_reboot:
        hook = seen.hooks.get(HookStage.POST_REBOOT)
        if hook is not None and hook.error and seen.hooks_failed_seconds < seen.policy.retry_after:
            return _unproved(seen, state, f"a postReboot hook failed: {hook.error}", late=True)
        if hook is None or not hook.done:
            again = hook is not None and bool(hook.error)
            text = "runs the postReboot hooks"
            return Decision(Phase.VERIFYING, text, StepHooks(HookStage.POST_REBOOT, again), wait_seconds=2.0)
    return succeed(seen, state)


def _missing(seen: Inputs) -> Query | str:
    """What the proof lacks, cheapest first; a Need when it has to be looked at."""
    node = seen.node
    if node is None or node.boot_id != seen.now.boot:
        return "the Node does not show the new boot id yet"
    if not node.ready:
        return "the Node is not Ready"
    if seen.proof is None:
        return Query.PROOF
    if seen.proof.verified is not True:
        known = seen.proof.verified is not None
        return f"{'the node is not hardened' if known else 'hardening unknown'}: {seen.proof.problem}"
    if seen.heartbeat is None:
        return Query.HEARTBEAT
    return "" if seen.heartbeat else "the kubelet has not renewed its lease yet"


def _unproved(seen: Inputs, state: NodeState, missing: str, *, late: bool) -> Decision:
    """Waits; past the timeout says so once, and goes on waiting with lock and cordon."""
    if late and not state.error:
        error = f"rebooted, but not proved well within {duration(seen.policy.verify_timeout)}: {missing}"
        return Decision(Phase.VERIFYING, f"failed: {error}", Write(replace(state, error=error)))
    text = f"failed: {state.error}; now: {missing}" if state.error else f"verifying: {missing}"
    return Decision(Phase.VERIFYING, text, wait_seconds=_PROOF_POLL_SECONDS)


def releasing(seen: Inputs, state: NodeState) -> Decision:
    """The cordon is off; the lock goes after its delay, then the note."""
    succeeded = state.outcome is Outcome.SUCCEEDED
    if seen.mine is not None:
        elapsed = state.entered.elapsed(seen.now) if state.entered else None
        rest = seen.policy.lock.release_delay - elapsed if succeeded and elapsed is not None else 0.0
        if rest > 0 and seen.renew_due:
            return Decision(Phase.RELEASING, "renews the lock", Renew(seen.mine))
        if rest > 0:
            text = f"rebooted well: gives the lock back in {duration(rest)}"
            wait = min(rest, seen.policy.lock.lease_duration / 6)
            return Decision(Phase.RELEASING, text, wait_seconds=wait)
        release = Release(seen.mine, rebooted=succeeded)
        return Decision(Phase.RELEASING, "gives the lock back", release, after="the lock is given back")
    text = "rebooted well" if succeeded else f"given up: {state.error}"
    done = replace(reset(state), done=Stamp.of(seen.now))
    return Decision(Phase.RELEASING, text, Write(done), said=announcements.released(state))


def failed(seen: Inputs, state: NodeState) -> Decision:
    """Rolled back: the lock goes at once, the next attempt comes after the back-off."""
    if seen.mine is not None:
        text = "rolled back: gives the lock back"
        return Decision(Phase.FAILED, text, Release(seen.mine), after="rolled back: the lock is given back")
    told = announcements.released(state)
    if seen.denies:
        # The back-off outlives the wish: a sentinel that flickers must not drain the node again at once.
        calm = replace(reset(state), done=state.entered, failures=state.failures)
        return Decision(Phase.FAILED, "no longer required", Write(calm), said=told)
    elapsed = state.entered.elapsed(seen.now) if state.entered else None
    if elapsed is None:
        # Another boot: its clock cannot tell how long ago the failure was, so that the whole back-off begins again.
        text = f"failed: {state.error}; booted since"
        return Decision(Phase.FAILED, text, Write(replace(state, entered=Stamp.of(seen.now))), said=told)
    rest = backoff_seconds(seen.policy, state.failures) - elapsed
    if rest > 0 or not seen.wants:
        text = f"failed: {state.error}; tries again in {duration(rest)}"
        if rest <= 0:
            text = f"failed: {state.error}; cannot tell whether a reboot is still required: {seen.sentinel.problem}"
        wait = min(rest, _POLL_SECONDS) if rest > 0 else _POLL_SECONDS
        return Decision(Phase.FAILED, text, wait_seconds=wait, blocked_by="backoff", said=told)
    again = NodeState(
        phase=Phase.WANTED,
        cycle=seen.new_cycle,
        reason=seen.sentinel.reason,
        requested=seen.request,
        since=state.since,
        entered=Stamp.of(seen.now),
        failures=state.failures,
        error=state.error,
        streak=state.streak,
        done=state.done,
    )
    return Decision(Phase.WANTED, "tries again", Write(again, taint=True), said=told)
