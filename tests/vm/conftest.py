"""Machines for the tests: `node` is one for a whole file, `boot` makes more; consoles are kept when a test fails."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.vm.harness import accel, installed, recipe
from tests.vm.harness.machine import Machine
from tests.vm.harness.pair import Pair, pair_of_nodes, watched
from tests.vm.harness.recipe import Image
from tests.vm.harness.watcher import Watcher

Boot = Callable[..., Machine]
Ground = tuple[Image, tuple[str, ...]]

_JOURNAL = ["/usr/bin/journalctl", "-b", "--no-pager", "-n", "400", "-o", "short-monotonic"]
_TOOLS = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img", "/usr/sbin/debootstrap", "/usr/bin/cpio")
_FIRST = ("test_power_cuts.py", "test_reboot.py")
_live = pytest.StashKey[list[Machine]]()


def pytest_configure(config: pytest.Config) -> None:
    """No machine yet."""
    config.stash[_live] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder needs a machine, and longer than other tests. The longest files go first."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test keeps the console of every machine that ran, and its journal where it still talks."""
    report = yield
    if report.failed and item.config.stash[_live]:
        folder = recipe.cache() / "failures" / item.nodeid.replace("/", "_").replace("::", ".")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for machine in item.config.stash[_live]:
            shutil.copy(machine.console, folder)
            try:
                (folder / f"{machine.name}.journal.log").write_text(machine.run(_JOURNAL, seconds=60).out)
            except Exception as error:  # noqa: BLE001 - a machine that is off has no journal, whatever says so
                (folder / f"{machine.name}.journal.log").write_text(f"not to be had: {error}\n")
        report.sections.append(("console logs", f"consoles and journals of the machines: {folder}"))
    return report


@pytest.fixture(scope="session")
def ground() -> Ground:
    """The image with the agent in it, and how machines run here; built when they are not there."""
    if os.geteuid() != 0:
        pytest.skip("the real-kernel tier needs root (debootstrap, chroot)")
    missing = [tool for tool in _TOOLS if not Path(tool).exists()]
    if missing:
        pytest.fail(f"not there: {', '.join(missing)}; `tools/test-packages vm` installs them", pytrace=False)
    base = recipe.base()
    how = accel.arguments(base.kernel, recipe.cache() / "accel")
    sys.stderr.write(f"\ntests/vm: machines run with {' '.join(how)}\n")
    return installed.image(how), how


@pytest.fixture(scope="session")
def logs() -> Iterator[Path]:
    """Where consoles are written while machines run; what failed has been copied away before this goes."""
    folder = recipe.cache() / "logs" / str(os.getpid())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def boot(ground: Ground, logs: Path, request: pytest.FixtureRequest) -> Iterator[Boot]:
    """Makes and starts machines of this test's own."""
    yield from _boots(ground, logs, request)


@pytest.fixture(scope="module")
def boot_for_module(ground: Ground, logs: Path, request: pytest.FixtureRequest) -> Iterator[Boot]:
    """The same for all tests of a file."""
    yield from _boots(ground, logs, request)


@pytest.fixture(scope="module")
def node(boot_for_module: Boot) -> Machine:
    """A machine that the tests of one file share; each leaves it as it found it."""
    return boot_for_module("node")


@pytest.fixture(scope="module")
def pair(boot_for_module: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two hardened nodes with pods on them; the second one's clock is an hour ahead."""
    with pair_of_nodes(boot_for_module, tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def watcher(pair: Pair) -> Iterator[Watcher]:
    """Looks for what must never be while a test runs; both are idle before it and after it."""
    with watched(pair) as made:
        yield made


def _boots(ground: Ground, logs: Path, request: pytest.FixtureRequest) -> Iterator[Boot]:
    image, how = ground
    live = request.config.stash[_live]
    with ExitStack() as stack:

        def boot(name: str, *, started: bool = True, cpus: int = 1, memory: int = 640, **power: Any) -> Machine:
            machine = Machine(name, image, how, logs, cpus=cpus, memory=memory)
            stack.callback(live.remove, machine)
            stack.callback(machine.close)
            live.append(machine)
            if started:
                machine.start(**power)
            return machine

        yield boot
