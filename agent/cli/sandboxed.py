"""`run` on a node of a sandbox: its audit records, and the settings that it needs beside the policy. Not a command.

The settings are in a file of their own so that the policy's revision is that of the ConfigMap, which `kubectl
node-hardening rollout` compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import common, run
from agent.sandbox.audit import sources
from agent.sandbox.machines import SETTINGS

if TYPE_CHECKING:
    from agent.daemon.profile_copies import Digests
    from agent.daemon.staging import Document


def main(argv: list[str]) -> int:
    """argv: two descriptors (agent.sandbox.audit), then as for `run`. Returns the exit code."""
    given = run.parsed(argv[2:])
    kernel = partial(sources, int(argv[0]), int(argv[1]))
    settings = given.config.with_name(SETTINGS)
    return common.answer(lambda: run.serve(given, read=partial(read, settings), kernel=kernel))


def read(settings: Path, text: str, file: str, profiles: Digests | None) -> Document:
    """A policy as it was published, and what of it is in force here. Raises ConfigError for the policy alone.

    settings: a JSON object; its `under` is what the policy may change, its `over` is not. profiles: see Document.of.
    """
    import yaml  # noqa: PLC0415 - after the daemon's own imports

    from agent.config import loads  # noqa: PLC0415
    from agent.daemon import profile_copies  # noqa: PLC0415
    from agent.daemon.staging import Document  # noqa: PLC0415

    published = loads(text, file)
    needed = json.loads(settings.read_text())
    used = loads(yaml.safe_dump(_over(_over(needed["under"], yaml.safe_load(text) or {}), needed["over"])), file)
    found = profile_copies.digests(used) if profiles is None else profiles
    return Document(text, used, found, profile_copies.revision(published, found))


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section, where top wins; an empty section changes nothing."""
    merged = {**base, **top}
    for name, value in base.items():
        if isinstance(value, dict) and isinstance(top.get(name) or {}, dict):
            merged[name] = _over(value, top.get(name) or {})
    return merged


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
