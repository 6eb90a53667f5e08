"""Questions about identities rather than objects: may I, who am I, a token for that account.

Nothing here is stored but the tokens that are issued. Kinds: authorization.k8s.io, authentication.k8s.io and the
``token`` subresource of service accounts.
"""

from __future__ import annotations

from typing import Any

from agent.sandbox import status_errors
from agent.sandbox.authn import Authenticator, User, service_account
from agent.sandbox.authz import Authorizer
from agent.sandbox.objects import at
from agent.sandbox.registry import Registry
from agent.sandbox.routing import RequestInfo
from agent.sandbox.status_errors import Object
from agent.sandbox.strategy import stamp

REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectreviews"})
_ATTRIBUTES = ("verb", "group", "version", "namespace", "resource", "name", "subresource")
_LEAST_SECONDS = 600
AUDIENCE = "https://kubernetes.default.svc.cluster.local"


class Reviews:
    """Answers them."""

    def __init__(self, registry: Registry, authenticator: Authenticator, authorizer: Authorizer) -> None:
        """Service accounts, pods and nodes are the registry's."""
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer

    def review(self, resource: str, body: Any, user: User) -> Object:
        """One of ``REVIEWS``, with its status. Raises ApiError: 400."""
        if not isinstance(body, dict):
            raise status_errors.bad_request("the request body is not an object")
        status: Object = {"userInfo": user.info()}
        if resource == "selfsubjectaccessreviews":
            asked = at(body, "spec.resourceAttributes", {})
            info = RequestInfo(path="", **{key: asked.get(key, "") for key in _ATTRIBUTES})
            status = {"allowed": self._authorizer.allows(user, info)}
        return {"metadata": {}, **body, "status": status}

    def issue(self, namespace: str, name: str, body: Any) -> Object:
        """A TokenRequest answered; the token may be bound to a node.

        Raises ApiError: 404 for the account or the node, 422 for less than ten minutes.
        """
        account = self._registry.get(self._registry.catalog.named("serviceaccounts"), namespace, name)
        body = body if isinstance(body, dict) else {}
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < _LEAST_SECONDS:
            text = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            cause = status_errors.Cause("FieldValueInvalid", text, "spec.expirationSeconds")
            who = status_errors.Who("authentication.k8s.io", "tokenrequests", "TokenRequest")
            raise status_errors.invalid(who, "", [cause])
        extra = self._bound(spec.get("boundObjectRef") or {})
        token, expires = self._authenticator.issue(
            service_account(namespace, name, account.meta["uid"], extra), seconds
        )
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": stamp(self._registry.clock())},
            "spec": {"audiences": [AUDIENCE], **spec, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": stamp(expires)},
        }

    def _bound(self, reference: Object) -> dict[str, tuple[str, ...]]:
        if reference.get("kind") != "Node":
            return {}
        node = self._registry.get(self._registry.catalog.named("nodes"), "", reference.get("name", "")).meta
        prefix = "authentication.kubernetes.io/node-"
        return {f"{prefix}name": (node["name"],), f"{prefix}uid": (node["uid"],)}
