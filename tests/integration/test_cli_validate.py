"""`validate PATH…`: what a platform team's CI sees of good and broken configuration and profiles."""

from __future__ import annotations

import os
import py_compile
import re
import shutil
from pathlib import Path

import pytest

from tests.support.cli import ROOT, agent, document, shell

GOOD_SECCOMP = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}'
OLD_FORM = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"}]}'
# Broken in their rules, recognized by what stands around them.
APPARMOR = {
    "no-rule": "profile x {\n  nonsense here\n}\n",
    "comment": "# AppArmor policy for foo\n/usr/bin/foo {\n  nonsense\n}\n",
    "usual-header": "#include <tunables/global>\n\nprofile web flags=(attach_disconnected) {\n  nonsense\n}\n",
    "usr.bin.php": "abi <abi/3.0>,\ninclude <tunables/global>\n/usr/bin/php {\n  /etc/passwd r\n}\n",
    "misspelled.profile": "#include <tunables/global>\nprofle web flags=(complain) {\n  file,\n}\n",
    "flags": "profile x flags=(attach_disconnected,mediate_deleted) {\n  file\n}\n",
    "no-bracket": "include <tunables/global>\nprofile x\n  file,\n}\n",
    "modeline": "# vim:syntax=apparmor\nabii <abi/3.0>,\ninclude <tunables/global>\nprofile x {\n file,\n}\n",
}
needs_parser = pytest.mark.skipif(not Path("/usr/sbin/apparmor_parser").exists(), reason="needs apparmor_parser")


def examples() -> list[tuple[str, str]]:
    """Every YAML block of docs/ and the README that is a configuration: fenced, by file and number."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)):
            if re.match(r"(#.*\n)*(apiVersion: node-hardening|[a-z]+:)", block) and "apiVersion: v1\n" not in block:
                found.append((f"{path.name}-{number}", block))
    return found


@needs_parser
def test_what_ships_is_good() -> None:
    """profiles/, and the ConfigMaps of daemonset.yaml, which carry the same; warnings cost nothing."""
    done = agent("validate", "profiles", "daemonset.yaml", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    said = document(done)
    assert list(said) == ["status", "checked", "problems", "warnings", "unchecked", "skipped"]
    assert said["status"] == "pass"
    for file in ("profiles", "daemonset.yaml"):
        kinds = [one["kind"] for one in said["checked"] if one["file"].split("/")[0] == file]
        assert kinds.count("AppArmor profile") >= 3
        assert kinds.count("seccomp profile") >= 3
        assert kinds.count("module deny list" if file == "profiles" else "configuration") >= 1


@needs_parser
def test_a_whole_repository_may_be_walked() -> None:
    """Code, schemas and prose of others are not taken for profiles."""
    done = agent("validate", ".", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    places = {one["file"].split("/")[0] for one in document(done)["checked"]}
    assert places <= {"profiles", "daemonset.yaml", "docs", "charts"}


def test_a_binary_file_is_skipped_unless_it_is_named(tmp_path: Path) -> None:
    """A compiled module has the texts of its source, policies and profiles among them."""
    compiled = tmp_path / "test_validate.pyc"
    py_compile.compile(str(ROOT / "tests/unit/cli/test_validate.py"), str(compiled), doraise=True)
    done = agent("validate", tmp_path, "-v")
    assert (done.returncode, "a binary file" in done.stdout) == (0, True)
    assert agent("validate", compiled).returncode == 2


def test_the_templates_of_a_chart_are_passed_over(tmp_path: Path) -> None:
    """They are no YAML yet; a folder of that name elsewhere is read."""
    for folder in ("chart/templates", "templates"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text(
            "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfig\n{{ .Values.config }}\n"
        )
    (tmp_path / "chart/Chart.yaml").write_text("name: x\n")
    done = agent("validate", tmp_path, "-o", "json")
    assert done.returncode == 2
    assert [one["file"] for one in document(done)["problems"]] == [str(tmp_path / "templates/config.yaml")]


@pytest.mark.parametrize(("name", "text"), examples(), ids=lambda value: value if len(value) < 60 else "")
def test_the_examples_of_the_documentation_load(tmp_path: Path, name: str, text: str) -> None:
    """Whoever copies one gets what the page says."""
    del name
    (tmp_path / "config.yaml").write_text(text)
    done = agent("validate", tmp_path / "config.yaml")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_there_are_examples() -> None:
    """The search above finds them."""
    assert len(examples()) >= 2


def test_every_problem_of_every_file_is_named(tmp_path: Path) -> None:
    """File, line, key, reason; exit 2; good files are listed as good."""
    (tmp_path / "config.yaml").write_text("modprobe: {mod: enforce}\ninterval: 5\n")
    (tmp_path / "bad.json").write_text('{"defaultAction": "SCMP_ACT_ALOW",\n "syscalls": [{"names": ["chmodd"]}]}')
    (tmp_path / "good.json").write_text(GOOD_SECCOMP)
    (tmp_path / "list.yaml").write_text("apiVersion: node-hardening.io/v1alpha1\nkind: ModuleDenyList\nmodules: x\n")
    done = agent("validate", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    places = {line.removeprefix(f"{tmp_path}/").split(": ")[0] for line in lines[:-2]}
    assert {"bad.json:1", "bad.json:2", "config.yaml:1", "config.yaml:2"} <= places
    assert any(place.startswith("list.yaml") for place in places)
    assert lines[-2] == f"ok  {tmp_path}/good.json  (seccomp profile)"
    assert re.fullmatch(r"\d+ problems in 3 of 4 files; 0 skipped\.", lines[-1])


def test_what_a_valid_profile_leaves_open_is_a_warning(tmp_path: Path) -> None:
    """The old documentation's profile denies chmod and not its twins: said, and still exit 0."""
    (tmp_path / "prevent-chmod.json").write_text(OLD_FORM)
    done = agent("validate", tmp_path / "prevent-chmod.json")
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"warning: {tmp_path}/prevent-chmod.json")
    assert "fchmodat2" in first
    said = document(agent("validate", tmp_path / "prevent-chmod.json", "-o", "json"))
    assert said["status"] == "pass"
    assert "fchmodat2" in said["warnings"][0]["message"]


def test_texts_in_config_maps_have_the_manifests_lines(tmp_path: Path) -> None:
    """Of each document, and inside a List; other objects are left alone."""
    (tmp_path / "all.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n"
        "  config.yaml: |\n    interval: 5m\n    modprobe:\n      mod: off\n---\n"
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  data:\n"
        '    p.json: |\n      {"defaultAction": "SCMP_ACT_ALLOW",\n       "oops": 1}\n'
    )
    done = agent("validate", tmp_path / "all.yaml", "-o", "json")
    assert done.returncode == 2
    assert [
        (one["line"], one["key"]) for one in document(done)["problems"] if one["key"] in ("modprobe.mod", "oops")
    ] == [
        (11, "modprobe.mod"),
        (21, "oops"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\ndata: " + "[" * 200_000,
        "kind: ConfigMap\ndata: " + '{"a":' * 200_000,
        "kind: ConfigMap\n" + "- " * 200_000,
        "kind: ConfigMap\ndata: {a: *nobody}\n",
        "kind: ConfigMap\ndata: 'never ends\n",
        'kind: ConfigMap\ndata: "\\ud800"\n',
        "kind: ConfigMap\ndata: \x07\n",
    ],
    ids=["brackets", "braces", "dashes", "alias", "quote", "surrogate", "bell"],
)
def test_a_manifest_that_is_no_yaml_is_a_problem(tmp_path: Path, text: str) -> None:
    """However deep, it is said with a line, and the process ends by itself."""
    (tmp_path / "deep.yaml").write_text(text)
    done = agent("validate", tmp_path / "deep.yaml", "-o", "json")
    assert (done.returncode, done.stderr) == (2, "")
    (problem,) = document(done)["problems"]
    assert (
        "nested deeper" in problem["message"] or "not YAML" in problem["message"] or "the anchor" in problem["message"]
    )


@pytest.mark.parametrize(("content", "reason"), [(b"\xff\xfe", "not UTF-8"), (b"x" * (5 << 20), "larger than 4MiB")])
def test_a_file_that_is_no_text_is_a_problem(tmp_path: Path, content: bytes, reason: str) -> None:
    """Somebody named it, so it is not passed over."""
    (tmp_path / "config.yaml").write_bytes(content)
    done = agent("validate", tmp_path / "config.yaml")
    assert (done.returncode, done.stderr) == (2, "")
    assert reason in done.stdout


def test_a_path_without_files_is_a_usage_error(tmp_path: Path) -> None:
    """One that is not there, a folder with nothing in it."""
    (tmp_path / "empty").mkdir()
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path / "empty", "holds no files")):
        done = agent("validate", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert reason in done.stderr


def test_a_folder_with_nothing_of_ours_has_no_problem(tmp_path: Path) -> None:
    """Exit 0 with the number of skipped files; with --strict too, where nothing is in doubt."""
    for name in ("a.go", "app-config.yaml", "old.js"):
        (tmp_path / name).write_bytes(
            {"a.go": b"package x\n/*\n/sys/x {\n*/\n", "old.js": b"// \xe9"}.get(name, b"host: x")
        )
    done = agent("validate", tmp_path, "--strict")
    assert (done.returncode, done.stdout) == (0, "0 texts checked, no problems; 3 skipped.\n")
    assert agent("validate", tmp_path, "-v").stdout.count("skipped  ") == 3


def test_strict_fails_on_what_was_not_judged(tmp_path: Path) -> None:
    """Broken YAML that holds a ConfigMap, of an unknown program."""
    (tmp_path / "cm.yaml").write_text("kind: ConfigMap\ndata: {{- x }}\n")
    assert agent("validate", tmp_path).returncode == 0
    done = agent("validate", tmp_path, "--strict")
    assert (done.returncode, done.stderr) == (3, "")
    assert "1 of them not judged" in done.stdout


@pytest.mark.parametrize(("form", "begin"), [("sarif", "{"), ("junit", "<?xml"), ("github", "::error file=")])
def test_ci_systems_have_their_formats(tmp_path: Path, form: str, begin: str) -> None:
    """The exit code is the same; standard input is read for `-`."""
    (tmp_path / "policy.yaml").write_text("modprobe: {mod: enforce}\n")
    done = agent("validate", tmp_path / "policy.yaml", "-o", form)
    assert (done.returncode, done.stderr, done.stdout[: len(begin)]) == (2, "", begin)
    done = agent("validate", "-", "-o", form, input="modprobe: {mode: audit}\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv to be less")
@pytest.mark.parametrize(("path", "code"), [("", 3), ("x.yaml", 2), ("closed", 3), ("closed/y.yaml", 2)])
def test_what_cannot_be_read_is_reported(tmp_path: Path, path: str, code: int) -> None:
    """A message with the reason, never a traceback and never a pass."""
    (tmp_path / "x.yaml").write_text("interval: 5m\n")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/y.yaml").write_text("interval: 5m\n")
    for closed in ("x.yaml", "closed"):
        os.chown(tmp_path / closed, 12345, 12345)
        (tmp_path / closed).chmod(0)
    done = shell('exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"', "validate", tmp_path / path)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "Permission denied" in done.stdout + done.stderr


@needs_parser
@pytest.mark.parametrize("name", APPARMOR)
def test_a_broken_profile_in_a_folder_is_a_problem(tmp_path: Path, name: str) -> None:
    """Whatever of it is broken."""
    (tmp_path / name).write_text(APPARMOR[name])
    done = agent("validate", tmp_path)
    assert (done.returncode, done.stderr) == (2, ""), done.stdout
    assert done.stdout.startswith(f"{tmp_path / name}:")


@needs_parser
def test_a_broken_apparmor_profile_has_the_parsers_words(tmp_path: Path) -> None:
    """File, line and reason; one with an include from beside it is good."""
    (tmp_path / "broken").write_text("profile broken {\n  file,\n  deny nonsense\n}\n")
    done = agent("validate", tmp_path / "broken")
    assert done.returncode == 2
    assert re.match(rf"{re.escape(str(tmp_path))}/broken:\d: .*syntax error", done.stdout)
