"""The reasons of Events: stable names that alerts, runbooks and notification routes depend on.

A reason never changes its name or meaning; new ones may be added. Nothing here sends anything.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Self


class Urgency(Enum):
    """The type of an Event on the API server, and whether on-call gets it by default."""

    NORMAL = "Normal"
    WARNING = "Warning"
    ON_CALL = "Warning, and sent to on-call"


class Reason(StrEnum):
    """Every reason, with its urgency and what it means in one line."""

    urgency: Urgency
    meaning: str

    def __new__(cls, value: str, urgency: Urgency, meaning: str) -> Self:
        """A plain string wherever it is compared or sent."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.urgency = urgency
        reason.meaning = meaning
        return reason

    NODE_HARDENED = "NodeHardened", Urgency.NORMAL, "Every control passes, verified on the node"
    NODE_NON_COMPLIANT = "NodeNonCompliant", Urgency.WARNING, "The node no longer complies; names what differs"
    DRIFT_CORRECTED = "DriftCorrected", Urgency.NORMAL, "A change on the node was reverted to the policy"
    HARDENING_FAILED = "HardeningFailed", Urgency.ON_CALL, "A change that the policy requires failed"
    STARTUP_TAINT_REMOVED = "StartupTaintRemoved", Urgency.NORMAL, "The node takes pods now; names its status"
    CONFIG_RELOADED = "ConfigReloaded", Urgency.NORMAL, "A changed configuration is in force"
    CONFIG_REJECTED = (
        "ConfigRejected",
        Urgency.ON_CALL,
        "A changed configuration does not validate; the last valid one is used",
    )
    POLICY_FAILED_ON_CANARY = (
        "PolicyFailedOnCanary",
        Urgency.ON_CALL,
        "A changed policy fails checks on this canary; other nodes keep the last one",
    )
    POLICY_ACCEPTED = (
        "PolicyAccepted",
        Urgency.NORMAL,
        "The rollout of a policy ended on this canary; other nodes have the policy or take it with their next poll",
    )
    POLICY_ROLLOUT_STUCK = (
        "PolicyRolloutStuck",
        Urgency.WARNING,
        "A changed policy has waited for its canaries for an hour; names them",
    )

    PROFILE_DENIED = "ProfileDenied", Urgency.WARNING, "A profile refused a call of this pod; names both"

    REBOOT_REQUIRED = "RebootRequired", Urgency.NORMAL, "The sentinel requests a reboot; names the packages"
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
    NODE_UNCORDONED = "NodeUncordoned", Urgency.NORMAL, "The agent removed its own cordon"
    NODE_KEY_REFUSED = (
        "NodeKeyRefused",
        Urgency.WARNING,
        "The API server refuses a key of nodeLabels or nodeAnnotations at the end of a cycle; names it",
    )
    DRAIN_BLOCKED = "DrainBlocked", Urgency.WARNING, "An eviction is refused; names the disruption budget and its owner"
    DRAINED = "Drained", Urgency.NORMAL, "The node is empty"
    REBOOTING = "Rebooting", Urgency.NORMAL, "The lock is fenced and the reboot command is given now"
    REBOOT_SUCCEEDED = "RebootSucceeded", Urgency.NORMAL, "The node is back and verified; old and new kernel"
    REBOOT_FAILED = "RebootFailed", Urgency.ON_CALL, "The cycle ended without a verified reboot; with the cause"
