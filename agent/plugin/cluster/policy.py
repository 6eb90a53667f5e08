"""The agents' configuration as it lies in the cluster: the ConfigMap that the DaemonSet mounts.

An agent whose node has another file, or that has refused this one, works by another: the Node says so (policy,
config-problem). It refuses to take a configuration that cannot be read for the default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.config import Config, loads
from agent.config.schema import Pool
from agent.errors import ConfigError, KubeError
from agent.kube import CONFIGMAPS, DAEMONSETS, Kube
from agent.kube.errors import NoCredentials, NotFound, Unauthorized, Unreachable

DAEMONSET = "node-hardening-agent"
CONFIGMAP = "node-hardening-config"
KEY = "config.yaml"
_VOLUME = "config"


@dataclass(frozen=True, slots=True)
class Policy:
    """config: None when it cannot be told, `problem` then says why. source: where it was read, for people.

    agents: how many of the DaemonSet's pods are ready, and how many there should be; None when that cannot be told.
    """

    config: Config | None
    source: str
    problem: str = ""
    agents: tuple[int, int] | None = None

    @property
    def pool(self) -> Pool:
        """Which nodes wait for each other; the default where the configuration cannot be told."""
        return (self.config or Config()).reboot.pool


def read(kube: Kube, namespace: str) -> Policy:
    """The policy; a cluster without the agent has none.

    What may not be read is in `problem`, for the rest is worth showing anyway. Raises Unreachable, Unauthorized and
    NoCredentials, which no further request would mend.
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
        found = Policy(None, source, f"cannot be read: {error}")
    return replace(found, agents=_agents(daemons))


def of(found: Mapping[str, Any], source: str) -> Policy:
    """The policy of a ConfigMap object. Pure."""
    data = found.get("data")
    text = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(text, str):
        return Policy(None, source, f"{source} has no key {KEY}")
    try:
        return Policy(loads(text, source), source)
    except ConfigError as error:
        return Policy(None, source, f"does not validate: {error.problems[0]}")


def _mounted(daemons: Mapping[str, Any]) -> str:
    """The ConfigMap's name, which tools such as kustomize add a hash to. The usual one where that cannot be told."""
    pod = daemons.get("spec", {}).get("template", {}).get("spec", {})
    for volume in pod.get("volumes") or ():
        if volume.get("name") == _VOLUME and volume.get("configMap", {}).get("name"):
            return str(volume["configMap"]["name"])
    return CONFIGMAP


def _agents(daemons: Mapping[str, Any]) -> tuple[int, int] | None:
    status = daemons.get("status") or {}
    wanted = status.get("desiredNumberScheduled")
    return (int(status.get("numberReady") or 0), wanted) if isinstance(wanted, int) and wanted else None
