"""kill -9 at two hundred random moments of apply: every file is the old or the new one, the next apply finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.sandbox.noderoot import NodeRoot
from tests.support.cli import ROOT, policy
from tests.support.mutation import Mutator

KILLS = 50
TEMPORARY = ".node-hardening-"
STATE = "var/lib/node-hardening"
WATCHED = ("etc/modprobe.d", "var/lib/kubelet/seccomp", STATE)
HAND_WRITTEN = {"etc/modprobe.d/kubernetes-blacklist.conf": "blacklist dccp\n", "etc/modprobe.d/other.conf": "# mine\n"}

Files = dict[str, bytes]


class Applies:
    """A process that runs one apply after the other, each in a child that can be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, config: Path, root: Path) -> int:
        """Starts one and returns its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{config} {root}\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Waits for the one that was begun: its exit code, negative for a signal."""
        return int(self._line())

    def run(self, config: Path, root: Path) -> int:
        """One from the beginning to the end."""
        self.begin(config, root)
        return self.end()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def applies() -> Iterator[Applies]:
    """The process, ended with the block."""
    argv = [sys.executable, "-m", "tests.support.forked_apply"]
    with subprocess.Popen(argv, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Applies(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def snapshot(root: Path) -> Files:
    """Content by path, of all that apply writes; the lock has none."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in WATCHED
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def first_sign(root: Path, seconds: float) -> None:
    """Returns when a write has begun, which changes a folder; or after so many seconds."""
    folders = [root / folder for folder in WATCHED]
    before = [folder.stat().st_mtime_ns for folder in folders]
    ends = time.monotonic() + seconds
    while [folder.stat().st_mtime_ns for folder in folders] == before and time.monotonic() < ends:
        pass


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
@pytest.mark.parametrize("quarter", range(4))
def test_two_hundred_kills(tmp_path: Path, quarter: int) -> None:
    """Between two policies that change every file, killed anywhere: before, inside and between the writes."""
    chance = Mutator([b"kill"])
    chance.random.seed(4 * chance.seed + quarter)
    root = NodeRoot.make(tmp_path / "node").path
    for path, text in HAND_WRITTEN.items():
        (root / path).write_text(text)
    configs = policies(tmp_path)
    with applies() as door:
        whole: list[Files] = []
        for config in (*configs, *configs):
            # Exit 1 where this machine has no modprobe to prove the denial with; the work is done all the same.
            assert door.run(config, root) in (0, 1)
            whole.append(snapshot(root))
        # The hashes of what was there before stand in the manifest, so each policy has to be seen after the other.
        goals = (whole[2], whole[3])
        begun = time.monotonic()
        door.begin(configs[0], root)
        first_sign(root, 60.0)
        writing = time.monotonic()
        door.end()
        lasts, writes_last = time.monotonic() - begun, time.monotonic() - writing
        killed = partly = cut_off = 0
        for number in range(KILLS):
            goal, config = goals[(number + 1) % 2], configs[(number + 1) % 2]
            # Half of them anywhere, half aimed at the writes: a machine that is busy elsewhere would miss them else.
            is_aimed = number % 2 == 1
            moment = chance.random.uniform(0, (writes_last if is_aimed else lasts) * 1.1)
            with chance.telling(number, f"killed after {moment:.6f} s of {lasts:.6f} s".encode()):
                before = snapshot(root)
                child = door.begin(config, root)
                if is_aimed:
                    first_sign(root, 60.0)
                time.sleep(moment)
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                killed += door.end() == -signal.SIGKILL
                after = snapshot(root)
                left = temporaries(after)
                cut_off += bool(left)
                partly += after != before and {path: after[path] for path in after if path not in left} != goal
                check_each_file(before, after, goal)
                assert door.run(config, root) in (0, 1)
                assert without_history(snapshot(root)) == without_history(goal)
    told = f"{killed} killed, {partly} of them half-way, {cut_off} inside a write"
    assert killed > KILLS // 2, told
    assert partly > KILLS // 20, told
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
