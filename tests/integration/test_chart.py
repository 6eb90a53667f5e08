"""charts/node-hardening-agent with a real helm: daemonset.yaml when nothing is set, and what each value changes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml

from agent import __version__
from agent.config import Config, load
from agent.config.choices import Mode
from agent.config.overrides import merge
from agent.config.schema import Pool
from agent.reboot.lock.pools import CONTROL_PLANE, WORKERS, lease_names, pool_of
from tests.support import agents
from tests.support.agents import NAMESPACE, ROOT
from tests.support.apiservers import ApiServer, Client
from tests.support.charts import CHART, RELEASE, Helm, Objects, objects
from tests.support.cli import agent as command_line
from tests.support.programs import needed

NAME = "node-hardening-agent"
ALL_ON = (
    "--set",
    "prometheusRule.enabled=true,podMonitor.enabled=true,dashboard.enabled=true,rbac.users.enabled=true",
)
DAEMONSET = ("DaemonSet", NAMESPACE, NAME)
POLICY = ("ConfigMap", NAMESPACE, "node-hardening-config")

# A policy as a platform team writes it, off and hours without quotes, and the values around it.
PEOPLES_POLICY = """
interval: 10m
modprobe: {lists: [kubernetes, cis], file: /usr/local/lib/modprobe.d/deny.conf}
apparmor: {mode: off}
seccomp: {directory: /data/kubelet/seccomp}
kubelet: {skip: {4.2.6: no kube-proxy here}}
metrics: {address: "127.0.0.1:9200"}
reboot:
  concurrency: 2
  maxUnavailable: 2
  pool: {label: example.com/pool}
  sentinel: {command: [/usr/bin/needs-restarting, -r], exitCodes: {1: required, 0: none}}
  windows: [{days: [mon, tue], start: 22:00, end: 04:00, timezone: Europe/Berlin}]
  drain: {gracePeriod: null, timeout: 45m}
notify: [{type: slack, urlFile: /etc/node-hardening/secrets/slack, events: [RebootFailed]}]
"""
PEOPLE = f"""
image: {{repository: registry.example/platform/node-hardening-agent, pullPolicy: Always}}
imagePullSecrets: [{{name: registry}}]
secrets: {{existing: receivers}}
rbac: {{pools: [gpu, Big_Memory, control-plane]}}
config:
{indent(PEOPLES_POLICY, "  ")}"""


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


def pod(rendered: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = rendered[DAEMONSET]["spec"]["template"]["spec"]
    return spec


def container(rendered: Objects) -> dict[str, Any]:
    (only,) = pod(rendered)["containers"]
    return dict(only)


def mounts(rendered: Objects) -> dict[str, dict[str, Any]]:
    """The volumes by the paths at which they are mounted."""
    volumes = {volume["name"]: volume for volume in pod(rendered)["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in container(rendered)["volumeMounts"]}


def config(rendered: Objects, folder: Path) -> Config:
    """The rendered policy as the agent reads it."""
    path = folder / "config.yaml"
    path.write_text(rendered[POLICY]["data"]["config.yaml"])
    return load(path)


def load_text(text: str, folder: Path) -> Config:
    """A policy as a user wrote it."""
    path = folder / "written.yaml"
    path.write_text(text)
    return load(path)


# -- nothing set -------------------------------------------------------------------------------------------------------


def normalised(item: dict[str, Any]) -> dict[str, Any]:
    """Without the three things in which the chart may differ from daemonset.yaml:

    helm's own labels; the comments of the policy, which values.yaml has instead; and, elsewhere, the Namespace, which
    is rendered when it is asked for.
    """
    copy: dict[str, Any] = json.loads(json.dumps(item))
    labels = copy["metadata"]["labels"]
    for label in ("instance", "version", "managed-by"):
        labels.pop(f"app.kubernetes.io/{label}", None)
    labels.pop("helm.sh/chart", None)
    if copy["metadata"]["name"] == "node-hardening-config":
        copy["data"]["config.yaml"] = yaml.safe_load(copy["data"]["config.yaml"])
    return copy


def test_with_nothing_set_it_is_the_manifest(helm: Helm) -> None:
    """Object by object, field by field; the Namespace when it is asked for."""
    plain = {key: normalised(item) for key, item in objects((ROOT / "daemonset.yaml").read_text()).items()}
    rendered = {key: normalised(item) for key, item in helm.objects({"namespace": {"create": True}}).items()}
    assert rendered == plain
    namespace = ("Namespace", "", NAMESPACE)
    assert set(helm.objects()) == set(plain) - {namespace}


def test_every_object_says_whose_it_is(helm: Helm) -> None:
    """The label that docs/uninstall.sh goes by, and helm's."""
    for item in helm.objects(PEOPLE, "--set", "namespace.create=true").values():
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == NAME
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/version"] == __version__
        assert labels["helm.sh/chart"] == f"{NAME}-{__version__}"


def test_it_is_this_version() -> None:
    """Chart, application and package go together."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_icon_is_the_charts_own() -> None:
    """A picture, and no request to another server."""
    icon = yaml.safe_load((CHART / "Chart.yaml").read_text())["icon"]
    head, _, data = icon.partition(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == (CHART / "icon.svg").read_bytes()


def test_it_passes_lint_and_is_the_same_as_an_archive(helm: Helm, tmp_path: Path) -> None:
    """`helm lint --strict` finds nothing, with either set of values; the packed chart renders what the folder does."""
    given: tuple[dict[str, Any] | str, ...] = ({}, PEOPLE)
    for values in given:
        assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", str(CHART), "-f", helm.file(values))
    helm("package", str(CHART), "-d", str(tmp_path))
    archive = tmp_path / f"{NAME}-{__version__}.tgz"
    assert helm.template(PEOPLE, chart=archive) == helm.template(PEOPLE)


def test_another_namespace_is_followed_everywhere(helm: Helm) -> None:
    """Subjects, the admission policy's account and every object; no reference to the usual one is left."""
    text = helm("template", RELEASE, str(CHART), "-n", "platform", *ALL_ON)
    places = {key[1] for key in objects(text)}
    assert places == {"", "platform", "default", "kube-node-lease"}
    assert "system:serviceaccount:platform:node-hardening-agent" in text
    assert not re.search(r"(namespace: |-n |serviceaccount:)node-hardening(?![\w-])", text)


# -- the policy --------------------------------------------------------------------------------------------------------


def test_the_policy_is_rendered_as_it_is(helm: Helm, tmp_path: Path) -> None:
    """What helm makes of off, hours and numbers is the same policy to the agent, and `validate` finds no fault."""
    rendered = helm.objects(PEOPLE)
    assert config(rendered, tmp_path) == load_text(PEOPLES_POLICY, tmp_path) != Config()
    manifest = tmp_path / "rendered.yaml"
    manifest.write_text(helm.template(PEOPLE))
    done = command_line("validate", manifest, "-o", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["problems"]) == (0, []), done.stdout + done.stderr
    kinds = {one["kind"] for one in document["checked"]}
    assert {"configuration", "seccomp profile"} <= kinds


def test_an_empty_policy_is_the_default_policy(helm: Helm, tmp_path: Path) -> None:
    """Also where apiVersion and kind stand in the values: they are not there twice."""
    head = {"apiVersion": "node-hardening.io/v1alpha1", "kind": "AgentConfig"}
    policies: tuple[dict[str, Any], ...] = ({}, {"config": {}}, {"config": head})
    for values in policies:
        rendered = helm.objects(values)
        assert config(rendered, tmp_path) == Config()
        assert yaml.safe_load(rendered[POLICY]["data"]["config.yaml"]) == head


def test_locks_in_rbac_are_those_that_the_code_takes(helm: Helm) -> None:
    """Every pool's and slot's, by the names of agent/reboot/lock/pools.py, odd label values too."""
    rendered = helm.objects(PEOPLE)
    role = rendered["Role", NAMESPACE, NAME]
    (named,) = [
        rule["resourceNames"] for rule in role["rules"] if "patch" in rule["verbs"] and "leases" in rule["resources"]
    ]
    pool = Pool(label="example.com/pool")
    pools = {pool_of({"example.com/pool": value}, pool) for value in ("gpu", "Big_Memory", "control-plane")}
    assert sorted(named) == sorted(name for one in {*pools, WORKERS, CONTROL_PLANE} for name in lease_names(one, 2))


def test_folders_of_the_policy_can_be_written(helm: Helm) -> None:
    """modprobe.file's beside the usual one, which has to be emptied; seccomp.directory, or the kubelet's root."""
    there = mounts(helm.objects(PEOPLE))
    for path in ("/usr/local/lib/modprobe.d", "/etc/modprobe.d", "/data/kubelet/seccomp"):
        assert there[f"/host{path}"]["hostPath"] == {"path": path, "type": "DirectoryOrCreate"}
    moved = mounts(helm.objects({"kubelet": {"rootDir": "/data/kubelet/"}}))
    assert moved["/host/data/kubelet/seccomp"]["hostPath"]["path"] == "/data/kubelet/seccomp"
    assert "/host/var/lib/kubelet/seccomp" not in moved


@pytest.mark.parametrize(
    ("sections", "gone"),
    [
        ({"modprobe": {"mode": "off"}}, {"/host/etc/modprobe.d"}),
        ({"modprobe": {"mode": False, "file": "/run/modprobe.d/x.conf"}}, {"/host/etc/modprobe.d"}),
        ({"modprobe": {"mode": "audit"}}, {"/host/etc/modprobe.d"}),
        ({"apparmor": {"mode": "audit"}}, set()),
        ({"apparmor": {"mode": "off"}}, {"/etc/node-hardening/apparmor"}),
        ({"seccomp": {"mode": "audit"}}, {"/host/var/lib/kubelet/seccomp"}),
        ({"sysctl": {"mode": "audit"}}, set()),  # removes what enforce wrote
        ({"sysctl": {"mode": "off"}}, {"/host/etc/sysctl.d"}),
        ({"seccomp": {"mode": "off"}}, {"/host/var/lib/kubelet/seccomp", "/etc/node-hardening/seccomp"}),
    ],
)
def test_only_what_the_policy_uses_is_mounted(helm: Helm, sections: dict[str, Any], gone: set[str]) -> None:
    """A control that is off mounts nothing, one that audits no folder but those where it reverts its own writes."""
    whole, rendered = helm.objects(), helm.objects({"config": sections})
    assert set(mounts(whole)) - set(mounts(rendered)) == gone
    assert set(mounts(rendered)) <= set(mounts(whole))
    used = {one["name"] for one in container(rendered)["volumeMounts"]}
    assert {one["name"] for one in pod(rendered)["volumes"]} == used


def test_an_override_has_the_folders_that_it_writes(helm: Helm) -> None:
    """Pods are alike on all nodes: what one group of nodes enforces is mounted for all, unless all only report."""
    gpu = {"name": "gpu", "nodeSelector": "pool=gpu", "modprobe": {"mode": "enforce"}}
    values = {"config": {"modprobe": {"mode": "off"}, "overrides": [gpu]}}
    assert "/host/etc/modprobe.d" in mounts(helm.objects(values))
    assert "/host/etc/modprobe.d" not in mounts(helm.objects({**values, "audit": True}))


@pytest.mark.parametrize(
    ("address", "port", "host", "scraped"),
    [
        ("0.0.0.0:9300", 9300, None, True),
        ("[::]:9300", 9300, None, True),
        ("127.0.0.1:9200", 9200, "127.0.0.1", False),
        ("[::1]:9200", 9200, "::1", False),
    ],
)
def test_probes_follow_the_address(helm: Helm, address: str, port: int, host: str | None, scraped: bool) -> None:
    """The port of metrics.address, asked where it answers; nobody is told to scrape what answers on loopback alone."""
    rendered = helm.objects({"config": {"metrics": {"address": address}}})
    assert [item["containerPort"] for item in container(rendered)["ports"]] == [port]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        action = container(rendered)[probe]["httpGet"]
        assert (action["port"], action.get("host")) == ("metrics", host)
    annotations = rendered[DAEMONSET]["spec"]["template"]["metadata"]["annotations"]
    assert annotations.get("prometheus.io/port") == (str(port) if scraped else None)


def test_without_an_address_nothing_is_asked(helm: Helm) -> None:
    """No port, no probes, no annotation."""
    rendered = helm.objects({"config": {"metrics": {"address": ""}}})
    assert not {"ports", "startupProbe", "livenessProbe", "readinessProbe"} & set(container(rendered))
    assert "prometheus.io/scrape" not in rendered[DAEMONSET]["spec"]["template"]["metadata"]["annotations"]


def test_audit_only_reports(helm: Helm, tmp_path: Path) -> None:
    """Every section that could act, whatever the policy sets; what is off stays off, all else is the policy's."""
    given = load_text(PEOPLES_POLICY, tmp_path)
    audited = config(helm.objects(PEOPLE, "--set", "audit=true"), tmp_path)
    assert (audited.modprobe.mode, audited.seccomp.mode, audited.reboot.mode) == (Mode.AUDIT,) * 3
    assert audited.apparmor.mode is Mode.OFF is given.apparmor.mode
    assert audited.reboot == replace(given.reboot, mode=Mode.AUDIT)
    assert config(helm.objects({"audit": True}), tmp_path) == load(ROOT / "docs/audit/config.yaml")


def test_audit_reaches_the_overrides(helm: Helm, tmp_path: Path) -> None:
    """A group of nodes with a mode of its own only reports, too; what is off there stays off."""
    override = {"name": "gpu", "nodeSelector": "pool=gpu", "seccomp": {"mode": "off"}}
    policy = {"overrides": [{**override, "reboot": {"mode": "enforce"}, "modprobe": {"allow": ["sctp"]}}]}
    audited = config(helm.objects({"audit": True, "config": policy}), tmp_path)
    gpu = merge(audited, {"pool": "gpu"})
    modes = (gpu.reboot.mode, gpu.seccomp.mode, gpu.modprobe.mode, gpu.modprobe.allow)
    assert modes == (Mode.AUDIT, Mode.OFF, Mode.AUDIT, ("sctp",))


# -- every other value -------------------------------------------------------------------------------------------------


def test_the_image_can_be_named_by_tag_and_digest(helm: Helm) -> None:
    """The digest goes before the tag."""
    digest = "sha256:" + "0a" * 32
    image = {"repository": "registry.example/nha", "tag": "1.2.3"}
    assert container(helm.objects({"image": image}))["image"] == "registry.example/nha:1.2.3"
    assert container(helm.objects({"image": {**image, "digest": digest}}))["image"] == f"registry.example/nha@{digest}"
    rendered = helm.objects(PEOPLE)
    assert container(rendered)["image"] == f"registry.example/platform/node-hardening-agent:{__version__}"
    assert container(rendered)["imagePullPolicy"] == "Always"
    assert pod(rendered)["imagePullSecrets"] == [{"name": "registry"}]


def test_profiles_are_added_replaced_and_left_out(helm: Helm, tmp_path: Path) -> None:
    """By file name; without shipped ones only the values' own are left, and without any an empty folder."""
    own = json.dumps(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}
    )
    values: dict[str, Any] = {
        "profiles": {
            "without": ["audit.json", "web-service"],
            "seccomp": {"team.json": own, "hardened.json": own},
            "apparmor": {"team": "profile team {\n  file,\n}\n"},
        }
    }
    rendered = helm.objects(values)
    seccomp = rendered["ConfigMap", NAMESPACE, "node-hardening-seccomp"]["data"]
    shipped = (ROOT / "profiles/seccomp/prevent-chmod.json").read_text()
    assert seccomp == {"hardened.json": own, "team.json": own, "prevent-chmod.json": shipped}
    apparmor = rendered["ConfigMap", NAMESPACE, "node-hardening-apparmor"]["data"]
    assert set(apparmor) == {"deny-write", "hardened-default", "team"}
    assert apparmor["team"] == values["profiles"]["apparmor"]["team"]
    values["profiles"]["shipped"] = False
    assert set(helm.objects(values)["ConfigMap", NAMESPACE, "node-hardening-seccomp"]["data"]) == {
        "team.json",
        "hardened.json",
    }
    bare = helm.objects({"profiles": {"shipped": False}})
    assert bare["ConfigMap", NAMESPACE, "node-hardening-apparmor"]["data"] == {}
    # From a file, as docs/install.md has it.
    (tmp_path / "team.json").write_text(own)
    told = helm.objects(None, "--set-file", rf"profiles.seccomp.team\.json={tmp_path / 'team.json'}")
    assert told["ConfigMap", NAMESPACE, "node-hardening-seccomp"]["data"]["team.json"] == own


def test_receivers_secrets_are_mounted(helm: Helm) -> None:
    """One that is there, or one that the chart makes; read by root alone."""
    place = "/etc/node-hardening/secrets"
    assert mounts(helm.objects(PEOPLE))[place]["secret"] == {"secretName": "receivers", "defaultMode": 0o400}
    made = helm.objects({"secrets": {"create": {"slack": "https://hooks.example/x"}}})
    secret = made["Secret", NAMESPACE, "node-hardening-secrets"]
    assert secret["stringData"] == {"slack": "https://hooks.example/x"}
    assert mounts(made)[place]["secret"]["secretName"] == "node-hardening-secrets"
    assert not [key for key in helm.objects() if key[0] == "Secret"]


def test_the_admission_policy_follows_the_policy(helm: Helm) -> None:
    """Labels, annotations and the taint that the policy sets may be written, and each pool may have its locks."""
    values = """
config:
  reboot:
    concurrency: 3
    preferNoScheduleTaint: example.com/soon
    nodeLabels: {before: {example.com/b: "1"}, after: {example.com/a: "1", example.com/b: "0"}}
    nodeAnnotations: {before: {example.com/c: "true"}}
    pool: {label: example.com/pool}
rbac: {pools: [gpu]}
"""
    rendered = helm.objects(values)
    spec = rendered["ValidatingAdmissionPolicy", "", f"{NAME}-node-fields"]["spec"]
    variables = {one["name"]: json.loads(one["expression"]) for one in spec["variables"] if one["expression"][0] == "["}
    assert variables == {
        "moreLabels": ["example.com/a", "example.com/b"],
        "moreAnnotations": ["example.com/c"],
        "taints": ["node-hardening.io/not-hardened", "example.com/soon"],
    }
    quota = rendered["ResourceQuota", NAMESPACE, "node-hardening-locks"]
    assert quota["spec"]["hard"] == {"count/leases.coordination.k8s.io": "19"}


def test_the_admission_policy_can_be_left_out(helm: Helm) -> None:
    """For clusters that have none; nothing else changes."""
    whole, without = helm.objects(), helm.objects({"admissionPolicy": {"enabled": False}})
    gone = set(whole) - set(without)
    assert {key[0] for key in gone} == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {key: item for key, item in whole.items() if key not in gone} == without


def test_what_goes_into_the_pod_goes_into_the_pod(helm: Helm) -> None:
    """Each in its place, beside what the agent needs itself."""
    toleration = {"key": "gpu", "operator": "Exists"}
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    }
    rendered = helm.objects(
        {
            "priorityClassName": "ours",
            "updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
            "tolerations": [toleration],
            "nodeSelector": {"pool": "a"},
            "affinity": affinity,
            "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "terminationGracePeriodSeconds": 30,
            "podLabels": {"team": "platform"},
            "podAnnotations": {"a.example/b": "c"},
            "metrics": {"scrapeAnnotations": False},
            "extraArgs": ["--log-level", "debug"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        }
    )
    daemonset, spec, agent = rendered[DAEMONSET]["spec"], pod(rendered), container(rendered)
    assert daemonset["updateStrategy"] == {"type": "OnDelete"}
    assert daemonset["template"]["metadata"] == {
        "labels": {"app.kubernetes.io/name": NAME, "team": "platform"},
        "annotations": {"kubectl.kubernetes.io/default-container": "agent", "a.example/b": "c"},
    }
    assert daemonset["selector"]["matchLabels"] == {"app.kubernetes.io/name": NAME}
    assert (spec["priorityClassName"], spec["tolerations"], spec["affinity"]) == ("ours", [toleration], affinity)
    assert spec["nodeSelector"] == {"pool": "a", "kubernetes.io/os": "linux"}
    assert spec["terminationGracePeriodSeconds"] == 30
    assert agent["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    assert agent["args"] == ["run", "--host-root", "/host", "--host-exec", "nsenter", "--log-level", "debug"]
    assert agent["env"][-1] == {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    assert [item["name"] for item in agent["env"][:-1]] == ["NODE_NAME", "HOST_IP", "POD_NAMESPACE"]
    assert mounts(rendered)["/etc/ca"] == {"name": "ca", "configMap": {"name": "ca"}}


def test_what_watches_the_agents_is_what_docs_has(helm: Helm) -> None:
    """Off until asked for; docs/'s PodMonitor, alerts and dashboard, with the labels that they are selected by."""
    kinds = {"PodMonitor", "PrometheusRule"}
    assert not [key for key in helm.objects() if key[0] in kinds]
    wanted = {"enabled": True, "labels": {"release": "prometheus"}}
    rendered = helm.objects({"podMonitor": wanted, "prometheusRule": wanted})
    for kind in kinds:
        assert rendered[kind, NAMESPACE, NAME]["metadata"]["labels"]["release"] == "prometheus"
    documented = yaml.safe_load((ROOT / "docs/podmonitor.yaml").read_text())
    assert rendered["PodMonitor", NAMESPACE, NAME]["spec"] == documented["spec"]
    rules = yaml.safe_load((ROOT / "docs/prometheus-rules.yaml").read_text())
    assert rendered["PrometheusRule", NAMESPACE, NAME]["spec"] == rules
    board = helm.objects({"dashboard": {"enabled": True}})["ConfigMap", NAMESPACE, "node-hardening-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"] == {"node-hardening.json": (ROOT / "docs/grafana-dashboard.json").read_text()}
    moved = helm.template({"prometheusRule": {"enabled": True, "runbooks": "https://wiki.example/nh/"}})
    pages = set(re.findall(r"runbook_url: (\S+)#", moved))
    assert pages == {"https://wiki.example/nh/runbook.md"}


def test_rights_for_people_are_those_of_docs(helm: Helm) -> None:
    """Off until asked for; then docs/rbac.yaml, with the groups, the namespace and the locks of this release."""
    plain = objects((ROOT / "docs/rbac.yaml").read_text())
    without = helm.objects()
    assert not set(plain) & set(without)
    users: dict[str, Any] = {"users": {"enabled": True}}
    rendered = helm.objects({"rbac": users})
    assert {key: normalised(item) for key, item in rendered.items() if key not in without} == plain
    users["users"] |= {"readers": ["all"], "operators": ["sre", "on-call"]}
    changed = helm.objects({"rbac": {**users, "pools": ["gpu"]}, "config": {"reboot": {"pool": {"label": "p"}}}})
    bound = {
        key[2]: [subject["name"] for subject in item["subjects"]]
        for key, item in changed.items()
        if key[0] == "ClusterRoleBinding"
    }
    assert bound["node-hardening-reader"] == ["all", "sre", "on-call"]
    assert bound["node-hardening-operator"] == ["sre", "on-call"]
    (locks,) = [
        rule["resourceNames"]
        for rule in changed["Role", NAMESPACE, "node-hardening-operator"]["rules"]
        if "leases" in rule["resources"]
    ]
    assert sorted(locks) == sorted(lease_names(WORKERS, 1) + lease_names(CONTROL_PLANE, 1) + lease_names("gpu", 1))


@pytest.mark.parametrize(("value", "file"), [("denialEvents", "denial-events.yaml"), ("flagz", "flagz.yaml")])
def test_what_few_need_is_a_right_of_its_own(helm: Helm, value: str, file: str) -> None:
    """Off until asked for; then what that file of docs/ has."""
    plain = objects((ROOT / "docs" / file).read_text())
    without = helm.objects()
    assert not set(plain) & set(without)
    rendered = helm.objects({"rbac": {value: True}})
    assert {key: normalised(item) for key, item in rendered.items() if key not in without} == plain


def test_every_value_is_tried_here(helm: Helm) -> None:
    """One that is offered and never set in a test of this file could say anything."""
    text = Path(__file__).read_text()
    values = yaml.safe_load(helm("show", "values", str(CHART)))
    names = [name for top, value in values.items() for name in (top, *(value if isinstance(value, dict) else ()))]
    assert [name for name in names if name not in text] == []


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"imgae": {}}, "additional properties 'imgae' not allowed"),
        ({"image": {"pullPolicy": "always"}}, "at '/image/pullPolicy': value must be one of"),
        ({"image": {"digest": "sha256:12"}}, "at '/image/digest'"),
        ({"config": {"modprobe": {"mode": "enfroce"}}}, "at '/config/modprobe/mode': value must be one of 'enforce'"),
        ({"config": {"reboot": {"windws": []}}}, "additional properties 'windws' not allowed"),
        ({"config": {"interval": "5 minutes"}}, "at '/config/interval'"),
        ({"config": {"reboot": {"command": ["reboot"]}}}, "at '/config/reboot/command/0'"),
        ({"config": {"reboot": {"windows": [{"start": "25:00", "end": "04:00"}]}}}, "'/config/reboot/windows/0/start'"),
        ({"profiles": {"seccomp": {"team": "{}"}}}, "'team'"),
        ({"profiles": {"without": ["nothing.json"]}}, "profiles.without: no shipped profile is called nothing.json"),
        ({"kubelet": {"rootDir": "data"}}, "at '/kubelet/rootDir'"),
        ({"tolerations": {"operator": "Exists"}}, "at '/tolerations': got object, want array"),
        ({"secrets": {"existing": "a", "create": {"b": "c"}}}, "secrets.existing and secrets.create: one of them"),
        (
            {"config": {"notify": [{"type": "slack", "urlFile": "/etc/node-hardening/secrets/slack"}]}},
            "config.notify[0].urlFile names /etc/node-hardening/secrets/slack, and no Secret is mounted there",
        ),
        ({"config": {"reboot": {"pool": {"label": "p"}}}}, "rbac.pools has to list the values of that label"),
        (
            {"podMonitor": {"enabled": True}, "config": {"metrics": {"address": "127.0.0.1:9105"}}},
            'config.metrics.address "127.0.0.1:9105" is reachable only from the node itself',
        ),
    ],
)
def test_bad_values_are_refused_with_their_place(helm: Helm, values: dict[str, Any], said: str) -> None:
    """Before anything is rendered, in words that say where and what would be right."""
    assert said in helm.refusal(values)


def test_every_policy_that_validates_is_taken(helm: Helm, tmp_path: Path) -> None:
    """The documented policies pass the chart's schema: leaving lookaheads out of it refuses nothing more."""
    text = (ROOT / "docs/configuration.md").read_text()
    policies = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "AgentConfig" in block]
    assert len(policies) == 2
    for number, policy in enumerate(policies):
        path = tmp_path / f"{number}.yaml"
        path.write_text(policy)
        rendered = helm.objects(f"secrets: {{existing: receivers}}\nconfig:\n{indent(policy, '  ')}")
        assert config(rendered, tmp_path) == load(path)


# -- an API server -----------------------------------------------------------------------------------------------------


def kubectl(api: ApiServer, folder: Path, *words: str, stdin: str = "") -> str:
    """kubectl as the administrator; what it prints."""
    done = subprocess.run(
        [needed("kubectl"), "--kubeconfig", str(api.kubeconfig(folder / "admin.kubeconfig")), *words],
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        input=stdin, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    # What other tests have created without kubectl is no warning about the chart.
    warnings = [line for line in done.stderr.splitlines() if "last-applied-configuration" not in line]
    assert (done.returncode, warnings) == (0, []), done.stderr
    return done.stdout


@pytest.mark.parametrize("values", [{}, PEOPLE], ids=["default", "people"])
def test_an_api_server_takes_all_of_it(
    api: ApiServer, client: Client, tmp_path: Path, helm: Helm, values: dict[str, Any] | str
) -> None:
    """`helm template | kubectl apply --dry-run=server`: every object is valid, without a warning."""
    # In a dry run the namespace is not there for what lies in it.
    agents.install(client, ("Namespace",))
    text = helm.template(values, "--set", "namespace.create=true")
    told = kubectl(api, tmp_path, "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert len(told.splitlines()) == len(objects(text))


@pytest.mark.real_only
def test_a_release_is_installed_changed_and_taken_out(
    api: ApiServer, client: Client, tmp_path: Path, namespace: str
) -> None:
    """`helm install`, `upgrade`, `rollback` and `uninstall`: the policy follows, nothing is left.

    Helm speaks protobuf where it keeps releases, which the emulator does not.
    """
    helm = Helm(tmp_path, api.kubeconfig(tmp_path / "admin.kubeconfig"))
    place = ("-n", namespace)
    # The release makes cluster-wide objects; other tests of this server make daemonset.yaml's, of the same names.
    for kind in ("clusterrole", "clusterrolebinding"):
        client.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}s/{NAME}")
    for place_of_roles in ("default", "kube-node-lease"):
        for kind in ("roles", "rolebindings"):
            client.delete(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{place_of_roles}/{kind}/{NAME}")
    policy = f"/api/v1/namespaces/{namespace}/configmaps/node-hardening-config"
    try:
        told = helm("install", RELEASE, str(CHART), *place)
        assert f"kubectl -n {namespace} rollout status" in told
        assert "pod-security.kubernetes.io/enforce=privileged" in told
        assert "at any hour" in told
        helm("upgrade", RELEASE, str(CHART), *place, "--set", "config.reboot.mode=audit")
        assert "mode: audit" in client.get(policy).json()["data"]["config.yaml"]
        helm("rollback", RELEASE, "1", *place)
        assert "audit" not in client.get(policy).json()["data"]["config.yaml"]
    finally:
        helm.run("uninstall", RELEASE, *place)
    assert client.get(policy).status_code == 404
    assert client.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{NAME}").status_code == 404
