"""What the agent says an install command comes to, beside the real shell that modprobe would give it to."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from agent.controls.modprobe.shell import Refusal, refusal

WRAPPED = (
    "exec /bin/false", "exec true", "command false", "env false", "/usr/bin/env true", "exec env false", "sh -c false",
    "/bin/sh -c 'exit 1'", '/bin/sh -c "logger x; false"', "sh -c ''", "exec sh -c 'modprobe x'", "env :",
    "exec exit 0", "bash -c 'exit 0'", "sh -c 'exec false' x", "exec",
    "env exec false", "env command true", "command exec false", "exec command false",
)  # fmt: skip
PROGRAMS = ("/bin/false", "false", "/usr/bin/false", "/bin/true", "true", ":", "logger", "/nix/store/x-1.0/bin/false")
LOADERS = ("modprobe -i sctp", "insmod sctp.ko", "sh -c modprobe")
ENDS = ("exit 0", "exit 1", "exit 256", "exit 008", "exit", "return 1", "kill $$", "! true", "{ false; }", "(false)")
ARGUMENTS = (
    "x", "-t tag", "'quoted ; modprobe x'", '"refused $MODPROBE_MODULE"', "$HOME", "a#b", "# ; modprobe x", "'#' y",
    '"$(modprobe x)"', "`modprobe x`", 'text="a b"', "debug=1", "\\;", "*", "'unclosed",
)  # fmt: skip
REDIRECTIONS = (
    ">/dev/null", "2>/dev/null", "2>&1", "> /var/nowhere/x", ">&2", "</dev/null", "&>/dev/null", "<<x", ">",
    "2> /tmp/../dev/null", ">&-", ">>/dev/null",
)  # fmt: skip
OPERATORS = ("; ", " && ", " || ", " | ", " & ", ";", "&&", "||", " ;; ", " ")


def command(chance: random.Random) -> str:
    """One install command, mostly such as people write."""
    parts = []
    for _ in range(chance.choice((1, 1, 2, 2, 3, 4))):
        words = [chance.choice(chance.choice((PROGRAMS, PROGRAMS, PROGRAMS, WRAPPED, LOADERS, ENDS)))]
        words += chance.choices(ARGUMENTS, k=chance.choice((0, 0, 0, 1, 2)))
        words += chance.choices(REDIRECTIONS, k=chance.choice((0, 0, 0, 1, 2)))
        parts += [" ".join(words), chance.choice(OPERATORS)]
    return "".join(parts if chance.random() < 0.1 else parts[:-1])


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder of programs, in which whatever would load a module only leaves a file behind."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("modprobe", "insmod"):
        (tools / name).write_text('#!/bin/sh\n: > "$MARK"\n')
    (tools / "logger").write_text("#!/bin/sh\nexit $(($$ % 2))\n")
    for name, target in (
        ("sh", "/bin/sh"),
        ("bash", "/bin/bash"),
        ("env", "/usr/bin/env"),
        ("false", "/bin/false"),
        ("true", "/bin/true"),
    ):
        (tools / name).symlink_to(target)
    for name in ("modprobe", "insmod", "logger"):  # the others are this machine's own
        (tools / name).chmod(0o755)
    return tools


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_refusal_is_one_for_the_real_shell(shell: Path, count: int) -> None:
    """What is said to fail fails, and neither a refusal nor a pretence ever reaches a program that loads."""
    chance = random.Random(20261128)
    mark = shell.parent / "loaded"
    kinds = dict.fromkeys(Refusal, 0)
    for _ in range(count):
        text = command(chance)
        kinds[verdict := refusal(text)] += 1
        if verdict is Refusal.NONE:
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", text], env={"PATH": str(shell), "MARK": str(mark), "HOME": "/h"}, cwd=shell.parent,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert not mark.exists(), text
        if verdict is Refusal.FAILS:
            assert done.returncode != 0, text
    assert min(kinds.values()) > count // 50, kinds
