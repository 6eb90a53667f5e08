"""Takes a part of the agent away and sees the tests fail that claim it: `python -m tests.vm.removed_parts [ROUND…]`.

Each cut is a small edit of the agent's source. The cuts of a round are made in a copy of the checkout, a wheel is built
from it, and the named tests run against that wheel on real kernels. A test that passes in spite of its cut proves
nothing, and nor does one that did not get to its end: this program then ends with 1. A cut whose source has moved on
stops it. As root, after `make test-vm`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.vm.harness.cuts import ROUNDS, Cut

ROOT = Path(__file__).resolve().parents[2]
# A reboot that never comes is waited for as long as this rather than for ten minutes; three power cuts are enough.
_ENVIRONMENT = {"NHA_VM_CYCLE_SECONDS": "150", "NHA_VM_CUTS": "3"}
_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "dist", "bench", "tests")


def main(words: Sequence[str]) -> int:
    """Runs the rounds that are named, all of them when none is. 0: every cut was noticed."""
    unknown = [word for word in words if word not in ROUNDS]
    if unknown:
        sys.stderr.write(f"no round {', '.join(unknown)}; there are {', '.join(ROUNDS)}\n")
        return 2
    good = True
    for name in words or ROUNDS:
        cuts = ROUNDS[name]
        with tempfile.TemporaryDirectory(prefix="nha-taken-away-") as folder:
            wheel = _wheel(Path(folder), cuts)
            outcome = _run(wheel, [test for cut in cuts for test in cut.tests], Path(folder) / "outcome.xml")
        for cut in cuts:
            for test in cut.tests:
                how = outcome.get(test, "did not run")
                good = good and how.startswith("failure: ")  # an error on the way to the test proves nothing
                sys.stdout.write(f"{name}: {cut.what}\n    {test}\n    {how}\n")
                sys.stdout.flush()
    return 0 if good else 1


def _wheel(folder: Path, cuts: Sequence[Cut]) -> Path:
    """A wheel without those parts. Raises LookupError when an edit does not find its place, once, any more."""
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=_LEFT_BEHIND, symlinks=True)
    for file, old, new in (edit for cut in cuts for edit in cut.edits):
        path = tree / "agent" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise LookupError(f"agent/{file} does not hold this once any more: {old}")
        path.write_text(text.replace(old, new))
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*argv, "--no-build-isolation", "-w", str(folder), str(tree)], check=True, stdin=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def _run(wheel: Path, tests: Sequence[str], outcome: Path) -> dict[str, str]:
    """How each test ended: PASSED, or the first words of its failure."""
    argv = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--tb", "short"]
    environment = {**os.environ, **_ENVIRONMENT, "NHA_VM_WHEEL": str(wheel)}
    with outcome.with_suffix(".log").open("w") as log:
        subprocess.run(
            [*argv, f"--junitxml={outcome}", *(f"tests/vm/{test}" for test in dict.fromkeys(tests))],
            cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if not outcome.exists():
        raise RuntimeError(f"pytest made no report:\n{outcome.with_suffix('.log').read_text()[-3000:]}")
    found = {}
    for case in ET.parse(outcome).iter("testcase"):
        said = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        file = case.attrib["classname"].rpartition(".")[2]
        how = "PASSED" if said is None else f"{said.tag}: {' '.join(said.attrib.get('message', '').split())[:300]}"
        found[f"{file}.py::{case.attrib['name']}"] = how
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
