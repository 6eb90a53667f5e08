"""Exec plugins: what they are told, what is made of their answer, when they are asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import CommandTimeout, ConfigError
from agent.kube.credentials import Access
from agent.kube.errors import NoCredentials
from agent.kube.kubeconfig import load

V1 = "client.authentication.k8s.io/v1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Ran:
    """What a command left behind."""

    code: int = 0
    stdout: str = ""
    stderr: str = ""


@dataclass
class Person:
    """Stands in for the host: plays answers one after the other, and the clock."""

    answers: list[Ran | Exception]
    now: datetime = NOON
    asked: list[tuple[list[str], Mapping[str, str]]] = field(default_factory=list)

    def run(self, argv: list[str], *, timeout_seconds: float, environment: Mapping[str, str]) -> Ran:
        assert timeout_seconds > 0
        self.asked.append((argv, environment))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def credential(version: str = V1, **status: Any) -> Ran:
    return Ran(stdout=json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))


def access_of(path: Path, person: Person, cluster: dict[str, Any] | None = None, **changes: Any) -> Access:
    plugin = {"apiVersion": V1, "command": "bin/login", "interactiveMode": "IfAvailable", **changes}
    content = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"exec": plugin}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (path / "config").write_text(json.dumps(content))
    environment = {"PATH": str(path), "HOME": "/home/me", "REGION": "old"}
    return load(environment, kubeconfig=str(path / "config"), runner=person.run, now=lambda: person.now)


def test_the_program_is_told_who_asks_and_gets_the_persons_environment(tmp_path: Path) -> None:
    """Argv, the person's variables under the plugin's own, and KUBERNETES_EXEC_INFO."""
    person = Person([credential(token="t")])
    access = access_of(
        tmp_path,
        person,
        {"certificate-authority-data": "UEVN", "extensions": [{"name": f"{V1[:-3]}/exec", "extension": {"a": 1}}]},
        args=["get-token", "--json"],
        env=[{"name": "REGION", "value": "eu"}],
        provideClusterInfo=True,
    )
    assert access.credentials.headers() == {"Authorization": "Bearer t"}
    argv, environment = person.asked[0]
    assert argv == [str(tmp_path / "bin/login"), "get-token", "--json"]
    assert (environment["HOME"], environment["REGION"]) == ("/home/me", "eu")
    assert json.loads(environment["KUBERNETES_EXEC_INFO"]) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {"server": "https://api", "certificate-authority-data": "UEVN", "config": {"a": 1}},
        },
    }


def test_an_answer_is_kept_until_it_expires(tmp_path: Path) -> None:
    """One login for many requests; a new one a little before the end."""
    end = (NOON + timedelta(minutes=15)).isoformat().replace("+00:00", "Z")
    person = Person([credential(token="first", expirationTimestamp=end), credential(token="second")])
    credentials = access_of(tmp_path, person).credentials
    assert [credentials.headers()["Authorization"] for _ in range(3)] == ["Bearer first"] * 3
    person.now = NOON + timedelta(minutes=14, seconds=49)
    assert credentials.headers()["Authorization"] == "Bearer first"
    person.now = NOON + timedelta(minutes=14, seconds=51)
    assert credentials.headers()["Authorization"] == "Bearer second"
    person.now = NOON + timedelta(days=1000)
    assert credentials.headers()["Authorization"] == "Bearer second"
    assert len(person.asked) == 2


def test_a_401_asks_the_program_again(tmp_path: Path) -> None:
    """A token may be revoked before it expires."""
    person = Person([credential(token="first"), credential(token="second")])
    credentials = access_of(tmp_path, person).credentials
    credentials.headers()
    assert credentials.renew() is True
    assert credentials.headers() == {"Authorization": "Bearer second"}


def test_a_certificate_is_as_good_as_a_token(tmp_path: Path) -> None:
    """Certificate and key together, without any header."""
    person = Person([credential(clientCertificateData="CRT", clientKeyData="KEY")])
    credentials = access_of(tmp_path, person).credentials
    certificate = credentials.certificate()
    assert certificate is not None
    assert (certificate.certificate, certificate.key) == (b"CRT", b"KEY")
    assert credentials.headers() == {}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Ran(1, "hush", "please log in first"), "exit code 1: please log in first; install it from there"),
        (Ran(-9), "exit code -9"),
        (Ran(stdout="hush, no JSON"), "it is not JSON"),
        (Ran(stdout="[" * 100_000), "it is not JSON"),
        (Ran(stdout='"hush"'), "kind is not ExecCredential"),
        (credential("client.authentication.k8s.io/v1beta1", token="hush"), "apiVersion is"),
        (Ran(stdout=json.dumps({"apiVersion": V1, "kind": "ExecCredential"})), "there is no status"),
        (credential(), "neither a token nor a client certificate"),
        (credential(token=["hush"]), "status.token is not a string"),
        (credential(clientKeyData="hush"), "only one of"),
        (credential(token="hush", expirationTimestamp="soon"), "is not a time: 'soon'"),
        (CommandTimeout(["/bin/login"], "killed after 60 s without an answer"), "killed after 60 s"),
    ],
)
def test_a_program_that_fails_is_named_and_its_output_is_not_shown(
    tmp_path: Path, answer: Ran | Exception, words: str
) -> None:
    """What it says on standard error helps; standard output may hold the token."""
    access = access_of(tmp_path, Person([answer]), installHint="install it from there\nsecond line")
    with pytest.raises(NoCredentials) as caught:
        access.credentials.headers()
    assert words in str(caught.value)
    assert str(tmp_path / "bin/login") in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    """The person logs in, and it works."""
    person = Person([Ran(1), credential(token="t")])
    access = access_of(tmp_path, person)
    with pytest.raises(NoCredentials):
        access.credentials.headers()
    assert access.credentials.headers() == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion", "has to be one of"),
        ({"interactiveMode": "Always"}, "interactiveMode", "there is no terminal"),
        ({"command": "login", "installHint": "get it there"}, "command", "login is not in PATH; get it there"),
        ({"command": ""}, "command", "is missing"),
        ({"args": "get-token"}, "args", "has to be a list of texts"),
        ({"env": {"A": "b"}}, "env", "has to be a list"),
        ({"env": [{"name": "A"}]}, "env[0]", "has to be a mapping with name and value"),
        ({"provideClusterInfo": "yes"}, "provideClusterInfo", "has to be true or false"),
    ],
)
def test_a_broken_exec_section_is_told_by_its_key(
    tmp_path: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError) as caught:
        access_of(tmp_path, Person([]), **changes)
    found = [(problem.key, problem.message) for problem in caught.value.problems]
    assert [1 for at, message in found if at == f"users[0].user.exec.{key}" and words in message], found


def test_a_bare_command_is_looked_for_in_the_persons_path(tmp_path: Path) -> None:
    """As a shell would find it, but started by its absolute path."""
    program = tmp_path / "login"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    person = Person([credential(token="t")])
    access_of(tmp_path, person, command="login").credentials.headers()
    assert person.asked[0][0] == [str(program)]
