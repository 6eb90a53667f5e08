"""Ten thousand texts of securityfs: profiles by name, or cannot tell; never a traceback, nothing outside the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.schema import Apparmor
from agent.controls import base
from agent.controls.apparmor import ApparmorControl, securityfs
from agent.controls.apparmor.securityfs import Lsm
from agent.host import Host
from agent.model import Status
from tests.support.apparmor_kernel import StandIn
from tests.support.mutation import Fence, Mutator

pytestmark = pytest.mark.fuzz

PROFILES = """k8s-apparmor-example-deny-write (enforce)
/usr/bin/man (enforce)
/usr/bin/man//filter (complain)
a name (with brackets) (kill)
:ns:inside (enforce)
:ns://inside (unconfined)
docker-default (enforce)
fuzzed (enforce)
"""
LABELS = "docker-default (enforce)\nunconfined\na//&b (complain)\n:ns://x//&y (enforce)\0\n"
CORPUS = (PROFILES, LABELS, "Y\n", "N\n", "", "fuzzed (enforce)\n", "8f1a02\n")
TOKENS = ["(enforce)", " (", ")", "//&", "//", ":ns:", ":", "unconfined", "fuzzed", "..", "outside", "(complain)\n"]
PROFILE = "profile fuzzed flags=(attach_disconnected) {\n  file,\n  deny /** w,\n}\n"


def test_ten_thousand_texts_of_securityfs(scratch: Path) -> None:
    """Names are parts of the text; a whole pass over the node judges every profile of the folder."""
    (scratch / "profiles").mkdir()
    (scratch / "profiles/fuzzed").write_text(PROFILE)
    node = StandIn(scratch / "around/node", scratch)
    fence = Fence(scratch / "around", node.root)
    host = Host(node.root)
    # One instance, as in the daemon: it remembers what was linted and starts no parser for it again.
    control = ApparmorControl(Apparmor(profiles=str(scratch / "profiles")), host)
    mutator = Mutator(CORPUS, TOKENS)
    for number, content in mutator.inputs():
        with mutator.telling(number, content):
            check_readers(content.decode(errors="replace"))
            (node.apparmorfs / "profiles").write_bytes(content)
            (node.root / "proc/1/attr/current").write_bytes(content)
            seen = securityfs.read_kernel(host)
            assert seen.lsm is Lsm.ON
            if number % 10 == 0:
                (node.root / "sys/module/apparmor/parameters/enabled").write_bytes(content)
                says_yes = len(content) <= 64 and content.decode(errors="replace").strip() == "Y"
                assert (securityfs.read_kernel(host).lsm is Lsm.ON) == says_yes
                (node.root / "sys/module/apparmor/parameters/enabled").write_text("Y\n")
            if number % 50 == 0:
                check_pass(base.apply(control) if number % 200 == 0 else base.audit(control))
                fence.check()


def check_readers(text: str) -> None:
    """Pure: every name and mode stands in the text; the stack of a process has no empty member."""
    for name, mode in securityfs.parse_profiles(text).items():
        assert mode in text
        assert name.replace("://", ":") in text.replace("://", ":")
    for name in securityfs.confined_by(text):
        assert name


def check_pass(done: base.Pass) -> None:
    """The folder's profile is judged, whatever the kernel says that it holds."""
    found = {finding.id: finding for finding in done.findings}["apparmor/profile/fuzzed"]
    assert found.status is not Status.NOT_APPLICABLE
    assert found.observed
