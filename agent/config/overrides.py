"""The policy of one node: every override whose selector matches its labels, merged in order over the rest.

Sections merge key by key, mappings entry by entry (null removes one), everything else is replaced. It works on the
schema's tree, so that a new key can be overridden without a line here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.config.groups import REMOVED, Assignment, Override, Rollout
from agent.config.render import spelled
from agent.config.schema import Config
from agent.config.schema_tree import Section, Table, keys

MOST = 32
_POOL = "is counted over a pool: nodes that count differently would go down together"
_LOCK = "every node of a pool has to judge a lock alike"
_MOUNTS = "the DaemonSet mounts the folders that the policy of the whole cluster names"
_WRITES = "the agents' admission policy is made from the policy of the whole cluster"
# What an override must not set, and why. Anything else may differ from node to node.
CLUSTER_WIDE: Mapping[str, str] = {
    "overrides": "an override has no overrides of its own",
    "rollout": "every node has to know the same canaries",
    "modprobe.file": _MOUNTS,
    "seccomp.directory": _MOUNTS,
    "reboot.pool": "nodes that see different pools would take different locks",
    "reboot.concurrency": _POOL,
    "reboot.maxUnavailable": _POOL,
    "reboot.blockers.minimumGap": _POOL,
    "reboot.lock.leaseDuration": _LOCK,
    "reboot.lock.onLostHolder": _LOCK,
    "reboot.lock.kured": _LOCK,
    "reboot.lock.kuredDaemonset": _LOCK,
    "reboot.lock.kuredAnnotation": _LOCK,
    "reboot.preferNoScheduleTaint": _WRITES,
    "reboot.nodeLabels": _WRITES,
    "reboot.nodeAnnotations": _WRITES,
    "metrics": "probes and scrapes use one port on all nodes",
    "log": "it is read before the labels of the node are known",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. key: dotted path. value: as YAML or JSON would hold it. line: 0 for a default.

    override: its name; empty for the policy itself.
    """

    key: str
    value: Any
    override: str
    line: int

    @property
    def source(self) -> str:
        """For users: `override gpu, line 12`, `line 3` or `default`."""
        where = f"line {self.line}" if self.line else "default"
        return f"override {self.override}, {where}" if self.override else where


def matching(config: Config, labels: Mapping[str, str]) -> list[Override]:
    """The overrides for a node with these labels, in order."""
    return [one for one in config.overrides if one.node_selector.matches(labels)]


def merge(config: Config, labels: Mapping[str, str]) -> Config:
    """The policy of a node with these labels. Nothing in it is about other nodes."""
    return merged(config, matching(config, labels))


def merged(config: Config, chosen: Sequence[Override]) -> Config:
    """The policy with these overrides, and without what is about groups of nodes."""
    made: Any = replace(config, overrides=(), rollout=Rollout())
    for one in (change for override in chosen for change in override.changes):
        made = _assigned(made, one.path, one.value)
    assert isinstance(made, Config)  # noqa: S101 - an assignment answers what it is given
    return made


def _assigned(section: Any, path: tuple[Any, ...], value: Any) -> Any:
    key = keys(type(section))[path[0]]
    before = getattr(section, key.attribute)
    if len(path) == 1:
        after = value
    elif isinstance(key.form, Table):
        after = {name: one for name, one in before.items() if name != path[1]}
        after |= {} if value is REMOVED else {path[1]: value}
    else:
        after = _assigned(before, path[1:], value)
    return replace(section, **{key.attribute: after})


def origins(config: Config, lines: Mapping[str, int], labels: Mapping[str, str]) -> list[Origin]:
    """Every value of the policy of a node with these labels. lines: of each key in the file, by its path."""
    chosen = matching(config, labels)
    sources = {_dotted(one): (override.name, one.line) for override in chosen for one in override.changes}
    found = []
    for key, value in _leaves(merged(config, chosen), ""):
        name, line = sources.get(key, ("", lines.get(key, 0)))
        found.append(Origin(key, value, name, line))
    return found


def _dotted(change: Assignment) -> str:
    return ".".join(str(part) for part in change.path)


def _leaves(section: Any, above: str) -> Iterator[tuple[str, Any]]:
    """Every key that is no section with its value; entries of a mapping one by one."""
    for name, key in keys(type(section)).items():
        value, path = getattr(section, key.attribute), f"{above}{name}"
        if path in ("overrides", "rollout"):
            continue
        match key.form:
            case Section():
                yield from _leaves(value, f"{path}.")
            case Table(_, item) if value:
                yield from ((f"{path}.{entry}", spelled(item, one)) for entry, one in value.items())
            case form:
                yield path, spelled(form, value)
