"""Where the API server is, whom to trust, what proves who we are; and what happens to it when files change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.kube.access import find
from agent.kube.credentials import (
    Access,
    ClientCertificate,
    FileText,
    Fixed,
    StoredCredentials,
    bearer,
    in_cluster,
    server_problem,
)
from agent.kube.errors import NoCredentials
from tests.support.access import direct

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's folder as the kubelet projects it: files are symlinks through `..data`."""
    version = tmp_path / "..2024"
    version.mkdir()
    for name, text in (("token", "first"), ("ca.crt", "PEM"), ("namespace", "node-hardening")):
        (version / name).write_text(text)
        (tmp_path / name).symlink_to(f"..data/{name}")
    (tmp_path / "..data").symlink_to(version.name)
    return tmp_path


def rotate(account: Path, token: str) -> None:
    """As the kubelet does it: a new folder, then one rename of `..data`."""
    version = account / "..2025"
    version.mkdir()
    for name in ("token", "ca.crt", "namespace"):
        (version / name).write_text((account / name).read_text())
    (version / "token").write_text(token)
    (account / "..data_tmp").symlink_to(version.name)
    (account / "..data_tmp").rename(account / "..data")


def authorization(access: Access) -> str:
    return access.credentials.headers()["Authorization"]


def test_a_pod_reaches_the_api_server_by_its_service_account(account: Path) -> None:
    """Server from the environment, token, CA and namespace from the projected volume."""
    access = in_cluster(POD, account)
    assert access.server == "https://10.96.0.1:443"
    assert access.namespace == "node-hardening"
    assert authorization(access) == "Bearer first"
    assert access.trust.authority is not None
    assert access.trust.authority.read() == b"PEM"
    assert access.trust.insecure is False


def test_an_ipv6_host_is_put_into_brackets(account: Path) -> None:
    """The environment carries the bare address."""
    assert in_cluster({**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, account).server == "https://[fd00::1]:443"


def test_a_rotated_token_is_used_from_the_next_request_on(account: Path) -> None:
    """Bound tokens rotate by a symlink swap; nobody tells the process."""
    access = in_cluster(POD, account)
    assert authorization(access) == "Bearer first"
    rotate(account, "second")
    assert authorization(access) == "Bearer second"


def test_a_401_has_the_token_read_again_even_when_its_file_looks_the_same(account: Path) -> None:
    """Same size, inode and time, other content: only reading tells."""
    access = in_cluster(POD, account)
    assert authorization(access) == "Bearer first"
    file = (account / "token").resolve()
    found = file.stat()
    file.write_text("other")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert authorization(access) == "Bearer first"
    assert access.credentials.renew() is True
    assert authorization(access) == "Bearer other"
    assert access.credentials.renew() is False


@pytest.mark.parametrize("harm", ["empty", "gone"])
def test_a_token_file_that_breaks_leaves_the_last_good_token(account: Path, harm: str) -> None:
    """The API server judges an old token; an agent without one could not even ask."""
    access = in_cluster(POD, account)
    assert authorization(access) == "Bearer first"
    file = (account / "token").resolve()
    if harm == "empty":
        file.write_text("")
    else:
        file.unlink()
    assert authorization(access) == "Bearer first"


def test_everything_that_a_pod_lacks_is_told_at_once(tmp_path: Path) -> None:
    """Variables and files in one error, each with what it is for."""
    with pytest.raises(ConfigError) as caught:
        in_cluster({}, tmp_path)
    told = [(problem.file, problem.key) for problem in caught.value.problems]
    assert told == [
        (str(tmp_path / "ca.crt"), ""),
        (str(tmp_path / "token"), ""),
        ("environment", "KUBERNETES_SERVICE_HOST"),
        ("environment", "KUBERNETES_SERVICE_PORT"),
    ]
    assert "automountServiceAccountToken" in str(caught.value)


def test_nothing_that_is_secret_is_in_a_repr() -> None:
    """A value that ends in a log by accident gives nothing away."""
    access = direct("https://api:6443", token="hush-token", authority=b"PEM")
    certificate = ClientCertificate(b"chain", b"hush-key")
    assert "hush" not in f"{access!r} {certificate!r} {StoredCredentials(Fixed(b'hush'))!r} {access} {Fixed(b'hush')}"


@pytest.mark.parametrize("token", [b"", b" \n", b"two words", b"line\nbreak", "ünïcode".encode(), b"nul\x00"])
def test_what_cannot_stand_in_a_header_is_no_token(token: bytes) -> None:
    """The error names where the token lies, and not the token."""
    with pytest.raises(NoCredentials, match="/run/token does not hold a bearer token") as caught:
        bearer(token, "/run/token")
    assert token.decode(errors="replace").strip() not in str(caught.value) or not token.strip()


def test_a_token_keeps_no_white_space_around_it() -> None:
    """Files end in a newline."""
    assert bearer(b" abc.def\n", "file") == "Bearer abc.def"


def test_a_file_that_never_was_is_named(tmp_path: Path) -> None:
    """There is nothing to fall back to."""
    with pytest.raises(NoCredentials, match=r"cannot read .*/token: No such file"):
        FileText(tmp_path / "token").read()
    (tmp_path / "token").write_text("\n")
    with pytest.raises(NoCredentials, match=r"/token is empty"):
        FileText(tmp_path / "token").read()


@pytest.mark.parametrize(
    ("server", "secret", "words"),
    [
        ("https://api:6443", True, ""),
        ("https://[fd00::1]:6443/prefix", True, ""),
        ("http://127.0.0.1:8001", True, ""),
        ("http://[::1]:8001", True, ""),
        ("http://localhost:8001", True, ""),
        ("http://api:8080", False, ""),
        ("http://api:8080", True, "send the credentials unencrypted"),
        ("http://127.0.0.1.example.com", True, "send the credentials unencrypted"),
        ("api:6443", False, "not the URL of a server"),
        ("", False, "not the URL of a server"),
        ("ftp://api", False, "not the URL of a server"),
        ("https://api:port", False, "is not a URL"),
        ("https://me:hush@api", False, "do not belong in a server's URL"),
        ("https://me:hush@api:port", False, "do not belong in a server's URL"),
        ("https://api?token=x", False, "has a query or fragment"),
    ],
)
def test_servers_are_judged_before_anything_is_sent(server: str, secret: bool, words: str) -> None:
    """No credentials in the clear beyond loopback, none in a URL, none in the message."""
    problem = server_problem(server, has_secret=secret)
    assert (words in problem) if words else problem == ""
    assert "hush" not in problem


def test_kubeconfig_on_purpose_goes_before_the_pod_that_one_happens_to_be_in(tmp_path: Path) -> None:
    """As with kubectl: KUBECONFIG was set by somebody, the pod's variables are just there."""
    config = tmp_path / "config"
    config.write_text(
        "{clusters: [{name: c, cluster: {server: 'https://elsewhere'}}],"
        " contexts: [{name: x, context: {cluster: c}}], current-context: x}"
    )
    assert find({**POD, "KUBECONFIG": str(config)}).server == "https://elsewhere"
    assert find(POD, kubeconfig=str(config)).server == "https://elsewhere"


def test_a_pod_uses_its_service_account_when_nobody_says_otherwise(account: Path, tmp_path: Path) -> None:
    """Variables alone do not make a pod: without a token there is nothing to prove who asks."""
    assert find(POD, folder=account).source == "the pod's service account"
    (account / "token").unlink()
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        find({**POD, "HOME": str(tmp_path / "nobody")}, folder=account)
