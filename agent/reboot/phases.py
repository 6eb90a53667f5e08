"""The phases of a node's reboot and the table of transitions between them.

Every write of the state machine moves along one of these edges (a property test holds it), and the state diagram in
docs/reboots.md is generated from this table. Nothing here decides which edge is taken: that is reboot/machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a node is. The value is the name: in annotations, metrics and tables alike."""

    IDLE = "idle"
    PENDING = "pending"
    BLOCKED = "blocked"
    WAITING = "waiting"
    LOCKED = "locked"
    CORDONED = "cordoned"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    VERIFYING = "verifying"
    RELEASING = "releasing"
    ROLLED_BACK = "rolled-back"
    UNKNOWN = "unknown"


# Derived from what is observed, never stored: a pending reboot that is blocked, waits for the lock, or holds it.
DERIVED = frozenset({Phase.BLOCKED, Phase.WAITING, Phase.LOCKED, Phase.UNKNOWN})
STORED = frozenset(Phase) - DERIVED


@dataclass(frozen=True, slots=True)
class Transition:
    """One edge between stored phases. cause: when it is taken, for the diagram."""

    source: Phase
    target: Phase
    cause: str


def _edges(source: Phase, **targets: str) -> tuple[Transition, ...]:
    return tuple(Transition(source, Phase[target.upper()], cause) for target, cause in targets.items())


# An edge from a phase to itself writes a detail of that phase (a clock that starts again, a cordon that changed owner).
TRANSITIONS: tuple[Transition, ...] = (
    *_edges(
        Phase.IDLE,
        idle="the sentinel is gone, or a leftover cordon or taint of ours is removed",
        pending="a reboot is required or requested",
    ),
    *_edges(
        Phase.PENDING,
        pending="the taint's key changed",
        idle="no longer required, or mode is not enforce",
        cordoned="lock held and nothing blocks",
    ),
    *_edges(
        Phase.CORDONED,
        cordoned="another user owns the cordon now",
        draining="preDrain hooks and delay are over",
        verifying="another boot id",
        releasing="opted out, no longer required, or mode is not enforce",
        rolled_back="lock lost, uncordoned by a user, or a hook failed",
    ),
    *_edges(
        Phase.DRAINING,
        draining="another user owns the cordon now",
        rebooting="drained and nothing new blocks",
        verifying="another boot id",
        releasing="opted out, no longer required, or mode is not enforce",
        rolled_back="timeout, lock lost, uncordoned by a user, or a hook failed",
    ),
    *_edges(
        Phase.REBOOTING,
        rebooting="the reboot was delayed, or another user owns the cordon now",
        verifying="another boot id",
        releasing="opted out, no longer required, or mode is not enforce, before the command",
        rolled_back="the command failed, rebootTimeout is over, or blocked before the command",
    ),
    *_edges(
        Phase.VERIFYING,
        verifying="verifyTimeout is over, booted again, or another user owns the cordon now",
        releasing="verified",
        rolled_back="the old boot id is back",
    ),
    *_edges(Phase.RELEASING, idle="the lock is released"),
    *_edges(
        Phase.ROLLED_BACK,
        rolled_back="booted since: the back-off starts again",
        pending="the back-off is over and a reboot is still required",
        idle="no longer required",
    ),
)
EDGES = frozenset((edge.source, edge.target) for edge in TRANSITIONS)
