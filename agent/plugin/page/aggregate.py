"""The fleet in as little memory as its page needs: equal findings grouped, lists of nodes cut, all of it counted.

Pure. It refuses to lose count where it leaves something out: every list knows how much it is a part of.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

from agent.model import Severity, Status
from agent.plugin.audit.audit import ClusterAudit
from agent.plugin.cluster.nodes import FindingRow, NodeRow, Reboot
from agent.plugin.views.fleet import Fleet

# What is kept of each; a fleet in which more differs than this has other problems than its report.
NAMES_KEPT = 200
GROUPS_KEPT = 500
VALUES_KEPT = 3
MIXES_KEPT = 50
REBOOTS_KEPT = 50
_VALUES_COUNTED = 50
_SEVERITIES = {severity: rank for rank, severity in enumerate(Severity)}
_STATUSES = {Status.FAIL: 0, Status.UNKNOWN: 1}
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_Key = tuple[str, Status, Severity]


@dataclass(slots=True)
class NodeNames:
    """Nodes: the names of the first of them, and how many there are."""

    names: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, name: str) -> None:
        """One more."""
        self.total += 1
        if len(self.names) < NAMES_KEPT:
            self.names.append(name)


@dataclass(frozen=True, slots=True)
class Value:
    """What was observed where something else was expected, and on how many nodes."""

    observed: str
    expected: str
    nodes: int


def _count(counter: Counter[K], key: K) -> None:
    if key in counter or len(counter) < _VALUES_COUNTED:
        counter[key] += 1


@dataclass(slots=True)
class Group:
    """One finding on all nodes that have it; they are added one by one."""

    id: str
    status: Status
    severity: Severity
    nodes: NodeNames = field(default_factory=NodeNames)
    title: str = ""
    _values: Counter[tuple[str, str]] = field(default_factory=Counter)
    _steps: Counter[str] = field(default_factory=Counter)

    def add(self, node: str, one: FindingRow) -> None:
        """A node that has it."""
        self.nodes.add(node)
        self.title = self.title or one.title
        _count(self._values, (one.observed, one.expected))
        if one.remediation:
            _count(self._steps, one.remediation)

    @property
    def control(self) -> str:
        """The control that reports it: what is before the slash."""
        return self.id.partition("/")[0]

    @property
    def values(self) -> tuple[Value, ...]:
        """The commonest."""
        return tuple(Value(*value, number) for value, number in self._values.most_common(VALUES_KEPT))

    @property
    def other_values(self) -> int:
        """How many nodes have others."""
        return self.nodes.total - sum(one.nodes for one in self.values)

    @property
    def remediation(self) -> str:
        """The commonest, empty where none is known."""
        return next((step for step, _ in self._steps.most_common(1)), "")


@dataclass(frozen=True, slots=True)
class Mix:
    """The nodes whose agents have this version and this hash of configuration and profiles."""

    version: str
    policy: str
    nodes: NodeNames


@dataclass(frozen=True, slots=True)
class Past:
    """The last reboots, newest first, of all that the Nodes list. median, longest: seconds, of all."""

    last: tuple[tuple[str, Reboot], ...] = ()
    total: int = 0
    nodes: int = 0
    median: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Heading:
    """What the page is about, who created it and when. Empty texts are unknown. moment: epoch seconds."""

    title: str
    context: str
    server: str
    author: str
    selector: str
    moment: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the page shows. fleet: rows without findings and history; those are here, for all nodes.

    groups_left: groups that were not kept; unlisted: findings that did not fit on their Nodes. checks: what passed, and
    what was not judged. cluster: the cluster's own audit, None where it was not requested.
    """

    heading: Heading
    fleet: Fleet
    groups: tuple[Group, ...] = ()
    groups_left: int = 0
    unlisted: int = 0
    mixes: tuple[Mix, ...] = ()
    past: Past = field(default_factory=Past)
    checks: tuple[Group, ...] = ()
    cluster: ClusterAudit | None = None


class Aggregator:
    """Takes the rows one by one, findings and history included, and returns them without."""

    def __init__(self) -> None:
        self._groups: dict[_Key, Group] = {}
        self._checks: dict[_Key, Group] = {}
        self._groups_left: set[_Key] = set()
        self._mixes: dict[tuple[str, str], NodeNames] = {}
        self._unlisted = 0
        self._last: list[tuple[float, int, str, Reboot]] = []
        self._lasted: list[float] = []
        self._rebooted = 0

    def add(self, row: NodeRow) -> NodeRow:
        """One node; what the page shows of it besides the aggregate is returned."""
        for one in row.findings:
            if not _join(self._groups, row.name, one) and len(self._groups_left) < GROUPS_KEPT:
                self._groups_left.add((one.id, one.status, one.severity))
        for one in row.checks:
            _join(self._checks, row.name, one)
        self._unlisted += row.more
        if row.compliance is not None:
            self._mix(row)
        self._rebooted += bool(row.history)
        for reboot in row.history:
            self._reboot(row.name, reboot)
        return replace(row, findings=(), history=(), checks=())

    def snapshot(self, heading: Heading, fleet: Fleet) -> Snapshot:
        """What came in."""
        mixes = (Mix(*key, names) for key, names in self._mixes.items())
        return Snapshot(
            heading,
            fleet,
            tuple(sorted(self._groups.values(), key=_badness)),
            len(self._groups_left),
            self._unlisted,
            tuple(sorted(mixes, key=lambda mix: (-mix.nodes.total, mix.version, mix.policy))),
            self._past(),
            tuple(group for _, group in sorted(self._checks.items())),
        )

    def _mix(self, row: NodeRow) -> None:
        key = (row.version, row.policy)
        if key not in self._mixes and len(self._mixes) >= MIXES_KEPT:
            key = ("others", "")
        self._mixes.setdefault(key, NodeNames()).add(row.name)

    def _reboot(self, node: str, one: Reboot) -> None:
        self._lasted.append(one.seconds)
        # The number keeps two of one moment from being compared further.
        entry = (one.at, -len(self._lasted), node, one)
        if len(self._last) < REBOOTS_KEPT:
            heapq.heappush(self._last, entry)
        else:
            heapq.heappushpop(self._last, entry)

    def _past(self) -> Past:
        last = tuple((node, one) for _, _, node, one in sorted(self._last, key=lambda entry: entry[:2], reverse=True))
        if not self._lasted:
            return Past()
        return Past(last, len(self._lasted), self._rebooted, median(self._lasted), max(self._lasted))


def _join(groups: dict[_Key, Group], node: str, one: FindingRow) -> bool:
    """Adds a node's finding to its group; False where there are too many groups for another one."""
    key = (one.id, one.status, one.severity)
    if key not in groups and len(groups) >= GROUPS_KEPT:
        return False
    groups.setdefault(key, Group(*key)).add(node, one)
    return True


def names_of(rows: Iterable[NodeRow]) -> NodeNames:
    """The names of these nodes."""
    names = NodeNames()
    for row in rows:
        names.add(row.name)
    return names


def grouped(some: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """By key, in the order in which the keys come first."""
    found: dict[str, list[T]] = {}
    for one in some:
        found.setdefault(key(one), []).append(one)
    return found


def _badness(group: Group) -> tuple[int, int, int, str]:
    return _STATUSES.get(group.status, 2), _SEVERITIES[group.severity], -group.nodes.total, group.id
