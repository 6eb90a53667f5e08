"""Each alert fires when it should and not before: docs/prometheus-rules.yaml in promtool, on series made for it.

No daemon here: that the series are those of real daemons is test_alerts_prometheus.py's promise.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.alerts import ROOT, RULES, alerts, rules
from tests.support.daemons import program

DAY = 24 * 60
FINDINGS = "node_hardening_findings"
PHASE = "node_hardening_reboot_phase"
FAILURES = "node_hardening_reboot_failures"
REQUIRED = "node_hardening_reboot_required"
_BEAT = "node_hardening_node_heartbeat_timestamp_seconds"
CANNOT_TELL = " ".join(["NaN"] * 70)


def target(node: str, **labels: str) -> str:
    """The labels of one series of a node's agent."""
    every = {"job": "node-hardening-agent", "instance": f"{node}:9105", "node": node, **labels}
    return "{" + ", ".join(f'{key}="{value}"' for key, value in every.items()) + "}"


@dataclass(frozen=True)
class Case:
    """An alert, what there has to be for it, and what looks much the same and must not fire.

    series: by metric and labels beside the target's, as promtool notes them; `bad` is the node that fires, `calm` those
    that do not. at: minutes after which it fires; one evaluation earlier it does not. labels: of the alert. slow:
    samples are five minutes apart and evaluations thirty, rather than one and one.
    """

    alert: str
    at: int
    bad: Mapping[str, str] = field(default_factory=dict)
    calm: tuple[Mapping[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    aggregated: bool = False
    slow: bool = False

    def document(self) -> dict[str, Any]:
        """promtool's test."""
        nodes = [("bad", self.bad), *((f"calm-{number}", calm) for number, calm in enumerate(self.calm))]
        series = [
            {"series": _series(node, metric), "values": values}
            for node, metrics in nodes
            for metric, values in metrics.items()
        ]
        severity = alerts()[self.alert]["labels"]["severity"]
        wanted = {"alertname": self.alert, "alertstate": "firing", "severity": severity, **self.labels}
        if not self.aggregated:
            wanted |= {"job": "node-hardening-agent", "instance": "bad:9105", "node": "bad"}
        text = ", ".join(f'{key}="{value}"' for key, value in sorted(wanted.items()))
        expr = f'ALERTS{{alertname="{self.alert}", alertstate="firing"}}'
        fires = [{"labels": f"ALERTS{{{text}}}", "value": 1}]
        return {
            "name": self.alert,
            "interval": "5m" if self.slow else "1m",
            "input_series": series,
            "promql_expr_test": [
                {"expr": expr, "eval_time": f"{self.at - (30 if self.slow else 1)}m", "exp_samples": []},
                {"expr": expr, "eval_time": f"{self.at}m", "exp_samples": fires},
            ],
        }


def _series(node: str, metric: str) -> str:
    """`name` or `name{a="b"}` with the labels of the node's target; one that begins with ! is nobody's of ours."""
    if metric.startswith("!"):
        return metric[1:]
    name, _, labels = metric.partition("{")
    return name + target(node, **dict(re.findall(r'(\w+)="([^"]*)"', labels)))


CASES = [
    Case(
        "NodeHardeningNodeNonCompliant",
        30,
        {f'{FINDINGS}{{control="seccomp", severity="low", status="fail"}}': "2x40"},
        (
            {f'{FINDINGS}{{control="kubelet", severity="high", status="fail"}}': "2x40"},
            {f'{FINDINGS}{{control="seccomp", severity="low", status="pass"}}': "2x40"},
            {f'{FINDINGS}{{control="modprobe", severity="high", status="fail"}}': "1x20 _x20"},
        ),
        {"control": "seccomp"},
    ),
    Case(
        "NodeHardeningKubeletInsecure", 60,
        {f'{FINDINGS}{{control="kubelet", severity="high", status="fail"}}': "1x70"},
        (
            {f'{FINDINGS}{{control="kubelet", severity="medium", status="fail"}}': "9x70"},
            {f'{FINDINGS}{{control="kubelet", severity="critical", status="unknown"}}': "9x70"},
            {f'{FINDINGS}{{control="modprobe", severity="high", status="fail"}}': "9x70"},
        ),
        {"control": "kubelet"},
    ),
    Case(
        "NodeHardeningNodeNotHardened", DAY, {"node_hardening_hardened": "0x300"},
        ({"node_hardening_hardened": "1x300"}, {"node_hardening_hardened": "0x200 1x100"}), slow=True,
    ),
    Case(
        "NodeHardeningUnknown", 60, {f'{FINDINGS}{{control="kubelet", severity="low", status="unknown"}}': "1x70"},
        (
            {f'{FINDINGS}{{control="kubelet", severity="low", status="not-applicable"}}': "1x70"},
            {f'{FINDINGS}{{control="modprobe", severity="low", status="fail"}}': "1x70"},
        ),
        {"control": "kubelet"},
    ),
    Case(
        "NodeHardeningApplyFailed", 16, {'node_hardening_apply_failures_total{control="seccomp"}': "0+1x40"},
        ({'node_hardening_apply_failures_total{control="seccomp"}': "7x40"},), {"control": "seccomp"},
    ),
    Case(
        # Every ten minutes: the sixth time within the hour, and ten minutes for the alert.
        "NodeHardeningDriftCorrectedAgain",
        61,
        {'node_hardening_drift_corrected_total{control="modprobe"}': "0+0.1x100"},
        ({'node_hardening_drift_corrected_total{control="modprobe"}': "0+0.08x100"},), {"control": "modprobe"},
    ),
    Case(
        "NodeHardeningPolicyDiffers", 120, {'node_hardening_policy_info{hash="aaa"}': "1x130"},
        ({'node_hardening_policy_info{hash="bbb"}': "1x130"},), aggregated=True,
    ),
    Case(
        "NodeHardeningPolicyHeldBack", 60, {'node_hardening_policy_held_back{reason="CanaryFailed"}': "1x70"},
        (
            {'node_hardening_policy_held_back{reason="Soaking"}': "1x70"},
            {'node_hardening_policy_held_back{reason="Aborted"}': "1x70"},
            {'node_hardening_policy_held_back{reason="WaitingForCanaries"}': "1x50 _x20"},
        ),
        {"reason": "CanaryFailed"}, aggregated=True,
    ),
    Case(
        "NodeHardeningRebootLockStuck", 31,
        {
            'node_hardening_reboot_lock_holder{holder="gone"}': "1x40",
            "node_hardening_reboot_lock_held_since_timestamp_seconds": "60x40",
            "node_hardening_reboot_lock_stuck": "0x29 1x10",
        },
        ({
            'node_hardening_reboot_lock_holder{holder="slow"}': "1x40",
            "node_hardening_reboot_lock_held_since_timestamp_seconds": "60x40",
            "node_hardening_reboot_lock_stuck": "0x40",
        },),
        {"holder": "gone"}, aggregated=True,
    ),
    Case(
        "NodeHardeningRebootNotBack", 30,
        {f'{PHASE}{{phase="idle"}}': "1x4 _x40", f'{PHASE}{{phase="draining"}}': "_x4 1x4 _x40", "up": "1x9 0x40"},
        (
            {f'{PHASE}{{phase="idle"}}': "1x9 _x40", "up": "1x9 0x40"},
            {f'{PHASE}{{phase="draining"}}': "1x50", "up": "1x50"},
            {
                f'{PHASE}{{phase="draining"}}': "1x3 _x40",
                f'{PHASE}{{phase="idle"}}': "_x4 1x4 _x40",
                "up": "1x9 0x40",
            },
        ),
    ),
    Case(
        "NodeHardeningRebootUnverified", 20, {f'{PHASE}{{phase="verifying"}}': "1x30"},
        ({f'{PHASE}{{phase="draining"}}': "1x30"}, {f'{PHASE}{{phase="verifying"}}': "1x9 _x20"}),
        {"phase": "verifying"},
    ),
    Case(
        "NodeHardeningRebootFailed", 5, {FAILURES: "2x9", REQUIRED: "1x9"},
        (
            {FAILURES: "0x9", REQUIRED: "1x9"},
            {FAILURES: "2x9", REQUIRED: "0x9"},
            {FAILURES: "2x9", REQUIRED: CANNOT_TELL},
        ),
    ),
    Case(
        # A second after a week, at the next evaluation, and an hour for the alert.
        "NodeHardeningRebootOverdue", 7 * DAY + 90,
        {"node_hardening_reboot_waiting_since_timestamp_seconds": "60x2100"},
        (
            {"node_hardening_reboot_waiting_since_timestamp_seconds": "0x2100"},
            {"node_hardening_reboot_waiting_since_timestamp_seconds": "9999x2100"},
        ),
        slow=True,
    ),
    Case(
        "NodeHardeningDrainBlocked", 15, {'node_hardening_reboot_blocked{by="drain"}': "1x8 _ 1x9"},
        (
            {'node_hardening_reboot_blocked{by="window"}': "1x20"},
            {'node_hardening_reboot_blocked{by="drain"}': "1x5 _x15"},
        ),
        {"by": "drain"},
    ),
    Case(
        "NodeHardeningRebootLoopGuard", 60, {'node_hardening_reboot_blocked{by="guard"}': "1x70"},
        ({'node_hardening_reboot_blocked{by="backoff"}': "1x70"},), {"by": "guard"},
    ),
    Case(
        "NodeHardeningRebootUnknown", 60, {REQUIRED: CANNOT_TELL, f'{PHASE}{{phase="unknown"}}': "1x70"},
        (
            {REQUIRED: CANNOT_TELL, f'{PHASE}{{phase="off"}}': "1x70"},
            {REQUIRED: "1x70", f'{PHASE}{{phase="waiting"}}': "1x70"},
            {REQUIRED: "0x70", f'{PHASE}{{phase="idle"}}': "1x70"},
        ),
    ),
    Case(
        "NodeHardeningAgentAbsent", 20, {'node_hardening_build_info{version="1"}': "1x4 stale"}, aggregated=True,
    ),
    Case(
        "NodeHardeningAgentDown", 15, {"up": "0x20"},
        ({"up": "1x20"}, {"up": "0x10 1x10"}, {'!up{job="kubelet", instance="x"}': "0x20"}),
    ),
    Case(
        "NodeHardeningAgentMissing", 30, {'!kube_node_info{node="bare"}': "1x40"},
        ({'!kube_node_info{node="calm-0"}': "1x40", "node_hardening_build_info": "1x40"},),
        {"node": "bare"}, aggregated=True,
    ),
    Case(
        # The agent is gone, and was scraped before; another cannot write its Node; a node that is gone is no target.
        "NodeHardeningNodeSilent", 166, {_BEAT: "0x9 _x190", "up": "1x9 0x190"},
        (
            {_BEAT: "0+60x190", "up": "1x190"},
            {_BEAT: "0x60 3600x60 7200x70", "up": "1x190"},
            {_BEAT: "0x9 _x190", "up": "1x9 _x190"},
        ),
    ),
    Case(
        # An hour after the last good pass, and a quarter.
        "NodeHardeningPassOverdue", 77, {"node_hardening_last_successful_pass_timestamp_seconds": "60x90"},
        (
            {"node_hardening_last_successful_pass_timestamp_seconds": "0+60x90"},
            {"node_hardening_last_successful_pass_timestamp_seconds": "0x70 4200x20"},
        ),
    ),
    Case(
        "NodeHardeningConfigRejected", 5, {"node_hardening_config_rejected": "1x9"},
        ({"node_hardening_config_rejected": "0x9"},),
    ),
    Case(
        "NodeHardeningApiErrors", 36, {'node_hardening_api_errors_total{error="403"}': "0+1x60"},
        (
            {'node_hardening_api_errors_total{error="409"}': "0+9x60"},
            {'node_hardening_api_errors_total{error="429"}': "0+9x60"},
            {'node_hardening_api_errors_total{error="500"}': "0+0.1x60"},
            {'node_hardening_api_errors_total{error="Unreachable"}': "0+9x20 180x40"},
        ),
        {"error": "403"},
    ),
    Case(
        "NodeHardeningVersionsDiffer", DAY, {'node_hardening_build_info{version="1"}': "1x300"},
        ({'node_hardening_build_info{version="2"}': "1x300"},), aggregated=True, slow=True,
    ),
]  # fmt: skip


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """promtool's answer."""
    argv = [program("promtool", "prometheus"), *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def run(folder: Path, *tests: Mapping[str, Any], slow: bool = False) -> subprocess.CompletedProcess[str]:
    """promtool's verdict on these tests of the rules."""
    document = {"rule_files": [str(RULES)], "evaluation_interval": "30m" if slow else "1m", "tests": tests}
    file = folder / "tests.yaml"
    file.write_text(json.dumps(document))  # JSON is YAML
    return promtool("test", "rules", file)


def test_promtool_takes_the_rules() -> None:
    """Every expression and template parses, and no rule is there twice."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert (done.returncode, f"{len(alerts())} rules found" in done.stdout) == (0, True), done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    """Once, with something that fires; where one node alone decides, with a calm one beside it."""
    assert [case.alert for case in CASES] == list(alerts())
    alone = {"NodeHardeningAgentAbsent"}
    assert [case.alert for case in CASES if not case.bad or not (case.calm or case.alert in alone)] == []


def test_each_fires_for_whom_it_should_and_not_before(tmp_path: Path) -> None:
    """For that node alone, with its labels; a minute earlier it was pending or nothing."""
    for slow in (False, True):
        done = run(tmp_path, *(case.document() for case in CASES if case.slow is slow), slow=slow)
        assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_test_of_promtool_can_fail(tmp_path: Path) -> None:
    """The bad node's series taken away: nobody fires, and promtool says so."""
    document = CASES[0].document()
    document["input_series"] = [one for one in document["input_series"] if "bad:9105" not in one["series"]]
    assert run(tmp_path, document).returncode == 1


def test_every_alert_can_be_understood_at_three_in_the_morning() -> None:
    """A severity, one line that names the node or the count, a command to type, and where to read on."""
    for name, rule in alerts().items():
        told = rule["annotations"]
        assert name.startswith("NodeHardening")
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["for"], name
        assert set(told) == {"summary", "description", "runbook_url"}, name
        assert len(told["summary"].splitlines()[0]) < 120, name
        assert re.search(r"Next: kubectl \S+", told["description"]), name
        assert re.search(r"\{\{ (or \$labels\.node|\$labels\.(node|holder)|\$value)|at all", told["summary"]), name


def test_the_comments_commands_do_what_they_say() -> None:
    """A PrometheusRule with the same groups, and links that begin with somebody's own address."""
    text = RULES.read_text()
    wrap = re.search(r"^# +(\{ printf .*\n# .*) \| kubectl", text, re.MULTILINE)
    assert wrap is not None
    command = re.sub(r"\n# +", " ", wrap[1])
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    made = yaml.safe_load(done.stdout)
    assert (made["apiVersion"], made["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert made["spec"] == rules()
    link = re.search(r"^# +(sed 's\|runbook_url.*)$", text, re.MULTILINE)
    assert link is not None
    done = subprocess.run(["/bin/sh", "-c", link[1]], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    linked = [
        rule["annotations"]["runbook_url"] for group in yaml.safe_load(done.stdout)["groups"] for rule in group["rules"]
    ]
    assert len(linked) == len(alerts())
    assert all(url.startswith("https://wiki.example/node-hardening/runbook.md#") for url in linked)


def test_the_commands_at_the_head_of_the_file_work() -> None:
    """The Prometheus operator gets the same groups, and every alert an address that on-call can open."""
    head = RULES.read_text().partition("\ngroups:")[0].replace("\n#", "\n")
    wrapped = re.search(r"^ +\{ printf .*?\}(?= \| kubectl apply)", head, re.MULTILINE | re.DOTALL)
    published = re.search(r"^ +sed .*runbook_url.*$", head, re.MULTILINE)
    assert wrapped is not None
    assert published is not None
    made, addressed = (yaml.safe_load(_shell(found[0])) for found in (wrapped, published))
    assert (made["kind"], made["spec"]) == ("PrometheusRule", rules())
    urls = [rule["annotations"]["runbook_url"] for group in addressed["groups"] for rule in group["rules"]]
    assert len(urls) == len(alerts())
    assert {url.partition("#")[0] for url in urls} == {"https://wiki.example/node-hardening/runbook.md"}


def _shell(script: str) -> str:
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout
