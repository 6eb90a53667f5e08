"""The versions of the control plane's components: upstream's support, and the distance to the API server.

By dated tables (that of Kubernetes is the version control's): past a table's end the answer is unknown.
https://kubernetes.io/releases/version-skew-policy/, https://etcd.io/docs/latest/op-guide/versioning/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from agent.controls.control_plane.check import Check, Facts, Unknown, table
from agent.controls.kubelet.check import CheckResult
from agent.controls.version import TABLE_DATE, TOO_OLD, support
from agent.host import Program
from agent.model import Severity, Status

_MEDIUM, _HIGH = Severity.MEDIUM, Severity.HIGH
# Minor versions of etcd 3 that have an end, and the newest that the table knows. 3.5: a year after 3.7.0; 3.6 and 3.7
# end a year after a version that is not out yet, so no sooner than that from now.
# https://etcd.io/blog/2026/june-patch-release/, https://etcd.io/blog/2026/etcd-370-beta/
_ETCD_ENDS: Mapping[int, date] = {4: date(2026, 6, 1), 5: date(2027, 7, 8)}
_ETCD_NEWEST = 7
_ETCD_UNTIL = date(2027, 11, 28)
# What kubeadm requires of an etcd, from that minor version of Kubernetes on: cmd/kubeadm/app/constants.
_ETCD_LEAST = {36: (3, 5, 24)}


def _release(facts: Facts, program: Program | None = None) -> str:
    """The version of the component itself, or of another one on the node. Raises Unknown."""
    other = facts.all.of(program) if program else facts.seen
    if other is None:
        raise Unknown(f"no {program} on this node to compare with")
    if not other.component.release:
        raise Unknown(f"the version of {other.component.called} is neither answered nor in its manifest's image")
    return other.component.release


def _supported(facts: Facts) -> CheckResult:
    return support(f"v{_release(facts)}", facts.all.today)


def _skew(facts: Facts) -> CheckResult:
    own, server = _release(facts), _release(facts, Program.API_SERVER)
    observed = f"{own}, API server {server}"
    behind = _numbers(server)[1] - _numbers(own)[1]
    if behind < 0:
        return CheckResult(Status.FAIL, f"{observed}: newer", "versions", "Upgrade every API server first.")
    if behind > 1:
        return CheckResult(Status.FAIL, f"{observed}: {behind} minor versions older", "versions", "Upgrade it.")
    return CheckResult(Status.PASS, observed, "versions")


def _etcd_supported(facts: Facts) -> CheckResult:
    release, today = _release(facts), facts.all.today
    major, minor, _ = _numbers(release)
    end = _ETCD_ENDS.get(minor) if major == 3 else None
    if (major, minor) < (3, min(_ETCD_ENDS)) or (end and today > end):
        when = f"on {end}" if end else f"before {min(_ETCD_ENDS.values())}"
        step = "Upgrade etcd, one minor version at a time."
        return CheckResult(Status.FAIL, f"{release}: upstream's support ended {when}", "table", step)
    if end:
        return CheckResult(Status.PASS, f"{release}: supported until {end}", "table")
    if today > _ETCD_UNTIL:
        return CheckResult(Status.UNKNOWN, f"{release}: the table is of {TABLE_DATE}", "table", TOO_OLD)
    if (major, minor) > (3, _ETCD_NEWEST):
        return CheckResult(Status.INFO, f"{release} is newer than the table of {TABLE_DATE}", "table")
    return CheckResult(Status.PASS, f"{release}: supported, no end was announced by {TABLE_DATE}", "table")


def _etcd_skew(facts: Facts) -> CheckResult:
    own, server = _release(facts), _release(facts, Program.API_SERVER)
    observed = f"etcd {own}, API server {server}"
    least = next((one for minor, one in _ETCD_LEAST.items() if _numbers(server)[1] >= minor), None)
    if least is None:
        return CheckResult(
            Status.NOT_APPLICABLE, f"{observed}: no minimum for it in the table of {TABLE_DATE}", "table"
        )
    if _numbers(own) < least:
        required = ".".join(map(str, least))
        return CheckResult(
            Status.FAIL, f"{observed}: older than {required}", "versions", f"Upgrade etcd to {required}."
        )
    return CheckResult(Status.PASS, observed, "versions")


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


_SKEW_LINE = (
    "skew",
    "",
    "A3",
    _HIGH,
    "It is not too far from the API server",
    "not newer, at most one minor older",
    _skew,
)
CHECKS: tuple[Check, ...] = (
    *table(Program.API_SERVER, ("supported", "", "A3", _MEDIUM, "Upstream supports its version",
                                "before its end of life", _supported)),
    *table(Program.CONTROLLER_MANAGER, _SKEW_LINE),
    *table(Program.SCHEDULER, _SKEW_LINE),
    *table(Program.ETCD,
           ("supported", "", "A3", _MEDIUM, "Upstream supports its version", "before its end of support",
            _etcd_supported),
           ("skew", "", "A3", _MEDIUM, "It is new enough for the API server", "what kubeadm requires", _etcd_skew)),
)  # fmt: skip
