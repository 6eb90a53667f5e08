"""The agent as a process: a sandboxed node, daemonset.yaml's own rights, and what a person would look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

from agent.controls.registry import profile_kinds
from agent.sandbox.noderoot import NodeRoot
from tests.support.apiservers import ApiServer, Client

ROOT = Path(__file__).resolve().parents[2]
SERVICE_ACCOUNT = "node-hardening-agent"
NAMESPACE = "node-hardening"
PATIENCE_SECONDS = 240.0  # a bound for what never comes; no test measures with it

T = TypeVar("T")

_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}
_RIGHTS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
ADMISSION = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
ALL_BUT_THE_AGENT = (*_RIGHTS, *ADMISSION)


def eventually(
    look: Callable[[], T], *, what: str, seconds: float = PATIENCE_SECONDS, every_seconds: float = 0.05
) -> T:
    """The first true answer. Fails with the last one when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s, last seen: {seen!r}"
        time.sleep(every_seconds)


def manifest() -> list[dict[str, Any]]:
    """Every object of daemonset.yaml."""
    return [one for one in yaml.safe_load_all((ROOT / "daemonset.yaml").read_text()) if one]


def install(client: Client, kinds: tuple[str, ...] = _RIGHTS) -> None:
    """Creates the manifest's objects of these kinds; what is there already stays."""
    for one in manifest():
        if one["kind"] in kinds:
            path = _PATHS[one["kind"]].format(namespace=one["metadata"].get("namespace", ""))
            answer = client.post(path, one)
            assert answer.status_code in (201, 409), answer.text


def publish(client: Client, policy: str) -> None:
    """Creates or replaces the ConfigMap of the agents' policy, which the plugin reads."""
    folder = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    body = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": policy}}
    answer = client.post(folder, body)
    if answer.status_code == 409:
        answer = client.patch(f"{folder}/node-hardening-config", {"data": body["data"]})
    assert answer.status_code in (200, 201), answer.text


def remove_admission(client: Client) -> None:
    """Removes the manifest's admission policies, where they are, and returns when none is in force any more.

    They live in the whole server, and the next test's agents are others'. The bindings go in the manifest's order, and
    a server sees them go in that order: when the last one, about Events, refuses nothing, none does.
    """
    for kind in reversed(ADMISSION):
        held = {one["metadata"]["name"] for one in client.get(_PATHS[kind]).json()["items"]}
        names = [one["metadata"]["name"] for one in manifest() if one["kind"] == kind]
        for name in (name for name in names if name in held):
            assert client.delete(f"{_PATHS[kind]}/{name}").status_code == 200
        if kind == "ValidatingAdmissionPolicyBinding" and held.intersection(names):
            eventually(lambda: _writes_any_event(client), what="the admission policies out of force")


def _writes_any_event(client: Client) -> bool:
    """Whether the agent's account, with an administrator's rights, may write an Event that is not about its node."""
    account = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
    headers = {"Impersonate-User": account, "Impersonate-Group": "system:masters"}
    body = {"metadata": {"generateName": "e-"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}
    path = "/api/v1/namespaces/default/events"
    answer = client.request("POST", path, json=body, headers=headers, params={"dryRun": "All"})
    assert answer.status_code in (201, 403), answer.text
    return answer.status_code == 201


def token(client: Client, node: str) -> str:
    """A service account token as the kubelet gives it to the agent's pod on that node."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}/token"
    uid = client.get(f"/api/v1/nodes/{node}").json()["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"boundObjectRef": reference, "expirationSeconds": 3600, "audiences": []},
    }
    answer = client.post(path, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["status"]["token"])


@dataclass
class Agent:
    """One running agent and its node. `config` holds keys of the policy beside those that every test wants."""

    api: ApiServer
    client: Client
    node: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.root = NodeRoot.make(self.folder / "root", self.node)
        self.profiles = self.folder / "profiles"
        for kind in profile_kinds():
            (self.profiles / kind).mkdir(parents=True)
        self.policy = self.folder / "config.yaml"
        self.log = self.folder / "agent.log"
        self.token_file = self.folder / "token"
        self.write_policy()
        self.token_file.write_text(token(self.client, self.node))
        kubeconfig = json.loads(self.api.kubeconfig(self.folder / "kubeconfig").read_text())
        kubeconfig["users"][0]["user"] = {"tokenFile": str(self.token_file)}
        (self.folder / "kubeconfig").write_text(json.dumps(kubeconfig))

    def write_policy(self, **keys: Any) -> None:
        """Replaces the policy as the kubelet replaces a ConfigMap's file: in one step."""
        base = {
            "metrics": {"address": f"127.0.0.1:{self.port}"},
            "kubelet": {"probe": False},
            "version": {"mode": "off"},  # depends on the calendar
            **{kind: {"profiles": str(self.profiles / kind)} for kind in profile_kinds()},
            "reboot": {"mode": "off"},
        }
        self.replace(self.policy, yaml.safe_dump({**base, **self.config, **keys}))

    def replace(self, path: Path, text: str) -> None:
        """Writes beside and renames."""
        (path.parent / f".{path.name}.new").write_text(text)
        (path.parent / f".{path.name}.new").rename(path)

    def start(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process; it is not waited for."""
        assert self.process is None
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "agent", "run", "--host-root", str(self.root.path), "--node-name", self.node,
                    "--config", str(self.policy), "--log-level", "debug", "--log-format", "json",
                ],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "KUBECONFIG": str(self.folder / "kubeconfig"), **(environment or {})},
                stdout=sink, stderr=sink,
            )  # fmt: skip

    def stop(self, sign: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        """Ends the process and answers its exit code."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(sign)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def signal(self, sign: signal.Signals) -> None:
        """Sends a signal to the running process."""
        assert self.process is not None
        self.process.send_signal(sign)

    @property
    def is_running(self) -> bool:
        """Whether the process that was started is still there."""
        return self.process is not None and self.process.poll() is None

    def lines(self) -> list[dict[str, Any]]:
        """The log, a dictionary a line; anything else in it is a traceback and fails the test."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    # -- what people look at ---------------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        """The Node."""
        answer = self.client.get(f"/api/v1/nodes/{self.node}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def annotation(self, name: str) -> str | None:
        """One of our annotations."""
        value: str | None = self.shown()["metadata"].get("annotations", {}).get(f"node-hardening.io/{name}")
        return value

    def condition(self, kind: str) -> dict[str, str]:
        """One condition, empty when it is not there."""
        conditions = self.shown()["status"].get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Events about this node with that reason."""
        query = f"involvedObject.name={self.node},reason={reason}"
        items: list[dict[str, Any]] = self.client.get("/api/v1/events", fieldSelector=query).json()["items"]
        return items

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels."""
        text = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=300).text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def probe(self, path: str) -> int:
        """The status of /healthz or /readyz; 0 when nothing answers."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=300).status_code
        except requests.ConnectionError:
            return 0


@contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    """The agent started, and ended afterwards however the test ends. A failed test shows the end of its log."""
    agent.start()
    try:
        yield agent
    except BaseException:
        sys.stderr.write(agent.log.read_text()[-6000:])
        raise
    finally:
        if agent.process is not None:
            agent.stop()
