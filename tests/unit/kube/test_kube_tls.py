"""What a connection trusts and shows, without a connection."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from agent.kube.credentials import ClientCertificate, Fixed, Trust
from agent.kube.errors import NoCredentials
from agent.kube.transport import _as_file, tls_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def pair(authority: trustme.CA) -> ClientCertificate:
    issued = authority.issue_cert("me@example.org")
    return ClientCertificate(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())


def test_a_private_authority_is_the_only_one(authority: trustme.CA) -> None:
    """Neither the system's authorities nor certifi's join the cluster's own."""
    context = tls_context(Trust(Fixed(authority.cert_pem.bytes())), None)
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is True


def test_insecure_is_only_what_somebody_wrote() -> None:
    """insecure-skip-tls-verify takes the checks away; nothing else does."""
    context = tls_context(Trust(insecure=True), None)
    assert context.verify_mode is ssl.CERT_NONE
    assert tls_context(Trust(), None).verify_mode is ssl.CERT_REQUIRED


def certificates_open() -> list[str]:
    """By name: other threads of these tests open and close files of their own meanwhile."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(entry.readlink()))
    return [link for link in links if "client-certificate" in link]


def test_a_client_certificate_leaves_nothing_open_behind(pair: ClientCertificate) -> None:
    """OpenSSL reads it from a file; that file is gone as soon as it was read."""
    with _as_file(pair.key):
        assert len(certificates_open()) == 1
    tls_context(Trust(insecure=True), pair)
    assert certificates_open() == []


def test_a_system_without_memory_files_still_takes_a_client_certificate(
    pair: ClientCertificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS, for the kubectl plugin: a private temporary file, gone at once."""
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tls_context(Trust(insecure=True), pair)
    assert list(tmp_path.iterdir()) == []


def test_one_file_with_certificate_and_key_serves_as_both(pair: ClientCertificate) -> None:
    """The kubelet keeps its own so, and names it twice."""
    both = pair.certificate + pair.key
    tls_context(Trust(insecure=True), ClientCertificate(both, both))


def encrypted(pair: ClientCertificate) -> ClientCertificate:
    key = load_pem_private_key(pair.key, None)
    hidden = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush"))
    return ClientCertificate(pair.certificate, hidden)


def stranger(pair: ClientCertificate) -> ClientCertificate:
    return ClientCertificate(pair.certificate, trustme.CA().issue_cert("other@example.org").private_key_pem.bytes())


@pytest.mark.parametrize("harm", [encrypted, stranger, lambda _: ClientCertificate(b"no", b"PEM")])
def test_a_client_certificate_that_cannot_be_used_is_said_so(pair: ClientCertificate, harm: object) -> None:
    """An encrypted key must not make OpenSSL ask a terminal; a foreign key and garbage have the same way out."""
    assert callable(harm)
    with pytest.raises(NoCredentials, match="have to be PEM, belong together, unencrypted"):
        tls_context(Trust(insecure=True), harm(pair))


@pytest.mark.parametrize(
    "content", [b"no PEM", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_an_authority_that_is_none_is_said_so(content: bytes) -> None:
    """Told before anything is connected."""
    with pytest.raises(NoCredentials, match=r"certificate authority .* is not PEM"):
        tls_context(Trust(Fixed(content)), None)
