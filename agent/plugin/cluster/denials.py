"""The annotation `denials` of Nodes as rows. Whoever can write the Node may have written it: all of it is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent import annotations as keys
from agent.denials.document import FIELDS, VERSION, Reason, State
from agent.denials.records import HARMLESS, Kind, Outcome
from agent.plugin.cluster import values
from agent.reboot.kube.views import node_view

_ROWS_KEPT = 300
_WORD_CHARACTERS = 128
_NUMBERS = ("received", "lost", "unattributed", "other", "more")


@dataclass(frozen=True, slots=True)
class DenialRow:
    """One row of a node. first, last: epoch seconds, 0 when unknown."""

    namespace: str
    pod: str
    uid: str
    container: str
    profile: str
    kind: Kind
    operation: str
    mask: str
    outcome: Outcome
    file: str
    count: int
    first: float
    last: float

    @property
    def is_refused(self) -> bool:
        """Whether the call did not go through."""
        return self.outcome not in HARMLESS


@dataclass(frozen=True, slots=True)
class NodeDenials:
    """What one agent saw. reason: of a State.BLIND. more, other: rows and records that are only counted."""

    node: str
    state: State
    reason: Reason | None
    notes: tuple[Reason, ...]
    since: float
    received: int
    lost: int
    unattributed: int
    other: int
    more: int
    rows: tuple[DenialRow, ...]

    @property
    def refused(self) -> int:
        """How many rows are refusals."""
        return sum(row.is_refused for row in self.rows)

    @property
    def is_complete(self) -> bool:
        """Whether what is not in the rows did not happen."""
        return self.state is State.SEEING and not (self.lost or self.unattributed or self.other or self.more)


def denials_of(node: Mapping[str, Any]) -> NodeDenials | None:
    """A Node's; None where the agent does not observe. Pure; a malformed annotation is State.BLIND without a reason."""
    view = node_view(node)
    return parse(values.name(view.name), view.annotations.get(keys.DENIALS, ""))


def parse(node: str, text: str) -> NodeDenials | None:
    """The annotation `denials` of the node."""
    if not text:
        return None
    document = values.mapping(text)
    known = document.get("v") == VERSION
    state = values.choice(State, document.get("state"), State.BLIND) if known else State.BLIND
    found = (values.choice(Reason, one, None) for one in values.texts(document.get("notes"))[:8])
    notes = tuple(one for one in found if one is not None)
    reason = values.choice(Reason, document.get("reason"), None)
    numbers = {key: int(values.number(document.get(key))) for key in _NUMBERS}
    listed = document.get("rows")
    rows = tuple(_rows(listed[:_ROWS_KEPT] if isinstance(listed, list) and known else []))
    since = values.timestamp(document.get("since"))
    return NodeDenials(node, state, reason, notes, since, rows=rows, **numbers)


def _rows(listed: list[Any]) -> Iterator[DenialRow]:
    for one in listed:
        if not isinstance(one, list) or len(one) != len(FIELDS):
            continue
        words = {name: values.text(value, _WORD_CHARACTERS) for name, value in zip(FIELDS[:10], one, strict=False)}
        kind, outcome = values.choice(Kind, words.pop("kind"), None), values.choice(Outcome, words.pop("outcome"), None)
        if kind is not None and outcome is not None:
            count, first, last = int(values.number(one[10])), values.timestamp(one[11]), values.timestamp(one[12])
            yield DenialRow(**words, kind=kind, outcome=outcome, count=count, first=first, last=last)
