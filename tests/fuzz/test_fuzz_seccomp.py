"""Ten thousand seccomp profiles: refused with a place and a reason, or written so that they read back the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.config.schema import Seccomp
from agent.controls import base
from agent.controls.seccomp import SeccompControl, advise, lint
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.resolver import Platform, resolve
from agent.errors import ConfigError
from agent.host import Host
from agent.model import Outcome, Status
from agent.sandbox.noderoot import NodeRoot
from tests.support.mutation import Fence, Mutator

pytestmark = pytest.mark.fuzz

OLD_FORM = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"}]}'
DOCKERS = """{
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
  "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
  "syscalls": [
    {"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}, "excludes": {"arches": ["arm"]}},
    {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
     "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
  ]
}"""
NOTIFY = '{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[]}'
WORDS = """"names" "name" "action" "errnoRet" "args" "includes" "excludes" "architectures" "archMap" "defaultAction"
SCMP_ACT_NOTIFY SCMP_ACT_KILL SCMP_ACT_TRACE SCMP_ARCH_AARCH64 SCMP_CMP_GT "chmod" "fchmodat2" "chmodd" 64 -1 65536 1.5
1e5 18446744073709551615 NaN Infinity "\\ud800" "\\u0000" {} [] [["""
TOKENS = WORDS.split()


def test_ten_thousand_profiles(scratch: Path) -> None:
    """No error but problems; an accepted profile is stable; applied, it stands in the node's folder."""
    given = scratch / "profiles"
    given.mkdir()
    shipped = [(shipped_profiles("seccomp") / name).read_text() for name in ("prevent-chmod.json", "audit.json")]
    corpus = (*shipped, OLD_FORM, DOCKERS, NOTIFY, "{}")
    root = NodeRoot.make(scratch / "around/node").path
    fence = Fence(scratch / "around", root)
    mutator = Mutator(corpus, TOKENS)
    accepted = applied = 0
    for number, content in mutator.inputs():
        with mutator.telling(number, content):
            text = content.decode(errors="replace")
            good = not check(text)
            accepted += good
            if number % 10 == 0 or (good and accepted % 10 == 0):
                (given / "fuzzed.json").write_bytes(content)
                applied += apply(given, root)
                fence.check()
    # Both sides of the border were tried, not only rubbish.
    assert 200 < accepted < 9800
    assert applied > 20


def check(text: str) -> bool:
    """Whether the profile is refused; each reason in a place of the file."""
    problems = lint(text, "fuzzed.json")
    for problem in problems:
        assert problem.file == "fuzzed.json"
        assert problem.message
        assert 0 <= problem.line <= text.count("\n") + text.count("\r") + 2
    if problems:
        return True
    for warning in advise(text, "fuzzed.json"):
        assert warning.message
    written = resolve(read(text, "fuzzed.json"), Platform("x86_64", (6, 1)), "fuzzed.json").content
    assert json.loads(written)["defaultAction"].startswith("SCMP_ACT_")
    again = resolve(read(written, "fuzzed.json"), Platform("x86_64", (6, 1)), "fuzzed.json").content
    assert again == written
    return False


def apply(given: Path, root: Path) -> bool:
    """Whether the profile was installed. Its finding says why, where it was not."""
    control = SeccompControl(Seccomp(profiles=str(given)), Host(root))
    done = base.apply(control)
    assert all(change.outcome is Outcome.DONE for change in done.changes)
    found = {finding.id: finding for finding in done.findings}["seccomp/profile/fuzzed.json"]
    if found.status is Status.FAIL:
        assert found.observed
        assert found.remediation
    else:
        json.loads((root / "var/lib/kubelet/seccomp/fuzzed.json").read_text())
    return any(change.action == "write" for change in done.changes)


def test_the_reader_takes_what_hypothesis_would_not_think_of(scratch: Path) -> None:
    """Known troublemakers, by name: depth, size, duplicate keys, bytes that are no text."""
    for content in ("[" * 100_000, '{"a":' * 100_000, '{"a":1,"a":2}', "\ufeff{}", '"\\ud800"', "9" * 5000):
        with pytest.raises(ConfigError):
            read(content, "x.json")
    assert not list(scratch.iterdir())
