"""Every `node-hardening.io` key that the agent and the plugin write on API objects, once. Constants only."""

from __future__ import annotations

DOMAIN = "node-hardening.io"
PREFIX = f"{DOMAIN}/"

# Annotations of a Node that say how the node is hardened.
STATUS = f"{PREFIX}status"
SUMMARY = f"{PREFIX}summary"
FINDINGS = f"{PREFIX}findings"
CHECKS = f"{PREFIX}checks"
POLICY = f"{PREFIX}policy"
VERSION = f"{PREFIX}version"
LAST_CHANGE = f"{PREFIX}last-change"
CONFIG_PROBLEM = f"{PREFIX}config-problem"
ROLLOUT = f"{PREFIX}rollout"

# Annotations of a Node about what its containers are refused, and what they call.
DENIALS = f"{PREFIX}denials"
RECORDINGS = f"{PREFIX}recordings"

# Annotations of a Node about its reboots; the last two are written by users.
REBOOT = f"{PREFIX}reboot"
REBOOT_STATUS = f"{PREFIX}reboot-status"
REBOOT_HISTORY = f"{PREFIX}reboot-history"
REBOOT_STATE = f"{PREFIX}reboot-state"
REBOOT_SKIP = f"{PREFIX}reboot-skip"
REBOOT_REQUEST = f"{PREFIX}reboot-request"

# A Node's label, taint and conditions.
LABEL = f"{PREFIX}hardened"
TAINT = f"{PREFIX}not-hardened"
CONDITION_HARDENED = "NodeHardened"
CONDITION_REBOOT = "RebootRequired"
CONDITION_POLICY = "PolicyCurrent"

# Annotations of a reboot lock's Lease.
LOCK_PHASE = f"{PREFIX}phase"
LOCK_CYCLE = f"{PREFIX}cycle"
LOCK_BOOT_ID = f"{PREFIX}boot-id"
LOCK_LAST_REBOOT = f"{PREFIX}last-reboot"
LOCK_TAKEN_FROM = f"{PREFIX}taken-from"
LOCK_POOL_SIZE = f"{PREFIX}pool-size"
LOCK_WAITED_SECONDS = f"{PREFIX}waited-seconds"
LOCK_STUCK = f"{PREFIX}stuck"
LOCK_UNLOCKED = f"{PREFIX}unlocked"

# Owner in metadata.managedFields of a cordon (spec.unschedulable) that the agent wrote.
FIELD_MANAGER = f"{PREFIX}reboot"
