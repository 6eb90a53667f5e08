"""daemonset.yaml: what it says, what it grants; a real API server takes it and holds an agent to its own node."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import __version__
from agent.config import Config, load
from agent.controls.manifest import STATE_FOLDER
from agent.controls.registry import profile_kinds
from agent.host import sysctl_d
from agent.reboot.lock.pools import CONTROL_PLANE, WORKERS, lease_names
from tests.support import agents
from tests.support.agents import NAMESPACE, ROOT, SERVICE_ACCOUNT, Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.programs import needed

USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"

Right = tuple[str, str, str, str]


def why() -> dict[Right, str]:
    """Every right that docs/security.md explains: where, API group, resource, verb. One that is not there is one too
    many; `reporting` is exercised below, the others by the tests of reboots and of the kubelet's /configz."""
    table = re.search(
        r"^\| namespace .*\n\|[- |]+\|\n((?:\|.*\n)+)", (ROOT / "docs/security.md").read_text(), re.MULTILINE
    )
    assert table is not None
    found: dict[Right, str] = {}
    for line in table[1].splitlines():
        where, resource, verbs, what = (cell.strip() for cell in line.strip("|").split(" | "))
        plural, _, group = resource.strip("`").partition(".")
        role = "ClusterRole" if where == "all" else f"Role {where.strip('`')}"
        for verb in verbs.split(", "):
            assert (role, group, plural, verb) not in found
            found[role, group, plural, verb] = what
    return found


def one(kind: str, name: str = "") -> dict[str, Any]:
    """The manifest's object of that kind, and name where there are several."""
    (found,) = [item for item in agents.manifest() if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one("DaemonSet")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_profiles_in_it_are_those_that_ship() -> None:
    """`make manifest` was run after the last change of profiles/."""
    command = [sys.executable, str(ROOT / "tools/sync-manifest"), "--check"]
    assert subprocess.run(command, check=False, timeout=300).returncode == 0
    for kind in profile_kinds():
        shipped = {path.name: path.read_text() for path in (ROOT / "profiles" / kind).iterdir() if path.suffix != ".md"}
        assert one("ConfigMap", f"node-hardening-{kind}")["data"] == shipped


def test_the_policy_in_it_is_the_default_policy(tmp_path: Path) -> None:
    """As it stands, and with every comment taken away: what is offered there validates and is not a surprise."""
    text = one("ConfigMap", "node-hardening-config")["data"]["config.yaml"]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load(path) == Config()
    path.write_text(re.sub(r"^# ?", "", text, flags=re.MULTILINE))
    uncommented = load(path)
    assert uncommented.modprobe == Config().modprobe
    assert uncommented.reboot.drain == Config().reboot.drain
    assert uncommented.reboot.max_unavailable == Config().reboot.max_unavailable


def test_every_object_says_whose_it_is_and_lies_where_it_should() -> None:
    """One label finds everything at uninstall; the namespace is the one that RBAC and the policy name."""
    for item in agents.manifest():
        assert item["metadata"]["labels"]["app.kubernetes.io/name"] == "node-hardening-agent", item["metadata"]
        expected = {"default", "kube-node-lease", NAMESPACE} if item["kind"].startswith("Role") else {NAMESPACE}
        assert item["metadata"].get("namespace", NAMESPACE) in expected
    assert one("ServiceAccount")["metadata"]["name"] == SERVICE_ACCOUNT
    labels = one("Namespace")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"privileged"}


def test_the_daemon_runs_on_every_linux_node_before_anything_else() -> None:
    """Tolerates everything, critical, not held back by the pod network, rolls out gently."""
    spec = pod()
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert (spec["hostPID"], spec["hostNetwork"]) == (True, True)
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_environment_is_what_the_code_reads() -> None:
    """Node name, address and namespace by the downward API."""
    fields = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container()["env"]}
    assert fields == {"NODE_NAME": "spec.nodeName", "HOST_IP": "status.hostIP", "POD_NAMESPACE": "metadata.namespace"}


def test_probes_ask_where_the_agent_answers() -> None:
    """The port of metrics.address, and paths that are served."""
    (port,) = container()["ports"]
    assert Config().metrics.address.endswith(f":{port['containerPort']}")
    assert one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9105"
    paths = {name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_every_write_of_the_agent_meets_a_policy() -> None:
    """What its rights let it write, and what the policies look at, are the same but for the evictions, which admission
    cannot place (docs/security.md)."""
    writes = {(right[1], right[2]) for right, _ in granted() if right[3] in ("create", "patch", "update", "delete")}
    seen = set()
    for policy in (item for item in agents.manifest() if item["kind"] == "ValidatingAdmissionPolicy"):
        spec = policy["spec"]
        assert spec["failurePolicy"] == "Fail"
        assert [one["expression"] for one in spec["matchConditions"]] == [f'request.userInfo.username == "{USER}"']
        (bound,) = (
            item["spec"]
            for item in agents.manifest()
            if item["kind"] == "ValidatingAdmissionPolicyBinding"
            and item["spec"]["policyName"] == policy["metadata"]["name"]
        )
        assert bound["validationActions"] == ["Deny"]
        for rule in spec["matchConstraints"]["resourceRules"]:
            seen |= set(product(rule["apiGroups"], rule["resources"]))
    assert writes - seen == {("", "pods/eviction")}
    assert seen <= writes


def test_mounts_are_the_folders_that_the_code_uses() -> None:
    """The node read-only below the host root that the arguments name; writable only what the agent writes; profiles
    where the default policy looks for them."""
    config = Config()
    arguments = container()["args"]
    root = arguments[arguments.index("--host-root") + 1]
    assert arguments[arguments.index("--host-exec") + 1] == "nsenter"
    mounts = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    sources = {volume["name"]: volume for volume in pod()["volumes"]}
    assert mounts[root]["readOnly"] is True
    assert mounts[root]["mountPropagation"] == "HostToContainer"
    assert sources[mounts[root]["name"]]["hostPath"]["path"] == "/"
    writable = {path: mount for path, mount in mounts.items() if not mount.get("readOnly")}
    folders = (str(Path(config.modprobe.file).parent), sysctl_d.FOLDERS[0])
    wanted = {*folders, "/var/lib/kubelet/seccomp", STATE_FOLDER}
    assert set(writable) == {root + path for path in wanted} | {"/tmp"}
    for path in wanted:
        volume = sources[writable[root + path]["name"]]["hostPath"]
        assert volume == {"path": path, "type": "DirectoryOrCreate"}
    assert sources[mounts["/etc/node-hardening"]["name"]]["configMap"]["name"] == "node-hardening-config"
    for kind, folder in (("apparmor", config.apparmor.profiles), ("seccomp", config.seccomp.profiles)):
        assert folder in ("", f"/etc/node-hardening/{kind}")
        assert sources[mounts[f"/etc/node-hardening/{kind}"]["name"]]["configMap"]["name"] == f"node-hardening-{kind}"


def test_the_image_is_this_version() -> None:
    """Manifest, kustomization and package go together."""
    images = yaml.safe_load((ROOT / "kustomization.yaml").read_text())["images"]
    assert container()["image"] == f"node-hardening-agent:{__version__}"
    assert [item["newTag"] for item in images] == [__version__]


# -- what it grants ----------------------------------------------------------------------------------------------------


def granted() -> Iterator[tuple[Right, list[str]]]:
    """Every right with the names that it is restricted to."""
    for role in agents.manifest():
        if role["kind"] in ("Role", "ClusterRole"):
            where = " ".join(part for part in (role["kind"], role["metadata"].get("namespace", "")) if part)
            for rule in role["rules"]:
                for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
                    yield (where, group, resource, verb), rule.get("resourceNames", [])


def test_every_right_has_a_reason() -> None:
    """None is granted that the table does not explain, none is explained that is not granted, none with a star."""
    assert {right for right, _ in granted()} == set(why())
    assert "*" not in {part for right, _ in granted() for part in right}


def test_names_are_restricted_where_rbac_can() -> None:
    """The locks of the default policy, by the names that the code gives them, the pause and the rollout."""
    named = {(right[2], right[3]): names for right, names in granted() if names}
    locks = sorted([*lease_names(WORKERS, 1), *lease_names(CONTROL_PLANE, 1)])
    assert {key: sorted(names) for key, names in named.items()} == {
        ("leases", "get"): locks,
        ("leases", "patch"): locks,
        ("configmaps", "get"): ["node-hardening-pause", "node-hardening-rollout"],
    }


@pytest.mark.emulator_only
def test_reporting_uses_the_rights_that_it_has_and_no_others(
    api: ApiServer, client: Client, node: str, tmp_path: Path
) -> None:
    """The daemon hardens, reports, mends and reports again with daemonset.yaml's RBAC on: nothing is refused, and each
    right that reporting is said to need is seen in the API server's log."""
    agents.install(client)
    taint = [{"key": "node-hardening.io/not-hardened", "effect": "NoSchedule"}]
    client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": taint}})
    sandbox = api.sandbox
    assert sandbox is not None
    agent = Agent(api, client, node, tmp_path / node)
    with running(agent):
        eventually(lambda: agent.events("StartupTaintRemoved"), what="first report")
        for count in (1, 2):
            agent.root.write("/etc/modprobe.d/kubernetes-blacklist.conf", "# nothing is denied\n")
            eventually(lambda: [one["count"] for one in agent.events("DriftCorrected")] == [count], what="mended")  # noqa: B023
            agent.stop()
            passes = len(agent.logged("reconcile_completed"))
            agent.start()
            eventually(lambda: len(agent.logged("reconcile_completed")) > passes, what="a pass after the restart")  # noqa: B023
    sent = [one for one in sandbox.requests if f"({node})" in one.user_agent]
    assert {one.user for one in sent} == {USER}
    assert [(one.verb, one.path) for one in sent if one.status in (401, 403)] == []
    used = {(one.group, f"{one.resource}/{one.subresource}".rstrip("/"), one.verb) for one in sent}
    reports = {right[1:] for right, what in why().items() if what.startswith("reporting")}
    assert reports <= used <= reports | {("", "nodes", "get"), ("", "nodes", "list")}


# -- a real API server -------------------------------------------------------------------------------------------------


def kubectl(api: ApiServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl as the administrator."""
    config = api.kubeconfig(folder / "admin.kubeconfig")
    return subprocess.run(
        [needed("kubectl"), "--kubeconfig", str(config), *arguments],
        capture_output=True, text=True, timeout=120, check=False,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.real_only
def test_a_real_api_server_takes_all_of_it(api: ApiServer, client: Client, tmp_path: Path) -> None:
    """`kubectl apply --dry-run=server`: every object valid, no warning, no unknown field."""
    # In a dry run the namespace is not there for what lies in it.
    agents.install(client, ("Namespace",))
    done = kubectl(api, tmp_path, "apply", "--dry-run=server", "--validate=strict", "-f", "daemonset.yaml")
    # What other tests have created without kubectl is no warning about the manifest.
    warnings = [line for line in done.stderr.splitlines() if "last-applied-configuration" not in line]
    assert (done.returncode, warnings) == (0, [])
    assert len(done.stdout.splitlines()) == len(agents.manifest())


@pytest.fixture
def guarded(api: ApiServer, client: Client, unique: str) -> dict[str, Client]:
    """Nodes A and B with the admission policy in force, and clients: the agents of both, and one without a node."""
    agents.install(client, agents.ALL_BUT_THE_AGENT)
    nodes = {letter: f"{unique}-{letter}" for letter in "ab"}
    for name in nodes.values():
        assert client.post("/api/v1/nodes", {"metadata": {"name": name}}).status_code == 201
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    anywhere = client.post(path, body).json()["status"]["token"]
    made = {letter: api.client(agents.token(client, name)) for letter, name in nodes.items()}
    made["nowhere"] = api.client(anywhere)
    # The policy is compiled some time after it was stored.
    eventually(
        lambda: made["a"].patch(f"/api/v1/nodes/{nodes['b']}", {}, dryRun="All").status_code == 403,
        what="the admission policy in force",
    )
    return made


def test_an_agent_writes_its_own_node_and_no_other(guarded: dict[str, Client], client: Client, unique: str) -> None:
    """Metadata, spec and status; another node's is refused with a message that names both, a token without a node is
    refused everywhere, and nobody else notices."""
    spec = {"spec": {"unschedulable": True}}
    status = {"status": {"conditions": [{"type": "NodeHardened", "status": "True", "reason": "R", "message": "m"}]}}
    for body, sub, kind in ((spec, "", "merge"), (status, "/status", "strategic")):
        for node in ("a", "b"):
            path = f"/api/v1/nodes/{unique}-{node}{sub}"
            for who, made in guarded.items():
                answer = made.patch(path, body, kind)
                assert answer.status_code == (200 if who == node else 403), (who, path, answer.text)
                if who == "a" and node == "b":
                    assert f"agent of node {unique}-a may only touch its own node, not {unique}-b" in answer.text
                if who == "nowhere":
                    assert "of node (unknown)" in answer.text
            assert client.patch(path, body, kind).status_code == 200


def test_an_agent_deletes_pods_of_its_own_node_alone(
    guarded: dict[str, Client], client: Client, namespace: str, unique: str
) -> None:
    """A pod elsewhere, or nowhere yet, is refused; its own goes."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    for name, where in (("on-a", f"{unique}-a"), ("on-b", f"{unique}-b"), ("pending", "")):
        spec: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
        body = {"metadata": {"name": name}, "spec": {**spec, **({"nodeName": where} if where else {})}}
        answer = client.post(path, body)
        assert answer.status_code == 201, answer.text
    for who, pods in (("a", ("on-b", "pending")), ("nowhere", ("on-a", "on-b", "pending"))):
        for name in pods:
            answer = guarded[who].delete(f"{path}/{name}")
            assert answer.status_code == 403, (who, name)
            assert "may only touch its own node" in answer.text
    assert guarded["a"].delete(f"{path}/on-a").status_code == 200
    assert client.delete(f"{path}/pending").status_code == 200


def test_the_agent_reports_with_the_policy_in_force(
    guarded: dict[str, Client], api: ApiServer, client: Client, unique: str, tmp_path: Path
) -> None:
    """The whole report of a running daemon passes the policy that narrows it."""
    agent = Agent(api, client, f"{unique}-a", tmp_path / "a")
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened").get("status") == "True", what="condition")
        eventually(lambda: agent.events("NodeHardened"), what="event")


@pytest.mark.real_only
def test_events_on_pods_are_opt_in_and_of_one_reason(
    guarded: dict[str, Client], client: Client, namespace: str, unique: str
) -> None:
    """Without docs/denial-events.yaml RBAC refuses them; with it the policy refuses every other reason."""
    path = f"/api/v1/namespaces/{namespace}/events"
    ours = {"component": "node-hardening-agent", "host": f"{unique}-a"}

    def event(reason: str) -> dict[str, Any]:
        about = {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "namespace": namespace}
        return {
            "metadata": {"generateName": "web-0."}, "involvedObject": about, "reason": reason, "message": "m",
            "type": "Warning", "source": ours, "reportingComponent": ours["component"],
            "reportingInstance": ours["host"],
        }  # fmt: skip

    assert guarded["a"].post(path, event("ProfileDenied")).status_code == 403
    role, binding = yaml.safe_load_all((ROOT / "docs/denial-events.yaml").read_text())
    made = {"clusterroles": role, "clusterrolebindings": binding}
    for plural, body in made.items():
        assert client.post(f"/apis/rbac.authorization.k8s.io/v1/{plural}", body).status_code == 201
    try:
        eventually(lambda: guarded["a"].post(path, event("ProfileDenied")).status_code == 201, what="the right")
        assert "may only write Events" in guarded["a"].post(path, event("Rebooting")).text
    finally:
        for plural, body in made.items():
            client.delete(f"/apis/rbac.authorization.k8s.io/v1/{plural}/{body['metadata']['name']}")


# -- kustomize ---------------------------------------------------------------------------------------------------------


def kustomized(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [needed("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def _key(item: dict[str, Any]) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def test_the_kustomization_is_the_manifest() -> None:
    """`kubectl apply -k .` applies the same objects."""
    plain, built = ({_key(item): item for item in some} for some in (agents.manifest(), kustomized(ROOT)))
    assert built == plain
