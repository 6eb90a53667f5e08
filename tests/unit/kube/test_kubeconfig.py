"""A kubeconfig is read as kubectl reads it, and a broken one is told with file and key, everything at once."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.kube.credentials import Access, Fixed, Impersonation
from agent.kube.kubeconfig import contexts, load

PEM = base64.b64encode(b"PEM").decode()


def document(**changes: Any) -> dict[str, Any]:
    """A sound kubeconfig; cluster=, user= and context= replace the inner parts."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": changes.get("cluster", {"server": "https://api:6443"})}],
        "users": [{"name": "u", "user": changes.get("user", {"token": "t"})}],
        "contexts": [{"name": "x", "context": changes.get("context", {"cluster": "c", "user": "u"})}],
        "current-context": "x",
    }


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def access_of(path: Path, **changes: Any) -> Access:
    return load({}, kubeconfig=write(path / "config", document(**changes)))


def problems_of(path: Path, **changes: Any) -> list[tuple[str, str]]:
    """Key and message of every problem."""
    with pytest.raises(ConfigError) as caught:
        access_of(path, **changes)
    assert {problem.file for problem in caught.value.problems} == {str(path / "config")}
    return [(problem.key, problem.message) for problem in caught.value.problems]


def test_a_token_and_inline_authority(tmp_path: Path) -> None:
    """The common case of a managed cluster."""
    cluster = {"server": "https://api:6443/", "certificate-authority-data": PEM, "tls-server-name": "kubernetes"}
    access = access_of(tmp_path, cluster=cluster, context={"cluster": "c", "user": "u", "namespace": "shop"})
    assert access.server == "https://api:6443"
    assert access.namespace == "shop"
    assert access.credentials.headers() == {"Authorization": "Bearer t"}
    assert access.credentials.certificate() is None
    assert isinstance(access.trust.authority, Fixed)
    assert access.trust.authority.read() == b"PEM"
    assert access.trust.server_name == "kubernetes"
    assert access.source == f"context x of {tmp_path / 'config'}"


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    """Relative paths belong to the file that names them, not to the folder that one happens to stand in."""
    for name, text in (("ca", "CA"), ("crt", "CRT"), ("key", "KEY"), ("token", "tok")):
        (tmp_path / name).write_text(text)
    access = access_of(
        tmp_path,
        cluster={"server": "https://api", "certificate-authority": "ca"},
        user={"client-certificate": "crt", "client-key": str(tmp_path / "key"), "tokenFile": "token", "token": "older"},
    )
    certificate = access.credentials.certificate()
    assert certificate is not None
    assert (certificate.certificate, certificate.key) == (b"CRT", b"KEY")
    assert access.credentials.headers() == {"Authorization": "Bearer tok"}
    assert access.trust.authority is not None
    assert access.trust.authority.read() == b"CA"


def test_data_wins_over_files(tmp_path: Path) -> None:
    """As in client-go; the file need not even be there."""
    cluster = {"server": "https://api", "certificate-authority": "nowhere", "certificate-authority-data": PEM}
    access = access_of(tmp_path, cluster=cluster)
    assert access.trust.authority is not None
    assert access.trust.authority.read() == b"PEM"


def test_a_list_of_files_is_merged_and_the_first_that_names_something_decides(tmp_path: Path) -> None:
    """KUBECONFIG=a:b as kubectl has it; relative paths stay with their own file, missing files are passed over."""
    second = tmp_path / "sub"
    second.mkdir()
    (second / "token").write_text("of-b")
    a = document(user={"token": "of-a"})
    a["current-context"] = ""
    b = document(cluster={"server": "https://b"}, user={"token": "not-this"})
    b["users"].append({"name": "v", "user": {"tokenFile": "token"}})
    b["contexts"].append({"name": "y", "context": {"cluster": "c", "user": "v"}})
    paths = [write(tmp_path / "a", a), str(tmp_path / "missing"), write(second / "b", b)]
    environment = {"KUBECONFIG": ":".join(paths)}
    access = load(environment)
    assert (access.server, access.credentials.headers()) == ("https://api:6443", {"Authorization": "Bearer of-a"})
    other = load(environment, context="y")
    assert (other.server, other.credentials.headers()) == ("https://api:6443", {"Authorization": "Bearer of-b"})


def test_the_home_folder_is_where_people_keep_it(tmp_path: Path) -> None:
    """~/.kube/config, when nothing else is said."""
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", document())
    assert load({"HOME": str(tmp_path)}).server == "https://api:6443"


def test_no_kubeconfig_at_all_says_what_to_do(tmp_path: Path) -> None:
    """Neither file nor cluster: the error names both ways out."""
    with pytest.raises(ConfigError, match="set KUBECONFIG, or run inside a cluster"):
        load({"HOME": str(tmp_path)})


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_file_that_was_named_has_to_be_there(tmp_path: Path, by: str) -> None:
    """A slip in a path never falls through to another cluster."""
    missing = str(tmp_path / "missing")
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", document())
    with pytest.raises(ConfigError, match=r"missing: cannot be read: No such file"):
        load(
            {"HOME": str(tmp_path), **({"KUBECONFIG": missing} if by == "variable" else {})},
            kubeconfig=missing if by == "argument" else "",
        )


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Cluster and user are both looked at before anybody is told anything."""
    found = problems_of(
        tmp_path,
        cluster={"server": "api:6443", "certificate-authority-data": "%%%", "insecure-skip-tls-verify": "yes"},
        user={"client-certificate-data": PEM, "username": "me", "token": 7},
    )
    assert [key for key, _ in found] == [
        "clusters[0].cluster.certificate-authority-data",
        "clusters[0].cluster.insecure-skip-tls-verify",
        "clusters[0].cluster.server",
        "users[0].user.client-key",
        "users[0].user.token",
        "users[0].user.username",
    ]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"context": {"cluster": "d", "user": "u"}}, "contexts[0].context.cluster", "there is no cluster 'd'"),
        ({"context": {"cluster": "c", "user": "v"}}, "contexts[0].context.user", "there is no user 'v'"),
        ({"cluster": {}}, "clusters[0].cluster.server", "is missing"),
        ({"cluster": {"server": "http://api"}}, "clusters[0].cluster.server", "send the credentials"),
        (
            {"cluster": {"server": "https://a", "insecure-skip-tls-verify": True, "certificate-authority-data": PEM}},
            "clusters[0].cluster.insecure-skip-tls-verify",
            "contradicts the certificate authority",
        ),
        (
            {"cluster": {"server": "https://a", "proxy-url": "socks5://p:1080"}},
            "clusters[0].cluster.proxy-url",
            "only http and https proxies",
        ),
        (
            {"cluster": {"server": "https://a", "certificate-authority": "ca.crt"}},
            "clusters[0].cluster.certificate-authority",
            "cannot read",
        ),
        ({"user": {"tokenFile": "t"}}, "users[0].user.tokenFile", "cannot read"),
        ({"user": {"client-key-data": PEM}}, "users[0].user.client-certificate", "go together"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "users[0].user.auth-provider", "use an exec plugin"),
        ({"user": {"token": "t", "as-groups": ["g"]}}, "users[0].user.as", "beside a user only"),
        ({"user": {"token": "t", "as": "a\nb"}}, "users[0].user.as", "one printable line"),
        ({"user": {"token": "t", "as-uid": "7"}}, "users[0].user.as-uid", "only `as` and `as-groups`"),
        ({"user": {"exec": []}}, "users[0].user.exec", "has to be a mapping"),
        ({"user": {"token": ["hush"]}}, "users[0].user.token", "has to be text"),
        ({"user": {"exec": {"command": "x"}, "token": "t"}}, "users[0].user.exec", "keep one of them"),
    ],
)
def test_each_thing_that_is_wrong_is_named_by_its_key(
    tmp_path: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    """File and key, and what would be right; never the value, which may be a secret in the wrong form."""
    found = problems_of(tmp_path, **changes)
    assert [problem for problem in found if problem[0] == key and words in problem[1]], found
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [hush\n", 2, "is not YAML"),
        ("users:\n- token: 'hush\n", 3, "is not YAML"),
        ("users: [{name: u, user: {token: 2030-99-99}}]", 0, "is not YAML"),  # read as a date
        ("[" * 5000, 0, "is not YAML"),
        ("[1]", 0, "has to be a mapping"),
        ("kind: List", 0, "has to be Config"),
        ("clusters: 3", 0, "has to be a list"),
        ("clusters: [hush]", 0, "mapping with a name and a cluster"),
        ("users: [{name: u, user: hush}]", 0, "has to be a mapping"),
        ("clusters: [{name: c, cluster: {}}]\ncurrent-context: x", 0, "context 'x' is not there; there are: none"),
        ("clusters: [{name: c, cluster: {}}]", 0, "is not set"),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str, line: int, words: str) -> None:
    """Told with the line where there is one; what stands there, perhaps a secret, is not repeated."""
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, kubeconfig=str(file))
    problem = caught.value.problems[0]
    assert words in problem.message
    assert (problem.file, problem.line) == (str(file), line)
    assert "hush" not in str(caught.value)


def test_an_empty_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    """An empty file is an empty kubeconfig; a folder cannot be read at all."""
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        load({}, kubeconfig=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load({}, kubeconfig=str(tmp_path))


def test_a_context_without_a_user_is_anonymous(tmp_path: Path) -> None:
    """kubectl proxy's kind of kubeconfig."""
    access = access_of(tmp_path, cluster={"server": "http://127.0.0.1:8001"}, context={"cluster": "c"})
    assert access.credentials.headers() == {}


def test_an_exec_plugin_without_a_runner_is_refused(tmp_path: Path) -> None:
    """The agent's pod has no cloud's program in it."""
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/x", "interactiveMode": "Never"}}
    found = problems_of(tmp_path, user=user)
    assert found == [
        ("users[0].user.exec.command", "exec plugins cannot run here; use a token or a client certificate")
    ]


def test_cluster_and_user_go_before_the_contexts(tmp_path: Path) -> None:
    """kubectl's flags of these names; what is not there is named with what is."""
    both = document()
    both["clusters"].append({"name": "d", "cluster": {"server": "https://other"}})
    both["users"].append({"name": "v", "user": {"token": "s", "as": "ada", "as-groups": ["a", "b"]}})
    path = write(tmp_path / "config", both)
    access = load({}, kubeconfig=path, cluster="d", user="v")
    assert (access.server, access.user) == ("https://other", "v")
    assert access.credentials.headers() == {"Authorization": "Bearer s"}
    assert access.impersonation == Impersonation("ada", ("a", "b"))
    with pytest.raises(ConfigError, match=r"no cluster 'e'; there are: c, d") as caught:
        load({}, kubeconfig=path, cluster="e", user="w")
    assert "no user 'w'; there are: u, v" in str(caught.value.problems[1])
    without = {**both, "current-context": ""}
    assert load({}, kubeconfig=write(tmp_path / "bare", without), cluster="d", user="u").server == "https://other"


def test_contexts_are_those_of_all_files(tmp_path: Path) -> None:
    """Sorted, each once."""
    other = document()
    other["contexts"] = [{"name": "b", "context": {}}, {"name": "x", "context": {}}]
    paths = [write(tmp_path / "one", document()), write(tmp_path / "two", other)]
    assert contexts({"KUBECONFIG": ":".join(paths)}) == ("b", "x")
