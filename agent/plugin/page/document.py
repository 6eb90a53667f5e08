"""The page of `report`, made of the templates beside this module, piece by piece: it is never held in one. Pure.

Jinja2 escapes whatever is not markup of ours, and `_shown` sanitizes it: what is written on a Node stays text.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from agent import __version__
from agent.model import Severity
from agent.plugin.cluster import values
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.advice import command
from agent.plugin.page import summary
from agent.plugin.page.aggregate import NodeNames, Snapshot, grouped, names_of
from agent.plugin.page.output import GENERATOR
from agent.plugin.page.summary import Tone, compliance
from agent.plugin.page.waiting_table import waiting_table
from agent.plugin.views import fleet, history, table
from agent.plugin.views.clusters import ClusterRow, diff_of
from agent.reboot.phases import Phase

_ANCHORED = 2000
_GROUPS_SHOWN = 150
_QUIET_NAMES = 5000
_PROBLEMS_SHOWN = 30
_PIECE_CHARACTERS = 4000
_GLOBALS: Mapping[str, Any] = {
    "SIGNS": {
        Tone.GOOD: "\u2713", Tone.BAD: "\u2715", Tone.HELD: "!", Tone.WARN: "?", Tone.BUSY: "\u21bb",
        Tone.QUIET: "\u2013",
    },
    "SEVERITIES": {
        Severity.CRITICAL: (Tone.BAD, "!!"), Severity.HIGH: (Tone.BAD, "!"), Severity.MEDIUM: (Tone.HELD, "\u25b2"),
        Severity.LOW: (Tone.QUIET, "\u25bd"), Severity.INFO: (Tone.QUIET, "i"),
    },
    "READY": {True: (Tone.QUIET, "Ready"), False: (Tone.HELD, "NotReady"), None: (Tone.WARN, "unknown")},
}  # fmt: skip


def pieces(shot: Snapshot) -> Iterator[str]:
    """The page, ASCII throughout: no guess at an encoding can turn it into something else."""
    return _pieces("report.html", _context(shot))


def pieces_of_clusters(shot: Snapshot, rows: Sequence[ClusterRow], headline: str) -> Iterator[str]:
    """The page of several clusters. shot: their findings and reboots together; a node is CONTEXT/NODE in it."""
    well = all(row.is_well for row in rows)
    page = {
        **_findings(shot), "headline": headline, "tone": Tone.GOOD if well else Tone.BAD, "clusters": rows,
        "anchors": {}, "no_findings": "No agent reported a problem.", "diff": diff_of,
    }  # fmt: skip
    return _pieces("clusters.html", page)


def _pieces(name: str, page: Mapping[str, Any]) -> Iterator[str]:
    kept: list[str] = []
    size = 0
    for piece in _environment().get_template(name).generate(page):
        kept.append(piece)
        size += len(piece)
        if size >= _PIECE_CHARACTERS:
            yield _ascii(kept)
            kept, size = [], 0
    yield _ascii(kept)


def _ascii(parts: Sequence[str]) -> str:
    return "".join(parts).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.plugin.page"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_shown,
    )  # fmt: skip
    made.globals.update(_GLOBALS, command=command, reboot=summary.reboot)
    made.filters.update(
        cut=table.cut, counted=table.count, duration=table.age, since=table.since, stamp=table.stamp,
        rfc3339=table.rfc3339, utc=lambda moment: table.stamp(moment).replace("Z", " UTC"),
        phases=history.phases, compliance=compliance,
    )  # fmt: skip
    return made


def _shown(value: object) -> object:
    """What a template shows of a value: markup as it is, everything else as one printable line."""
    return value if isinstance(value, Markup) or value == "" else values.text(str(value), 4096)


def _resource(name: str) -> Markup:
    text = (resources.files("agent.plugin.page") / "templates" / name).read_text(encoding="ascii")
    return Markup(text)  # noqa: S704 - a resource of ours, and the only script that the page's policy lets run


def _context(shot: Snapshot) -> dict[str, Any]:
    seen = shot.fleet
    rows, quiet = summary.listed(seen)
    waits, waits_left = waiting_table(seen)
    versions = sorted({mix.version or "unknown" for mix in shot.mixes})
    by_status = summary.by_compliance(seen.rows)
    return {
        **_findings(shot), "fleet": seen, "summary": summary.summarize(shot),
        "diff": lambda name: command("diff", name),
        "versions": ", ".join(versions[:3]) + (f" and {len(versions) - 3} more" if len(versions) > 3 else ""),
        "anchors": {row.name: f"node-{number}" for number, row in enumerate(rows[:_ANCHORED])},
        "bar": list(_bar(by_status)),
        "tiles": [*by_status, (Tone.QUIET, "reboot pending or running", sum(row.wants_reboot for row in seen.rows))],
        "phases": ", ".join(f"{number:,} {phase}" for phase, number in fleet.phases(seen.rows).items()),
        "pools": _pools(seen.rows),
        "checks": grouped(shot.checks, lambda group: group.control),
        "no_findings": _no_findings(seen.rows),
        "stuck": {lock.holder_uid for lock in seen.stuck},
        "rows": rows, "rows_left": len(seen.rows) - len(rows) - len(quiet),
        "quiet": quiet, "quiet_pools": _by_pool(quiet[:_QUIET_NAMES]),
        "by_uid": {row.uid: row for row in seen.rows},
        "waiting": Counter(row.pool for row in seen.rows if row.phase is Phase.WAITING),
        "waits": waits, "waits_left": waits_left,
        "mixes": shot.mixes, "no_agent": names_of(row for row in seen.rows if row.compliance is None),
        "rejected": _rejected(seen.rows),
    }  # fmt: skip


def _findings(shot: Snapshot) -> dict[str, Any]:
    """What every page has: its frame, the findings, past reboots."""
    script = _resource("page.js")
    shown = shot.groups[:_GROUPS_SHOWN]
    return {
        "shot": shot, "heading": shot.heading,
        "generator": f"{GENERATOR} {__version__}", "program": f"kubectl node-hardening {__version__}",
        "script": script, "style": _resource("page.css"),
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "controls": grouped(shown, lambda group: group.control), "groups_left": len(shot.groups) - len(shown),
    }  # fmt: skip


def _bar(by_status: Sequence[tuple[Tone, str, int]]) -> Iterator[tuple[Tone, str, str]]:
    """Shares in percent; the tiles below show the same in numbers."""
    whole, at = sum(number for _, _, number in by_status), 0.0
    for tone, _, number in by_status:
        width = 100.0 * number / whole
        gap = 0.25 if at + width < 99.9 else 0.0
        yield tone, f"{at:.2f}", f"{max(width - gap, 0.05):.2f}"
        at += width


def _pools(rows: Sequence[NodeRow]) -> list[tuple[str, tuple[int, ...]]]:
    """A pool's name and its numbers, in the order of the table's columns."""
    made: list[tuple[str, tuple[int, ...]]] = []
    for name, some in _by_pool(rows):
        tones = Counter(compliance(row)[0] for row in some)
        good, bad = tones[Tone.GOOD], tones[Tone.BAD]
        pending, down = sum(row.wants_reboot for row in some), sum(row.is_disrupted for row in some)
        made.append((name, (len(some), good, bad, len(some) - good - bad, pending, down)))
    return made


def _by_pool(rows: Sequence[NodeRow]) -> list[tuple[str, list[NodeRow]]]:
    return sorted(grouped(rows, lambda row: row.pool).items())


def _no_findings(rows: Sequence[NodeRow]) -> str:
    unchecked = sum(row.compliance is None for row in rows)
    if unchecked == len(rows):
        return "No node was checked."
    without = f" {table.count(unchecked, 'node')} without an agent." if unchecked else ""
    return f"No agent reported a problem.{without}"


def _rejected(rows: Sequence[NodeRow]) -> list[tuple[str, NodeNames]]:
    """Configurations that agents rejected, with the nodes that keep using an older one."""
    by_problem = grouped((row for row in rows if row.config_problem), lambda row: row.config_problem)
    return [(problem, names_of(some)) for problem, some in by_problem.items()][:_PROBLEMS_SHOWN]
