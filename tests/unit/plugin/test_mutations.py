"""What every change has in common: shown, confirmed, recorded; and the reasons that searches for Events rely on."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.event_reasons import Reason
from agent.kube import LEASES, NODES, Kube
from agent.plugin import mutations
from agent.plugin.cluster import values
from agent.plugin.mutations import AuditEvent, AuditReason
from agent.plugin.session import NOT_WELL, Form, Session
from agent.terminal import Style

ROOT = Path(__file__).resolve().parents[3]
STABLE = "RebootsPaused RebootsResumed RebootSkipSet RebootSkipRemoved RebootRequested RebootLockForceReleased"


def _nowhere() -> NoReturn:
    raise AssertionError("nothing here needs a cluster")


def session(
    ask: Callable[[str], str] | None = None, *, yes: bool = False, form: Form = Form.TABLE, dry_run: bool = False
) -> Session:
    connect: Callable[[], Kube] = _nowhere
    return Session(connect, "ns", form, io.StringIO(), io.StringIO(), lambda: 1.8e9, Style(), ask, yes, dry_run)


def written(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


CHANGE = ("do it", ("one thing", "", "another thing"))


def test_no_reason_was_renamed_or_removed() -> None:
    """A new one may join; none shares its word with what agents say of themselves."""
    assert set(STABLE.split()) <= {one.value for one in AuditReason}
    assert not {one.value for one in AuditReason} & {reason.value for reason in Reason}
    for one in AuditReason:
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,127}", one.value)
        assert f"{one}" == one.value


def test_every_reason_is_in_the_operations_manual() -> None:
    """Type and meaning as they are here."""
    manual = (ROOT / "docs" / "operations.md").read_text()
    for one in AuditReason:
        kind = "Warning" if one.is_risky else "Normal"
        meaning = one.meaning[0].lower() + one.meaning[1:]
        assert f"| `{one.value}` | {kind} | {meaning} |" in manual


@pytest.mark.parametrize(
    ("answer", "agrees"), [("y\n", True), (" YES \n", True), ("\n", False), ("", False), ("yep", False), ("n", False)]
)
def test_only_a_plain_yes_agrees(answer: str, agrees: bool) -> None:
    """The end of the input is a no; what will change is shown before."""
    given_ = session(lambda _: answer)
    assert mutations.confirmed(given_, *CHANGE) is agrees
    shown = "Will do it:\n  - one thing\n  - another thing\n"
    assert written(given_.err) == shown + ("" if agrees else "nothing was changed\n")
    assert written(given_.out) == ""


def test_no_terminal_and_no_yes_is_a_usage_error() -> None:
    """Scripts pass --yes, and a dry run asks nothing."""
    with pytest.raises(UsageError, match="pass --yes to confirm; nothing was changed"):
        mutations.confirmed(session(), *CHANGE)
    assert mutations.confirmed(session(yes=True), *CHANGE)
    dry = session(dry_run=True)
    assert mutations.confirmed(dry, *CHANGE)
    assert written(dry.err).startswith("Would do it:\n")


def test_a_no_is_a_document_too() -> None:
    """For programs that answer for people."""
    given_ = session(form=Form.JSON)
    assert mutations.declined(given_) == NOT_WELL
    assert '"changed": false' in written(given_.out)


@given(st.text(max_size=400))
def test_a_reason_is_one_printable_line_or_refused(text: str) -> None:
    """And, signed, no longer than the agent's own note keeps it: it is compared with that."""
    options = argparse.Namespace(reason=text)
    if len(" ".join(text.split())) > mutations.REASON_CHARACTERS:
        with pytest.raises(UsageError):
            mutations.reason_of(options)
        return
    reason = mutations.reason_of(options)
    assert reason.isprintable()
    assert "\n" not in reason
    value = mutations.signed(reason, "w" * 80)
    assert values.text(value) == value


def test_an_event_is_found_where_people_look() -> None:
    """On a Node by its name as uid, in the namespace default; on a Lease by its own uid, beside it."""
    node = mutations.event(
        AuditEvent(AuditReason.REBOOT_SKIP_SET, "says\nso", "new\nfirmware", NODES, "worker-1"),
        who="ann",
        when=1.8e9,
        suffix="0f",
    )
    assert node["metadata"] == {"name": "worker-1.0f", "namespace": "default"}
    assert node["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "worker-1", "uid": "worker-1"}
    assert (node["reason"], node["type"], node["message"]) == ("RebootSkipSet", "Normal", "ann says so: new firmware")
    assert (node["firstTimestamp"], node["reportingInstance"]) == ("2027-01-15T08:00:00Z", "ann")
    lease = mutations.event(
        AuditEvent(AuditReason.REBOOT_LOCK_FORCE_RELEASED, "m", "", LEASES, "l" * 260, "ns", "u"),
        who="ann",
        when=1.8e9,
        suffix="0f",
    )
    assert len(lease["metadata"]["name"]) <= 253
    assert (lease["metadata"]["namespace"], lease["type"]) == ("ns", "Warning")
    assert lease["involvedObject"]["uid"] == "u"
    assert lease["involvedObject"]["apiVersion"] == "coordination.k8s.io/v1"
