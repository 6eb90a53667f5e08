"""docs/profiles.md: its profiles are what the page says of them, by the real `validate`; its pods name what ships."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent.bundled_profiles import shipped_profiles
from tests.support.pages import ROOT, Block, blocks

PAGE = list(blocks(ROOT / "docs/profiles.md"))
USAGE = 2


def samples(kind: str) -> list[Block]:
    """Blocks of this kind; at least one."""
    found = [block for block in PAGE if block.kind == kind]
    assert found, kind
    return found


def validated(text: str, name: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What the command says of a file with that text."""
    (tmp_path / name).write_text(text)
    argv = [sys.executable, "-m", "agent", "validate", str(tmp_path / name)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("block", samples("json"), ids=lambda block: block.line)
def test_seccomp_samples_are_well(block: Block, tmp_path: Path) -> None:
    """Without a problem and without a warning."""
    done = validated(block.text, "sample.json", tmp_path)
    assert (done.returncode, "warning" in done.stdout) == (0, False), done.stdout


def test_mistakes_are_found(tmp_path: Path) -> None:
    """{} is refused, equivalent syscalls are named."""
    (empty,), (open_ones,) = samples("json invalid"), samples("json equivalent")
    assert validated(empty.text, "empty.json", tmp_path).returncode == USAGE
    assert "fchmodat2" in validated(open_ones.text, "open.json", tmp_path).stdout


@pytest.mark.skipif(
    shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin") is None, reason="no apparmor_parser"
)
@pytest.mark.parametrize("block", samples("apparmor"), ids=lambda block: block.line)
def test_apparmor_samples_are_well(block: Block, tmp_path: Path) -> None:
    """Without a problem."""
    done = validated(block.text, "team-api", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_name_profiles_that_ship() -> None:
    """Fields and annotation, by the kernel's name and by the file's path; nothing else of the page pretends to ship."""
    pods = [one for one in (yaml.safe_load(block.text) for block in samples("yml")) if one.get("kind") == "Pod"]
    assert len(pods) == 2
    named = set(re.findall(r"localhost(?:Profile: |/)([\w.-]+)", str([block.text for block in samples("yml")])))
    apparmor = {
        name
        for file in shipped_profiles("apparmor").iterdir()
        for name in re.findall(r"^profile (\S+)", file.read_text(), re.MULTILINE)
    }
    seccomp = {file.name for file in shipped_profiles("seccomp").glob("*.json")}
    assert named <= apparmor | seccomp
    text = (ROOT / "docs/profiles.md").read_text()
    for name in apparmor | seccomp:
        assert f"`{name}`" in text, name
