"""What the agent's sentence about its reboot means: which one thing holds the node back, or where it is on its way.

The sentences are made in agent/reboot (machine.py, underway.py, afterwards.py, the blockers); tests/unit/plugin drives
the real coordinator through every phase and looks that each is known here. It refuses to guess: what is not known is
OTHER and shown as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Hold(StrEnum):
    """What holds a reboot back, or how far it is; the value is a stable word for scripts."""

    NOTHING = "not-required"
    OFF = "off"
    AUDIT = "audit"
    UNREADABLE = "note-unreadable"
    SKIP = "skip"
    UNTOLD = "sentinel-unknown"
    GUARD = "loop-guard"
    BACKOFF = "backoff"
    FAILED = "failed"
    GAP = "minimum-gap"
    LOCK = "lock"
    TURN = "its-turn"
    PROOF = "hardening-unknown"
    WINDOW = "window"
    PAUSE = "pause"
    KURED = "kured"
    PODS = "pods"
    ALERTS = "prometheus"
    BUDGET = "unavailability-budget"
    BLOCKED = "blocked"
    CORDONED = "cordoned"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    VERIFYING = "verifying"
    RELEASING = "released"
    AWAY = "cannot-look"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence that is understood. text: what is left of it when the words that classify it are taken away.

    audit: the agent only says what it would do. drained: the node is empty already, and this is the last no.
    """

    hold: Hold
    text: str
    audit: bool = False
    drained: bool = False


_AUDIT = "audit: "
_GIVEN_BACK = "gives the lock back: "
_DRAINED = "drained, but "
# The first that matches; `text` is the group of that name, else the whole sentence.
_RULES: tuple[tuple[re.Pattern[str], Hold], ...] = tuple(
    (re.compile(pattern), hold)
    for pattern, hold in (
        (r"not required$|no longer required|required no longer|the sentinel is gone", Hold.NOTHING),
        (r"off$", Hold.OFF),
        (r"the annotation reboot-state cannot be read \((?P<text>.*)\)", Hold.UNREADABLE),
        (r"opted out on the node: (?P<text>.*)", Hold.SKIP),
        (r"cannot tell whether (?:a reboot|it) is (?:still )?required: (?P<text>.*)", Hold.UNTOLD),
        (r"cannot tell: (?P<text>.*)", Hold.UNTOLD),
        (r"required still after a proven reboot", Hold.GUARD),
        (r"required again soon after the last reboot: waits (?P<text>.*)", Hold.BACKOFF),
        (r"the pool rests after its last reboot: (?P<text>.*)", Hold.GAP),
        (r"waiting for the lock held by (?P<text>.*)|looks after (?P<more>.*)", Hold.LOCK),
        (r"cannot tell whether the node is hardened: (?P<text>.*)|looks at the hardening", Hold.PROOF),
        (r"(?:blocked by )?windows(?::| that) (?P<text>.*)", Hold.WINDOW),
        (r"(?:blocked by )?the cluster's pause(?P<text>.*)", Hold.PAUSE),
        (r"(?:blocked by )?kured's lock, (?P<text>.*)", Hold.KURED),
        (r"(?:blocked by )?pods (?:with|that) (?P<text>.*)", Hold.PODS),
        (r"(?:blocked by )?(?P<text>(?:alerts: |the Prometheus query, |Prometheus at ).*)", Hold.ALERTS),
        (r"(?:blocked by )?(?P<text>maxUnavailable .*)", Hold.BUDGET),
        (r"verifying(?:: (?P<text>.*))?$|proves the node|another boot id|proved well|booted once more", Hold.VERIFYING),
        (r"runs the postReboot hooks", Hold.VERIFYING),
        (r"failed: (?P<text>rebooted, but not proved well.*)", Hold.VERIFYING),
        (r"failed: (?P<text>.*)|rolled back: (?P<more>.*)", Hold.FAILED),
        (r"the reboot command failed: (?P<text>.*)", Hold.FAILED),
        (r"rebooted well|given up: (?P<text>.*)|the lock is given back|gives the lock back$", Hold.RELEASING),
        (r"rebooting|gives the reboot command", Hold.REBOOTING),
        (r"the fence took long|the look took long|the way to the reboot took long", Hold.REBOOTING),
        (r"draining|begins to drain|drained|runs the preReboot hooks|renews the lock before it drains", Hold.DRAINING),
        (r"cordon|somebody else (?:has cordoned|changed)|runs the preDrain hooks", Hold.CORDONED),
        (r"required|tries again|the lock is free|asks|has the lock|counts the pool|renews the lock", Hold.TURN),
        (r"would ask for the lock", Hold.TURN),
        (r"cannot look at the node or the cluster: (?P<text>.*)", Hold.AWAY),
        (r"blocked by (?P<text>.*)", Hold.BLOCKED),
    )
)  # fmt: skip


def understand(sentence: str) -> Said:
    """What a sentence says. An empty one is OFF: an agent that looks always says something."""
    if not sentence:
        return Said(Hold.OFF, "")
    inner = sentence.removeprefix(_AUDIT)
    audit = inner != sentence
    given_back = inner.startswith(_GIVEN_BACK)
    inner = inner.removeprefix(_GIVEN_BACK)
    drained = inner.startswith(_DRAINED)
    inner = inner.removeprefix(_DRAINED)
    for pattern, hold in _RULES:
        if (match := pattern.match(inner)) is not None:
            groups = match.groupdict()
            text = groups.get("text") or groups.get("more") or inner
            return Said(hold, text.strip(), audit, drained)
    return Said(Hold.RELEASING if given_back else Hold.OTHER, inner, audit, drained)
