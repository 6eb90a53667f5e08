"""How people and pods reach an API server in earnest: kubeconfigs, exec plugins as processes, service accounts; and
what the client costs a process that only has it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.host import Host
from agent.kube import NAMESPACES, Kube, Resource, find
from agent.kube.credentials import Impersonation, in_cluster
from agent.kube.errors import Forbidden, NoCredentials
from tests.support.apiservers import ApiServer
from tests.support.kube import authority_of

PLUGIN = """#!/bin/sh
echo asked >> {log}
test "$KUBERNETES_EXEC_INFO" || exit 3
cat <<END
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "$TOKEN"}}}}
END
"""


def test_a_kubeconfig_opens_the_door(api: ApiServer, tmp_path: Path) -> None:
    """The file that kubectl takes, by KUBECONFIG."""
    access = find({"KUBECONFIG": str(api.kubeconfig(tmp_path / "config"))})
    kube = Kube(access, node="worker-1")
    assert kube.get(NAMESPACES, "default")["metadata"]["name"] == "default"
    assert kube.source == f"context c of {tmp_path / 'config'}"
    kube.close()


def test_a_user_and_groups_are_impersonated(api: ApiServer, tmp_path: Path) -> None:
    """Each group arrives, so does a name beyond ASCII; one who may not impersonate is refused."""
    review = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    config = str(api.kubeconfig(tmp_path / "config"))
    kube = Kube(
        find({}, kubeconfig=config, impersonation=Impersonation("zo\u00eb", ("one", "system:masters"))), node="worker-1"
    )
    seen = kube.create(review, dict(body))["status"]["userInfo"]
    assert (seen["username"], {"one", "system:masters"} <= set(seen["groups"])) == ("zo\u00eb", True)
    kube.close()
    robot = Impersonation("system:serviceaccount:default:robot")
    kube = Kube(find({}, kubeconfig=config, impersonation=robot), node="worker-1")
    groups = kube.create(review, dict(body))["status"]["userInfo"]["groups"]
    assert set(groups) == {"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"}
    kube.close()
    kube = Kube(find({}, kubeconfig=config, impersonation=Impersonation("ada")), node="worker-1")
    with pytest.raises(Forbidden, match="ada"):
        kube.get(NAMESPACES, "default")
    kube.close()
    with pytest.raises(ConfigError, match="--as"):
        find({}, kubeconfig=config, impersonation=Impersonation("", ("one",)))


def test_a_service_account_opens_the_door(api: ApiServer, tmp_path: Path) -> None:
    """Environment and files as the kubelet gives them to a pod."""
    (tmp_path / "token").write_text(api.token)
    (tmp_path / "ca.crt").write_bytes(authority_of(api))
    host, _, port = api.url.removeprefix("https://").rpartition(":")
    kube = Kube(
        in_cluster({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, tmp_path), node="worker-1"
    )
    assert kube.get(NAMESPACES, "default")["metadata"]["name"] == "default"
    kube.close()


@pytest.mark.parametrize("works", [True, False])
def test_an_exec_plugin_runs_through_the_hosts_door(api: ApiServer, tmp_path: Path, works: bool) -> None:
    """A real program, started once for many calls; one that fails is named."""
    log, program = tmp_path / "log", tmp_path / "login"
    program.write_text(PLUGIN.format(log=log) if works else "#!/bin/sh\necho log in first >&2; exit 1\n")
    program.chmod(0o755)
    config = api.kubeconfig(tmp_path / "config")
    document = json.loads(config.read_text())
    document["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./login",
            "env": [{"name": "TOKEN", "value": api.token}],
            "interactiveMode": "Never",
        }
    }
    config.write_text(json.dumps(document))
    kube = Kube(find({"PATH": "/usr/bin:/bin"}, kubeconfig=str(config), runner=Host("/").run), node="worker-1")
    if works:
        for _ in range(3):
            kube.get(NAMESPACES, "default")
        assert log.read_text() == "asked\n"
    else:
        with pytest.raises(NoCredentials, match=r"login gave no credentials: exit code 1: log in first"):
            kube.get(NAMESPACES, "default")
    kube.close()


def test_a_daemon_in_its_pod_pays_for_nothing_that_people_need() -> None:
    """Every megabyte is paid for on every node: no YAML, no log, no metrics, no HTTP server comes with the client."""
    code = "import sys; import agent.kube; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    loaded = set(ran.stdout.split())
    unwanted = {"yaml", "structlog", "prometheus_client", "psutil", "http.server", "asyncio", "aiohttp", "subprocess"}
    assert loaded & (unwanted | {"agent.kube.kubeconfig", "agent.kube.execplugin", "agent.host"}) == set()
    assert "agent.kube.client" in loaded
