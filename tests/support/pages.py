"""README and docs/ as tests read them: their commands, links and anchors.

Commands stand in blocks (```sh whole; other blocks and indented ones by lines that begin with a program we know) and
within sentences, as inline code.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_PROGRAM = re.compile(r"(node-hardening-agent|kubectl|make|helm|sh|python|podman|promtool|pip|\.venv/bin/\S+) +\S")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^\n|\A)((?:^ {4,}\S.*\n?)+)", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HEREDOC = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. kind: what stands after its fence."""

    page: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page. code: the exit code that its block promises, -1 when none is."""

    page: str
    line: int
    text: str
    code: int = -1

    @property
    def where(self) -> str:
        """For messages and test ids."""
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """As tests call a page."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced ones."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(name_of(page), line, found["kind"].strip(), textwrap.dedent(found["text"]))


def commands(page: Path) -> Iterator[Command]:
    """Those of blocks, in the page's order."""
    text = page.read_text()
    for block in blocks(page):
        if block.kind == "sh":
            yield from _script(block)
        elif block.kind in ("", "console"):
            yield from _lines(block.page, block.line + 1, block.text, prompt=block.kind == "console")
    prose = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in _INDENTED.finditer(prose):
        yield from _lines(name_of(page), prose.count("\n", 0, found.start(1)) + 1, found[1])


def mentioned(page: Path) -> Iterator[Command]:
    """Those within sentences and cells of tables."""
    text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())
    for found in _INLINE.finditer(text):
        words = found[1].replace("\\|", "|")
        if _PROGRAM.match(words):
            yield Command(name_of(page), text.count("\n", 0, found.start()) + 1, words)


def _script(block: Block) -> Iterator[Command]:
    """Lines, with what continues them and the documents that they are given."""
    code, lines, at = -1, block.text.splitlines(), 0
    while at < len(lines):
        first, line = at, lines[at]
        at += 1
        said = re.fullmatch(r"# exit code (\d+)", line)
        if said is not None:
            code = int(said[1])
        if not line.strip() or line.startswith("#"):
            continue
        line, at = _continued(lines, first)
        document = _HEREDOC.search(line)
        if document is not None:
            end = lines.index(document[1], at)
            line = "\n".join([line, *lines[at : end + 1]])
            at = end + 1
        yield Command(block.page, block.line + 1 + first, _bare(line), code)


def _lines(page: str, start: int, text: str, *, prompt: bool = False) -> Iterator[Command]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        words = line.strip()
        if words.startswith("$ ") if prompt else _PROGRAM.match(words):
            yield Command(page, start + number, _bare(_continued(lines, number)[0].strip().removeprefix("$ ")))


def _continued(lines: list[str], at: int) -> tuple[str, int]:
    """The line there with those that continue it, and where the next one is."""
    line, at = lines[at], at + 1
    while line.endswith(("\\", "|")):
        line = f"{line.removesuffix(chr(92)).rstrip()} {lines[at].strip()}"
        at += 1
    return line, at


def _bare(line: str) -> str:
    """Without the comment at its end."""
    return line if "\n" in line else re.sub(r"\s{2,}#.*$", "", line)


def words_of(command: str) -> list[str]:
    """As a shell splits them, up to what begins another command."""
    words = []
    for word in shlex.split(command, comments=True):
        if word in {"|", "&&", "||", ";", ">", "2>&1"}:
            break
        words.append(word)
    return words


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    made = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        made.add(f"{slug}-{count}" if count else slug)
    return made


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and target of every link and picture."""
    text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())
    for found in re.finditer(r"\]\(([^)\s]+)\)", _INLINE.sub(lambda code: " " * len(code[0]), text)):
        yield text.count("\n", 0, found.start()) + 1, found[1]
