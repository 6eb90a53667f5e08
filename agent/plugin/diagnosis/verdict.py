"""One ordered verdict on a node: why it is not hardened, why it does not reboot now, and the next step of each.

Pure. The agent's status has what blocks it now; what else would block it after that follows from the live objects
(opt-out, locks, windows, pause), so that fixing one thing does not only lead to the next. It refuses to call something
over that it could not read, and to repeat what is over by now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.config.choices import Mode
from agent.model import Severity, Status
from agent.plugin.cluster.node_context import NodeContext
from agent.plugin.cluster.nodes import UNDER_WAY, FindingRow
from agent.plugin.diagnosis import obstacles
from agent.plugin.diagnosis.advice import Advice, command, kubectl
from agent.plugin.diagnosis.underway import NOT_BACK, under_way
from agent.plugin.views import table
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from agent.report.compliance import ComplianceStatus
from agent.rollout import decision

_FINDINGS_SHOWN = 8
# A rollout that only a user gets further.
_STOPPED = frozenset(
    {decision.Phase.FAILED, decision.Phase.NONE, decision.Phase.MANY, decision.Phase.ABORTED},
)
_IN_PHASE = {
    Phase.LOCKED: "it holds the lock for its reboot",
    Phase.CORDONED: "it is cordoned for its reboot",
    Phase.DRAINING: "it is draining for its reboot",
    Phase.REBOOTING: "it is rebooting",
    Phase.VERIFYING: "it is back from its reboot and not verified yet",
    Phase.RELEASING: "its reboot is over",
}
_UNCERTAIN = frozenset({StatusReason.STATE_UNREADABLE, StatusReason.SENTINEL_UNKNOWN, StatusReason.API_UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """headline: both answers in one sentence. hardening, reboot: what is in the way, most important first.

    well: hardened, and no reboot is pending or under way.
    """

    headline: str
    hardening: tuple[Advice, ...]
    reboot: tuple[Advice, ...]
    well: bool


def verdict(context: NodeContext) -> Verdict:
    """The verdict."""
    hardening = tuple(_hardening(context))
    reboot = tuple(_reboot(context))
    row = context.row
    well = row.is_well and not hardening and not reboot and not row.wants_reboot
    return Verdict(f"{row.name} {_is_hardened(context)}; {_reboots(context, reboot)}.", hardening, reboot, well)


# -- hardening ---------------------------------------------------------------------------------------------------------


def _hardening(context: NodeContext) -> Iterator[Advice]:
    row = context.row
    yield from _agent(context)
    yield from _trust(context)
    yield from (_finding(context, one) for one in row.findings[:_FINDINGS_SHOWN])
    left = len(row.findings) - _FINDINGS_SHOWN + row.more
    if left > 0:
        listed = _logs(context) if row.more else command("diff", row.name)
        yield Advice("MoreFindings", table.count(left, "more finding"), (listed,))
    if row.compliance is ComplianceStatus.UNKNOWN and not row.findings and not row.silent_since:
        yield Advice("Unknown", "the last pass had unknown results; no problem is known", (_logs(context),))
    if row.compliance is ComplianceStatus.NON_COMPLIANT and not row.findings:
        yield Advice("FindingsMissing", "it does not comply, and the Node does not list why", (_logs(context),))


def _trust(context: NodeContext) -> Iterator[Advice]:
    """What makes the findings old, or others than the policy requires."""
    row = context.row
    # A node that goes down to reboot does not report, as expected: that belongs to its reboot.
    if row.ready is not True and row.phase is not Phase.REBOOTING:
        known = "is not Ready" if row.ready is False else "does not report: its kubelet is silent"
        yield Advice(
            "NodeNotReady",
            f"the node {known}; what its agent reported is as old as that",
            (kubectl("describe", "node", row.name), "check the machine's console"),
        )
    if row.silent_since:
        yield Advice(
            "AgentSilent",
            f"its agent has not reported for {table.since(row.silent_since, context.now)}: its status is unknown",
            (_logs(context),),
        )
    if row.config_problem:
        yield Advice(
            "ConfigRejected",
            f"the agent rejects its configuration and keeps using the last valid one: {row.config_problem}",
            (
                kubectl("-n", context.namespace, "edit", context.rules.object),
                "node-hardening-agent validate FILE lists every problem",
            ),
        )
    held = context.rollout
    if held.target != held.revision and held.phase in _STOPPED:
        yield Advice(
            "PolicyHeldBack",
            f"policy {held.revision} is in force, and the changed policy {held.target} is held back: {held.phase}",
            (command("rollout", "status"),),
        )
    if held.target and held.target == held.revision and held.verdict is decision.Verdict.FAILED:
        yield Advice(
            "PolicyFailed",
            f"the changed policy {held.target} is tried here, fails, and is not rolled out",
            (command("rollout", "status"),),
        )
    if row.compliance is ComplianceStatus.FAILED:
        yield Advice(
            "ApplyFailed",
            "a change that the policy requires failed",
            (_logs(context), f"{kubectl('describe', 'node', row.name)}  # Event HardeningFailed names it"),
        )


def _agent(context: NodeContext) -> Iterator[Advice]:
    """Whether an agent works on this node at all."""
    row, pod, namespace = context.row, context.pod, context.namespace
    never = row.compliance is None
    old = "" if never else "; what follows is its last report"
    if pod.ready is None and never:
        yield Advice("NoAgent", f"no agent ever checked it, and its pods cannot be listed: {pod.trouble}")
    elif not pod.name and pod.ready is False:
        yield Advice(
            "NoAgent",
            f"no agent runs here{old or '; none ever checked this node'}",
            (
                kubectl("-n", namespace, "get", "daemonset", "node-hardening-agent"),
                f"{kubectl('describe', 'node', row.name)}  # a taint that the DaemonSet does not tolerate?",
            ),
        )
    elif pod.ready is False and (never or row.ready is True):
        restarts = f", {table.count(pod.restarts, 'restart')}" if pod.restarts else ""
        previous = ("--previous",) if pod.restarts else ()
        yield Advice(
            "AgentNotReady",
            f"the agent's pod {pod.name} is not ready ({pod.trouble}{restarts}){old}",
            (
                kubectl("-n", namespace, "logs", pod.name, *previous),
                kubectl("-n", namespace, "describe", "pod", pod.name),
            ),
        )
    elif never and pod.ready:
        yield Advice("FirstPass", f"the agent's pod {pod.name} is running its first pass", (_logs(context),))


def _finding(context: NodeContext, finding: FindingRow) -> Advice:
    failed = finding.status is Status.FAIL
    expected = f" (expected {finding.expected})" if finding.expected and failed else ""
    severity = f"{finding.severity.value}: " if finding.severity is not Severity.INFO else ""
    return Advice(
        f"finding:{finding.id}",
        f"{severity}{finding.label} {'failed' if failed else 'unknown'}: {finding.observed}{expected}",
        (finding.remediation or command("diff", context.row.name),),
    )


def _logs(context: NodeContext) -> str:
    if context.pod.name:
        return kubectl("-n", context.namespace, "logs", context.pod.name)
    here = f"spec.nodeName={context.row.name}"
    labels = "app.kubernetes.io/name=node-hardening-agent"
    return kubectl("-n", context.namespace, "get", "pods", "-l", labels, "--field-selector", here)


def _is_hardened(context: NodeContext) -> str:
    row = context.row
    match row.compliance:
        case None:
            return "was never checked by an agent"
        case ComplianceStatus.HARDENED:
            sure = row.ready is True and context.pod.ready is not False
            return "is hardened" if sure else "was hardened at its agent's last report"
        case ComplianceStatus.NON_COMPLIANT | ComplianceStatus.FAILED:
            worst = f", worst {row.worst.severity.value}" if row.worst else ""
            return f"is not hardened ({table.count(row.failing + row.more, 'finding')}{worst})"
        case _:
            return "has unknown status"


# -- reboot ------------------------------------------------------------------------------------------------------------


def _reboot(context: NodeContext) -> Iterator[Advice]:
    row = context.row
    if row.phase is None:
        yield from _off(context)
        return
    if row.phase is Phase.IDLE and row.required is not True and not row.requested:
        return
    if row.is_outdated:
        yield obstacles.outdated(context)
    if row.phase in UNDER_WAY:
        yield under_way(context)
        return
    first = under_way(context) if row.phase is Phase.ROLLED_BACK else obstacles.of(context)
    if first is not None:
        yield first
    if row.reason in _UNCERTAIN or row.phase is Phase.UNKNOWN or row.mode == Mode.AUDIT:
        return
    others = [one for one in obstacles.also(context) if first is None or one.code != first.code]
    yield from others
    if first is None and not others and row.wants_reboot:
        yield obstacles.is_over(context)


def _off(context: NodeContext) -> Iterator[Advice]:
    row, config = context.row, context.rules.config
    if row.compliance is None:
        return
    off = row.mode == Mode.OFF or (config is not None and config.reboot.mode is Mode.OFF)
    if row.requested and off:
        yield Advice(
            StatusReason.MODE_OFF.value,
            f"a reboot was requested ({row.requested}), and reboot.mode is off",
            (f"set reboot.mode: enforce in {context.rules.source}",),
        )
    elif not off:
        yield Advice("NoStatus", "the agent has not reported about reboots yet", (_logs(context),))


def _reboots(context: NodeContext, reasons: tuple[Advice, ...]) -> str:
    """The second half of the headline."""
    row = context.row
    if row.mode == Mode.AUDIT:
        return "it needs a reboot, and reboot.mode is audit" if row.required else "it needs no reboot"
    match row.phase:
        case None:
            return "reboots are off" if row.mode == Mode.OFF else "nothing is known about reboots"
        case Phase.IDLE if row.required is not True:
            return "it needs no reboot"
        case Phase.UNKNOWN:
            return "whether it needs a reboot is unknown"
        case Phase.ROLLED_BACK:
            return f"its reboot failed {row.failures} times in a row" if row.failures > 1 else "its reboot failed"
        case phase if phase in _IN_PHASE:
            lost = any(one.code == NOT_BACK for one in reasons)
            return "it went down to reboot and did not come back" if lost else _IN_PHASE[phase]
        case _:
            return f"its reboot waits: {reasons[0].short or reasons[0].message}" if reasons else "its reboot is next"
