"""Whatever a file holds: a clear answer, never a traceback; what is accepted is OCI's form, byte for byte stable."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.controls.seccomp import advise, lint
from agent.controls.seccomp.equivalent_syscalls import gaps, unknown_to
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.profile import ACTIONS, FLAGS, OPERATORS
from agent.controls.seccomp.resolver import Platform, resolve
from agent.controls.seccomp.syscalls import ARCHITECTURES
from agent.errors import ConfigError, Problem

_KEYS = """
defaultAction defaultErrnoRet defaultErrno architectures archMap flags listenerPath listenerMetadata syscalls names
name action errnoRet errno args includes excludes index value valueTwo op caps arches minKernel architecture
subArchitectures comment _comment unknown
"""
KEYS = _KEYS.split()
WORDS = (
    *ACTIONS,
    *OPERATORS,
    *FLAGS,
    *ARCHITECTURES,
    "chmod",
    "chmodd",
    "CAP_SYS_ADMIN",
    "amd64",
    "4.8",
    "ENOSYS",
    "/run/x",
)
SOME = ["chmod", "fchmod", "fchmodat2", "clone", "clone3", "socket", "read", "open", "io_uring_setup"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 70)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
args = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "value": st.integers(0, (1 << 64) - 1),
        "op": st.sampled_from(OPERATORS),
    },
    optional={"valueTwo": st.integers(0, 3), "comment": st.text(max_size=3)},
)
gates = st.fixed_dictionaries(
    {},
    optional={
        "caps": st.lists(st.sampled_from(["CAP_SYS_ADMIN", "CAP_BPF"]), max_size=2),
        "arches": st.lists(st.sampled_from(["amd64", "arm64", "s390x"]), max_size=2),
        "minKernel": st.sampled_from(["", "4.8", "6.1", "7.0"]),
    },
)
rules = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS)},
    optional={
        "names": st.lists(st.sampled_from(SOME), min_size=1, max_size=4),
        "name": st.sampled_from(SOME),
        "errnoRet": st.sampled_from([0, 1, 38, None]),
        "args": st.lists(args, max_size=3),
        "includes": gates,
        "excludes": gates,
    },
)
profiles = st.fixed_dictionaries(
    {"defaultAction": st.sampled_from(ACTIONS), "syscalls": st.lists(rules, max_size=5)},
    optional={
        "defaultErrnoRet": st.sampled_from([1, 38]),
        "architectures": st.lists(st.sampled_from(sorted(ARCHITECTURES)), max_size=3),
        "archMap": st.lists(
            st.fixed_dictionaries({"architecture": st.sampled_from(sorted(ARCHITECTURES))}), max_size=2
        ),
        "flags": st.lists(st.sampled_from(FLAGS), max_size=2),
        "listenerPath": st.just("/run/x.sock"),
    },
)
platforms = st.builds(
    Platform, st.sampled_from(["x86_64", "aarch64", "s390x", "vax"]), st.none() | st.just((6, 1)) | st.just((4, 4))
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A nearly right profile as text, with one stretch of it replaced."""
    text = json.dumps(draw(profiles))
    start = draw(st.integers(0, len(text)))
    end = min(len(text), start + draw(st.integers(0, 6)))
    return text[:start] + draw(st.text('{}[]",:0123456789.eE-+ntf\\u\n ', max_size=4)) + text[end:]


def check(content: str | bytes, platform: Platform) -> None:
    """Refused with problems, or accepted: then valid, stable, and within what a runtime knows."""
    problems: tuple[Problem, ...] = ()
    try:
        done = resolve(read(content, "p"), platform, "p")
    except ConfigError as error:
        problems = error.problems
    else:
        assert resolve(read(done.content, "p"), platform, "p").content == done.content
        is_oci(json.loads(done.content))
        gaps(done)
        unknown_to(done, platform, None)
        return
    assert problems
    assert all(problem.message.isprintable() and problem.file == "p" for problem in problems)


def is_oci(document: dict[str, Any]) -> None:
    """The OCI runtime specification's rules for linux.seccomp, and libseccomp's for what it loads."""
    known = "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata syscalls"
    assert document.keys() <= set(known.split())
    assert document["defaultAction"] in ACTIONS
    assert document["defaultAction"] != "SCMP_ACT_NOTIFY"
    assert set(document.get("architectures", [])) <= ARCHITECTURES.keys()
    assert set(document.get("flags", [])) <= set(FLAGS)
    assert document["defaultAction"] != "SCMP_ACT_ALLOW" or document["syscalls"]
    seen: set[tuple[str, str]] = set()
    for rule in document.get("syscalls", []):
        assert rule.keys() <= {"names", "action", "errnoRet", "args"}
        assert rule["names"] == sorted(set(rule["names"]))
        assert rule["names"]
        assert rule["action"] in ACTIONS
        assert "errnoRet" not in rule or rule["action"] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
        indexes = [arg["index"] for arg in rule.get("args", [])]
        assert len(indexes) == len(set(indexes))
        for arg in rule.get("args", []):
            assert arg.keys() <= {"index", "value", "valueTwo", "op"}
            assert 0 <= arg["index"] <= 5
            assert 0 <= arg["value"] < 1 << 64
        for name in rule["names"]:
            assert (name, json.dumps(rule.get("args"))) not in seen  # libseccomp: EEXIST, or one of them silently lost
            seen.add((name, json.dumps(rule.get("args"))))


@given(anything, platforms)
def test_any_json(value: object, platform: Platform) -> None:
    """Any JSON document at all."""
    check(json.dumps(value), platform)


@given(profiles, platforms)
def test_any_profile(value: object, platform: Platform) -> None:
    """Profiles made of right words in any combination."""
    check(json.dumps(value), platform)


@given(mutated(), platforms)
def test_any_damage(text: str, platform: Platform) -> None:
    """A profile after somebody's editor."""
    check(text, platform)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes(content: bytes | str) -> None:
    """No JSON at all."""
    check(content, Platform("x86_64", (6, 1)))


@given(profiles)
def test_lint_and_advice_agree_with_the_control(value: object) -> None:
    """What the platform team's CI calls never raises, and advises only on what it does not refuse."""
    text = json.dumps(value)
    refused = False
    for machine in ("x86_64", "aarch64"):
        try:
            resolve(read(text, "p"), Platform(machine, (99, 0)), "p")
        except ConfigError:
            refused = True
    assert bool(lint(text, "p")) is refused
    assert all(problem.file == "p" for problem in advise(text, "p"))
