"""Commands in README and docs/ work: parsed all, and run where they can be, on the cluster of the quickstart.

A command is run here, or by another test, or it stands in NEEDS with what it needs; a page with one that is in none of
them fails, as does a reason that no page needs any more.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cli import options
from agent.plugin import main as plugin
from agent.plugin.commands import COMMANDS
from agent.sandbox import builders
from tests.support.pages import PAGES, ROOT, Command, commands, mentioned, words_of
from tests.support.programs import needed

QUICKSTART, WALK = "docs/quickstart.md", "docs/record.md"
# Their blocks are run as they stand by tests of their own.
ELSEWHERE = {"docs/install.md": "test_install.py", "docs/plugin.md": "test_docs_plugin.py"}
# What is not run here, by how it begins, and why.
NEEDS = {
    "make ": "targets are other tests; that they exist is checked",
    ".venv/bin/python -m pytest": "tests; that they exist is checked",
    ".venv/bin/python -m tests.vm.removed_parts": "an hour of virtual machines; that it exists is checked",
    "python -m tests.support.pictures": "needs a chromium; that it exists is checked",
    "python -m bench": "takes minutes; that it exists is checked",
    "cp kubectl-node_hardening": "test_release.py runs the file that a release has",
    "ln -s kubectl-node_hardening": "test_release.py completes under that name",
    "sha256sum --check": "needs a published release",
    "cosign ": "needs a published release",
    "pip install": "the tests' own environment is installed so; test_release.py runs the plugin's one file",
    "kubectl apply -k ../hardening": "test_install.py does it, in a copy of the checkout",
    "podman push": "needs a registry; the image itself is tests/image's",
    "helm ": "test_install.py and test_chart.py run helm; nothing is released here",
    "kubectl kustomize ../overlay": "test_install.py does it, in a copy of the checkout",
    "kubectl -n node-hardening logs POD": "the emulated kubelets keep no logs",
    "kubectl taint node": "on a well node the agent is faster and has lifted it already",
    "kubectl node-hardening record": "needs a container that logs: the walk's test, test_plugin_denials.py",
    "kubectl node-hardening rollout promote": "needs a policy that is being rolled out: test_rollout.py",
    "kubectl node-hardening rollout abort": "needs a policy that is being rolled out: test_rollout.py",
    "kubectl node-hardening unlock": "needs a holder that does not come back: test_plugin_unlock.py",
}
# Within sentences: commands' names, without what they need to run.
NAMES = (
    "kubectl apply", "kubectl describe", "kubectl exec", "kubectl uncordon", "kubectl node-hardening",
    "kubectl node-hardening why", "kubectl node-hardening reboot",
)  # fmt: skip
# What has to be so before a command can work.
FIRST = {
    "kubectl -n node-hardening create configmap node-hardening-pause": "kubectl node-hardening resume --yes",
}
# What is run here: it stays on the sandboxed cluster, whose kubeconfig and node it is given. Nothing else is tried.
RUN = re.compile(r"kubectl |node-hardening-agent (audit|apply|validate)\b")
LAST = "kubectl delete node"  # after everything that is said about that node
# Words that stand for something, and what they stand for on the sandboxed cluster.
STAND_INS = {
    "NODE": "node-1", "POD": "node-1", "HOLDER": "node-3", "worker-2": "node-2", "NAMESPACE": "default", "NAME": "web",
    "policy.yaml": "docs/overlay/config.yaml", "web.json": "profiles/seccomp/hardened.json",
    "prod-": "", "PATH…": "profiles", "FILE": "daemonset.yaml", "FOLDER": "profiles/seccomp", "…": "reasons",
}  # fmt: skip
CHANGES = ("pause", "resume", "skip", "reboot")
SECONDS = 300.0  # at most, for what the cluster needs a moment for
PLUGIN, AGENT = plugin.parser(COMMANDS), options.parser({})
ALL = [one for page in PAGES for one in (*commands(page), *mentioned(page))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def run_elsewhere(command: Command) -> bool:
    """Whether a test of its page's own runs it."""
    return command.page in ELSEWHERE


def reason_not_to(command: Command) -> str:
    """The entry of NEEDS that it falls under, or nothing."""
    return next((start for start in NEEDS if command.text.startswith(start)), "")


def is_name(command: Command) -> bool:
    """Whether a sentence just calls it by its name."""
    return command.text in NAMES


def parsed(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """What the parser has against them; a name within a sentence may lack what a command needs."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as end:
            if end.code != 0 and "arguments are required" not in said.getvalue():
                return said.getvalue().strip().rpartition("\n")[2]
    return ""


def wrong_with(command: Command) -> str:
    """Unknown programs, subcommands, flags, targets, modules and files."""
    words = words_of(re.sub(r"\$\([^)]*\)", "answer", command.text.split("\n", 1)[0]))
    match words:
        case ["kubectl", "node-hardening", *rest]:
            return parsed(PLUGIN, rest)
        case [program, *rest] if program.endswith("node-hardening-agent"):
            return parsed(AGENT, rest)
        case ["make", target, *_]:
            return "" if target in TARGETS else f"no target {target}"
        case [_, "-m", "pytest", path, *_]:
            return "" if (ROOT / path).exists() else f"no {path}"
        case [_, "-m", module, *_]:
            return "" if importlib.util.find_spec(module) else f"no module {module}"
        case ["sh", path, *_]:
            return "" if (ROOT / path).is_file() else f"no {path}"
    return ""


def test_every_command_is_one_that_there_is() -> None:
    """Its subcommand and flags, its target, its files: in blocks and within sentences."""
    assert len(ALL) > 100
    assert [f"{one.where}: {one.text}: {wrong}" for one in ALL if (wrong := wrong_with(one))] == []


def test_every_command_is_run_somewhere_or_says_what_it_needs() -> None:
    """And each reason is some page's."""
    own = [one for one in ALL if not run_elsewhere(one)]
    assert set(NEEDS) - {reason_not_to(one) for one in own} == set()
    placed = [
        one
        for one in own
        if one.page in (QUICKSTART, WALK) or reason_not_to(one) or is_name(one) or RUN.match(one.text)
    ]
    assert [f"{one.where}: {one.text}" for one in own if one not in placed] == []
    assert [first for first in FIRST if not any(one.text.startswith(first) for one in own)] == []
    assert all((ROOT / "tests/integration" / test).is_file() for test in ELSEWHERE.values())


def test_a_misspelt_command_would_be_seen() -> None:
    """The check of the check."""
    for text in (
        "kubectl node-hardening stauts", "kubectl node-hardening why node-1 --because", "make deom",
        "node-hardening-agent apply --dryrun", ".venv/bin/python -m pytest tests/nowhere", "sh docs/install.sh",
    ):  # fmt: skip
        assert wrong_with(Command("page", 1, text)) != "", text


@dataclass
class Cluster:
    """`demo --stay`, started by the quickstart's own line, and a shell beside it."""

    folder: Path
    environment: Mapping[str, str]

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """One command, from the checkout; nobody is there to be asked."""
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", line.replace("/tmp/", f"{self.folder}/")],
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip

    def comes_to(self, line: str, codes: frozenset[int]) -> None:
        """Runs it, again while the cluster needs a moment, until it ends with one of these."""
        ends = time.monotonic() + SECONDS
        while (done := self.shell(line)).returncode not in codes:
            assert time.monotonic() < ends, (line, done.returncode, done.stdout, done.stderr)
            time.sleep(1)


def story() -> list[Command]:
    """The commands of the quickstart's blocks."""
    return list(commands(ROOT / QUICKSTART))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """No agent yet."""
    places = [str(Path(sys.executable).parent), str(Path(needed("kubectl")).parent), "/usr/sbin:/usr/bin:/sbin:/bin"]
    path = os.pathsep.join(places)
    environment = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    start = next(one.text for one in story() if "--stay" in one.text)
    export = next(one.text for one in story() if one.text.startswith("export "))
    kubeconfig = re.search(r"KUBECONFIG=(\S+)", export)
    assert kubeconfig is not None
    argv = shlex.split(start.replace("/tmp/", f"{tmp_path}/").replace(".venv/bin/", f"{Path(sys.executable).parent}/"))
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert next((line for line in process.stdout if "KUBECONFIG" in line), "") != ""
            environment["KUBECONFIG"] = kubeconfig[1].replace("/tmp/", f"{tmp_path}/")
            yield Cluster(tmp_path, environment)
        finally:
            process.send_signal(signal.SIGINT)


def codes_of(command: Command) -> frozenset[int]:
    """How it may end: as its block says; else 0, 1 where something may be not well, 3 where a tool may lack."""
    if command.code >= 0:
        return frozenset({command.code})
    if "validate" in command.text:
        return frozenset({0, 3})
    says_how_things_are = re.match(r"kubectl node-hardening|node-hardening-agent (audit|apply)", command.text)
    return frozenset({0, 1} if says_how_things_are else {0})


def test_the_quickstart_works_as_it_stands(cluster: Cluster) -> None:
    """In its order, from the manifest to the drain that a budget would hold up; the window is never open here."""
    far = datetime.now(UTC) + timedelta(days=3)
    ran = 0
    for one in story():
        if one.text.startswith(("make ", "export ", ".venv/")):
            continue
        if "history" in one.text:  # readers look on until it is back; what comes next would hold its drain up
            cluster.comes_to("kubectl describe node node-1 | grep node-hardening.io/reboot-history", frozenset({0}))
        cluster.comes_to(one.text.replace("[sat]", f"[{far:%a}]".lower()), codes_of(one))
        ran += 1
    assert ran > 20
    cluster.comes_to(f"({story()[-1].text} || true) | grep default/never", frozenset({0}))
    cluster.comes_to(
        "kubectl get events --field-selector involvedObject.name=node-2 | grep DriftCorrected", frozenset({0})
    )


def test_the_walk_to_a_profile_of_ones_own_works_as_it_stands(cluster: Cluster) -> None:
    """From a pod without a profile to one whose refusal is seen, and is of the call that it did not record."""
    cluster.comes_to("kubectl apply -f daemonset.yaml", frozenset({0}))
    walk = list(commands(ROOT / WALK))
    for one in walk:
        if one.text.startswith("kubectl set env"):  # what was recorded is allowed
            cluster.comes_to("kubectl node-hardening denials", frozenset({0}))
        cluster.comes_to(one.text, frozenset({max(one.code, 0)}))
    seen = json.loads(cluster.shell("kubectl node-hardening denials -o json").stdout)["denials"]
    assert {(one["pod"][:4], one["operation"], one["outcome"]) for one in seen} == {("web-", "chmod", "refused")}
    assert len(walk) > 12


def stood_in(command: Command) -> str:
    """With names of the sandboxed cluster, what has to come first, and yes said beforehand."""
    line = command.text
    for word, name in STAND_INS.items():
        line = re.sub(rf"(?<![\w-]){word}(?![\w-])", name, line)
    if line.startswith("node-hardening-agent") and "validate" not in line:
        line += " --host-root /tmp/playground/node-1/root"
    if line.startswith(tuple(f"kubectl node-hardening {change}" for change in CHANGES)):
        line += " --yes"
    if line.endswith("validate -"):
        line += " < docs/overlay/config.yaml"
    if line.startswith("kubectl") and " create " in line:
        line += " --dry-run=client -o yaml | kubectl apply -f -"  # the emulator does not read create's protobuf
    first = next((before for start, before in FIRST.items() if command.text.startswith(start)), "")
    return f"({first} || true) && {line}" if first else line


def test_every_other_command_works(cluster: Cluster) -> None:
    """Each once, on a cluster that has the agent, a lock, a kured, a pod web-0 and a node that was rebooted."""
    kured = builders.workload("DaemonSet", "kured", namespace="kube-system")
    (cluster.folder / "kured.json").write_text(json.dumps({"apiVersion": "apps/v1", "kind": "DaemonSet", **kured}))
    (cluster.folder / "web-0.json").write_text(json.dumps(builders.pod("web-0", node="node-2")))
    created = (f"kubectl create -f /tmp/{name}.json" for name in ("kured", "web-0"))
    for line in ("kubectl apply -f daemonset.yaml", *created):
        cluster.comes_to(line, frozenset({0}))
    cluster.comes_to("kubectl get nodes -l node-hardening.io/hardened=true | grep node-1", frozenset({0}))
    (cluster.folder / "playground/node-1/root/run/reboot-required").touch()
    cluster.comes_to("kubectl describe node node-1 | grep node-hardening.io/reboot-history", frozenset({0}))
    others = {
        stood_in(one): codes_of(one)
        for one in sorted(ALL, key=lambda one: one.text.startswith(LAST))
        if one.page not in (QUICKSTART, WALK)
        and RUN.match(one.text)
        and not (run_elsewhere(one) or reason_not_to(one) or is_name(one))
    }
    assert len(others) > 40
    for line, codes in others.items():
        cluster.comes_to(line, codes)
