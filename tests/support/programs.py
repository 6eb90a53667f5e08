"""Where kubectl and helm are: on the PATH, beside envtest's binaries, or fetched by tools/kube-tools.

Tests that need one ask `needed`, which skips them with the way to get it; nothing is fetched from here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

FETCHED = Path(__file__).resolve().parents[2] / ".cache" / "kube-tools"


def program(name: str) -> str | None:
    """The absolute path of a program, or None."""
    places = (os.environ.get("PATH", os.defpath), os.environ.get("KUBEBUILDER_ASSETS", ""), str(FETCHED))
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


def needed(name: str) -> str:
    """The same; a test that asks for one that is not here is skipped."""
    found = program(name)
    if found is None:
        pytest.skip(f"no {name}: neither on PATH nor fetched (tools/kube-tools does it, with npm)")
    return found
