"""A real Prometheus scrapes real daemons in trouble: alerts fire, name the node, and are over when the trouble is.

The same daemons answer for every metric and label that rules and dashboard ask for, and for every query of the latter.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.model import Severity, Status
from agent.reboot.phases import Phase
from agent.sandbox import builders
from agent.sandbox.faults import Fault, FaultKind
from tests.support import alerts
from tests.support.agents import NAMESPACE
from tests.support.daemons import get, program, prometheus
from tests.support.sites import LEASES, LOCK, Site, emulated, pod_on

LONG = 180.0  # a bound for what should come; only a failing test waits so long
JOB = "node-hardening-agent"
DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
KUBELET = "/var/lib/kubelet/config.yaml"
FOREVER = "/var/lib/reboot-required"  # where no reboot takes it away
EVERY_SECONDS = 5  # a pass; an alert on the age of one is hurried to four of them
# Two versions of the agent, another exporter and hours are not to be had here: test_alerts_rules.py has them.
ELSEWHERE = {"NodeHardeningVersionsDiffer", "NodeHardeningAgentMissing", "NodeHardeningNodeSilent"}
LATER = {"NodeHardeningAgentDown", "NodeHardeningAgentAbsent", "NodeHardeningRebootNotBack"}
# Whom each has to name, and nobody else; the others name more than one.
NAMED = {
    "NodeHardeningKubeletInsecure": {"loop"},
    "NodeHardeningUnknown": {"failing", "ill"},
    "NodeHardeningApplyFailed": {"ill"},
    "NodeHardeningDriftCorrectedAgain": {"steady"},
    "NodeHardeningRebootLockStuck": {"gone"},
    "NodeHardeningRebootUnverified": {"ill"},
    "NodeHardeningRebootFailed": {"failing"},
    "NodeHardeningDrainBlocked": {"held"},
    "NodeHardeningRebootLoopGuard": {"loop"},
    "NodeHardeningRebootUnknown": {"vague"},
    "NodeHardeningPassOverdue": {"ill"},
    "NodeHardeningConfigRejected": {"failing"},
    "NodeHardeningApiErrors": {"vague"},
}


@dataclass
class Trouble:
    """Two clusters in trouble and the Prometheus that looks at them."""

    site: Site
    other: Site
    url: str
    exported: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """The alerts that fire now, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in get(f"{self.url}/api/v1/alerts").json()["data"]["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def ask(self, query: str) -> dict[str, Any]:
        """Prometheus' answer to an instant query."""
        answer: dict[str, Any] = get(f"{self.url}/api/v1/query", query=query).json()
        return answer

    def note(self) -> None:
        """Remembers what every daemon exports now: labels and their values by metric."""
        for port in (*self.site.ports.values(), *self.other.ports.values()):
            try:
                text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=2).text
            except requests.RequestException:
                continue  # it is down or stopped, which are two of the troubles
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = self.exported.setdefault(sample.name, {})
                    for label, value in sample.labels.items():
                        labels.setdefault(label, set()).add(value)


def _configure(site: Site, name: str, *, modprobe: str = "enforce", canary: str = "", **reboot: Any) -> None:
    policy = {**site.policy_of(name, **reboot), "interval": f"{EVERY_SECONDS}s", "modprobe": {"mode": modprobe}}
    policy["rollout"] = {"canary": canary}
    site.machines[name].configure(policy)


def _kubelet(site: Site, name: str, *, anonymous: bool) -> None:
    """The configuration that the kubelet of the node runs with."""
    root = site.machines[name].root
    file = root.at(KUBELET)
    config = yaml.safe_load(file.read_text())
    config["authentication"]["anonymous"]["enabled"] = anonymous
    file.write_text(yaml.safe_dump(config))
    root.stop_kubelet()
    root.start_kubelet()


def _disturb(site: Site) -> None:
    """Somebody else's tool writes our file."""
    site.machines["steady"].root.at(DENY_FILE).write_text("# managed by another tool\n")


def _bring_trouble(site: Site, other: Site) -> None:
    """Nodes, each with something else that is wrong; the lock of the workers ends with `held`."""
    for name in ("steady", "failing", "loop", "held", "waiting", "vague"):
        site.add(name)
        _configure(site, name)
    site.add("ill", control_plane=True)
    # What did not pass before the reboot is not held against the node after it; a hook that fails is.
    _configure(site, "ill", hooks={"postReboot": [{"command": ["/bin/false"]}]})
    (site.machines["ill"].root.at(DENY_FILE) / "in-the-way").mkdir(parents=True)
    _configure(site, "failing", command=["/bin/false"])
    site.machines["failing"].root.stop_kubelet()
    _configure(site, "loop", sentinel={"file": FOREVER})
    _kubelet(site, "loop", anonymous=True)
    _configure(site, "waiting", modprobe="audit", canary="canary=true")
    _configure(site, "vague", sentinel={"file": "/nowhere/reboot-required"})
    other.add("stranded")
    _configure(other, "stranded")
    other.sandbox.add_node("gone")
    _gone_with_the_lock(other)
    other.power_on()
    other.require()
    site.start()
    site.require("steady", "ill")
    site.until(lambda: site.reboots("steady") == 1 and site.is_well("steady"), "a good reboot", seconds=LONG)
    site.require("failing")
    site.says("failing", "rolled back: the reboot command failed")
    site.machines["failing"].config.write_text("modprobe: {mode: sometimes}\n")
    site.machines["loop"].root.write(FOREVER, "for ever\n")
    site.says("loop", "waiting until the sentinel goes")
    site.sandbox.create("pods", pod_on("held", "held", labels={"app": "held"}))
    site.sandbox.create("poddisruptionbudgets", builders.budget("never", {"app": "held"}, max_unavailable=0))
    site.require("held")
    site.says("held", "draining")
    site.require("waiting")
    site.says("waiting", "waiting for the lock held by held")
    _configure(site, "waiting", canary="canary=true")  # no node is one
    site.sandbox.add_fault(Fault(FaultKind.STATUS, agent=r"\(vague\)", code=500))
    site.machines["vague"].crash()  # an agent at rest asks nothing


def _gone_with_the_lock(site: Site) -> None:
    """A holder that went down to reboot, as its Lease tells it; its Node stays."""
    uid = site.node("gone")["metadata"]["uid"]
    notes = {"node-hardening.io/phase": "rebooting", "node-hardening.io/cycle": "c1"}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LOCK, "namespace": NAMESPACE, "annotations": notes},
        "spec": {
            "holderIdentity": f"gone/{uid}",
            "leaseDurationSeconds": 10,
            "leaseTransitions": 1,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }
    answer = site.client.post(LEASES, lease)
    assert answer.status_code == 201, answer.text


def _mend(site: Site, other: Site) -> None:
    """What on-call would do about each."""
    site.sandbox.clear_faults()
    site.machines["failing"].root.start_kubelet()
    _configure(site, "failing", retryAfter="1s")
    site.machines["loop"].root.at(FOREVER).unlink()
    _kubelet(site, "loop", anonymous=False)
    _configure(site, "waiting")
    _configure(site, "vague")
    _configure(site, "ill")
    deny = site.machines["ill"].root.at(DENY_FILE)
    (deny / "in-the-way").rmdir()
    deny.rmdir()
    site.sandbox.delete("poddisruptionbudgets", "never")
    other.sandbox.delete("nodes", "gone")


@pytest.fixture
def trouble(tmp_path: Path) -> Iterator[Trouble]:
    """The daemons in trouble, and a Prometheus with the hurried rules."""
    path = program("prometheus", "prometheus")
    slow_drain = {"drain": {"timeout": "30m"}, "lock": {"leaseDuration": "5s"}}
    lost = {"rebootTimeout": "5s", "verifyTimeout": "5s", "lock": {"leaseDuration": "5s"}}
    with ExitStack() as stack:
        site = stack.enter_context(emulated(tmp_path / "site", slow_drain))
        other = stack.enter_context(emulated(tmp_path / "other", lost))
        _bring_trouble(site, other)
        ports = {**site.ports, **other.ports}
        scraped = [{"targets": [f"127.0.0.1:{port}"], "labels": {"node": name}} for name, port in ports.items()]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": JOB, "static_configs": scraped}],
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerts.hurried(age_seconds=4 * EVERY_SECONDS)))
        url, _ = stack.enter_context(prometheus(path, tmp_path))
        yield Trouble(site, other, url)


@pytest.mark.slow
def test_trouble_fires_is_understood_and_is_over_when_it_is_mended(trouble: Trouble) -> None:
    """One story, because the daemons take long to get into all this: alerts, names, queries, ends."""
    wanted = set(alerts.alerts()) - ELSEWHERE
    seen: dict[str, list[dict[str, Any]]] = {}

    def not_fired() -> set[str]:
        _disturb(trouble.site)
        trouble.note()
        seen.update(trouble.firing())
        return wanted - seen.keys()

    _until_none(lambda: not_fired() - LATER, "alerts that do not fire")
    silent = {name for name, query in alerts.queries().items() if not trouble.ask(query)["data"]["result"]}
    assert silent == set(), "queries of the dashboard that find nothing"
    stopped = trouble.site.machines["vague"].process
    assert stopped is not None
    stopped.send_signal(signal.SIGSTOP)
    try:
        _until_none(lambda: not_fired() & {"NodeHardeningAgentDown"}, "silence about an agent that is stopped")
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert _asked_but_not_exported(trouble.exported) == []
    assert _not_understood(seen) == []
    assert {name: {_who(one) for one in seen[name]} for name in NAMED} == NAMED

    _mend(trouble.site, trouble.other)
    # The machines' policies differ for good: each has a port and a reboot command of its own.
    _until_none(lambda: set(trouble.firing()) - {"NodeHardeningPolicyDiffers"}, "alerts that are not over")
    assert trouble.site.reboots("held") == 1

    for machine in (*trouble.site.machines.values(), *trouble.other.machines.values()):
        machine.stop()
    _until_none(lambda: {"NodeHardeningAgentAbsent"} - set(trouble.firing()), "silence although no agent is left")


def _until_none(look: Callable[[], set[str]], what: str) -> None:
    """Looks until there are none of these left."""
    ends = time.monotonic() + LONG
    while left := look():
        assert time.monotonic() < ends, f"{what}: {sorted(left)}"
        time.sleep(0.5)


def _who(alert: dict[str, Any]) -> str:
    """The node that an alert is about."""
    return str(alert["labels"].get("node") or alert["labels"].get("holder", ""))


def _not_understood(seen: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Texts with a hole or an error of the template in them, or that do not name their node."""
    told = [(one, one["annotations"]) for found in seen.values() for one in found]
    return [
        f"{one['labels']['alertname']}: {texts}"
        for one, texts in told
        if re.search(r"<no value>|<error|\bNaN\b|\{\{", " ".join(texts.values()))
        or _who(one) not in texts["summary"]
        or _who(one) not in texts["description"]
    ]


def _asked_but_not_exported(exported: dict[str, dict[str, set[str]]]) -> list[str]:
    """Metrics, labels and values that rules or dashboard ask for and that no daemon has."""
    asked = {**{name: rule["expr"] for name, rule in alerts.alerts().items()}, **alerts.queries()}
    # Of which not every one is to be seen at one moment.
    known: dict[str, set[str]] = {"phase": {*Phase, "off"}, "status": {*Status}, "severity": {*Severity}}
    every_label = alerts.TARGET_LABELS.union(*(labels for labels in exported.values()))
    wrong = []
    for name, query in asked.items():
        wrong += [f"{name}: no label {label}" for label in alerts.grouped_by(query) - every_label]
        for metric, matchers in alerts.metrics_of(query).items():
            labels = {key: set[str]() for key in alerts.FOREIGN.get(metric, ())} or exported.get(metric, {})
            if metric not in exported.keys() | alerts.FOREIGN.keys():
                wrong.append(f"{name}: no metric {metric}")
            for label, operator, value in matchers:
                if label not in labels.keys() | alerts.TARGET_LABELS:
                    wrong.append(f"{name}: {metric} has no label {label}")
                elif label in labels and operator in ("=", "=~"):
                    there = labels[label] | known.get(label, set())
                    wrong += [f"{name}: {metric} has no {label} {one}" for one in value.split("|") if one not in there]
    return wrong
