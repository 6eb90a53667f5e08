"""What `validate` warns about in a policy that is valid, and the policy of a node that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import lint_output
from agent.cli.dangers import advise
from agent.cli.validate import labels_of, validate
from agent.errors import UsageError
from agent.host import Host
from agent.terminal import Style

OVERRIDES = """\
interval: 1m
overrides:
  - name: gpu
    nodeSelector: pool=gpu
    modprobe:
      deny: [hfs]
  - name: odd
    nodeSelector: odd
    modprobe: {allow: [hfs]}
"""


@pytest.mark.parametrize(
    ("policy", "line", "key"),
    [
        ("reboot:\n  drain:\n    timeout: 5m\n    onTimeout: force\n", 4, "reboot.drain.onTimeout"),
        ("reboot: {maxUnavailable: 100%}", 1, "reboot.maxUnavailable"),
        ("modprobe:\n  lists: [cis]\n  allow: [squashfs]\n", 2, "modprobe.lists"),
        ("modprobe: {deny: [udf]}", 1, "modprobe.deny"),
        ("overrides:\n- name: a\n  nodeSelector: a\n  modprobe: {deny: [udf]}\n", 4, "overrides[0].modprobe.deny"),
    ],
)
def test_a_dangerous_value_is_warned_about_where_it_stands(policy: str, line: int, key: str) -> None:
    assert [(one.line, one.key) for one in advise(policy, "f")] == [(line, key)]


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "reboot: {drain: {timeout: 1h, onTimeout: force}}",
        "reboot: {mode: off, maxUnavailable: 100%}",
        "modprobe: {lists: [cis], allow: [udf, squashfs]}",
        "modprobe: {mode: audit, lists: [cis]}",
        "overrides: [{name: a, nodeSelector: a, interval: 1m}]",
    ],
)
def test_nothing_is_said_about_the_rest(policy: str) -> None:
    assert advise(policy, "f") == []


def test_a_warning_about_all_nodes_is_not_repeated_for_each_override() -> None:
    policy = "reboot: {maxUnavailable: 100%}\noverrides: [{name: a, nodeSelector: a, interval: 1m}]"
    assert [one.key for one in advise(policy, "f")] == ["reboot.maxUnavailable"]


def test_the_policy_of_labels_is_shown_with_where_its_values_come_from(tmp_path: Path) -> None:
    """In a ConfigMap too, with the line in the file."""
    indented = "".join(f"    {line}\n" for line in OVERRIDES.splitlines())
    file = tmp_path / "map.yaml"
    file.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: node-hardening-config}\ndata:\n"
        f"  config.yaml: |\n{indented}"
    )
    result = validate([str(file)], Host("/"), labels={"pool": "gpu"})
    assert result.problems == []
    shown = lint_output.table(result, Style(), verbose=False)
    assert 'modprobe.deny: ["hfs"] # override gpu, line 11' in " ".join(shown.split())
    assert 'interval: "1m" # line 6' in " ".join(shown.split())


def test_overrides_that_contradict_each_other_are_a_problem_of_these_labels(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(OVERRIDES)
    assert validate([str(file)], Host("/"), labels={"pool": "gpu"}).problems == []
    (problem,) = validate([str(file)], Host("/"), labels={"pool": "gpu", "odd": ""}).problems
    assert "with these labels" in problem.message


def test_labels_are_read_or_refused() -> None:
    assert labels_of("a=b,c.io/d=,e") == {"a": "b", "c.io/d": "", "e": ""}
    assert labels_of("") == {}
    for wrong in ("=b", "a b=c", "a=b c"):
        with pytest.raises(UsageError, match="is not a label"):
            labels_of(wrong)
