"""One ordered verdict on a node: why it is not hardened, why it does not reboot now, and the next step of each.

Pure. The agent's own sentence says what holds it now; what else would hold it after that is told from the live objects
(opt-out, locks, windows, pause), so that nobody mends one thing only to meet the next. It refuses to call something
over that it could not read, and to repeat a hold that is over by now as if it still stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.model import Severity, Status
from agent.plugin.cluster.node_context import Facts
from agent.plugin.cluster.nodes import FindingRow
from agent.plugin.diagnosis import obstacles, underway
from agent.plugin.diagnosis.advice import Reason, ask
from agent.plugin.sentences import Hold, Said, understand
from agent.plugin.views import table as render
from agent.reboot.state import Phase
from agent.report.node_status import ComplianceStatus

__all__ = ["Reason", "Verdict", "verdict"]

_FINDINGS_SHOWN = 8
_ON_ITS_WAY = {
    Phase.CORDONED: "it is cordoned for its reboot",
    Phase.DRAINING: "it is being drained for its reboot",
    Phase.REBOOTING: "it is down for its reboot",
    Phase.VERIFYING: "it is back from its reboot and not proved well yet",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """headline: both answers in one sentence. hardening, reboot: reasons, the one to look at first first.

    well: hardened, and no reboot is wanted or under way.
    """

    headline: str
    hardening: tuple[Reason, ...]
    reboot: tuple[Reason, ...]
    well: bool


def verdict(facts: Facts) -> Verdict:
    """The verdict."""
    said = understand(facts.row.sentence)
    hardening = tuple(_hardening(facts))
    reboot = tuple(_reboot(facts, said))
    row = facts.row
    well = row.is_well and not hardening and not reboot and not row.wants_reboot
    return Verdict(f"{row.name} {_is_hardened(facts)}; {_reboots(facts, said, reboot)}.", hardening, reboot, well)


# -- hardening ---------------------------------------------------------------------------------------------------------


def _hardening(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    yield from _agent(facts)
    # One that goes down to reboot is rightly silent: that is told under its reboot.
    if row.ready is not True and row.phase is not Phase.REBOOTING:
        known = "is not Ready" if row.ready is False else "was not heard of for a while: the kubelet is silent"
        yield Reason(
            "node-not-ready",
            f"the node {known}; what its agent said is as old as that",
            (f"kubectl describe node {row.name}", "is the machine up? look at its console"),
        )
    if row.config_problem:
        yield Reason(
            "config-refused",
            f"the agent refuses its configuration and goes on with the last good one: {row.config_problem}",
            (
                f"kubectl -n {facts.namespace} edit {facts.rules.source.partition(' ')[0]}",
                "node-hardening-agent validate FILE says every problem at once",
            ),
        )
    if row.standing is ComplianceStatus.FAILED:
        yield Reason(
            "apply-failed",
            "a change that the policy asks for could not be made",
            (_logs(facts), f"kubectl describe node {row.name}  # Event HardeningFailed says which"),
        )
    yield from (_finding(facts, one) for one in row.findings[:_FINDINGS_SHOWN])
    left = len(row.findings) - _FINDINGS_SHOWN + row.more
    if left > 0:
        listed = f"{ask('diff', row.name)}" if not row.more else _logs(facts)
        yield Reason("more-findings", f"{render.count(left, 'more finding')} below these", (listed,))
    if row.standing is ComplianceStatus.UNKNOWN and not row.findings:
        yield Reason("cannot-tell", "the last pass could not tell; nothing is known to be wrong", (_logs(facts),))
    if row.standing is ComplianceStatus.NON_COMPLIANT and not row.findings:
        yield Reason("findings-missing", "it does not comply, and the Node does not say in what", (_logs(facts),))


def _agent(facts: Facts) -> Iterator[Reason]:
    """Whether anybody looks after this node at all."""
    row, pod = facts.row, facts.pod
    never = row.standing is None
    old = "" if never else "; what follows is what it said last"
    if pod.ready is None and never:
        yield Reason("no-agent", f"no agent ever looked at it, and its pods cannot be listed: {pod.trouble}")
    elif not pod.name and pod.ready is False:
        yield Reason(
            "no-agent",
            f"no agent runs here{old or '; none ever looked at this node'}",
            (
                f"kubectl -n {facts.namespace} get daemonset node-hardening-agent",
                f"kubectl describe node {row.name}  # a taint that the DaemonSet does not tolerate?",
            ),
        )
    elif pod.ready is False and (never or row.ready is True):
        restarts = f", {render.count(pod.restarts, 'restart')}" if pod.restarts else ""
        previous = " --previous" if pod.restarts else ""
        yield Reason(
            "agent-not-ready",
            f"the agent's pod {pod.name} is not ready ({pod.trouble}{restarts}){old}",
            (
                f"kubectl -n {facts.namespace} logs {pod.name}{previous}",
                f"kubectl -n {facts.namespace} describe pod {pod.name}",
            ),
        )
    elif never and pod.ready:
        yield Reason("first-pass", f"the agent's pod {pod.name} runs and has not ended its first pass", (_logs(facts),))


def _finding(facts: Facts, finding: FindingRow) -> Reason:
    expected = f" (expected {finding.expected})" if finding.expected and finding.status is Status.FAIL else ""
    kind = "fails" if finding.status is Status.FAIL else "cannot be told"
    severity = f"{finding.severity.value}: " if finding.severity is not Severity.INFO else ""
    return Reason(
        f"finding:{finding.id}",
        f"{severity}{finding.id} {kind}: {finding.observed}{expected}",
        (finding.remediation or ask("diff", facts.row.name),),
    )


def _logs(facts: Facts) -> str:
    where = (
        facts.pod.name
        or f"-l app.kubernetes.io/name=node-hardening-agent --field-selector spec.nodeName={facts.row.name}"
    )
    return f"kubectl -n {facts.namespace} logs {where}"


def _is_hardened(facts: Facts) -> str:
    row = facts.row
    match row.standing:
        case None:
            return "has no agent that ever looked"
        case ComplianceStatus.HARDENED:
            sure = row.ready is True and facts.pod.ready is not False
            return "is hardened" if sure else "was hardened when its agent last looked"
        case ComplianceStatus.NON_COMPLIANT | ComplianceStatus.FAILED:
            number = row.failing + row.more
            worst = f", worst {row.worst.severity.value}" if row.worst else ""
            return f"is not hardened ({render.count(number, 'finding')}{worst})"
        case _:
            return "cannot be called hardened"


# -- reboot ------------------------------------------------------------------------------------------------------------


def _reboot(facts: Facts, said: Said) -> Iterator[Reason]:
    row = facts.row
    if said.hold is Hold.NOTHING and not row.requested:
        return
    if said.hold is Hold.OFF:
        yield from _nobody_looks(facts)
        return
    if facts.state is None and said.hold is not Hold.UNREADABLE:
        yield obstacles.unreadable(facts, "")
    first = obstacles.of(facts, said)
    if first is not None:
        yield first
    if facts.row.is_down or said.hold in (Hold.UNREADABLE, Hold.UNTOLD, Hold.RELEASING):
        return
    others = [reason for reason in obstacles.also(facts) if first is None or reason.code != first.code]
    yield from others
    if first is None and not others and row.wants_reboot:
        yield obstacles.over(said)


def _nobody_looks(facts: Facts) -> Iterator[Reason]:
    row = facts.row
    if row.standing is None:
        return
    off = facts.rules.config is not None and facts.rules.config.reboot.mode.value == "off"
    if row.requested and off:
        yield Reason(
            "off",
            f"a reboot was asked for ({row.requested}), and reboot.mode is off: nobody looks",
            (f"set reboot.mode: enforce in {facts.rules.source}",),
        )
    elif not off:
        yield Reason("not-looked-yet", "the agent has not said anything about reboots yet", (_logs(facts),))


def _reboots(facts: Facts, said: Said, reasons: tuple[Reason, ...]) -> str:
    """The second half of the headline."""
    row = facts.row
    if said.audit:
        return "it would need a reboot, and reboot.mode is audit" if row.required else "it needs no reboot"
    match row.phase:
        case None:
            return "nobody looks after its reboots"
        case Phase.IDLE if row.required is False:
            return "it needs no reboot"
        case Phase.UNKNOWN:
            return "whether it needs a reboot cannot be told"
        case Phase.FAILED:
            return f"its reboot failed {row.failures} times in a row" if row.failures > 1 else "its reboot failed"
        case Phase.RELEASING:
            return "its reboot is over" if said.hold is Hold.RELEASING else "it gives the lock back"
        case phase if phase in _ON_ITS_WAY:
            lost = bool(reasons) and reasons[0].code == underway.NOT_BACK
            return "it went down to reboot and did not come back" if lost else _ON_ITS_WAY[phase]
        case _:
            return f"its reboot waits: {reasons[0].short or reasons[0].said}" if reasons else "its reboot is next"
