"""`audit --cluster` on the emulator and a real kube-apiserver: what it finds, what it may not read, what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from agent.plugin.audit import checks_rbac
from agent.plugin.audit.audit import CHECKS
from agent.plugin.commands import COMMANDS
from agent.plugin.main import main, parser
from agent.sandbox.server import Sandbox
from tests.support import apiservers
from tests.support.apiservers import ApiServer, Client
from tests.support.crowded_cluster import fill
from tests.support.kube import answer, scripted
from tests.support.plugin_fleet import SCENES
from tests.support.plugin_screen import Screen, emulator
from tests.support.typed import Person

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUDITOR = Path(__file__).resolve().parents[2] / "docs" / "rbac-auditor.yaml"
Object = dict[str, Any]
NOW = 1_800_000_000.0  # 2027-01-15


@pytest.fixture(autouse=True)
def rights(client: Client) -> Iterator[None]:
    """Rights for everyone end with the test: other files' tests share the API server."""
    paths = (f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings")

    def there() -> set[str]:
        return {f"{path}/{one['metadata']['name']}" for path in paths for one in client.get(path).json()["items"]}

    before = there()
    yield
    for path in there() - before:
        client.delete(path)


def audited(api: ApiServer, *options: str, token: str = "") -> dict[str, Object]:
    """The findings by id."""
    typed = Person(api, token=token).types("audit", "--cluster", "-o", "json", *options)
    assert typed.error == ""
    found = json.loads(typed.out)["findings"]
    return {one["id"].removeprefix("cluster/"): one for one in found}


def names(finding: Mapping[str, Any]) -> set[str]:
    """The objects behind a finding, `Kind name`."""
    return {f"{one['kind']} {one['name']}" for one in finding["affected"]}


def put(client: Client, path: str, body: Object) -> None:
    answer = client.post(path, body)
    assert answer.status_code in (201, 409), answer.text


def pod(name: str, spec: Object, **labels: str) -> Object:
    """A pod as users write it; the API server fills in the rest."""
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "x"}], **spec},
    }


def bind(client: Client, name: str, rules: list[Object], subject: Object, namespace: str = "") -> None:
    """A role of that name, bound to the subject."""
    kind = "Role" if namespace else "ClusterRole"
    where = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
    put(client, f"{where}/{kind.lower()}s", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    put(client, f"{where}/{kind.lower()}bindings", body)


def user(name: str, kind: str = "User") -> Object:
    return {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def rule(resources: list[str], verbs: list[str], group: str = "") -> list[Object]:
    return [{"apiGroups": [group], "resources": resources, "verbs": verbs}]


# -- who may do what ---------------------------------------------------------------------------------------------------

_POWERS: list[tuple[str, list[Object]]] = [
    ("cluster-admin", rule(["*"], ["*"], "*")),
    ("secrets-readers", rule(["secrets"], ["list"])),
    ("wildcards", rule(["configmaps"], ["*"])),
    ("create-workloads", rule(["cronjobs"], ["create"], "batch")),
    ("kube-pods", rule(["deployments"], ["create"], "apps")),
    ("escalation", rule(["users"], ["impersonate"])),
    ("escalation", rule(["clusterroles"], ["bind"], "rbac.authorization.k8s.io")),
    ("persistent-volumes", rule(["persistentvolumes"], ["create"])),
    ("node-proxy", rule(["nodes/proxy"], ["get"])),
    ("node-proxy", rule(["*/proxy"], ["get"])),
    ("certificate-approval", rule(["certificatesigningrequests/approval"], ["update"], "certificates.k8s.io")),
    ("webhook-writers", rule(["mutatingwebhookconfigurations"], ["patch"], "admissionregistration.k8s.io")),
    ("token-creation", rule(["serviceaccounts/token"], ["create"])),
    ("exec", rule(["pods/exec"], ["create"])),
    ("groups", rule(["pods"], ["get"])),
]


@pytest.mark.parametrize(("check", "rules"), _POWERS, ids=[name for name, _ in _POWERS])
def test_a_binding_with_the_power_is_found_and_without_it_is_not(
    api: ApiServer, client: Client, unique: str, check: str, rules: list[Object]
) -> None:
    """Each check of RBAC, by a role that has exactly the one right, and one that may only read ConfigMaps."""
    bind(client, unique, rules, user("alice"))
    bind(client, f"{unique}-harmless", rule(["configmaps"], ["get"]), user("readers", "Group"))
    found = audited(api)
    assert found[check]["status"] == "fail"
    assert f"ClusterRoleBinding {unique}" in names(found[check])
    assert all(f"ClusterRoleBinding {unique}-harmless" not in names(one) for one in found.values())


@pytest.mark.parametrize("who", ["system:anonymous", "system:unauthenticated", "system:authenticated"])
def test_a_right_for_everyone_is_critical(api: ApiServer, client: Client, unique: str, who: str) -> None:
    """By what the role lets, whatever it is called; the bindings of every cluster are not findings."""
    before = audited(api)["anonymous"]
    bind(client, f"system:public-info-{unique}", rule(["configmaps"], ["list"]),
         user(who, "User" if who == "system:anonymous" else "Group"))  # fmt: skip
    after = audited(api)["anonymous"]
    assert (after["status"], after["severity"]) == ("fail", "critical")
    assert names(after) - names(before) == {f"ClusterRoleBinding system:public-info-{unique}"}


def test_a_role_in_one_namespace_is_no_cluster_wide_right(api: ApiServer, client: Client, namespace: str) -> None:
    """Teams create pods and read Secrets in their own namespaces; in kube-system that is a finding."""
    rules = [*rule(["secrets"], ["get"]), *rule(["pods"], ["create"])]
    bind(client, "team", rules, user("team", "Group"), namespace)
    found = audited(api)
    assert "RoleBinding team" not in names(found["secrets-readers"]) | names(found["create-workloads"])
    put(client, "/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
    bind(client, namespace, rules, user("team", "Group"), "kube-system")
    found = audited(api)
    assert f"RoleBinding {namespace}" in names(found["secrets-readers"]) & names(found["kube-pods"])


def test_a_service_account_that_is_not_there_has_a_dangling_binding(
    api: ApiServer, client: Client, namespace: str
) -> None:
    """Also where the subject is written as the user that the account authenticates as."""
    put(client, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "here"}})
    for name in ("here", "gone"):
        bind(client, name, rule(["pods"], ["get"]), user(f"system:serviceaccount:{namespace}:{name}"), namespace)
    found = audited(api, "-n", namespace)
    assert names(found["dangling-bindings"]) == {"RoleBinding gone"}


# -- pods and namespaces -----------------------------------------------------------------------------------------------

_FIELDS: list[tuple[str, Object]] = [
    ("privileged", {"containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]}),
    ("privileged", {"initContainers": [{"name": "i", "image": "x", "securityContext": {"privileged": True}}]}),
    ("host-pid", {"hostPID": True}),
    ("host-ipc", {"hostIPC": True}),
    ("host-network", {"hostNetwork": True}),
    ("privilege-escalation", {}),
    ("root", {}),
    ("root", {"securityContext": {"runAsNonRoot": True},
              "containers": [{"name": "c", "image": "x", "securityContext": {"runAsNonRoot": False}}]}),
    ("net-raw", {}),
    ("capabilities", {"containers": [
        {"name": "c", "image": "x", "securityContext": {"capabilities": {"add": ["SYS_TIME"], "drop": ["ALL"]}}}]}),
    ("drop-all", {}),
    ("drop-all", {"containers": [
        {"name": "c", "image": "x", "securityContext": {"capabilities": {"drop": ["KILL"]}}}]}),
    ("host-path", {"volumes": [{"name": "v", "hostPath": {"path": "/srv/data"}}]}),
    ("host-path-sensitive", {"volumes": [{"name": "v", "hostPath": {"path": "/var/run/containerd/containerd.sock"}}]}),
    ("host-port", {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}),
    ("sysctls", {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
    ("seccomp", {}),
    ("seccomp", {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                 "containers": [
                     {"name": "c", "image": "x", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}),
    ("apparmor", {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
    ("secrets-in-environment", {"containers": [
        {"name": "c", "image": "x", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
    ("tolerations", {"tolerations": [{"operator": "Exists"}]}),
    ("network-policies", {}),
    ("token-mounts", {}),
]  # fmt: skip
_GOOD: Object = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [{"name": "main", "image": "x", "securityContext": {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
}  # fmt: skip


@pytest.fixture
def account(client: Client, namespace: str) -> str:
    """A namespace whose pods are admitted: no controller makes the default service account here."""
    put(client, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
    return namespace


@pytest.mark.parametrize(("check", "spec"), _FIELDS, ids=[name for name, _ in _FIELDS])
def test_a_field_of_a_pod_is_judged_by_its_effective_value(
    api: ApiServer, client: Client, account: str, check: str, spec: Object
) -> None:
    """A container's own value before its pod's; what is not set is what Kubernetes makes of it."""
    path = f"/api/v1/namespaces/{account}/pods"
    put(client, path, pod("bad", spec))
    put(client, path, pod("good", _GOOD))
    found = audited(api, "-n", account)[check]
    assert found["status"] == "fail", found
    shown = {"Pod bad", "Pod good"} if check == "network-policies" else {"Pod bad"}
    assert names(found) == shown


def test_pods_of_one_owner_are_one_workload(api: ApiServer, client: Client, account: str) -> None:
    """A ReplicaSet's are its Deployment's, by the hash that both carry."""
    for number in range(3):
        one = pod(f"web-5d4f-{number}", {"hostPID": True}, **{"pod-template-hash": "5d4f"})
        one["metadata"]["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u", "controller": True}
        ]
        put(client, f"/api/v1/namespaces/{account}/pods", one)
    found = audited(api, "-n", account)["host-pid"]
    assert names(found) == {"Deployment web"}
    assert "1 of 1 workloads outside kube-* (3 pods)" in found["observed"]


def test_a_network_policy_covers_the_pods_that_it_selects(api: ApiServer, client: Client, account: str) -> None:
    """Not the namespace that it is in, and only in its directions."""
    policies = f"/apis/networking.k8s.io/v1/namespaces/{account}/networkpolicies"
    for name in ("web", "db", "batch"):
        put(client, f"/api/v1/namespaces/{account}/pods", pod(name, {}, app=name))
    expression = {"key": "app", "operator": "In", "values": ["db"]}
    both = {"podSelector": {"matchExpressions": [expression]}, "policyTypes": ["Ingress", "Egress"]}
    put(client, policies, {"metadata": {"name": "both"}, "spec": both})
    put(client, policies, {"metadata": {"name": "in"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}})
    found = audited(api, "-n", account)
    details = {one["name"]: one["detail"] for one in found["network-policies"]["affected"]}
    assert details == {"web": "no policy for Egress", "batch": "no policy for Ingress and Egress"}
    assert "to 1 of 3 workloads" in found["metadata-policies"]["observed"]


def test_a_namespace_is_judged_by_label_quota_and_default(api: ApiServer, client: Client, account: str) -> None:
    """Failing without, passing with; a quota with a scope does not count."""
    path = f"/api/v1/namespaces/{account}"
    checks = ("pod-security", "quotas", "service-quotas", "limits")
    put(client, f"{path}/resourcequotas", {"metadata": {"name": "some"}, "spec": {"hard": {"pods": "9"},
        "scopes": ["BestEffort"]}})  # fmt: skip
    assert [audited(api, "-n", account)[name]["status"] for name in checks] == ["fail"] * 4
    assert client.patch(path, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}).ok
    hard = {"cpu": "4", "limits.memory": "8Gi", "pods": "20", "services.nodeports": "0", "services.loadbalancers": "0"}
    put(client, f"{path}/resourcequotas", {"metadata": {"name": "all"}, "spec": {"hard": hard}})
    item = {"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"memory": "1Mi"}}
    put(client, f"{path}/limitranges", {"metadata": {"name": "all"}, "spec": {"limits": [item]}})
    assert [audited(api, "-n", account)[name]["status"] for name in checks] == ["pass"] * 4


def test_tokens_are_found_without_reading_them(api: ApiServer, client: Client, namespace: str) -> None:
    """By their type and metadata; a fresh bootstrap token is none to complain of."""
    secret = {"metadata": {"name": "old", "annotations": {"kubernetes.io/service-account.name": "ci"}},
              "type": "kubernetes.io/service-account-token"}  # fmt: skip
    put(client, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "ci"}})
    put(client, f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert names(audited(api, "-n", namespace)["service-account-tokens"]) == {"Secret old"}
    assert audited(api, "-n", namespace)["bootstrap-tokens"]["status"] == "pass"


# -- rights, exceptions, costs -----------------------------------------------------------------------------------------


def token_of(client: Client, namespace: str, name: str) -> str:
    put(client, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    answer = client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["status"]["token"])


def grant(client: Client, namespace: str, name: str, rules: list[Object]) -> str:
    """A service account's token with a ClusterRole of these rules."""
    bind(client, f"{namespace}-{name}", rules, {"kind": "ServiceAccount", "name": name, "namespace": namespace})
    return token_of(client, namespace, name)


def test_one_missing_right_makes_its_checks_unknown_and_the_rest_go_their_way(
    api: ApiServer, client: Client, namespace: str
) -> None:
    """The manifest's own role, without one resource after the other: never a pass, never the end of the audit."""
    rules = yaml.safe_load(AUDITOR.read_text())["rules"]
    everything = audited(api, token=grant(client, namespace, "all", rules))
    missing = {name: one["observed"] for name, one in everything.items() if "may not be read" in one["observed"]}
    assert missing == {}
    without = [{**one, "resources": sorted({*one["resources"]} - {"pods"})} if "resources" in one else one
               for one in rules]  # fmt: skip
    found = audited(api, token=grant(client, namespace, "few", without))
    for check in CHECKS:
        one = found[check.name]
        if "pods" in check.needs:
            assert (one["status"], "pods may not be read" in one["observed"]) == ("unknown", True)
        elif "metrics" not in check.needs:
            assert one["status"] == everything[check.name]["status"], one


def test_no_right_at_all_is_all_unknown(api: ApiServer, client: Client, namespace: str) -> None:
    """What every authenticated user may read is no reason to pass anything but what it shows."""
    found = audited(api, token=token_of(client, namespace, "nothing"))
    assert {one["status"] for one in found.values()} <= {"unknown"}


def certificate_of(authority: trustme.CA, name: str, group: str, folder: Path) -> Object:
    """A user's entry of a kubeconfig."""
    issued = authority.issue_cert("user.example", common_name=name, organization_name=group)
    issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.crt"))
    issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}


@pytest.fixture
def control_plane(api: ApiServer, tmp_path: Path) -> Iterator[tuple[ApiServer, trustme.CA]]:
    """A real one that accepts certificates of a CA of the test's own."""
    assets = apiservers.assets()
    if assets is None or not api.is_real:
        pytest.skip("no real control plane: KUBEBUILDER_ASSETS does not name one")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "client-ca.pem"))
    flags = (f"--client-ca-file={tmp_path / 'client-ca.pem'}", "--enable-bootstrap-token-auth")
    with apiservers.control_plane(assets, tmp_path, flags=flags) as server:
        yield server, authority


def test_users_with_certificates_and_every_measure_of_rights(
    control_plane: tuple[ApiServer, trustme.CA], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rights, those of the role view, and all: each audit ends, and passes nothing that it did not read."""
    api, authority = control_plane
    client = api.client()
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-view"}
    put(client, f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": "readers"}, "roleRef": reference, "subjects": [user("readers", "Group")]})  # fmt: skip
    put(client, "/api/v1/namespaces", {"metadata": {"name": "bare"}})
    statuses = {}
    for name, group in (("nothing", "none"), ("reader", "readers"), ("root", "system:masters")):
        config = json.loads(api.kubeconfig(tmp_path / "config").read_text())
        config["users"][0]["user"] = certificate_of(authority, name, group, tmp_path)
        (tmp_path / "config").write_text(json.dumps(config))
        assert main(["audit", "--kubeconfig", str(tmp_path / "config"), "-o", "json", "--cluster"]) == 1
        shown = capsys.readouterr()
        assert shown.err == ""
        document = json.loads(shown.out)
        assert document["by"] == name
        statuses[name] = {one["id"].removeprefix("cluster/"): one for one in document["findings"]}
    fails = statuses["nothing"].pop("certificate-users")
    assert (fails["status"], names(fails), fails["cis"]) == ("fail", {"User nothing"}, ["3.1.1"])
    assert {one["status"] for one in statuses["nothing"].values()} == {"unknown"}
    # view has no Secrets, no RBAC, no nodes and no metrics.
    for check in CHECKS:
        unread = {
            "clusterroles", "nodes", "metrics", "service account tokens", "bootstrap tokens", "admission policies",
            "validating webhooks",
        }.intersection(check.needs)  # fmt: skip
        assert (statuses["reader"][check.name]["status"] == "unknown") >= bool(unread), check.name
    assert statuses["reader"]["limits"]["status"] == "fail"
    unknown = {name for name, one in statuses["root"].items() if one["status"] == "unknown"}
    assert unknown == {"network-engine"}
    bootstrap = statuses["root"]["bootstrap-users"]
    assert (bootstrap["status"], bootstrap["observed"]) == (
        "pass", "0 tokens, and 0 bindings for them, which let a node join and no more")  # fmt: skip


def test_a_role_of_bootstrap_tokens_and_a_used_token_of_no_pod_are_users(
    api: ApiServer, client: Client, namespace: str, unique: str
) -> None:
    """CIS 3.1.2 and 3.1.3, by signs that are objects; the group's own role for joining is none."""
    join = rule(["certificatesigningrequests"], ["create", "get"], "certificates.k8s.io")
    bind(client, f"{unique}-join", join, user("system:bootstrappers:kubeadm:default-node-token", "Group"))
    before = audited(api)
    assert (before["bootstrap-users"]["status"], before["bootstrap-users"]["cis"]) == ("pass", ["3.1.3"])
    bind(client, f"{unique}-more", rule(["pods"], ["list"]), user("system:bootstrappers", "Group"))
    put(client, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "ci"}})
    put(client, f"/api/v1/namespaces/{namespace}/secrets", {
        "metadata": {"name": "ci", "annotations": {"kubernetes.io/service-account.name": "ci"},
                     "labels": {"kubernetes.io/legacy-token-last-used": "2027-01-10"}},
        "type": "kubernetes.io/service-account-token"})  # fmt: skip
    after = audited(api)
    if "accepts none" in after["bootstrap-users"]["observed"]:
        assert api.is_real  # started without --enable-bootstrap-token-auth, and its /flagz has it
    else:
        assert names(after["bootstrap-users"]) == {f"ClusterRoleBinding {unique}-more"}
    assert (names(after["token-users"]), after["token-users"]["cis"]) == ({"Secret ci"}, ["3.1.2"])


def test_an_exception_holds_for_what_it_selects_until_its_day(
    api: ApiServer, client: Client, account: str, tmp_path: Path
) -> None:
    """Then the finding is back and names it; a misspelt id is information; a contradiction is an error."""
    for name in ("node-exporter", "other"):
        put(client, f"/api/v1/namespaces/{account}/pods", pod(name, {"hostPID": True}))
    file = tmp_path / "exceptions.yaml"

    def write(expires: str, id_: str = "cluster/host-pid", **selector: str) -> None:
        selector = {"namespace": account, "name": "node-*", **selector}
        one = {"id": id_, "selector": selector, "reason": "reads /proc", "owner": "team-metrics", "expires": expires}
        file.write_text(yaml.safe_dump({"exceptions": [one]}))

    def typed(now: float) -> Object:
        person = Person(api, now=lambda: now)
        done = person.types("audit", "--cluster", "-n", account, "--exceptions", str(file), "-o", "json")
        assert done.error == ""
        return {one["id"]: one for one in json.loads(done.out)["findings"]}

    write("2027-01-31")
    found = typed(NOW)["cluster/host-pid"]
    assert (found["status"], names(found)) == ("fail", {"Pod other"})
    assert found["excepted"][0]["exception"] == "excepted until 2027-01-31: reads /proc (team-metrics)"
    write("2027-01-31", name="*")
    assert typed(NOW)["cluster/host-pid"]["status"] == "info"
    found = typed(NOW + 30 * 86400)["cluster/host-pid"]
    assert (found["status"], names(found)) == ("fail", {"Pod other", "Pod node-exporter"})
    assert "its exception ended on 2027-01-31" in found["affected"][0]["detail"]
    write("2027-01-31", "cluster/hostpid")
    assert "exceptions/cluster/hostpid" in typed(NOW)


def test_five_thousand_pods_cost_few_requests(scaled: Sandbox) -> None:
    """Lists of 500, each kind once, owners rather than pods; the time is a figure of bench."""
    scaled.clear_requests()
    found = audited(ApiServer.of(scaled))
    assert "500 workloads outside kube-* (5,000 pods)" in found["host-pid"]["observed"]
    assert len(scaled.requests) <= 45


@pytest.fixture
def scaled() -> Iterator[Sandbox]:
    """An emulator of its own with five thousand pods in five hundred namespaces."""
    with emulator() as sandbox:
        fill(sandbox, namespaces=500, workloads=500, pods=5000)
        yield sandbox


_PARTS: Object = dict.fromkeys(
    ("taints", "containers", "volumes", "tolerations", "securityContext", "egress", "podSelector", "limits", "hard",
     "validationActions", "policyTypes"), 5)  # fmt: skip
_META: Object = {"name": "x", "ownerReferences": 5, "labels": {"a": 7}, "annotations": {"b": []}}
_MALFORMED = json.dumps({"items": [
    7, {"metadata": 3, "spec": [], "rules": 0}, {"metadata": _META, "spec": _PARTS, "rules": 5, "subjects": 5,
                                                 "webhooks": 5, "roleRef": 5, "automountServiceAccountToken": "x"},
]}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"{}"), (200, b"garbage"), (200, b"[1]"), (200, _MALFORMED),
     (403, b"no"), (406, b"no"), (404, b"{}")],
    ids=["empty", "garbage", "list", "malformed", "403", "406", "404"],
)  # fmt: skip
def test_no_answer_of_the_api_server_ends_the_audit_or_passes_what_was_not_read(status: int, body: bytes) -> None:
    """Secrets are requested as metadata alone, whatever the server makes of it."""
    with scripted(lambda request: answer(request, body, status)) as server:
        found = audited(ApiServer(server.url, "token", None))
    if status != 200 or body in (b"garbage", b"[1]"):
        assert {one["status"] for one in found.values()} == {"unknown"}
    secrets = [headers["accept"] for _, path, headers in server.seen if "/secrets" in path]
    assert secrets
    assert all("as=PartialObjectMetadataList" in one for one in secrets)


@pytest.mark.parametrize("value", ["+Inf", "1.2.3", "--", "e", "NaN", "1e999", "-1"])
def test_no_number_of_the_metrics_ends_the_audit(value: str) -> None:
    """What is no finite number is no sample."""
    text = f"apiserver_request_total 1\napiserver_audit_event_total{{}} {value}\n".encode()

    with scripted(lambda request: answer(request, text if request.path == "/metrics" else b"{}")) as server:
        found = audited(ApiServer(server.url, "token", None))
    assert found["audit-events"]["status"] == "unknown"


def test_a_server_that_hangs_up_where_it_need_not_answer_is_audited_all_the_same() -> None:
    """/flagz is what only some serve, also behind a proxy that cuts it."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/flagz":
            request.close_connection = True
        else:
            answer(request, b"{}")

    with scripted(reply) as server:
        found = audited(ApiServer(server.url, "token", None))
    assert found["audit-events"]["status"] == "unknown"
    assert found["host-pid"]["status"] == "pass"


def test_a_fresh_cluster_has_no_finding_about_who_may_do_what(tmp_path: Path) -> None:
    """The bindings that the API server makes itself: none of them is a finding."""
    assets = apiservers.assets()
    if assets is None:
        pytest.skip("no real control plane: KUBEBUILDER_ASSETS does not name one")
    with apiservers.control_plane(assets, tmp_path) as api:
        found = audited(api)
    assert {name for name in (one.name for one in checks_rbac.CHECKS) if found[name]["status"] not in ("pass", "info")
            } == set()  # fmt: skip
    assert found["encryption-at-rest"]["status"] == "fail"
    assert found["audit-events"]["status"] in ("fail", "pass")


# -- the nodes' own findings -------------------------------------------------------------------------------------------


def test_the_nodes_audit_in_every_format() -> None:
    """One report for each node; with exit code 1 where anything fails, and nothing but the answer."""
    with emulator() as sandbox:
        staged = SCENES["non-compliant"]()
        staged.put_on(sandbox)
        for form in ("table", "wide", "json", "yaml", "junit", "kube-bench", "policyreport"):
            shown = Screen(sandbox, staged, 80).type(f"audit -o {form}")
            assert (shown.code, shown.err) == (1, ""), form
            assert "kubelet/4.2.1" in shown.out
        nodes = json.loads(Screen(sandbox, staged).type("audit -o json").out)["nodes"]
        assert [one["node"] for one in nodes] == ["node-1", "node-2", "node-3"]
        (failing,) = [one for one in nodes[1]["findings"] if one["id"] == "kubelet/4.2.1"]
        assert (failing["cis"], failing["status"]) == (["4.2.1"], "fail")
        table = Screen(sandbox, staged, 80).type("audit node-2 --benchmark cis-1.12").out
        assert re.search(r"^4\.2\.1 +fail .*kubelet/4\.2\.1$", table, re.MULTILINE)
        assert re.search(r"^5\.4\.2 +not checked", table, re.MULTILINE)


@pytest.mark.parametrize(
    "line",
    [
        "audit --cluster -n no-such-namespace",
        "audit node-1 --cluster",
        "audit -l a=b --cluster",
        "audit --exceptions x",
        "audit --benchmark cis-1.12 -o junit",
    ],
)
def test_what_contradicts_itself_is_refused(line: str) -> None:
    """With exit code 2 and the reason."""
    with emulator() as sandbox:
        staged = SCENES["calm"]()
        staged.put_on(sandbox)
        shown = Screen(sandbox, staged).type(line)
        assert shown.code == 2
        assert shown.err


def test_the_formats_of_findings_are_the_audits_alone() -> None:
    """Other commands have nothing to write in them."""
    with pytest.raises(SystemExit):
        parser(COMMANDS).parse_args(["status", "-o", "junit"])
