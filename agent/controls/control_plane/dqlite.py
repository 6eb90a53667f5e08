"""The checks of k8s-dqlite, which MicroK8s and Canonical Kubernetes run in etcd's place.

It serves etcd's protocol through kine and requires no credentials of a client: who reaches the socket reads and writes
everything. Its nodes talk to each other over a port with one certificate that all of them share.
https://github.com/canonical/k8s-dqlite
"""

from __future__ import annotations

from pathlib import PurePosixPath

from agent.controls.control_plane.check import Check, Facts, Unknown, flag, shown, table
from agent.controls.control_plane.etcd import is_refusal
from agent.controls.kubelet.check import CheckResult
from agent.errors import HostError
from agent.host import Program
from agent.model import Severity, Status

_CRITICAL, _HIGH, _LOW = Severity.CRITICAL, Severity.HIGH, Severity.LOW
_OTHERS_WRITE, _OTHERS_ENTER = 0o002, 0o001  # connecting to a socket is writing to it


def _socket(facts: Facts) -> CheckResult:
    listen = facts.value("listen")
    if not listen.startswith("unix://"):
        fix = "Set --listen=unix:// with a path in --storage-dir, and --etcd-servers of the API server to it"
        return facts.failed(f"{shown('listen', listen)}: every process of this node reads all data", fix, "listen")
    path = listen.removeprefix("unix://")
    view = facts.component.view
    try:
        mode = view.stat(path).mode
        closed = [str(one) for one in PurePosixPath(path).parents if not view.stat(str(one)).mode & _OTHERS_ENTER]
    except HostError as error:
        raise Unknown(str(error)) from error
    observed = f"{path} is {mode:04o}"
    if mode & _OTHERS_WRITE and not closed:
        observed += ": every user of this node reads all data"
        return CheckResult(Status.FAIL, observed, facts.source("listen"), f"chmod o-w {path}")
    return facts.passed(observed + (f", below {closed[0]}, which is closed to others" if closed else ""), "listen")


def _peers(facts: Facts) -> CheckResult:
    """By what is answered to a client without the certificate, on each port that no other flag explains."""
    if facts.value("enable-tls") is False:
        fix = "Remove --enable-tls=false, on every node"
        return facts.failed("its nodes talk in the clear, and ask for no certificate", fix, "enable-tls")
    named = (facts.value(name) for name in ("listen", "profiling-listen", "metrics-listen"))
    others = {text.rpartition(":")[2] for text in named if not text.startswith("unix:")}
    sockets = [one for one in facts.seen.sockets if str(one.port) not in others]
    refused = [one for one in sockets if (answer := one.tls.get("/version")) and is_refusal(answer.error)]
    if sockets and len(refused) == len(sockets):
        return facts.passed(f"refused without the certificate on {', '.join(map(str, refused))}", "enable-tls")
    where = ", ".join(str(one) for one in sockets if one not in refused) or "no port of it is known"
    raise Unknown(facts.seen.unprobed or f"whether its nodes need the certificate is unknown: {where}")


CHECKS: tuple[Check, ...] = table(
    Program.DQLITE,
    ("socket", "", "K11", _CRITICAL, "Only the API server reaches it", "a socket that is closed to others", _socket),
    ("peers", "", "K11", _HIGH, "No answer to a node without the certificate", "refused", _peers),
    ("pprof", "", "K13", _LOW, "Profiling is off", "false",
     flag("profiling", False, "Remove --profiling")),
)  # fmt: skip
