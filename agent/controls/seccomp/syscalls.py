"""Which syscalls there are, and on which architectures: so that a typo differs from a name of another machine.

The table is data (syscalls.txt, written by tools/make-syscalls); it refuses to ask libseccomp at run time, because the
agent's image has none and the node's own may be older than its kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from agent.bundled_profiles import data_file

# OCI's names of the architectures (opencontainers/runtime-spec, config-linux.md), as libseccomp calls them.
ARCHITECTURES = {
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_LOONGARCH64": "loongarch64",
    "SCMP_ARCH_M68K": "m68k",
    "SCMP_ARCH_MIPS": "mips",
    "SCMP_ARCH_MIPS64": "mips64",
    "SCMP_ARCH_MIPS64N32": "mips64n32",
    "SCMP_ARCH_MIPSEL": "mipsel",
    "SCMP_ARCH_MIPSEL64": "mipsel64",
    "SCMP_ARCH_MIPSEL64N32": "mipsel64n32",
    "SCMP_ARCH_PARISC": "parisc",
    "SCMP_ARCH_PARISC64": "parisc64",
    "SCMP_ARCH_PPC": "ppc",
    "SCMP_ARCH_PPC64": "ppc64",
    "SCMP_ARCH_PPC64LE": "ppc64le",
    "SCMP_ARCH_RISCV64": "riscv64",
    "SCMP_ARCH_S390": "s390",
    "SCMP_ARCH_S390X": "s390x",
    "SCMP_ARCH_SH": "sh",
    "SCMP_ARCH_SHEB": "sheb",
}

# uname's machine: its own architecture first, then those whose programs the same kernel runs. The pairs are the ones
# of the runtimes' default profiles.
_FAMILIES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "ppc64": ("SCMP_ARCH_PPC64", "SCMP_ARCH_PPC"),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64",),
    "i686": ("SCMP_ARCH_X86",),
    "i386": ("SCMP_ARCH_X86",),
    "armv7l": ("SCMP_ARCH_ARM",),
    "armv8l": ("SCMP_ARCH_ARM",),
}
_MIPS_BIG = {"mips": ("SCMP_ARCH_MIPS",), "mips64": ("SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64N32")}
_MIPS_LITTLE = {
    "mips": ("SCMP_ARCH_MIPSEL",),
    "mips64": ("SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32"),
}

# What authors write in Docker's `arches`: Go's names, uname's and libseccomp's all mean the same machine.
_SPELLINGS = {
    "amd64": "x86_64",
    "386": "x86",
    "i386": "x86",
    "i686": "x86",
    "arm64": "aarch64",
    "armv7l": "arm",
    "mipsle": "mipsel",
    "mips64le": "mipsel64",
    "mips64p32": "mips64n32",
    "mips64p32le": "mipsel64n32",
    "loong64": "loongarch64",
}


@dataclass(frozen=True, slots=True)
class Younger:
    """A syscall that old libraries do not know. kernel: first with it. libseccomp: first that knows its name."""

    kernel: tuple[int, int]
    libseccomp: tuple[int, int, int]


# A runtime whose libseccomp does not know a name leaves the rule out without a word (runc's matchCall, crun's
# libcrun_generate_seccomp). libseccomp's CHANGELOG: 2.5.5 has Linux 6.7, 2.5.6 and 2.6.0 have 6.13, 2.6.1 has 7.1.
_KNOWN_SINCE = {
    (2, 5, 5): {
        (6, 5): "cachestat",
        (6, 6): "fchmodat2 map_shadow_stack",
        (6, 7): "futex_wake futex_wait futex_requeue",
    },
    (2, 5, 6): {
        (6, 8): "statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
        (6, 10): "mseal",
        (6, 13): "setxattrat getxattrat listxattrat removexattrat",
    },
    (2, 6, 1): {
        (6, 15): "open_tree_attr",
        (6, 17): "file_getattr file_setattr",
        (6, 19): "listns",
        (7, 0): "rseq_slice_yield",
    },
}


@cache
def younger() -> Mapping[str, Younger]:
    """Syscalls that libseccomp 2.5.4 as released (Linux 5.17; in runc's own builds before 1.2) does not know."""
    return {
        name: Younger(kernel, library)
        for library, kernels in _KNOWN_SINCE.items()
        for kernel, names in kernels.items()
        for name in names.split()
    }


@cache
def table() -> Mapping[str, frozenset[str]]:
    """Every syscall that any architecture has, with the architectures (libseccomp's names) that have it."""
    text = data_file(__name__, "syscalls.txt")
    found: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            archs, names = line.split(": ")
            found.update(dict.fromkeys(names.split(), frozenset(archs.split())))
    return found


def exists_on(name: str, architectures: tuple[str, ...]) -> bool:
    """Whether one of the architectures (OCI's names) has the syscall. Where there is no table, it may well have it."""
    having = table().get(name, frozenset())
    for architecture in architectures:
        # Little-endian MIPS has the numbers of big-endian MIPS.
        arch = ARCHITECTURES[architecture].replace("mipsel", "mips")
        if arch in having or arch in {"m68k", "parisc", "parisc64", "sh", "sheb"}:
            return True
    return False


def family_of(machine: str) -> tuple[str, ...]:
    """OCI's architectures of a machine (uname's name), its own first; empty for an unknown one."""
    return (_FAMILIES | (_MIPS_LITTLE if sys.byteorder == "little" else _MIPS_BIG)).get(machine, ())


def arch_named(spelling: str) -> str | None:
    """libseccomp's name for any usual spelling (`amd64`, `x86_64`, `SCMP_ARCH_X86_64`), None for none of them."""
    name = ARCHITECTURES.get(spelling) or _SPELLINGS.get(spelling, spelling)
    return name if name in ARCHITECTURES.values() else None


def machine_named(spelling: str) -> str | None:
    """uname's name of a machine for any usual spelling of its architecture, None for none of them."""
    if family_of(spelling):
        return spelling
    arch = arch_named(spelling)
    return next((machine for machine in _FAMILIES if ARCHITECTURES[family_of(machine)[0]] == arch), None)
