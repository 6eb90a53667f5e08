"""Inputs for the fuzz tests: a corpus of real samples, bent at random, each run with another seed.

A failing input is shown with its seed and number; FUZZ_SEED=N repeats a run. Cheap on purpose (no shrinking, no
database): ten thousand inputs have to fit into every `make test`; the property tests search with hypothesis.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

INPUTS = 10_000
# What breaks readers of any format: ends of strings, of lines, of what is a number, of what is text at all.
_EVIL = (
    b"", b"\0", b"\n", b"\r\n", b"\t", b"\\", b'"', b"'", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"\x1b[31m", b"0", b"-1", b"1e999", b"18446744073709551616", b"null", b"true", b"../../../../outside", b"/",
    b"%s%n", b"{", b"}", b"[", b"]", b":", b",", b"#", b"&a ", b"*a", b"(", b")", b" (",
)  # fmt: skip


class Mutator:
    """Bends samples. tokens: words of the format, which reach deeper into a reader than bytes at random do."""

    def __init__(self, corpus: Sequence[bytes | str], tokens: Sequence[str] = (), *, seed: int | None = None) -> None:
        self.seed = (
            seed if seed is not None else int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
        )
        self.random = random.Random(self.seed)
        self._corpus = [sample.encode() if isinstance(sample, str) else sample for sample in corpus]
        self._tokens = [*(token.encode() for token in tokens), *_EVIL]

    def bent(self) -> bytes:
        """One input: a sample with one to four changes."""
        content = self.random.choice(self._corpus)
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 4))):
            content = self.random.choice(_CHANGES)(self, content)
        return content

    def inputs(self, count: int = INPUTS) -> Iterator[tuple[int, bytes]]:
        """Numbered inputs; the samples themselves come first, unbent."""
        yield from enumerate(self._corpus)
        for number in range(len(self._corpus), count):
            yield number, self.bent()

    @contextmanager
    def telling(self, number: int, content: bytes) -> Iterator[None]:
        """Whatever fails inside says for which input, and how to have it again."""
        try:
            yield
        except BaseException as error:
            error.add_note(f"fuzz input {number}, FUZZ_SEED={self.seed}: {content[:4000]!r}")
            raise

    # -- changes ---------------------------------------------------------------------------------------------------

    def _span(self, content: bytes) -> tuple[int, int]:
        start = self.random.randrange(len(content) + 1)
        return start, min(len(content), start + self.random.choice((0, 1, 1, 2, 4, 8, 20, 60)))

    def _replace(self, content: bytes) -> bytes:
        start, end = self._span(content)
        return content[:start] + self.random.choice(self._tokens) + content[end:]

    def _replace_word(self, content: bytes) -> bytes:
        words = content.split(b" ")
        words[self.random.randrange(len(words))] = self.random.choice(self._tokens)
        return b" ".join(words)

    def _delete(self, content: bytes) -> bytes:
        start, end = self._span(content)
        return content[:start] + content[end:]

    def _double(self, content: bytes) -> bytes:
        start, end = self._span(content)
        return content[:end] + content[start:end] * self.random.choice((1, 1, 2, 50)) + content[end:]

    def _flip(self, content: bytes) -> bytes:
        if not content:
            return content
        at = self.random.randrange(len(content))
        return content[:at] + bytes((content[at] ^ (1 << self.random.randrange(8)),)) + content[at + 1 :]

    def _cut(self, content: bytes) -> bytes:
        return content[: self.random.randrange(len(content) + 1)]

    def _swap_lines(self, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        if len(lines) > 1:
            one, other = self.random.sample(range(len(lines)), 2)
            lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)

    def _splice(self, content: bytes) -> bytes:
        start, _ = self._span(content)
        other = self.random.choice(self._corpus)
        begin, end = self._span(other)
        return content[:start] + other[begin : end + 40] + content[start:]

    def _nest(self, content: bytes) -> bytes:
        start, _ = self._span(content)
        return (
            content[:start]
            + self.random.choice((b"[", b"{", b"- ", b'{"a":')) * self.random.choice((3, 30, 3000))
            + content[start:]
        )


_CHANGES: tuple[Callable[[Mutator, bytes], bytes], ...] = (
    Mutator._replace,
    Mutator._replace,
    Mutator._replace_word,
    Mutator._replace_word,
    Mutator._delete,
    Mutator._double,
    Mutator._flip,
    Mutator._cut,
    Mutator._swap_lines,
    Mutator._splice,
    Mutator._nest,
)  # fmt: skip


class Fence:
    """A folder around a node's tree, in which nothing may change: `outside/` and symlinks that lead there.

    The machine's own places that the agent would write to, were it to leave the root, are watched as well.
    """

    _MACHINES = ("/etc/modprobe.d", "/var/lib/kubelet", "/var/lib/node-hardening", "/etc/apparmor.d", "/outside")

    def __init__(self, folder: Path, root: Path) -> None:
        """The tree at `root`, which is below `folder`, gets symlinks that lead out of it."""
        self.folder = folder
        self.root = root
        (folder / "outside/modprobe.d").mkdir(parents=True)
        (folder / "outside/canary.conf").write_text("not the node's\n")
        for link in ("etc/outside", "var/lib/outside", "outside"):
            (root / link).parent.mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(folder / "outside")
        (root / "etc/up").symlink_to("../../../../../../../../../..")
        self._before = self._look()

    def check(self) -> None:
        """Fails when anything around the tree is not as it was."""
        assert self._before == self._look()

    def _look(self) -> dict[str, tuple[int, int, int] | None]:
        seen: dict[str, tuple[int, int, int] | None] = {}
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(place, name) != self.root]
            for name in (*folders, *names):
                path = f"{place}/{name}"
                seen[path] = _stamp(path)
        return seen | {path: _stamp(path) for path in self._MACHINES}


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
