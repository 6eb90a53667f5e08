"""For tests of what is said: a Node and its Events in memory, kept as the API server keeps them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.errors import KubeError
from agent.kube.errors import Conflict, Invalid, NotFound, Operation
from agent.model import Change, Finding, Outcome, Report, Severity, Status
from agent.report.api import KubeReport


def finding(
    number: int = 1, status: Status = Status.PASS, severity: Severity = Severity.HIGH, control: str = "modprobe",
    observed: str = "as it should be",
) -> Finding:  # fmt: skip
    """One finding; its id is made from control and number."""
    return Finding(f"{control}/{number}", control, "A check", status, severity, observed, "well", "test")


def change(outcome: Outcome = Outcome.DONE, control: str = "modprobe", target: str = "/etc/x") -> Change:
    """One change."""
    return Change(control, "write", target, "was missing", outcome, "disk full" if outcome is Outcome.FAILED else "")


def report(*findings: Finding, changes: tuple[Change, ...] = ()) -> Report:
    """One pass over the node n1."""
    return Report("n1", findings or (finding(),), changes)


@dataclass
class NodeInMemory(KubeReport):
    """A Node. `calls` are the requests in order; `fails` is raised by the next ones, one each."""

    node: dict[str, Any] | None = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails: list[KubeError] = field(default_factory=list)
    after: Callable[[dict[str, Any]], object] | None = None
    version: int = 0

    def __post_init__(self) -> None:
        if self.node is not None:
            self.register()

    def register(self, uid: str = "u1", **metadata: Any) -> None:
        """The kubelet makes the Node, as it is before anybody else wrote to it."""
        self.node = {"metadata": {"name": "n1", "uid": uid, **metadata}, "spec": {}, "status": {}}
        self._bump()

    def change(self, do: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Somebody else changes the Node; the answer is what a watch shows."""
        assert self.node is not None
        do(self.node)
        self._bump()
        return self.shown

    @property
    def shown(self) -> dict[str, Any]:
        """A copy of the Node."""
        assert self.node is not None
        return copy.deepcopy(self.node)

    def read(self) -> Mapping[str, Any]:
        self._begin("read")
        return self._answer()

    def patch(
        self,
        annotations: Mapping[str, str | None],
        labels: Mapping[str, str | None],
        conditions: Sequence[Mapping[str, str]],
    ) -> Mapping[str, Any]:
        node = self._begin("patch")
        for name, keys in (("annotations", annotations), ("labels", labels)):
            there = node["metadata"].setdefault(name, {})
            for key, value in keys.items():
                there.pop(key, None)
                if value is not None:
                    there[key] = value.encode().decode()  # what cannot be stored fails here
        there = {one["type"]: one for one in node["status"].get("conditions", [])}
        node["status"]["conditions"] = list({**there, **{one["type"]: one for one in conditions}}.values())
        self._bump()
        return self._answer()

    def replace_taints(self, taints: list[Mapping[str, Any]], resource_version: str) -> Mapping[str, Any]:
        node = self._begin("taints")
        if resource_version != node["metadata"]["resourceVersion"]:
            raise Conflict(_OPERATION, "the object has been modified", status=409)
        node["spec"]["taints"] = list(taints)
        self._bump()
        return self._answer()

    def _begin(self, call: str) -> dict[str, Any]:
        self.calls.append(call)
        if self.fails:
            raise self.fails.pop(0)
        if self.node is None:
            raise NotFound(_OPERATION, "nodes n1 not found", status=404)
        return self.node

    def _answer(self) -> dict[str, Any]:
        """The answer; `after` may change the Node between it and whatever the caller does with it."""
        answer = self.shown
        if self.after is not None:
            then, self.after = self.after, None
            then(answer)
        return answer

    def _bump(self) -> None:
        assert self.node is not None
        self.version += 1
        self.node["metadata"]["resourceVersion"] = str(self.version)


@dataclass
class EventsInMemory(KubeReport):
    """Events. `fails` as above; `always` is raised by every call."""

    events: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails: list[KubeError] = field(default_factory=list)
    always: KubeError | None = None
    before_patch: Callable[[], object] = lambda: None

    def create_event(self, namespace: str, body: dict[str, Any]) -> bool:
        self._begin("create")
        key = namespace, body["metadata"]["name"]
        if key in self.events:
            return False
        self.events[key] = copy.deepcopy(body)
        return True

    def patch_event(self, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.before_patch()
        self._begin("patch")
        there = self.events.get((namespace, name))
        if there is None:
            operation = Operation("PATCH", "patch", "events", f"events/{name} in {namespace}", "/")
            raise NotFound(operation, f'events "{name}" not found', status=404)
        if body.get("count", 0) >= 2**31:
            raise Invalid(_OPERATION, "cannot unmarshal number into Go struct field Event.count", status=422)
        there.update(body)
        return copy.deepcopy(there)

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if self.always is not None:
            raise self.always
        if self.fails:
            raise self.fails.pop(0)


_OPERATION = Operation("PATCH", "patch", "nodes", "nodes n1", "/api/v1/nodes/n1")
