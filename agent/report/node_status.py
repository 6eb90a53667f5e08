"""What the Node should show, worked out from what was found. Pure: no clock of its own, no API.

Everything is bounded, because annotations share 256 KiB with everybody else's and `kubectl describe` shows them whole.
https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from agent.annotations import CHECKS, CONDITION_HARDENED, FINDINGS, LABEL, LAST_CHANGE, POLICY, STATUS, SUMMARY, VERSION
from agent.model import Change, Condition, Finding, Outcome, Report, Severity, Status, worst_first
from agent.report.compliance import ComplianceStatus, compliance_of
from agent.text import format_rfc3339

FINDINGS_BYTES = 4096
# NodeHardened's heartbeat is written once in an hour in which nothing else was; two are missed before a node is silent.
HEARTBEAT_SECONDS = 3600.0
SILENT_SECONDS = 2.5 * HEARTBEAT_SECONDS
_SENTENCE_CHARACTERS = 1024
_OBSERVED_CHARACTERS = 160
_TEXT_CHARACTERS = 240


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


def hardening(
    report: Report, *, policy: str, version: str, label: bool, last_change: str | None, limit: int = FINDINGS_BYTES
) -> NodeView:
    """The view after one pass. `last_change` None keeps what the Node shows already. limit: of `findings`, in bytes."""
    word = compliance_of(report)
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
        CHECKS: checks(report.findings, limit),
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
    left = len(unmet(report, enforced, after_reboot=after_reboot))
    return left + sum(change.outcome is Outcome.FAILED for change in report.changes)


def unmet(report: Report, enforced: Iterable[str], *, after_reboot: bool = False) -> list[Finding]:
    """The checks of the enforced controls that do not pass. after_reboot: without what another boot alone corrects."""
    names = set(enforced)
    checks = [one for one in report.findings if one.control in names and one.status in (Status.FAIL, Status.UNKNOWN)]
    return [one for one in checks if not (after_reboot and one.needs_reboot)]


def summary(report: Report) -> str:
    """One sentence a control, in the order in which they ran; one for all that have nothing to do here."""
    by_control: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_control.setdefault(finding.control, []).append(finding)
    sentences = {control: _sentence(some) for control, some in by_control.items()}
    words = [f"{control}: {sentence}." for control, sentence in sentences.items() if sentence]
    absent = ", ".join(control for control, sentence in sentences.items() if not sentence)
    return cut(" ".join([*words, f"Not applicable here: {absent}."] if absent else words), _SENTENCE_CHARACTERS)


def findings(found: Sequence[Finding], limit: int = FINDINGS_BYTES) -> str:
    """JSON of what does not pass, worst first; empty when all does. Beyond `limit` bytes it is left out and counted.

    Titles, then what is expected and the next step (`remediation`) are added where they fit, the worst findings first:
    `kubectl node-hardening why` and `diff` read them here.
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
    return _compact(_with_texts(shown, reported, limit)) if shown else ""


def checks(found: Sequence[Finding], limit: int = FINDINGS_BYTES) -> str:
    """JSON of what did not fail: `passed` (ids), `info` and `notApplicable` (ids with the reason); `more` counts.

    What needs no reason comes first, and what was skipped by configuration is part of `info`.
    """
    names = {Status.PASS: "passed", Status.INFO: "info", Status.NOT_APPLICABLE: "notApplicable"}
    order = [one for status in names for one in found if one.status is status]
    shown: dict[str, dict[str, str]] = {}
    size = len(_compact({**{name: {} for name in names.values()}, "more": len(order)}))
    for number, one in enumerate(order):
        observed = "" if one.status is Status.PASS else cut(" ".join(one.observed.split()), _OBSERVED_CHARACTERS)
        size += len(_compact({one.id: observed}).encode())
        if size > limit:
            return _checks_document(shown, len(order) - number)
        shown.setdefault(names[one.status], {})[one.id] = observed
    return _checks_document(shown, 0)


def _checks_document(shown: Mapping[str, Mapping[str, str]], more: int) -> str:
    document = {name: list(some) if name == "passed" else some for name, some in shown.items()}
    return _compact({**document, "more": more} if more else document)


def _with_texts(shown: list[dict[str, object]], found: Sequence[Finding], limit: int) -> list[dict[str, object]]:
    """Titles of all first: a title is what makes an id readable."""
    left = limit - len(_compact(shown).encode())
    for keys in (("title",), ("expected", "remediation")):
        for entry, one in zip(shown, found, strict=False):
            for key in keys if "id" in entry else ():
                addition = {key: cut(" ".join(getattr(one, key).split()), _TEXT_CHARACTERS)}
                length = len(_compact(addition).encode()) - len("{}") + len(",")
                if addition[key] and length <= left:
                    entry.update(addition)
                    left -= length
    return shown


def change_sentence(changes: Sequence[Change], when: str) -> str | None:
    """What the last pass changed, with its time; None when it changed nothing."""
    done = [change for change in changes if change.outcome is Outcome.DONE]
    if not done:
        return None
    first = "; ".join(f"{one.action} {one.target}" + (f" ({one.reason})" if one.reason else "") for one in done[:3])
    more = f" and {len(done) - 3} more" if len(done) > 3 else ""
    return cut(f"{when}: {first}{more}", _SENTENCE_CHARACTERS)


def condition_body(desired: Condition, there: Mapping[str, str] | None, wall: float) -> dict[str, str]:
    """As the API server takes it. The transition time moves only with the status, as everybody else's does."""
    now = format_rfc3339(wall)
    since = there.get("lastTransitionTime") if there and there.get("status") == desired.status else None
    return {**asdict(desired), "lastHeartbeatTime": now, "lastTransitionTime": since or now}


def cut(text: str, characters: int) -> str:
    """The text, shortened with an ellipsis where it is too long, and as the API server will return it.

    File names may hold bytes that are no text: the server would store another sign for them, and what stands there
    would never be equal to the expected one.
    """
    text = _storable(text)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _sentence(some: Sequence[Finding]) -> str:
    """Empty where every check is not applicable."""
    checks = [one for one in some if one.status not in (Status.NOT_APPLICABLE, Status.INFO)]
    notes = [one for one in some if one.status is Status.INFO]
    if not checks and not notes:
        return ""
    failing = [one for one in checks if one.status is Status.FAIL]
    unknown = [one for one in checks if one.status is Status.UNKNOWN]
    parts = []
    if failing:
        worst = worst_first(failing)[0]
        critical = sum(1 for one in failing if one.severity is Severity.CRITICAL)
        how_bad = f", {critical} critical" if critical else ""
        parts.append(f"{len(failing)}/{len(checks)} failed{how_bad} ({_label(worst)}{_more(failing)})")
    if unknown:
        parts.append(f"{len(unknown)} unknown ({_label(worst_first(unknown)[0])}{_more(unknown)})")
    parts = parts or [f"{len(checks)}/{len(checks)} passed"]
    if notes:
        parts.append(f"{len(notes)} info, neither passed nor failed ({_label(worst_first(notes)[0])}{_more(notes)})")
    return ", ".join(parts)


def _more(some: Sequence[Finding]) -> str:
    return " …" if len(some) > 1 else ""


def _label(finding: Finding) -> str:
    return f"{finding.id}: {cut(finding.title, 100)}" if finding.title else finding.id


def _compact(value: object) -> str:
    return _storable(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()
