"""Questions about identities rather than objects: may I, who am I, whose token is this, a token for that account.

Nothing here is stored but the tokens that are issued. Kinds: authorization.k8s.io, authentication.k8s.io and the
``token`` subresource of service accounts.
"""

from __future__ import annotations

from typing import Any

from agent.sandbox import status_errors
from agent.sandbox.authn import Authenticator, User, service_account
from agent.sandbox.authz import Authorizer
from agent.sandbox.registry import Registry
from agent.sandbox.routing import RequestInfo
from agent.sandbox.status_errors import ApiError, Object
from agent.sandbox.strategy import stamp

REVIEWS = frozenset({"selfsubjectaccessreviews", "subjectaccessreviews", "selfsubjectreviews", "tokenreviews"})
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
        """One of ``REVIEWS``, with its status.

        Raises:
            ApiError: 400.
        """
        if not isinstance(body, dict):
            raise status_errors.bad_request("the request body is not an object")
        body = {"metadata": {}, **body}
        spec = body.get("spec") or {}
        if resource == "selfsubjectaccessreviews":
            return {**body, "status": self._access(user, spec)}
        if resource == "subjectaccessreviews":
            asked = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
            return {**body, "status": self._access(asked, spec)}
        if resource == "tokenreviews":
            return {**body, "status": self._token_status(spec.get("token", ""))}
        return {**body, "status": {"userInfo": user.info()}}

    def _access(self, user: User, spec: Object) -> Object:
        if "nonResourceAttributes" in spec:
            asked = spec["nonResourceAttributes"]
            info = RequestInfo(asked.get("verb", ""), asked.get("path", ""))
        else:
            asked = spec.get("resourceAttributes") or {}
            info = RequestInfo(
                asked.get("verb", ""), "", asked.get("group", ""), asked.get("version", ""),
                asked.get("namespace", ""), asked.get("resource", ""), asked.get("name", ""),
                asked.get("subresource", ""),
            )  # fmt: skip
        return {"allowed": self._authorizer.allows(user, info)}

    def _token_status(self, token: str) -> Object:
        try:
            user = self._authenticator.authenticate(f"Bearer {token}")
        except ApiError as error:
            return {"authenticated": False, "error": error.message}
        return {"authenticated": True, "user": user.info()}

    def issue(self, namespace: str, name: str, body: Any) -> Object:
        """A TokenRequest answered; a token bound to a pod also names the pod's node.

        Raises:
            ApiError: 404 for the account or the bound object, 422 for less than ten minutes.
        """
        catalog = self._registry.catalog
        account = self._registry.get(catalog.named("serviceaccounts"), namespace, name)
        body = body if isinstance(body, dict) else {}
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < _LEAST_SECONDS:
            text = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            cause = status_errors.Cause("FieldValueInvalid", text, "spec.expirationSeconds")
            who = status_errors.Who("authentication.k8s.io", "tokenrequests", "TokenRequest")
            raise status_errors.invalid(who, "", [cause])
        extra = self._bound(namespace, spec.get("boundObjectRef") or {})
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

    def _bound(self, namespace: str, reference: Object) -> dict[str, tuple[str, ...]]:
        kind, name = reference.get("kind"), reference.get("name", "")
        catalog, prefix = self._registry.catalog, "authentication.kubernetes.io/"
        if kind == "Node":
            node = self._registry.get(catalog.named("nodes"), "", name)
            return {f"{prefix}node-name": (name,), f"{prefix}node-uid": (node.meta["uid"],)}
        if kind != "Pod":
            return {}
        pod = self._registry.get(catalog.named("pods"), namespace, name)
        extra: dict[str, tuple[str, ...]] = {
            f"{prefix}pod-name": (name,),
            f"{prefix}pod-uid": (pod.meta["uid"],),
        }
        node_name = (pod.obj.get("spec") or {}).get("nodeName")
        if node_name:
            extra[f"{prefix}node-name"] = (node_name,)
        return extra
