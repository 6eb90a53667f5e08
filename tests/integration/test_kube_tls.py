"""TLS as clusters have it: private authorities that rotate, client certificates, names that differ, proxies; and an
environment full of variables that must not matter."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import select
import socket
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.kube import NODES, Kube, RetryPolicy
from agent.kube.credentials import Access, FileText, Fixed, StoredCredentials, Trust
from agent.kube.errors import NoCredentials, Unreachable
from agent.kube.kubeconfig import load
from tests.support.kube import Scripted, Seams, answer, scripted

FEW = RetryPolicy(seconds=240, attempts=3)  # an end by time would change the error on a busy machine


def whole(request: BaseHTTPRequestHandler) -> None:
    """Echoes who is asking, as far as TLS knows."""
    shown = request.connection.getpeercert() if isinstance(request.connection, ssl.SSLSocket) else None
    # ((("organizationName", "…"),), (("commonName", "…"),)), and nothing at all without a client certificate
    subject: Any = (shown or {}).get("subject", ())
    names = {part[0]: part[1] for group in subject for part in group}
    answer(request, json.dumps({"client": names.get("commonName", "")}).encode())


def server_context(authority: trustme.CA, *names: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Scripted]:
    with scripted(whole, tls=server_context(authority, "127.0.0.1", "localhost")) as running:
        yield running


def kube_of(url: str, trust: Trust, seams: Seams | None = None, **more: Any) -> Kube:
    access = Access(url, trust, **more)
    return Kube(access, node="worker-1", retry=FEW, around=seams.around() if seams else None)


def pem(authority: trustme.CA) -> Fixed:
    return Fixed(authority.cert_pem.bytes())


def test_a_private_authority_is_trusted(server: Scripted, authority: trustme.CA) -> None:
    """The cluster's own CA, by address."""
    kube = kube_of(server.url, Trust(pem(authority)))
    assert kube.get(NODES, "a") == {"client": ""}
    kube.close()


def test_the_environment_does_not_matter(
    server: Scripted, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests would take another CA, a proxy and a password from the environment; trust_env is off."""
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().cert_pem.bytes())
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hush\n")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    kube = kube_of(server.url, Trust(pem(authority)))
    assert kube.get(NODES, "a") == {"client": ""}
    assert "authorization" not in server.seen[0][2]
    kube.close()


def test_another_authority_is_not(server: Scripted) -> None:
    """Said as what it is, sent to nobody, and not tried again: it will not get better within seconds."""
    seams = Seams()
    kube = kube_of(server.url, Trust(pem(trustme.CA())), seams)
    with pytest.raises(Unreachable, match=rf"the certificate of {server.url} is not trusted: ") as caught:
        kube.create(NODES, {"metadata": {"name": "a"}})
    assert (caught.value.ambiguous, caught.value.attempts) == (False, 1)
    assert server.seen == []
    assert [exchange.outcome for exchange in seams.sent] == ["Unreachable"]
    kube.close()


def test_a_public_authority_is_not_added_to_a_private_one(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests adds certifi's bundle to any context; here whoever holds a public certificate stays outside."""
    public = trustme.CA()
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(public.cert_pem.bytes())
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(bundle))
    with scripted(whole, tls=server_context(public, "127.0.0.1")) as server:
        kube = kube_of(server.url, Trust(pem(authority)))
        with pytest.raises(Unreachable, match="is not trusted"):
            kube.get(NODES, "a")
        kube.close()


def test_a_name_that_is_not_the_servers(authority: trustme.CA) -> None:
    """tls-server-name is what is asked for and checked; without it the address has to fit."""
    with scripted(whole, tls=server_context(authority, "kubernetes.default.svc")) as server:
        kube = kube_of(server.url, Trust(pem(authority)))
        with pytest.raises(Unreachable, match=r"is not trusted: .*127\.0\.0\.1"):
            kube.get(NODES, "a")
        kube.close()
        kube = kube_of(server.url, Trust(pem(authority), server_name="kubernetes.default.svc"))
        assert kube.get(NODES, "a") == {"client": ""}
        kube.close()
        kube = kube_of(server.url, Trust(pem(authority), server_name="another.svc"))
        with pytest.raises(Unreachable, match="is not trusted"):
            kube.get(NODES, "a")
        kube.close()


def test_insecure_skips_the_checks_and_says_nothing_at_every_request(server: Scripted) -> None:
    """insecure-skip-tls-verify; urllib3's warning would be an error in this suite."""
    kube = kube_of(server.url, Trust(insecure=True))
    assert kube.get(NODES, "a") == {"client": ""}
    kube.close()


@pytest.mark.parametrize("host", ["::1"])
def test_an_ipv6_server(authority: trustme.CA, host: str) -> None:
    """In brackets in the URL, bare in the certificate."""
    try:
        socket.create_server((host, 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error.strerror}")
    with scripted(whole, tls=server_context(authority, host), host=host) as server:
        kube = kube_of(server.url, Trust(pem(authority)))
        assert server.url.startswith("https://[::1]:")
        assert kube.get(NODES, "a") == {"client": ""}
        kube.close()


def test_an_authority_that_rotates_is_followed(tmp_path: Path) -> None:
    """The CA file is swapped and the server with it: the next call goes through, without a restart."""
    first, second = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.crt"
    file.write_bytes(first.cert_pem.bytes())
    # A connection that is kept would outlive the server.
    last = functools.partial(answer, body=b"{}", Connection="close")
    with scripted(last, tls=server_context(first, "127.0.0.1")) as server:
        kube = kube_of(server.url, Trust(FileText(file)))
        kube.get(NODES, "a")
    port = int(server.url.rpartition(":")[2])
    with scripted(whole, tls=server_context(second, "127.0.0.1"), port=port):
        with pytest.raises(Unreachable):
            kube.get(NODES, "a")
        file.write_bytes(second.cert_pem.bytes())
        assert kube.get(NODES, "a") == {"client": ""}
        kube.close()


def client_pair(clients: trustme.CA, name: str) -> tuple[bytes, bytes]:
    issued = clients.issue_cert(f"{name}@example.org", common_name=name)
    return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


def kubeconfig(path: Path, server: str, authority: trustme.CA, **user: str) -> str:
    cluster = {
        "server": server,
        "certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode(),
    }
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize("held", ["data", "files"])
def test_a_client_certificate_proves_who_asks(authority: trustme.CA, tmp_path: Path, held: str) -> None:
    """From the kubeconfig itself or from files that it names."""
    clients = trustme.CA()
    chain, key = client_pair(clients, "jane")
    if held == "data":
        user = {
            "client-certificate-data": base64.b64encode(chain).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }
    else:
        (tmp_path / "jane.crt").write_bytes(chain)
        (tmp_path / "jane.key").write_bytes(key)
        user = {"client-certificate": "jane.crt", "client-key": "jane.key"}
    with scripted(whole, tls=server_context(authority, "127.0.0.1", clients=clients)) as server:
        access = load({}, kubeconfig=kubeconfig(tmp_path / "config", server.url, authority, **user))
        kube = Kube(access, node="worker-1")
        assert kube.get(NODES, "a") == {"client": "jane"}
        kube.close()
    assert not list(tmp_path.glob("**/*client-certificate*"))


def test_a_client_certificate_that_rotates_is_followed(authority: trustme.CA, tmp_path: Path) -> None:
    """New connections show the new one."""
    clients = trustme.CA()
    chain, key = tmp_path / "chain", tmp_path / "key"
    access = StoredCredentials(chain=FileText(chain), key=FileText(key))
    with scripted(whole, tls=server_context(authority, "127.0.0.1", clients=clients)) as server:
        kube = kube_of(server.url, Trust(pem(authority)), credentials=access)
        for name in ("first", "second"):
            for file, content in zip((chain, key), client_pair(clients, name), strict=True):
                file.write_bytes(content)
            assert kube.get(NODES, "a") == {"client": name}
        kube.close()


def test_a_client_certificate_that_is_broken_sends_nothing(server: Scripted, authority: trustme.CA) -> None:
    """NoCredentials, and it counts as an error of the API that on-call sees."""
    seams = Seams()
    held = StoredCredentials(chain=Fixed(b"no"), key=Fixed(b"PEM"))
    kube = kube_of(server.url, Trust(pem(authority)), seams, credentials=held)
    with pytest.raises(NoCredentials, match="have to be PEM"):
        kube.get(NODES, "a")
    assert server.seen == []
    assert [exchange.outcome for exchange in seams.sent] == ["NoCredentials"]
    kube.close()


def tunnel(request: BaseHTTPRequestHandler) -> None:
    """CONNECT, as a forward proxy does it."""
    host, _, port = request.path.rpartition(":")
    request.close_connection = True
    with socket.create_connection((host, int(port)), 10) as far:
        request.send_response(200)
        request.end_headers()
        pair = [request.connection, far]
        with contextlib.suppress(OSError):
            while True:
                for end in select.select(pair, [], [], 10)[0]:
                    content = end.recv(1 << 16)
                    if not content:
                        return
                    pair[1 - pair.index(end)].sendall(content)


def test_a_proxy_that_the_kubeconfig_names_is_used(server: Scripted, authority: trustme.CA) -> None:
    """Through a tunnel, with the server's own certificate checked at its end, and our headers unseen on the way."""
    with scripted(tunnel) as proxy:
        held = StoredCredentials(Fixed(b"hush-token"))
        kube = kube_of(server.url, Trust(pem(authority)), credentials=held, proxy=proxy.url)
        assert kube.get(NODES, "a") == {"client": ""}
        assert [method for method, _, _ in proxy.seen] == ["CONNECT"]
        assert "hush" not in json.dumps(proxy.seen)
        assert server.seen[0][2]["authorization"] == "Bearer hush-token"
        kube.close()
        kube = kube_of(server.url, Trust(pem(trustme.CA())), proxy=proxy.url)
        with pytest.raises(Unreachable, match="is not trusted"):
            kube.get(NODES, "a")
        kube.close()


def test_a_proxy_that_is_not_there_is_said_so(server: Scripted, authority: trustme.CA) -> None:
    """Nothing was sent; the words name what failed."""
    kube = kube_of(server.url, Trust(pem(authority)), Seams(), proxy="http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="connection refused") as caught:
        kube.create(NODES, {"metadata": {"name": "a"}})
    assert caught.value.ambiguous is False
    kube.close()
