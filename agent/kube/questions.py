"""What controls ask the API server on behalf of the node: which versions run, and whether everything is allowed.

Answers are kept for hours: they change with an upgrade or a restart of the API server, and a question costs a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from agent.errors import KubeError
from agent.kube.client import Kube
from agent.kube.errors import ServerError, Stopped, TooManyRequests, Unreachable
from agent.kube.resources import ACCESS_REVIEWS, NODES

_Answer = TypeVar("_Answer")
_SECONDS = 6 * 3600.0
_ACCESS_SECONDS = 3600.0
_AFTER_FAILURE_SECONDS = 600.0
_PATIENCE_SECONDS = 3.0  # a pass waits for it
# No role can name it: only an authorizer that allows everything, or `*` for every verb and group, allows it.
_MADE_UP = {"verb": "imagine", "group": "nonexistent.node-hardening.io", "resource": "alwaysallow"}


class _Kept(Generic[_Answer]):
    """One question with its last answer or error."""

    def __init__(self, ask: Callable[[], _Answer], seconds: float, clock: Callable[[], float]) -> None:
        self._ask, self._seconds, self._clock = ask, seconds, clock
        self._answer: _Answer | KubeError | None = None
        self._until = 0.0

    def __call__(self) -> _Answer:
        """Raises KubeError, the last one again until it is worth a new try."""
        if self._answer is None or self._clock() >= self._until:
            try:
                self._answer, seconds = self._ask(), self._seconds
            except KubeError as error:
                self._answer, seconds = error, _AFTER_FAILURE_SECONDS
            self._until = self._clock() + seconds
        if isinstance(self._answer, KubeError):
            raise self._answer.with_traceback(None)  # it would grow with each time
        return self._answer


class Questions:
    """Questions to the API server that the agent's access leads to, which may be any of several."""

    def __init__(self, kube: Kube, node: str, *, clock: Callable[[], float]) -> None:
        self._kube, self._node = kube.within(_PATIENCE_SECONDS), node
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
