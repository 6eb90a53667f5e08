"""What a profile becomes on a node: OCI's form, for this machine and kernel, the same bytes each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.controls.seccomp import syscalls
from agent.controls.seccomp.equivalent_syscalls import families, gaps, unknown_to
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.resolver import Platform, Resolved, resolve
from agent.errors import ConfigError

X86 = Platform("x86_64", (6, 1))
ARM = Platform("aarch64", (6, 1))
X86_ARCHES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
DENY = "SCMP_ACT_ERRNO"
ALLOW = "SCMP_ACT_ALLOW"


def resolved(*rules: dict[str, Any], platform: Platform = X86, default: str = ALLOW, **more: Any) -> Resolved:
    """A profile of these rules, resolved."""
    text = json.dumps({"defaultAction": default, "syscalls": list(rules), **more})
    return resolve(read(text, "p"), platform, "p")


def document(done: Resolved) -> dict[str, Any]:
    """What is installed, as runtimes read it."""
    parsed: dict[str, Any] = json.loads(done.content)
    return parsed


def names(done: Resolved) -> list[str]:
    """Every syscall that a rule names."""
    return sorted(name for rule in document(done).get("syscalls", []) for name in rule["names"])


def test_the_old_form_becomes_names() -> None:
    """`name` is what runtimes do not read; it becomes `names`, and the notes say so."""
    done = resolved({"name": "chmod", "action": DENY}, {"name": "fchmod", "action": DENY})
    assert document(done) == {
        "defaultAction": ALLOW,
        "architectures": X86_ARCHES,
        "syscalls": [{"names": ["chmod", "fchmod"], "action": DENY}],
    }
    assert "2 rules with the old `name` written as `names`, which runtimes read" in done.notes


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", X86_ARCHES),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("s390x", ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
        ("ppc64le", ["SCMP_ARCH_PPC64LE"]),
        ("riscv64", ["SCMP_ARCH_RISCV64"]),
        ("loongarch64", ["SCMP_ARCH_LOONGARCH64"]),
        ("vax", None),
    ],
)
def test_architectures_are_filled_in(machine: str, expected: list[str] | None) -> None:
    """Where none are given, the machine's own and those whose programs its kernel runs are written."""
    done = resolved({"names": ["chmod"], "action": DENY}, platform=Platform(machine, None))
    assert document(done).get("architectures") == expected


def test_architectures_of_other_machines_are_left_out() -> None:
    """A list for a whole fleet comes down to this machine's part, its own architecture always included."""
    given = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_S390X", "SCMP_ARCH_X86"]
    done = resolved({"names": ["chmod"], "action": DENY}, architectures=given)
    assert document(done)["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert "architectures of other machines left out: AARCH64, S390X" in done.notes
    assert "this machine's own architecture added: X86_64" in done.notes


def test_arch_map_is_resolved() -> None:
    """Docker's archMap gives this machine's entry; without one for it, what the machine is by itself."""
    arch_map = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    done = resolved({"names": ["chmod"], "action": DENY}, archMap=arch_map)
    assert document(done)["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    other = resolved({"names": ["fchmod"], "action": DENY}, archMap=arch_map, platform=ARM)
    assert document(other)["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


GATES = [
    ({"includes": {"arches": ["amd64"]}}, True, False),
    ({"includes": {"arches": ["arm64", "x86_64"]}}, True, True),
    ({"excludes": {"arches": ["SCMP_ARCH_AARCH64"]}}, True, False),
    ({"includes": {"minKernel": "6.1"}}, True, True),
    ({"includes": {"minKernel": "6.2"}}, False, False),
    ({"excludes": {"minKernel": "6.1"}}, False, False),
    ({"excludes": {"minKernel": "6.10"}}, True, True),
    ({"includes": {"minKernel": "5.19"}, "excludes": {"arches": ["arm64"]}}, True, False),
]


@pytest.mark.parametrize(("gate", "on_x86", "on_arm"), GATES)
def test_gates_are_resolved_for_machine_and_kernel(gate: dict[str, Any], on_x86: bool, on_arm: bool) -> None:
    """includes and excludes decide here, where the node is known, and do not reach the runtime."""
    for platform, kept in ((X86, on_x86), (ARM, on_arm)):
        done = resolved(
            {"names": ["read"], "action": "SCMP_ACT_LOG"},
            {"names": ["fchmod"], "action": DENY} | gate,
            platform=platform,
        )
        assert ("fchmod" in names(done)) is kept
        assert b"cludes" not in done.content


@pytest.mark.parametrize(
    ("default", "action", "gate", "kept"),
    [
        (DENY, ALLOW, "includes", False),
        (DENY, ALLOW, "excludes", True),
        (ALLOW, DENY, "includes", True),
        (ALLOW, DENY, "excludes", True),
        (DENY, "SCMP_ACT_KILL", "includes", True),
    ],
)
def test_capability_gates_are_taken_the_strict_way(default: str, action: str, gate: str, kept: bool) -> None:
    """One file serves all containers: what only a capability would allow is left out, what is denied stays denied."""
    rules = {"names": ["bpf"], "action": action, gate: {"caps": ["CAP_SYS_ADMIN"]}}
    done = resolved({"names": ["read"], "action": "SCMP_ACT_LOG"}, rules, default=default)
    assert ("bpf" in names(done)) is kept
    assert any("CAP_SYS_ADMIN" in note for note in done.notes)


@pytest.mark.parametrize(("default", "action", "kept"), [(DENY, ALLOW, False), (ALLOW, DENY, True)])
def test_an_unknown_kernel_is_taken_the_strict_way(default: str, action: str, kept: bool) -> None:
    """Where the kernel's version is unknown, minKernel never lets more through."""
    gated = {"names": ["ptrace"], "action": action, "includes": {"minKernel": "4.8"}}
    unknown = Platform.of("x86_64", "not a release")
    done = resolved({"names": ["read"], "action": "SCMP_ACT_LOG"}, gated, default=default, platform=unknown)
    assert ("ptrace" in names(done)) is kept


def test_a_profile_whose_rules_are_all_for_other_machines_is_no_filter() -> None:
    """What would allow everything on this node is refused on this node."""
    with pytest.raises(ConfigError, match="no filter"):
        resolved({"names": ["chmod"], "action": DENY, "includes": {"arches": ["arm64"]}})


def test_two_comparisons_of_one_argument_become_two_rules() -> None:
    """libseccomp cannot have both in one rule; runc and crun take either, so that is what is written."""
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (16, 40)]
    done = resolved({"names": ["socket"], "action": DENY, "args": args})
    assert [rule["args"] for rule in document(done)["syscalls"]] == [[args[0]], [args[1]]]
    assert any("either, not both" in note for note in done.notes)


def test_rules_that_say_the_same_become_one() -> None:
    """Merged by action and arguments, names sorted and once."""
    done = resolved(
        {"names": ["fchmod", "chmod", "chmod"], "action": DENY},
        {"names": ["read"], "action": ALLOW},
        {"names": ["chmod"], "action": DENY, "errnoRet": 1},
        {"names": ["chmod"], "action": DENY, "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]},
    )
    assert document(done)["syscalls"] == [
        {"names": ["chmod", "fchmod"], "action": DENY},
        {"names": ["read"], "action": ALLOW},
    ]


def test_what_is_written_is_read_back_the_same() -> None:
    """A profile with every key of the OCI form survives, and resolving it once more changes no byte."""
    args = [
        {"index": 0, "value": 7, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 5, "value": (1 << 64) - 1, "op": "SCMP_CMP_LE"},
    ]
    given = {
        "defaultAction": DENY,
        "defaultErrnoRet": 38,
        "architectures": X86_ARCHES,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/listener.sock",
        "listenerMetadata": "x",
        "syscalls": [
            {"names": ["close", "read"], "action": ALLOW},
            {"names": ["mount"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            {"names": ["clone"], "action": ALLOW, "args": args},
        ],
    }
    done = resolve(read(json.dumps(given), "p"), X86, "p")
    assert document(done) == given
    assert done.notes == ()
    assert resolve(read(done.content, "p"), X86, "p").content == done.content


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"names": ["chmod"], "action": DENY}], {"fchmod", "fchmodat", "fchmodat2"}),
        ([{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": DENY}], set()),
        ([{"names": ["chmod"], "action": "SCMP_ACT_LOG"}], set()),
        ([{"names": ["execve"], "action": "SCMP_ACT_KILL"}], {"execveat"}),
        ([{"names": ["ptrace"], "action": DENY}], {"process_vm_readv", "process_vm_writev", "pidfd_getfd"}),
        ([{"names": ["unshare"], "action": DENY}], {"clone(flags)", "clone3"}),
        (
            [
                {"names": ["unshare"], "action": DENY},
                {"names": ["clone3"], "action": DENY, "errnoRet": 38},
                {
                    "names": ["clone"],
                    "action": DENY,
                    "args": [{"index": 0, "value": 1 << 28, "valueTwo": 1 << 28, "op": "SCMP_CMP_MASKED_EQ"}],
                },
            ],
            set(),
        ),
        ([{"names": ["clone3"], "action": DENY, "errnoRet": 38}], set()),
        ([{"names": ["rename", "renameat", "renameat2"], "action": DENY}], {"io_uring_setup"}),
        ([{"names": ["chown", "fchown", "fchownat", "lchown"], "action": DENY}], {"chown32", "fchown32", "lchown32"}),
    ],
)
def test_equivalent_syscalls_that_walk_around_a_rule_are_named(rules: list[dict[str, Any]], expected: set[str]) -> None:
    """A rule that denies some of a family and leaves others open is told which; ENOSYS alone is no wish to deny."""
    found = gaps(resolved(*rules, {"names": ["read"], "action": "SCMP_ACT_LOG"}))
    assert {name for gap in found for name in gap.missing} == expected


def test_equivalent_syscalls_are_those_of_this_machine() -> None:
    """What the node's architectures do not have walks around nothing."""
    found = gaps(resolved({"names": ["fchmodat"], "action": DENY}, platform=Platform("riscv64", None)))
    assert [gap.missing for gap in found] == [("fchmod", "fchmodat2")]


def test_a_denying_default_has_no_gaps() -> None:
    """What is not allowed is denied, twin or not."""
    assert gaps(resolved({"names": ["chmod"], "action": "SCMP_ACT_KILL"}, default=DENY)) == ()


def test_every_twin_is_a_syscall() -> None:
    """The table of families holds no misspelt name, and no family of one but the ring's."""
    members = {member.removesuffix("(flags)") for family in families() for member in family.members}
    assert members - syscalls.table().keys() == set()
    assert [family.what for family in families() if len(family.members) < 2] == ["the ring itself"]


def test_the_table_knows_young_and_foreign_syscalls() -> None:
    """Names that Debian 12's libseccomp lacks, and names that only another architecture has."""
    table = syscalls.table()
    assert {
        "fchmodat2",
        "cachestat",
        "mseal",
        "lsm_list_modules",
        "setxattrat",
        "open_tree_attr",
        "listns",
    } <= table.keys()
    assert "chmod" not in {name for name, archs in table.items() if "aarch64" in archs}
    assert table["riscv_flush_icache"] == {"riscv64"}
    assert syscalls.younger().keys() <= table.keys()
    assert len(table) > 480


@pytest.mark.parametrize(
    ("kernel", "library", "expected"),
    [
        ((6, 6), None, ("fchmodat2",)),
        ((6, 6), (2, 5, 4), ("fchmodat2",)),
        ((6, 6), (2, 5, 5), ()),
        ((6, 5), None, ()),
        (None, None, ("fchmodat2",)),
    ],
)
def test_syscalls_that_an_old_library_skips(
    kernel: tuple[int, int] | None, library: tuple[int, int, int] | None, expected: tuple[str, ...]
) -> None:
    """A denied syscall that the kernel has and the library does not know is said, nothing else."""
    platform = Platform("x86_64", kernel)
    rule = {"names": ["chmod", "fchmodat2"], "action": DENY}
    assert unknown_to(resolved(rule, platform=platform), platform, library) == expected
    allowing = resolved(rule | {"action": ALLOW}, default=DENY, platform=platform)
    assert unknown_to(allowing, platform, library) == ()
