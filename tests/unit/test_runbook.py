"""docs/runbook.md has a section for whatever on-call may be sent, and every link to it leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agent.event_reasons import Reason
from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser
from tests.support.alerts import ROOT, RULES, alerts

RUNBOOK = ROOT / "docs/runbook.md"
PAGES = [RUNBOOK, ROOT / "docs/monitoring.md"]
LEADS = ["Means", "You see", "The agent next", "Do", "Escalate"]


def sections(heading: str) -> dict[str, str]:
    """The sections below a heading of the second level, by their own heading."""
    text = RUNBOOK.read_text()
    part = re.split(r"^## ", text[text.index(f"\n## {heading}\n") + 1 :], flags=re.MULTILINE)[1]
    _, *found = re.split(r"^### ", part, flags=re.MULTILINE)
    return {one.partition("\n")[0]: one.partition("\n")[2] for one in found}


def anchors(page: Path) -> set[str]:
    """What may stand behind # in a link to the page, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reason_has_a_section_and_no_section_is_an_orphan() -> None:
    """In the order in which the reasons stand."""
    assert list(sections("Events")) == [reason.value for reason in Reason]


def test_every_alert_has_a_section_and_no_section_is_an_orphan() -> None:
    """In the order of the rules."""
    assert list(sections("Alerts")) == list(alerts())


def test_every_section_says_the_same_five_things() -> None:
    """What it means, what is seen, what happens by itself, what to do, when to get help: each with words behind it."""
    for name, text in {**sections("Alerts"), **sections("Events")}.items():
        assert re.findall(r"^- \*\*([^*]+)\*\*[, ] ?\S", text, re.MULTILINE) == LEADS, name


def test_alerts_link_to_their_own_section() -> None:
    """By name, in this repository; where the page is published is for others to say."""
    links = {name: rule["annotations"]["runbook_url"] for name, rule in alerts().items()}
    assert links == {name: f"docs/runbook.md#{name.lower()}" for name in alerts()}
    assert {link.partition("#")[2] for link in links.values()} <= anchors(RUNBOOK)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading of it."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, RULES], ids=lambda page: page.name)
def test_every_command_of_the_plugin_is_one(page: Path) -> None:
    """With its options: nobody should find out at three in the morning that it is not."""
    written = re.sub(r"\{\{.*?\}\}", "NODE", page.read_text())
    found = re.findall(r"kubectl (node-hardening [a-z][^`#;(\n]*)", written)
    assert found or page.name == "monitoring.md"
    for command in found:
        _, *words = shlex.split(command.replace("\u2026", "why"))
        try:
            parser(COMMANDS).parse_args(words)
        except SystemExit:
            pytest.fail(f"kubectl {command}: the plugin does not take it")
