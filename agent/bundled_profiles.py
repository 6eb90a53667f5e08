"""Where the bundled profiles are: in the wheel beside this file, in a checkout beside the package."""

from __future__ import annotations

from pathlib import Path

from agent.errors import AgentError


def shipped_profiles(kind: str) -> Path:
    """The folder of bundled profiles of one control. Raises AgentError."""
    here = Path(__file__).resolve().parent
    for folder in (here / "profiles", here.parent / "profiles"):
        if (folder / kind).is_dir():
            return folder / kind
    raise AgentError(f"the bundled {kind} profiles are missing beside {here}: install the wheel again")
