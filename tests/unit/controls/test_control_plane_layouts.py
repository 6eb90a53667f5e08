"""Where distributions keep the settings of the control plane, who counts as a part of it, and what is unknown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.controls.control_plane.components import newer
from agent.host import Host, Process, Program
from agent.model import Finding, Status
from tests.support.control_planes import API_POD, API_SERVER, ETCD, HASH, PKI, SCHEDULER, STATIC_POD, ControlPlane

PASS, FAIL, UNKNOWN, NONE = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.NOT_APPLICABLE
NODE = "mnt:[4026531841]"
STARTED = Process(1, Program.ETCD, ("etcd",))


@pytest.fixture
def node(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path / "node")


def test_a_worker_is_one_line(node: ControlPlane) -> None:
    node.node.add("kubelet", "kubelet", "--config=/x")
    found = node.audit()
    assert {id_: one.status for id_, one in found.items()} == {"process": NONE}


@pytest.mark.parametrize("argv", [("agent",), ("kubectl", "get", "pods")])
def test_a_k3s_that_is_no_server_is_one_line(node: ControlPlane, argv: tuple[str, ...]) -> None:
    node.node.add("k3s", "k3s", *argv, cgroup="0::/system.slice/k3s-agent.service\n")
    assert [one.status for one in node.audit().values()] == [NONE]


@pytest.mark.parametrize(
    ("cgroup", "counts"),
    [
        (STATIC_POD, True),
        (f"0::/kubepods/burstable/pod{HASH}/{'b' * 64}\n", True),
        (f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{HASH}.slice/cri-containerd-x.scope\n", True),
        (f"12:pids:/kubepods/pod{HASH}/x\n1:name=systemd:/kubepods/pod{HASH}/x\n", True),
        (API_POD, False),
        ("0::/kubepods/besteffort/pod01234567-89ab-4cde-8123-456789abcdef/x\n", False),
        (f"0::/kubepods/pod01234567-89ab-4cde-8123-456789abcdef/pod{HASH}/x\n", False),
        (f"12:pids:/kubepods/pod{HASH}/x\n1:name=systemd:/kubepods/pod01234567-89ab-4cde-8123-456789abcdef/x\n", False),
        (f"0::/docker/{'c' * 64}\n", False),
    ],
)
def test_a_static_pod_counts_and_a_pod_of_the_api_does_not(node: ControlPlane, cgroup: str, *, counts: bool) -> None:
    node.run("kube-scheduler", *SCHEDULER, cgroup=cgroup)
    found = node.audit()
    if counts:
        assert found["scheduler/profiling"].status is PASS
    else:
        assert [one.status for one in found.values()] == [NONE]
        assert "1 processes with such a name are not the node's own" in found["process"].observed


def test_a_process_of_roots_on_the_node_counts_and_another_users_does_not(node: ControlPlane) -> None:
    node.run("kube-scheduler", *SCHEDULER, cgroup="0::/system.slice/kube-scheduler.service\n", mounts=NODE)
    node.run("kube-scheduler", "--profiling=true", uid=1000, cgroup="0::/user.slice\n", mounts=NODE)
    assert node.audit()["scheduler/profiling"].status is PASS


def test_k3s_is_judged_by_its_configuration(node: ControlPlane) -> None:
    node.files({"/etc/rancher/k3s/config.yaml": "kube-apiserver-arg: [anonymous-auth=true, audit-log-maxage=7]\n"})
    unit = "[Service]\nExecStart=/usr/local/bin/k3s server\n"
    node.files({"/etc/systemd/system/k3s.service": unit})
    node.node.add("k3s-server", "/usr/local/bin/k3s", "server", cgroup="0::/system.slice/k3s.service\n", started=1e9)
    found = node.audit()
    expected = {
        "apiserver/anonymous": FAIL, "apiserver/audit-maxage": FAIL, "apiserver/authorizer-rbac": PASS,
        "apiserver/profiling": PASS, "apiserver/kubelet-ca": UNKNOWN, "scheduler/bind": UNKNOWN,
        "etcd/process": NONE,
    }  # fmt: skip
    assert {id_: found[id_].status for id_ in expected} == expected
    assert "SQLite" in found["etcd/process"].observed
    assert "k3s wipes its arguments" in found["apiserver/kubelet-ca"].observed
    os.utime(node.root / "etc/rancher/k3s/config.yaml", (3e9, 3e9))
    assert node.audit()["apiserver/authorizer-rbac"].status is UNKNOWN


def test_the_etcd_of_k3s_is_found_where_its_data_are(node: ControlPlane) -> None:
    node.files({"/etc/rancher/k3s/config.yaml": "data-dir: /data/k3s\n",
                "/etc/systemd/system/k3s.service": "[Service]\nExecStart=/usr/local/bin/k3s server\n",
                "/data/k3s/server/db/etcd/config": "listen-client-urls: http://127.0.0.1:2379\n"})  # fmt: skip
    node.node.add("k3s-server", "/usr/local/bin/k3s", "server", cgroup="0::/system.slice/k3s.service\n", started=1e9)
    assert node.audit()["etcd/tls"].status is FAIL


def test_an_etcd_of_k3s_that_cannot_be_looked_for_is_unknown(node: ControlPlane) -> None:
    """Not "SQLite": its folder is root's alone."""
    node.files({"/etc/systemd/system/k3s.service": "[Service]\nExecStart=/usr/local/bin/k3s server\n"})
    node.node.add("k3s-server", "/usr/local/bin/k3s", "server", cgroup="0::/system.slice/k3s.service\n", started=1e9)
    (node.root / "var/lib/rancher/k3s/server/db").mkdir(parents=True)
    (node.root / "var/lib/rancher/k3s/server/db/etcd").symlink_to("etcd")
    found = node.audit()
    assert (found["etcd/process"].status, found["etcd/tls"].status) == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize("change", ["replaced by an older copy", "linked"])
def test_a_file_that_was_replaced_by_an_older_one_has_changed(node: ControlPlane, change: str) -> None:
    """`cp -p`, `mv` and `ln -s` keep the time of what was written."""
    process = replace(STARTED, started=time.time() - 3600)
    (node.root / "etc/x").mkdir(parents=True)
    (node.root / "etc/x/old").write_text("")
    os.utime(node.root / "etc/x/old", (1e8, 1e8))
    if change == "linked":
        (node.root / "etc/x/file").symlink_to("old")
    else:
        (node.root / "etc/x/old").rename(node.root / "etc/x/file")
    assert newer(Host(node.root), process, "/etc/x/file").startswith("/etc/x/file changed after it started")


def test_microk8s_is_judged_by_its_arguments_files(node: ControlPlane) -> None:
    args = "/var/snap/microk8s/current/args"
    node.files({
        f"{args}/kube-apiserver": "--authorization-mode=AlwaysAllow\n--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA\n",
        f"{args}/kube-scheduler": "--profiling=false\n",
    })  # fmt: skip
    unit = "0::/system.slice/snap.microk8s.daemon-kubelite.service\n"
    node.node.add("kubelite", "kubelite", f"--apiserver-args-file={args}/kube-apiserver", cgroup=unit, started=1e9)
    found = node.audit()
    expected = {"apiserver/always-allow": FAIL, "apiserver/ciphers": FAIL, "scheduler/profiling": PASS,
                "controller-manager/process": UNKNOWN, "controller-manager/profiling": UNKNOWN}  # fmt: skip
    assert {id_: found[id_].status for id_ in expected} == expected
    os.utime(node.root / f"{args}/kube-scheduler".lstrip("/"), (3e9, 3e9))
    assert node.audit()["scheduler/profiling"].status is UNKNOWN


DQLITE = "/var/snap/microk8s/current/var/kubernetes/backend"


def _dqlite(node: ControlPlane, *flags: str, listen: Sequence[int] = ()) -> dict[str, Finding]:
    node.run("k8s-dqlite", f"--storage-dir={DQLITE}/", *flags, listen=listen, mounts=NODE,
             cgroup="0::/system.slice/snap.microk8s.daemon-k8s-dqlite.service\n")  # fmt: skip
    return node.audit()


@pytest.mark.parametrize(
    ("socket", "folder", "status"),
    [(0o755, 0o770, PASS), (0o777, 0o770, PASS), (0o755, 0o755, PASS), (0o777, 0o755, FAIL), (None, 0o770, UNKNOWN)],
)
def test_who_reaches_the_socket_of_dqlite_decides(
    node: ControlPlane, socket: int | None, folder: int, status: Status
) -> None:
    path = f"{DQLITE}/kine.sock:12379"
    node.files({f"{DQLITE}/cluster.key": "x", **({path: ""} if socket is not None else {})})
    if socket is not None:
        (node.root / path[1:]).chmod(socket)
    (node.root / DQLITE[1:]).chmod(folder)
    found = _dqlite(node, f"--listen=unix://{path}")
    assert found["k8s-dqlite/socket"].status is status
    assert found["file/dqlite-data"].status is (PASS if folder == 0o770 else FAIL)
    assert found["etcd/process"].status is NONE
    assert "k8s-dqlite (pid" in found["etcd/process"].observed


def test_dqlite_never_passes_by_what_is_not_known(node: ControlPlane) -> None:
    found = _dqlite(node)
    assert (found["k8s-dqlite/socket"].status, found["k8s-dqlite/peers"].status) == (FAIL, UNKNOWN)


def test_dqlite_in_the_clear_fails(node: ControlPlane) -> None:
    assert _dqlite(node, "--enable-tls=false")["k8s-dqlite/peers"].status is FAIL


def test_no_other_cluster_has_findings_of_dqlite(node: ControlPlane) -> None:
    node.run("kube-scheduler", *SCHEDULER)
    assert not [id_ for id_ in node.audit() if "dqlite" in id_]


def test_openshifts_own_format_is_unknown(node: ControlPlane) -> None:
    node.node.add("hyperkube", "hyperkube", "kube-apiserver", "--openshift-config=/etc/c.yaml", cgroup=STATIC_POD)
    found = node.audit()
    assert found["apiserver/process"].status is UNKNOWN
    assert found["apiserver/always-allow"].status is UNKNOWN


def test_a_manifest_without_a_process_is_unknown(node: ControlPlane) -> None:
    node.files({"/etc/kubernetes/manifests/kube-apiserver.yaml": "spec: {containers: [{"})
    found = node.audit()
    assert found["apiserver/process"].status is UNKNOWN
    assert found["file/manifest/kube-apiserver"].cis == ("1.1.1", "1.1.2")


def test_a_manifest_that_is_not_what_runs_is_drift(node: ControlPlane) -> None:
    command = ["kube-scheduler", *SCHEDULER]
    path = "/etc/kubernetes/manifests/kube-scheduler.yaml"
    node.files({path: json.dumps({"spec": {"containers": [{"command": command}]}})})
    node.run("kube-scheduler", *SCHEDULER)
    assert node.audit()["scheduler/drift"].status is PASS
    node.files({path: json.dumps({"spec": {"containers": [{"command": [*command, "--v=2"]}]}})})
    assert node.audit()["scheduler/drift"].status is FAIL


def test_a_manifest_that_cannot_be_read_leaves_drift_unknown(node: ControlPlane) -> None:
    path = "/etc/kubernetes/manifests/kube-scheduler.yaml"
    node.run("kube-scheduler", *SCHEDULER)
    for content in ("spec: {containers: [{", "spec: {containers: []}", "x: " + "y" * (600 << 10)):
        node.files({path: content})
        found = node.audit()["scheduler/drift"]
        assert (found.status, path in found.observed) == (UNKNOWN, True)


def test_a_file_that_is_gone_since_the_start_leaves_drift_unknown(node: ControlPlane) -> None:
    node.run("kube-scheduler", *SCHEDULER, "--config=/etc/kubernetes/s.yaml")
    found = node.audit()["scheduler/drift"]
    assert (found.status, "/etc/kubernetes/s.yaml" in found.observed) == (UNKNOWN, True)


def _drifted(node: ControlPlane, path: str) -> None:
    node.files({path: json.dumps({"spec": {"containers": [{"command": ["kube-scheduler", "--v=9"]}]}})})


@pytest.mark.parametrize(
    ("flags", "config", "path"),
    [
        (("--pod-manifest-path=/srv/pods",), "", "/srv/pods/kube-scheduler.yaml"),
        (("--pod-manifest-path=pods",), "", "/var/work/pods/kube-scheduler.yaml"),
        ((), "staticPodPath: /srv/pods", "/srv/pods/kube-scheduler.yml"),
        ((), "staticPodPath: /srv/one/kube-scheduler.yaml", "/srv/one/kube-scheduler.yaml"),
        (("--pod-manifest-path=/srv/flag",), "staticPodPath: /srv/file", "/srv/flag/kube-scheduler.yaml"),
    ],
)
def test_manifests_are_where_the_kubelet_reads_them(
    node: ControlPlane, flags: tuple[str, ...], config: str, path: str
) -> None:
    kind = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
    node.files({"/var/k.yaml": f"{kind}{config}\n"})
    node.node.add("kubelet", "kubelet", "--config=/var/k.yaml", *flags, cwd="/var/work")
    node.run("kube-scheduler", *SCHEDULER)
    _drifted(node, "/etc/kubernetes/manifests/kube-scheduler.yaml")  # nothing reads it
    assert node.audit()["scheduler/drift"].status is PASS
    _drifted(node, path)
    found = node.audit()
    assert found["scheduler/drift"].status is FAIL
    assert path in found["file/manifest/kube-scheduler"].observed
    assert "/etc/kubernetes/manifests" not in found["file/manifests"].observed


def test_where_manifests_are_is_unknown_without_the_kubelets_configuration(node: ControlPlane) -> None:
    node.node.add("kubelet", "kubelet", "--config=/gone.yaml")
    node.run("kube-scheduler", *SCHEDULER)
    assert node.audit()["scheduler/drift"].status is UNKNOWN
    _drifted(node, "/etc/kubernetes/manifests/kube-scheduler.yaml")
    assert node.audit()["scheduler/drift"].status is FAIL


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "empty"), ("{", "not JSON"), ("rules: 7\n", "not a list"), ("a: " + "x" * 600_000, "bytes")],
)
def test_a_file_that_is_none_is_unknown(node: ControlPlane, content: str, why: str) -> None:
    node.files({"/etc/kubernetes/policy.yaml": content})
    node.run("kube-apiserver", *API_SERVER, "--audit-log-path=-", "--audit-policy-file=/etc/kubernetes/policy.yaml")
    found = node.audit()["apiserver/audit"]
    assert found.status is UNKNOWN
    assert why in found.observed or "limit" in found.observed


_NAMES = (
    "rules level resources group omitStages providers anonymous conditions path authorizers type webhook plugins name "
    "configuration defaults exemptions namespaces"
)
_KEYS = st.sampled_from(_NAMES.split())
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_KEYS, below, max_size=4),
    max_leaves=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.dictionaries(_KEYS, _JSON, max_size=5))
def test_no_content_of_a_file_ends_the_audit(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    node = ControlPlane(tmp_path_factory.mktemp("node") / "node")
    node.files({"/etc/kubernetes/x.yaml": json.dumps(document)})
    flags = ("audit-policy-file", "authentication-config", "authorization-config", "admission-control-config-file",
             "encryption-provider-config")  # fmt: skip
    node.run("kube-apiserver", *(f"--{flag}=/etc/kubernetes/x.yaml" for flag in flags), "--audit-log-path=/a")
    assert node.audit()["apiserver/process"].status is PASS


def test_files_are_judged_by_the_paths_that_are_used(node: ControlPlane) -> None:
    node.pki()
    node.files({f"{PKI}/apiserver.key": "x", "/var/lib/etcd/member": "x"})
    (node.root / "var/lib/etcd").chmod(0o755)
    (node.root / f"{PKI}/apiserver.key".lstrip("/")).chmod(0o644)
    node.run("kube-apiserver", *API_SERVER)
    node.run("etcd", *ETCD)
    found = node.audit()
    assert (found["file/keys"].status, found["file/etcd-data"].status) == (FAIL, FAIL)
    assert f"{PKI}/apiserver.key is 0644" in found["file/keys"].observed
    assert found["file/etcd-data"].cis == ("1.1.11", "1.1.12")
