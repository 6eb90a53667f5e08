"""What the Node should show, worked out from what was found. Pure: no clock of its own, no API.

Everything is bounded, because annotations share 256 KiB with everybody else's and `kubectl describe` shows them whole.
https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from agent.annotations import CONDITION_HARDENED, FINDINGS, LABEL, LAST_CHANGE, POLICY, STATUS, SUMMARY, VERSION
from agent.model import Change, Condition, Finding, Outcome, Report, Severity, Status, worst_first
from agent.text import format_rfc3339

FINDINGS_BYTES = 4096
_SENTENCE_CHARACTERS = 1024
_OBSERVED_CHARACTERS = 160
_NEXT_STEP_CHARACTERS = 240


class ComplianceStatus(StrEnum):
    """The node in one word, as the `status` annotation has it."""

    HARDENED = "hardened"
    NON_COMPLIANT = "non-compliant"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the Node should show. An annotation or label that is None must not be there.

    lift_taint: the start-up taint may go. None leaves taints alone.
    """

    annotations: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str | None] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    lift_taint: bool = False

    def over(self, other: NodeView) -> NodeView:
        """Both, where this one wins."""
        mine = {condition.type for condition in self.conditions}
        return NodeView(
            annotations={**other.annotations, **self.annotations},
            labels={**other.labels, **self.labels},
            conditions=(*(one for one in other.conditions if one.type not in mine), *self.conditions),
            lift_taint=self.lift_taint or other.lift_taint,
        )


def standing(report: Report) -> ComplianceStatus:
    """Failed: a required change failed. Non-compliant: a check fails. Unknown is never hardened."""
    if any(change.outcome is Outcome.FAILED for change in report.changes):
        return ComplianceStatus.FAILED
    words = {Status.PASS: ComplianceStatus.HARDENED, Status.FAIL: ComplianceStatus.NON_COMPLIANT}
    return words.get(report.status, ComplianceStatus.UNKNOWN)


def hardening(
    report: Report, *, policy: str, version: str, label: bool, last_change: str | None, limit: int = FINDINGS_BYTES
) -> NodeView:
    """The view after one pass. `last_change` None keeps what the Node shows already. limit: of `findings`, in bytes."""
    word = standing(report)
    text = summary(report)
    reasons = {
        ComplianceStatus.HARDENED: ("True", "Hardened"),
        ComplianceStatus.NON_COMPLIANT: ("False", "NotCompliant"),
        ComplianceStatus.FAILED: ("False", "ApplyFailed"),
        ComplianceStatus.UNKNOWN: ("Unknown", "Unknown"),
    }
    status, reason = reasons[word]
    annotations: dict[str, str | None] = {
        STATUS: word.value,
        SUMMARY: text,
        FINDINGS: findings(report.findings, limit) or None,
        POLICY: policy,
        VERSION: version,
    }
    if last_change is not None:
        annotations[LAST_CHANGE] = last_change
    return NodeView(
        annotations=annotations,
        labels={LABEL: ("true" if word is ComplianceStatus.HARDENED else "false") if label else None},
        conditions=(Condition(CONDITION_HARDENED, status, reason, text),),
    )


def failing(report: Report, enforced: Iterable[str], *, after_reboot: bool = False) -> int:
    """How much of what the agent itself keeps true is not: checks of the enforced controls and changes that failed.

    The startup taint depends on this and not on the kubelet's audit: a node must not stay empty permanently because of
    a setting that the agent may only report. after_reboot: what another boot alone corrects is left out.
    """
    names = set(enforced)
    checks = [one for one in report.findings if one.control in names and one.status in (Status.FAIL, Status.UNKNOWN)]
    left = sum(not (after_reboot and one.needs_reboot) for one in checks)
    return left + sum(change.outcome is Outcome.FAILED for change in report.changes)


def summary(report: Report) -> str:
    """One sentence a control, in the order in which they ran."""
    by_control: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_control.setdefault(finding.control, []).append(finding)
    return cut(" ".join(f"{control}: {_sentence(some)}." for control, some in by_control.items()), _SENTENCE_CHARACTERS)


def findings(found: Sequence[Finding], limit: int = FINDINGS_BYTES) -> str:
    """JSON of what does not pass, worst first; empty when all does. Beyond `limit` bytes it is left out and counted.

    What should be there instead (`expected`) and the next step (`remediation`) are added where they fit, the
    worst findings first: `kubectl node-hardening why` and `diff` read them here.
    """
    reported = [one for one in worst_first(found) if one.status in (Status.FAIL, Status.UNKNOWN)]
    shown: list[dict[str, object]] = []
    size = len("[]")
    for number, one in enumerate(reported):
        entry: dict[str, object] = {
            "id": one.id,
            "status": one.status.value,
            "severity": one.severity.value,
            "observed": cut(" ".join(one.observed.split()), _OBSERVED_CHARACTERS),
        }
        length = len(_compact(entry).encode()) + len(",")
        left_out = {"more": len(reported) - number}
        # Space is kept for the count of the rest, except after the last one, which needs none.
        rest = len(_compact(left_out).encode()) if number + 1 < len(reported) else -len(",")
        if size + length + rest > limit:
            shown.append({**left_out})
            break
        shown.append(entry)
        size += length
    return _compact(_with_next_steps(shown, reported, limit)) if shown else ""


def _with_next_steps(shown: list[dict[str, object]], found: Sequence[Finding], limit: int) -> list[dict[str, object]]:
    space = limit - len(_compact(shown).encode())
    for entry, one in zip(shown, found, strict=False):
        if "id" not in entry:
            break
        for key, text in (("expected", one.expected), ("remediation", one.remediation)):
            addition = {key: cut(" ".join(text.split()), _NEXT_STEP_CHARACTERS)}
            length = len(_compact(addition).encode()) - len("{}") + len(",")
            if text and length <= space:
                entry.update(addition)
                space -= length
    return shown


def change_sentence(changes: Sequence[Change], when: str) -> str | None:
    """What the last pass changed, with its time; None when it changed nothing."""
    done = [change for change in changes if change.outcome is Outcome.DONE]
    if not done:
        return None
    first = "; ".join(f"{one.action} {one.target}" + (f" ({one.reason})" if one.reason else "") for one in done[:3])
    more = f" and {len(done) - 3} more" if len(done) > 3 else ""
    return cut(f"{when}: {first}{more}", _SENTENCE_CHARACTERS)


def condition_body(wanted: Condition, there: Mapping[str, str] | None, wall: float) -> dict[str, str]:
    """As the API server takes it. The transition time moves only with the status, as everybody else's does."""
    now = format_rfc3339(wall)
    since = there.get("lastTransitionTime") if there and there.get("status") == wanted.status else None
    return {**asdict(wanted), "lastHeartbeatTime": now, "lastTransitionTime": since or now}


def cut(text: str, characters: int) -> str:
    """The text, shortened with an ellipsis where it is too long, and as the API server will return it.

    File names may hold bytes that are no text: the server would store another sign for them, and what stands there
    would never be equal to the expected one.
    """
    text = _storable(text)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _sentence(some: Sequence[Finding]) -> str:
    checks = [one for one in some if one.status is not Status.NOT_APPLICABLE]
    if not checks:
        return "not applicable here"
    failing = [one for one in checks if one.status is Status.FAIL]
    unknown = [one for one in checks if one.status is Status.UNKNOWN]
    parts = []
    if failing:
        worst = worst_first(failing)[0]
        critical = sum(1 for one in failing if one.severity is Severity.CRITICAL)
        how_bad = f", {critical} critical" if critical else ""
        parts.append(f"{len(failing)}/{len(checks)} failed{how_bad} ({worst.id}{_more(failing)})")
    if unknown:
        parts.append(f"{len(unknown)} unknown ({worst_first(unknown)[0].id}{_more(unknown)})")
    return ", ".join(parts) or f"{len(checks)}/{len(checks)} passed"


def _more(some: Sequence[Finding]) -> str:
    return " …" if len(some) > 1 else ""


def _compact(value: object) -> str:
    return _storable(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()
