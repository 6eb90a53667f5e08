"""Where the distributions of docs/controls/kubelet.md keep what their kubelet runs with: a tree of each.

Units and arguments are those of the projects' own sources and of listings that operators have published.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls.kubelet import KubeletControl
from agent.controls.seccomp import kubelet_root
from agent.host import Host, Process, ProcessTable
from agent.host.identity import NODE_PROGRAMS, Program
from agent.model import Finding, Status
from tests.support.kubelets import QUIET, StagedHost, audit, config, plant, process

ANONYMOUS = "authentication:\n  anonymous:\n    enabled: true\n"
MICROSHIFT = "/var/lib/microshift/resources/kubelet/config/config.yaml"
# The kubelet's part of BottlerocketOS's exec-start.conf, GKE's /etc/default/kubelet and AKS's kubelet.service.
BOTTLEROCKET = """[Service]
ExecStart=
ExecStart=/usr/bin/kubelet \\
    --cloud-provider external \\
    --kubeconfig /etc/kubernetes/kubelet/kubeconfig \\
    --config /etc/kubernetes/kubelet/config \\
    --container-runtime-endpoint=unix:///run/containerd/containerd.sock \\
    --root-dir /var/lib/kubelet \\
    --cert-dir /var/lib/kubelet/pki \\
    --node-ip ${NODE_IP} \\
    --register-with-taints "${NODE_TAINTS}"
"""
GKE = """KUBELET_OPTS="--v=2 --cloud-provider=external --cert-dir=/var/lib/kubelet/pki/ --max-pods=110 \
--kubeconfig=/var/lib/kubelet/kubeconfig --config /home/kubernetes/kubelet-config.yaml \
--pod-sysctls='net.core.somaxconn=1024,net.ipv4.ip_forward=1' --node-labels='a=b, c=d'"
KUBE_COVERAGE_FILE="/var/log/kubelet.cov"
"""
AKS = """[Service]
EnvironmentFile=/etc/default/kubelet
ExecStartPre=/bin/bash /opt/azure/containers/kubelet.sh
ExecStart=/usr/local/bin/kubelet \\
        --enable-server \\
        --node-labels="${KUBELET_NODE_LABELS}" \\
        --v=2 \\
        --volume-plugin-dir=/etc/kubernetes/volumeplugins \\
        $KUBELET_TLS_BOOTSTRAP_FLAGS \\
        $KUBELET_CONFIG_FILE_FLAGS \\
        $KUBELET_CONTAINERD_FLAGS \\
        $KUBELET_FLAGS
"""
AKS_FLAGS = '[Service]\nEnvironment="KUBELET_CONFIG_FILE_FLAGS=--config /etc/default/kubeletconfig.json"\n'
AKS_JSON = """{
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "authentication": {"anonymous": {
        "enabled": true}}
}
"""
KUBEADM = """[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/opt/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
"""
K0S = (
    "/var/lib/k0s/bin/kubelet", "--root-dir=/var/lib/k0s/kubelet", "--config=/var/lib/k0s/kubelet-config.yaml",
    "--kubeconfig=/var/lib/k0s/kubelet.conf", "--v=1", "--runtime-cgroups=/system.slice/containerd.service",
    "--cert-dir=/var/lib/k0s/kubelet/pki", "--container-runtime-endpoint=unix:///run/k0s/containerd.sock",
)  # fmt: skip
UNIT = "/etc/systemd/system/kubelet.service"


@dataclass(frozen=True, slots=True)
class Platform:
    """A node. argv: of the process that runs the kubelet. line: of `enabled: true` in `read`. where: in the advice.

    stored: whether its units say how the kubelet is started, so that a tree without processes is judged as well.
    """

    files: Mapping[str, str]
    argv: tuple[str, ...]
    read: str
    where: str
    line: int = 5
    stored: bool = True
    root: str = "/var/lib/kubelet"
    own: str = "kubelet"
    unit_files: tuple[str, ...] = field(default=(UNIT,))

    def process(self) -> Process:
        return process(*self.argv, name=self.own)


PLATFORMS = {
    "MicroShift": Platform(
        {
            MICROSHIFT: config(ANONYMOUS),
            "/etc/microshift/config.yaml": "kubelet: {authentication: {anonymous: {enabled: true}}}\n",
            "/usr/lib/systemd/system/microshift.service": "[Service]\nExecStart=microshift run\nDelegate=yes\n",
        },
        ("microshift", "run"), MICROSHIFT, "`kubelet: {authentication.anonymous.enabled: false}`"
        " in /etc/microshift/config.yaml", own="microshift",
        unit_files=("/usr/lib/systemd/system/microshift.service",),
    ),
    "k0s": Platform(
        {
            "/var/lib/k0s/kubelet-config.yaml": config(ANONYMOUS),
            "/etc/systemd/system/k0sworker.service": "[Service]\nExecStart=/usr/local/bin/k0s worker --token-file=/t\n",
        },
        K0S, "/var/lib/k0s/kubelet-config.yaml", "spec.workerProfiles of k0s's configuration", stored=False,
        root="/var/lib/k0s/kubelet", unit_files=(),
    ),
    "Bottlerocket": Platform(
        {
            "/etc/kubernetes/kubelet/config": "---\n" + config(ANONYMOUS),
            "/usr/lib/systemd/system/kubelet.service": "[Service]\nEnvironmentFile=/etc/network/proxy.env\n"
            "EnvironmentFile=/etc/kubernetes/kubelet/env\nExecStart=/usr/bin/kubelet\n",
            "/etc/network/proxy.env": "", "/etc/kubernetes/kubelet/env": "NODE_IP=192.0.2.7\nNODE_TAINTS=\n",
            "/etc/systemd/system/kubelet.service.d/exec-start.conf": BOTTLEROCKET,
        },
        (
            "/usr/bin/kubelet", "--cloud-provider", "external", "--kubeconfig", "/etc/kubernetes/kubelet/kubeconfig",
            "--config", "/etc/kubernetes/kubelet/config", "--root-dir", "/var/lib/kubelet",
            "--cert-dir", "/var/lib/kubelet/pki", "--register-with-taints", "",
        ),
        "/etc/kubernetes/kubelet/config", "settings.kubernetes", line=6,
        unit_files=(
            "/usr/lib/systemd/system/kubelet.service", "/etc/systemd/system/kubelet.service.d/exec-start.conf",
        ),
    ),
    "Container-Optimized OS (GKE)": Platform(
        {
            "/home/kubernetes/kubelet-config.yaml": config(ANONYMOUS),
            UNIT: "[Service]\nEnvironmentFile=/etc/default/kubelet\n"
            "ExecStart=/home/kubernetes/bin/kubelet $KUBELET_OPTS\n",
            "/etc/default/kubelet": GKE,
        },
        (
            "/home/kubernetes/bin/kubelet", "--v=2", "--cloud-provider=external", "--cert-dir=/var/lib/kubelet/pki/",
            "--max-pods=110", "--kubeconfig=/var/lib/kubelet/kubeconfig", "--config",
            "/home/kubernetes/kubelet-config.yaml",
            "--pod-sysctls=net.core.somaxconn=1024,net.ipv4.ip_forward=1", "--node-labels=a=b, c=d",
        ),
        "/home/kubernetes/kubelet-config.yaml", "--system-config-from-file",
    ),
    "Flatcar (kubeadm)": Platform(
        {
            "/var/lib/kubelet/config.yaml": config(ANONYMOUS),
            UNIT: "[Service]\nExecStart=/opt/bin/kubelet\nRestart=always\n",
            "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf": KUBEADM,
            "/var/lib/kubelet/kubeadm-flags.env": 'KUBELET_KUBEADM_ARGS="--node-ip=192.0.2.7"\n',
        },
        (
            "/opt/bin/kubelet", "--kubeconfig=/etc/kubernetes/kubelet.conf", "--config=/var/lib/kubelet/config.yaml",
            "--node-ip=192.0.2.7",
        ),
        "/var/lib/kubelet/config.yaml", "at /var/lib/kubelet/config.yaml:5",
        unit_files=(UNIT, "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"),
    ),
    "Azure Linux (AKS)": Platform(
        {
            "/etc/default/kubeletconfig.json": AKS_JSON,
            UNIT: AKS, "/etc/systemd/system/kubelet.service.d/10-componentconfig.conf": AKS_FLAGS,
            "/etc/default/kubelet": "KUBELET_FLAGS=--node-status-update-frequency=10s\n"
            "KUBELET_REGISTER_SCHEDULABLE=true\nKUBELET_NODE_LABELS=agentpool=np1,kubernetes.azure.com/mode=user\n",
        },
        (
            "/usr/local/bin/kubelet", "--enable-server",
            "--node-labels=agentpool=np1,kubernetes.azure.com/mode=user", "--v=2",
            "--volume-plugin-dir=/etc/kubernetes/volumeplugins", "--config", "/etc/default/kubeletconfig.json",
            "--node-status-update-frequency=10s",
        ),
        "/etc/default/kubeletconfig.json", "the node pool's --kubelet-config (AKS)",
        unit_files=(UNIT, "/etc/systemd/system/kubelet.service.d/10-componentconfig.conf"),
    ),
}  # fmt: skip


def stored(root: Path) -> dict[str, Finding]:
    """The findings about a tree that no kernel runs on."""
    control = KubeletControl(schema.Kubelet(), Host(root))
    return {one.id.removeprefix("kubelet/"): one for one in control.judge(control.observe())}


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_running_kubelet_is_read_where_the_platform_keeps_it(name: str, tmp_path: Path) -> None:
    """The setting, its line, what to change instead of a file that is written again, units, and seccomp's folder."""
    one = PLATFORMS[name]
    found = audit(plant(tmp_path, one.files), [one.process()])
    anonymous = found["4.2.1"]
    assert (anonymous.status, anonymous.source) == (Status.FAIL, f"{one.read}:{one.line}")
    assert one.where in anonymous.remediation
    assert found["4.2.4"].status is Status.PASS, "readOnlyPort is 0 with --config"
    for path in one.unit_files:
        assert f"{path} is 0644" in found["4.1.1"].observed
    place = kubelet_root.find("auto", StagedHost(tmp_path, [one.process()]), "")
    assert (place.path, place.found) == (f"{one.root}/seccomp", True)


@pytest.mark.parametrize("name", [name for name, one in PLATFORMS.items() if one.stored])
def test_its_tree_is_judged_as_its_unit_would_start_it(name: str, tmp_path: Path) -> None:
    """Without a process, from what is on the disk alone; for a kubelet of its own to the last argument."""
    one = PLATFORMS[name]
    found = stored(plant(tmp_path, one.files))
    assert (found["4.2.1"].status, found["4.2.1"].source) == (Status.FAIL, f"{one.read}:{one.line}")
    assert found["process"].status is Status.NOT_APPLICABLE
    if name in ("Container-Optimized OS (GKE)", "Flatcar (kubeadm)", "Azure Linux (AKS)"):
        for path in one.files.keys() - {one.read}:
            os.utime(tmp_path / path[1:], (4e9, 4e9))
        running = [process(*one.argv, started=3e9)]
        assert audit(tmp_path, running)["drift"].status is Status.PASS
        running = [process(*one.argv, "--event-qps=0", started=3e9)]
        assert audit(tmp_path, running)["drift"].status is Status.FAIL


def test_a_tree_of_k0s_is_unknown(tmp_path: Path) -> None:
    """k0s puts its kubelet's arguments together when it starts: no unit has them, and no setting passes."""
    found = stored(plant(tmp_path, PLATFORMS["k0s"].files))
    assert (found["process"].status, "4.2.1" in found) == (Status.UNKNOWN, False)


def test_a_name_that_the_platform_sets_itself_is_set(tmp_path: Path) -> None:
    """K3s and MicroShift always start their kubelet with --hostname-override; a kubelet-arg replaces that of K3s."""
    files = {"/etc/rancher/k3s/config.yaml": "kubelet-arg: [hostname-override=n1]\n"}
    k3s = process("/usr/local/bin/k3s", "agent", "--debug", name="k3s-agent")
    found = [
        audit(plant(tmp_path / "m", PLATFORMS["MicroShift"].files), [PLATFORMS["MicroShift"].process()])["4.2.7"],
        audit(plant(tmp_path / "k", {"/etc/rancher/k3s/config.yaml": "{}\n"}), [k3s])["4.2.7"],
        audit(plant(tmp_path / "k", files), [k3s])["4.2.7"],
    ]
    assert [(one.status, one.observed, one.source) for one in found] == [
        (Status.INFO, "--hostname-override=<node name>", "flag --hostname-override (set by MicroShift)"),
        (Status.INFO, "--hostname-override=<node name>", "flag --hostname-override (set by k3s)"),
        (Status.INFO, "--hostname-override=n1", "flag --hostname-override (/etc/rancher/k3s/config.yaml:1)"),
    ]


def test_microshift_in_another_role_is_no_kubelet(tmp_path: Path) -> None:
    """`microshift backup` and the like read nothing that a kubelet runs with."""
    files = {"/etc/systemd/system/microshift.service": "[Service]\nExecStart=microshift show-config\n"}
    found = stored(plant(tmp_path, files))
    assert (found["process"].status, "4.2.1" in found) == (Status.UNKNOWN, False)


def test_the_kubelet_of_talos_is_a_containers(tmp_path: Path) -> None:
    """It runs in containerd's namespace `system`, with a root file system of its own: unknown, and not read."""

    class Talos(StagedHost):
        def processes(self, _programs: frozenset[Program] = NODE_PROGRAMS) -> ProcessTable:
            return ProcessTable(total=90, others=1)

    host = Talos(plant(tmp_path, {"/etc/kubernetes/kubelet.yaml": config(ANONYMOUS)}), [])
    control = KubeletControl(schema.Kubelet(), host, prober=QUIET)
    found = {one.id.removeprefix("kubelet/"): one for one in control.judge(control.observe())}
    assert found["process"].status is Status.UNKNOWN
    assert "1 processes have such a name and are not the node's own" in found["process"].observed
    assert "4.2.1" not in found


def test_every_platform_of_the_documentation_has_a_tree() -> None:
    """A row that is not tried does not stand there."""
    page = (Path(__file__).parents[3] / "docs/controls/kubelet.md").read_text()
    table = page.partition("## Platforms")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    missing = set(rows) - set(PLATFORMS) - {"Talos"}
    assert (missing, set(PLATFORMS) - set(rows)) == (set(), set())
