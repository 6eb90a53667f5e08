"""docs/prometheus-rules.yaml and docs/grafana-dashboard.json as tests need them: taken apart, and hurried up."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docs/prometheus-rules.yaml"
DASHBOARD = ROOT / "docs/grafana-dashboard.json"
# What a scrape adds to every series; `cluster` comes from external labels or a federation.
TARGET_LABELS = frozenset({"job", "instance", "node", "pod", "namespace", "cluster"})
# Metrics of others, with their labels: Prometheus' own and kube-state-metrics'.
FOREIGN = {"up": frozenset[str](), "kube_node_info": frozenset({"node"})}

_METRIC = re.compile(r"\b(node_hardening_\w+|up|kube_node_info)\b(\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def rules() -> dict[str, Any]:
    """The rules file."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every query of the dashboard by panel and letter, for all nodes, as Grafana would send it."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "1m")
        .replace("$__range", "1m")
        .replace("$node", ".*")
        for panel in panels()
        for target in panel["targets"]
    }


def metrics_of(query: str) -> dict[str, set[tuple[str, str, str]]]:
    """The metrics that a query asks for, each with its matchers as label, operator and value."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    for metric, braces in _METRIC.findall(query):
        found.setdefault(metric, set()).update(_MATCHER.findall(braces))
    return found


def grouped_by(query: str) -> set[str]:
    """The labels that a query groups, matches or joins on."""
    return {label.strip() for labels in _GROUPING.findall(query) for label in labels.split(",") if label.strip()}


def hurried(*, age_seconds: int) -> dict[str, Any]:
    """The rules for a test that does not wait: every `for` a second, every range half a minute, every age that given.

    What makes an alert one is left as it is: metrics, matchers, joins, thresholds of counts.
    """
    found = copy.deepcopy(rules())
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["for"] = "1s"
            rule["expr"] = re.sub(r"\[\d+[smhd]\]", "[30s]", rule["expr"])
            rule["expr"] = re.sub(r"\[\d+[smhd]:\d+[smhd]\]", "[10m:1s]", rule["expr"])
            rule["expr"] = re.sub(r"^(time\(\) - .*) > [\d* ]+$", rf"\1 > {age_seconds}", rule["expr"])
    return found
