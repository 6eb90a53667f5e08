"""Alerts that hold a reboot back, read from a Prometheus (or Thanos, Mimir, VictoriaMetrics) over its HTTP API.

A server that cannot be reached, refuses, or answers what is not understood blocks, with the reason. It refuses
to follow redirects, to read proxies and CA variables of the environment, and to keep a connection between two checks.
https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from urllib3.util.ssl_ import create_urllib3_context

from agent.bounded_http import OwnTrustAdapter, TooLarge, bounded_session, parse_json, read_body
from agent.bounded_socket import deadline, with_deadline
from agent.config.loader import read_whole
from agent.config.schema import Prometheus
from agent.errors import AgentError, KubeError
from agent.kube.credentials import bearer
from agent.kube.network_errors import NETWORK, words
from agent.reboot.interfaces import BlockerResult, Clock, Drained
from agent.text import join_limited, parse_rfc3339, sanitize

_SECRET_LIMIT = 64 << 10
_AUTHORITIES_LIMIT = 1 << 20  # all that a distribution trusts are a quarter of it
_CLOCK_SKEW_SECONDS = 60.0
_STATES = ("firing", "pending", "inactive")
_NAMESPACE_LABELS = ("namespace", "exported_namespace")  # the second without `honorLabels`, of kube-state-metrics
Labels = frozenset[tuple[str, str]]


class PrometheusUnknown(AgentError):
    """Whether an alert fires is unknown; the message is the reason."""


class PrometheusBlocker:
    """Queries alerts, or a query's series; see config `reboot.blockers.prometheus`."""

    name = "prometheus"
    late = True

    def __init__(self, policy: Prometheus, clock: Clock, node: str = "") -> None:
        self._policy = policy
        self._clock = clock
        self._node = node
        self._ignore = re.compile(policy.ignore) if policy.ignore else None
        self._only = re.compile(policy.only) if policy.only else None
        self._pending: frozenset[Labels] | None = None  # before the drain; None: this process has not checked then

    def check(self) -> BlockerResult:
        """One request; takes `timeout` at most, a little more when the server sends slowly."""
        return self._check(None)

    def check_after_drain(self, drained: Drained) -> BlockerResult:
        """The same without what our own cordon and drain set off: see `caused_by_drain`."""
        return self._check(drained)

    def _check(self, drained: Drained | None) -> BlockerResult:
        policy = self._policy
        try:
            if policy.query:
                found = self._ask("/api/v1/query", {"query": policy.query})
                names = series(
                    found["data"],
                    lambda labels: drained is not None and caused_by_drain(drained, self._node, labels),
                )
                return BlockerResult(
                    bool(names), f"the Prometheus query, which found {join_limited(names)}" if names else ""
                )
            found = self._ask("/api/v1/alerts", {})
            names = alerts(
                found["data"],
                firing_only=policy.firing_only,
                counts=lambda labels, since: self._counts(labels) and not self._is_ours(drained, labels, since),
            )
            if drained is None:
                self._pending = pending(found["data"])
        except PrometheusUnknown as error:
            return BlockerResult(blocked=True, by=f"alerts unknown: Prometheus at {policy.url}: {error}", unknown=True)
        return BlockerResult(bool(names), f"alerts: {join_limited(names)}" if names else "")

    def _is_ours(self, drained: Drained | None, labels: Mapping[str, str], since: float | None) -> bool:
        """New since the drain began, and about what it did. What fired before has kept the node from draining."""
        if drained is None or not caused_by_drain(drained, self._node, labels):
            return False
        if self._pending is not None:
            return frozenset(labels.items()) not in self._pending
        return since is None or since >= drained.cordoned_at - _CLOCK_SKEW_SECONDS

    def _counts(self, labels: Mapping[str, str]) -> bool:
        name = labels.get("alertname", "")
        if self._ignore is not None and self._ignore.search(name):
            return False
        if self._only is not None and not self._only.search(name):
            return False
        return self._policy.labels.matches(labels)

    def _ask(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        policy = self._policy
        headers = self._headers()
        adapter = OwnTrustAdapter(ssl_context=_trusting(policy.ca_file)) if policy.ca_file else None
        with bounded_session(adapter) as session, deadline(policy.timeout):
            try:
                with session.get(
                    policy.url.rstrip("/") + path,
                    params=dict(parameters),
                    headers=headers,
                    timeout=policy.timeout,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    return understood(response.status_code, read_body(response.raw))
            except NETWORK as error:
                raise PrometheusUnknown(words(error)) from error
            except TooLarge as error:
                raise PrometheusUnknown(str(error)) from None
            except ValueError as error:
                raise PrometheusUnknown(f"not a URL: {sanitize(str(error))}") from error

    def _headers(self) -> Mapping[str, str]:
        """Credentials and more headers, read from their files for each request. Raises PrometheusUnknown."""
        policy = self._policy
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        for header, path in policy.header_files.items():
            headers[header] = _header(read_secret("headerFiles", path), path)
        if policy.basic_auth_file:
            pair = read_secret("basicAuthFile", policy.basic_auth_file).strip()
            if b":" not in pair:
                raise PrometheusUnknown(f"basicAuthFile {policy.basic_auth_file}: it does not hold user:password")
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        if policy.token_file:
            try:
                headers["Authorization"] = bearer(read_secret("tokenFile", policy.token_file), policy.token_file)
            except KubeError as error:
                raise PrometheusUnknown(f"tokenFile: {error}") from error
        return headers


def read_secret(key: str, path: str, limit_bytes: int = _SECRET_LIMIT) -> bytes:
    """A bounded secret file of the agent's own pod, whole. Raises PrometheusUnknown."""
    try:
        return read_whole(path, limit_bytes)
    except OSError as error:
        raise PrometheusUnknown(f"{key} {path}: {error.strerror}") from error


def _trusting(path: str) -> ssl.SSLContext:
    """TLS that trusts the authorities of the file alone, which is read once. Raises PrometheusUnknown."""
    context = with_deadline(create_urllib3_context())
    try:
        authorities = read_secret("caFile", path, _AUTHORITIES_LIMIT).decode("ascii", errors="backslashreplace")
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise PrometheusUnknown(f"caFile {path}: it holds no certificate in PEM") from error
    return context


def _header(value: bytes, path: str) -> str:
    """A header's value: one line of printable ASCII. Raises PrometheusUnknown; the value itself is never shown."""
    text = value.strip().decode("ascii", "replace")
    if not text.isascii() or not text.isprintable():
        raise PrometheusUnknown(f"headerFiles {path}: it is not one line of printable ASCII")
    return text


def understood(status: int, body: bytearray) -> Mapping[str, Any]:
    """An answer with `data`. Pure. Raises PrometheusUnknown, also for a partial answer: its rest may fire."""
    try:
        document = parse_json(body)
    except TooLarge:
        raise
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else {}
    if status != 200 or document.get("status") != "success":
        message = sanitize(str(document.get("error") or ""))
        if status in (401, 403):
            raise PrometheusUnknown(f"access refused ({status}): check tokenFile, basicAuthFile and headerFiles")
        if 300 <= status < 400:
            raise PrometheusUnknown(f"a redirect ({status}), which is not followed: check the URL")
        if not document:
            raise PrometheusUnknown(f"not an answer of Prometheus ({status}, {len(body)} bytes)")
        raise PrometheusUnknown(f"it answers {status}" + (f": {message}" if message else ""))
    warnings = document.get("warnings")
    if warnings:
        first = warnings[0] if isinstance(warnings, list) else warnings
        raise PrometheusUnknown(f"the answer carries a warning: {sanitize(str(first))}")
    if not isinstance(document.get("data"), dict):
        raise PrometheusUnknown("an answer without data")
    return document


def caused_by_drain(drained: Drained, node: str, labels: Mapping[str, str]) -> bool:
    """Whether an alert is what the cordon and the drain of this node look like: a guard must not observe itself.

    Its labels name this node, or a namespace from which the drain evicted pods. Anything else that is new blocks.
    """
    if any(text == node or text.split(":")[0] == node for text in labels.values()):
        return True
    return any(labels.get(key, "") in drained.namespaces for key in _NAMESPACE_LABELS)


def alerts(
    data: Mapping[str, Any], *, firing_only: bool, counts: Callable[[Mapping[str, str], float | None], bool]
) -> tuple[str, ...]:
    """Names of the alerts that block. Pure. Raises PrometheusUnknown.

    counts: whether an alert matters, by its labels and when it began (epoch seconds, None if unknown).
    """
    found = data.get("alerts")
    if not isinstance(found, list):
        raise PrometheusUnknown("an answer without a list of alerts")
    names: dict[str, None] = {}
    for alert in found:
        labels = _labels(alert.get("labels")) if isinstance(alert, dict) else None
        state = alert.get("state") if isinstance(alert, dict) else None
        if labels is None or state not in _STATES:
            raise PrometheusUnknown(f"an alert that is not understood: {sanitize(json.dumps(alert), 80)}")
        if state == "inactive" or (firing_only and state == "pending"):
            continue
        if counts(labels, _since(alert)):
            names[labels.get("alertname", "(no name)")] = None
    return tuple(names)


def pending(data: Mapping[str, Any]) -> frozenset[Labels]:
    """The labels of every alert that is about to fire, in data that `alerts` has accepted. Pure."""
    return frozenset(frozenset(one["labels"].items()) for one in data["alerts"] if one["state"] == "pending")


def _since(alert: Mapping[str, Any]) -> float | None:
    try:
        return parse_rfc3339(str(alert.get("activeAt", "")))
    except ValueError:
        return None


def series(
    data: Mapping[str, Any], is_ours: Callable[[Mapping[str, str]], bool] = lambda _labels: False
) -> tuple[str, ...]:
    """What a query found, a name a series, but for what the drain caused. Pure.

    Raises PrometheusUnknown for an answer that has no series.
    """
    kind, found = data.get("resultType"), data.get("result")
    if kind in ("scalar", "string"):
        raise PrometheusUnknown(f"the query returns a {kind}, which always exists: compare it, as in `vector(…) > 0`")
    if kind not in ("vector", "matrix") or not isinstance(found, list):
        raise PrometheusUnknown(f"a result that is not understood: {sanitize(str(kind), 40)}")
    return tuple(_series_name(labels) for labels in map(_metric, found) if not is_ours(labels))


def _metric(one: object) -> Mapping[str, str]:
    labels = _labels(one.get("metric")) if isinstance(one, dict) else None
    if labels is None:
        raise PrometheusUnknown("a series without labels")
    return labels


def _series_name(labels: Mapping[str, str]) -> str:
    if alert := labels.get("alertname"):
        return alert
    rest = ",".join(f'{key}="{text}"' for key, text in sorted(labels.items()) if not key.startswith("__"))
    return f"{labels.get('__name__', '')}{{{rest}}}"


def _labels(value: object) -> Mapping[str, str] | None:
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    return None
