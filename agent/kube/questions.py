"""What controls ask the API server on behalf of the node: which versions run, whether everything is allowed, and with
which flags the API server of this very node runs.

Answers are kept for hours: they change with an upgrade or a restart of the API server, and a question costs a request.
A refusal is an answer for an hour at most: rights are granted, and components upgraded, while the agent runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from agent.errors import KubeError
from agent.kube.client import Kube
from agent.kube.credentials import Access
from agent.kube.errors import Refused, ServerError, Stopped, TooManyRequests, Unreachable
from agent.kube.resources import ACCESS_REVIEWS, NODES
from agent.kube.retry import RetryPolicy
from agent.text import url_host

_Answer = TypeVar("_Answer")
_SECONDS = 6 * 3600.0
_ACCESS_SECONDS = 3600.0
_AFTER_FAILURE_SECONDS = 600.0
_REFUSED_SECONDS = 3600.0  # of what most clusters never allow: a right may be granted, and a gate enabled, any time
_PATIENCE_SECONDS = 3.0  # a pass waits for it
# Beta and on from 1.36; alpha in 1.35. Another form is refused with 406.
FLAGZ = ", ".join(f"application/json;as=Flagz;v={version};g=config.k8s.io" for version in ("v1beta1", "v1alpha1"))
_MOST_SERVERS = 4
_ONE_TRY = RetryPolicy(seconds=_PATIENCE_SECONDS, attempts=1, connect_seconds=1.0, read_seconds=2.0)
# No role can name it: only an authorizer that allows everything, or `*` for every verb and group, allows it.
_MADE_UP = {"verb": "imagine", "group": "nonexistent.node-hardening.io", "resource": "alwaysallow"}


class _Kept(Generic[_Answer]):
    """One question with its last answer or error."""

    def __init__(
        self, ask: Callable[[], _Answer], seconds: float, clock: Callable[[], float],
        refused_seconds: float = _AFTER_FAILURE_SECONDS,
    ) -> None:  # fmt: skip
        self._ask, self._seconds, self._clock, self._refused_seconds = ask, seconds, clock, refused_seconds
        self._answer: _Answer | KubeError | None = None
        self._until = 0.0

    def __call__(self) -> _Answer:
        """Raises KubeError, the last one again until it is worth a new try."""
        if self._answer is None or self._clock() >= self._until:
            try:
                self._answer, seconds = self._ask(), self._seconds
            except KubeError as error:
                passes = not isinstance(error, Refused) or isinstance(error, ServerError | TooManyRequests)
                self._answer, seconds = error, _AFTER_FAILURE_SECONDS if passes else self._refused_seconds
            self._until = self._clock() + seconds
        if isinstance(self._answer, KubeError):
            raise self._answer.with_traceback(None)  # it would grow with each time
        return self._answer


class Questions:
    """Questions to the API server that the agent's access leads to, which may be any of several."""

    def __init__(self, kube: Kube, access: Access, node: str, *, clock: Callable[[], float]) -> None:
        self._kube, self._access, self._node, self._clock = kube.within(_PATIENCE_SECONDS), access, node, clock
        self._flags: dict[tuple[str, int, str], _Kept[Mapping[str, str]]] = {}
        self._known = _Kept(self._versions, _SECONDS, clock)
        self._allowed = _Kept(self._allows_anything, _ACCESS_SECONDS, clock)

    def allows_anything(self) -> bool | None:
        """Whether a verb is allowed that no rule can name; None when the API server does not answer."""
        try:
            return self._allowed()
        except KubeError:
            return None

    def versions(self) -> tuple[str, str] | None:
        """`gitVersion` of the API server and of this node's kubelet; None when it does not answer. Raises KubeError.

        That an API server is away is no property of the node: only a refusal makes it unknown.
        """
        try:
            return self._known()
        except (Unreachable, Stopped, ServerError, TooManyRequests):
            return None

    def flags(self, address: str, port: int, run: str) -> Mapping[str, str]:
        """The flags of the API server there as it parsed them; none where it does not answer or the right is missing.

        run: names this one run of it. The agent's token goes only to who shows a certificate of the cluster's authority
        for the name that the agent's own access has; the right to /flagz is opt-in (docs/flagz.yaml).
        """
        if len(self._flags) > _MOST_SERVERS:
            self._flags.clear()
        key = (address, port, run)
        if key not in self._flags:
            self._flags[key] = _Kept(
                lambda: self._flagz(address, port), _SECONDS, self._clock, refused_seconds=_REFUSED_SECONDS
            )  # fmt: skip
        try:
            return self._flags[key]()
        except KubeError:
            return {}

    def _flagz(self, address: str, port: int) -> Mapping[str, str]:
        trust, url = self._access.trust, urlsplit(self._access.server)
        if trust.insecure or trust.authority is None or url.scheme != "https":
            return {}  # who answers would be unknown
        trust = replace(trust, server_name=trust.server_name or url.hostname or "")
        there = replace(self._access, server=f"https://{url_host(address)}:{port}", trust=trust, proxy="")
        kube = Kube(there, node=self._node, retry=_ONE_TRY)
        try:
            document = kube.get_raw("/flagz", accept=FLAGZ)
        finally:
            kube.close()  # one connection in hours is not worth keeping
        flags = document.get("flags")
        return {str(name): str(value) for name, value in flags.items()} if isinstance(flags, dict) else {}

    def _versions(self) -> tuple[str, str]:
        version = self._kube.get_raw("/version")
        node: Any = self._kube.get(NODES, self._node)
        info = (node.get("status") or {}).get("nodeInfo") or {}
        return str(version.get("gitVersion", "")), str(info.get("kubeletVersion", ""))

    def _allows_anything(self) -> bool:
        spec = {"resourceAttributes": _MADE_UP}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        review: Any = self._kube.create(ACCESS_REVIEWS, body)
        return (review.get("status") or {}).get("allowed") is True
