"""The fleet in as little memory as its page needs: equal findings grouped, lists of nodes cut, all of it counted.

Pure. It refuses to lose count where it leaves something out: every list knows how much it is a part of.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

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


@dataclass(frozen=True, slots=True)
class NodeNames:
    """Nodes: the names of the first of them, and how many there are."""

    names: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Value:
    """What was observed where something else was expected, and on how many nodes."""

    observed: str
    expected: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Group:
    """One finding on all nodes that have it. values: the commonest; other_values: how many nodes have others."""

    id: str
    status: Status
    severity: Severity
    nodes: NodeNames
    values: tuple[Value, ...]
    other_values: int
    remediation: str
    title: str

    @property
    def control(self) -> str:
        """The control that reports it: what is before the slash."""
        return self.id.partition("/")[0]


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


class _NameList:
    """Names as they come, the first of them kept."""

    __slots__ = ("names", "total")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total = 0

    def add(self, name: str) -> None:
        self.total += 1
        if len(self.names) < NAMES_KEPT:
            self.names.append(name)

    def done(self) -> NodeNames:
        return NodeNames(tuple(self.names), self.total)


class _GroupBuilder:
    """One finding while the nodes come in."""

    __slots__ = ("nodes", "others", "steps", "title", "values")

    def __init__(self) -> None:
        self.nodes = _NameList()
        self.values: Counter[tuple[str, str]] = Counter()
        self.steps: Counter[str] = Counter()
        self.others = 0
        self.title = ""

    def add(self, node: str, one: FindingRow) -> None:
        self.nodes.add(node)
        self.title = self.title or one.title
        value = (one.observed, one.expected)
        if value in self.values or len(self.values) < _VALUES_COUNTED:
            self.values[value] += 1
        else:
            self.others += 1
        step = one.remediation
        if step and (step in self.steps or len(self.steps) < _VALUES_COUNTED):
            self.steps[step] += 1

    def done(self, key: tuple[str, Status, Severity]) -> Group:
        common = self.values.most_common(VALUES_KEPT)
        shown = tuple(Value(observed, expected, number) for (observed, expected), number in common)
        others = self.others + self.values.total() - sum(one.nodes for one in shown)
        step = self.steps.most_common(1)
        return Group(*key, self.nodes.done(), shown, others, step[0][0] if step else "", self.title)


class Aggregator:
    """Takes the rows one by one, findings and history included, and returns them without."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Status, Severity], _GroupBuilder] = {}
        self._checks: dict[tuple[str, Status, Severity], _GroupBuilder] = {}
        self._groups_left: set[tuple[str, Status, Severity]] = set()
        self._mixes: dict[tuple[str, str], _NameList] = {}
        self._unlisted = 0
        self._last: list[tuple[float, int, str, Reboot]] = []
        self._lasted: list[float] = []
        self._rebooted = 0

    def add(self, row: NodeRow) -> NodeRow:
        """One node; what the page shows of it besides the aggregate is returned."""
        for one in row.findings:
            self._finding(row.name, one)
        for one in row.checks:
            key = (one.id, one.status, one.severity)
            if key in self._checks or len(self._checks) < GROUPS_KEPT:
                self._checks.setdefault(key, _GroupBuilder()).add(row.name, one)
        self._unlisted += row.more
        if row.compliance is not None:
            self._mix(row)
        self._rebooted += bool(row.history)
        for reboot in row.history:
            self._reboot(row.name, reboot)
        return replace(row, findings=(), history=(), checks=())

    def snapshot(self, heading: Heading, fleet: Fleet) -> Snapshot:
        """What came in."""
        groups = (collected.done(key) for key, collected in self._groups.items())
        mixes = (Mix(*key, names.done()) for key, names in self._mixes.items())
        return Snapshot(
            heading,
            fleet,
            tuple(sorted(groups, key=_badness)),
            len(self._groups_left),
            self._unlisted,
            tuple(sorted(mixes, key=lambda mix: (-mix.nodes.total, mix.version, mix.policy))),
            self._past(),
            tuple(collected.done(key) for key, collected in sorted(self._checks.items())),
        )

    def _finding(self, node: str, one: FindingRow) -> None:
        key = (one.id, one.status, one.severity)
        if key not in self._groups:
            if len(self._groups) >= GROUPS_KEPT:
                if len(self._groups_left) < GROUPS_KEPT:
                    self._groups_left.add(key)
                return
            self._groups[key] = _GroupBuilder()
        self._groups[key].add(node, one)

    def _mix(self, row: NodeRow) -> None:
        key = (row.version, row.policy)
        if key not in self._mixes and len(self._mixes) >= MIXES_KEPT:
            key = ("others", "")
        self._mixes.setdefault(key, _NameList()).add(row.name)

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


def names_of(rows: Iterable[NodeRow]) -> NodeNames:
    """The names of these nodes."""
    names = _NameList()
    for row in rows:
        names.add(row.name)
    return names.done()


def by_control(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by the control that reports them, the control with the worst finding first."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.control, []).append(group)
    return found


def _badness(group: Group) -> tuple[int, int, int, str]:
    return _STATUSES.get(group.status, 2), _SEVERITIES[group.severity], -group.nodes.total, group.id
