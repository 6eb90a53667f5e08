"""The sections of the policy that are about groups of nodes: what differs on some, and which take a change first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from agent.config.fields import key
from agent.config.scalar_types import LabelSelector, Name, Seconds
from agent.config.selector import Selector

REMOVED: Final = None  # the value of an assignment that removes an entry of a mapping


@dataclass(frozen=True, slots=True)
class Assignment:
    """One key that an override sets. path: names as in the file, the last may be an entry of a mapping.

    line: in the file; two policies that differ in lines alone are equal.
    """

    path: tuple[Any, ...]
    value: Any
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Keys of the policy that have other values on some nodes. Beside name and nodeSelector, any key of the policy.

    changes is no key of the file: it is what the override sets, in the file's order.
    """

    name: Name = key("", "shown wherever a value comes from here")
    node_selector: LabelSelector = key(Selector(), "labels of the nodes, e.g. node.kubernetes.io/pool=gpu")
    changes: tuple[Assignment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A changed policy reaches some nodes first, and the others once it has worked there."""

    canary: LabelSelector = key(
        Selector(), "nodes that take a changed policy first; empty: all nodes take it immediately"
    )
    soak: Seconds = key(1800.0, "how long it must have worked on every canary before the other nodes take it")
    urgent: bool = key(False, "this policy does not wait for the canaries")
