"""What is installed loads: every profile that is written is built with libseccomp itself, as runc builds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.controls.seccomp import lint
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.resolver import Platform, Resolved, resolve
from agent.errors import ConfigError

pytest.importorskip("pyseccomp", reason="libseccomp is not here")
from tests.support.libseccomp import ALLOW, DENY, KILL, Builder

X86_64, AARCH64 = Platform("x86_64", (6, 1)), Platform("aarch64", (6, 1))
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
VALUES = st.sampled_from((0, 1, 2, 3, 1 << 32, (1 << 32) + 1, 2 << 32, 0xFFFFFFFF))
BUILDER = Builder()
loads = BUILDER.loads


@pytest.fixture(scope="module", autouse=True)
def _builder() -> Iterator[None]:
    yield
    BUILDER.close()


def resolved(document: dict[str, Any], platform: Platform = X86_64) -> Resolved:
    return resolve(read(json.dumps(document), "p.json"), platform, "p.json")


@st.composite
def arguments(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for index in sorted(draw(st.sets(st.integers(0, 2), max_size=2))):
        op, value = draw(st.sampled_from(OPERATORS)), draw(VALUES)
        two = {"valueTwo": draw(VALUES) & value} if op == "MASKED_EQ" else {}
        found.append({"index": index, "op": f"SCMP_CMP_{op}", "value": value, **two})
    return found


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.sampled_from((("chmod",), ("socket", "socketcall", "bind"), ("shmget", "ipc"), ("socket",))))
    rules = [
        {
            "names": draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)),
            "action": draw(st.sampled_from((ALLOW, DENY, DENY, KILL))),
            "args": draw(arguments()),
        }
        for _ in range(draw(st.integers(1, 4)))
    ]
    for rule in rules:
        if rule["action"] == DENY:
            rule["errnoRet"] = draw(st.sampled_from((1, 38, 4094)))
    arches = draw(st.sampled_from(((), ("X86_64",), ("X86_64", "X86"), ("X86_64", "X86", "X32"), ("AARCH64", "ARM"))))
    return {
        "defaultAction": draw(st.sampled_from((ALLOW, DENY))),
        "architectures": [f"SCMP_ARCH_{arch}" for arch in arches],
        "syscalls": rules,
    }


def check(document: dict[str, Any], platform: Platform) -> None:
    """What is written of a profile that is not refused is built by libseccomp."""
    try:
        written = resolved(document, platform)
    except ConfigError:
        return
    assert loads(json.loads(written.content)) is not False


# The same in the low halves, which is all that x86 and x32 compare.
LOW_HALVES_ALIKE = {
    "defaultAction": ALLOW,
    "architectures": [],
    "syscalls": [
        {"names": ["chmod"], "action": DENY, "errnoRet": 1, "args": [{"index": 0, "op": "SCMP_CMP_NE", "value": 0}]},
        {"names": ["chmod"], "action": KILL, "args": [{"index": 0, "op": "SCMP_CMP_NE", "value": 1 << 32}]},
    ],
}

# As it stands it loads on x86, where the first rule compares no more than the number of the call; not the other way.
SORTED_INTO_A_CLASH = {
    "defaultAction": ALLOW,
    "architectures": [],
    "syscalls": [
        {
            "names": ["socket"], "action": KILL,
            "args": [
                {"index": 0, "op": "SCMP_CMP_NE", "value": 0},
                {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 1 << 32, "valueTwo": 0},
            ],
        },
        {"names": ["socket"], "action": DENY, "errnoRet": 1, "args": [{"index": 1, "op": "SCMP_CMP_NE", "value": 0}]},
    ],
}  # fmt: skip


@given(profiles(), st.sampled_from((X86_64, AARCH64)))
@example(SORTED_INTO_A_CLASH, X86_64)
@example(LOW_HALVES_ALIKE, X86_64)
def test_what_is_written_loads(document: dict[str, Any], platform: Platform) -> None:
    """Whatever the profile, for both machines and their sub-architectures."""
    check(document, platform)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a second for each on which libseccomp hangs
@settings(max_examples=20_000)
@given(profiles(), st.sampled_from((X86_64, AARCH64)))
def test_what_is_written_loads_twenty_thousand_times(document: dict[str, Any], platform: Platform) -> None:
    """The same, in the slow part."""
    check(document, platform)


def rule(*names: str, action: str = DENY, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def equals(value: int, index: int = 0) -> list[dict[str, Any]]:
    return [{"index": index, "op": "SCMP_CMP_EQ", "value": value}]


TWO_SOCKETS = [rule("socket", args=equals(40)), rule("socket", action=KILL, args=equals(38))]


def test_architectures_that_were_not_asked_for_are_left_out_where_they_would_not_load() -> None:
    """As written it loads on x86-64; on x86 both rules are one socketcall."""
    written = resolved({"defaultAction": ALLOW, "syscalls": TWO_SOCKETS})
    assert written.architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32")
    assert any("X86 left out" in note for note in written.notes)
    assert loads(json.loads(written.content))


@pytest.mark.parametrize(
    ("rules", "at"),
    [
        (TWO_SOCKETS, "syscalls[1]"),
        ([rule("socketcall", args=equals(1)), rule("socket", errnoRet=97)], "syscalls[1]"),
        ([rule("shmget", args=equals(1)), rule("shmget", action=KILL, args=equals(2))], "syscalls[1]"),
        ([rule("chmod", args=equals(1)), rule("chmod", action=KILL, args=equals((1 << 32) + 1))], "syscalls[1]"),
        (
            [
                rule("socketcall", action=KILL),
                rule("socket", args=equals(1)),
                rule("socket", action=KILL, args=equals((1 << 32) + 1)),
            ],
            "syscalls[2]",
        ),
        ([rule("chmod", args=equals(1) + equals(3, 1)), rule("chmod", action=KILL, args=equals(1))], "syscalls[1]"),
    ],
)
def test_what_would_not_load_is_refused_with_that_reason(rules: list[dict[str, Any]], at: str) -> None:
    """Multiplexed calls, the low half of an argument, a chain that is the beginning of an earlier one."""
    document = {
        "defaultAction": ALLOW, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="libseccomp refuses") as error:
        resolved(document)
    assert [problem.key for problem in error.value.problems] == [at]
    assert loads(document) is False


def test_the_largest_error_number() -> None:
    """4095 is EINVAL for libseccomp."""
    document = {"defaultAction": ALLOW, "syscalls": [rule("mount", errnoRet=4095)]}
    assert loads(document) is False
    assert [problem.key for problem in lint(json.dumps(document), "p.json")] == ["syscalls[0].errnoRet"]
    document["syscalls"] = [rule("mount", errnoRet=4094)]
    assert loads(json.loads(resolved(document).content))


@pytest.mark.parametrize("default", [{}, {"defaultErrnoRet": 38}], ids=["repeats the default", "another error"])
def test_of_two_actions_for_one_syscall_the_one_that_runtimes_enforce_is_written(
    default: dict[str, Any],
) -> None:
    """The shape of Podman's, CRI-O's and Buildah's stock profile: setns is allowed."""
    rules = [
        rule("read", "setns", action=ALLOW),
        rule("setns", errnoRet=1, excludes={"caps": ["CAP_SYS_ADMIN"]}),
    ]
    written = resolved({"defaultAction": DENY, **default, "syscalls": rules})
    assert json.loads(written.content)["syscalls"] == [rule("read", "setns", action=ALLOW)]
    assert any("setns is ALLOW" in note for note in written.notes)
    assert loads(json.loads(written.content))


def test_rules_that_repeat_the_default_stay() -> None:
    """runc returns ENOSYS for what is above the highest syscall that a profile names: clone3 was to be EPERM."""
    rules = [rule("read", "write", action=ALLOW), rule("clone3", "openat2", errnoRet=1)]
    written = resolved({"defaultAction": DENY, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
    assert [one["names"] for one in json.loads(written.content)["syscalls"]] == [
        ["read", "write"],
        ["clone3", "openat2"],
    ]


def test_lint_looks_at_both_sides_of_a_kernel_version() -> None:
    """Right since Linux 4.8, refused by an older node: said where the profile is written."""
    rules = [
        rule("ptrace", excludes={"minKernel": "4.8"}),
        rule("ptrace", action=KILL),
    ]
    (problem,) = lint(json.dumps({"defaultAction": ALLOW, "syscalls": rules}), "p.json")
    assert problem.message.endswith("(on Linux before 4.8)")
