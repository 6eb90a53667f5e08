"""What Prometheus scrapes: told in words, bounded in number."""

from __future__ import annotations

import math
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent.controls import registry
from agent.model import Outcome, Severity, Status
from agent.report.metrics import Metrics
from agent.report.process_metrics import ProcessCollector
from tests.support.report import change, finding, report

_CONTROLS = ("modprobe", "apparmor", "seccomp", "kubelet", "policy", "agent")


def scraped(metrics: Metrics) -> dict[str, Metric]:
    """The text, as Prometheus' own parser reads it."""
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    """Every sample of a family by its labels' values, in the order of the labels' names."""
    return {tuple(sample.labels.values()): sample.value for sample in scraped(metrics)[family].samples}


def filled() -> Metrics:
    """Metrics after everything that they count has happened."""
    metrics = Metrics()
    metrics.observe(
        report(finding(status=Status.FAIL), changes=(change(), change(Outcome.FAILED))), seconds=1, now=9, drift=True
    )
    metrics.policy.info({"hash": "abc"})
    metrics.held_back.reason = lambda: "Soaking"
    metrics.api_errors.labels("Unreachable").inc()
    metrics.reboot.tick(
        phase="draining", required=True, since=5, blocked_by="window", holder="n2", stuck=False, failures=1
    )
    metrics.reboot.ended("succeeded", 100, (("draining", 60),))
    return metrics


def test_each_metric_says_what_it_is() -> None:
    """# HELP with a sentence for a newcomer and a # TYPE for everything, under one prefix, each unit in the name."""
    text = generate_latest(filled().registry).decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    told = {line.split()[2]: line.split(" ", 3)[3] for line in text.splitlines() if line.startswith("# HELP")}
    assert names == set(told)
    for name, sentence in told.items():
        assert name.startswith("node_hardening_")
        assert len(sentence.split()) >= 4, (name, sentence)
        assert sentence.endswith("."), (name, sentence)
        assert not name.endswith(("_ms", "_minutes", "_created"))


def test_findings_by_control_status_and_severity() -> None:
    """The gauge is the last pass: what is mended is gone, not 0 for ever."""
    metrics = Metrics()
    two = (finding(1, Status.FAIL, Severity.LOW), finding(2, Status.FAIL, Severity.LOW), finding(3))
    metrics.observe(report(*two), seconds=0.25, now=1000, drift=False)
    assert values(metrics, "node_hardening_findings") == {
        ("modprobe", "low", "fail"): 2,
        ("modprobe", "high", "pass"): 1,
    }
    assert values(metrics, "node_hardening_hardened") == {(): 0}
    metrics.observe(report(finding()), seconds=0.25, now=1300, drift=False)
    assert values(metrics, "node_hardening_findings") == {("modprobe", "high", "pass"): 1}
    assert values(metrics, "node_hardening_hardened") == {(): 1}
    assert values(metrics, "node_hardening_passes") == {(): 2}
    assert values(metrics, "node_hardening_last_successful_pass_timestamp_seconds") == {(): 1300}


def test_a_pass_with_a_failed_change_is_not_a_successful_one() -> None:
    """The timestamp stays, so that an alert on its age sees a node that cannot be hardened."""
    metrics = Metrics()
    metrics.observe(report(), seconds=1, now=1000, drift=False)
    metrics.observe(report(changes=(change(Outcome.FAILED),)), seconds=1, now=2000, drift=False)
    assert values(metrics, "node_hardening_last_successful_pass_timestamp_seconds") == {(): 1000}
    assert values(metrics, "node_hardening_apply_failures")["modprobe",] == 1


def test_drift_is_what_had_to_be_changed_again() -> None:
    """A change under a new policy is a change; under the same policy it is somebody else's doing too."""
    metrics = Metrics()
    metrics.observe(report(changes=(change(),)), seconds=1, now=1, drift=False)
    metrics.observe(report(changes=(change(), change(Outcome.PLANNED))), seconds=1, now=2, drift=True)
    assert values(metrics, "node_hardening_changes")["modprobe",] == 2
    assert values(metrics, "node_hardening_drift_corrected")["modprobe",] == 1


def test_counters_are_there_before_anything_has_happened() -> None:
    """rate() over a series that begins with its first increment misses that one."""
    metrics = Metrics()
    for name in ("changes", "drift_corrected", "apply_failures"):
        assert {(control,) for control in registry.names()} == set(values(metrics, f"node_hardening_{name}"))
    assert set(values(metrics, "node_hardening_reboots")) == {("succeeded",), ("failed",), ("aborted",)}


def test_policy_and_build_are_labels() -> None:
    """One series each: another policy replaces the one before."""
    metrics = Metrics()
    metrics.policy.info({"hash": "aaa"})
    metrics.policy.info({"hash": "bbb"})
    assert [sample.labels for sample in scraped(metrics)["node_hardening_policy_info"].samples] == [{"hash": "bbb"}]
    assert set(scraped(metrics)["node_hardening_build_info"].samples[0].labels) == {"version", "python"}


def test_a_reboot_that_cannot_be_told_is_not_a_zero() -> None:
    """NaN, which compares to nothing; one series for the phase, the blocker and the holder at a time."""
    metrics = Metrics()
    for phase, by, holder in (("waiting", "lock", "n2"), ("waiting", "lock", "n3"), ("draining", "", "")):
        metrics.reboot.tick(phase=phase, required=None, since=0, blocked_by=by, holder=holder, stuck=False, failures=0)
    assert math.isnan(values(metrics, "node_hardening_reboot_required")[()])
    assert values(metrics, "node_hardening_reboot_phase") == {("draining",): 1}
    assert values(metrics, "node_hardening_reboot_blocked") == {}
    assert values(metrics, "node_hardening_reboot_lock_holder") == {}


def test_a_phase_that_no_scrape_saw_is_shown_afterwards() -> None:
    """Until the next cycle, whose phases alone are shown then."""
    metrics, name = Metrics(), "node_hardening_reboot_phase_started_timestamp_seconds"
    idle = {"required": False, "since": 0.0, "blocked_by": "", "holder": "", "stuck": False, "failures": 0}
    metrics.reboot.tick(phase="verifying", marks=(("cordoned", 10.0), ("rebooting", 12.5)), **idle)  # type: ignore[arg-type]
    metrics.reboot.tick(phase="idle", **idle)  # type: ignore[arg-type]
    assert values(metrics, name) == {("cordoned",): 10.0, ("rebooting",): 12.5}
    metrics.reboot.tick(phase="cordoned", marks=(("cordoned", 99.0),), **idle)  # type: ignore[arg-type]
    assert values(metrics, name) == {("cordoned",): 99.0}


def test_the_age_of_the_lock_goes_with_the_tick() -> None:
    """0 again when the node has nothing to do with it any more."""
    metrics = Metrics()
    told = {"phase": "waiting", "required": True, "since": 1.0, "blocked_by": "", "stuck": False, "failures": 0}
    metrics.reboot.tick(**told, holder="n2", lock_since=1800.5)  # type: ignore[arg-type]
    assert values(metrics, "node_hardening_reboot_lock_held_since_timestamp_seconds") == {(): 1800.5}
    metrics.reboot.tick(**told, holder="")  # type: ignore[arg-type]
    assert values(metrics, "node_hardening_reboot_lock_held_since_timestamp_seconds") == {(): 0}


def test_what_the_agent_costs_is_read_at_each_scrape() -> None:
    """From the kernel: memory that this very process has, CPU time that only grows."""
    metrics = Metrics()
    memory = values(metrics, "node_hardening_process_resident_memory_bytes")[()]
    assert 5e6 < memory < 5e9
    before = values(metrics, "node_hardening_process_cpu_seconds")[()]
    assert before > 0
    while sum(os.times()[:4]) < before + 0.05:  # with those of children, as the metric has it
        pass
    assert values(metrics, "node_hardening_process_cpu_seconds")[()] > before


def test_memory_that_the_kernel_does_not_tell_is_left_out(tmp_path: Path) -> None:
    """Not 0, which would look like very good news; the other half is told still."""
    for text in ("", "12\n", "12 x 3\n", None):
        if text is not None:
            (tmp_path / "statm").write_text(text)
        memory, cpu = ProcessCollector(tmp_path / ("statm" if text is not None else "missing")).collect()
        assert (list(memory.samples), len(cpu.samples)) == ([], 1)
    (tmp_path / "statm").write_text("100 7 3 1 0 2 0\n")
    memory, _ = ProcessCollector(tmp_path / "statm").collect()
    assert memory.samples[0].value == 7 * os.sysconf("SC_PAGE_SIZE")


@given(
    st.lists(
        st.builds(
            finding, st.integers(0, 10_000), st.sampled_from(Status), st.sampled_from(Severity),
            st.sampled_from(_CONTROLS), st.text(max_size=50),
        ),
        min_size=1, max_size=300,
    ),
    st.lists(st.sampled_from(["Unreachable", "403", "409", "500"]), max_size=50),
)  # fmt: skip
def test_a_node_adds_a_bounded_number_of_series(found: list[object], errors: list[str]) -> None:
    """Whatever is found, whatever ids and texts it has: controls x statuses x severities, and a few dozen."""
    metrics = filled()
    metrics.observe(report(*found), seconds=1, now=1, drift=False)  # type: ignore[arg-type]
    for error in errors:
        metrics.api_errors.labels(error).inc()
    families = scraped(metrics)
    assert len(families["node_hardening_findings"].samples) <= len(_CONTROLS) * len(Status) * len(Severity)
    others = sum(len(family.samples) for name, family in families.items() if name != "node_hardening_findings")
    assert others <= 80


def test_what_is_held_back_is_one_series_by_its_reason_and_none_otherwise() -> None:
    metrics = Metrics()
    assert values(metrics, "node_hardening_policy_held_back") == {}
    metrics.held_back.reason = lambda: "CanaryFailed"
    assert values(metrics, "node_hardening_policy_held_back") == {("CanaryFailed",): 1.0}
