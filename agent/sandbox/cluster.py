"""The emulated cluster without its HTTP server: the state, the parts that work on it, and handles on all of them.

Everything here runs in the server's event loop; ``call`` brings it there from any thread. It neither listens nor
speaks HTTP: that is the server's part.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

from agent.sandbox import builders
from agent.sandbox.api import Api
from agent.sandbox.authn import ADMIN, Authenticator, User
from agent.sandbox.authz import Authorizer, bootstrap_roles
from agent.sandbox.catalog import Catalog, Resource
from agent.sandbox.controllers import controllers
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.faults import Fault, FaultBox
from agent.sandbox.gateway import Gateway
from agent.sandbox.journal import Journal, RequestRecord
from agent.sandbox.kubelet import Kubelets
from agent.sandbox.registry import Registry, WriteOptions
from agent.sandbox.reviews import Reviews
from agent.sandbox.schema import decode
from agent.sandbox.settings import Settings
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Store
from agent.sandbox.strategy import for_create

T = TypeVar("T")
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class Cluster:
    """The state and its handles. ``token`` is an administrator's."""

    def __init__(self, settings: Settings) -> None:
        """The default namespaces and roles are there from the start."""
        self.settings = settings
        self.token = f"admin-{secrets.token_urlsafe(16)}"
        self._catalog = Catalog()
        self._store = Store(self._catalog, self.settings.window)
        self._registry = Registry(self._store, self._catalog, _now)
        self._journal = Journal()
        self._faults = FaultBox()
        self._authenticator = Authenticator(_now, self.settings.anonymous)
        self._authenticator.add(self.token, ADMIN)
        authorizer = Authorizer(self._store, self._catalog, enabled=self.settings.rbac)
        reviews = Reviews(self._registry, self._authenticator, authorizer)
        self._kubelets = Kubelets(self._registry, self.settings.kubelet)
        self._controllers = controllers(self._registry, self._kubelets, self.settings)
        self._gateway = Gateway(
            Api(self._registry, reviews), self._authenticator, authorizer, self._journal, self._faults,
            self.settings.readers, _now, self.settings.bookmark_seconds,
        )  # fmt: skip
        self._loop: asyncio.AbstractEventLoop | None = None
        for name in NAMESPACES:
            self._seed("namespaces", {"metadata": {"name": name}})
        for plural, obj in bootstrap_roles():
            self._seed(plural, obj)

    def call(self, function: Callable[[], T]) -> T:
        """Run something in the server's loop and wait for it; before ``start`` it runs here."""
        loop = self._loop
        if loop is None:
            return function()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                result.set_exception(error)

        loop.call_soon_threadsafe(run)
        return result.result()

    # What happened, and what shall go wrong

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request since the start or the last ``clear_requests``, in the order of arrival."""
        return self.call(self._journal.records)

    def clear_requests(self) -> None:
        """Forget them."""
        self.call(self._journal.clear)

    def add_fault(self, fault: Fault) -> int:
        """Arm a fault; the number is for ``remove_fault``."""
        return self.call(lambda: self._faults.add(fault))

    def remove_fault(self, number: int) -> None:
        """Disarm one."""
        self.call(lambda: self._faults.remove(number))

    def clear_faults(self) -> None:
        """Disarm all."""
        self.call(self._faults.clear)

    def fault_hits(self) -> dict[int, int]:
        """How often each armed fault has hit."""
        return self.call(self._faults.hits)

    def cut_watches(self) -> int:
        """End every running watch; how many there were."""
        return self.call(self._gateway.cut_watches)

    def compact(self) -> None:
        """Forget the history: watches and pages from before are 410 from now on."""
        self.call(self._store.compact)

    # Objects, past HTTP and permissions

    def _seed(self, plural: str, obj: Object) -> Object:
        resource = self._catalog.named(plural)
        decoded, _ = decode(obj, resource.kind)
        return self._store.commit(resource, for_create(decoded, resource, _now())).copy(resource)

    def _place(self, plural: str, namespace: str) -> tuple[Resource, str]:
        resource = self._catalog.named(plural)
        return resource, (namespace or "default") if resource.namespaced else ""

    def create(self, plural: str, obj: Mapping[str, Any], namespace: str = "") -> Object:
        """Create an object as an administrator would; its namespace is its own, ``namespace`` or ``default``."""
        resource, where = self._place(plural, (obj.get("metadata") or {}).get("namespace") or namespace)

        def run() -> Object:
            return self._registry.create(resource, where, dict(obj), WriteOptions()).copy(resource)

        return self.call(run)

    def get(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """The stored object, or None."""
        resource, where = self._place(plural, namespace)
        item = self.call(lambda: self._store.get(resource, (where, name)))
        return item.copy(resource) if item is not None else None

    def list(self, plural: str, namespace: str = "") -> list[Object]:
        """All stored objects, of one namespace or of all."""
        resource = self._catalog.named(plural)
        items = self.call(lambda: [item for _, item in self._store.scan(resource, namespace)])
        return [item.copy(resource) for item in items]

    def update(self, plural: str, name: str, change: Callable[[Object], None], namespace: str = "") -> Object:
        """Change a stored object in place with ``change``, status included, past every rule. Raises ApiError: 404."""
        resource, where = self._place(plural, namespace)

        def run() -> Object:
            obj: Object = json.loads(self._registry.get(resource, where, name).body)
            change(obj)
            return self._registry.write(resource, obj).copy(resource)

        return self.call(run)

    def delete(self, plural: str, name: str, namespace: str = "", grace_seconds: int | None = 0) -> None:
        """Delete an object. Raises ApiError: 404."""
        resource, where = self._place(plural, namespace)
        self.call(lambda: self._registry.delete(resource, where, name, DeleteOptions(grace_seconds)))

    def add_node(self, name: str, **options: Any) -> Object:
        """A Ready node (``builders.node``'s options) without the not-ready taint that a POST gets."""
        return self.call(lambda: self._seed("nodes", builders.node(name, _now(), **options)))

    def add_pod(self, name: str, **options: Any) -> Object:
        """A pod (``builders.pod``'s options)."""
        return self.create("pods", builders.pod(name, **options))

    # Machines and identities

    def stop_kubelet(self, node: str) -> None:
        """No heartbeats, no pod starts or ends on this node."""
        self.call(lambda: self._kubelets.silence(node))

    def start_kubelet(self, node: str) -> None:
        """The kubelet is back, and Ready."""
        self.call(lambda: self._kubelets.resume(node))

    def set_boot_id(self, node: str, boot_id: str = "", kernel: str = "") -> str:
        """Another boot id in the node's status; made up when empty."""
        return self.call(lambda: self._kubelets.set_boot_id(node, boot_id, kernel))

    def reboot(self, node: str, down_seconds: float, boot_id: str = "", kernel: str = "") -> None:
        """The machine goes down and comes back with another boot id."""
        self.call(lambda: self._kubelets.reboot(node, down_seconds, boot_id, kernel))

    def add_token(self, token: str, user: User, seconds: float | None = None) -> None:
        """Let a token in, for so long."""
        expires = None if seconds is None else datetime.fromtimestamp(_now().timestamp() + seconds, UTC)
        self.call(lambda: self._authenticator.add(token, user, expires))

    def revoke_token(self, token: str) -> None:
        """Refuse it from now on."""
        self.call(lambda: self._authenticator.revoke(token))


def _now() -> datetime:
    return datetime.now(UTC)
