"""Ten thousand answers of modprobe, and as many files of a node about modules: findings, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config.schema import Modprobe
from agent.controls import base
from agent.controls.modprobe import ModprobeControl, kmod, modprobe_d, show_depends
from agent.host import Completed, Host
from agent.model import Outcome
from agent.sandbox.kernel_modules import RELEASE
from agent.sandbox.noderoot import NodeRoot
from tests.support.mutation import Fence, Mutator

pytestmark = pytest.mark.fuzz

SHOW_CONFIG = """blacklist dccp
blacklist sctp
install dccp /bin/false
install dccp_ipv4 /bin/false
install sctp /bin/false
install net-pf-2-* /sbin/modprobe -i sctp
options sctp max=3
alias net_pf_2_proto_132 sctp
alias usb:v*p[0-9]?d* dccp
alias symbol:sctp_hash sctp
softdep sctp pre: libcrc32c post:
# End of configuration files. Dumping indexes now:

alias net-pf-2-proto-33-type-6 dccp_ipv4
"""
SHOW_DEPENDS = """install /bin/false
insmod /lib/modules/6.1.0-18-amd64/kernel/lib/libcrc32c.ko
builtin sctp
install /bin/false max=3
insmod /lib/modules/6.1.0-18-amd64/kernel/net/sctp/sctp.ko.xz max=3
modprobe: FATAL: Module net-pf-2-proto-999 not found in directory /lib/modules/6.1.0-18-amd64
"""
FILES = """overlay 163840 3 - Live 0x0000000000000000
sctp 425984 2 sctp_diag,dlm, Live 0xffffffffc0a00000
dccp 102400 - - Unloading 0x0
kernel/net/sctp/sctp.ko.zst: kernel/lib/libcrc32c.ko.zst kernel/net/ipv6/udp_tunnel.ko
kernel/fs/ext4/ext4.ko
install sctp /bin/true
blacklist   dccp-ipv4 # no comment here
softdep dccp pre: a b post: c
alias net-pf-[0-9!]* sctp
"""
CORPUS = (SHOW_CONFIG, SHOW_DEPENDS, FILES, "")
WORDS = """install blacklist alias softdep options insmod builtin remove include /bin/false /bin/true sctp dccp
[ ] [!a] [^ * ? - _ .ko .ko.xz pre: post: /lib/modules/6.1.0-18-amd64/kernel/net/sctp/sctp.ko -i"""
TOKENS = WORDS.split()


class Told(Host):
    """A node whose modprobe says what it is told to. Takes turns through the answers."""

    def __init__(self, root: Path, answers: Sequence[str], code: int = 0) -> None:
        super().__init__(root)
        self._answers = answers
        self._code = code
        self._asked = 0

    def find_tool(self, name: str, **_: Any) -> str | None:
        """As on any node."""
        return f"/usr/sbin/{name}"

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Nothing runs."""
        self._asked += 1
        said = self._answers[self._asked % len(self._answers)]
        return Completed(tuple(argv), self._code, said, said)


def test_ten_thousand_answers_of_modprobe(scratch: Path) -> None:
    """Whatever it prints: a proof or the reason why not, no refusal out of nothing; nothing outside the root."""
    root = NodeRoot.make(scratch / "around/node").path
    fence = Fence(scratch / "around", root)
    mutator = Mutator(CORPUS, TOKENS)
    for number, content in mutator.inputs():
        with mutator.telling(number, content):
            text = content.decode(errors="replace")
            other = mutator.bent().decode(errors="replace")
            check_readers(text)
            told = Told(root, (text, other), number % 2)
            asked = show_depends.verify(told, ("sctp", "dccp", "dccp_ipv4"), RELEASE, {})
            assert bool(asked.results) != bool(asked.problem)
            if "/bin/false" not in text + other:
                refused = [one for one in asked.results.values() if one.outcome is show_depends.LoadOutcome.REFUSED]
                assert not refused or "install" in text + other
            if number % 20 == 0:
                check_apply(root, content, Told(root, (text, other)))
                fence.check()


def check_readers(text: str) -> None:
    """Every reader of such text: plain names out, and for lines a place."""
    for name, one in kmod.loaded(text).items():
        assert name == one.name
    for names in (kmod.builtin(text), kmod.dependencies(text)):
        assert all(name and "/" not in name for name in names)
    for patterns in kmod.aliases(text, ("sctp", "dccp")).values():
        assert all(" " not in sample for sample in kmod.usable([kmod.sample(pattern) for pattern in patterns]))
    lines = modprobe_d.parse(text, "/etc/modprobe.d/x.conf")
    assert all(1 <= line.number <= text.count("\n") + 1 for line in lines)
    configuration = modprobe_d.Configuration(lines)
    for module in ("sctp", "dccp"):
        configuration.install_line(module)
        configuration.bypasses_install(module)
        configuration.loaders(module)


def check_apply(root: Path, content: bytes, host: Host) -> None:
    """The whole control, with the same bytes in the node's files about modules."""
    for path in (
        "proc/modules",
        "etc/modprobe.d/other.conf",
        f"lib/modules/{RELEASE}/modules.dep",
        f"lib/modules/{RELEASE}/modules.softdep",
    ):
        (root / path).write_bytes(content)
    done = base.apply(ModprobeControl(Modprobe(), host))
    assert all(change.outcome is Outcome.DONE for change in done.changes)
    assert {"modprobe/sctp", "modprobe/dccp"} <= {finding.id for finding in done.findings}
