"""The checks of etcd: CIS 2, and what it leaves out. What a port answers to a client without a certificate decides.

https://etcd.io/docs/latest/op-guide/security/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from agent.controls.control_plane.check import Check, Facts, Judge, Line, Unknown, flag, shown, table
from agent.controls.control_plane.observe import Socket
from agent.controls.kubelet.check import CheckResult
from agent.host import Program
from agent.model import Severity

CRITICAL, HIGH, LOW = Severity.CRITICAL, Severity.HIGH, Severity.LOW
_VERSION = "/version"


def _urls(facts: Facts, name: str) -> list[str]:
    return [url.strip() for url in facts.value(name).split(",") if url.strip()]


def _ports(facts: Facts, name: str) -> set[int]:
    found = set()
    for url in _urls(facts, name):
        try:
            found.add(urlsplit(url).port or 0)
        except ValueError:
            raise Unknown(f"--{name} has {url[:80]!r}, which is no URL") from None
    return found


def _sockets(facts: Facts, *, peers: bool) -> Iterator[Socket]:
    """The sockets for clients, or for peers. What no URL explains is taken for a client's."""
    peer, metrics = _ports(facts, "listen-peer-urls"), _ports(facts, "listen-metrics-urls")
    for one in facts.seen.sockets:
        if (one.port in peer) is peers and one.port not in metrics:
            yield one


def _clear(*, peers: bool) -> Judge:
    """No URL in the clear, and no answer in the clear."""
    name = "listen-peer-urls" if peers else "listen-client-urls"
    prefix = "peer-" if peers else ""

    def judge(facts: Facts) -> CheckResult:
        fix = f"Set https URLs in --{name}, with --{prefix}cert-file and --{prefix}key-file"
        for one in _sockets(facts, peers=peers):
            answer = one.plain.get(_VERSION)
            if answer is not None and answer.status is not None:
                observed = f"GET http://{one}{_VERSION} in the clear: {answer}"
                return facts.failed(observed, fix, name)
        if plain := _clear_urls(facts, peers=peers):
            return facts.failed(f"in the clear: {', '.join(plain)}", fix, name)
        given = all(facts.value(f"{prefix}{file}") for file in ("cert-file", "key-file"))
        auto = facts.value(f"{prefix}auto-tls")
        if not given and not auto:
            return facts.failed(f"--{prefix}cert-file and --{prefix}key-file are not both set", fix, name)
        return facts.passed(f"TLS on {', '.join(_urls(facts, name))}{_how(facts)}", name)

    return judge


def _clear_urls(facts: Facts, *, peers: bool) -> list[str]:
    names = ("listen-peer-urls",) if peers else ("listen-client-urls", "listen-client-http-urls")
    urls = [url for name in names for url in _urls(facts, name)]
    return [url for url in urls if not url.startswith(("https://", "unixs://", "unix://"))]


def _mutual(*, peers: bool) -> Judge:
    """No answer without a client certificate: the first byte after the handshake decides."""
    prefix = "peer-" if peers else ""
    names = (f"{prefix}client-cert-auth", f"{prefix}trusted-ca-file")

    def judge(facts: Facts) -> CheckResult:
        fix = f"Set --{names[0]}=true and --{names[1]}"
        sockets = list(_sockets(facts, peers=peers))
        for one in sockets:
            for scheme, answer in (("https", one.tls.get(_VERSION)), ("http", one.plain.get(_VERSION))):
                if answer is not None and answer.status is not None:
                    url = f"{scheme}://{one}{_VERSION}"
                    return facts.failed(f"GET {url} without a client certificate: {answer}", fix, *names)
        refused = [one for one in sockets if (tls := one.tls.get(_VERSION)) and is_refusal(tls.error)]
        if sockets and len(refused) == len(sockets):
            places = ", ".join(map(str, refused))
            return facts.passed(f"refused without a client certificate on {places}", *names)
        asked, trusted = (facts.value(name) for name in names)
        observed = f"{shown(names[0], asked)}, {shown(names[1], trusted)}"
        if plain := _clear_urls(facts, peers=peers):
            return facts.failed(f"in the clear, where no certificate is asked for: {', '.join(plain)}", fix, *names)
        # A CA alone is enough for etcd to ask for certificates: pkg/transport/listener.go.
        if trusted:
            return facts.passed(f"{observed}{_how(facts)}", *names)
        return facts.failed(observed, fix, *names)

    return judge


def is_refusal(error: str) -> bool:
    """Whether an exchange ended the way in which Go ends it when a client's certificate is missing."""
    reasons = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA")
    return error.startswith("TLS:") and any(one in error.upper() for one in reasons)


def _how(facts: Facts) -> str:
    return f" (not asked: {facts.seen.unprobed})" if facts.seen.unprobed else ""


def _own_ca(facts: Facts) -> CheckResult:
    name = "trusted-ca-file"
    trusted = facts.certificates(name)
    if not trusted:
        return facts.none("no CA is set: see the check of client certificates", name)
    server = facts.all.of(Program.API_SERVER)
    if server is None:
        raise Unknown("no API server on this node whose client CA it could be compared with")
    clients = {one.key for one in Facts(server, facts.all).certificates("client-ca-file")}
    if any(one.key in clients for one in trusted):
        why = "the CA of the cluster's clients: every kubelet's certificate reads and writes all of etcd"
        return facts.failed(why, f"Give etcd a CA of its own, and set --{name} to it", name)
    return facts.passed("a CA that issues no certificates of the cluster's clients", name)


def _metrics(facts: Facts) -> CheckResult:
    name = "listen-metrics-urls"
    urls, ports = _urls(facts, name), _ports(facts, name)
    if not urls:
        return facts.passed("metrics are served with the clients' URLs only", name)
    answers = [(one, one.plain.get(_VERSION)) for one in facts.seen.sockets if one.port in ports]
    outside = [str(one) for one, clear in answers if clear and clear.status is not None and _is_open(one.address)]
    outside += [url for url in urls if url.startswith("http:") and _is_open(urlsplit(url).hostname or "")]
    if outside:
        fix = f"Set --{name}=http://127.0.0.1:2381"
        return facts.failed(f"in the clear beyond this node: {', '.join(dict.fromkeys(outside))}", fix, name)
    return facts.passed(", ".join(urls), name)


def _is_open(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address != "localhost"


def _ciphers(facts: Facts) -> CheckResult:
    name = "cipher-suites"
    names = [one for one in facts.value(name).split(",") if one]
    if weak := [one for one in names if "_DHE_" not in one.replace("ECDHE", "_DHE_") and "TLS_RSA" in one]:
        fix = "Take them out of --cipher-suites"
        return facts.failed(f"without forward secrecy: {', '.join(weak)}", fix, name)
    return facts.passed(", ".join(names), name) if names else facts.info("Go's own list", name)


def _false(name: str) -> Judge:
    return flag(name, False, f"Remove --{name}")


_TABLE: tuple[Line, ...] = (
    ("tls", "2.1", "K11", CRITICAL, "Clients use TLS", "https on every URL", _clear(peers=False)),
    ("client-certificates", "2.2", "K11", CRITICAL, "No answer without a client certificate", "refused",
     _mutual(peers=False)),
    ("auto-tls", "2.3", "K11", HIGH, "No certificates that it makes for itself", "false", _false("auto-tls")),
    ("peer-tls", "2.4", "K11", HIGH, "Peers use TLS", "https on every URL", _clear(peers=True)),
    ("peer-certificates", "2.5", "K11", HIGH, "No answer to a peer without a certificate", "refused",
     _mutual(peers=True)),
    ("peer-auto-tls", "2.6", "K11", HIGH, "No peers' certificates that it makes for itself", "false",
     _false("peer-auto-tls")),
    ("own-ca", "2.7", "K11", HIGH, "It has a CA of its own", "not the CA of the cluster's clients", _own_ca),
    ("pprof", "", "K13", LOW, "Profiling is off", "false", _false("enable-pprof")),
    ("metrics", "", "K11", LOW, "Metrics are not served in the clear to others", "loopback or https", _metrics),
    ("ciphers", "", "K1", LOW, "Cipher suites with forward secrecy", "no RSA key exchange", _ciphers),
)  # fmt: skip
CHECKS: tuple[Check, ...] = table(Program.ETCD, *_TABLE)
