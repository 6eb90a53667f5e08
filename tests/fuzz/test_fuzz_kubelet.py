"""Ten thousand kubelet configurations, drop-ins and command lines: every finding there, none of them a guess."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls import base
from agent.controls.kubelet import CHECK_IDS, KubeletControl
from agent.model import Status
from tests.support.kubelets import CONFIG, DROP_INS, HARDENED, QUIET, StagedHost, config, plant, process, settings
from tests.support.mutation import Fence, Mutator

pytestmark = pytest.mark.fuzz

CORPUS = (
    HARDENED,
    config("readOnlyPort: 0\nauthentication:\n  anonymous:\n    enabled: false\nfeatureGates:\n  AllAlpha: false\n"),
    config("podPidsLimit: null\ntlsCipherSuites:\n- TLS_RSA_WITH_RC4_128_SHA\nallowedUnsafeSysctls: ['kernel.*']\n"),
    '{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","readOnlyPort":10255}',
    config("a: &a {enabled: true}\nauthentication: {anonymous: *a, webhook: *a}\n<<: {seccompDefault: on}\n"),
)
WORDS = """anonymous enabled authentication authorization mode Webhook AlwaysAllow readOnlyPort 10255 seccompDefault
podPidsLimit tlsMinVersion VersionTLS12 streamingConnectionIdleTimeout 4h0m featureGates AllAlpha staticPodURL
clientCAFile /etc/outside/canary.conf <<: on off yes 0b11 0o17 1_000 !!set | > - ? --- null"""
COMMAND_LINE = (
    f"/usr/bin/kubelet --config={CONFIG} --config-dir={DROP_INS}",
    f"/usr/bin/kubelet --config {CONFIG} --config-dir {DROP_INS} --anonymous-auth=false --read-only-port 0",
    f"/usr/bin/kubelet --config={CONFIG} --config-dir={DROP_INS} --feature-gates=AllAlpha=true --seccomp-default",
    "/usr/bin/kubelet --authorization-mode=Webhook --client-ca-file=/etc/outside/canary.conf --root-dir ../..",
)
FLAG_WORDS = """--anonymous-auth --read-only-port --config --config-dir --feature-gates --seccomp-default=
--tls-min-version -- - = true false 0 /dev/null /etc/up/etc/passwd --v=2 --Read_Only_Port"""
TOKENS, FLAGS = WORDS.split(), FLAG_WORDS.split()


def test_ten_thousand_kubelet_configurations(scratch: Path) -> None:
    """The file, the drop-in and the arguments in turn; nothing at all is written."""
    root = plant(scratch / "around/node", {CONFIG: HARDENED, f"{DROP_INS}/10-a.conf": config("")})
    fence = Fence(scratch / "around", root)
    files = Mutator(CORPUS, TOKENS)
    lines = Mutator(COMMAND_LINE, FLAGS, seed=files.seed)
    before = sorted(root.rglob("*"))
    for number, content in files.inputs():
        line = COMMAND_LINE[number % len(COMMAND_LINE)].encode() if number % 3 else lines.bent()
        with files.telling(number, content + b"\n-- started as: " + line):
            # The main file takes the input, every fourth time the drop-in does.
            (root / (f"{DROP_INS}/10-a.conf" if number % 4 == 3 else CONFIG).lstrip("/")).write_bytes(content)
            argv = words(line)
            if number % 5:
                check_settings(root, argv)
            else:
                check_control(root, argv)
    fence.check()
    assert sorted(root.rglob("*")) == before


def words(line: bytes) -> list[str]:
    """As /proc shows them: any bytes, those that are no text as surrogates."""
    text = line.decode(errors="surrogateescape").replace("\0", " ")
    try:
        return shlex.split(text) or ["kubelet"]
    except ValueError:
        return text.split() or ["kubelet"]


def check_settings(root: Path, argv: list[str]) -> None:
    """Each finding says what it saw, and each that does not pass says what to do."""
    for finding in settings(root, argv[1:]).values():
        assert finding.observed
        assert (finding.remediation == "") == (finding.status in (Status.PASS, Status.INFO))


def check_control(root: Path, argv: list[str]) -> None:
    """The control as a whole: an audit, whatever it is asked for."""
    control = KubeletControl(schema.Kubelet(), StagedHost(root, [process(*argv, name="kubelet")]), prober=QUIET)
    done = base.apply(control)
    assert done.changes == ()
    assert sorted(finding.id.removeprefix("kubelet/") for finding in done.findings) == sorted(CHECK_IDS)
