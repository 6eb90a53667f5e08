"""Ten thousand configurations: a Config, or problems that each name a place; what loads is applied inside a fence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import Config, load
from agent.config.schema import Kubelet
from agent.controls import registry
from agent.controls.registry import Act
from agent.errors import ConfigError
from agent.host import Host
from agent.sandbox.noderoot import NodeRoot
from tests.support.mutation import Fence, Mutator

pytestmark = pytest.mark.fuzz

CORPUS = (
    "",
    "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfig\ninterval: 5m\n",
    "modprobe:\n  mode: enforce\n  file: /etc/modprobe.d/x.conf\n  lists: [kubernetes]\n  deny: [rds]\n  allow: []\n",
    "modprobe: {file: /etc/modprobe.d/outside.conf, lists: [], deny: [a, b]}\n",
    "modprobe: {file: /etc/outside/canary.conf, lists: [], deny: [dccp]}\nseccomp: {mode: off}\n",
    "seccomp: {mode: enforce, directory: /var/lib/outside/seccomp}\nmodprobe: {mode: off}\napparmor: {mode: off}\n",
    "seccomp: {directory: /etc/up/var/lib/kubelet}\nmodprobe: {mode: off}\napparmor: {mode: off}\n",
    'kubelet:\n  mode: audit\n  skip: {"4.2.6": "no kube-proxy here"}\n',
    'reboot:\n  windows:\n  - {days: [mon, tue], start: "22:00", end: "04:00", timezone: Europe/Berlin}\n',
    "reboot:\n  sentinel: {command: [/usr/bin/needs-restarting, -r], exitCodes: {1: required}}\n  concurrency: 2\n",
    'reboot:\n  blockers:\n    prometheus: {url: "http://p:9090", ignore: "^Watchdog$"}\n    pods: ["a=b,!c"]\n',
    "reboot:\n  drain: {timeout: 30m, gracePeriod: null, podSelector: 'a in (b, c)'}\n  lock: {leaseDuration: 60s}\n",
    "notify:\n- {type: slack, urlFile: /etc/node-hardening/secrets/slack, events: [RebootFailed]}\n",
    "status: {label: true, startupTaint: true}\nmetrics: {address: '0.0.0.0:9105'}\nlog: &a {level: info}\n",
)
WORDS = """modprobe seccomp apparmor kubelet reboot mode enforce audit off deny allow lists file directory unload true
false null ~ 5m 1e3s -1s 99999h 010 0x1f 22:00 <<: !!binary !!python/object:os.system | > - ? --- ... %YAML &x *x
/etc/modprobe.d/x.conf /etc/passwd ../x.conf /etc/outside/canary.conf "" '' (a+)+$ [a-"""
TOKENS = WORDS.split()


@pytest.mark.slow
def test_ten_thousand_configurations(scratch: Path) -> None:
    """No other error than ConfigError, each problem in a place of the file; no write outside the host root."""
    mutator = Mutator(CORPUS, TOKENS)
    file = scratch / "policy.yaml"
    root = NodeRoot.make(scratch / "around/node").path
    fence = Fence(scratch / "around", root)
    good = applied = 0
    for number, content in mutator.inputs():
        with mutator.telling(number, content):
            file.write_bytes(content)
            config = loaded(file, content)
            good += config is not None
            if config is not None and (number < len(CORPUS) or good % 50 == 0):
                applied += 1
                apply(config, root)
                fence.check()
    # Both sides of the border were tried, not only rubbish.
    assert 200 < good < 9800
    assert applied > len(CORPUS)


def loaded(file: Path, content: bytes) -> Config | None:
    """The configuration, or None after its problems were looked at."""
    try:
        return load(file)
    except ConfigError as error:
        problems = error.problems
    lines = sum(content.count(end) for end in (b"\n", b"\r", b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85"))
    assert problems
    for problem in problems:
        assert problem.file == str(file)
        assert 0 <= problem.line <= lines + 2
        assert problem.message
        assert "\n" not in problem.key
    return None


def apply(config: Config, root: Path) -> None:
    """All that the policy asks for, on the tree; of the kubelet no port is asked."""
    host = Host(root)
    policy = replace(config, kubelet=Kubelet(mode=config.kubelet.mode, probe=False))
    report = registry.run("node", registry.controls_of(policy, host), Act.APPLY)
    assert report.findings
    assert report.document()["status"]
