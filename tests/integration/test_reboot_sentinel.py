"""Sentinels in earnest: real commands with real exit codes, and real inotify on the folder of the file."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from agent.config.choices import Required
from agent.config.schema import Sentinel
from agent.host import FolderWatch, Host
from agent.reboot.interfaces import SentinelReading
from agent.reboot.sentinel import CommandSentinel, make_sentinel
from tests.support.rooms import Clocks, node_tree

LONG = 20.0  # a bound for what never happens, not a timing


def script(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "sentinel"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path),)


class Asked:
    """A command sentinel of a script, and a wake-up that can be waited for."""

    def __init__(self, folder: Path, text: str, **policy: float) -> None:
        self.clock = Clocks()
        self.woken = threading.Event()
        codes = {0: Required.REQUIRED, 1: Required.NONE}
        self.policy = Sentinel(command=script(folder, text), exit_codes=codes, **policy)  # type: ignore[arg-type]
        self.sentinel = CommandSentinel(self.policy, Host(folder), self.clock, self.woken.set)

    def answer(self) -> SentinelReading:
        """The reading once the command has answered."""
        reading = self.sentinel.read()
        if "has not answered yet" in reading.problem:
            assert self.woken.wait(LONG)
            reading = self.sentinel.read()
        self.woken.clear()
        return reading


@pytest.mark.parametrize(
    ("code", "required"), [(0, True), (1, False), (2, None), (100, None), (126, None), (127, None), (255, None)]
)
def test_the_exit_code_decides_by_the_map(tmp_path: Path, code: int, required: bool | None) -> None:
    """What is not in it is unknown."""
    reading = Asked(tmp_path, f"echo linux-image; exit {code}").answer()
    assert reading.required is required
    assert reading.reason == ("linux-image" if required else "")


def test_a_command_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    """Not installed is not "no reboot required"."""
    sentinel = make_sentinel(Sentinel(command=("/no/such/needs-restarting", "-r")), Host(tmp_path), Clocks())
    reading = sentinel.read()
    assert reading.required is None
    assert reading.problem == "needs-restarting: /no/such/needs-restarting is not there: is it installed?"


def test_a_command_that_a_signal_ends_is_unknown(tmp_path: Path) -> None:
    """The OOM killer gives no answer."""
    reading = Asked(tmp_path, "kill -9 $$").answer()
    assert reading.required is None
    assert "was ended by signal 9" in reading.problem


def test_a_command_that_hangs_is_killed_and_unknown(tmp_path: Path) -> None:
    """And the tick that asked has not waited for it."""
    asked = Asked(tmp_path, "sleep 600", timeout=1.5)
    assert "has not answered yet" in asked.sentinel.read().problem
    reading = asked.answer()
    assert reading.required is None
    assert "killed after 1.5 s" in reading.problem


def test_a_command_runs_at_most_once_an_interval(tmp_path: Path) -> None:
    """However often it is asked; in between its last answer is given."""
    runs = tmp_path / "runs"
    asked = Asked(tmp_path, f"echo x >> {runs}; exit 1", interval=60.0)
    for _ in range(5):
        assert asked.answer().required is False
    assert runs.read_text().count("x") == 1
    asked.clock.sleep(61)
    assert asked.answer().required is False
    assert runs.read_text().count("x") == 2


def test_a_new_answer_wakes_whoever_waits(tmp_path: Path) -> None:
    """A command that takes long is heard as soon as it has ended."""
    asked = Asked(tmp_path, "sleep 1.5; exit 0")
    assert asked.sentinel.read().required is None
    assert asked.woken.wait(LONG)
    assert asked.sentinel.read().required is True


def test_an_answer_grows_too_old(tmp_path: Path) -> None:
    """A command that hangs ever since must not keep yesterday's answer alive."""
    flag = tmp_path / "hang"
    asked = Asked(tmp_path, f"test -e {flag} && sleep 600; exit 1", interval=60.0, timeout=5.0)
    assert asked.answer().required is False
    flag.write_text("")
    asked.clock.sleep(61)
    assert asked.sentinel.read().required is False  # runs again, and hangs
    asked.clock.sleep(120)
    reading = asked.sentinel.read()
    assert reading.required is None
    assert "has not answered for a long time" in reading.problem
    assert asked.woken.wait(LONG)  # ends with the test, by its timeout


def test_the_file_wakes_its_watcher_when_it_comes_and_goes(tmp_path: Path) -> None:
    """inotify on the folder, through the symlink /var/run, and the reading follows."""
    host = node_tree(tmp_path / "node")
    sentinel = make_sentinel(Sentinel(), host, Clocks())
    watch = FolderWatch({"sentinel": [host.locate(path) for path in sentinel.watched()]})
    try:
        assert sentinel.read().required is False
        flag = Path(host.root) / "run/reboot-required"
        flag.write_text("")
        assert watch.wait(LONG) == {"sentinel"}
        assert sentinel.read().required is True
        flag.unlink()
        assert watch.wait(LONG) == {"sentinel"}
        assert sentinel.read().required is False
    finally:
        watch.close()
