"""The plugin against forged objects: every command and the page survive them and print nothing raw.

Whoever owns a node can write its Node and its Leases, and whoever may write ConfigMaps the pause: each of their values
is replaced by hostile ones, on the emulator, which stores what it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.reboot.kube.views import lease_view
from agent.sandbox.server import Sandbox
from tests.support.html import Sound
from tests.support.plugin_fleet import NAMESPACE, SCENES, Staged
from tests.support.plugin_screen import Screen, Shown, emulator

PREFIX = "node-hardening.io/"
LEASE = "node-hardening-reboot-workers-0"
MARK = "INJECTED"
DRAIN = (
    '{"v":1,"phase":"draining","reason":"DrainBlocked","message":"\\u001b[2J","drain":{"total":-1,"left":1e400,'
    f'"budgets":[{{"namespace":"a; {MARK}","name":"$({MARK})"}}],"pods":["\\u202e{MARK}"]}}}}'
)
STRINGS = (
    f"node-b; curl {MARK} | sh #",
    f"$({MARK})",
    f"`{MARK}`",
    f"\x1b]0;{MARK}\x07\x1b[2J\x1b[31m",
    f"\u202e{MARK}\u2066\u200f",
    f"{MARK}\r\nnode-1  hardened\n\n-> kubectl {MARK}",
    f"kubectl delete node {MARK}",
    f"</script><script>{MARK}</script><img src=x onerror=1>",
    f"{{{{ {MARK} }}}}{{% raw %}}",
    f"\x00\x9b{MARK}",
    MARK * 3000,
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "1e+999",
    "-1",
    "[[[[",
    '{"v":1,"phase":"rebooting","reason":"Rebooting","since":9e11,"until":"9999-12-31T23:59:59-23:59"}',
    DRAIN,
    '{"v":1,"phase":"rebooting","cycle":"c","boot":"b","since":9e11,"entered":{"boot":"b","mono":9e11,"wall":9e11}}',
)
NUMBERS = (2147483647, -1, 9e11, 1e308, True, None)
hostile = st.sampled_from(STRINGS) | st.text(st.characters(codec="utf-8"), max_size=60)
values: st.SearchStrategy[Any] = hostile | st.sampled_from(NUMBERS)
NOTES = (
    "status", "summary", "findings", "policy", "version", "last-change", "config-problem", "reboot", "reboot-status",
    "reboot-history", "reboot-state", "reboot-skip", "reboot-request",
)  # fmt: skip
LEASE_NOTES = ("phase", "cycle", "boot-id", "last-reboot", "taken-from", "pool-size", "waited-seconds", "stuck")
LEASE_FIELDS = ("holderIdentity", "acquireTime", "renewTime", "leaseDurationSeconds", "leaseTransitions")
LINES = (
    "status", "status -o wide", "status node-1", "why node-1", "why node-2", "history", "history node-1", "forecast",
    "preflight", "preflight node-1", "diff node-1", "pause --dry-run", "resume --dry-run", "skip node-1 --dry-run",
    "skip node-1 --off --dry-run", "reboot node-1 --dry-run", "unlock workers/0 --watch 0 --dry-run", "report",
)  # fmt: skip


@pytest.fixture(scope="module")
def still() -> Iterator[Sandbox]:
    """One emulator for all examples."""
    with emulator() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def staged() -> Staged:
    """A fleet in the middle of a drain, with a pause."""
    stage = SCENES["draining"]()
    stage.paused()
    return stage


def entry(draw: st.DrawFn) -> str:
    """A JSON list as `findings` and `reboot-history` are, of hostile values."""
    keys = ("id", "title", "status", "severity", "observed", "expected", "remediation", "at", "reason", "kernelBefore",
            "seconds", "phases", "pods", "slowestPod", "more")  # fmt: skip
    return json.dumps([draw(st.fixed_dictionaries(dict.fromkeys(keys, values)))])


@st.composite
def forgeries(draw: st.DrawFn) -> dict[str, Any]:
    """Values for a Node's annotations, a Lease, the pause."""
    notes = {key: draw(hostile) for key in draw(st.sets(st.sampled_from(NOTES), min_size=4))}
    notes |= {key: entry(draw) for key in draw(st.sets(st.sampled_from(("findings", "reboot-history"))))}
    return {
        "notes": notes,
        "labels": {f"{PREFIX}pool": draw(hostile)},
        "kernel": draw(values),
        "ready": draw(st.sampled_from(("True", "False", MARK))),
        "lease": {key: draw(values) for key in draw(st.sets(st.sampled_from(LEASE_FIELDS), min_size=1))},
        "lease_notes": {key: draw(hostile) for key in draw(st.sets(st.sampled_from(LEASE_NOTES)))},
        "pause": {key: draw(values) for key in draw(st.sets(st.sampled_from(("until", "reason", "by"))))},
    }


def forge(sandbox: Sandbox, forged: dict[str, Any]) -> None:
    """Writes them."""

    def node(found: dict[str, Any]) -> None:
        found["metadata"]["annotations"].update({f"{PREFIX}{key}": value for key, value in forged["notes"].items()})
        found["metadata"]["labels"].update(forged["labels"])
        found["status"]["nodeInfo"]["kernelVersion"] = forged["kernel"]
        for condition in found["status"]["conditions"]:
            condition["status"] = forged["ready"]

    def lease(found: dict[str, Any]) -> None:
        found["spec"].update(forged["lease"])
        notes = {f"{PREFIX}{key}": value for key, value in forged["lease_notes"].items()}
        found["metadata"].setdefault("annotations", {}).update(notes)

    sandbox.update("nodes", "node-1", node)
    sandbox.update("leases", LEASE, lease, NAMESPACE)
    sandbox.update("configmaps", "node-hardening-pause", lambda found: found["data"].update(forged["pause"]), NAMESPACE)


def check(line: str, shown: Shown) -> None:
    """Printable lines, no traceback, and nothing forged in a command to paste."""
    assert shown.code in (0, 1, 2, 3), line
    for written in (shown.out, shown.err):
        raw = [part for part in written.split("\n") if not part.isprintable()]
        assert raw == [], line
        assert "Traceback" not in written
    steps = [part.strip() for part in (shown.out + shown.err).splitlines() if part.strip().startswith("-> kubectl")]
    assert [step for step in steps if MARK in step or not re.fullmatch(r"[\x20-\x7e]+", step)] == [], line


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(forged=forgeries())
def test_every_command_survives_forged_objects(still: Sandbox, staged: Staged, forged: dict[str, Any]) -> None:
    """At a terminal and as documents."""
    staged.put_on(still)
    forge(still, forged)
    for line in LINES:
        shown = Screen(still, staged, 80).type(line)
        if line == "report":
            page = Sound.of(shown.out)
            assert page.wrong == []
            assert page.words.isprintable()
            assert MARK not in page.script
        else:
            check(line, shown)
        document = Screen(still, staged).type(f"{line} -o json")
        assert document.code in (0, 1, 2, 3)
        if document.out:
            assert all(text.isprintable() for text in strings(json.loads(document.out))), line


def strings(value: object) -> Iterator[str]:
    """Every text of a document, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(key)
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


@pytest.mark.parametrize("value", STRINGS)
def test_names_that_are_no_node_names_are_refused(still: Sandbox, staged: Staged, value: str) -> None:
    """As an argument, and as a lock's holder; the lock can still be freed by its own name."""
    staged.put_on(still)
    screen = Screen(still, staged, 80)
    for command in ("why", "status", "diff", "history", "skip", "reboot", "preflight"):
        shown = screen.type(command, value)
        assert shown.code == 2, command
        check(command, shown)
    still.update("leases", LEASE, lambda found: found["spec"].update(holderIdentity=f"{value}/uid"), NAMESPACE)
    for line in ("status", "why node-1"):
        check(line, screen.type(line))
    assert "unlock workers/0" in screen.type("status").out
    freed = screen.type("unlock workers/0 --yes --watch 0")
    assert freed.code == 0, freed
    check("unlock", freed)
    assert still.get("leases", LEASE, NAMESPACE)["spec"].get("holderIdentity") is None  # type: ignore[index]


def test_unlock_heals_a_poisoned_lease(still: Sandbox, staged: Staged) -> None:
    """What no agent would have written is gone afterwards, and the Lease is one that agents can take and renew."""
    staged.put_on(still)
    notes = {"last-reboot": "9999-12-31T23:59:59-23:59", "pool-size": "9" * 14, "cycle": MARK * 9000, "stuck": "\x1b"}
    forged = {"notes": {}, "labels": {}, "kernel": "", "ready": "True", "pause": {}, "lease_notes": notes}
    lease = {"holderIdentity": MARK * 100_000, "leaseTransitions": 2147483647, "leaseDurationSeconds": 2147483647,
             "renewTime": "soon", "acquireTime": "9999-12-31T23:59:59-23:59"}  # fmt: skip
    forge(still, {**forged, "lease": lease})
    assert Screen(still, staged, 80).type("unlock workers/0 --yes --watch 0").code == 0
    found = still.get("leases", LEASE, NAMESPACE)
    assert found is not None
    view = lease_view(found)
    assert (view.holder, view.cycle, view.stuck, view.transitions, view.last_reboot, view.pool_size) == (
        "", "", "", 0, 0.0, 0,
    )  # fmt: skip
    assert len(json.dumps(found)) < 4096


def test_leases_of_the_largest_size_do_not_hide_the_locks(still: Sandbox, staged: Staged) -> None:
    """Eighteen of one megabyte: more than one response may have."""
    staged.put_on(still)
    for number in range(18):
        body = {"metadata": {"name": f"filler-{number:02}"}, "spec": {"holderIdentity": "x" * 1_000_000}}
        still.create("leases", body, NAMESPACE)
    shown = Screen(still, staged, 80).type("status")
    assert "Locks: cannot be read" not in shown.out
    assert "Lock workers/0" in shown.out
