"""What `make release` makes: the same bytes twice, and each file usable on its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from platform import machine

import pytest
import yaml

from agent import __version__
from agent.sandbox.server import Sandbox
from tests.support.agents import ROOT
from tests.support.charts import Helm
from tests.support.plugin_fleet import SCENES
from tests.support.plugin_screen import emulator

PLUGIN = "kubectl-node_hardening"
CHART = f"node-hardening-agent-{__version__}.tgz"
WHEEL = f"node_hardening_agent-{__version__}-py3-none-any.whl"
SDIST = f"node_hardening_agent-{__version__}.tar.gz"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine(), machine())
IMAGE = f"node-hardening-agent-{__version__}-{ARCHITECTURE}"
KREW, KREW_ARCHIVE = "node-hardening.yaml", f"kubectl-node_hardening-{__version__}.tar.gz"
URL = "https://downloads.example.org/v1"
WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is here now, changes included: a release is made from commits only."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: this is an unpacked sdist")
    folder = tmp_path_factory.mktemp("release") / "checkout"
    _git(ROOT, "clone", "-q", str(ROOT), str(folder))
    changed = _git(ROOT, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    for name in filter(None, changed):
        _carry(ROOT / name, folder / name)
    _git(folder, "add", "-A")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    _git(folder, *identity, "commit", "-q", "--allow-empty", "-m", "as it is")
    return folder


@pytest.fixture(scope="module")
def made(checkout: Path) -> Path:
    """The files, without the image, which tests/image builds."""
    return _release(checkout, "first")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Sandbox]:
    """Three nodes, one of them draining."""
    with emulator() as sandbox:
        SCENES["draining"]().put_on(sandbox)
        yield sandbox


def _carry(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    else:
        target.unlink(missing_ok=True)


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def _release(checkout: Path, folder: str) -> Path:
    target = checkout.parent / folder
    done = _attempt(checkout, str(target))
    assert done.returncode == 0, done.stderr
    return target


def _attempt(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "tools" / "release"), *words, "--without-image", "--download-url", URL]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


# In the place of podman: notes what it is given, and with what modes.
BUILDER = """#!/bin/sh
set -e
case $1 in
    build) printf '%s\\n' "$@" > "$NOTED.words"; find agent profiles Dockerfile -printf '%m %P\\n' | sort > "$NOTED" ;;
    create) echo container ;;
    cp) echo '{}' > "$3" ;;
    save) tar -cf "$5" Dockerfile ;;
esac
"""


def _plugin(made: Path, fleet: Sandbox, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """On a machine with a Python and nothing else: -S leaves out every installed package."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": fleet.url}}],
        "users": [{"name": "u", "user": {"token": fleet.token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    environment = {"PATH": os.defpath, "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}
    command = [sys.executable, "-I", "-S", str(made / PLUGIN), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_the_same_commit_gives_the_same_bytes(checkout: Path, made: Path) -> None:
    """Whatever the time and the folder; the sums say so and are those of the files."""
    again = _release(checkout, "second")
    sums = (made / "SHA256SUMS").read_text()
    assert (again / "SHA256SUMS").read_text() == sums
    listed = {name: digest for digest, name in (line.split("  ") for line in sums.splitlines())}
    assert listed.keys() == {PLUGIN, CHART, WHEEL, SDIST, KREW, KREW_ARCHIVE}
    for name, digest in listed.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_a_changed_tree_is_refused(checkout: Path, made: Path) -> None:
    """By name; what was made before stays."""
    change = checkout / "profiles" / "new"
    change.write_text("x")
    try:
        done = _attempt(checkout, str(made))
    finally:
        change.unlink()
    assert (done.returncode, done.stdout) == (2, "")
    assert "profiles/new" in done.stderr
    assert (made / WHEEL).is_file()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("status", "node-1"), ("why node-1", "node-1"), ("history", "no reboot"), ("forecast", "workers"),
        ("status -o yaml", "nodes:"), ("pause --dry-run", "Would"),
    ],
)  # fmt: skip
def test_the_plugin_needs_only_python(made: Path, fleet: Sandbox, tmp_path: Path, line: str, shown: str) -> None:
    """Each of these imports other libraries; none may come from the machine."""
    done = _plugin(made, fleet, tmp_path, *line.split())
    assert done.returncode in (0, 1), done.stderr
    assert shown in done.stdout + done.stderr


def test_the_plugins_page_finds_its_templates_in_the_file(made: Path, fleet: Sandbox, tmp_path: Path) -> None:
    """And its libraries: jinja2 without its C extension."""
    done = _plugin(made, fleet, tmp_path, "report")
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.startswith("<!DOCTYPE html>")


def test_the_plugin_completes_under_its_other_name(made: Path, tmp_path: Path) -> None:
    """kubectl calls kubectl_complete-node_hardening, which may be a link to the same file."""
    link = tmp_path / "kubectl_complete-node_hardening"
    link.symlink_to(made / PLUGIN)
    command = [sys.executable, "-I", "-S", str(link), "st"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[0].startswith("status\t")


def test_the_plugin_is_an_executable_of_pure_python(made: Path) -> None:
    """No C extension, nothing of the sandbox, and nothing that names the machine it was made on: amd64's and arm64's
    signed sums are both of the one file that is published. The licences of what it carries are in it."""
    assert os.access(made / PLUGIN, os.X_OK)
    with zipfile.ZipFile(made / PLUGIN) as archive:
        names = archive.namelist()
    others = (".so", ".c", ".pyc", "/WHEEL", "/RECORD")
    assert [name for name in names if name.endswith(others) or name.startswith("agent/sandbox")] == []
    carried = {name.split("/")[0] for name in names if ".dist-info/" in name}
    licensed = {name.split("/")[0] for name in names if ".dist-info/" in name and "LICEN" in name.upper()}
    assert carried
    assert carried == licensed


def test_the_image_is_built_from_the_commit_whoever_builds_it(checkout: Path, tmp_path: Path) -> None:
    """Not from what else lies in the folder, and with the same modes under any umask: the layer's digest has both."""
    builder = tmp_path / "bin" / "podman"
    builder.parent.mkdir()
    builder.write_text(BUILDER)
    builder.chmod(0o755)
    left = checkout / "agent" / "left.pyc"  # ignored by git, so the tree counts as clean
    left.write_text("")
    made, noted = tmp_path / "made", tmp_path / "noted"
    command = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, str(checkout / "tools" / "release"), str(made)]
    environment = {**os.environ, "PATH": f"{builder.parent}:{os.environ['PATH']}", "NOTED": str(noted)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    finally:
        left.unlink()
    assert done.returncode == 0, done.stderr
    given = {name: mode for mode, name in (line.split(" ", 1) for line in noted.read_text().splitlines())}
    assert given["model.py"] == "644"
    assert set(given.values()) == {"644", "755"}
    assert "left.pyc" not in given
    assert f"REVISION={_git(checkout, 'rev-parse', 'HEAD').strip()}" in (tmp_path / "noted.words").read_text().split()
    assert {path.name for path in made.glob("*-agent-*")} >= {f"{IMAGE}.oci.tar", f"{IMAGE}.cdx.json"}


def test_a_part_of_a_python_gets_a_sentence(made: Path) -> None:
    """Debian's python3-minimal has no dataclasses."""
    with zipfile.ZipFile(made / PLUGIN) as archive:
        start = archive.read("__main__.py").decode()
    part = "import sys; sys.modules['dataclasses'] = None\n" + start
    done = subprocess.run([sys.executable, "-c", part], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("all of Python's standard library: python3, not python3-minimal\n")


def test_an_old_python_gets_a_sentence(made: Path) -> None:
    """The file that is parsed first is one that old interpreters can parse."""
    with zipfile.ZipFile(made / PLUGIN) as archive:
        start = archive.read("__main__.py").decode()
    old = "import sys; sys.version_info = (3, 9); sys.version = '3.9.2 (x)'\n" + start
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (2, "kubectl node-hardening needs Python 3.11 or later; this is 3.9.2\n")


def test_the_packaged_chart_is_the_chart(made: Path, tmp_path: Path) -> None:
    """helm reads it and renders the same as from the folder."""
    helm = Helm(tmp_path)
    assert f"version: {__version__}" in helm("show", "chart", str(made / CHART))
    assert helm.objects(chart=made / CHART) == helm.objects()


def test_the_packages_carry_the_profiles(made: Path) -> None:
    """A wheel without them could not run apply."""
    with zipfile.ZipFile(made / WHEEL) as wheel:
        assert "agent/profiles/seccomp/audit.json" in wheel.namelist()
    with tarfile.open(made / SDIST) as sdist:
        assert f"{SDIST.removesuffix('.tar.gz')}/daemonset.yaml" in sdist.getnames()


def test_krew_finds_the_plugin(made: Path) -> None:
    """The manifest names the archive, its sum and the executable in it."""
    spec = yaml.safe_load((made / KREW).read_text())["spec"]
    (platform,) = spec["platforms"]
    assert spec["version"] == f"v{__version__}"
    assert platform["uri"] == f"{URL}/{KREW_ARCHIVE}"
    assert platform["sha256"] == hashlib.sha256((made / KREW_ARCHIVE).read_bytes()).hexdigest()
    with tarfile.open(made / KREW_ARCHIVE) as archive:
        plugin = archive.getmember(platform["bin"])
        assert plugin.mode & 0o111
        assert {one.name for one in archive} == {PLUGIN, "LICENSE"}


def _notes(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "release-notes"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_the_notes_are_the_changelogs() -> None:
    """Of this version; another one, or one without a section, makes no release."""
    done = _notes(__version__)
    assert done.returncode == 0, done.stderr
    assert "### Added" in done.stdout
    assert "\n## " not in done.stdout
    assert _notes("9.9.9").returncode == 2


def test_the_provenance_names_commit_and_workflow() -> None:
    """From GitHub's own variables."""
    given = {
        "GITHUB_SERVER_URL": "https://git.example.org", "GITHUB_REPOSITORY": "o/r", "GITHUB_REF": "refs/tags/v1",
        "GITHUB_SHA": "abc", "GITHUB_WORKFLOW_REF": "o/r/.github/workflows/release.yaml@refs/tags/v1",
        "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1",
    }  # fmt: skip
    made = json.loads(_notes(__version__, "--provenance", **given).stdout)
    assert made["buildDefinition"]["externalParameters"]["workflow"]["path"] == ".github/workflows/release.yaml"
    assert made["buildDefinition"]["resolvedDependencies"][0]["digest"] == {"gitCommit": "abc"}
    assert made["runDetails"]["metadata"]["invocationId"].endswith("/o/r/actions/runs/7/attempts/1")


def test_the_workflows_pass_their_linters() -> None:
    """GitHub's schema, and zizmor: actions pinned by hash, least rights, nothing of a pull request in a shell."""
    files = [str(path) for path in sorted(WORKFLOWS.glob("*.yaml"))]
    programs = Path(sys.executable).parent
    schema = [str(programs / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *files]
    audit = [str(programs / "zizmor"), "--offline", "--no-progress", "--quiet", *files]
    for command in (schema, audit):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_workflows_run_is_in_the_repository() -> None:
    """Files by their path, make by its targets; what else they run are tools of the runner."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    steps = [
        step["run"]
        for path in WORKFLOWS.glob("*.yaml")
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert steps
    for step in steps:
        for target in re.findall(r"\bmake ([a-z-]+)", step):
            assert target in targets
        for path in re.findall(r"(?:^|\s)((?:tools|\.ci)/[\w-]+)", step):
            assert os.access(ROOT / path, os.X_OK), path
