"""`denials [NODE|POD]`: what profiles refused, and what to change in the profile.

It refuses to report "none" for a node whose agent cannot see, and names why it cannot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from agent.denials.document import Reason, State
from agent.denials.records import Kind
from agent.errors import KubeError, UsageError
from agent.kube import NODES, PODS, EventType, field_selector
from agent.plugin.cluster import denials, get_or_none, nodes, values
from agent.plugin.cluster.denials import DenialRow, NodeDenials
from agent.plugin.session import NOT_WELL, OK, Command, Session
from agent.plugin.views import table
from agent.plugin.views.table import Cell, Column
from agent.reboot.kube.views import node_view
from agent.terminal import Style

_PAGE_SIZE = 500
_SUGGESTED = 20
# A rule of AppArmor for the operation; everything else is about a file or, with two words in the mask, a socket.
_RULES = {
    "capable": "capability {mask},", "signal": "signal ({mask}),", "ptrace": "ptrace ({mask}),", "umount": "umount,",
    "userns_create": "userns,",
}  # fmt: skip
_FILE_WORDS = {"c": "w", "d": "w", "x": "ix"}
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", default="", metavar="NODE|POD", help="a node, or a pod or workload; -n: their namespace"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="print new rows as they come, until Ctrl-C")


def _run(options: argparse.Namespace, session: Session) -> int:
    namespace = getattr(options, "scope", "")
    is_node = _is_node(session, options.target)
    pod = "" if is_node else options.target
    named = field_selector({"metadata.name": options.target}) if is_node else ""
    if options.watch:
        if session.form.is_document:
            raise UsageError("--watch has no documents; for programs: kubectl get nodes --watch -o json")
        return _watch(session, named, pod, namespace)
    found = session.kube.list(NODES, field_selector=named, page_size=_PAGE_SIZE)
    shown = [_of(one, pod, namespace) for node in found if (one := observed(node)) is not None]
    notes = _pod_notes(session, pod, namespace, shown)
    session.show(lambda: document(shown, notes), lambda: text(shown, notes, session.style, session.now()))
    well = shown and not notes and all(one.is_complete and not one.refused for one in shown)
    return OK if well else NOT_WELL


def observed(node: Mapping[str, Any]) -> NodeDenials | None:
    """What a Node's agent saw; blind once it does not report any more, because nothing it listed is of today."""
    found = denials.denials_of(node)
    is_silent = nodes.silent_since(node) > 0 or node_view(node).ready is None
    return replace(found, state=State.BLIND, reason=Reason.AGENT_SILENT) if found and is_silent else found


def _is_node(session: Session, target: str) -> bool:
    """Whether a node has that name; else it is a pod's. Raises UsageError for the name of neither."""
    if not target:
        return False
    if not values.name(target):
        raise UsageError(f"{values.text(target, 80)!r} is the name of no node and of no pod")
    return get_or_none(session.kube, NODES, target) is not None


def is_of(pod: str, name: str) -> bool:
    """A pod is meant by its own name or by its workload's, which begins it."""
    return pod == name or pod.startswith(f"{name}-")


def _of(node: NodeDenials, pod: str, namespace: str) -> NodeDenials:
    """Only its rows of that pod and namespace."""
    rows = [row for row in node.rows if (not pod or is_of(row.pod, pod)) and namespace in ("", row.namespace)]
    return replace(node, rows=tuple(rows))


def _pod_notes(session: Session, pod: str, namespace: str, shown: Iterable[NodeDenials]) -> list[str]:
    """What of a pod no profile confines: its privileged and unconfined containers have no denials.

    Raises UsageError where no pod has that name and no denial is of one.
    """
    if not pod:
        return []
    try:
        # Readers may list pods and not get one.
        found = list(session.kube.list(PODS, namespace, field_selector=field_selector({"metadata.name": pod})))
        listed = () if found else session.kube.list(PODS, namespace, page_size=_PAGE_SIZE)
        found += [one for one in listed if is_of(values.name(values.part(one, "metadata").get("name")), pod)]
    except KubeError as error:
        return [f"the profiles of pod {pod} are unknown: {values.text(str(error), 120)}"]
    if not found and not any(one.rows for one in shown):
        raise UsageError(f"{pod} is the name of no node and of no pod{f' of namespace {namespace}' * bool(namespace)}")
    specs = [values.part(one, "spec") for one in found]
    containers = [(one, spec) for spec in specs for key in _CONTAINERS for one in values.mappings(spec.get(key))]
    open_ones = [name for one, spec in containers if (name := _unconfined(one, values.part(spec, "securityContext")))]
    return [f"container {name}: no denial of it is visible" for name in open_ones]


def _unconfined(container: Mapping[str, Any], of_pod: Mapping[str, Any]) -> str:
    own = values.part(container, "securityContext")
    name = values.text(container.get("name"), 63)
    if own.get("privileged") is True:
        return f"{name} is privileged"
    kinds = [values.part(own, key) or values.part(of_pod, key) for key in ("seccompProfile", "appArmorProfile")]
    return f"{name} is unconfined" if all(kind.get("type") == "Unconfined" for kind in kinds) else ""


def suggestion(row: DenialRow) -> str:
    """What in the profile would let the call through, as its language has it; to be judged, not to be pasted."""
    if row.kind is Kind.SECCOMP:
        return f"allow {row.operation}" if row.is_refused else f"{row.operation} is allowed and logged"
    words = row.mask.split()
    if row.operation == "signal" and len(words) > 1:
        return f"signal ({words[0]}) set=({words[1]}),"
    if row.operation == "mount":
        return f"mount fstype={row.mask}," if words else "mount,"
    if row.operation in _RULES:
        return _RULES[row.operation].format(mask=row.mask)
    if len(words) > 1:
        return f"network {row.mask},"
    letters = "".join(dict.fromkeys(_FILE_WORDS.get(letter, letter) for letter in row.mask))
    return f"{row.file + '/**' if row.file else 'FILE'} {letters or 'r'},"


def document(shown: Sequence[NodeDenials], notes: Sequence[str]) -> dict[str, Any]:
    """For programs. `state` is starting, seeing or blind; only `seeing` makes an empty list mean none."""
    return {
        "nodes": [
            {
                "node": one.node, "state": one.state, "reason": one.reason, "notes": one.notes,
                "since": table.rfc3339(one.since),
                "received": one.received, "lost": one.lost, "unattributed": one.unattributed, "other": one.other,
                "rowsNotListed": one.more,
            }
            for one in shown
        ],
        "denials": [
            {
                "node": one.node, **asdict(row), "first": table.rfc3339(row.first), "last": table.rfc3339(row.last),
                "suggestion": suggestion(row),
            }
            for one in shown for row in one.rows
        ],
        "pod": list(notes),
    }  # fmt: skip


def text(shown: Sequence[NodeDenials], notes: Sequence[str], style: Style, now: float) -> str:
    """The table, newest first, and below it what is not visible."""
    if not shown:
        return "No agent observes denials here: set denials.mode: observe in the policy (docs/denials.md)."
    rows = sorted(((one.node, row) for one in shown for row in one.rows), key=lambda one: -one[1].last)
    lines = [_table(rows, style, now, named=len(shown) > 1)] if rows else []
    quiet = [one for one in shown if not one.rows and one.is_complete]
    if quiet:
        since = table.since(max(one.since for one in quiet), now)
        lines.append(f"No denial on {table.count(len(quiet), 'node')} in the last {since}.")
    below = [line for one in shown for line in not_visible(one)]
    return "\n".join([*lines, *(line for one in (*below, *notes) for line in style.wrap(one))])


def _table(rows: Sequence[tuple[str, DenialRow]], style: Style, now: float, *, named: bool) -> str:
    columns = [Column("NODE", elastic=True)] if named else []
    columns += [
        Column("POD", elastic=True, least=12), Column("CONTAINER", elastic=True), Column("PROFILE", elastic=True),
        Column("OPERATION"), Column("OUTCOME"), Column("COUNT"), Column("LAST"),
    ]  # fmt: skip
    above = table.table(columns, [[*([node] if named else []), *_cells(row, now)] for node, row in rows], style)
    found = dict.fromkeys(f"  {_profile(row)}: {suggestion(row)}" for _, row in rows if row.is_refused)
    more = [f"  and {len(found) - _SUGGESTED} more"] if len(found) > _SUGGESTED else []
    allow = "To allow it, in the profile (a deny rule has to go first):"
    return "\n".join([above, *([allow, *list(found)[:_SUGGESTED], *more, ""] if found else [])])


def _profile(row: DenialRow) -> str:
    """Records of seccomp do not name its profile; the pod does."""
    return row.profile if row.kind is Kind.APPARMOR else f"the seccomp profile of {row.container or 'the container'}"


def _cells(row: DenialRow, now: float) -> list[Cell | str]:
    pod = f"{row.namespace}/{row.pod}"
    if not row.namespace:
        pod = "(the node itself)" if row.pod else f"uid {row.uid}" if row.uid else "(unknown)"
    outcome = Cell(row.outcome.value, table.BAD if row.is_refused else table.FAINT)
    operation = f"{row.operation} {row.mask}".strip()
    profile = row.profile if row.kind is Kind.APPARMOR else row.kind.value
    return [
        pod, row.container or "-", profile, operation, outcome, f"{row.count:,}", table.since(row.last, now)
    ]  # fmt: skip


def not_visible(one: NodeDenials) -> Iterable[str]:
    """Why its rows may not be all that there is, a line each."""
    if one.state is State.STARTING:
        yield f"{one.node}: the agent has just started to read audit records"
    if one.state is State.BLIND:
        yield f"{one.node}: denials are not visible: {one.reason.meaning if one.reason else Reason.NO_RECORD.meaning}"
    yield from (f"{one.node}: {note.meaning}" for note in one.notes)
    if one.lost:
        yield f"{one.node}: {table.count(one.lost, 'audit record')} lost (of all types): rows may be missing"
    if one.unattributed:
        yield f"{one.node}: {table.count(one.unattributed, 'record')} of processes that ended unknown"
    if one.other or one.more:
        yield f"{one.node}: {table.count(one.other, 'record')} and {table.count(one.more, 'row')} not listed"


def _watch(session: Session, named: str, pod: str, namespace: str) -> int:
    known: dict[str, frozenset[object]] = {}  # what each node showed last, however often that changes
    for change in session.kube.follow(NODES, field_selector=named):
        found = observed(change.object) if change.seen in (EventType.ADDED, EventType.MODIFIED) else None
        if found is None:
            continue
        lines = dict(_lines(_of(found, pod, namespace), session.now()))
        for key, line in lines.items():
            if key not in known.get(found.node, ()):
                session.write(line)
        session.out.flush()
        known[found.node] = frozenset(lines)
    return OK


def _lines(node: NodeDenials, now: float) -> Iterable[tuple[object, str]]:
    """A line for each row, and for why there may be none; each with what makes it a new one."""
    if node.state is not State.SEEING:
        yield from ((line, line) for line in not_visible(node))
    for row in node.rows:
        words = [word if isinstance(word, str) else word.text for word in _cells(row, now)]
        line = "  ".join((table.rfc3339(row.last) or "-", node.node, *words))
        yield replace(row, count=0, first=0.0, last=0.0), line


COMMAND = Command("denials", "what profiles refused containers, and what to change in the profile", _configure, _run)
