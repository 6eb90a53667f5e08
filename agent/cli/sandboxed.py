"""`python -m agent.cli.sandboxed run …`: the daemon on a node of `demo --stay`, with the settings that a sandbox needs.

They are in a file beside the policy's, not in it, so that the policy's revision is that of the ConfigMap, which
`kubectl node-hardening rollout` compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import common, run
from agent.sandbox.machines import SETTINGS

if TYPE_CHECKING:
    from agent.daemon.staging import Document


def main() -> int:
    """Runs until a signal ends it. Returns the exit code."""
    given = run.parsed(sys.argv[1:])
    settings = given.config.with_name(SETTINGS)
    return common.answer(lambda: run.serve(given, read=lambda text, file: read(settings, text, file)))


def read(settings: Path, text: str, file: str) -> Document:
    """A policy as it was published, and what of it is in force here. Raises ConfigError for the policy alone.

    settings: a JSON object; its `under` is what the policy may change, its `over` is not.
    """
    import yaml  # noqa: PLC0415 - after the daemon's own imports

    from agent.config import loads  # noqa: PLC0415
    from agent.daemon.staging import Document  # noqa: PLC0415

    published = Document.of(text, file)
    needed = json.loads(settings.read_text())
    merged = _over(_over(needed["under"], yaml.safe_load(text) or {}), needed["over"])
    return Document(published.text, loads(yaml.safe_dump(merged), file), published.revision)


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section, where top wins; an empty section changes nothing."""
    merged = {**base, **top}
    for name, value in base.items():
        if isinstance(value, dict) and isinstance(top.get(name) or {}, dict):
            merged[name] = _over(value, top.get(name) or {})
    return merged


if __name__ == "__main__":
    sys.exit(main())
