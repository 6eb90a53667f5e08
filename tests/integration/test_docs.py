"""docs/operations.md and docs/security.md name everything that there is, and nothing that there is not."""

from __future__ import annotations

import re

from agent import annotations as keys
from agent.event_reasons import Reason, Urgency
from agent.report.metrics import Metrics
from tests.integration.hostile import test_hostile_writes as writes
from tests.integration.test_manifest import container, pod
from tests.support.agents import ROOT
from tests.vm.test_in_container import CAPABILITIES

OPERATIONS = (ROOT / "docs/operations.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with that word, as cells."""
    head = re.search(rf"^\| {first}\b.*\n\|[- |]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert head is not None, first
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in head[1].splitlines()]


def test_every_metric_is_explained() -> None:
    """Names as Prometheus has them, with their labels."""
    suffix = {"counter": "_total", "info": "_info"}
    there = {family.name + suffix.get(family.type, "") for family in Metrics().registry.collect()}
    assert {cells[0].strip("` ") for cells in rows(OPERATIONS, "metric")} == there


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Every metric named in the text is in the table."""
    table = {cells[0].strip("` ") for cells in rows(OPERATIONS, "metric")}
    assert set(re.findall(r"node_hardening_\w+", OPERATIONS)) == table


def test_every_reason_is_explained() -> None:
    """With the type that its urgency gives it."""
    kinds = {
        Urgency.NORMAL: "Normal",
        Urgency.WARNING: "Warning",
        Urgency.ON_CALL: "Warning, on-call",
    }
    told = {cells[0].strip("` "): cells[1] for cells in rows(OPERATIONS, "reason")}
    assert told == {reason.value: kinds[reason.urgency] for reason in Reason}


def test_every_annotation_and_condition_is_explained() -> None:
    """Those that the code writes."""
    written = (
        keys.STATUS, keys.SUMMARY, keys.FINDINGS, keys.CHECKS, keys.POLICY, keys.VERSION,
        keys.LAST_CHANGE, keys.CONFIG_PROBLEM, keys.ROLLOUT,
        keys.DENIALS, keys.RECORDINGS, keys.REBOOT, keys.REBOOT_STATUS, keys.REBOOT_HISTORY, keys.REBOOT_STATE,
    )  # fmt: skip
    told = {cells[0].strip("` ") for cells in rows(OPERATIONS, "annotation")}
    assert told == {key.removeprefix(keys.PREFIX) for key in written}
    conditions = {cells[0].strip("` ") for cells in rows(OPERATIONS, "condition")}
    assert conditions == {keys.CONDITION_HARDENED, keys.CONDITION_REBOOT, keys.CONDITION_POLICY}
    assert keys.LABEL in OPERATIONS
    assert keys.TAINT in OPERATIONS


def test_security_lists_what_is_granted() -> None:
    """Mounts, and the capabilities with which tests/vm has tried it; test_manifest.py compares the rights."""
    mounts = {
        (volume["hostPath"]["path"], "read" if mount.get("readOnly") else "write")
        for volume in pod()["volumes"]
        for mount in container()["volumeMounts"]
        if mount["name"] == volume["name"] and "hostPath" in volume
    }
    assert {(cells[0].strip("`"), cells[1]) for cells in rows(SECURITY, "folder of the node")} == mounts
    capabilities = " ".join(cells[0] for cells in rows(SECURITY, "capability"))
    assert sorted(re.findall(r"CAP_\w+", capabilities)) == sorted(CAPABILITIES)
    assert container()["securityContext"]["privileged"] is True


def test_security_lists_the_forged_writes_that_are_tried() -> None:
    """Each under the policy that refuses it."""
    listed = {cells[0].strip("`"): cells[1].split("; ") for cells in rows(SECURITY, "policy")}
    assert listed == {
        "node-hardening-agent-own-node": list(writes.ELSEWHERE),
        "node-hardening-agent-node-fields": list(writes.NODE),
        "node-hardening-agent-locks": [*writes.NEW_LOCK, *writes.OTHERS_LOCK],
        "node-hardening-agent-events": [*writes.EVENT, writes.OTHERS_EVENT],
    }
