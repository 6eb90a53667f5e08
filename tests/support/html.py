"""Whether a page is sound and keeps to itself: tags close, ids are one, nothing is fetched, nothing strange runs."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "wbr"})
_FETCHES = ("src", "srcset", "href", "action", "formaction", "data", "poster", "background", "xlink:href", "ping")


@dataclass
class Sound(HTMLParser):
    """Reads a page and keeps what is wrong with it. tags: how many of each; words: all text but scripts and styles."""

    wrong: list[str] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    script: str = ""
    policy: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, page: str) -> Sound:
        """A page that was read to its end."""
        found = cls()
        found.feed(page)
        found.close()
        found._finish(page)
        return found

    @property
    def words(self) -> str:
        """Everything that a reader sees, on one line."""
        return " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Every attribute is looked at."""
        self.tags[tag] = self.tags.get(tag, 0) + 1
        given = dict(attrs)
        if len(given) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.wrong.append(f"<{tag} {name}>")
            if name in _FETCHES and not (value or "").startswith("#"):
                self.wrong.append(f"<{tag} {name}={value!r}> leaves the page")
            if name == "href" and value:
                self.targets.add(value[1:])
        if (own := given.get("id")) is not None:
            if own in self.ids:
                self.wrong.append(f"two elements are called {own!r}")
            self.ids.add(own)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given.get("content"))
        if tag == "th" and given.get("scope") not in ("col", "row"):
            self.wrong.append("a <th> without scope")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """The one that was opened last."""
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes what is not open")

    def handle_data(self, data: str) -> None:
        """Text, by where it stands."""
        if self._open and self._open[-1] == "script":
            self.script += data
        elif not self._open or self._open[-1] != "style":
            self.said.append(data)

    def _finish(self, page: str) -> None:
        self.wrong += [f"<{tag}> is not closed" for tag in self._open]
        self.wrong += [f"#{name} leads nowhere" for name in self.targets - self.ids]
        if not page.isascii():
            self.wrong.append("it is not ASCII")
        digest = base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode()
        if f"script-src 'sha256-{digest}'" not in self.policy or "default-src 'none'" not in self.policy:
            self.wrong.append(f"the policy lets run or fetch something else: {self.policy}")
        if re.search(r"url\(|@import", page):
            self.wrong.append("its style fetches something")
        for one in ("title", "main", "h1", "header", "footer", "nav"):
            if self.tags.get(one) != 1:
                self.wrong.append(f"{self.tags.get(one, 0)} times <{one}>")
