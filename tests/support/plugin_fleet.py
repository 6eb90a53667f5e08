"""Three nodes in each phase of a reboot, as their daemons write them: for the plugin's tests and the docs' captures.

Real coordinators run on a reboot_world in virtual time up to a moment; what their Nodes and Leases then are is put on
an emulator by the daemon's own writers (history, state, lease_body, NodeReporter, hardening). Nothing of the format is
written by hand here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from agent import __version__
from agent.annotations import DENIALS, REBOOT_REQUEST, REBOOT_SKIP, RECORDINGS
from agent.config import Config, loads, revision
from agent.denials.document import Reason as Blindness
from agent.denials.document import State, Summary, encode
from agent.model import Report
from agent.reboot.blockers.pause import PAUSE, judge
from agent.reboot.blockers.window import WindowBlocker
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.interfaces import Blocker, BlockerResult
from agent.reboot.kube.views import lease_body, without_nulls
from agent.reboot.phases import Phase
from agent.report import node_status
from agent.report.node_status import NodeView
from agent.rollout import decision, reports
from agent.rollout.decision import Assessment, Pending, Verdict
from agent.sandbox import builders
from agent.sandbox.server import Sandbox
from agent.text import format_rfc3339
from tests.support import plugin_emulated as emulated
from tests.support.plugin_daemons import NAMESPACE, DrainOf, KernelOf, SentinelOf, Spoken, kernel_of
from tests.support.plugin_findings import ANONYMOUS, NO_KUBELET, SCTP, report
from tests.support.reboot_agent import dependencies_of
from tests.support.reboot_machine import SimMachine
from tests.support.reboot_trouble import CommandFate
from tests.support.reboot_world import World

__all__ = [
    "ANONYMOUS",
    "NAMESPACE",
    "NO_KUBELET",
    "SCENES",
    "SCTP",
    "WINDOWS",
    "Object",
    "Spoken",
    "Staged",
    "report",
]  # fmt: skip

Object = dict[str, Any]
NODES = ("node-1", "node-2", "node-3")
BEGAN = 1_794_348_800.0  # Tue 2026-11-10 22:13:20 UTC
_POLICY_HASH = "5d0f6c1b9a3e4f27"
_LIMIT_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class PauseOf:
    """The pause blocker, over the fleet's ConfigMap."""

    fleet: Staged
    name: str = "pause"
    late: bool = True

    def check(self) -> BlockerResult:
        """As the daemon judges it."""
        return judge(self.fleet.pause, self.fleet.now) if self.fleet.pause else BlockerResult(blocked=False)


@dataclass
class Staged:
    """A fleet in virtual time. policy: the agents' configuration, YAML. pause: the ConfigMap, empty: none."""

    policy: str = ""
    began: float = BEGAN
    names: tuple[str, ...] = NODES
    pause: Object = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        self.config: Config = loads(self.policy, "config.yaml")
        self.world = World()
        self.reports: dict[str, Report] = {}
        self.absent: set[str] = set()
        self.crashing: set[str] = set()
        self.rollouts: dict[str, NodeView] = {}
        self.spoken: dict[str, Spoken] = {}
        self._rng = random.Random(self.seed)
        for name in self.names:
            machine = self.world.add_machine(name)
            machine.wall_offset = self.began
            self.spoken[name] = Spoken(machine)
            self.reports[name] = report(name)
            self._keep_running(machine)

    @property
    def now(self) -> float:
        """Epoch seconds, the same on every machine."""
        return self.world.now + self.began

    def machine(self, name: str) -> SimMachine:
        """One of them."""
        return self.world.machines[name]

    def want(self, *names: str, reason: str = "linux-image-6.1.0-26-amd64, libc6") -> None:
        """The sentinel appears."""
        for name in names or self.names:
            self.machine(name).want(reason)

    def skip(self, name: str, reason: str) -> None:
        """`skip NODE --reason`."""
        self.world.annotate(name, REBOOT_SKIP, reason)

    def request(self, name: str, reason: str) -> None:
        """`reboot NODE --reason`."""
        self.world.annotate(name, REBOOT_REQUEST, reason)

    def paused(self, reason: str = "database migration", by: str = "anna@example.org", until: str = "") -> None:
        """`pause`."""
        self.pause = {"metadata": {"name": PAUSE}, "data": {"reason": reason, "by": by, "until": until}}

    def run(self, seconds: float) -> None:
        """Time passes."""
        self.world.pass_time(seconds)

    def until(self, reached: Callable[[], bool]) -> None:
        """Time passes until then."""
        end = self.world.now + _LIMIT_SECONDS
        while not reached():
            assert self.world.step(), "nothing happens any more"
            assert self.world.now < end, "not reached"

    def until_phase(self, name: str, phase: Phase) -> None:
        """Until a node's note says so."""
        self.until(lambda: self.world.phase_of(name) is phase)

    def first(self) -> str:
        """The node that holds the lock, once one does."""
        self.until(lambda: any(lease.holder for lease in self.world.leases.values()))
        return next(lease.holder for lease in self.world.leases.values() if lease.holder).partition("/")[0]

    def _keep_running(self, machine: SimMachine) -> None:
        def start() -> None:
            if machine.agent is None and machine.has_kubelet:
                dependencies = self._dependencies(machine)
                machine.start_agent(
                    Coordinator(self.config.reboot, dependencies).tick, after=self._rng.uniform(0.0, 1.0)
                )

        def start_later() -> None:
            machine.world.at(machine.world.now + 5.0, start)

        machine.crashed = machine.came_up = start_later  # type: ignore[method-assign]
        start()

    def _dependencies(self, machine: SimMachine) -> Dependencies:
        base = dependencies_of(machine, self._rng)
        windows: tuple[Blocker, ...] = ()
        if self.config.reboot.windows:
            windows = (WindowBlocker(self.config.reboot.windows, (), machine),)
        blockers = (*windows, PauseOf(self), *base.blockers)
        return replace(
            base,
            blockers=blockers,
            sentinel=SentinelOf(machine),
            drain=DrainOf(machine),
            machine=KernelOf(machine),
            reporter=self.spoken[machine.name],
        )

    # -- on an API server ----------------------------------------------------------------------------------------------

    def nodes(self) -> list[Object]:
        """The Node objects, as the API server would have them."""
        return [self.node(name) for name in self.names]

    def node(self, name: str) -> Object:
        """One Node object."""
        seen, machine = self.world.nodes[name], self.machine(name)
        at = datetime.fromtimestamp(self.now, UTC)
        made = builders.node(name, at, boot_id=seen.boot_id, kernel=kernel_of(machine), labels=seen.labels)
        made["metadata"]["uid"] = machine.uid
        shown = self._shown(name)
        annotations = {**seen.annotations, **shown.annotations}
        made["metadata"]["annotations"] = {key: value for key, value in annotations.items() if value is not None}
        made["metadata"]["labels"].update({key: value for key, value in shown.labels.items() if value is not None})
        if seen.unschedulable:
            made["spec"]["unschedulable"] = True
        added = [builders.condition(one.type, one.status, one.reason, one.message, at) for one in shown.conditions]
        made["status"]["conditions"] += added
        for condition in made["status"]["conditions"]:
            if condition["type"] == "Ready" and seen.ready is not True:
                condition.update(
                    status="Unknown", reason="NodeStatusUnknown", message="Kubelet stopped posting node status."
                )
        return made

    def leases(self) -> list[Object]:
        """The Lease objects."""
        return [without_nulls(lease_body(replace(one, version=""), NAMESPACE)) for one in self.world.leases.values()]

    def put_on(self, sandbox: Sandbox) -> None:
        """Everything, onto an emulator without controllers and kubelets; another stage's objects are replaced."""
        emulated.put(
            sandbox,
            emulated.Objects(
                nodes=self.nodes(),
                leases=self.leases(),
                pause=self.pause,
                policy=self.policy,
                agents={name: self._agent(name) for name in self.names if name not in self.absent},
                held=any(self.machine(name).pdb_until > self.world.now for name in self.names),
            ),
        )

    def _agent(self, name: str) -> emulated.Agent:
        ready = name not in self.crashing and self.world.nodes[name].ready is True
        return emulated.Agent(ready=ready, crashing=name in self.crashing)

    def _shown(self, name: str) -> NodeView:
        if name in self.absent:
            return NodeView()
        checked = node_status.hardening(
            self.reports[name],
            policy=_POLICY_HASH,
            version=__version__,
            label=True,
            last_change=node_status.change_sentence(self.reports[name].changes, "2026-11-10T22:13:25Z"),
        )
        checked = self.rollouts.get(name, NodeView()).over(checked)
        return self.spoken[name].captured.parts.get("reboot", NodeView()).over(checked)


# -- the scenes --------------------------------------------------------------------------------------------------------

WINDOWS = """\
reboot:
  windows:
    - {days: [mon, tue, wed, thu], start: "22:00", end: "04:00", timezone: Europe/Berlin}
"""


ROLLOUT = """\
modprobe:
  deny: [rxrpc]
overrides:
  - name: gpu
    nodeSelector: pool=gpu
    modprobe:
      allow: [udf]
    reboot:
      drain: {timeout: 2h}
rollout:
  canary: canary=true
  soak: 30m
"""


def canary_failed() -> Staged:
    """A changed policy fails on the canary, node-1, and the other nodes keep the last one."""
    fleet = Staged(policy=ROLLOUT)
    fleet.run(60)
    target, last = revision(fleet.config), revision(Config())
    own = Assessment(target, Verdict.FAILED, fleet.now - 240, ())
    pending = Pending(target, fleet.now - 300, decision.Phase.FAILED, refused_by="node-1")
    for name in fleet.names:
        is_canary = name == "node-1"
        labels = {"canary": "true"} if is_canary else {"pool": "gpu"}
        fleet.world.nodes[name] = replace(fleet.world.nodes[name], labels={**fleet.world.nodes[name].labels, **labels})
        running = target if is_canary else last
        fleet.rollouts[name] = reports.view(running, pending, own, is_canary=is_canary, uses_canaries=True)
    return fleet


def calm() -> Staged:
    """Nothing to do anywhere."""
    fleet = Staged()
    fleet.run(60)
    return fleet


def non_compliant() -> Staged:
    """One node complies, one does not, one is unknown."""
    fleet = Staged()
    fleet.run(60)
    fleet.reports["node-2"] = report("node-2", ANONYMOUS, SCTP)
    fleet.reports["node-3"] = report("node-3", NO_KUBELET)
    return fleet


def without_agent() -> Staged:
    """One node that no agent ever looked at, one whose agent crashes."""
    fleet = calm()
    fleet.absent.add("node-2")
    fleet.crashing.add("node-3")
    return fleet


def outside_window() -> Staged:
    """All want to reboot; the next window is tomorrow night."""
    # Fri 2026-11-13 09:00 UTC: past Thursday night's window, before Monday's.
    fleet = Staged(WINDOWS, began=BEGAN + 2 * 86400 + 38800)
    fleet.want()
    fleet.run(1800)
    return fleet


def paused() -> Staged:
    """All want to reboot; a user paused the cluster."""
    fleet = Staged()
    fleet.paused(until="2026-11-11T02:00:00Z")
    fleet.want()
    fleet.run(1800)
    return fleet


def skipped() -> Staged:
    """One is opted out and wants to, one was asked for by hand, one rests."""
    fleet = Staged()
    fleet.machine("node-2").blocked_by = "alerts: KubeAPIErrorBudgetBurn"
    fleet.skip("node-1", "holds the licence server")
    fleet.want("node-1")
    fleet.request("node-2", "kernel parameter of OPS-4711")
    fleet.run(1800)
    return fleet


def waiting() -> Staged:
    """One has the lock and is cordoned, two wait."""
    fleet = Staged("reboot: {drain: {delay: 60s}}\n")
    fleet.want()
    name = fleet.first()
    fleet.until_phase(name, Phase.CORDONED)
    fleet.run(30)
    return fleet


def draining() -> Staged:
    """One drains, and a disruption budget does not let the last pods go."""
    fleet = Staged()
    for name in fleet.names:
        fleet.machine(name).pdb_until = 1e9
    fleet.want()
    fleet.until_phase(fleet.first(), Phase.DRAINING)
    fleet.run(900)
    return fleet


def rebooting() -> Staged:
    """One is on its way down and up again."""
    fleet = Staged()
    for name in fleet.names:
        fleet.machine(name).down_seconds = 240.0
    fleet.want()
    fleet.until_phase(fleet.first(), Phase.REBOOTING)
    fleet.run(90)
    return fleet


def verifying() -> Staged:
    """One is back and has to be verified; its hardening is not verified."""
    fleet = Staged()
    fleet.want()
    name = fleet.first()
    fleet.until_phase(name, Phase.REBOOTING)
    fleet.machine(name).verified = False
    fleet.until_phase(name, Phase.VERIFYING)
    fleet.run(120)
    fleet.reports[name] = report(name, SCTP)
    return fleet


def failed() -> Staged:
    """The reboot command fails on each: rolled back, with back-off."""
    fleet = Staged()
    for name in fleet.names:
        fleet.machine(name).fate = CommandFate.FAILS
    fleet.want("node-1")
    fleet.until_phase("node-1", Phase.ROLLED_BACK)
    fleet.run(120)
    return fleet


def stuck() -> Staged:
    """One went down half an hour ago and did not come back; the others wait."""
    fleet = Staged()
    fleet.want()
    name = fleet.first()
    fleet.machine(name).down_seconds = 1e9
    fleet.until(lambda: any(lease.stuck for lease in fleet.world.leases.values()))
    fleet.run(300)
    return fleet


def done() -> Staged:
    """Every node was rebooted once."""
    fleet = Staged()
    fleet.run(3600)
    fleet.want()
    fleet.until(lambda: len(fleet.world.books.boots) == len(fleet.names) and _all_idle(fleet))
    fleet.run(3600)
    return fleet


def rolling() -> Staged:
    """One was rebooted, the next one drains, the last one waits; within the window."""
    fleet = Staged(WINDOWS, began=1_794_864_600.0)  # Mon 2026-11-16 21:30 UTC, half an hour into the window
    fleet.want()
    fleet.until(lambda: len(fleet.world.books.boots) == 1 and sum(_is_busy(fleet, name) for name in fleet.names) == 2)
    fleet.until(lambda: any(fleet.world.phase_of(name) is Phase.DRAINING for name in fleet.names))
    fleet.run(10)
    return fleet


def looping() -> Staged:
    """The sentinel is still there after a proven reboot."""
    fleet = Staged()
    fleet.machine("node-1").sticky_sentinel = True
    fleet.want("node-1")
    fleet.until(lambda: len(fleet.world.books.boots) == 1 and _all_idle(fleet))
    fleet.run(600)
    return fleet


def sentinel_unknown() -> Staged:
    """Whether a reboot is required is unknown, and one node's note was damaged."""
    fleet = Staged()
    fleet.machine("node-1").sentinel_unknown = True
    fleet.want("node-2")
    fleet.run(60)
    return fleet


def refused() -> Staged:
    """Profiles refuse calls on one node, none on the second, and the third cannot see."""
    fleet = calm()
    at = round(fleet.now)
    uid, web = "0f4c1a52-7a3e-4d0b-9a55-3c2d8f1e6b70", "k8s-web-service"
    rows: list[list[str | int]] = [
        ["shop", "web-5d9c7", uid, "nginx", web, "apparmor", "exec", "x", "refused", "", 3, at - 900, at - 40],
        ["shop", "web-5d9c7", uid, "nginx", "", "seccomp", "chmod", "", "refused", "", 12, at - 700, at - 95],
        ["jobs", "report-1", "5f1d", "job", "k8s-hardened-default", "apparmor", "capable", "sys_time", "refused", "", 1,
         at - 600, at - 600],
    ]  # fmt: skip
    since = format_rfc3339(fleet.began)
    seeing = Summary(State.SEEING, since=since)
    busy = replace(seeing, notes=(Blindness.AUDITD,), received=16, lost=4, unattributed=2)
    blind = Summary(State.BLIND, Blindness.NETWORK_NAMESPACE, since)
    for name, found, listed in (("node-1", busy, rows), ("node-2", seeing, []), ("node-3", blind, [])):
        fleet.world.annotate(name, DENIALS, encode(found, listed))
    return fleet


def recorded() -> Staged:
    """Two replicas under the logging profile, on two nodes; a profile in complain mode beside them."""
    fleet = refused()
    at = round(fleet.now)
    numbers = (0, 1, 2, 3, 9, 41, 42, 49, 50, 59, 63, 72, 231, 257)
    for place, more, lost in (("1", (90,), 0), ("2", (288, 232), 0)):
        bitmap = sum(1 << number for number in (*numbers, *more))
        row = ["shop", f"web-5d9c7-{place}", f"uid-{place}", "nginx", "9c" * 6, "c000003e", f"{bitmap:x}", 4711, lost,
               at - 3600, at - 30]  # fmt: skip
        fleet.world.annotate(f"node-{place}", RECORDINGS, json.dumps({"v": 1, "more": 0, "recordings": [row]}))
    rule: list[str | int] = ["shop", "api", "u", "api", "team-api", "apparmor", "open", "wc", "allowed"]
    rows = [[*rule, file, 2, at - 90, at - 9] for file in ("/var/cache", "/tmp/tmp8x_k2q1z")]
    fleet.world.annotate("node-3", DENIALS, encode(Summary(State.SEEING, since=format_rfc3339(fleet.began)), rows))
    return fleet


def _is_busy(fleet: Staged, name: str) -> bool:
    return fleet.world.phase_of(name) is not Phase.IDLE


def _all_idle(fleet: Staged) -> bool:
    return all(fleet.world.phase_of(name) is Phase.IDLE for name in fleet.names)


SCENES: Mapping[str, Callable[[], Staged]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        calm, non_compliant, without_agent, outside_window, paused, skipped, waiting, draining, rebooting, verifying,
        failed, stuck, done, rolling, looping, sentinel_unknown, canary_failed, refused, recorded,
    )
}  # fmt: skip
