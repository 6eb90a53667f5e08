"""Pages lead to each other: no link is dead, no anchor missing, no file of docs/ forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import pages
from tests.support.pages import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=pages.name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files are there, and headings in them; addresses on the net are https and not asked."""
    dead = []
    for line, target in pages.links(page):
        path, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in pages.anchors(place)):
            dead.append(f"{pages.name_of(page)}:{line}: {target}")
    assert dead == []


def test_every_file_of_docs_is_reached_from_the_readme() -> None:
    """By links, from page to page; a folder's link reaches what lies in it."""
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        for _, target in pages.links(page):
            place = (page.parent / target.partition("#")[0]).resolve()
            found = [place, *place.rglob("*")] if place.is_dir() and place not in (ROOT, ROOT / "docs") else [place]
            new = [one for one in found if one.is_file() and one not in reached]
            reached.update(new)
            ahead += [one for one in new if one.suffix == ".md"]
    assert [pages.name_of(one) for one in (ROOT / "docs").rglob("*") if one.is_file() and one not in reached] == []


def test_anchors_are_made_as_github_makes_them(tmp_path: Path) -> None:
    """Lower case, without signs, spaces to hyphens, repeated ones numbered."""
    page = tmp_path / "page.md"
    page.write_text(
        "# Lock, boot: `reboot`\n\n## Do\n\n```\n# no heading\n```\n\n## Do\n\n### The [page](x.md) – now\n"
    )
    assert pages.anchors(page) == {"lock-boot-reboot", "do", "do-1", "the-page--now"}


def test_the_readme_shows_what_the_plugin_prints() -> None:
    """Its capture is one of docs/plugin.md, which a test makes again."""
    shown = [block.text for block in pages.blocks(ROOT / "README.md") if block.kind == "console"]
    made = [block.text for block in pages.blocks(ROOT / "docs/plugin.md") if block.kind == "console"]
    assert len(shown) == 1
    assert shown[0] in made
