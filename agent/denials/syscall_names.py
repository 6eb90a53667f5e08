"""The name of a syscall by its number: audit records have numbers. Read when the first one of an architecture comes.

The table is data (syscall_numbers.txt, written by tools/make-syscalls --numbers).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from agent.bundled_profiles import data_file

# AUDIT_ARCH_* of linux/audit.h, as seccomp profiles call them (the OCI runtime specification).
ARCHITECTURES: Final[Mapping[int, str]] = {
    0xC000003E: "SCMP_ARCH_X86_64", 0x40000003: "SCMP_ARCH_X86", 0xC00000B7: "SCMP_ARCH_AARCH64",
    0x40000028: "SCMP_ARCH_ARM", 0xC00000F3: "SCMP_ARCH_RISCV64", 0x80000016: "SCMP_ARCH_S390X",
    0xC0000015: "SCMP_ARCH_PPC64LE",
}  # fmt: skip
X32_BIT: Final = 0x40000000  # of a number: a program of x32, whose architecture is x86_64's
_X86_64 = 0xC000003E


@cache
def names(arch: int) -> Mapping[int, str]:
    """Every syscall of an architecture (AUDIT_ARCH_*); empty for one without a table."""
    found: dict[int, str] = {}
    for line in data_file(__name__, "syscall_numbers.txt").splitlines():
        token, _, words = line.partition(": ")
        if line.startswith("#") or int(token, 16) != arch:
            continue
        number = 0
        for word in words.split():
            if word.isdecimal():
                number = int(word)
            else:
                found[number] = word
                number += 1
    return found


def name_of(arch: int, number: int) -> str:
    """`openat`; `syscall 16383` for one that the table has not. Programs of x32 have x86_64's names."""
    if arch == _X86_64 and number & X32_BIT:
        number ^= X32_BIT
    return names(arch).get(number) or f"syscall {number}"
