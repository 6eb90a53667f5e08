"""What an operator types and reads while a node reboots: the plugin as kubectl runs it, and the alerts that fire."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser, run, session
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

    def type_at(self, moment: float, *words: str) -> str:
        """The same while the clock stands at that moment (epoch seconds), however long a busy machine needs."""
        options = parser(COMMANDS).parse_args([*words, "--kubeconfig", str(self.kubeconfig)])
        shown = io.StringIO()
        run(options, replace(session(options, {}), out=shown, err=shown, now=lambda: moment))
        return shown.getvalue()

    def row(self, node: str, moment: float | None = None) -> str:
        """The node's line of `status`."""
        shown = self.type("status") if moment is None else self.type_at(moment, "status")
        return next(line for line in shown.splitlines() if line.split()[:1] == [node])

    def why(self, node: str, moment: float | None = None) -> dict[str, Any]:
        """The first reason about the node's reboot: code, message, next steps."""
        words = ("why", node, "-o", "json")
        reasons = json.loads(self.type(*words) if moment is None else self.type_at(moment, *words))["reboot"]["reasons"]
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
