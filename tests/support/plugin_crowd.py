"""Fleets for the report: thirty nodes in every state at once, and a synthetic one of thousands.

The thirty are run by real coordinators in virtual time (plugin_fleet), and their Nodes are what the daemon's own
writers make of that. The thousands are made of the same writers' pieces, one Node object at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent import __version__
from agent import annotations as keys
from agent.annotations import REBOOT_HISTORY, REBOOT_STATUS
from agent.model import Finding, Severity, Status
from agent.plugin.cluster import locks, nodes, policy
from agent.plugin.cluster.nodes import Keep
from agent.plugin.page.aggregate import Aggregator, Heading, Snapshot
from agent.plugin.views import fleet
from agent.reboot.history import with_entry
from agent.reboot.phases import Phase
from agent.reboot.state import Releasing, Stamp
from agent.reboot.status import RebootStatus, StatusReason
from agent.report import node_status
from agent.sandbox import builders
from agent.sandbox.server import Sandbox
from tests.support import plugin_fleet
from tests.support.plugin_emulated import becomes
from tests.support.plugin_fleet import ANONYMOUS, NAMESPACE, NO_KUBELET, SCTP, Object, Staged
from tests.support.reboot_trouble import CommandFate

POLICY = """\
reboot:
  pool: {label: example.org/pool}
  blockers: {minimumGap: 0s}
"""
_POOLS = {"cp": 3, "worker": 21, "gpu": 4, "edge": 2}
NAMES = tuple(f"{pool}-{number:02}" for pool, size in _POOLS.items() for number in range(1, size + 1))
TIMEOUT = Finding(
    "kubelet/4.2.5",
    "kubelet",
    "Idle streaming connections end",
    Status.FAIL,
    Severity.MEDIUM,
    "0s: never",
    "at most 4h",
    "/var/lib/kubelet/config.yaml",
    "Set streamingConnectionIdleTimeout: 4h in /var/lib/kubelet/config.yaml and restart the kubelet.",
)
CIPHERS = Finding(
    "kubelet/4.2.12",
    "kubelet",
    "Only strong cipher suites are offered",
    Status.FAIL,
    Severity.LOW,
    "not set: the defaults of Go",
    "strong suites only",
    "default",
    "Set tlsCipherSuites in /var/lib/kubelet/config.yaml to suites of TLS 1.2 with AEAD and forward secrecy.",
)
PROFILE = Finding(
    "apparmor/profile/k8s-hardened-default",
    "apparmor",
    "AppArmor profile k8s-hardened-default is loaded",
    Status.FAIL,
    Severity.HIGH,
    "loaded in complain mode",
    "loaded in enforce mode",
    "securityfs",
    "Run `node-hardening-agent apply`: it loads the profile again.",
)
SECCOMP = Finding(
    "seccomp/profile/team.json",
    "seccomp",
    "Seccomp profile team.json is valid and installed",
    Status.UNKNOWN,
    Severity.MEDIUM,
    "the kubelet's root directory is unknown",
    "installed below the kubelet's root folder",
    "",
    "Set seccomp.directory to the seccomp folder below the kubelet's --root-dir.",
)


def crowd() -> Staged:
    """Thirty nodes: most are well, and of everything that can be the matter there is something."""
    stage = Staged(POLICY, names=NAMES)
    stage.world.slots = len(_POOLS)  # one lock a pool
    for name in NAMES:
        pool = name.partition("-")[0]
        labels = {"node-role.kubernetes.io/control-plane": ""} if pool == "cp" else {"example.org/pool": f"{pool}s"}
        stage.world.set_node(replace(stage.world.nodes[name], labels=labels))
    stage.run(60)
    _remember(stage)
    _find(stage)
    _want(stage)
    return stage


def _remember(stage: Staged) -> None:
    """The past: a kernel for most workers, systemd for the control plane; one drain took its time."""
    at = stage.now - 6 * 86400 - 7200
    for number, name in enumerate(name for name in NAMES if name.startswith(("worker-", "cp-"))):
        worker = name.startswith("worker-")
        if number > 20:
            continue
        drain, down = (1860.0 if number == 8 else 20.0 + 9 * number), 45.0 + 7 * number
        marks = (
            (Phase.CORDONED, at),
            (Phase.DRAINING, at + 2),
            (Phase.REBOOTING, at + 2 + drain),
            (Phase.VERIFYING, at + 2 + drain + down),
            (Phase.RELEASING, at + 14 + drain + down),
        )
        state = Releasing(
            cycle="c",
            entered=Stamp("b", 0.0, at),
            packages="linux-image-6.1.0-26-amd64, libc6" if worker else "systemd",
            kernel="6.1.0-25-amd64" if worker else "6.1.0-26-amd64",
            pods=4 + number * 5 % 23,
            slowest=f"shop/checkout-7d9f8c-{number} {drain * 0.8:.0f} s",
            marks=marks,
        )
        stage.world.annotate(name, REBOOT_HISTORY, with_entry("", state, kernel="6.1.0-26-amd64"))
        at = marks[-1][1] + 40


def _find(stage: Staged) -> None:
    """What does not comply."""
    found: dict[str, tuple[Finding, ...]] = {
        "worker-03": (ANONYMOUS, TIMEOUT, CIPHERS),
        "worker-07": (TIMEOUT, CIPHERS),
        "worker-12": (replace(ANONYMOUS, observed="not set, and the default of a kubelet without a file is true"),),
        "worker-17": (SCTP, TIMEOUT),
        "gpu-03": (PROFILE, TIMEOUT),
        "edge-01": (NO_KUBELET, SECCOMP),
    }
    for name, more in found.items():
        stage.reports[name] = plugin_fleet.report(name, *more)
    stage.absent.add("worker-21")
    stage.crashing.add("worker-20")


def _want(stage: Staged) -> None:
    """Reboots now: one drains, many wait, one is lost, one is opted out, one is asked for, one fails."""
    stage.machine("gpu-01").down_seconds = 1e9
    stage.want("gpu-01", reason="nvidia-driver-550")
    stage.until_phase("gpu-01", Phase.REBOOTING)
    stage.want("gpu-02", reason="nvidia-driver-550")
    stage.until(lambda: any(lease.stuck for lease in stage.world.leases.values()))
    stage.skip("worker-05", "holds the licence server until Friday (by anna@example.org)")
    stage.machine("worker-01").pdb_until = 1e9
    stage.want("worker-01")
    stage.until_phase("worker-01", Phase.DRAINING)
    stage.want("worker-02", "worker-05", "worker-06", "worker-10", "worker-14", "worker-19")
    stage.request("worker-15", "kernel parameter of OPS-4711 (by ben@example.org)")
    stage.machine("cp-03").sentinel_unknown = True
    stage.want("cp-03")
    stage.machine("cp-02").blocked_by = "alerts: KubeAPIErrorBudgetBurn, etcdInsufficientMembers"
    stage.want("cp-02")
    stage.run(420)
    stage.machine("edge-02").fate = CommandFate.FAILS
    stage.want("edge-02")
    stage.until_phase("edge-02", Phase.ROLLED_BACK)
    stage.run(120)


def objects(stage: Staged) -> list[Object]:
    """The crowd's Nodes; two have an agent of another version or policy."""
    found = stage.nodes()
    for node in found:
        notes = node["metadata"]["annotations"]
        if node["metadata"]["name"] == "edge-01":
            notes.update({keys.VERSION: "0.0.9", keys.POLICY: "b7709f2e61c04d53"})
        if node["metadata"]["name"] == "worker-16":
            refused = "config.yaml: line 4: reboot.windows[0].start: '25:00' is no time of day; write HH:MM"
            notes.update({keys.CONFIG_PROBLEM: refused, keys.POLICY: "11c94a80d2f5e7b6"})
    return found


def snapshot(stage: Staged, found: list[Object] | None = None, **heading: Any) -> Snapshot:
    """What `report` would have read, without an API server in between."""
    rules = replace(
        policy.of({"data": {"config.yaml": stage.policy}}, f"configmap/node-hardening-config in {NAMESPACE}"),
        agents=(len(stage.names) - len(stage.absent) - len(stage.crashing) - 1, len(stage.names)),
    )
    held = tuple(lock for one in stage.leases() if (lock := locks.lock_of(one)) is not None)
    aggregator = Aggregator()
    keep = Keep(findings=True, history=True, checks=True)
    rows = [aggregator.add(nodes.row(one, rules.pool, keep)) for one in (objects(stage) if found is None else found)]
    pause = locks.pause_of(stage.pause, stage.now) if stage.pause else locks.Pause(active=False)
    seen = fleet.fleet(rows, held, pause=pause, rules=rules, namespace=NAMESPACE, now=stage.now)
    usual = {
        "title": "Node hardening report",
        "context": "production",
        "server": "v1.36.0",
        "author": "anna@example.org",
    }
    return aggregator.snapshot(Heading(**{**usual, "selector": "", "moment": stage.now, **heading}), seen)


def put_on(sandbox: Sandbox, stage: Staged) -> None:
    """The crowd's objects, onto an empty emulator without controllers and kubelets."""
    sandbox.create("namespaces", {"metadata": {"name": NAMESPACE}})
    for wanted in objects(stage):
        name = wanted["metadata"]["name"]
        sandbox.add_node(name)
        sandbox.update("nodes", name, becomes(wanted))
        if name not in stage.absent:
            _add_agent(sandbox, stage, name)
    for lease in stage.leases():
        sandbox.create("leases", lease, NAMESPACE)
    config = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": stage.policy}}
    sandbox.create("configmaps", config, NAMESPACE)
    sandbox.create("daemonsets", builders.workload("DaemonSet", "node-hardening-agent", namespace=NAMESPACE))
    agents = {"desiredNumberScheduled": len(stage.names), "numberReady": len(stage.names) - 3}
    sandbox.update("daemonsets", "node-hardening-agent", lambda found: found.update(status=agents), NAMESPACE)


def _add_agent(sandbox: Sandbox, stage: Staged, node: str) -> None:
    labels = {"app.kubernetes.io/name": "node-hardening-agent"}
    name = f"node-hardening-agent-{node}"
    sandbox.create("pods", builders.pod(name, namespace=NAMESPACE, node=node, labels=labels))
    ready = node not in stage.crashing and stage.world.nodes[node].ready is True
    state: Object = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "agent", "ready": ready, "restartCount": 0 if ready else 7, "state": state}
    status = {"phase": "Running", "containerStatuses": [container]}
    sandbox.update("pods", name, lambda found: found.update(status=status), NAMESPACE)


# -- thousands ---------------------------------------------------------------------------------------------------------


def thousands(number: int, moment: float) -> Iterator[Object]:
    """Synthetic Nodes: one in ten is non-compliant, one in twenty waits, some are silent; all have a past."""
    at = datetime.fromtimestamp(moment, UTC)
    for index in range(number):
        name = f"node-{index:05}"
        made = builders.node(name, at, control_plane=index < 5)
        checked = plugin_fleet.report(name, *_found(index))
        shown = node_status.hardening(
            checked, policy=f"5d0f6c1b9a3e4f2{index % 3}", version=__version__, label=True, last_change=""
        )
        notes = {key: value for key, value in shown.annotations.items() if value is not None}
        status = RebootStatus(Phase.IDLE, StatusReason.NOT_REQUIRED, required=False, message="not required")
        if index % 20 == 7:
            text = "waiting for the lock held by node-00007"
            status = RebootStatus(
                Phase.WAITING, StatusReason.WAITING_FOR_LOCK, required=True, since=moment - index, message=text
            )
        if index % 97 != 13:
            known = {REBOOT_STATUS: status.encode(), REBOOT_HISTORY: _past(index, moment)}
            made["metadata"]["annotations"] = {**notes, **known}
        yield made


def _found(index: int) -> tuple[Finding, ...]:
    if index % 10:
        return ()
    known = (ANONYMOUS, SCTP, TIMEOUT, CIPHERS, PROFILE, SECCOMP, NO_KUBELET)
    return tuple(replace(one, observed=f"{one.observed} ({index % 60})") for one in known[index // 10 % 5 :][:3])


def _past(index: int, moment: float) -> str:
    entries = [
        {
            "at": datetime.fromtimestamp(moment - 86400 * (index % 40 + 30 * back), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "reason": "linux-image-6.1.0-26-amd64", "kernelBefore": "6.1.0-25-amd64", "kernelAfter": "6.1.0-26-amd64",
            "seconds": 120 + index % 300, "phases": {"draining": 60, "rebooting": 60 + index % 300}, "pods": index % 40,
            "slowestPod": f"shop/web-{index} 41 s",
        }
        for back in range(5)
    ]  # fmt: skip
    return json.dumps(entries, separators=(",", ":"))
