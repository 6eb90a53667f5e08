"""The demo as people run it: in a pipe, on a terminal, interrupted; and that its claims can fail."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from agent.sandbox.demo import Story, rolling
from agent.sandbox.describe import describe
from agent.sandbox.live_table import Screen
from tests.support import apiservers
from tests.support.plugin_fleet import Staged
from tests.support.programs import needed

ARGV = [sys.executable, "-m", "agent", "demo", "--nodes", "2"]
VERDICT = "Everything above held."
UP = re.compile(r"\x1b\[[0-9]+A")


def environment(scratch: Path) -> dict[str, str]:
    """As little as a shell gives, with a folder for temporary files whose content can be counted."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TERM": "xterm",
        "TMPDIR": str(scratch),
    }


def left_behind(scratch: Path) -> list[str]:
    """Files, and processes whose command line names the folder."""
    processes = [
        " ".join(one.info["cmdline"])
        for one in psutil.process_iter(["cmdline"])
        if any(str(scratch) in word for word in one.info["cmdline"] or ())
    ]
    return [*map(str, scratch.iterdir()), *processes]


def read_all(terminal: int) -> str:
    """Until nobody has the other end any more, which Linux tells with EIO."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """For temporary files; it has to be as empty afterwards as before, and nobody is to run in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert left_behind(folder) == []


def test_the_whole_story_holds_in_a_pipe(tmp_path: Path) -> None:
    """Exit 0, every claim ok, a line for each change, no control characters; --keep leaves the files and no process."""
    argv = [*ARGV, "--keep"]
    done = subprocess.run(argv, env=environment(tmp_path), cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert VERDICT in done.stdout
    assert "NOT SO" not in done.stdout
    first, _, _ = done.stdout.partition("\n2. ")
    assert len(first.splitlines()) <= 20, "the first screen is a summary"
    assert "\x1b" not in done.stdout
    assert re.search(r"^ +[0-9.]+ s +node-[12] +yes +no ", done.stdout, re.MULTILINE), "no line shows a cordoned node"
    found = re.search(r"^The sandbox is left in (.+)$", done.stdout, re.MULTILINE)
    assert found is not None
    folder = Path(found[1])
    assert sorted(log.parent.name for log in folder.glob("cluster/*/agent.log")) == ["node-1", "node-2"]
    assert left_behind(tmp_path) == [str(folder)]


def test_a_terminal_sees_one_table_redrawn(scratch: Path) -> None:
    """The rows are drawn over themselves and never wider than the window."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 90, 0, 0))
    with subprocess.Popen(ARGV, env=environment(scratch), cwd="/", stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        seen = read_all(terminal)
        assert process.wait() == 0
    os.close(terminal)
    assert VERDICT in seen
    assert set(UP.findall(seen)) == {"\x1b[4A"}, "head, two nodes and the lock are drawn over themselves"
    drawn = [line.rpartition("\x1b[2K")[2].rstrip("\r") for line in seen.split("\n") if "\x1b[2K" in line]
    assert max(map(len, drawn)) < 90


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_nothing_is_left(scratch: Path, number: signal.Signals) -> None:
    """No agent, no folder, no traceback, and the exit code of an interrupted program (the fixture looks)."""
    with subprocess.Popen(
        ARGV, env=environment(scratch), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "draining" in line:
                break
        assert len(left_behind(scratch)) > 1, "agents run by then"
        process.send_signal(number)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait() == 130


def test_a_claim_that_does_not_hold_is_told(tmp_path: Path) -> None:
    """Where the policy lets two nodes go at once, "never two at once" is told to be false, and the story fails."""
    said: list[str] = []
    story = Story(said.append, lambda *_: "")
    policy = {"concurrency": 2, "maxUnavailable": 2}
    rolling(story, tmp_path / "cluster", Screen(said.append, live=False), 2, policy)
    claim = next(line for line in said if "never two nodes cordoned together" in line)
    assert claim.split(":")[0].strip() == "NOT SO"
    assert not story.held


def test_describe_is_what_kubectl_prints(tmp_path: Path) -> None:
    """Line by line, as far as it goes, for a node in the middle of a reboot."""
    staged = Staged()
    staged.want("node-1")
    staged.until(lambda: staged.world.nodes["node-1"].unschedulable)
    with apiservers.emulator(tmp_path) as api:
        sandbox = api.sandbox
        assert sandbox is not None
        staged.put_on(sandbox)
        node = next(one for one in sandbox.list("nodes") if one["metadata"]["name"] == "node-1")
        argv = [needed("kubectl"), "describe", "node", "node-1"]
        environment = {"TZ": "UTC", "HOME": str(tmp_path), "KUBECONFIG": str(api.kubeconfig(tmp_path / "config"))}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert "Unschedulable:      true" in printed
    ours = [line.removeprefix("   ") for line in describe(node, (), datetime.now(UTC)).splitlines()]
    ours = ours[: ours.index("Events:")]
    squeezed = {" ".join(line.split()) for line in printed if "reboot-state" not in line}
    assert [line for line in ours if " ".join(line.split()) not in squeezed] == []
    fields = [line for line in ours if not line.startswith("  ")]
    assert [line for line in fields if line not in printed] == []
