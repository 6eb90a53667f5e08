"""SIGKILL before every change that apply makes: each file is the old or the new one, the next apply finishes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.sandbox.noderoot import NodeRoot
from tests.support.cli import ROOT, policy

PARTS = 4
TEMPORARY = ".node-hardening-"
STATE = "var/lib/node-hardening"
WATCHED = ("etc/modprobe.d", "var/lib/kubelet/seccomp", STATE)
HAND_WRITTEN = {"etc/modprobe.d/kubernetes-blacklist.conf": "blacklist dccp\n", "etc/modprobe.d/other.conf": "# mine\n"}

Files = dict[str, bytes]


class Applies:
    """A process that runs one apply after the other, each in a child that the kernel can kill on its way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, config: Path, root: Path, *, last: int = 0) -> tuple[int, int]:
        """One apply: its exit code, negative for a signal, and how many changes it began. last: killed before it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{config} {root} {last}\n")
        self._process.stdin.flush()
        code, changes = self._process.stdout.readline().split()
        return int(code), int(changes)


@contextmanager
def applies() -> Iterator[Applies]:
    """The process, ended with the block."""
    argv = [sys.executable, "-m", "tests.support.forked_apply"]
    with subprocess.Popen(argv, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Applies(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(300) == 0


def snapshot(root: Path) -> Files:
    """Content by path, of all that apply writes; the lock has none."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in WATCHED
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def temporaries(files: Files) -> set[str]:
    """What a write that was cut off leaves behind."""
    return {path for path in files if Path(path).name.startswith(TEMPORARY)}


def policies(folder: Path) -> tuple[Path, Path]:
    """Two policies that share nothing: file names, contents and lists differ, so each apply has work everywhere."""
    made = []
    for which, deny, errno in (("a", "rds, tipc", 1), ("b", "cramfs", 13)):
        profiles = folder / f"profiles-{which}"
        profiles.mkdir()
        for name in ("both-1", "both-2", "both-3", f"only-{which}"):
            rule = {"names": ["reboot", "swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
            content = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
            (profiles / f"{name}.json").write_text(json.dumps(content))
        text = f"kubelet: {{mode: off}}\napparmor: {{mode: off}}\nmodprobe: {{deny: [{deny}]}}\n"
        made.append(policy(folder, f"{text}seccomp: {{profiles: {profiles}}}\n", f"{which}.yaml"))
    return made[0], made[1]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_before_each_change(tmp_path: Path, part: int) -> None:
    """Between two policies that change every file: before, inside and between the writes."""
    root = NodeRoot.make(tmp_path / "node").path
    for path, text in HAND_WRITTEN.items():
        (root / path).write_text(text)
    configs = policies(tmp_path)
    with applies() as agent:
        whole: list[Files] = []
        begun = 0
        for config in (*configs, *configs):
            # Exit 1 where this machine has no modprobe to verify the denial with; the work is done all the same.
            code, begun = agent.run(config, root)
            assert code in (0, 1)
            whole.append(snapshot(root))
        # The hashes of what was there before stand in the manifest, so each policy has to be seen after the other.
        goals = (whole[2], whole[3])
        cut_off = partly = 0
        for number, last in enumerate(range(1 + part, begun + 1, PARTS)):
            goal, config = goals[number % 2], configs[number % 2]
            before = snapshot(root)
            assert agent.run(config, root, last=last)[0] == -signal.SIGKILL, last
            after = snapshot(root)
            left = temporaries(after)
            cut_off += bool(left)
            partly += after != before and {path: after[path] for path in after if path not in left} != goal
            check_each_file(before, after, goal)
            assert agent.run(config, root)[0] in (0, 1)
            assert without_history(snapshot(root)) == without_history(goal), last
    assert cut_off, "no kill inside a write"
    assert partly, "no kill half-way"
    assert {path: (root / path).read_text() for path in ("etc/modprobe.d/other.conf",)} == {
        "etc/modprobe.d/other.conf": "# mine\n"
    }


def check_each_file(before: Files, after: Files, goal: Files) -> None:
    """Old or new, gone only where the new policy has no such file; manifests are whole and name every file of ours."""
    ours = set()
    for path, content in after.items():
        if path in temporaries(after):
            continue
        if path.startswith(STATE) and path.endswith(".json"):
            ours |= {entry["key"].lstrip("/") for entry in json.loads(content)["installed"]}
        else:
            assert content in (before.get(path), goal.get(path)), f"{path} is neither the old one nor the new one"
    for path in before.keys() - after.keys() - temporaries(before):
        assert path not in goal, f"{path} is gone"
    for path in after.keys() - temporaries(after):
        if path.startswith("var/lib/kubelet/seccomp/"):
            assert path in ours, f"{path} is on the node and in no manifest"


def without_history(files: Files) -> dict[str, object]:
    """Files as they are; of a manifest the keys and the first hash: the second tells what a kill left to replace."""
    shown: dict[str, object] = {}
    for path, content in files.items():
        if path.startswith(STATE) and path.endswith(".json"):
            shown[path] = {entry["key"]: entry["hashes"][:1] for entry in json.loads(content)["installed"]}
        else:
            shown[path] = content
    return shown
