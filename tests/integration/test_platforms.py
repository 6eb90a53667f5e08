"""docs/platforms.md and the chart's examples: each is linked, renders with a real helm, and its policy is valid."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import Config, load
from agent.config.choices import Mode
from agent.controls.modprobe.denylists import load_list
from agent.controls.seccomp import syscalls
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.resolver import Platform, resolve
from tests.support import pages
from tests.support.agents import NAMESPACE, ROOT
from tests.support.charts import CHART, Helm, Objects, objects
from tests.support.programs import needed

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
DAEMONSET = ("DaemonSet", NAMESPACE, "node-hardening-agent")
PAGE = (ROOT / "docs/platforms.md").read_text()


def policy(rendered: Objects, folder: Path) -> Config:
    """As the agent reads it; a problem raises."""
    path = folder / "config.yaml"
    path.write_text(rendered["ConfigMap", NAMESPACE, "node-hardening-config"]["data"]["config.yaml"])
    return load(path)


def test_every_example_is_a_row_of_the_page_or_of_the_guide() -> None:
    """And every row has its example."""
    linked = set(re.findall(r"examples/([\w-]+\.yaml)", PAGE + (ROOT / "docs/gitops.md").read_text()))
    assert linked == {path.name for path in EXAMPLES}
    assert len(EXAMPLES) >= 14


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_renders_and_its_policy_is_valid(path: Path, tmp_path: Path) -> None:
    """In audit mode and enforced; it never denies what its platform runs on."""
    values = yaml.safe_load(path.read_text())
    assert values.get("audit") is True or path.name not in PAGE, "docs/platforms.md: they begin with `audit: true`"
    helm = Helm(tmp_path)
    audited = policy(helm.objects({**values, "audit": True}), tmp_path)
    assert Mode.ENFORCE not in (audited.modprobe.mode, audited.apparmor.mode, audited.seccomp.mode, audited.reboot.mode)
    rendered = helm.objects({**values, "audit": False})
    enforced = policy(rendered, tmp_path)
    lists = [ROOT / f"profiles/modprobe/{name}.yaml" for name in enforced.modprobe.lists]
    denied = {module.name for one in lists for module in load_list(one.read_text(), one.name)}
    assert not {"udf", "squashfs"} & (denied | set(enforced.modprobe.deny)) - set(enforced.modprobe.allow)
    (container,) = rendered[DAEMONSET]["spec"]["template"]["spec"]["containers"]
    root = values.get("kubelet", {}).get("rootDir", "/var/lib/kubelet")
    installs = f"/host{root}/seccomp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert installs or enforced.seccomp.mode is not Mode.ENFORCE


def test_production_names_its_image_by_digest(tmp_path: Path) -> None:
    """And on-call can open the alerts' pages."""
    rendered = Helm(tmp_path).objects((CHART / "examples/production.yaml").read_text())
    (container,) = rendered[DAEMONSET]["spec"]["template"]["spec"]["containers"]
    assert re.fullmatch(r"registry\.example/\S+@sha256:[0-9a-f]{64}", container["image"])
    (rule,) = [item for key, item in rendered.items() if key[0] == "PrometheusRule"]
    urls = {alert["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert {url.partition("#")[0] for url in urls} == {"https://wiki.example/node-hardening/runbook.md"}


def test_what_gitops_shows_renders(tmp_path: Path) -> None:
    """The values of Argo CD's Application and of Flux's HelmRelease; every other block is YAML with a kind."""
    found: dict[str, Any] = {}
    for block in pages.blocks(ROOT / "docs/gitops.md"):
        if block.kind == "yaml":
            found |= {item["kind"]: item["spec"] for item in yaml.safe_load_all(block.text) if "kind" in item}
    assert set(found) == {"Application", "OCIRepository", "HelmRelease", "Kustomization"}
    # Where the release's workflow pushes the chart: beside it, under the plain name, is the image.
    assert '"oci://$REGISTRY/$REGISTRY_ORGANIZATION/charts"' in (ROOT / ".github/workflows/release.yaml").read_text()
    assert found["OCIRepository"]["url"] == "oci://registry.example/platform/charts/node-hardening-agent"
    assert found["Application"]["source"]["repoURL"] == "registry.example/platform/charts"
    helm = Helm(tmp_path)
    for values in (found["Application"]["source"]["helm"]["valuesObject"], found["HelmRelease"]["values"]):
        rendered = helm.objects(values)
        assert policy(rendered, tmp_path).modprobe.mode is Mode.AUDIT
        assert ("Namespace", "", NAMESPACE) in rendered


def test_a_name_with_a_hash_is_followed_into_the_daemonset(tmp_path: Path) -> None:
    """docs/gitops.md: a changed policy is another ConfigMap, which the pods mount."""
    (block,) = (one for one in pages.blocks(ROOT / "docs/gitops.md") if "configMapGenerator" in one.text)
    copy = tmp_path / "overlay"
    copy.mkdir()
    (copy / "kustomization.yaml").write_text(block.text)
    shutil.copy(ROOT / "docs/overlay/config.yaml", copy)
    shutil.copy(ROOT / "daemonset.yaml", copy)
    argv = [needed("kubectl"), "kustomize", str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": os.defpath})
    assert done.returncode == 0, done.stderr
    built = objects(done.stdout)
    (name,) = (key[2] for key in built if key[0] == "ConfigMap" and key[2].startswith("node-hardening-policy"))
    assert re.fullmatch(r"node-hardening-policy-[a-z0-9]{10}", name)
    volumes = built[DAEMONSET]["spec"]["template"]["spec"]["volumes"]
    assert name in [volume.get("configMap", {}).get("name") for volume in volumes]


def test_the_image_is_built_for_any_architecture() -> None:
    """No file of the build names one without the other."""
    for name in ("Dockerfile", "tools/image", "tools/prune-image"):
        text = (ROOT / name).read_text()
        assert bool(re.search("x86.64|amd64", text)) is bool(re.search("aarch64|arm64", text)), name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x", "ppc64le", "riscv64"])
@pytest.mark.parametrize("path", sorted((ROOT / "profiles/seccomp").glob("*.json")), ids=lambda path: path.stem)
def test_shipped_seccomp_profiles_are_written_for_every_architecture(path: Path, machine: str) -> None:
    """Resolved for the machine, rules checked as its libseccomp adds them; the native architecture leads."""
    resolved = resolve(read(path.read_text(), path.name), Platform(machine, (6, 1)), path.name)
    written = json.loads(resolved.content)
    assert written["architectures"][0] == f"SCMP_ARCH_{machine.upper()}"
    named = {name for rule in written.get("syscalls", ()) for name in rule["names"]}
    assert bool(named) is bool([name for name in named if machine in syscalls.table().get(name, ())])
