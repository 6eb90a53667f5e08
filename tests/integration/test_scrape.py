"""docs/prometheus-scrape.yaml and docs/podmonitor.yaml find the agents' pods and name their nodes.

Debian's Prometheus is built without Kubernetes discovery: what that would say of a pod is said by hand here, after
https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod; the relabelling is real.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from tests.support.agents import NAMESPACE, ROOT, eventually, manifest
from tests.support.daemons import get, program, prometheus
from tests.support.kube import answer, scripted

SCRAPE = yaml.safe_load((ROOT / "docs/prometheus-scrape.yaml").read_text())
POD_MONITOR = yaml.safe_load((ROOT / "docs/podmonitor.yaml").read_text())


def template() -> dict[str, Any]:
    """What daemonset.yaml makes pods from."""
    (found,) = [one for one in manifest() if one["kind"] == "DaemonSet"]
    return dict(found["spec"]["template"])


def discovered(name: str, node: str, at: str, port_name: str) -> dict[str, Any]:
    """One port of a pod, as Prometheus' discovery describes it."""
    about = {
        "namespace": NAMESPACE,
        "pod_name": name,
        "pod_node_name": node,
        "pod_container_port_name": port_name,
        "pod_ip": "127.0.0.1",
    }
    return {"targets": [at], "labels": {f"__meta_kubernetes_{key}": value for key, value in about.items()}}


def targets(url: str) -> list[dict[str, Any]]:
    """What Prometheus scrapes now."""
    found: list[dict[str, Any]] = get(f"{url}/api/v1/targets", state="active").json()["data"]["activeTargets"]
    return found


def test_a_real_prometheus_names_the_nodes(tmp_path: Path) -> None:
    """One target an agent, with node, pod, namespace and the job that alerts look for; other ports are left alone."""
    path = program("prometheus", "prometheus")

    def metrics(request: BaseHTTPRequestHandler) -> None:
        answer(request, b"node_hardening_hardened 1\n", Content_Type="text/plain")

    with scripted(metrics) as served:
        at = served.url.removeprefix("http://")
        (job,) = SCRAPE["scrape_configs"]
        found = [
            discovered("agent-a", "node-a", at, "metrics"),
            discovered("agent-b", "node-b", at, "metrics"),
            discovered("agent-b", "node-b", "127.0.0.1:1", "another"),
        ]
        quick = {"scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": found}
        here = {key: value for key, value in job.items() if key != "kubernetes_sd_configs"} | quick
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [here]}))
        with prometheus(path, tmp_path) as (url, _):

            def are_up() -> list[dict[str, Any]]:
                active = targets(url)
                return active if active and all(one["health"] == "up" for one in active) else []

            labels = [one["labels"] for one in eventually(are_up, what="targets that are up", seconds=60.0)]
    assert sorted((one["node"], one["pod"], one["namespace"], one["job"]) for one in labels) == [
        ("node-a", "agent-a", NAMESPACE, "node-hardening-agent"),
        ("node-b", "agent-b", NAMESPACE, "node-hardening-agent"),
    ]


def test_the_agents_pods_are_asked_for() -> None:
    """By namespace and label as daemonset.yaml has them."""
    (job,) = SCRAPE["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    assert (discovery["role"], discovery["namespaces"]["names"]) == ("pod", [NAMESPACE])
    (selector,) = discovery["selectors"]
    key, _, value = selector["label"].partition("=")
    assert (selector["role"], template()["metadata"]["labels"][key]) == ("pod", value)


def test_the_pod_monitor_asks_for_the_same() -> None:
    """The same pods by label, the port by its name in daemonset.yaml, and the label `node`."""
    made = template()
    spec = POD_MONITOR["spec"]
    assert POD_MONITOR["metadata"]["namespace"] == NAMESPACE
    assert spec["selector"]["matchLabels"].items() <= made["metadata"]["labels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    (container,) = made["spec"]["containers"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    (relabeling,) = endpoint["relabelings"]
    (job,) = SCRAPE["scrape_configs"]
    same = [one for one in job["relabel_configs"] if one.get("target_label") == relabeling["targetLabel"]]
    assert (
        [one["source_labels"] for one in same] == [relabeling["sourceLabels"]] == [["__meta_kubernetes_pod_node_name"]]
    )
