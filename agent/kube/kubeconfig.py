"""A user's access to the API server: kubeconfig files, merged as kubectl merges them.

Every problem is reported in one error, with file and key. It refuses what it does not support (basic auth,
auth-provider, SOCKS proxies) rather than connect in another way than kubectl would. An agent in its pod never imports
it.
Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from agent.errors import ConfigError, Problem
from agent.kube.credentials import (
    Access,
    Credentials,
    FileText,
    Fixed,
    Impersonation,
    Runner,
    StoredCredentials,
    Text,
    Trust,
    server_problem,
)
from agent.kube.errors import NoCredentials
from agent.kube.execplugin import API_VERSIONS, ExecCredentials, ExecPlugin

T = TypeVar("T")
_RunPlugin = Callable[[ExecPlugin], Credentials] | None  # None: exec plugins are refused

_REFUSED = {
    "username": "basic authentication left Kubernetes with 1.19; use a token, a certificate or an exec plugin",
    "password": "basic authentication left Kubernetes with 1.19; use a token, a certificate or an exec plugin",
    "auth-provider": "auth providers left Kubernetes with 1.26; use an exec plugin",
    "as-uid": "only `as` and `as-groups` are supported",
    "as-user-extra": "only `as` and `as-groups` are supported",
}


@dataclass(frozen=True, slots=True)
class _Part:
    """One mapping of one file. `key` is its place; its errors go to `problems`."""

    file: Path
    key: str
    values: Mapping[str, Any]
    problems: list[Problem]

    def blame(self, name: str, message: str) -> None:
        self.problems.append(Problem(str(self.file), 0, self._place(name), message))

    def _place(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key and name else self.key or name

    def _typed(self, name: str, kind: type[T], expected: str) -> T | None:
        """The value, where it is of this kind. What is not may be a secret as well: it is never shown."""
        value = self.values.get(name)
        if value is None or isinstance(value, kind):
            return value
        self.blame(name, f"has to be {expected}")
        return None

    def text(self, name: str) -> str:
        return self._typed(name, str, "text; put it in quotes") or ""

    def texts(self, name: str) -> list[str]:
        value = self.values.get(name) or []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        self.blame(name, "has to be a list of texts")
        return []

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, bool, "true or false"))

    def part(self, name: str) -> _Part | None:
        values = self._typed(name, dict, "a mapping")
        return None if values is None else _Part(self.file, self._place(name), values, self.problems)

    def entries(self, name: str, inner: str) -> dict[str, _Part]:
        """A named list such as `users: [{name: …, user: {…}}]`; of two with one name the first counts."""
        found: dict[str, _Part] = {}
        for number, entry in enumerate(self._typed(name, list, "a list") or []):
            where = f"{name}[{number}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                self.blame(where, f"has to be a mapping with a name and a {inner}")
                continue
            held = {} if entry.get(inner) is None else entry[inner]
            if isinstance(held, dict):
                found.setdefault(entry["name"], _Part(self.file, f"{where}.{inner}", held, self.problems))
            else:
                self.blame(f"{where}.{inner}", "has to be a mapping")
        return found

    def pairs(self, name: str) -> dict[str, str]:
        """A list such as `env: [{name: …, value: …}]`."""
        found = {}
        for number, pair in enumerate(self._typed(name, list, "a list") or []):
            if isinstance(pair, dict) and isinstance(pair.get("name"), str) and isinstance(pair.get("value"), str):
                found[pair["name"]] = pair["value"]
            else:
                self.blame(f"{name}[{number}]", "has to be a mapping with name and value")
        return found

    def path(self, name: str) -> Path | None:
        """A file beside the kubeconfig, or an absolute one."""
        value = self.text(name)
        return (self.file.parent / value) if value else None

    def held(self, name: str) -> Text | None:
        """`name-data` (base64) or the file `name`; the data wins, as in client-go."""
        data = self.text(f"{name}-data")
        if data:
            try:
                return Fixed(base64.b64decode(data, validate=True))
            except binascii.Error:
                self.blame(f"{name}-data", "is not base64")
                return None
        path = self.path(name)
        return self._file(name, path) if path else None

    def _file(self, name: str, path: Path) -> Text | None:
        held = FileText(path)
        try:
            held.read()
        except NoCredentials as error:
            self.blame(name, str(error))
            return None
        return held

    def token(self) -> Text | None:
        """`tokenFile` before `token`, as in client-go."""
        path = self.path("tokenFile")
        if path:
            return self._file("tokenFile", path)
        token = self.text("token")
        return Fixed(token.encode()) if token else None


@dataclass(frozen=True, slots=True)
class _Merged:
    """Several files merged: the first that defines a name wins. parts: by kind (cluster, user, context), then name."""

    parts: dict[str, dict[str, _Part]]
    current: str
    first: Path

    def part(self, kind: str, context: _Part, chosen: str) -> _Part | None:
        """The cluster or user that is chosen, or else the context's; None, and blamed, where it is not there."""
        parts, key = self.parts[kind], chosen or context.text(kind)
        if key not in parts and (key or kind == "cluster"):
            known = f"; there are: {', '.join(sorted(parts)) or 'none'}" if chosen else ""
            context.blame(kind, f"there is no {kind} {key!r}{known}")
            return None
        return parts.get(key) or _Part(context.file, f"{kind}s", {}, context.problems)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Names that go before those of the kubeconfig; empty: the kubeconfig's."""

    context: str
    cluster: str
    user: str


def load(
    environment: Mapping[str, str],
    *,
    kubeconfig: str = "",
    context: str = "",
    cluster: str = "",
    user: str = "",
    runner: Runner | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Access:
    """The access of a kubeconfig's context.

    kubeconfig: one file; else the list in KUBECONFIG, else ~/.kube/config. context: else `current-context`. cluster,
    user: else the context's. runner: starts exec plugins. Raises ConfigError with every problem of what they use.
    """
    problems: list[Problem] = []
    merged = _merged(environment, kubeconfig, problems)
    chosen = _Chosen(context or merged.current, cluster, user)
    run = partial(ExecCredentials, runner=runner, now=now) if runner else None
    access = _access(merged, chosen, environment, run, problems)
    if problems or access is None:
        raise ConfigError(problems)
    return access


def contexts(environment: Mapping[str, str], kubeconfig: str = "") -> tuple[str, ...]:
    """The names of all contexts, sorted. Raises ConfigError."""
    return tuple(sorted(_merged(environment, kubeconfig, []).parts["context"]))


def _merged(environment: Mapping[str, str], kubeconfig: str, problems: list[Problem]) -> _Merged:
    """All files as one. Raises ConfigError with what is wrong with them so far, or where there is none."""
    paths, must_exist = _paths(environment, kubeconfig)
    merged = _merge([part for path in paths if (part := _read(path, must_exist, problems))], paths[0])
    if not problems and not merged.parts["context"] and not merged.parts["cluster"]:
        listed = ", ".join(str(path) for path in paths)
        problems.append(Problem(listed, 0, "", "there is no kubeconfig; set KUBECONFIG, or run inside a cluster"))
    if problems:
        raise ConfigError(problems)
    return merged


def _paths(environment: Mapping[str, str], kubeconfig: str) -> tuple[list[Path], bool]:
    if kubeconfig:
        return [Path(kubeconfig)], True
    listed = [Path(path) for path in environment.get("KUBECONFIG", "").split(os.pathsep) if path]
    if listed:
        # A list may name files that come later; a single one that is not there is a slip.
        return listed, len(listed) == 1
    return [Path(environment.get("HOME") or "~").expanduser() / ".kube" / "config"], False


def _read(path: Path, must_exist: bool, problems: list[Problem]) -> _Part | None:
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        if must_exist or not isinstance(error, FileNotFoundError):
            problems.append(Problem(str(path), 0, "", f"cannot be read: {error.strerror}"))
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML makes dates, by recursion
        mark = getattr(error, "problem_mark", None)
        # The error's own text quotes the line, which may hold a token.
        words = getattr(error, "problem", None) or "cannot be parsed"
        problems.append(Problem(str(path), mark.line + 1 if mark else 0, "", f"is not YAML: {words}"))
        return None
    if values is None:
        return None
    if not isinstance(values, dict):
        problems.append(Problem(str(path), 0, "", "has to be a mapping with kind: Config"))
        return None
    part = _Part(path, "", values, problems)
    if values.get("kind", "Config") != "Config" or values.get("apiVersion", "v1") != "v1":
        part.blame("kind", "has to be Config of apiVersion v1")
    return part


def _merge(files: list[_Part], first: Path) -> _Merged:
    parts: dict[str, dict[str, _Part]] = {"cluster": {}, "user": {}, "context": {}}
    for kind, found in parts.items():
        for file in files:
            found.update(file.entries(f"{kind}s", kind) | found)
    return _Merged(parts, next((name for file in files if (name := file.text("current-context"))), ""), first)


def _access(
    merged: _Merged, chosen: _Chosen, environment: Mapping[str, str], run: _RunPlugin, problems: list[Problem]
) -> Access | None:
    name = chosen.context
    context = merged.parts["context"].get(name)
    if context is None and not name and chosen.cluster:
        context = _Part(merged.first, "", {}, problems)
    if context is None:
        known = ", ".join(sorted(merged.parts["context"])) or "none"
        what = f"context {name!r} is not there" if name else "is not set"
        problems.append(Problem(str(merged.first), 0, "current-context", f"{what}; there are: {known}"))
        return None
    cluster = merged.part("cluster", context, chosen.cluster)
    user = merged.part("user", context, chosen.user)
    if cluster is None or user is None:
        return None
    impersonation = Impersonation(user.text("as"), tuple(user.texts("as-groups")))
    if unsound := impersonation.problem():
        user.blame("as", unsound)
    credentials = _credentials(user, cluster, environment, run)
    server = cluster.text("server")
    wrong = server_problem(server, has_secret=user.values != {}) if server else "is missing; write https://host:port"
    if wrong:
        cluster.blame("server", wrong)
    return Access(
        server.rstrip("/"),
        _trust(cluster),
        credentials,
        context.text("namespace") or "default",
        _proxy(cluster),
        f"context {name} of {cluster.file}",
        chosen.user or context.text("user"),
        impersonation,
    )


def _trust(cluster: _Part) -> Trust:
    authority = cluster.held("certificate-authority")
    insecure = cluster.flag("insecure-skip-tls-verify")
    if insecure and authority is not None:
        cluster.blame("insecure-skip-tls-verify", "contradicts the certificate authority; keep one of the two")
    return Trust(authority, insecure, cluster.text("tls-server-name"))


def _proxy(cluster: _Part) -> str:
    proxy = cluster.text("proxy-url")
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        cluster.blame("proxy-url", "only http and https proxies are supported")
    return proxy


def _credentials(user: _Part, cluster: _Part, environment: Mapping[str, str], run: _RunPlugin) -> Credentials:
    for name, message in _REFUSED.items():
        if user.values.get(name):
            user.blame(name, message)
    chain, key, token = user.held("client-certificate"), user.held("client-key"), user.token()
    if (chain is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        user.blame(missing, "is missing: a client certificate and its key go together")
    plugin = user.part("exec")
    if plugin is not None:
        if token or chain:
            user.blame("exec", "is set beside a token or client certificate; keep one of them")
        found = _plugin(plugin, cluster, environment)
        if run is None:
            plugin.blame("command", "exec plugins cannot run here; use a token or a client certificate")
        elif found is not None:
            return run(found)
    return StoredCredentials(token, chain, key)


def _plugin(part: _Part, cluster: _Part, environment: Mapping[str, str]) -> ExecPlugin | None:
    version, command = part.text("apiVersion"), part.text("command")
    if version not in API_VERSIONS:
        part.blame("apiVersion", f"has to be one of {', '.join(API_VERSIONS)}")
    if part.text("interactiveMode") not in ("", "Never", "IfAvailable"):
        part.blame("interactiveMode", "has to be Never or IfAvailable: there is no terminal")
    hint = part.text("installHint").strip().partition("\n")[0]
    if "/" in command:
        # Relative to the kubeconfig, as in client-go.
        program: str | None = str((part.file.parent / command).absolute())
    else:
        program = shutil.which(command, path=environment.get("PATH", os.defpath)) if command else None
    if not command:
        part.blame("command", "is missing")
    elif program is None:
        part.blame("command", f"{command} is not in PATH{'; ' + hint if hint else ''}")
    full = {**environment, **part.pairs("env")}
    arguments = part.texts("args")
    info = _cluster_info(cluster) if part.flag("provideClusterInfo") else None
    return ExecPlugin(version, (program, *arguments), full, info, hint) if program else None


def _cluster_info(cluster: _Part) -> dict[str, Any]:
    """`spec.cluster` of KUBERNETES_EXEC_INFO. Source: client-go tools/auth/exec."""
    authority = cluster.held("certificate-authority")
    extensions = cluster.values.get("extensions")
    info = {
        "server": cluster.text("server"),
        "tls-server-name": cluster.text("tls-server-name"),
        "insecure-skip-tls-verify": cluster.flag("insecure-skip-tls-verify"),
        "certificate-authority-data": base64.b64encode(authority.read()).decode() if authority else "",
        "proxy-url": cluster.text("proxy-url"),
        "config": next(
            (
                entry.get("extension")
                for entry in (extensions if isinstance(extensions, list) else [])
                if isinstance(entry, dict) and entry.get("name") == "client.authentication.k8s.io/exec"
            ),
            None,
        ),
    }
    return {name: value for name, value in info.items() if value}
