"""What a pod gets from a metadata service: one connection, the header of one unauthenticated answer, no credentials.

The body is thrown away, nothing is followed. A pod may put anything in the way of its own traffic; that concerns
this pod alone, so the worst answer of all that were asked counts, and how many were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.controls.metadata_access import Reach
from agent.controls.metadata_access.clouds import Cloud, Service
from agent.errors import HostError
from agent.host import Host, netns
from agent.host.netns import Connection, Result
from agent.model import Severity, Status
from agent.text import join_limited, sanitize, url_host

_MOST = 20
_TIMEOUT_SECONDS = 1.0
_GET = "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: node-hardening-agent\r\nConnection: close\r\n\r\n"
# A token that lives for a second, and is not read: an answer shows that the hop limit lets pods have one.
_PUT = (
    "PUT /latest/api/token HTTP/1.1\r\nHost: {host}\r\nUser-Agent: node-hardening-agent\r\nContent-Length: 0\r\n"
    "X-aws-ec2-metadata-token-ttl-seconds: 1\r\nConnection: close\r\n\r\n"
)


def reach(host: Host, cloud: Cloud) -> Mapping[str, Reach]:
    """By service: the worst answer of at most twenty pods. Never raises."""
    try:
        networks = {one.network: one.path for one in host.containers() if one.network}
    except HostError as error:
        return {one.name: Reach(Status.UNKNOWN, str(error)) for one in cloud.services}
    # The newest namespaces have the highest numbers: those that no earlier pass has asked.
    paths = [networks[key] for key in sorted(networks, reverse=True)][:_MOST]
    return {one.name: _worst(_ask(paths, cloud, one), len(networks)) for one in cloud.services}


def _ask(paths: Sequence[str], cloud: Cloud, service: Service) -> list[Reach]:
    judge = _JUDGES.get(cloud.name) if service.address != _WIRESERVER else None
    request = _request(_GET, service) if judge else b""
    found = netns.exchange(paths, service.address, service.ports[0], request, timeout_seconds=_TIMEOUT_SECONDS)
    judged = {path: _judge(answer, judge) for path, answer in found.items()}
    asking = [path for path, one in judged.items() if one is _TOKEN]
    if asking:
        put = _request(_PUT, service)
        tokens = netns.exchange(asking, service.address, service.ports[0], put, timeout_seconds=_TIMEOUT_SECONDS)
        judged |= {path: _token(answer) for path, answer in tokens.items()}
    return list(judged.values())


def _request(form: str, service: Service) -> bytes:
    return form.format(host=url_host(service.address)).encode()


def _judge(answer: Connection, judge: Callable[[bytes], Reach] | None) -> Reach:
    match answer.result:
        case Result.OPEN:
            return judge(answer.data) if judge else _OPEN
        case Result.ERROR:
            return Reach(Status.UNKNOWN, answer.error)
        case _:
            return Reach(Status.PASS, answer.result.value)


def _aws(data: bytes) -> Reach:
    """Version 1 answers 200 without a token, whatever the hop limit; with version 2 alone it is 401."""
    code, server = _header(data)
    if not server.startswith("EC2ws"):
        return _instead(server) if code else _OPEN
    match code:
        case "401":
            return _TOKEN
        case "403":  # HttpEndpoint=disabled
            return Reach(Status.PASS, "IMDS is turned off (403)")
        case "200":
            return Reach(Status.FAIL, "IMDSv1 answers 200 without a token", Severity.CRITICAL)
    return _OPEN


def _token(answer: Connection) -> Reach:
    if answer.result is Result.ERROR:
        return Reach(Status.UNKNOWN, answer.error)
    if _header(answer.data)[0] == "403":
        return Reach(Status.PASS, "IMDSv2 alone, and it refuses tokens (403)")
    if answer.data:
        return Reach(Status.FAIL, "IMDSv2 gives pods tokens (hop limit above 1)", Severity.HIGH)
    return Reach(Status.PASS, "IMDSv2 alone, and its hop limit keeps tokens from pods")


def _google(data: bytes) -> Reach:
    code, server = _header(data)
    if server.startswith("GKE Metadata Server"):
        return Reach(Status.PASS, "GKE's metadata server answers instead (Workload Identity)")
    return _OPEN if server.startswith("Metadata Server") or not code else _instead(server)


def _header(data: bytes) -> tuple[str, str]:
    """Status code and Server of an answer; empty what is not there."""
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    code = words[1] if words[0].startswith("HTTP/1.") and len(words) > 1 and words[1].isdigit() else ""
    fields = (line.partition(":") for line in lines[1:])
    return code[:3], next((value.strip() for name, _, value in fields if name.lower() == "server"), "")


def _instead(server: str) -> Reach:
    who = f"Server: {sanitize(server, 60)}" if server else "no Server header"
    return Reach(Status.INFO, f"answered by something else than the cloud ({who}): an interceptor")


def _worst(found: Sequence[Reach], pods: int) -> Reach:
    """The worst answer, with how many pods gave which."""
    if not found:
        return Reach(Status.NOT_APPLICABLE, "no pod on this node has a network of its own")
    texts = [one.text for one in found]
    counted = join_limited((f"{texts.count(text)} {text}" for text in dict.fromkeys(texts)), characters=400)
    worst = min(found, key=lambda one: (_ORDER.index(one.status), _SEVERITIES.index(one.severity or Severity.HIGH)))
    return Reach(worst.status, f"{len(found)} of {pods} pods asked: {counted}", worst.severity)


_WIRESERVER = "168.63.129.16"
_OPEN = Reach(Status.FAIL, "open")
_TOKEN = Reach(Status.UNKNOWN, "asked for a token")
_JUDGES: Mapping[str, Callable[[bytes], Reach]] = {"AWS": _aws, "Google Cloud": _google}
_ORDER = (Status.FAIL, Status.UNKNOWN, Status.INFO, Status.PASS)
_SEVERITIES = tuple(Severity)
