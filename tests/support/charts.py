"""The chart as a real helm renders it: values in, objects out. Helm's folders are a temporary one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.agents import NAMESPACE, ROOT
from tests.support.programs import needed

CHART = ROOT / "charts" / "node-hardening-agent"
RELEASE = "hardening"

Key = tuple[str, str, str]
Objects = dict[Key, dict[str, Any]]


class Helm:
    """helm with a home of its own, and a kubeconfig where one is given."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        """The folder holds helm's caches and the values of each call."""
        self._folder = folder
        self._environment = {"PATH": os.defpath, "HOME": str(folder)}
        if kubeconfig is not None:
            self._environment["KUBECONFIG"] = str(kubeconfig)

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """To its end, however that is."""
        return subprocess.run(
            [needed("helm"), *words], env=self._environment, input=stdin,
            capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str = "") -> str:
        """What it prints; a failure or a warning fails the test."""
        done = self.run(*words, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), f"{words}: {done.stderr}"
        return done.stdout

    def template(self, values: dict[str, Any] | str | None = None, *words: str, chart: Path = CHART) -> str:
        """`helm template` with these values in a file, into the agent's namespace."""
        return self("template", RELEASE, str(chart), "-n", NAMESPACE, *words, "-f", self.file(values))

    def refusal(self, values: dict[str, Any] | str) -> str:
        """What helm says to values that it must not render."""
        done = self.run("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", self.file(values))
        assert done.returncode != 0, "was rendered"
        return done.stderr

    def objects(self, values: dict[str, Any] | str | None = None, *words: str, chart: Path = CHART) -> Objects:
        """The same, parsed."""
        return objects(self.template(values, *words, chart=chart))

    def file(self, values: dict[str, Any] | str | None) -> str:
        """A values file; text is written as people write it."""
        path = self._folder / "values.yaml"
        path.write_text(values if isinstance(values, str) else json.dumps(values or {}))
        return str(path)


def objects(text: str) -> Objects:
    """Every object by kind, namespace and name; none twice."""
    found: Objects = {}
    for item in yaml.safe_load_all(text):
        if item is not None:
            key = item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]
            assert key not in found, key
            found[key] = item
    return found
