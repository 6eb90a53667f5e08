"""A seccomp profile as values, and the words that it may use.

The words are those of the OCI runtime specification (config-linux.md, Seccomp) and, for what is resolved before a
runtime sees it, of Docker's profile form (`archMap`, `includes`, `excludes`). Nothing here reads or decides.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

# Strictest first, in the kernel's order of precedence (include/uapi/linux/seccomp.h). KILL is KILL_THREAD's old name.
ACTIONS: Final = (
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ALLOW",
)
LETS_THROUGH: Final = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})
# The actions that carry a number, and the largest that the kernel hands on: MAX_ERRNO, and 16 bits for a tracer.
WITH_ERRNO: Final = {"SCMP_ACT_ERRNO": 4094, "SCMP_ACT_TRACE": 65535}  # libseccomp refuses more
OPERATORS: Final = tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
MASKED: Final = "SCMP_CMP_MASKED_EQ"
FLAGS: Final = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
_CAPABILITIES = """
AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
CAPABILITIES: Final = tuple(f"CAP_{name}" for name in _CAPABILITIES.split())
EPERM: Final = errno.EPERM  # what runc and crun return where no errnoRet is given
ENOSYS: Final = errno.ENOSYS
VALUE_LIMIT: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, order=True)
class Arg:
    """One comparison of one argument. For MASKED_EQ `value` is the mask, `value_two` what the masked bits must be."""

    index: int
    op: str
    value: int
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """Docker's `includes` or `excludes`. arches: libseccomp's names. min_kernel: (major, minor)."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with some syscalls. errno: the number that goes with ERRNO or TRACE, None for any other action."""

    names: tuple[str, ...]
    action: str
    errno: int | None
    args: tuple[Arg, ...] = ()
    line: int = 0
    key: str = ""
    includes: RuleCondition | None = None
    excludes: RuleCondition | None = None

    @property
    def effect(self) -> tuple[str, int | None]:
        """What it comes to: two rules with equal effects are the same to a runtime."""
        return effect(self.action, self.errno)


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile as it was written, every word checked.

    architectures: OCI's names, empty when not given. arch_map: Docker's, each architecture with its sub-architectures.
    old_names: how many rules had `name` instead of `names`.
    """

    default_action: str
    default_errno: int | None
    default_line: int = 0
    architectures: tuple[str, ...] = ()
    arch_map: tuple[tuple[str, tuple[str, ...]], ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    rules: tuple[Rule, ...] = ()
    old_names: int = 0

    @property
    def effect(self) -> tuple[str, int | None]:
        """What the default comes to."""
        return effect(self.default_action, self.default_errno)


def effect(action: str, number: int | None) -> tuple[str, int | None]:
    """An action with its number, KILL read as KILL_THREAD."""
    return ("SCMP_ACT_KILL_THREAD" if action == "SCMP_ACT_KILL" else action, number)


def strictness(action: str) -> int:
    """0 for the strictest action; greater lets more through."""
    return ACTIONS.index(action)
