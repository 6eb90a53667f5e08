"""The API server that machines report to, on this host's loopback, over https; 10.0.2.2 from inside.

It is the emulator, or a real kube-apiserver when KUBEBUILDER_ASSETS names one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from agent.sandbox import builders
from agent.sandbox.settings import KubeletSettings
from tests.support import agents, apiservers
from tests.support.apiservers import ApiServer, Client
from tests.support.hands import Hands
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import EVERYTHING_OFF, POLICY, PROGRAM

T = TypeVar("T")

_HOST = "10.0.2.2"
_FOLDER = "/etc/node-hardening/cluster"
UNIT = "node-hardening-agent.service"
# What the DaemonSet does on a cluster: started at boot, started again when it dies, ended by SIGTERM.
_SERVICE = f"""[Unit]
Description=Node hardening agent
After=network.target

[Service]
Environment=KUBECONFIG={_FOLDER}/kubeconfig NODE_NAME=%H
ExecStart={PROGRAM} run --log-format json --log-level debug
Restart=always
RestartSec=1
StandardOutput=append:/var/log/agent.log
StandardError=append:/var/log/agent.log

[Install]
WantedBy=multi-user.target
"""


def eventually(look: Callable[[], T], *, what: str, seconds: float = 240.0, every_seconds: float = 0.3) -> T:
    """The first true answer; a translated machine on shared cores is slow, and nothing here measures."""
    return agents.eventually(look, what=what, seconds=seconds, every_seconds=every_seconds)


class Speaker(Protocol):
    """Who speaks for the machines' kubelets: the emulator, or Hands beside a kube-apiserver."""

    def add_node(self, name: str, /) -> Any:
        """A Node that is Ready."""

    def set_boot_id(self, node: str, boot_id: str, /) -> Any:
        """The kubelet says another boot id."""

    def start_kubelet(self, node: str, /) -> None:
        """Heartbeats, and Ready."""

    def stop_kubelet(self, node: str, /) -> None:
        """No heartbeat any more."""


class ClusterOfMachines:
    """The API server, and what a person sees in it."""

    def __init__(self, api: ApiServer, client: Client, speaker: Speaker) -> None:
        self.api = api
        self.client = client
        self.speaker = speaker
        agents.install(client)

    def join(self, machine: Machine, policy: Mapping[str, Any]) -> None:
        """Makes the machine a node: its Node, a token of the agent's service account, the agent as a service."""
        self.speaker.add_node(machine.name)
        self.speaker.set_boot_id(machine.name, str(machine.boot))
        assert self.api.ca is not None
        machine.put(f"{_FOLDER}/ca.crt", self.api.ca.read_bytes())
        machine.put(f"{_FOLDER}/token", agents.token(self.client, machine.name), 0o600)
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": self.api.url.replace("127.0.0.1", _HOST), "certificate-authority": f"{_FOLDER}/ca.crt",
            }}],
            "users": [{"name": "u", "user": {"tokenFile": f"{_FOLDER}/token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        machine.put(f"{_FOLDER}/kubeconfig", json.dumps(document), 0o600)
        machine.put(POLICY, yaml.safe_dump({**EVERYTHING_OFF, **policy}))
        machine.put(f"/etc/systemd/system/{UNIT}", _SERVICE)
        machine.sh(f"systemctl daemon-reload; systemctl enable -q {UNIT}; sync; systemctl start {UNIT}")

    def publish(self, policy: str) -> None:
        """The policy as the ConfigMap, which the plugin reads; the machines have files of their own."""
        agents.publish(self.client, policy)

    def node(self, name: str) -> dict[str, Any]:
        """The Node."""
        answer = self.client.get(f"/api/v1/nodes/{name}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def annotation(self, name: str, key: str) -> str:
        """One of our annotations, empty when it is not there."""
        return str(self.node(name)["metadata"].get("annotations", {}).get(f"node-hardening.io/{key}", ""))

    def condition(self, name: str, kind: str) -> dict[str, str]:
        """One condition, empty when it is not there."""
        conditions = self.node(name)["status"].get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def events(self, name: str, reason: str) -> list[dict[str, Any]]:
        """Events about that node."""
        query = f"involvedObject.name={name},reason={reason}"
        items: list[dict[str, Any]] = self.client.get("/api/v1/events", fieldSelector=query).json()["items"]
        return items


@contextmanager
def cluster(folder: Path, *, replicas: int = 0) -> Iterator[ClusterOfMachines]:
    """One of its own, without nodes. replicas: so many pods of a workload run on the nodes that are joined."""
    assets = apiservers.assets()
    if assets is None:
        settings = {"controllers": True, "kubelet": KubeletSettings(heartbeat_seconds=2.0)}
        with apiservers.emulator(folder, settings, _HOST) as api, closing(api.client()) as client:
            assert api.sandbox is not None
            if replicas:
                web = builders.workload("ReplicaSet", "web", replicas=replicas, grace_seconds=2)
                api.sandbox.create("replicasets", web)
                api.sandbox.create("daemonsets", builders.workload("DaemonSet", "logs"))
            yield ClusterOfMachines(api, client, api.sandbox)
        return
    with apiservers.control_plane(assets, folder, _HOST) as api, closing(api.client()) as client, Hands(api) as hands:
        if replicas:
            hands.add_web(replicas)
        yield ClusterOfMachines(api, client, hands)
