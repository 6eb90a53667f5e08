"""tools/kube-tools: brings kubectl and helm where they are missing, and never what it has not compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agents import ROOT
from tests.support.programs import FETCHED, program


def kube_tools(folder: Path, *places: Path) -> subprocess.CompletedProcess[str]:
    """The tool on a machine that has what these folders have, and no more."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/kube-tools"), str(folder)],
        env={"PATH": os.pathsep.join(map(str, places)), "HOME": str(folder.parent)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def script(folder: Path, name: str, body: str) -> Path:
    """A program of this test's own."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return folder


def test_without_npm_it_says_what_will_be_skipped(tmp_path: Path) -> None:
    """And ends well: a machine without npm still runs its tests."""
    done = kube_tools(tmp_path / "tools", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "npm is not on this machine" in done.stderr or "x86-64" in done.stderr
    assert "tests that need what is missing are skipped" in done.stderr
    assert not (tmp_path / "tools").exists()


def test_without_a_network_it_repeats_what_npm_said(tmp_path: Path) -> None:
    """The reason is npm's own first line."""
    npm = script(tmp_path / "bin", "npm", "echo 'npm error network timed out' >&2; exit 1")
    done = kube_tools(tmp_path / "tools", npm)
    assert done.returncode == 0
    assert "npm error network timed out" in done.stderr or "x86-64" in done.stderr


def test_another_archive_is_an_error_and_stays_packed(tmp_path: Path) -> None:
    """What has not the pinned hash ends the gate, and nothing of it lies in the folder."""
    # npm pack NAME --pack-destination FOLDER
    npm = script(tmp_path / "bin", "npm", 'echo changed > "$4/other.tgz"')
    done = kube_tools(tmp_path / "tools", npm)
    if "x86-64" in done.stderr:
        pytest.skip("not this processor")
    assert done.returncode == 1
    assert "nothing was unpacked" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_a_machine_that_has_both_is_left_alone(tmp_path: Path) -> None:
    """npm is not asked."""
    folder = script(tmp_path / "bin", "npm", "exit 1")
    for name in ("kubectl", "helm"):
        script(folder, name, "exit 0")
    done = kube_tools(tmp_path / "tools", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_it_fetched_is_whole() -> None:
    """Both programs start and say their versions."""
    if not FETCHED.is_dir():
        pytest.skip("nothing was fetched on this machine (make test does it where npm is)")
    for name, words in (("kubectl", ("version", "--client")), ("helm", ("version",))):
        done = subprocess.run([FETCHED / name, *words], capture_output=True, text=True, timeout=300, check=True)
        assert "v" in done.stdout
        assert program(name) is not None
