"""The captures in docs/plugin.md and docs/cluster-audit.md: each block behind a marker is what the plugin prints.

    <!-- capture SCENE: LINE [| ANSWER] -->   above a block of ```console
    python -m tests.support.plugin_captures docs/plugin.md   writes them again

The scene `shop` is the calm fleet with a cluster to audit.
The fleet's time is its own, so that the only thing that differs from day to day is the agent's version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from agent.sandbox.server import Sandbox
from tests.support.crowded_cluster import put_shop
from tests.support.plugin_fleet import SCENES
from tests.support.plugin_screen import Screen, emulator

WIDTH = 100
SHOP = "shop"
_BLOCK = re.compile(
    r"<!-- capture (?P<scene>[a-z-]+): (?P<line>[^|\n]+?)(?: \| (?P<typed>[^\n]*?))? -->\n```console\n.*?```\n",
    re.DOTALL,
)
_VERSION = "0.0.0"


def renewed(text: str) -> str:
    """The document with every capture made again."""
    with emulator() as sandbox:
        return _BLOCK.sub(lambda block: _captured(block, sandbox), text)


def markers(text: str) -> list[tuple[str, str]]:
    """Scene and line of every capture."""
    return [(found["scene"], found["line"]) for found in _BLOCK.finditer(text)]


def normal(text: str) -> str:
    """Without what differs between two releases."""
    return text.replace(__version__, _VERSION)


def _captured(block: re.Match[str], sandbox: Sandbox) -> str:
    staged = SCENES.get(block["scene"], SCENES["calm"])()
    staged.put_on(sandbox)
    if block["scene"] == SHOP and sandbox.get("namespaces", "shop") is None:
        put_shop(sandbox)
    typed = [block["typed"]] if block["typed"] else []
    shown = Screen(sandbox, staged, WIDTH, typed, together=True).type(block["line"])
    marker = block[0].partition("\n")[0]
    lines = "\n".join(line.rstrip() for line in shown.out.rstrip("\n").split("\n"))
    return f"{marker}\n```console\n$ kubectl node-hardening {block['line']}\n{lines}\n```\n"


def main(arguments: Sequence[str]) -> int:
    """Rewrites the files."""
    for name in arguments:
        file = Path(name)
        file.write_text(renewed(file.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
