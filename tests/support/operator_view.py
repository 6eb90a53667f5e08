"""What an operator types and reads while a node reboots: the plugin as kubectl runs it, and the alerts that fire."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import alerts
from tests.support.daemons import get, program, prometheus

_PLUGIN = Path(sys.executable).parent / "kubectl-node_hardening"


@dataclass(frozen=True, slots=True)
class Operator:
    """kubeconfig: an administrator's. prometheus_url: of a Prometheus that scrapes the agents."""

    kubeconfig: Path
    prometheus_url: str = ""

    def type(self, *words: str) -> str:
        """What `kubectl node-hardening WORDS` shows on a terminal, whatever its exit code."""
        argv = [str(_PLUGIN), *words, "--kubeconfig", str(self.kubeconfig)]
        return subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
        ).stdout

    def row(self, node: str) -> str:
        """The node's line of `status`."""
        return next(line for line in self.type("status").splitlines() if line.split()[:1] == [node])

    def why(self, node: str) -> dict[str, Any]:
        """The first reason about the node's reboot: code, message, next steps."""
        reasons = json.loads(self.type("why", node, "-o", "json"))["reboot"]["reasons"]
        found: dict[str, Any] = reasons[0] if reasons else {"code": "", "message": "", "next": []}
        return found

    def query(self, query: str) -> list[dict[str, Any]]:
        """Prometheus' samples of an instant query."""
        found: list[dict[str, Any]] = get(f"{self.prometheus_url}/api/v1/query", query=query).json()["data"]["result"]
        return found

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """The alerts of that name that fire now."""
        every = get(f"{self.prometheus_url}/api/v1/alerts").json()["data"]["alerts"]
        return [one for one in every if one["labels"]["alertname"] == name and one["state"] == "firing"]


@contextmanager
def operator(kubeconfig: Path, folder: Path, ports: Mapping[str, int]) -> Iterator[Operator]:
    """An operator with a Prometheus that scrapes often and hurries the shipped rules. ports: by node."""
    scraped = [{"targets": [f"127.0.0.1:{port}"], "labels": {"node": name}} for name, port in ports.items()]
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "node-hardening-agent", "static_configs": scraped}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (folder / "rules.yaml").write_text(yaml.safe_dump(alerts.hurried(age_seconds=20)))
    with prometheus(program("prometheus", "prometheus"), folder) as (url, _):
        yield Operator(kubeconfig, url)
