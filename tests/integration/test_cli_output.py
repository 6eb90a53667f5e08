"""What `audit` and `apply` say, where, and how: documents for machines, the table for eyes, errors on stderr."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from agent import __version__
from agent.daemon.node_labels import PATH as LABELS
from agent.model import Severity, Status
from agent.sandbox.noderoot import NodeRoot
from agent.text import parse_rfc3339
from tests.support.cli import agent, document, on_terminal, policy, shell

EVIDENCE = ["time", "agentVersion", "os", "kernel", "policy"]
KEYS = [
    "id",
    "control",
    "title",
    "status",
    "severity",
    "observed",
    "expected",
    "source",
    "remediation",
    "section",
    "cis",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node that nobody hardened yet."""
    return NodeRoot.make(tmp_path / "node").path


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """The default policy, but that no port of the sandboxed kubelet is asked."""
    return policy(tmp_path)


def test_the_json_document_is_what_scripts_are_promised(root: Path, quiet: Path) -> None:
    """node, status, findings, each with its nine keys in words of the two lists; worst first; nothing on stderr."""
    done = agent("audit", "--config", quiet, "--host-root", root, "--node-name", "n1", "-o", "json")
    assert (done.returncode, done.stderr) == (1, "")
    said = document(done)
    assert list(said) == [*EVIDENCE, "node", "status", "findings"]
    assert abs(parse_rfc3339(said["time"]) - time.time()) < 600
    assert (said["agentVersion"], said["os"]) == (__version__, "Debian GNU/Linux 12 (bookworm)")
    assert said["kernel"] == (root / "proc/sys/kernel/osrelease").read_text().strip()
    assert re.fullmatch("[0-9a-f]{16}", said["policy"])
    assert (said["node"], said["status"]) == ("n1", "fail")
    for finding in said["findings"]:
        assert list(finding) == KEYS
        assert all(isinstance(value, str) for name, value in finding.items() if name != "cis")
        assert finding["status"] in {status.value for status in Status}
        assert finding["severity"] in {severity.value for severity in Severity}
        assert finding["id"].startswith(f"{finding['control']}/")
    assert len({finding["id"] for finding in said["findings"]}) == len(said["findings"])
    order = ["fail", "unknown", "info", "pass", "not-applicable"]
    ranks = [order.index(finding["status"]) for finding in said["findings"]]
    assert ranks == sorted(ranks)


def test_yaml_and_json_are_one_document(root: Path, quiet: Path) -> None:
    """The same keys and values in both forms."""
    common = ("audit", "--config", quiet, "--host-root", root, "--node-name", "n1", "-o")
    first, second = yaml.safe_load(agent(*common, "yaml").stdout), json.loads(agent(*common, "json").stdout)
    assert {**first, "time": ""} == {**second, "time": ""}


def test_apply_lists_what_it_did(root: Path, quiet: Path) -> None:
    """Each change with its outcome; 0 only when everything complies afterwards."""
    done = agent("apply", "--config", quiet, "--host-root", root, "-o", "json")
    assert done.returncode == (0 if document(done)["status"] == "pass" else 1)
    changes = document(done)["changes"]
    assert ("modprobe", "write", "/etc/modprobe.d/kubernetes-blacklist.conf", "done") in {
        (one["control"], one["action"], one["target"], one["outcome"]) for one in changes
    }


def test_the_table_has_failures_first_and_the_verdict_last(root: Path, quiet: Path) -> None:
    """Below a failure its next step; no colour, no wrapping, no trailing blanks in a pipe."""
    done = agent("audit", "--config", quiet, "--host-root", root, "--node-name", "n1")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert lines[0].split() == ["STATUS", "SEVERITY", "CHECK", "FINDING"]
    words = [line.split()[0] for line in lines[1:-2] if not line.startswith(" ")]
    order = ["FAIL", "UNKNOWN", "info", "pass", "n/a"]
    assert words == sorted(words, key=order.index)
    assert words[0] == "FAIL"
    assert lines[2].lstrip().startswith("-> ")
    assert lines[2].index("->") == lines[1].index("modprobe/")
    assert lines[-2] == ""
    assert re.fullmatch(r"n1 does not comply: \d+/\d+ passed, \d+ failed \(.*\), .*\d+ not applicable\.", lines[-1])
    assert max(map(len, lines)) > 150


@pytest.mark.parametrize("columns", [60, 80, 120, 250])
def test_a_terminal_gets_colour_and_lines_that_fit(root: Path, quiet: Path, columns: int) -> None:
    """Long names push the text below them rather than past the edge."""
    code, sent = on_terminal("audit", "--config", quiet, "--host-root", root, columns=columns)
    assert code == 1
    assert "\x1b[31;1mFAIL" in sent
    plain = re.sub(r"\x1b\[[\d;]*m", "", sent)
    assert max(map(len, plain.splitlines())) <= columns
    assert "does not comply" in plain


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_declined(root: Path, quiet: Path, env: dict[str, str]) -> None:
    """https://no-color.org, and terminals that know none; wrapped all the same."""
    _, sent = on_terminal("audit", "--config", quiet, "--host-root", root, columns=100, env=env)
    assert "\x1b" not in sent
    assert max(map(len, sent.splitlines())) <= 100


def test_an_empty_no_color_declines_nothing(root: Path, quiet: Path) -> None:
    """The convention says: present and not empty."""
    _, sent = on_terminal("audit", "--config", quiet, "--host-root", root, columns=100, env={"NO_COLOR": ""})
    assert "\x1b[" in sent


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_a_reader_that_has_seen_enough_costs_nothing(root: Path, quiet: Path, form: str) -> None:
    """`| head -1`: no traceback, no complaint at exit, and the exit code is still the answer."""
    script = 'set -o pipefail; "$@" | head -n 1 >/dev/null; echo "${PIPESTATUS[0]}"'
    done = shell(script, "audit", "--config", quiet, "--host-root", root, "-o", form)
    assert (done.stdout.strip(), done.stderr) == ("1", "")
    done = shell('"$@" | true; echo "${PIPESTATUS[0]}"', "audit", "--config", quiet, "--host-root", root, "-o", form)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_is_said(root: Path, quiet: Path) -> None:
    """A full disk behind `>`: one line, exit 3."""
    done = shell('"$@" >/dev/full', "audit", "--config", quiet, "--host-root", root)
    assert done.returncode == 3
    assert done.stderr == "node-hardening-agent: cannot write to standard output: No space left on device\n"


def test_without_standard_output_the_code_still_tells(root: Path, quiet: Path) -> None:
    """`>&-`, as some supervisors start things."""
    done = shell('"$@" >&-', "audit", "--config", quiet, "--host-root", root)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_stands_on_the_node_never_breaks_the_answer(tmp_path: Path, quiet: Path, form: str, encoding: str) -> None:
    """Stray bytes and escape sequences on the kubelet's command line, on terminals of every encoding."""
    node = NodeRoot.make(tmp_path / "odd")
    node.stop_kubelet()
    node.start_kubelet(("/usr/bin/kubelet", "--read-only-port=\x1b[31mred\x07", "--hostname-override=kn\u00f6t\u2192"))
    cmdline = node.at("/proc/812/cmdline")
    cmdline.write_bytes(cmdline.read_bytes() + b"--authorization-mode=\xff\xfe\0")
    done = agent(
        "audit", "--config", quiet, "--host-root", node.path, "-o", form, env={"PYTHONIOENCODING": encoding},
        encoding=encoding,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    if form == "table":
        assert "4.2.4" in done.stdout
    else:
        said = json.loads(done.stdout) if form == "json" else yaml.safe_load(done.stdout)
        observed = {one["id"]: one["observed"] for one in said["findings"]}
        assert "[31mred" in observed["kubelet/4.2.4"]
        assert "kn\u00f6t\u2192" in observed["kubelet/4.2.7"]


# -- what cannot be done -----------------------------------------------------------------------------------------------


def test_every_problem_of_a_configuration_is_said_at_once(root: Path, tmp_path: Path) -> None:
    """On stderr, each with file, line and key; exit 2; nothing was changed."""
    wrong = policy(tmp_path, "modprobe:\n  mod: enforce\ninterval: 5\nreboot:\n  concurrency: none\n  windw: []\n")
    names = sorted(root.rglob("*"))
    done = agent("apply", "--config", wrong, "--host-root", root)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1:3] for line in lines[:-1]] == [
        [f"{wrong}:2", "modprobe.mod"],
        [f"{wrong}:3", "interval"],
        [f"{wrong}:5", "reboot.concurrency"],
        [f"{wrong}:6", "reboot.windw"],
    ]
    assert "mode" in lines[0]
    assert lines[-1] == "node-hardening-agent: 4 problems; nothing was changed"
    assert sorted(root.rglob("*")) == names


@pytest.mark.parametrize("command", ["audit", "apply", "run"])
@pytest.mark.parametrize("given", ["missing", "file", ""])
def test_a_host_root_that_is_none_is_a_usage_error(tmp_path: Path, quiet: Path, command: str, given: str) -> None:
    """Nobody's typo makes a folder, and a script's unset variable is not the working folder."""
    (tmp_path / "file").write_text("")
    path = str(tmp_path / given) if given else ""
    here = tmp_path / "here"
    here.mkdir()
    done = agent(command, "--config", quiet, "--host-root", path, cwd=here)
    assert done.returncode == 2
    assert done.stderr == f"node-hardening-agent: --host-root {path or repr('')}: not a folder\n"
    assert list(here.iterdir()) == []


def test_a_configuration_that_was_named_has_to_be_there(root: Path, tmp_path: Path) -> None:
    """Not the built-in policy in silence."""
    done = agent("audit", "--config", tmp_path / "none.yaml", "--host-root", root)
    assert done.returncode == 2
    assert "none.yaml: cannot be read: No such file or directory" in done.stderr


@pytest.mark.parametrize("args", [(), ("harden",), ("audit", "-o", "xml"), ("validate",), ("apply", "--dryrun")])
def test_what_the_command_line_does_not_know_ends_with_2(args: tuple[str, ...]) -> None:
    """argparse's own words, on stderr."""
    done = agent(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: node-hardening-agent" in done.stderr


def test_help_names_the_exit_codes() -> None:
    """Of the whole and of a command."""
    for args in (("--help",), ("apply", "--help")):
        done = agent(*args)
        assert done.returncode == 0
        assert "3  could not do the work" in done.stdout


def test_help_of_the_demo_has_what_applies_to_it() -> None:
    """It is about no node of the user's."""
    shown = agent("demo", "--help").stdout
    assert "--nodes" in shown
    assert [word for word in ("--config", "--host-root", "--output", "exit codes") if word in shown] == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv to be less")
def test_apply_without_the_right_to_write_ends_with_3(root: Path, quiet: Path) -> None:
    """Each failed change says why, in both forms."""
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    script = 'exec setpriv --bounding-set=-dac_override "$@"'
    done = shell(script, "apply", "--config", quiet, "--host-root", root, "-o", "json")
    assert done.returncode == 3, done.stderr
    failed = [one for one in document(done)["changes"] if one["outcome"] == "failed"]
    assert failed
    assert all("Permission denied" in one["error"] for one in failed)
    assert not (root / "etc/modprobe.d/kubernetes-blacklist.conf").exists()
    done = shell(script, "apply", "--config", quiet, "--host-root", root)
    assert done.returncode == 3
    assert done.stdout.startswith("FAILED  modprobe: write /etc/modprobe.d/kubernetes-blacklist.conf")
    assert done.stdout.rstrip().endswith(f"0 changes made, {len(failed)} failed.")


def test_an_exception_for_labels_holds_where_the_node_has_them(root: Path, tmp_path: Path) -> None:
    """The labels that the daemon keeps on the node: without them the finding fails as before."""
    one = {"selector": {"labels": "pool=gpu"}, "reason": "vendor image", "owner": "team-gpu"}
    ends = str(dt.datetime.now(dt.UTC).date() + dt.timedelta(30))
    accepted = {**one, "id": "modprobe/dccp", "expires": ends}
    config = policy(tmp_path, json.dumps({"kubelet": {"probe": False}, "exceptions": [accepted]}))

    def observed() -> tuple[str, str]:
        done = agent("audit", "--config", config, "--host-root", root, "--node-name", "n1", "-o", "json")
        (found,) = [one for one in document(done)["findings"] if one["id"] == "modprobe/dccp"]
        return found["status"], found["observed"]

    assert observed()[0] == "fail"
    (root / LABELS.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / LABELS.lstrip("/")).write_text(json.dumps({"pool": "gpu"}))
    status, text = observed()
    assert status == "info"
    assert "vendor image (team-gpu)" in text
