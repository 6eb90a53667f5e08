"""How a sandbox behaves: every knob with its default, frozen once the server is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.sandbox.authn import User


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """The emulated kubelets; ``enabled`` False leaves pods and heartbeats alone, as a bare API server does.

    ``heartbeat_seconds`` renews node leases (0: never). A pod is Running ``start_seconds`` after it was seen on its
    node; a deleted one is gone after its grace period or ``termination_seconds``, whichever is less.
    """

    enabled: bool = True
    heartbeat_seconds: float = 10.0
    start_seconds: float = 0.05
    termination_seconds: float = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """A sandbox.

    ``anonymous`` is who requests without a token are; None refuses them with 401 (kubectl sends no token over plain
    http: give it TLS or an anonymous user). ``rbac`` False lets every known user do everything. ``controllers`` runs
    workloads, disruption budgets, garbage collection and node taints as a controller manager would; a node that was
    silent for ``node_grace_seconds`` becomes Unknown. ``window`` is how many changes of a resource can be watched back.
    ``readers`` turn bodies of more media types into JSON; they raise ValueError, which becomes a 400.
    """

    anonymous: User | None = None
    rbac: bool = True
    certificate: Path | None = None
    key: Path | None = None
    controllers: bool = True
    kubelet: KubeletSettings = KubeletSettings()
    node_grace_seconds: float = 40.0
    window: int = 4096
    bookmark_seconds: float = 60.0
    readers: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
