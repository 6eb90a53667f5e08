"""The reasons of Events: stable words that alerts, runbooks and notification routes hang on.

A reason is never renamed or given another meaning; new ones join. Nothing here sends anything.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Self


class Urgency(Enum):
    """How an Event is typed on the API server, and whether on-call is told without having asked."""

    NORMAL = "Normal"
    WARNING = "Warning"
    ON_CALL = "Warning, and sent to on-call"


class Reason(StrEnum):
    """Every reason, with its urgency and what it means in one line."""

    urgency: Urgency
    meaning: str

    def __new__(cls, value: str, urgency: Urgency, meaning: str) -> Self:
        """A plain string to everybody who compares or sends it."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.urgency = urgency
        reason.meaning = meaning
        return reason

    NODE_HARDENED = "NodeHardened", Urgency.NORMAL, "Every control passes, verified on the node"
    NODE_NON_COMPLIANT = "NodeNonCompliant", Urgency.WARNING, "The node no longer complies; names what differs"
    DRIFT_CORRECTED = "DriftCorrected", Urgency.NORMAL, "What somebody changed was put right again"
    HARDENING_FAILED = "HardeningFailed", Urgency.ON_CALL, "A change that the policy asks for could not be made"
    STARTUP_TAINT_REMOVED = "StartupTaintRemoved", Urgency.NORMAL, "The node was verified and takes pods now"
    CONFIG_RELOADED = "ConfigReloaded", Urgency.NORMAL, "A changed configuration is in force"
    CONFIG_REJECTED = (
        "ConfigRejected",
        Urgency.ON_CALL,
        "A changed configuration does not validate; the old one goes on",
    )

    REBOOT_REQUIRED = "RebootRequired", Urgency.NORMAL, "The sentinel asks for a reboot; names the packages"
    REBOOT_BLOCKED = "RebootBlocked", Urgency.NORMAL, "The reboot waits; names by whom or by what"
    REBOOT_LOCK_ACQUIRED = "RebootLockAcquired", Urgency.NORMAL, "This node is the one to reboot now"
    REBOOT_LOCK_TAKEN_OVER = (
        "RebootLockTakenOver",
        Urgency.WARNING,
        "The lock's holder is gone for good; this node has it",
    )
    REBOOT_LOCK_STUCK = "RebootLockStuck", Urgency.ON_CALL, "The lock's holder went down and did not come back"
    REBOOT_LOCK_RELEASED = "RebootLockReleased", Urgency.NORMAL, "The next node may reboot"
    NODE_CORDONED = "NodeCordoned", Urgency.NORMAL, "The agent cordoned the node for its reboot"
    NODE_UNCORDONED = "NodeUncordoned", Urgency.NORMAL, "The agent lifted its own cordon"
    DRAIN_BLOCKED = "DrainBlocked", Urgency.WARNING, "An eviction is refused; names the disruption budget and its owner"
    DRAINED = "Drained", Urgency.NORMAL, "The node is empty"
    REBOOTING = "Rebooting", Urgency.NORMAL, "The lock is fenced and the reboot command is given now"
    REBOOT_SUCCEEDED = "RebootSucceeded", Urgency.NORMAL, "The node is back and proved well; old and new kernel"
    REBOOT_FAILED = "RebootFailed", Urgency.ON_CALL, "The cycle ended without a proved reboot; says why"
