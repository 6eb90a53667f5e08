"""docs/operations.md and docs/security.md name everything that there is, and nothing that there is not."""

from __future__ import annotations

import re

from agent import annotations as keys
from agent.event_reasons import Reason, Urgency
from agent.report.metrics import Metrics
from tests.integration.test_manifest import RIGHTS
from tests.support.agents import ROOT

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
        keys.STATUS, keys.SUMMARY, keys.FINDINGS, keys.POLICY, keys.VERSION,
        keys.LAST_CHANGE, keys.CONFIG_PROBLEM,
        keys.REBOOT, keys.REBOOT_STATUS, keys.REBOOT_HISTORY, keys.REBOOT_STATE,
    )  # fmt: skip
    told = {cells[0].strip("` ") for cells in rows(OPERATIONS, "annotation")}
    assert told == {key.removeprefix(keys.PREFIX) for key in written}
    conditions = {cells[0].strip("` ") for cells in rows(OPERATIONS, "condition")}
    assert conditions == {keys.CONDITION_HARDENED, keys.CONDITION_REBOOT}
    assert keys.LABEL in OPERATIONS
    assert keys.TAINT in OPERATIONS


def test_security_speaks_of_everything_that_is_granted() -> None:
    """Each resource of RBAC by its name."""
    words = {
        "pods/eviction": "evict pods",
        "nodes/status": "its status",
        "poddisruptionbudgets": "PodDisruptionBudgets",
    }
    for _, _, resource, _ in RIGHTS:
        assert words.get(resource, resource).lower() in SECURITY.lower(), resource
