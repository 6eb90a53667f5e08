"""The reasons of Events: stable words that alerts and runbooks hang on."""

from __future__ import annotations

import re

from agent.event_reasons import Reason, Urgency

STABLE = """
NodeHardened NodeNonCompliant DriftCorrected HardeningFailed StartupTaintRemoved ConfigReloaded ConfigRejected
RebootRequired RebootBlocked RebootLockAcquired RebootLockTakenOver RebootLockStuck RebootLockReleased NodeCordoned
NodeUncordoned NodeKeyRefused DrainBlocked Drained Rebooting RebootSucceeded RebootFailed
"""


def test_no_reason_was_renamed_or_taken_away() -> None:
    """A new one may join; whoever breaks this test breaks somebody's alerts."""
    assert set(STABLE.split()) <= {reason.value for reason in Reason}


def test_reasons_are_the_plain_words_that_events_carry() -> None:
    """CamelCase as the API server wants it, at most 128 characters, each with its meaning in one line."""
    for reason in Reason:
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,127}", reason.value)
        assert f"{reason}" == reason.value
        assert reason.meaning
        assert "\n" not in reason.meaning


def test_on_call_is_told_of_what_needs_a_person() -> None:
    """And of nothing else, unless it asked."""
    urgent = {reason for reason in Reason if reason.urgency is Urgency.ON_CALL}
    assert urgent == {
        Reason.HARDENING_FAILED,
        Reason.CONFIG_REJECTED,
        Reason.POLICY_FAILED_ON_CANARY,
        Reason.REBOOT_LOCK_STUCK,
        Reason.REBOOT_FAILED,
    }
