"""`validate`: evidence decides what a file is. No false green, no false alarm, and everything is counted."""

from __future__ import annotations

import io
import json
import os
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.cli import lint_output
from agent.cli.validate import Result, validate
from agent.errors import UsageError
from agent.host import Host
from agent.terminal import Style

HEADER = "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfig\n"
SECCOMP = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}'

BROKEN: dict[str, str | bytes] = {
    # policies
    "a/policy.yaml": "modprobe:\n  mod: enforce\n",
    "a/agent.yml": "reboot:\n  windw: []\n  concurency: 1\n",
    "a/tab.yaml": "modprobe:\n\tmode: enforce\n",
    "a/typo-in-section.yaml": "seccmp:\n  mode: enforce\n",
    "a/list.yml": "modprobe: [enforce]\n",
    "a/scalar.yaml": "modprobe: enforce\n",
    "a/kindless.yaml": "apiVersion: node-hardening.io/v1alpha1\nmodprob: {}\n",
    "a/kind-in-lower-case.yaml": "kind: agentconfig\n",
    "a/misspelled-kind.yaml": "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfg\n",
    "a/misspelled-group.yaml": "apiVersion: node-hardning.io/v1alpha1\nkind: AgentConfig\n",
    "a/flow.yaml": "{apiVersion: node-hardening.io/v1alpha1, kind: AgentConfig, oops: 1}\n",
    "a/policy.json": '{"kind": "AgentConfig", "modprobe": {"mode": "enforc"}}',
    "a/cut-off.json": '{"modprobe": {"mode": "enforce"},\n "reboot": {"mode": ',
    "a/no-ending": "modprobe: {mode: yes}\n",
    "a/crlf.yaml": "modprobe:\r\n  mod: enforce\r\n",
    "a/latin-1.yaml": HEADER.encode() + b"# \xe9\n",
    "a/utf-16.yaml": HEADER.encode("utf-16"),
    "a/second-document.yaml": f"kind: Service\napiVersion: v1\n---\n{HEADER}",
    "a/node-hardening.yaml": "moprobe: {}\n",
    # deny lists
    "a/list.yaml": "kind: ModuleDenylist\nmodules: []\n",
    "a/list-without-kind.yaml": "about: x\nmodules:\n- {name: rds, reason: unused}\n",
    # seccomp
    "a/seccomp.json": '{"defaultAction": "SCMP_ACT_ALOW", "syscalls": []}',
    "a/seccomp-cut-off.json": '{"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ERRNO"}',
    "a/seccomp-key.json": '{"defaultaction": "SCMP_ACT_ALLOW"}',
    # in manifests
    "a/map.yaml": "kind: ConfigMap\nmetadata: {name: node-hardening-config}\ndata: {config.yaml: 'x: 1'}\n",
    "a/hashed.yaml": "kind: ConfigMap\napiVersion: v1\nmetadata: {name: node-hardening-seccomp-a1b2c3d4e5}\n"
    "data: {x.json: '[]'}\n",
    "a/map.json": json.dumps(
        {"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"c": f"{HEADER}oops: 1\n"}}, indent=1
    ),
    "a/broken-map.yaml": "kind: ConfigMap\nmetadata:\n  name: node-hardening-config\ndata: {{- toYaml .x }}\n",
    "a/beside.yaml": f"apiVersion: v1\nkind: ConfigMap\ndata: {{}}\n---\n{HEADER}oops: 1\n",
    "a/values.yaml": "config:\n  # ours\n  modprobe:\n    mod: enforce\nimage: {tag: x}\n",
    "a/umbrella.yaml": "node-hardening-agent:\n  profiles:\n    seccomp:\n      x.json: '{}'\nredis: {enabled: true}\n",
    "a/argo.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n"
    "    chart: node-hardening-agent\n    helm:\n      valuesObject:\n        config:\n          modprobe:\n"
    "            mod: enforce\n  project: x\n",
    "a/argo-text.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  sources:\n  - chart: "
    "node-hardening-agent\n    helm:\n      values: |\n        config:\n          modprobe: {mod: enforce}\n",
    "a/flux.yaml": "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: node-hardening-agent}\n"
    "spec:\n  values:\n    profiles:\n      seccomp:\n        x.json: '{}'\n",
    "a/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nhelmCharts:\n"
    "- name: node-hardening-agent\n  valuesInline:\n    config: {interval: nope}\n",
    "a/binary.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: node-hardening-seccomp}\n"
    "binaryData: {x.json: eyJkZWZhdWx0QWN0aW9uIjogIlNDTVBfQUNUX0FMTE8ifQ==}\n",
    "a/not-base64.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: node-hardening-seccomp}\n"
    "binaryData: {x.json: 'eyJ*'}\n",
}
FOREIGN: dict[str, str | bytes] = {
    "go/template.go": "package x\n\nconst base = `\n#include <tunables/global>\n\nprofile {{.N}} flags=(complain) {\n"
    "  network,\n  deny /sys/** w,\n}\n`\n",
    "go/doc.go": "/*\n/sys/x {\n  /a r,\n*/\npackage x\n",
    "php/index.php": "<?php\n// profile x {\nclass Profile {\n  private $file;\n}\n",
    "php/latin.php": "<?php // caf\xe9 {\n".encode("latin-1"),
    "c/a.h": "#include <stdio.h>\n#include <local/x.h>\nstruct x {\n  file,\n};\n",
    "conf/tool.hcl": 'profile "x" {\n  name = "y"\n}\n',
    "conf/Caddyfile": "/api {\n  reverse_proxy x\n}\n",
    "conf/nginx.conf": "server {\n  location /x {\n    deny all;\n  }\n}\n",
    "conf/app-config.yaml": "host: x\n",
    "conf/config.yaml": "log: {level: info}\ninterval: 5\nmetrics: {address: x}\n",
    "conf/openshift.yaml": "apiVersion: v1alpha1\nkind: AgentConfig\nrendezvousIP: 192.0.2.1\n",
    "conf/bad.yaml": "a: [\n",
    "conf/dependabot.yml": "version: 2\nupdates: [{package-ecosystem: pip}]\n",
    "conf/i18n.yaml": "".join(f"word{number}: {number}\n" for number in range(5000)),
    "json/package.json": '{"name": "x"}',
    "json/oci-config.json": '{"ociVersion": "1.0", "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}',
    "json/schema.json": '{"properties": {"defaultAction": {"type": "string"}, "syscalls": {"type": "array"}}}',
    "json/list.json": "[1, 2]",
    "json/broken.json": "{nonsense",
    "chart/Chart.yaml": "apiVersion: v2\nname: x\nversion: 1.0.0\n",
    "chart/values.yaml": "kubelet: {enabled: true}\nimage: {tag: x}\nconfig:\n  level: info\nprofiles: {a: b}\n",
    "chart/templates/cm.yaml": "kind: ConfigMap\nmetadata: {name: {{ .x }}}\n",
    "chart/templates/tests/t.yaml": "{{ x }}\n",
    "k8s/map.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a.json: '{\"emptyDir\": {}}'}\n",
    "k8s/crd.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {seccomp: {mode: x}}\n",
    "apparmor.d/abstractions/web": "abi <abi/3.0>,\ninclude <abstractions/base>\n/srv/** r,\n",
    "apparmor.d/tunables/x": "@{X}=/a /b\n",
    "apparmor/Makefile": "all:\n\tprofile { x }\n",
    "bin/tool": b"\x7fELF\0\0\xff\xfe" + bytes(range(256)),
    "bin/nul.yaml": b"a\0b",
    "empty.yaml": "",
    "rust/a.rs": "profile foo {\n    file: x,\n    network: y,\n}\n",
    "rust/struct.txt2": "profile foo {\n    file: x,\n    network: y,\n}\n",
    "perl/k.pl": "@{ARGV} = (1,2);\nprofile x {\n  network a,\n}\n",
    "go/profile.go": "profile x {\n  network inet,\n  /x r,\n}\n",
    "conf/api.Caddyfile": "/api/* {\n  file /etc/x\n  deny all\n}\n",
    "ansible/vars.yml": "kubelet:\n  mode: systemd\nreboot:\n  enabled: true\nmetrics:\n  address: 0.0.0.0:9100\n",
    "seccomp/package.json": '{"name": "x", "scripts": {"test": "y"}}',
    "k8s/argo.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\n"
    'spec: {source: {chart: redis, helm: {values: "config: {modprobe: {mod: x}}"}}}\n',
    "LICENSE": "Licensed under {x}, with a profile\n",
}  # fmt: skip


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _validate(*paths: Path | str, forced: str = "") -> Result:
    return validate([str(path) for path in paths], Host("/"), forced)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_ours_is_a_problem(tmp_path: Path, name: str) -> None:
    """In a folder that is walked, and beside nothing else."""
    _write(tmp_path, {name: BROKEN[name]})
    result = _validate(tmp_path)
    assert result.problems, result
    assert {one.file for one in result.problems} == {str(tmp_path / name)}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_program_is_skipped(tmp_path: Path, name: str) -> None:
    """Each by itself, with its reason."""
    _write(tmp_path, {name: FOREIGN[name]})
    result = _validate(tmp_path)
    assert (result.checked, result.problems, result.unchecked) == ([], [], [])
    assert [one.file for one in result.skipped] == [str(tmp_path / name)]
    assert result.skipped[0].reason


def test_everything_is_counted_and_listed_on_request(tmp_path: Path) -> None:
    """A folder of other projects' files: no problem, and each file stands in the list."""
    _write(tmp_path, FOREIGN)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to("go")
    os.mkfifo(tmp_path / "fifo")
    result = _validate(tmp_path)
    assert (result.checked, result.problems, result.unchecked) == ([], [], [])
    assert len(result.skipped) == len(FOREIGN) + 3
    brief = lint_output.table(result, Style(), verbose=False)
    assert brief.splitlines() == [f"0 texts checked, no problems; {len(FOREIGN) + 3} skipped."]
    whole = lint_output.table(result, Style(), verbose=True)
    assert all(f"{tmp_path / name}  (" in whole for name in FOREIGN)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("policy.yaml", "interval: 5m\n"),
        ("only-comments.yaml", "# nothing yet\n"),
        ("values.yaml", "config:\n  modprobe:\n    mode: audit\n"),
        ("policy.json", '{"modprobe": {"mode": "audit"}}'),
        ("list.yaml", f"kind: List\napiVersion: v1\nitems:\n- {{kind: ConfigMap, data: {{p.json: '{SECCOMP}'}}}}\n"),
    ],
)
def test_a_named_file_needs_less_evidence(tmp_path: Path, name: str, content: str) -> None:
    """The user says that it is ours: what nothing contradicts is linted."""
    _write(tmp_path, {name: content})
    result = _validate(tmp_path / name)
    assert (len(result.checked), result.problems, result.skipped) == (1, [], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("policy.yaml", "interval: 5\n"),
        ("p.json", "{}"),
        ("notes", "hello\n"),
        ("x.yaml", b"\xff\n"),
        ("y.yaml", "a: [\n"),
    ],
)
def test_a_named_file_is_never_skipped_for_want_of_evidence(tmp_path: Path, name: str, content: str | bytes) -> None:
    """A policy without `kind` by itself; a text of which nothing says what it is."""
    _write(tmp_path, {name: content})
    assert _validate(tmp_path / name).problems


def test_a_named_object_of_kubernetes_is_not_ours(tmp_path: Path) -> None:
    """Its kind says so."""
    _write(tmp_path, {"map.yaml": FOREIGN["k8s/map.yaml"]})
    result = _validate(tmp_path / "map.yaml")
    assert (result.problems, len(result.skipped)) == ([], 1)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"a: 1\n---\nkind: ConfigMap\ndata:\n  c.yaml: |\n{textwrap.indent(HEADER, '    ')}    oops: 1\n", 8),
        ("node-hardening-agent:\n  config:\n    interval: 5m\n    oops: 1\n", 4),
        ("config: {modprobe: {mode: audit}, oops: 1}\n", 1),
        (f"kind: ConfigMap\n---\n# x\n{HEADER}oops: 1\n", 6),
    ],
)  # fmt: skip
def test_a_problem_inside_a_file_has_the_files_line(tmp_path: Path, content: str, line: int) -> None:
    """In a ConfigMap, in values, in a later document."""
    _write(tmp_path, {"x.yaml": content})
    assert [(one.key, one.line) for one in _validate(tmp_path).problems] == [("oops", line)]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`helm template … | validate -`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"# x\n---\n{HEADER}oops: 1\n".encode())))
    assert [(one.file, one.line) for one in _validate("-").problems] == [("<stdin>", 5)]


def test_an_empty_standard_input_is_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`helm template … | validate -` is not green because helm failed; said to be a policy, it is the empty one."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(UsageError, match="standard input is empty"):
        _validate("-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert _validate("-", forced="policy").problems == []


def test_the_user_may_say_what_a_file_is(tmp_path: Path) -> None:
    """Then nothing else decides."""
    _write(tmp_path, {"notes": "hello\n", "app.yaml": "host: x\n"})
    result = _validate(tmp_path, forced="policy")
    assert [one.kind for one in result.checked] == ["configuration"] * 2
    assert len(result.problems) == 2


def test_what_may_be_ours_and_was_not_judged_is_in_doubt(tmp_path: Path) -> None:
    """A template that is not rendered; broken YAML with a ConfigMap."""
    ours = "kind: ConfigMap\nmetadata: {name: node-hardening-config}\n"
    _write(
        tmp_path,
        {"c/Chart.yaml": "name: x\n", "c/templates/m.yaml": ours, "role/cm.yaml": "kind: ConfigMap\na: {{- x }}\n"},
    )
    result = _validate(tmp_path)
    assert [one.split(": ")[0] for one in result.doubts] == [
        str(tmp_path / "c/templates/m.yaml"), str(tmp_path / "role/cm.yaml")
    ]  # fmt: skip
    assert not result.problems


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything; the integration test drops the right")
def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    """By name, and as one that was not checked."""
    _write(tmp_path, {"x.yaml": HEADER})
    (tmp_path / "x.yaml").chmod(0)
    assert _validate(tmp_path).unchecked == [f"{tmp_path}/x.yaml: cannot be read: Permission denied"]


def _mixed(tmp_path: Path) -> Result:
    _write(tmp_path, {"bad,1%.yaml": "modprobe:\n  mod: enforce\n", "good.json": SECCOMP, "x.go": "package x\n"})
    result = _validate(tmp_path)
    result.unchecked.append("z: apparmor_parser: not found\x1b")
    return result


def test_a_value_of_a_config_map_has_its_key_in_the_table(tmp_path: Path) -> None:
    """Several profiles in one manifest are not the same line."""
    values = {"a.json": SECCOMP, "b.json": SECCOMP}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "node-hardening-seccomp"}, "data": values}
    _write(tmp_path, {"m.yaml": json.dumps(manifest), "x.json": SECCOMP})
    lines = lint_output.table(_validate(tmp_path), Style(), verbose=False).splitlines()
    names = [line.split()[1:3] for line in lines if line.startswith("ok")]
    file = f"{tmp_path}/m.yaml:"
    assert names == [[file, "a.json"], [file, "b.json"], [f"{tmp_path}/x.json", "(seccomp"]]


def test_sarif_names_file_line_and_level(tmp_path: Path) -> None:
    """As code scanning reads it: URIs are encoded, what could not be done is a notification."""
    log = json.loads(lint_output.sarif(_mixed(tmp_path)))
    (run,) = log["runs"]
    (error,) = [one for one in run["results"] if one["level"] == "error"]
    place = error["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("/bad%2C1%25.yaml")
    assert place["region"] == {"startLine": 2}
    assert log["version"] == "2.1.0"
    assert {one["ruleId"] for one in run["results"]} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert run["invocations"][0]["executionSuccessful"] is False


def test_junit_has_a_test_for_each_file(tmp_path: Path) -> None:
    """Failed, passed, errored and skipped; well-formed whatever a name holds."""
    suite = ET.fromstring(lint_output.junit(_mixed(tmp_path)))[0]
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    assert [[part.tag for part in case] for case in suite] == [["failure"], [], ["error"], ["skipped"]]


def test_github_commands_escape_what_they_carry(tmp_path: Path) -> None:
    """https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands"""
    lines = lint_output.github(_mixed(tmp_path)).splitlines()
    assert lines[0].startswith(f"::error file={tmp_path}/bad%2C1%25.yaml,line=2::modprobe.mod: ")
    assert lines[1] == r"::error::not checked: z: apparmor_parser: not found\x1b"


# Denies something only from Linux 5.4 on, and contradicts itself only on s390x.
_SINCE = {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "5.4"}}
_ON_S390X = {"names": ["reboot"], "action": "SCMP_ACT_KILL", "includes": {"arches": ["s390x"]}}
_GATED = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [_SINCE, _ON_S390X]})


@pytest.mark.parametrize(
    ("targets", "problems"),
    [
        ([], 1), (["amd64/5.4"], 0), (["arm64/6.1", "amd64/5.15"], 0), (["x86_64/5.3"], 1), (["aarch64"], 1),
        (["amd64/5.4", "s390x/5.4"], 1), (["amd64/5.4", "arm64/4.19"], 1), (["SCMP_ARCH_PPC64LE/6.1"], 0),
    ],
)  # fmt: skip
def test_a_profile_is_linted_for_the_nodes_that_target_names(tmp_path: Path, targets: list[str], problems: int) -> None:
    """Every kernel from the one named on, and no other; without a target any."""
    (tmp_path / "p.json").write_text(_GATED)
    assert len(validate([str(tmp_path)], Host("/"), targets=targets).problems) == problems


def test_what_a_profile_leaves_open_is_judged_on_the_target(tmp_path: Path) -> None:
    """iopl and ioperm are syscalls of x86 alone."""
    (tmp_path / "p.json").write_text(SECCOMP.replace("reboot", "iopl"))
    found = {one: len(validate([str(tmp_path)], Host("/"), targets=[one]).warnings) for one in ("amd64", "arm64")}
    assert found == {"amd64": 1, "arm64": 0}


@pytest.mark.parametrize("word", ["", "amd65", "amd64/", "amd64/new", "/5.4", "amd64/5"])
def test_a_target_that_is_none_is_a_usage_error(word: str) -> None:
    """With what would be right."""
    with pytest.raises(UsageError, match=r"amd64/5\.15"):
        validate([str(Path(__file__))], Host("/"), targets=[word])
