"""The power fails while two machines reboot one after the other. A file of its own: it takes longest."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from tests.vm.harness.cluster import eventually
from tests.vm.harness.pair import CYCLE_SECONDS, Pair
from tests.vm.harness.watcher import UNDER_WAY, Watcher

CUTS = int(os.environ.get("NHA_VM_CUTS", "20"))
PHASES = (*UNDER_WAY, "releasing")


@pytest.mark.timeout(3000)
def test_power_cuts_at_random_moments_of_a_cycle(pair: Pair, watcher: Watcher) -> None:
    """Twenty times the power fails somewhere between cordon and release (and sometimes of the one that waits). Never
    two nodes on their way, never a reboot without the lock; and in the end both have rebooted, are uncordoned, and the
    lock is free."""
    seed = int(os.environ.get("NHA_VM_SEED", random.SystemRandom().randrange(1 << 32)))
    rng = random.Random(seed)
    struck: Counter[str] = Counter()
    for number in range(CUTS):
        # Every phase has its turn, or nearly all cuts would strike the one that lasts longest.
        phase = PHASES[number % len(PHASES)]
        busy = _under_way(pair, watcher, phase)
        until = time.monotonic() + rng.uniform(0.0, 15.0 if phase == "rebooting" else 1.0)
        while time.monotonic() < until and watcher.phase(busy) == phase:  # a fast machine is out of it before
            time.sleep(0.05)
        victim = busy if rng.random() < 0.9 else next(name for name in pair.machines if name != busy)
        struck[watcher.phase(victim)] += 1
        pair.machines[victim].cut()
        watcher.power_was_cut(victim)
        pair.machines[victim].start(wait=False)
        assert watcher.broken == [], f"seed {seed}: {watcher.broken}"
    eventually(lambda: pair.idle(watcher), what=f"idle after the last cut (seed {seed})", seconds=CYCLE_SECONDS)
    print(f"power cuts by phase: {dict(struck)}; seed {seed}")  # noqa: T201 - pytest shows it with -rP, and on failure
    before = {name: pair.boots(name) for name in pair.machines}
    pair.want()
    eventually(
        lambda: all(pair.boots(name) == before[name] + 1 for name in before) and pair.idle(watcher),
        what=f"both rebooted once more (seed {seed})", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
    assert [name for name in pair.machines if pair.cordoned(name)] == []
    assert sum(struck[phase] for phase in PHASES) >= CUTS // 2, f"hardly a cut struck a cycle: {struck}"


def _under_way(pair: Pair, watcher: Watcher, phase: str) -> str:
    """Keeps asking for reboots until a node whose machine talks is in that phase; which one. When none is seen there
    for a while (a phase may last no longer than a look), one that is under way at all."""
    asked, begun = 0.0, time.monotonic()

    def look() -> str:
        nonlocal asked
        found = {name: watcher.phase(name) for name in pair.machines}
        exact = [name for name in found if found[name] == phase and pair.machines[name].boot]
        busy = [name for name in found if found[name] in PHASES]
        if not busy and time.monotonic() - asked > 5.0:
            pair.want()
            asked = time.monotonic()
        return (exact or (busy if time.monotonic() - begun > 60.0 else []) or [""])[0]

    return eventually(look, what=f"a node {phase}", seconds=CYCLE_SECONDS, every_seconds=0.05)
