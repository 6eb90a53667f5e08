"""docs/install.md: what stands there works as it stands, and the example overlay is what it says.

Blocks are run line by line: those that need a cluster against an API server, the others in a copy of the checkout. What
needs a registry or the DaemonSet's controller is left out and named here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, load
from agent.config.choices import Mode
from tests.support import apiservers
from tests.support.agents import NAMESPACE, ROOT
from tests.support.apiservers import ApiServer
from tests.support.charts import Objects, objects
from tests.support.programs import needed

INSTALL = (ROOT / "docs/install.md").read_text()
CLUSTER, REGISTRY = "# needs a cluster", "# needs a registry"
# No controller rolls anything out here.
ENDLESS = ("rollout status",)
COPIED = ("daemonset.yaml", "kustomization.yaml", "charts", "docs")


def blocks() -> list[list[str]]:
    """The lines of every block of commands."""
    found = re.findall(r"^ *```sh\n(.*?)^ *```$", INSTALL, re.MULTILINE | re.DOTALL)
    # A line that ends in a backslash or a bar goes on.
    return [re.sub(r"\\\n|(?<=\|)\n", "", textwrap.dedent(block)).splitlines() for block in found]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the page is about, in a folder of any name, with the values of the page."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    values = re.search(r"^```yml\n# values.yaml\n(.*?)^```$", INSTALL, re.MULTILINE | re.DOTALL)
    assert values is not None
    (folder / "values.yaml").write_text(values[1])
    return folder


def run(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of the page in a shell that finds our programs."""
    places = [str(Path(needed(name)).parent) for name in ("kubectl", "helm")]
    path = os.pathsep.join([str(Path(sys.executable).parent), *places, "/usr/sbin:/usr/bin:/sbin:/bin"])
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", line],
        cwd=folder, env={"PATH": path, "HOME": str(folder.parent), **more},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_block_is_run_or_says_what_it_needs() -> None:
    """None is only shown."""
    heads = [block[0] for block in blocks()]
    assert len(heads) == INSTALL.count("```sh\n") > 8
    said = [head.partition(":")[0] for head in heads if head.startswith("#")]
    assert [head for head in said if not head.startswith((CLUSTER, REGISTRY))] == []


def test_what_needs_no_cluster_works_as_it_stands(checkout: Path) -> None:
    """In order, from a checkout."""
    lines = [line for block in blocks() if not block[0].startswith("# needs") for line in block]
    assert {line.split()[0] for line in lines} == {"node-hardening-agent", "cp", "kubectl", "helm"}
    for line in lines:
        done = run(line, checkout)
        assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.fixture(params=["emulator", "real"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApiServer]:
    """A server of this test's own: the page takes the whole cluster, and away again."""
    folder = tmp_path / "server"
    folder.mkdir()
    with ExitStack() as stack:
        if request.param == "emulator":
            yield stack.enter_context(apiservers.emulator(folder))
            return
        assets = apiservers.assets()
        if assets is None:
            pytest.skip("no real control plane: KUBEBUILDER_ASSETS does not name a folder with etcd and kube-apiserver")
        yield stack.enter_context(apiservers.control_plane(assets, folder))


def on(cluster: ApiServer, checkout: Path, lines: list[str]) -> None:
    """Runs these lines against the server; each has to succeed."""
    kubeconfig = cluster.kubeconfig(checkout.parent / "kubeconfig")
    for line in lines:
        if not any(word in line for word in ENDLESS):
            done = run(line, checkout, KUBECONFIG=str(kubeconfig))
            assert done.returncode == 0, (line, done.stdout, done.stderr)


def with_a_cluster(*, helm: bool) -> list[str]:
    """The lines of the blocks that need a cluster: helm's way, or the others'."""
    chosen = [block for block in blocks() if block[0] == CLUSTER]
    return [line for block in chosen if any("helm " in line for line in block) is helm for line in block[1:]]


def test_the_ways_of_kubectl_work_on_a_cluster(cluster: ApiServer, checkout: Path) -> None:
    """apply, apply -k over it, the registry's Secret, people's rights, upgrade, uninstall: in the page's order."""
    for overlay, name in (("docs/audit", "hardening"), ("docs/overlay", "overlay")):
        shutil.copytree(checkout / overlay, checkout.parent / name)
        shutil.copy(checkout / "daemonset.yaml", checkout.parent / name)
    lines = with_a_cluster(helm=False)
    words = " ".join(lines)
    for command in ("apply -f daemonset.yaml", "apply -k", "create secret", "docs/rbac.yaml", "docs/uninstall.sh"):
        assert command in words
    on(cluster, checkout, lines)
    client = cluster.client()
    namespace = client.get(f"/api/v1/namespaces/{NAMESPACE}")
    assert namespace.status_code == 404 or namespace.json()["status"]["phase"] == "Terminating"
    client.close()


# helm keeps releases in protobuf, which the emulator does not speak.
REAL = pytest.mark.parametrize("cluster", ["real"], indirect=True)


@REAL
def test_the_way_of_helm_works_on_a_cluster(cluster: ApiServer, checkout: Path) -> None:
    """Namespace, label, install, upgrade, rollback."""
    lines = with_a_cluster(helm=True)
    assert [line.split()[1] for line in lines if line.startswith("helm ")] == ["install", "upgrade", "rollback"]
    on(cluster, checkout, lines)


@REAL
def test_helm_takes_over_what_kubectl_applied(cluster: ApiServer, checkout: Path) -> None:
    """With the flags that the page names, and nothing is made anew."""
    (block,) = [block for block in blocks() if block[0].startswith(f"{CLUSTER} that runs")]
    client = cluster.client()
    on(cluster, checkout, ["kubectl apply -f daemonset.yaml"])
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/node-hardening-agent"
    before = client.get(path).json()["metadata"]["uid"]
    on(cluster, checkout, block[1:])
    after = client.get(path).json()
    client.close()
    assert after["metadata"]["uid"] == before
    assert after["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert after["spec"]["template"]["spec"]["containers"][0]["image"].startswith("registry.example/")


# -- the overlay -------------------------------------------------------------------------------------------------------


def overlay(name: str, checkout: Path) -> Objects:
    """What kustomize makes of a copy of an overlay with the manifest in it."""
    copy = shutil.copytree(checkout / name, checkout.parent / "copy")
    shutil.copy(checkout / "daemonset.yaml", copy)
    done = run("kubectl kustomize ../copy", checkout)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def acting(config: Config) -> list[str]:
    """The sections that could change a node."""
    return [
        field.name for field in fields(config) if getattr(getattr(config, field.name), "mode", None) is Mode.ENFORCE
    ]


def test_the_audit_overlay_only_reports(checkout: Path, tmp_path: Path) -> None:
    """No section is left that could act; all else is the manifest with an image of one's own."""
    built, plain = overlay("docs/audit", checkout), objects((ROOT / "daemonset.yaml").read_text())
    policy, daemonset = (
        ("ConfigMap", NAMESPACE, "node-hardening-config"),
        ("DaemonSet", NAMESPACE, "node-hardening-agent"),
    )
    written = tmp_path / "config.yaml"
    written.write_text(built[policy]["data"]["config.yaml"])
    assert (acting(load(written)), len(acting(Config())) >= 4) == ([], True)
    same = set(plain) - {policy, daemonset}
    assert set(built) == set(plain)
    assert {key: built[key] for key in same} == {key: plain[key] for key in same}


def test_what_a_newcomer_copies_first_breaks_no_cloud() -> None:
    """The benchmark's list stops cloud-init on Azure, snaps and USB disks: nothing to begin with."""
    first = ("README.md", "docs/install.md", "docs/quickstart.md", "docs/overlay/config.yaml", "docs/audit/config.yaml")
    named = {name: re.findall(r"lists: *\[[^]]*\]", (ROOT / name).read_text()) for name in first}
    assert {name: found for name, found in named.items() if "cis" in "".join(found)} == {}


def test_the_example_overlay_is_what_it_says(checkout: Path, tmp_path: Path) -> None:
    """The image, the registry's Secret, the policy, and profiles beside the shipped ones; nothing else differs."""
    built = overlay("docs/overlay", checkout)
    plain = objects((ROOT / "daemonset.yaml").read_text())
    assert set(built) == set(plain)
    spec: dict[str, Any] = built["DaemonSet", NAMESPACE, "node-hardening-agent"]["spec"]["template"]["spec"]
    assert spec.pop("imagePullSecrets") == [{"name": "registry"}]
    wanted = plain["DaemonSet", NAMESPACE, "node-hardening-agent"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"].startswith("registry.example/platform/node-hardening-agent:")
    spec["containers"][0]["image"] = wanted["containers"][0]["image"]
    assert spec == wanted
    # Referenced by their plain names: a hash would restart every agent for what it would have seen in the folder.
    policy = ("ConfigMap", NAMESPACE, "node-hardening-config")
    written = tmp_path / "config.yaml"
    written.write_text(built[policy]["data"]["config.yaml"])
    assert load(written) == load(ROOT / "docs/overlay/config.yaml") != Config()
    changed = {policy}
    for kind, name in (("seccomp", "team.json"), ("apparmor", "team-reports")):
        key = ("ConfigMap", NAMESPACE, f"node-hardening-{kind}")
        shipped = plain[key]["data"]
        assert built[key]["data"] == {**shipped, name: (ROOT / "docs/overlay" / name).read_text()}
        changed.add(key)
    same = set(plain) - changed - {("DaemonSet", NAMESPACE, "node-hardening-agent")}
    assert {key: built[key] for key in same} == {key: plain[key] for key in same}
