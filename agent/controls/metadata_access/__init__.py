"""What pods of this node reach of the cloud's metadata service, tried from their own network namespaces.

Not applicable where no cloud is recognised. Audit tries one short connection a pod and takes no credentials; enforce
adds an own nftables table, checks it at each pass, and tries again: where pods still reach the service the network
plugin goes around the node's forward hook, and that is reported rather than believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from agent.config.choices import Mode
from agent.config.node_sections import MetadataAccess
from agent.controls.base import Step, correction
from agent.controls.manifest import Entry, Installed
from agent.controls.metadata_access.clouds import Cloud, Service, recognise
from agent.errors import HostError
from agent.host import Host
from agent.model import Change, Finding, Severity, Status
from agent.text import sanitize

CONTROL = "metadata-access"
_KEY = "nftables inet node_hardening_metadata"  # in the manifest
_PROBE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Reach:
    """What the pods that were asked got from one service. status, severity, text: of the worst of them."""

    status: Status
    text: str
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """cloud: None where none is recognised. reached: by the service's name; empty when it was not tried.

    rules: how the agent's table differs, empty when it does not; rules_problem: why that is unknown.
    """

    cloud: Cloud | None
    reached: Mapping[str, Reach] = field(default_factory=dict)
    rules: str = ""
    rules_problem: str = ""
    installed: bool = False


class MetadataAccessControl:
    """One node's metadata access. clock: monotonic seconds."""

    name = CONTROL

    def __init__(self, config: MetadataAccess, host: Host, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._host, self._clock = config, host, clock
        self._installed = Installed(host, CONTROL)
        self._cloud: Cloud | None = None
        self._is_recognised = False
        self._reached: Mapping[str, Reach] | None = None
        self._probe_at = 0.0

    def watched(self) -> Sequence[str]:
        """Nothing: the kernel's tables are read at each pass."""
        return ()

    def observe(self) -> Observation:
        """The cloud, the table where one is required, and within the hour what pods reach. Raises HostError."""
        if not self._is_recognised:
            self._cloud = recognise(self._host) if self._host.has_processes else None
            self._is_recognised = True
        cloud = self._cloud
        if cloud is None:
            return Observation(None)
        installed = _KEY in self._installed.entries()
        rules = problem = ""
        if self._config.mode is Mode.ENFORCE:
            try:
                rules = _nftables().difference(self._host, cloud.services)
            except HostError as error:
                problem = str(error)
        return Observation(cloud, self._reach(cloud), rules, problem, installed)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """One finding a service, and in mode enforce one for the table."""
        cloud = seen.cloud
        if cloud is None:
            observed = "no cloud is recognised by this machine's firmware"
            return (Finding(f"{CONTROL}/imds", CONTROL, _TITLE, Status.NOT_APPLICABLE, Severity.HIGH, observed),)
        found = [self._service(one, cloud, seen) for one in cloud.services]
        return (*found, self._rules(seen)) if self._config.mode is Mode.ENFORCE else found

    def plan(self, seen: Observation) -> Sequence[Step]:
        """The table where it differs; in mode audit what enforce installed leaves."""
        if self._config.mode is Mode.ENFORCE and seen.cloud is not None:
            cloud = seen.cloud
            if seen.installed and not seen.rules and not seen.rules_problem:
                return ()
            change = Change(CONTROL, "write", _KEY, seen.rules or "not yet in the manifest")
            return (Step(change, lambda: self._install(cloud)),)
        if not seen.installed:
            return ()
        return (Step(Change(CONTROL, "remove", _KEY, "no longer in the configuration"), self._remove),)

    # -- changing --------------------------------------------------------------------------------------------------

    def _install(self, cloud: Cloud) -> None:
        self._installed.remember(Entry(_KEY))
        _nftables().install(self._host, cloud.services)
        self._reached = None

    def _remove(self) -> None:
        _nftables().remove(self._host)
        self._installed.forget(_KEY)
        self._reached = None

    # -- trying ----------------------------------------------------------------------------------------------------

    def _reach(self, cloud: Cloud) -> Mapping[str, Reach]:
        """Tried once an hour, when the table has changed, and at each pass until there is a pod."""
        if not self._config.probe:
            return {}
        if self._reached is None or self._clock() >= self._probe_at:
            from agent.controls.metadata_access.probe import reach  # noqa: PLC0415 - only nodes of a cloud need it

            self._reached = reach(self._host, cloud)
            asked = any(one.status is not Status.NOT_APPLICABLE for one in self._reached.values())
            self._probe_at = self._clock() + (_PROBE_SECONDS if asked else 0)
        return self._reached

    # -- judging ---------------------------------------------------------------------------------------------------

    def _service(self, service: Service, cloud: Cloud, seen: Observation) -> Finding:
        skipped = Reach(Status.INFO, "not tried: metadataAccess.probe is false")
        reached = seen.reached.get(service.name, skipped)
        return Finding(
            f"{CONTROL}/{service.name}", CONTROL, f"{_TITLE} ({cloud.name}, {service.address})", reached.status,
            reached.severity or service.severity, sanitize(reached.text, 600), "refused", "connections from pods",
            self._step(seen) if reached.status is Status.FAIL else "", section=_SECTION,
        )  # fmt: skip

    def _step(self, seen: Observation) -> str:
        if self._config.mode is Mode.ENFORCE and not seen.rules and not seen.rules_problem:
            return (
                "The agent's table is in place and pods reach the service: the network plugin goes around the node's "
                "forward hook (eBPF host routing, macvlan, SR-IOV). Deny the address by a NetworkPolicy of the plugin."
            )
        if self._config.mode is Mode.ENFORCE:
            return correction("metadataAccess", self._config.mode)
        return (
            "Deny egress to the address by NetworkPolicy, limit it in the cloud (hop limit 1, Workload Identity), or "
            "set metadataAccess.mode to enforce after checking which add-ons use it: docs/controls/metadata-access.md."
        )

    def _rules(self, seen: Observation) -> Finding:
        status = Status.UNKNOWN if seen.rules_problem else Status.FAIL if seen.rules else Status.PASS
        step = "" if status is Status.PASS else correction("metadataAccess", Mode.ENFORCE)
        return Finding(
            f"{CONTROL}/rules", CONTROL, "The agent's nftables table is in place", status, Severity.HIGH,
            sanitize(seen.rules_problem or seen.rules or "in place", 600), "as the agent writes it", "nft list table",
            step, section=_SECTION,
        )  # fmt: skip


_TITLE = "Pods do not reach the cloud's metadata service"
_SECTION = "K9"


def _nftables() -> ModuleType:
    """Loaded where a table is required or leaves."""
    from agent.controls.metadata_access import nftables  # noqa: PLC0415

    return nftables
