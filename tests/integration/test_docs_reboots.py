"""The pages on reboots and on kured: examples validate, keys and reasons exist, the command for on-call works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import requests
import yaml
from _pytest.mark import ParameterSet

from agent.config.schema_tree import paths
from agent.event_reasons import Reason, Urgency
from agent.reboot.kube.views import lease_view
from agent.reboot.phases import Phase
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import Settings
from tools.reboot_diagram import with_diagram

ROOT = Path(__file__).parents[2]
REBOOTS = (ROOT / "docs/reboots.md").read_text()
KURED = (ROOT / "docs/migrating-from-kured.md").read_text()
# kubereboot/kured cmd/kured/main.go, commit 51220cc of August 2026: the names of its flags.
KURED_FLAGS = """
    alert-filter-match-only alert-filter-regexp alert-firing-only annotate-nodes blocking-pod-selector concurrency
    drain-delay drain-grace-period drain-pod-selector drain-timeout ds-name ds-namespace end-time force-reboot
    lock-annotation lock-release-delay lock-ttl log-format message-template-drain message-template-reboot
    message-template-uncordon metrics-host metrics-port node-id notify-url period post-reboot-node-labels
    pre-reboot-node-labels prefer-no-schedule-taint prometheus-url reboot-command reboot-days reboot-delay
    reboot-method reboot-sentinel reboot-sentinel-command reboot-signal skip-wait-for-delete-timeout slack-channel
    slack-hook-url slack-username start-time time-zone
"""


def examples() -> list[ParameterSet]:
    """Every ```yaml block of docs/ that is a policy, by page and line."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        for block in re.finditer(r"^( *)```yaml\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            content = textwrap.dedent(block[2])
            if {one.get("kind", "AgentConfig") for one in yaml.safe_load_all(content)} == {"AgentConfig"}:
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(content, id=f"{page.name}:{line}"))
    return found


def table_rows(text: str) -> list[list[str]]:
    """Every row of every table, as cells."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]


@pytest.mark.parametrize("example", examples())
def test_every_example_validates(example: str, tmp_path: Path) -> None:
    """As `node-hardening-agent validate` sees it."""
    head = "" if "kind:" in example else "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfig\n"
    file = tmp_path / "config.yaml"
    file.write_text(head + example)
    argv = [sys.executable, "-m", "agent", "validate", str(file)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, done.stdout), done.stdout


def test_every_flag_of_kured_has_its_row() -> None:
    """All of them, once, and none that kured does not have."""
    cells = [row[0] for row in table_rows(KURED) if row[0].startswith("`--")]
    named = [flag for cell in cells for flag in re.findall(r"--([a-z-]+)", cell)]
    assert sorted(named) == KURED_FLAGS.split()


def test_keys_that_flags_map_to_exist() -> None:
    """What stands in the second column as a path is a key of the configuration."""
    known = {path for path, _ in paths()}
    said = [row[1] for row in table_rows(KURED) if row[0].startswith("`--")]
    told = re.findall(r"`((?:reboot|notify\[\]|metrics|log)\.[A-Za-z.\[\]]+)", " ".join(said))
    assert len(told) > 30
    assert [path for path in told if path not in known] == []


def test_every_reason_of_a_reboot_is_in_the_table() -> None:
    """With the type that its urgency gives it."""
    kinds = {Urgency.NORMAL: "Normal", Urgency.WARNING: "Warning", Urgency.ON_CALL: "Warning, on-call"}
    about = {
        reason.value: kinds[reason.urgency]
        for reason in Reason
        if reason.value.startswith(("Reboot", "Drain", "NodeCordoned", "NodeUncordoned", "NodeKeyRefused"))
        and reason.value != "DriftCorrected"
    }
    table = REBOOTS[REBOOTS.index("\n## Events") :]
    told = {row[0].strip("`"): row[1] for row in table_rows(table) if row[0].startswith("`")}
    assert told == about


def test_the_picture_has_every_phase() -> None:
    """Those that the Node shows, and it is the one that phases.TRANSITIONS makes (`make docs`)."""
    assert with_diagram(REBOOTS) == REBOOTS
    picture = REBOOTS[REBOOTS.index("## The whole cycle") :].split("```")[1]
    assert [phase.value for phase in Phase if phase is not Phase.UNKNOWN and phase.value not in picture] == []


def test_the_command_that_frees_a_lock_frees_it() -> None:
    """The patch of the page, on a Lease whose holder went down to reboot."""
    found = re.search(r"patch lease (\S+) --type merge -p '(.+)'", REBOOTS)
    assert found is not None
    name, patch = found.groups()
    with Sandbox(Settings()) as sandbox:
        sandbox.create("namespaces", {"metadata": {"name": "node-hardening"}})
        held = {
            "metadata": {
                "name": name,
                "namespace": "node-hardening",
                "annotations": {"node-hardening.io/phase": "rebooting"},
            },
            "spec": {"holderIdentity": "node-1/uid"},
        }
        assert lease_view(sandbox.create("leases", held)).holder == "node-1/uid"
        answer = requests.patch(
            f"{sandbox.url}/apis/coordination.k8s.io/v1/namespaces/node-hardening/leases/{name}",
            data=json.dumps(json.loads(patch)),
            headers={"Authorization": f"Bearer {sandbox.token}", "Content-Type": "application/merge-patch+json"},
            timeout=300,
        )
        assert answer.status_code == 200
        assert lease_view(answer.json()).holder == ""
