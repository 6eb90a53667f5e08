"""Which keys of the policy's `nodeLabels` and `nodeAnnotations` the API server refuses on this Node.

A cycle that ends writes them in the same patch as the uncordon: one refused key refuses all of it. This writes nothing
but these keys, through the same endpoint, and refuses to blame a key while the server refuses every write.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.kube.errors import Forbidden, Invalid
from agent.reboot.cluster import Cluster, NodePatch, NodeView
from agent.reboot.machine.decisions import Write

Key = tuple[str, str]  # label or annotation, and the key


def find_refused_keys(cluster: Cluster, node: NodeView, write: Write) -> dict[Key, str]:
    """The keys that are refused by themselves, and why; the others are on the Node after it.

    Raises KubeError when a write fails for another reason than a key.
    """
    same = None if write.cordon is None else node.unschedulable
    version = cluster.patch_node(NodePatch(unschedulable=same), node.version).version
    refused: dict[Key, str] = {}
    for key, patch in _patches(write, same):
        try:
            version = cluster.patch_node(patch, version).version
        except (Forbidden, Invalid) as error:
            refused[key] = str(error)
    return refused


def _patches(write: Write, same: bool | None) -> Iterator[tuple[Key, NodePatch]]:
    for name, text in write.labels.items():
        yield ("label", name), NodePatch(labels={name: text}, unschedulable=same)
    for name, text in write.annotations.items():
        yield ("annotation", name), NodePatch(annotations={name: text}, unschedulable=same)
