"""The volumes still attached to a drained node: a StatefulSet's pod cannot start elsewhere before they are detached.

Volumes of pods that stay (a DaemonSet's, a static pod's) stay attached and are left out. What cannot be read counts as
attached: the caller's deadline ends the wait.
https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume-attachment-v1/
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import KubeError
from agent.kube import PERSISTENT_VOLUMES, VOLUME_ATTACHMENTS, Kube
from agent.reboot.drain.informer import ResourceInformer
from agent.text import sanitize

_SYNC_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Attachment:
    """One VolumeAttachment of this node. volume: its PersistentVolume, empty for an inline volume."""

    name: str
    volume: str

    def __str__(self) -> str:
        return f"volume {self.volume or self.name}"


class VolumeAttachments:
    """This node's attachments, listed and watched while the drain waits for them."""

    def __init__(self, kube: Kube, node: str, on_change: Callable[[], None]) -> None:
        """on_change: called in the watch's thread when an attachment of this node has gone."""
        self._kube = kube
        self._claims: dict[str, str] = {}
        # A VolumeAttachment cannot be selected by its node.
        follow = kube.follow(VOLUME_ATTACHMENTS)
        self._informer: ResourceInformer[Attachment] = ResourceInformer(
            follow,
            lambda found: _attachment(found, node),
            lambda _uid, item: on_change() if item is None else None,
        )

    def left(self, staying_claims: Collection[str]) -> tuple[str, ...] | None:
        """Names of the volumes still attached; None while unknown. staying_claims: `namespace/claim` of pods that stay.

        Raises KubeError.
        """
        found = self._informer.items(_SYNC_SECONDS)
        if found is None:
            return None
        waits = (one for one in found.values() if not (staying_claims and self._claim(one) in staying_claims))
        return tuple(sorted(sanitize(str(one), 100) for one in waits))

    def close(self) -> None:
        """Ends the watch."""
        self._informer.close()

    def _claim(self, attachment: Attachment) -> str:
        """`namespace/name` of the claim that the volume is bound to, empty when unknown. One GET a volume."""
        volume = attachment.volume
        if not volume:
            return ""
        if volume not in self._claims:
            try:
                reference = (self._kube.get(PERSISTENT_VOLUMES, volume).get("spec") or {}).get("claimRef") or {}
            except KubeError:
                return ""
            self._claims[volume] = f"{reference.get('namespace', '')}/{reference.get('name', '')}"
        return self._claims[volume]


def _attachment(found: Mapping[str, Any], node: str) -> Attachment | None:
    meta, spec = found.get("metadata") or {}, found.get("spec") or {}
    if spec.get("nodeName") != node:
        return None
    volume = (spec.get("source") or {}).get("persistentVolumeName")
    return Attachment(str(meta.get("name", "")), volume if isinstance(volume, str) else "")
