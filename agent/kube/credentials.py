"""How the API server is reached: its URL, which certificates to trust, and the credentials of the client.

Sources are read again when they change, because bound tokens, CAs and client certificates rotate under a running
agent. It refuses to show a secret in a repr, to send one over plain HTTP beyond loopback, and to read the proxy and
CA variables of the environment (requests lets them override what was configured: kube/transport.py turns that off).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from agent.errors import ConfigError, Problem
from agent.kube.errors import NoCredentials
from agent.text import url_host

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Text(Protocol):
    """Content that is read when it is needed and may have changed the next time."""

    def read(self) -> bytes:
        """The current content. Raises NoCredentials when there never was any."""

    def renew(self) -> bool:
        """Reads it again; True when the content has changed."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Content that does not change."""

    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return "the configuration"

    def read(self) -> bytes:
        return self.content

    def renew(self) -> bool:
        return False


class FileText:
    """The content of a file, read again when its inode, size or time changes (a projected volume swaps a symlink).

    A file that cannot be read, or is empty, leaves the last good content in use: the API server decides on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._content = b""

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """The current content; see the class. Raises NoCredentials."""
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen != self._seen:
                content = self.path.read_bytes()
                if content.strip():
                    # Stat before read: a change in between is seen by the next call.
                    self._content, self._seen = content, seen
        except OSError as error:
            if not self._content:
                raise NoCredentials(f"cannot read {self.path}: {error.strerror}") from error
        if not self._content:
            raise NoCredentials(f"{self.path} is empty")
        return self._content

    def renew(self) -> bool:
        """Reads the file even if its metadata has not changed."""
        before, self._seen = self._content, None
        return self.read() != before


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain and its key, PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


class CommandResult(Protocol):
    """A command that ended, as agent.host has it."""

    @property
    def code(self) -> int:
        """Exit code, negative for a signal."""

    @property
    def stdout(self) -> str:
        """Its standard output."""

    @property
    def stderr(self) -> str:
        """Its standard error."""


class Runner(Protocol):
    """Starts a command and waits for it: `Host.run`, passed in because this package does not know the host."""

    def __call__(self, argv: list[str], *, timeout_seconds: float, environment: Mapping[str, str]) -> CommandResult:
        """argv[0] is an absolute path; `environment` is the whole environment of the command. Raises HostError."""


class Credentials(Protocol):
    """What authenticates the client."""

    def headers(self) -> Mapping[str, str]:
        """Headers of every request. Raises NoCredentials."""

    def certificate(self) -> ClientCertificate | None:
        """The client certificate of every connection. Raises NoCredentials."""

    def renew(self) -> bool:
        """After a 401: reads them again; True when another attempt may help. Raises NoCredentials."""


@dataclass(frozen=True, slots=True)
class StoredCredentials:
    """Credentials that lie somewhere: a token, a client certificate (chain and key), both or none."""

    token: Text | None = None
    chain: Text | None = None
    key: Text | None = None

    def headers(self) -> Mapping[str, str]:
        return {} if self.token is None else {"Authorization": bearer(self.token.read(), str(self.token))}

    def certificate(self) -> ClientCertificate | None:
        if self.chain is None or self.key is None:
            return None
        return ClientCertificate(self.chain.read(), self.key.read())

    def renew(self) -> bool:
        sources = [source for source in (self.token, self.chain, self.key) if source is not None]
        return sum(source.renew() for source in sources) > 0


@dataclass(frozen=True, slots=True)
class Trust:
    """How the server is verified. authority: PEM of its CA, None for the system's. server_name: if not the URL's.

    fingerprint: SHA-256 (hex) of the one certificate that is trusted, whoever signed it; empty: not used.
    """

    authority: Text | None = None
    insecure: bool = False
    server_name: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom the API server takes the client for, where the client's own user may do that.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """

    user: str = ""
    groups: tuple[str, ...] = ()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Lines of every request; a group has a line of its own. As http.client sends UTF-8."""
        lines = (("Impersonate-User", self.user), *(("Impersonate-Group", group) for group in self.groups))
        return tuple((name, text.encode().decode("latin-1")) for name, text in lines if self.user)

    def problem(self) -> str:
        """Why it cannot be sent; empty when it can."""
        if self.groups and not self.user:
            return "a group is impersonated beside a user only: name the user with --as, or `as`"
        texts = (self.user, *self.groups)
        return "" if all(text.isprintable() for text in texts) and all(self.groups) else "has to be one printable line"


AS_ONESELF = Impersonation()


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that a connection needs.

    server: URL without a trailing slash. source: for messages. user: the user of the kubeconfig, which need not
    be what the server calls them; empty elsewhere.
    """

    server: str
    trust: Trust = Trust()
    credentials: Credentials = StoredCredentials()
    namespace: str = "default"
    proxy: str = ""
    source: str = "given"
    user: str = ""
    impersonation: Impersonation = AS_ONESELF


def is_in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> bool:
    """Whether this process runs in a pod with a service account."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST")) and (folder / "token").exists()


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """The access that the kubelet gives a pod. Raises ConfigError with everything that is missing.

    Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
    """
    problems = [
        Problem("environment", 0, name, "is not set; the kubelet sets it in every pod, so this is not a pod")
        for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
        if not environment.get(name)
    ]
    token, authority = FileText(folder / "token"), FileText(folder / "ca.crt")
    for file in (token, authority):
        try:
            file.read()
        except NoCredentials as error:
            hint = "does the pod have automountServiceAccountToken: true?"
            problems.append(Problem(str(file.path), 0, "", f"{error}; {hint}"))
    if problems:
        raise ConfigError(problems)
    host, port = url_host(environment["KUBERNETES_SERVICE_HOST"]), environment["KUBERNETES_SERVICE_PORT"]
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return Access(
        f"https://{host}:{port}",
        Trust(authority),
        StoredCredentials(token),
        namespace or "default",
        source="the pod's service account",
    )


def bearer(token: bytes, source: str) -> str:
    """The value of `Authorization`. Raises NoCredentials, without the token, for what is not valid in a header."""
    text = token.decode("ascii", errors="replace").strip()
    if not text.isascii() or not text.isprintable() or " " in text or not text:
        raise NoCredentials(f"{source} does not hold a bearer token: one word of ASCII")
    return f"Bearer {text}"


def server_problem(server: str, *, has_secret: bool) -> str:
    """Why a server's URL is invalid; empty when it is valid."""
    if "@" in server:
        return "credentials do not belong in a server's URL; use a token, a certificate or an exec plugin"
    try:
        url = urlsplit(server)
        host, _ = url.hostname, url.port
    except ValueError as error:
        return f"{server!r} is not a URL: {error}"
    if url.scheme not in ("http", "https") or not host:
        return f"{server!r} is not the URL of a server; write https://host:port"
    if url.query or url.fragment:
        return f"{server!r} has a query or fragment; write https://host:port"
    if url.scheme == "http" and has_secret and not _is_loopback(host):
        return f"{server!r} would send the credentials unencrypted; use https"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
