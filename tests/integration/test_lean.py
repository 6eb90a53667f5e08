"""What `run` defers stays deferred: a pass over a node, a scrape and the reboot code load none of it.

It fails when a library's new version uses such a module at its import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import requests

from agent.lean import lazy_import
from agent.sandbox.noderoot import NodeRoot
from tests.support.agents import ROOT

_CODE = """
import json, sys
from agent.lean import lazy_import
lazy_import.defer()
from agent.cli import run
given = run.parsed(["run", "--host-root", sys.argv[1]])
from agent.lean import shared_methods
shared_methods.load(*run.PACKAGES)
from agent.config import Config
from agent.controls import registry
from agent.host import Host
from agent.report import exposition
from agent.report.metrics import Metrics
registry.run("node-1", registry.controls_of(Config(), Host(given.host_root)), registry.Act.APPLY)
exposition.exposition(Metrics().registry)
gone = ("argparse", "agent.cli.options", "agent.cli.main")
loads = {name: vars(sys.modules.get(name, sys)).get("__getattr__") for name in lazy_import.DEFERRED}
waiting = [name for name, load in loads.items() if getattr(load, "__module__", "") == "agent.lean.lazy_import"]
print(json.dumps([waiting, [name for name in gone if name in sys.modules]]))
"""


def test_run_loads_nothing_that_it_defers(tmp_path: Path) -> None:
    """Every module of the list waits, under -OO as in the image, and the parser is gone."""
    node = NodeRoot.make(tmp_path / "root")
    # What is optional and not in the image; with -S nothing of this machine's site-packages starts by itself either.
    for name in ("charset_normalizer", "rich"):
        (tmp_path / f"{name}.py").write_text("raise ImportError(__name__)\n")
    packages = Path(requests.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-OO", "-W", "ignore", "-c", _CODE, str(node.path)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT, packages))),
            "PYTHONTZPATH": "/usr/share/zoneinfo",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    waiting, left = json.loads(done.stdout)
    assert (sorted(set(lazy_import.DEFERRED) - set(waiting)), left) == ([], [])


def test_functions_lose_their_annotations_and_work_as_before() -> None:
    """Of every module that is loaded: in a process of its own, because no test is to miss them."""
    code = (
        "import json\n"
        "from agent.lean import shared_methods\n"
        "shared_methods.load('agent.config')\n"
        "from agent.config import loads\n"
        "from agent.config.schema import Drain\n"
        "print(json.dumps([loads.__annotations__, json.dumps.__annotations__, len(Drain.__annotations__) > 3,\n"
        "                  loads('interval: 9m', 'p').interval]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{}, {}, True, 540.0]
