"""Where bundled files are: profiles in the wheel beside this file, in a checkout beside the package; tables of data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent.errors import AgentError


def shipped_profiles(kind: str) -> Path:
    """The folder of bundled profiles of one control. Raises AgentError."""
    here = Path(__file__).resolve().parent
    for folder in (here / "profiles", here.parent / "profiles"):
        if (folder / kind).is_dir():
            return folder / kind
    raise AgentError(f"the bundled {kind} profiles are missing beside {here}: install the wheel again")


def is_shipped(kind: str, name: str, content: bytes) -> bool:
    """Whether this is a bundled profile of that name, unchanged."""
    try:
        return (shipped_profiles(kind) / name).read_bytes() == content
    except (AgentError, OSError):
        return False


def profiles_folder(configured: str, kind: str) -> Path:
    """The configured folder; the bundled one where nothing is there. Raises AgentError.

    A folder that cannot be looked up counts as there: reading it reports why.
    """
    try:
        Path(configured).lstat()
    except FileNotFoundError:
        return shipped_profiles(kind)
    except OSError:
        pass
    return Path(configured)


def data_file(module: str, name: str) -> str:
    """The text of a file beside a module (its `__name__`): in a folder, or inside of the plugin's one file."""
    owner = sys.modules[module]
    loader: Any = owner.__loader__  # of source, of byte code alone, or of a zip archive: each has get_data
    data: bytes = loader.get_data(str(Path(str(owner.__file__)).with_name(name)))
    return data.decode("ascii")
