"""What the running kubelet's answers mean, for 4.2.1 among others.

401 is anonymous off. 403 is anonymous on with only authorization in the way. 200 is every pod for anonymous clients. No
other answer decides anything; a refused read-only port is good news only where the secure port was reached, because an
agent in another network namespace would be refused everywhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from agent.controls import probe
from agent.controls.kubelet import fields
from agent.controls.kubelet.check import AGAIN, CheckResult, Row
from agent.controls.kubelet.effective import Effective
from agent.controls.probe import Response
from agent.model import Finding, Severity, Status
from agent.text import url_host

READ_ONLY_PORT = 10255
PATH = "/pods"
_TIMEOUT_SECONDS = 2.0
_STATUS_LINE_BYTES = 1024
# Sends one anonymous GET /pods to an address and port; `tls`: over TLS. Never raises.
Prober = Callable[..., Response]

SECURE = Row("live", "The running kubelet refuses anonymous requests", Severity.CRITICAL, "HTTP 401")
READ_ONLY = Row("live-read-only", "Nothing answers on the read-only port", Severity.CRITICAL, "refused")


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """The answers of both ports. problem: why no request was sent."""

    secure_url: str = ""
    secure: Response = field(default_factory=Response)
    plain_url: str = ""
    plain: Response = field(default_factory=Response)
    problem: str = ""


def get_pods(address: str, port: int, *, tls: bool) -> Response:
    """The real Prober. No certificate is verified: a kubelet's is self-signed more often than not."""
    return probe.get(address, port, PATH, tls=tls, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_STATUS_LINE_BYTES)


def ask(effective: Effective, prober: Prober, own: Collection[str]) -> ProbeResults:
    """Sends both requests to the kubelet's address and ports. own: this machine's addresses; no other one is probed."""
    known = (fields.ADDRESS, fields.PORT, fields.READ_ONLY_PORT)
    address, port, read_only = (effective.get(one) for one in known)
    for setting in (address, port):
        if setting.problem:
            return ProbeResults(problem=f"its address is not known: {setting.problem}")
    try:
        ip = ipaddress.ip_address(address.value)
    except ValueError:
        return ProbeResults(problem=f"its address {address.value!r} is none")
    if ip.is_unspecified:
        ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
    if not ip.is_loopback and str(ip) not in own:
        return ProbeResults(problem=f"its address {ip} is not one of this node's")
    plain_port = READ_ONLY_PORT if read_only.problem or not read_only.value else int(read_only.value)
    ports = (int(port.value), plain_port)
    if not all(0 < number < 1 << 16 for number in ports):
        return ProbeResults(problem=f"{ports[0]} and {ports[1]} are not both ports")
    host = url_host(str(ip))
    return ProbeResults(
        f"https://{host}:{ports[0]}{PATH}",
        prober(str(ip), ports[0], tls=True),
        f"http://{host}:{ports[1]}{PATH}",
        prober(str(ip), ports[1], tls=False),
    )


def judge(answers: ProbeResults | None) -> tuple[Finding, ...]:
    """Both findings; None when probing is off. Pure."""
    if answers is None:
        secure = plain = CheckResult(Status.INFO, "not asked: kubelet.probe is false", "configuration")
    elif answers.problem:
        secure = plain = CheckResult(Status.UNKNOWN, f"not asked: {answers.problem}", remediation=AGAIN)
    else:
        secure, plain = _secure(answers), _read_only(answers)
    return SECURE.finding(secure), READ_ONLY.finding(plain)


def correct(finding: Finding, answers: ProbeResults | None) -> Finding:
    """4.2.1 in the light of the live answer: a kubelet that lets anonymous requests in has anonymous on, whatever the
    files say by now."""
    if answers is None or answers.secure.status not in (200, 403):
        return finding
    seen = f"GET {answers.secure_url} without credentials: {answers.secure}"
    if finding.status is Status.FAIL:
        return replace(finding, observed=f"{finding.observed} ({seen})")
    return replace(
        finding,
        status=Status.FAIL,
        observed=f"anonymous requests are accepted ({seen}), although the configuration has {finding.observed}",
        source=f"{answers.secure_url}; {finding.source}",
        remediation="Restart the kubelet so that it uses its configuration.",
    )


def _secure(answers: ProbeResults) -> CheckResult:
    status, source = answers.secure.status, answers.secure_url
    observed = f"GET {source}: {answers.secure}"
    if status == 401:
        return CheckResult(Status.PASS, f"{observed}, anonymous is off", source)
    if status == 403:
        step = "Set `authentication.anonymous.enabled: false` and restart the kubelet."
        return CheckResult(Status.FAIL, f"{observed}, anonymous is on; only authorization refuses them", source,
                       step, Severity.HIGH)  # fmt: skip
    if status == 200:
        step = "Set `authentication.anonymous.enabled: false` and `authorization.mode: Webhook`; restart it now."
        return CheckResult(Status.FAIL, f"{observed}, anyone who reaches this port can read every pod", source, step)
    step = f"Check with `curl -k {source}` on the node, in the kubelet's network namespace."
    return CheckResult(Status.UNKNOWN, observed, source, step)


def _read_only(answers: ProbeResults) -> CheckResult:
    source = answers.plain_url
    observed = f"GET {source}: {answers.plain}"
    if answers.plain.status is not None:
        step = "Set `readOnlyPort: 0` (or --read-only-port=0) and restart the kubelet."
        return CheckResult(Status.FAIL, observed, source, step)
    step = f"Check with `curl {source}` on the node, in the kubelet's network namespace."
    refused = answers.plain.error == probe.REFUSED
    if refused and answers.secure.status is not None:
        return CheckResult(Status.PASS, observed, source)
    if refused:
        why = "which means nothing, because the secure port was not reached either"
        return CheckResult(Status.UNKNOWN, f"{observed}, {why}", source, step)
    return CheckResult(Status.UNKNOWN, observed, source, step)
