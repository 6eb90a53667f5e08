"""The agents' configuration as it is in the cluster: the ConfigMap that the DaemonSet mounts.

An agent whose node has another file, or that rejected this one, works by another: the Node shows it (policy,
config-problem). It refuses to take a configuration that cannot be read for the default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.config import Config
from agent.config.loader import read as loaded
from agent.config.overrides import merge
from agent.config.schema import Pool, Reboot
from agent.errors import ConfigError, KubeError
from agent.kube import CONFIGMAPS, DAEMONSETS, Kube
from agent.kube.errors import NoCredentials, NotFound, Unauthorized, Unreachable
from agent.plugin.cluster import values

DAEMONSET = "node-hardening-agent"
CONFIGMAP = "node-hardening-config"
KEY = "config.yaml"
_VOLUME = "config"
_CONFIG_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """config: None when it is unknown, `problem` then has the reason. source: where it was read.

    lines: of each key in the file, by its path.
    agents: how many of the DaemonSet's pods are ready, and how many there should be; None when that is unknown.
    """

    config: Config | None
    source: str
    problem: str = ""
    agents: tuple[int, int] | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    def of_node(self, labels: Mapping[str, str]) -> Policy:
        """The policy of a node with these labels."""
        return self if self.config is None else replace(self, config=merge(self.config, labels))

    @property
    def reboot(self) -> Reboot:
        """Its section about reboots; the defaults where the configuration is unknown."""
        return (self.config or Config()).reboot

    @property
    def pool(self) -> Pool:
        """Which nodes wait for each other; the default where the configuration is unknown."""
        return self.reboot.pool

    @property
    def object(self) -> str:
        """`configmap/NAME`, as kubectl takes it."""
        return self.source.partition(" ")[0]


def read(kube: Kube, namespace: str) -> Policy:
    """The policy; a cluster without the agent has none.

    What may not be read is in `problem`, because the rest is worth showing anyway. Raises Unreachable, Unauthorized and
    NoCredentials, which would fail every further request too.
    """
    try:
        daemons = kube.get(DAEMONSETS, DAEMONSET, namespace)
    except (Unreachable, Unauthorized, NoCredentials):
        raise
    except KubeError:
        daemons = {}
    name = _mounted(daemons)
    source = f"configmap/{name} in {namespace}"
    try:
        found = of(kube.get(CONFIGMAPS, name, namespace), source)
    except NotFound:
        found = Policy(None, source, f"there is no {source}")
    except KubeError as error:
        found = Policy(None, source, f"cannot be read: {values.text(str(error))}")
    return replace(found, agents=_agents(daemons))


def of(found: Mapping[str, Any], source: str) -> Policy:
    """The policy of a ConfigMap object. Pure."""
    text = values.part(found, "data").get(KEY)
    if not isinstance(text, str) or len(text) > _CONFIG_CHARACTERS:
        return Policy(None, source, f"{source} has no key {KEY} of at most 256 KiB")
    try:
        config, lines = loaded(text, source)
        return Policy(config, source, lines=lines)
    except ConfigError as error:
        return Policy(None, source, f"does not validate: {values.text(str(error.problems[0]))}")


def _mounted(daemons: Mapping[str, Any]) -> str:
    """The ConfigMap's name, which tools such as kustomize add a hash to. The usual one where that is unknown."""
    pod = values.part(daemons, "spec", "template", "spec")
    for volume in values.mappings(pod.get("volumes")):
        if volume.get("name") == _VOLUME:
            return values.name(values.part(volume, "configMap").get("name")) or CONFIGMAP
    return CONFIGMAP


def _agents(daemons: Mapping[str, Any]) -> tuple[int, int] | None:
    status = values.part(daemons, "status")
    desired = int(values.number(status.get("desiredNumberScheduled")))
    return (int(values.number(status.get("numberReady"))), desired) if desired else None
