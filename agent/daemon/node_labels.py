"""The labels of this node as the API server last showed them, kept on the node: a restart without it changes nothing.

The agent's own label follows from the policy and is none that the policy may depend on, so it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import structlog

from agent.annotations import LABEL
from agent.controls.manifest import STATE_FOLDER
from agent.errors import HostError
from agent.host import Host

PATH = f"{STATE_FOLDER}/labels.json"
_LIMIT_BYTES = 2 << 20  # the largest object that etcd takes, and some


class NodeLabels:
    """Read from the disk when first used; replaced by what a watch shows."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._log = structlog.get_logger()
        self._known: Mapping[str, str] | None = None
        self._is_kept = True

    @property
    def known(self) -> Mapping[str, str]:
        """The last known labels; empty when none ever were."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def take(self, node: Mapping[str, Any]) -> bool:
        """Takes the labels of a Node object; whether they differ from those known."""
        meta = node.get("metadata")
        found = meta.get("labels") if isinstance(meta, dict) else None
        labels = _texts(found)
        differ = labels != self.known
        if differ or not self._is_kept:
            self._known, self._is_kept = labels, self._keep(labels)
        return differ

    def _keep(self, labels: Mapping[str, str]) -> bool:
        """Whether the disk took them; else with the next event of the Node."""
        try:
            self._host.write(PATH, json.dumps(labels, sort_keys=True).encode(), mode=0o600)
        except HostError as error:
            self._log.warning("labels_not_kept", path=PATH, error=str(error))
            return False
        return True

    def _read(self) -> dict[str, str]:
        try:
            return _texts(json.loads(self._host.read_text(PATH, limit_bytes=_LIMIT_BYTES, missing="{}")))
        except (HostError, ValueError, RecursionError) as error:
            self._log.warning("labels_unreadable", path=PATH, error=str(error))
            return {}


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {key: text for key, text in found.items() if isinstance(text, str) and key != LABEL}
