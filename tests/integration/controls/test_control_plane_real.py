"""The control-plane control on a real kube-apiserver and etcd, and what the agent asks of an API server."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
import yaml

from agent.errors import KubeError
from agent.kube.access import find
from agent.kube.client import Kube
from agent.kube.credentials import Trust
from agent.kube.questions import Questions
from agent.model import Status
from tests.support.access import direct
from tests.support.agents import eventually
from tests.support.apiservers import ApiServer, Client, make_certificates
from tests.support.control_planes import ControlPlane, answering, server_context

PASS, FAIL, INFO = Status.PASS, Status.FAIL, Status.INFO


def _pid(word: str) -> int:
    """Of the process that has this word among its arguments."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                return int(entry.name)
        except OSError:
            continue
    raise LookupError(word)


@pytest.mark.real_only
def test_a_real_control_plane_comes_out_as_it_is(api: ApiServer, tmp_path: Path) -> None:
    """Anonymous on behind RBAC alone, static tokens, no Node authorizer, etcd in the clear; defaults of 1.36."""
    node = ControlPlane(tmp_path / "node")
    server = _pid(f"--secure-port={urlsplit(api.url).port}")
    words = Path(f"/proc/{server}/cmdline").read_text().split("\0")
    etcd = next(word.partition("=")[2] for word in words if word.startswith("--etcd-servers="))
    node.show(server)
    node.show(_pid(f"--listen-client-urls={etcd}"))
    begun = time.process_time()
    found = node.audit()
    assert time.process_time() - begun < 2
    expected = {
        "apiserver/anonymous": FAIL, "apiserver/anonymous-live": INFO, "apiserver/always-allow": PASS,
        "apiserver/authorizer-rbac": PASS, "apiserver/authorizer-node": FAIL, "apiserver/token-file": FAIL,
        "apiserver/service-account": FAIL, "apiserver/etcd": FAIL, "apiserver/audit": FAIL,
        "apiserver/audit-maxage": PASS, "apiserver/encryption": FAIL, "apiserver/profiling": FAIL,
        "apiserver/tls-minimum": PASS, "etcd/tls": FAIL, "etcd/client-certificates": FAIL, "etcd/peer-tls": FAIL,
        "etcd/pprof": PASS, "apiserver/supported": PASS, "scheduler/process": Status.NOT_APPLICABLE,
    }  # fmt: skip
    assert {id_: found[id_].status for id_ in expected} == expected, [found[id_].observed for id_ in expected]
    assert "in the clear: HTTP 200" in found["etcd/tls"].observed
    assert found["etcd/supported"].observed.startswith("3.")


def _questions(api: ApiServer, folder: Path, token: str = "") -> Questions:
    access = find({}, kubeconfig=str(api.kubeconfig(folder / "kubeconfig", token)))
    return Questions(Kube(access, node="n1"), access, "n1", clock=time.monotonic)


def _port(api: ApiServer) -> int:
    return urlsplit(api.url).port or 0


@pytest.mark.real_only
def test_flags_are_read_with_the_opt_in_right_alone(
    api: ApiServer, client: Client, unique: str, tmp_path: Path
) -> None:
    """By a service account, as an agent is one."""
    account = {"metadata": {"name": unique}}
    assert client.post("/api/v1/namespaces/default/serviceaccounts", account).ok
    made = client.post(f"/api/v1/namespaces/default/serviceaccounts/{unique}/token", {"spec": {}})
    token = made.json()["status"]["token"]
    assert _questions(api, tmp_path, token).flags("127.0.0.1", _port(api), "1") == {}
    role, binding = yaml.safe_load_all(Path("docs/flagz.yaml").read_text())
    binding["subjects"][0] |= {"name": unique, "namespace": "default"}
    objects = {"clusterroles": role, "clusterrolebindings": binding}
    for plural, body in objects.items():
        assert client.post(f"/apis/rbac.authorization.k8s.io/v1/{plural}", body).ok
    try:
        flags = eventually(lambda: _questions(api, tmp_path, token).flags("127.0.0.1", _port(api), "1"), what="flags")
    finally:
        for plural, body in objects.items():
            client.delete(f"/apis/rbac.authorization.k8s.io/v1/{plural}/{body['metadata']['name']}")
        client.delete(f"/api/v1/namespaces/default/serviceaccounts/{unique}")
    assert len(flags) > 150
    assert (flags["authorization-mode"], flags["audit-log-maxage"]) == ("[RBAC]", "366")
    # Lists in brackets, those that count as text here among them; what is unset.
    assert flags["service-account-key-file"].startswith("[/")
    assert (flags["etcd-servers-overrides"], flags["feature-gates"], flags["token-auth-file"][:1]) == ("[]", "", "/")
    node = ControlPlane(tmp_path / "node")
    node.show(_pid(f"--secure-port={_port(api)}"))
    without, found = node.audit(), node.audit(flags=_questions(api, tmp_path).flags)
    assert {id_: one.status for id_, one in found.items()} == {id_: one.status for id_, one in without.items()}
    assert "flagz" in found["apiserver/authorizer-rbac"].source


@pytest.mark.parametrize("authority", ["another", "insecure"])
def test_the_token_goes_to_none_who_is_not_the_clusters_own(tmp_path: Path, authority: str) -> None:
    asked: list[str | None] = []
    own = make_certificates(tmp_path)
    paths = {"/flagz": (200, '{"flags": {"profiling": "false"}}')}
    with answering(paths, context=server_context(), seen=asked) as port:
        access = direct(f"https://127.0.0.1:{port}", token="secret", authority=own.ca.read_bytes())
        if authority == "insecure":
            access = replace(access, trust=Trust(insecure=True))
        questions = Questions(Kube(access, node="n1"), access, "n1", clock=time.monotonic)
        assert questions.flags("127.0.0.1", port, "1") == {}
    assert asked == []


@pytest.mark.parametrize("refusal", [403, 404, 406])
def test_a_refused_flagz_is_asked_for_again_within_an_hour_and_not_at_each_pass(refusal: int) -> None:
    """The right may be granted, or the feature enabled, while the agent and this API server run."""
    asked: list[str | None] = []
    authority, context, now = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [1000.0]
    authority.issue_cert("127.0.0.1").configure_cert(context)
    paths = {"/flagz": (refusal, "{}")}
    with answering(paths, context=context, seen=asked) as port:
        access = direct(f"https://127.0.0.1:{port}", token="secret", authority=authority.cert_pem.bytes())
        questions = Questions(Kube(access, node="n1"), access, "n1", clock=lambda: now[0])
        for _ in range(5):
            assert questions.flags("127.0.0.1", port, "1") == {}
            now[0] += 60
        assert len(asked) == 1
        paths["/flagz"] = (200, '{"flags": {"profiling": "false"}}')
        now[0] += 3600
        assert questions.flags("127.0.0.1", port, "1") == {"profiling": "false"}


def test_a_made_up_verb_is_allowed_to_who_may_do_everything(api: ApiServer, tmp_path: Path) -> None:
    assert _questions(api, tmp_path).allows_anything() is True


def test_versions_come_from_the_server_and_the_node(api: ApiServer, client: Client, tmp_path: Path) -> None:
    client.delete("/api/v1/nodes/n1")
    questions = _questions(api, tmp_path)
    with pytest.raises(KubeError):
        questions.versions()
    info = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "operatingSystem",
         "architecture", "kubeProxyVersion"), "x",
    )  # fmt: skip
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    assert client.post("/api/v1/nodes", node).ok
    patch = {"status": {"nodeInfo": {**info, "kubeletVersion": "v1.35.1"}}}
    assert client.patch("/api/v1/nodes/n1/status", patch).ok
    with pytest.raises(KubeError):  # the refusal is kept for a while: no request for each pass
        questions.versions()
    found = _questions(api, tmp_path).versions()
    assert found is not None
    assert (found[0][:3], found[1]) == ("v1.", "v1.35.1")
    client.delete("/api/v1/nodes/n1")


def test_an_api_server_that_is_away_is_no_property_of_the_node(api: ApiServer, tmp_path: Path) -> None:
    gone = ApiServer("https://127.0.0.1:1", api.token, api.ca)
    assert _questions(gone, tmp_path).allows_anything() is None
    assert _questions(gone, tmp_path).versions() is None
