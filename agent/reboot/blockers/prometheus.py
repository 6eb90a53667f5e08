"""Alerts that hold a reboot back, asked of a Prometheus (or Thanos, Mimir, VictoriaMetrics) over its HTTP API.

A server that cannot be reached, refuses, or answers what is not understood blocks, and the verdict says why. It refuses
to follow redirects, to read proxies and CA variables of the environment, and to keep a connection between two checks.
https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from agent.bounded_http import bounded_session, deadline
from agent.config.schema import Prometheus
from agent.errors import AgentError, KubeError
from agent.kube.credentials import bearer
from agent.kube.network_errors import NETWORK, words
from agent.reboot.ports import Clock, Verdict
from agent.text import join_limited, sanitize

_ANSWER_LIMIT = 4 << 20
_CHUNK = 1 << 16
_TOKEN_LIMIT = 64 << 10
_STATES = ("firing", "pending", "inactive")


class NotTold(AgentError):
    """Whether an alert fires cannot be told; the message says why."""


class PrometheusBlocker:
    """Asks for alerts, or for a query's series; see config `reboot.blockers.prometheus`."""

    name = "prometheus"
    late = True

    def __init__(self, policy: Prometheus, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._ignore = re.compile(policy.ignore) if policy.ignore else None
        self._only = re.compile(policy.only) if policy.only else None

    def check(self) -> Verdict:
        """One request; takes `timeout` at most, a little more when the server dribbles."""
        policy = self._policy
        try:
            if policy.query:
                names = series(self._ask("/api/v1/query", {"query": policy.query}))
                return Verdict(bool(names), f"the Prometheus query, which found {join_limited(names)}" if names else "")
            found = self._ask("/api/v1/alerts", {})
            names = alerts(found, firing_only=policy.firing_only, counts=self._counts)
        except NotTold as error:
            return Verdict(blocked=True, by=f"Prometheus at {policy.url}, which cannot be told: {error}")
        return Verdict(bool(names), f"alerts: {join_limited(names)}" if names else "")

    def _counts(self, labels: Mapping[str, str]) -> bool:
        name = labels.get("alertname", "")
        if self._ignore is not None and self._ignore.search(name):
            return False
        if self._only is not None and not self._only.search(name):
            return False
        return self._policy.labels.matches(labels)

    def _ask(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        policy = self._policy
        ends = self._clock.monotonic() + policy.timeout
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **self._authorization()}
        with bounded_session() as session, deadline(policy.timeout):
            try:
                with session.get(
                    policy.url.rstrip("/") + path,
                    params=dict(parameters),
                    headers=headers,
                    timeout=policy.timeout,
                    verify=policy.ca_file or True,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    return understood(response.status_code, self._body(response, ends))
            except NETWORK as error:
                raise NotTold(self._trouble(error)) from error
            except ValueError as error:
                raise NotTold(f"the URL is none: {sanitize(str(error))}") from error

    def _authorization(self) -> Mapping[str, str]:
        """The token, read anew each time: it rotates."""
        path = self._policy.token_file
        if not path:
            return {}
        try:
            with Path(path).open("rb") as file:
                return {"Authorization": bearer(file.read(_TOKEN_LIMIT), path)}
        except OSError as error:
            raise NotTold(f"tokenFile {path}: {error.strerror}") from error
        except KubeError as error:
            raise NotTold(f"tokenFile: {error}") from error

    def _body(self, response: requests.Response, ends: float) -> bytes:
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > _ANSWER_LIMIT:
                raise NotTold(f"an answer of more than {_ANSWER_LIMIT >> 20} MiB")
            if self._clock.monotonic() > ends:
                raise NotTold("no whole answer in time")
        return bytes(body)

    def _trouble(self, error: Exception) -> str:
        ca_file = self._policy.ca_file
        if ca_file and not Path(ca_file).is_file():
            return f"caFile {ca_file} is not there"
        return words(error)


def understood(status: int, body: bytes) -> Mapping[str, Any]:
    """The `data` of an answer. Pure. Raises NotTold, also for a partial answer: what is missing may be firing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    document = document if isinstance(document, dict) else {}
    if status != 200 or document.get("status") != "success":
        said = sanitize(str(document.get("error") or ""))
        if status in (401, 403):
            raise NotTold(f"it refuses us ({status}): is tokenFile right?")
        if 300 <= status < 400:
            raise NotTold(f"a redirect ({status}), which is not followed: is the URL right?")
        if not document:
            raise NotTold(f"an answer ({status}, {len(body)} bytes) that is none of Prometheus's")
        raise NotTold(f"it answers {status}" + (f": {said}" if said else ""))
    warnings = document.get("warnings")
    if warnings:
        first = warnings[0] if isinstance(warnings, list) else warnings
        raise NotTold(f"it warns of its own answer: {sanitize(str(first))}")
    data = document.get("data")
    if not isinstance(data, dict):
        raise NotTold("an answer without data")
    return data


def alerts(
    data: Mapping[str, Any], *, firing_only: bool, counts: Callable[[Mapping[str, str]], bool]
) -> tuple[str, ...]:
    """Names of the alerts that block. Pure. counts: whether an alert with these labels matters. Raises NotTold."""
    found = data.get("alerts")
    if not isinstance(found, list):
        raise NotTold("an answer without a list of alerts")
    names: dict[str, None] = {}
    for alert in found:
        labels = _labels(alert.get("labels")) if isinstance(alert, dict) else None
        state = alert.get("state") if isinstance(alert, dict) else None
        if labels is None or state not in _STATES:
            raise NotTold(f"an alert that is not understood: {sanitize(json.dumps(alert), 80)}")
        if state == "inactive" or (firing_only and state == "pending"):
            continue
        if counts(labels):
            names[labels.get("alertname", "(no name)")] = None
    return tuple(names)


def series(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What a query found, a name a series. Pure. Raises NotTold for an answer that has no series."""
    kind, found = data.get("resultType"), data.get("result")
    if kind in ("scalar", "string"):
        raise NotTold(f"the query gives a {kind}, which is there always: compare it, as in `vector(…) > 0`")
    if kind not in ("vector", "matrix") or not isinstance(found, list):
        raise NotTold(f"a result that is not understood: {sanitize(str(kind), 40)}")
    return tuple(_series_name(one) for one in found)


def _series_name(one: object) -> str:
    labels = _labels(one.get("metric")) if isinstance(one, dict) else None
    if labels is None:
        raise NotTold("a series without labels")
    name = labels.get("alertname") or labels.get("__name__") or ""
    rest = _pairs(sorted((key, text) for key, text in labels.items() if not key.startswith("__")))
    return name if labels.get("alertname") else f"{name}{{{rest}}}"


def _pairs(some: Sequence[tuple[str, str]]) -> str:
    return ",".join(f'{key}="{text}"' for key, text in some)


def _labels(value: object) -> Mapping[str, str] | None:
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    return None
