"""The whole page, section by section, as an iterator of pieces: nothing has to hold it in one. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources

from agent import __version__
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.page import agents, hardening, rebooting
from agent.plugin.page.aggregate import Snapshot
from agent.plugin.page.components import mark, steps
from agent.plugin.page.markup import Html, element, join, said
from agent.plugin.page.output import GENERATOR
from agent.plugin.page.summary import Judgement, judge
from agent.plugin.views import table as render

_ANCHORED = 2000


def pieces(shot: Snapshot) -> Iterator[str]:
    """The page, ASCII throughout."""
    found = judge(shot)
    rows, quiet = hardening.listed(shot.seen)
    anchors = {row.name: f"node-{number}" for number, row in enumerate(rows[:_ANCHORED])}
    style, script = _resource("page.css"), _resource("page.js")
    yield "<!DOCTYPE html>\n"
    yield '<html lang="en">\n'
    yield _head(shot, style, script)
    yield "<body>\n"
    yield element("a", "To the verdict", href="#summary", class_="skip")
    yield _header(shot, found)
    yield "<main>\n"
    yield _verdict(found)
    for piece in _sections(shot, found, anchors, rows, quiet):
        yield piece
        yield "\n"
    yield "</main>\n"
    yield _footer(shot)
    # Not escaped: a resource of ours, and its hash is the only one that the policy lets run.
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _sections(
    shot: Snapshot, found: Judgement, anchors: Mapping[str, str], rows: tuple[NodeRow, ...], quiet: tuple[NodeRow, ...]
) -> Iterator[Html]:
    yield hardening.counts(shot)
    if found.untold:
        yield hardening.untold(found.untold)
    yield hardening.findings(shot, anchors)
    yield hardening.nodes(shot, anchors, rows, quiet)
    yield rebooting.reboots(shot, anchors)
    yield rebooting.history(shot, anchors)
    yield agents.agents(shot, anchors)


def _head(shot: Snapshot, style: str, script: str) -> Html:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is fetched, sent or framed, and no script runs but ours: also not one that got past every escape.
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    where = f" - {shot.heading.context}" if shot.heading.context else ""
    return element(
        "head",
        "\n", element("meta", charset="utf-8"),
        "\n", element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        "\n", element("meta", http_equiv="Content-Security-Policy", content=policy),
        "\n", element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        "\n", element("meta", name="referrer", content="no-referrer"),
        "\n", element("meta", name="color-scheme", content="light dark"),
        "\n", element("title", f"{shot.heading.title}{where}"),
        "\n", element("style", Html(style)),
    )  # fmt: skip


def _header(shot: Snapshot, found: Judgement) -> Html:
    heading, seen = shot.heading, shot.seen
    unknown = element("span", "unknown", class_="faint")
    versions = sorted({mix.version or "unknown" for mix in shot.mixes})
    spoken = ", ".join(versions[:3]) + (f" and {len(versions) - 3} more" if len(versions) > 3 else "")
    about = [
        ("Cluster", said(heading.context) if heading.context else unknown),
        ("Kubernetes", said(heading.server, 40) if heading.server else unknown),
        ("As of", element("time", _moment(heading.moment), datetime=render.rfc3339(heading.moment))),
        ("Written by", said(heading.author, 80) if heading.author else unknown),
        ("Agents", said(spoken, 80) if spoken else element("span", "none seen", class_="faint")),
        *([("Only nodes with", said(heading.selector))] if heading.selector else []),
        *([("Namespace", said(seen.namespace))] if seen.namespace != "node-hardening" else []),
    ]
    links = [
        ("counts", "Counts"), *([("untold", "Not told")] if found.untold else []), ("findings", "Findings"),
        ("nodes", "Nodes"), ("reboots", "Reboots"), ("history", "History"), ("agents", "Agents and policies"),
    ]  # fmt: skip
    items = join(element("li", element("a", title, href=f"#{name}")) for name, title in links)
    return element(
        "header",
        element("h1", said(heading.title)),
        element(
            "dl", *(element("div", element("dt", name), element("dd", what)) for name, what in about), class_="about"
        ),
        element("nav", element("ul", items), aria_label="Sections"),
    )


def _moment(moment: float) -> str:
    return render.stamp(moment).replace("Z", " UTC")


def _verdict(found: Judgement) -> Html:
    points = [
        element(
            "li", mark(point.tone),
            element("div", _pointing(point.said, point.where), steps([point.step] if point.step else [])),
            class_=point.tone.value,
        )
        for point in found.points
    ]  # fmt: skip
    heading = element("h2", mark(found.tone), found.headline, id="summary-title")
    listed = [element("ul", *points, class_="points")] if points else []
    return element(
        "section", heading, *listed, id="summary", class_=f"verdict {found.tone.value}", aria_labelledby="summary-title"
    )


def _pointing(words: str, where: str) -> Html:
    links = [" ", element("a", f"See {where}.", href=f"#{where}")] if where else []
    return element("span", element("bdi", words), *links)


def _footer(shot: Snapshot) -> Html:
    return element(
        "footer",
        element(
            "p",
            f"Written by kubectl node-hardening {__version__}. It shows what stood on Nodes, Leases and ConfigMaps at "
            f"{_moment(shot.heading.moment)}, and does not change afterwards. Ages are counted from then.",
        ),
        element(
            "p",
            "Findings, their next steps and what agents say are quoted from the Nodes' annotations, which everybody "
            "who may change Nodes can write. Well means: an agent looked, and a node that is heard of says so. What "
            "could not be told is called unknown, and counted apart.",
        ),
    )


def _resource(name: str) -> str:
    return (resources.files("agent.plugin.page") / name).read_text(encoding="ascii")
