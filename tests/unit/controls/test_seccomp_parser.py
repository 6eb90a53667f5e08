"""Validation of seccomp profiles: every mistake is named with its line, its key and what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.controls.seccomp import advise, lint
from agent.controls.seccomp.parser import DEPTH_LIMIT, SIZE_LIMIT_BYTES, read
from agent.errors import ConfigError


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> str:
    """A profile as text, all on one line."""
    return json.dumps({"defaultAction": default, "syscalls": list(rules), **more})


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """One rule."""
    return {"names": list(names), "action": action, **more}


def arg(**keys: Any) -> dict[str, Any]:
    """A rule about chmod with one comparison."""
    return rule("chmod", args=[{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"} | keys])


GOOD = (
    profile(rule("chmod")),
    profile(rule("chmod", errnoRet=0), comment="why", _comment=["and", "how"]),
    profile(default="SCMP_ACT_LOG"),
    profile(rule("read", action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO", defaultErrnoRet=38),
    profile(rule("read", action="SCMP_ACT_LOG")),
    profile(rule("chmod", args=None), flags=["SECCOMP_FILTER_FLAG_LOG"], architectures=None),
    profile(arg(value=(1 << 64) - 1)),
    profile(arg(op="SCMP_CMP_MASKED_EQ", value=7, valueTwo=5)),
    profile(arg(valueTwo=0)),
    profile({"name": "chmod", "action": "SCMP_ACT_ERRNO"}),
    profile({"name": "", "names": ["chmod"], "action": "SCMP_ACT_ERRNO"}),
    profile(rule("chmod", includes={"arches": ["amd64"], "minKernel": "4.8.0-12"}, excludes={}), rule("chown")),
    profile(rule("chmod", errno="EACCES", errnoRet=13), default="SCMP_ACT_ALLOW"),
    profile(rule("read", action="SCMP_ACT_NOTIFY"), listenerPath="/run/x.sock", listenerMetadata="m"),
    profile(rule("riscv_flush_icache", "chmod")),
)


@pytest.mark.parametrize("text", GOOD)
def test_a_right_profile_has_no_problem(text: str) -> None:
    """Each form that a runtime, Docker or the old documentation uses is accepted."""
    assert lint(text, "p.json") == []


BAD = (
    ("{}", "defaultAction", "no filter at all"),
    ('{"architectures": ["SCMP_ARCH_X86_64"]}', "defaultAction", "no filter at all"),
    (profile(), "defaultAction", "this is no filter"),
    (profile(rule("chmod", action="SCMP_ACT_ALLOW")), "defaultAction", "this is no filter"),
    ('{"syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}', "defaultAction", "refuse the profile"),
    (profile(rule("chmod"), default="SCMP_ACT_NOTIFY"), "defaultAction", "cannot be the default"),
    (profile(rule("chmod"), default="SCMP_ACT_ALOW"), "defaultAction", "did you mean SCMP_ACT_ALLOW?"),
    (profile(rule("chmod"), default="allow"), "defaultAction", "is no action"),
    (profile(rule("chmod"), defaultErrnoRet=1), "defaultErrnoRet", "goes only with"),
    (profile(rule("chmod"), default="SCMP_ACT_ERRNO", defaultErrnoRet=4096), "defaultErrnoRet", "from 0 to 4094"),
    (profile(rule("chmod"), sysscalls=[]), "sysscalls", "did you mean syscalls?"),
    (profile(rule("chmod"), DefaultAction="x"), "DefaultAction", "did you mean defaultAction?"),
    (profile(rule("chmod"), architectures=["SCMP_ARCH_X8664"]), "architectures[0]", "did you mean SCMP_ARCH_X86_64?"),
    (profile(rule("chmod"), architectures="SCMP_ARCH_X86_64"), "architectures", "must be a list"),
    (profile(rule("chmod"), flags=["LOG"]), "flags[0]", "choose one of"),
    (profile(rule("chmodd")), "syscalls[0].names[0]", "did you mean chmod?"),
    (profile(rule("CHMOD")), "syscalls[0].names[0]", "did you mean chmod?"),
    (profile(rule("")), "syscalls[0].names[0]", "is no syscall"),
    (profile(rule()), "syscalls[0].names", "missing or empty"),
    (profile({"action": "SCMP_ACT_ERRNO"}), "syscalls[0].names", "missing or empty"),
    (profile({"names": ["chmod"]}), "syscalls[0].action", "is missing"),
    (profile(rule("chmod", name="fchmod")), "syscalls[0].name", "keep names"),
    (profile(rule("chmod", action="SCMP_ACT_DENY")), "syscalls[0].action", "is no action"),
    (profile(rule("chmod", action="SCMP_ACT_KILL", errnoRet=1)), "syscalls[0].errnoRet", "goes only with"),
    (profile(rule("chmod", errnoRet=-1)), "syscalls[0].errnoRet", "from 0 to 4094"),
    (profile(rule("chmod", errnoRet="EPERM")), "syscalls[0].errnoRet", "whole number"),
    (profile(rule("chmod", errno="EPREM")), "syscalls[0].errno", "did you mean EPERM?"),
    (profile(rule("chmod", errno="EPERM", errnoRet=2)), "syscalls[0].errno", "keep one"),
    (profile(rule("chmod", action="SCMP_ACT_TRACE", errnoRet=65536)), "syscalls[0].errnoRet", "from 0 to 65535"),
    (profile(rule("read", action="SCMP_ACT_NOTIFY")), "syscalls[0].action", "needs listenerPath"),
    (profile(rule("write", action="SCMP_ACT_NOTIFY"), listenerPath="/x"), "syscalls[0]", "leave write out"),
    (profile(rule("chmod"), listenerMetadata="x"), "listenerMetadata", "needs listenerPath"),
    (profile(rule("chmod"), listenerPath="run/x"), "listenerPath", "absolute path"),
    (profile(arg(index=6)), "syscalls[0].args[0].index", "from 0 to 5"),
    (profile(arg(index=True)), "syscalls[0].args[0].index", "whole number"),
    (profile(arg(value=1 << 64)), "syscalls[0].args[0].value", "from 0 to 18446744073709551615"),
    (profile(arg(value=1.0)), "syscalls[0].args[0].value", "whole number"),
    (profile(arg(value=10**40)), "syscalls[0].args[0].value", "from 0 to 18446744073709551615"),
    (profile(arg(op="SCMP_CMP_EQUALS")), "syscalls[0].args[0].op", "is no operator"),
    (profile(arg(op=None)), "syscalls[0].args[0].op", "is missing"),
    (profile(arg(valueTwo=3)), "syscalls[0].args[0].valueTwo", "goes only with SCMP_CMP_MASKED_EQ"),
    (profile(arg(op="SCMP_CMP_MASKED_EQ", value=3, valueTwo=4)), "syscalls[0].args[0].valueTwo", "never equal"),
    (profile(arg(op="SCMP_CMP_LT", value=0)), "syscalls[0].args[0].value", "never apply"),
    (profile(rule("chmod", args=[7])), "syscalls[0].args[0]", "must be an object"),
    (
        profile(rule("chmod", includes={"caps": ["CAP_SYSADMIN"]})),
        "syscalls[0].includes.caps[0]",
        "did you mean CAP_SYS_ADMIN?",
    ),
    (profile(rule("chmod", includes={"arches": ["sparc"]})), "syscalls[0].includes.arches[0]", "is no architecture"),
    (profile(rule("chmod", excludes={"minKernel": "4"})), "syscalls[0].excludes.minKernel", "such as 4.8"),
    (
        profile(rule("chmod"), architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86"}]),
        "archMap",
        "CRI-O refuses",
    ),
    (profile(rule("chmod"), archMap=[{"subArchitectures": []}]), "archMap[0].architecture", "is missing"),
    (profile(rule("chmod"), comment={"a": 1}), "comment", "a comment is a text"),
    (profile(rule("chmod"), rule("chmod", action="SCMP_ACT_ALLOW")), "syscalls[1]", "that one always wins"),
    (profile(rule("chmod"), rule("chmod", errnoRet=13)), "syscalls[1]", "that one always wins"),
    (profile(rule("chmod"), arg() | {"action": "SCMP_ACT_KILL"}), "syscalls[1]", "that one always wins"),
    (profile(arg(), arg() | {"action": "SCMP_ACT_KILL"}), "syscalls[1]", "libseccomp refuses two actions"),
    (
        profile(arg() | {"action": "SCMP_ACT_ALLOW"}, arg(value=2), default="SCMP_ACT_ERRNO"),
        "syscalls[1]",
        "runtimes skip such rules",
    ),
    ("[]", "", "must be an object"),
    ("", "", "is empty"),
    ("\ufeff{}", "", "BOM"),
    ('{"a": 1,}', "", "no trailing commas"),
    ("// no\n{}", "", '"comment" key'),
    ('{"a" 1}', "", "Expecting ':'"),
    ("{'a': 1}", "", "double quotes"),
    ('{"a": nan}', "", "Expecting value"),
    ('{"a": NaN}', "", "NaN is no number"),
    ('{"a": [-Infinity]}', "", "-Infinity is no number"),
    ('{"a": "x', "", "Unterminated string"),
    ("{} {}", "", "Extra data"),
    ("[" * (DEPTH_LIMIT + 5), "", "deep"),
    ("[" * 100_000, "", "deep"),
    (" " * (SIZE_LIMIT_BYTES + 1), "", "is the most"),
)


@pytest.mark.parametrize(("text", "key", "says"), BAD)
def test_a_mistake_is_named_where_it_is(text: str, key: str, says: str) -> None:
    """One mistake in an otherwise right profile gives a problem at its key that says what is wrong or right."""
    problems = lint(text, "p.json")
    assert [(problem.file, problem.key) for problem in problems] == [("p.json", key)]
    assert says in problems[0].message


def test_every_problem_is_in_one_answer_each_with_its_line() -> None:
    """A file with mistakes on several lines is refused once, with all of them in file order."""
    text = """{
  "defaultAction": "SCMP_ACT_ALOW",
  "syscals": [],
  "syscalls": [
    {"names": ["chmodd"],
     "action": "SCMP_ACT_ERRNO"},
    {"names": ["read"], "action": "SCMP_ACT_KIL",
     "args": [{"index": 0,
               "value": -1,
               "op": "EQ"}]}
  ],
  "defaultAction": "SCMP_ACT_LOG"
}"""
    assert [(problem.line, problem.key) for problem in lint(text, "p.json")] == [
        (2, "defaultAction"),
        (3, "syscals"),
        (5, "syscalls[0].names[0]"),
        (7, "syscalls[1].action"),
        (9, "syscalls[1].args[0].value"),
        (10, "syscalls[1].args[0].op"),
        (12, "defaultAction"),
    ]


def test_a_syntax_error_is_named_by_its_line() -> None:
    """Where reading stops, the line of that place is said."""
    assert [problem.line for problem in lint('{\n"a": 1\n"b": 2}', "p")] == [3]


def test_bytes_that_are_no_text_are_refused_by_line() -> None:
    """A file that is not UTF-8 is a problem of the file, not a crash."""
    with pytest.raises(ConfigError) as caught:
        read(b'{\n"a": "\xff"}', "p")
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [(2, "is not UTF-8 text")]


def test_a_value_that_would_spoil_a_terminal_is_quoted() -> None:
    """Keys and names of the file stand in messages as JSON, so that no escape sequence reaches anybody's screen."""
    shown = "".join(map(str, lint(json.dumps({"\x1b[31m": 1, "defaultAction": "\x1b[2J\ud800"}), "p")))
    assert shown.isprintable()
    assert shown.isascii()


def test_advice_names_the_equivalent_syscalls() -> None:
    """What a right profile leaves open is advice, not a problem."""
    text = profile(rule("chmod"))
    assert lint(text, "p") == []
    assert [problem.message for problem in advise(text, "p")] == [
        "changing a file's mode: denies chmod and not fchmod, fchmodat, fchmodat2"
    ]
    assert advise("{}", "p") == []
