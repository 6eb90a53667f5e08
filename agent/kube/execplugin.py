"""Credentials from a program, usually of a cloud provider: client.authentication.k8s.io, v1 and v1beta1.

The program is started by a callable that is passed in, its answer is kept until it expires. It refuses a program that
insists on a terminal, and never shows what the program printed on standard output.
Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.errors import HostError
from agent.kube.credentials import ClientCertificate, Runner, bearer
from agent.kube.errors import NoCredentials

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_TIMEOUT_SECONDS = 60.0
# Asked for again a little early, so that a token does not end on its way.
_EARLY = timedelta(seconds=10)
_WORDS_LIMIT = 300


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """The exec section of a kubeconfig.

    argv: absolute path first. environment: of the program, except KUBERNETES_EXEC_INFO. cluster: what
    `provideClusterInfo` requests, None otherwise. hint: how to install the program.
    """

    api_version: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cluster: Mapping[str, Any] | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Credential:
    token: bytes = field(repr=False)
    certificate: ClientCertificate | None
    expires: datetime | None


class ExecCredentials:
    """Credentials of an exec plugin. Safe for several threads: one program at a time."""

    def __init__(self, plugin: ExecPlugin, runner: Runner, now: Callable[[], datetime]) -> None:
        """now: wall clock with a time zone, because that is what expirationTimestamp is in."""
        self._plugin = plugin
        self._runner = runner
        self._now = now
        self._lock = threading.Lock()
        self._answer: _Credential | None = None

    def headers(self) -> Mapping[str, str]:
        """`Authorization` where the program gave a token. Raises NoCredentials."""
        answer = self._present()
        return {"Authorization": bearer(answer.token, self._plugin.argv[0])} if answer.token else {}

    def certificate(self) -> ClientCertificate | None:
        """The pair, where the program gave one. Raises NoCredentials."""
        return self._present().certificate

    def renew(self) -> bool:
        """Forgets the answer, so that the program runs again."""
        with self._lock:
            self._answer = None
        return True

    def _present(self) -> _Credential:
        with self._lock:
            answer = self._answer
            if answer is None or (answer.expires is not None and answer.expires - _EARLY <= self._now()):
                answer = self._answer = self._ask()
            return answer

    def _ask(self) -> _Credential:
        plugin = self._plugin
        spec: dict[str, Any] = {"interactive": False}
        if plugin.cluster is not None:
            spec["cluster"] = plugin.cluster
        info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
        environment = {**plugin.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            ran = self._runner(list(plugin.argv), timeout_seconds=_TIMEOUT_SECONDS, environment=environment)
        except HostError as error:
            raise self._failed(str(error)) from error
        if ran.code != 0:
            raise self._failed(f"exit code {ran.code}: {ran.stderr.strip()[-_WORDS_LIMIT:]}")
        try:
            return self._read(_parsed(ran.stdout))
        except _NotUnderstood as error:
            raise self._failed(f"its answer is not an ExecCredential: {error}") from error

    def _read(self, document: object) -> _Credential:
        """An ExecCredential as values. Raises _NotUnderstood."""
        if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
            raise _NotUnderstood("kind is not ExecCredential")
        if document.get("apiVersion") != self._plugin.api_version:
            raise _NotUnderstood(f"apiVersion is {document.get('apiVersion')!r}, not {self._plugin.api_version!r}")
        status = document.get("status")
        if not isinstance(status, dict):
            raise _NotUnderstood("there is no status")
        values = {}
        for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp"):
            value = status.get(name) or ""
            if not isinstance(value, str):
                raise _NotUnderstood(f"status.{name} is not a string")
            values[name] = value
        token, chain, key = values["token"], values["clientCertificateData"], values["clientKeyData"]
        if bool(chain) != bool(key):
            raise _NotUnderstood("status has only one of clientCertificateData and clientKeyData")
        if not token and not chain:
            raise _NotUnderstood("status has neither a token nor a client certificate")
        pair = ClientCertificate(chain.encode(), key.encode()) if chain else None
        return _Credential(token.encode(), pair, _time(values["expirationTimestamp"]))

    def _failed(self, why: str) -> NoCredentials:
        hint = f"; {self._plugin.hint}" if self._plugin.hint else ""
        return NoCredentials(f"exec plugin {self._plugin.argv[0]} gave no credentials: {why}{hint}")


class _NotUnderstood(Exception):
    """The program's answer is not valid."""


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: a JSON error carries the whole document, which is the secret.
        raise _NotUnderstood("it is not JSON") from None


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise _NotUnderstood(f"status.expirationTimestamp is not a time: {text!r}") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
