"""What an observation means. The observations are built by hand; the real ones are in tests/integration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config.choices import Mode
from agent.config.schema import Modprobe
from agent.controls.manifest import Entry, digest
from agent.controls.modprobe.findings import findings
from agent.controls.modprobe.kmod import Loaded, ShowDepends
from agent.controls.modprobe.modprobe_d import Configuration, Hidden, parse
from agent.controls.modprobe.observe import File, Kernel, Observation, Running
from agent.controls.modprobe.policy import Denied, Policy, Trouble, render
from agent.controls.modprobe.show_depends import Effective, LoadOutcome, LoadResult, Verification, judge
from agent.model import Finding, Status

CONFIG = Modprobe()
POLICY = Policy((Denied("sctp", "Rare.", "list kubernetes"),))
RELEASE = "6.1.0-18-amd64"
REFUSED = Verification({"sctp": LoadResult(LoadOutcome.REFUSED, aliases=2)})
KERNEL = Kernel(RELEASE, {"sctp": ()}, frozenset({"ext4"}), (), REFUSED)
RUNNING = Running(loaded={}, helper="/sbin/modprobe")
SEEN = Observation(
    policy=POLICY,
    file=File(render(POLICY)),
    configuration=Configuration(parse(render(POLICY).decode(), CONFIG.file)),
    kernels=(KERNEL,),
    running=RUNNING,
    installed={CONFIG.file: Entry(CONFIG.file, (digest(render(POLICY)),))},
)


def judged(seen: Observation, config: Modprobe = CONFIG) -> dict[str, Finding]:
    """Findings by id; an id that stands twice is a defect."""
    found = list(findings(config, seen))
    assert len(found) == len({one.id for one in found})
    return {one.id.removeprefix("modprobe/"): one for one in found}


def sctp(seen: Observation, config: Modprobe = CONFIG) -> Finding:
    """The finding about sctp."""
    return judged(seen, config)["sctp"]


def on_kernel(**changes: object) -> Observation:
    """The good observation with another kernel."""
    return replace(SEEN, kernels=(replace(KERNEL, **changes),))  # type: ignore[arg-type]


def running(**changes: object) -> Observation:
    """The good observation with another running kernel."""
    return replace(SEEN, running=replace(RUNNING, **changes))  # type: ignore[arg-type]


def test_a_refused_module_that_is_not_there_passes_and_names_the_line() -> None:
    """Nothing else is found on a node that is as it should be."""
    found = judged(SEEN)
    assert {name: one.status for name, one in found.items()} == {"sctp": Status.PASS, "file": Status.PASS}
    assert found["sctp"].observed == "refused by name and by 2 aliases; not loaded"
    assert found["sctp"].source == "/etc/modprobe.d/kubernetes-blacklist.conf:10"
    assert found["sctp"].remediation == ""


def test_a_module_that_the_kernel_does_not_have_passes_and_is_said_to_be_absent() -> None:
    """Denied all the same: the next kernel may bring it."""
    one = sctp(on_kernel(needs={}))
    assert (Status.PASS, f"refused by name and by 2 aliases; not loaded; not in kernel {RELEASE}") == (
        one.status,
        one.observed,
    )


def test_bin_true_keeps_the_module_out_and_is_told_apart() -> None:
    """Not loaded is what the policy asks for; that modprobe then reports success is said."""
    lines = Configuration(parse("install sctp /bin/true", "/etc/modprobe.d/a.conf"))
    seen = replace(
        on_kernel(verification=Verification({"sctp": LoadResult(LoadOutcome.PRETENDED)})), configuration=lines
    )
    one = sctp(seen)
    assert Status.PASS is one.status
    assert "though modprobe reports success (`install sctp /bin/true` in /etc/modprobe.d/a.conf:1)" in one.observed


@pytest.mark.parametrize(
    ("module", "observed", "remediation"),
    [
        (Loaded("sctp", 0), "loaded; unused", "Set modprobe.unload: true, run `rmmod sctp`"),
        (Loaded("sctp", 3), "loaded; in use (3 references)", "Stop what uses it"),
        (Loaded("sctp", 1, ("sctp_diag",)), "loaded; used by sctp_diag", "Unload sctp_diag first"),
        (Loaded("sctp", None), "loaded; this kernel cannot unload modules", "Reboot the node"),
    ],
)
def test_a_loaded_module_fails_with_the_next_step(module: Loaded, observed: str, remediation: str) -> None:
    """A denial does not touch what is in the kernel already."""
    one = sctp(running(loaded={"sctp": module}))
    assert Status.FAIL is one.status
    assert observed in one.observed
    assert remediation in one.remediation
    assert one.needs_reboot


def test_loaded_with_unload_set_says_why_it_is_still_there() -> None:
    """On the running system the next apply does it; in a copy of a node nobody does."""
    unused = {"sctp": Loaded("sctp", 0)}
    config = replace(CONFIG, unload=True)
    assert "next apply" in sctp(running(loaded=unused, may_unload=True), config).remediation
    assert "not the running system" in sctp(running(loaded=unused), config).remediation


def test_whether_it_is_loaded_is_unknown_without_proc_modules() -> None:
    """Unknown is never a pass."""
    one = sctp(running(loaded=None, loaded_problem="cannot read /proc/modules: Permission denied"))
    assert Status.UNKNOWN is one.status
    assert "Permission denied" in one.observed


def test_a_built_in_module_fails_because_no_file_can_help() -> None:
    """Known from modules.builtin, or from /sys/module while it is not loaded."""
    for seen in (on_kernel(builtin=frozenset({"sctp"})), running(builtin=frozenset({"sctp"}))):
        one = sctp(seen)
        assert Status.FAIL is one.status
        assert "initcall_blacklist" in one.remediation


def test_a_built_in_module_whose_start_is_left_out_is_told_and_not_passed() -> None:
    """That the function on the command line is the module's own is read from its name only."""
    one = sctp(
        replace(running(skipped=frozenset({"sctp_init"})), kernels=on_kernel(builtin=frozenset({"sctp"})).kernels)
    )
    assert Status.INFO is one.status
    assert "sctp_init" in one.observed


def test_without_modules_builtin_a_running_node_is_unknown() -> None:
    """It could be part of the kernel."""
    assert Status.UNKNOWN is sctp(on_kernel(builtin=None, needs=None)).status


def test_a_tree_that_no_kernel_runs_on_is_judged_by_its_files() -> None:
    """An image under construction has nothing loaded."""
    one = sctp(replace(SEEN, running=None))
    assert Status.PASS is one.status
    assert "no kernel runs on this tree" in one.observed


def test_without_modprobe_the_files_are_read_but_nothing_is_verified() -> None:
    """The line is named, the reason is given, and it is no pass."""
    none = Verification(
        problem="modprobe: neither on the node nor beside the agent", remedy="Install kmod on the node."
    )
    one = sctp(on_kernel(verification=none))
    assert Status.UNKNOWN is one.status
    assert "neither on the node" in one.observed
    assert one.remediation == "Install kmod on the node."


def test_without_modprobe_a_line_that_wins_over_ours_still_fails() -> None:
    """That much the files do tell."""
    lines = parse("install sctp /sbin/x", "/etc/modprobe.d/a.conf") + SEEN.configuration.lines
    one = sctp(replace(on_kernel(verification=Verification(problem="x")), configuration=Configuration(lines)))
    assert (one.status, one.source) == (Status.FAIL, "/etc/modprobe.d/a.conf:1")


def test_what_the_agent_would_do_itself_is_never_advised() -> None:
    """The usual state before the first apply."""
    seen = replace(
        on_kernel(verification=Verification({"sctp": LoadResult(LoadOutcome.LOADS, "sctp")})),
        configuration=Configuration(),
        file=File(),
        installed={},
    )
    found = judged(seen)
    assert found["sctp"].observed == "it loads"
    assert "at its next pass" in found["sctp"].remediation
    audited = judged(seen, Modprobe(mode=Mode.AUDIT))
    assert {audited[one].remediation for one in ("sctp", "file")} == {
        "Set modprobe.mode to enforce, and the agent corrects it."
    }
    assert (found["file"].status, found["file"].observed) == (Status.FAIL, "missing")


def test_our_file_hidden_by_another_is_a_failure_that_names_it() -> None:
    """What is written there has no effect."""
    config = replace(CONFIG, file="/usr/lib/modprobe.d/x.conf")
    hidden = Hidden(config.file, "/run/modprobe.d/x.conf")
    one = judged(replace(SEEN, configuration=Configuration((), (hidden,))), config)["file"]
    assert Status.FAIL is one.status
    assert "Remove or rename /run/modprobe.d/x.conf" in one.remediation


def test_a_file_hidden_by_ours_is_told() -> None:
    """Its lines no longer count, which its owner should know."""
    hidden = Hidden("/usr/lib/modprobe.d/kubernetes-blacklist.conf", CONFIG.file)
    found = judged(replace(SEEN, configuration=Configuration(SEEN.configuration.lines, (hidden,))))
    assert Status.INFO is found["hides/usr/lib/modprobe.d/kubernetes-blacklist.conf"].status


@pytest.mark.parametrize(
    ("file", "status", "observed"),
    [
        (File(b"other"), Status.FAIL, "not what the agent writes"),
        (File(), Status.FAIL, "missing"),
        (File(problem="cannot read x: Permission denied"), Status.UNKNOWN, "Permission denied"),
        (File(render(POLICY), 0o666), Status.FAIL, "writable by others (mode 0666)"),
    ],
)
def test_the_file_is_judged(file: File, status: Status, observed: str) -> None:
    """Content, presence, readability, mode."""
    one = judged(replace(SEEN, file=file))["file"]
    assert status is one.status
    assert observed in one.observed


def test_a_file_of_an_older_policy_is_recognised() -> None:
    """Drift by hand and a changed policy read differently."""
    seen = replace(SEEN, file=File(b"old"), installed={CONFIG.file: Entry(CONFIG.file, (digest(b"old"),))})
    assert judged(seen)["file"].observed == "of an older policy"


def test_what_left_the_configuration_is_named_until_it_is_gone() -> None:
    """Also the file itself once nothing is denied."""
    moved = replace(SEEN, installed={**SEEN.installed, "/etc/modprobe.d/old.conf": Entry("/etc/modprobe.d/old.conf")})
    assert Status.FAIL is judged(moved)["leftover/etc/modprobe.d/old.conf"].status
    assert f"leftover{CONFIG.file}" in judged(replace(SEEN, policy=Policy()))


def test_a_broken_manifest_is_unknown() -> None:
    """Nothing is known about what could be removed."""
    seen = replace(SEEN, manifest_problem="modprobe.json: not a manifest of ours", installed={})
    assert Status.UNKNOWN is judged(seen)["manifest"].status


def test_a_path_that_modprobe_does_not_read_fails() -> None:
    """Whatever stands in that file."""
    one = judged(SEEN, replace(CONFIG, file="/etc/modprobe.d/kubernetes-blacklist"))["file"]
    assert Status.FAIL is one.status
    assert ".conf" in one.observed


def test_troubles_and_idle_names_become_findings() -> None:
    """A list that is not there fails; a needless allow is information."""
    policy = replace(POLICY, troubles=(Trouble("list/x", "no list x", "y", "modprobe.lists", "z"),), idle=("tpic",))
    found = judged(replace(SEEN, policy=policy))
    assert Status.FAIL is found["list/x"].status
    assert Status.INFO is found["allow/tpic"].status


def test_commands_that_load_a_denied_module_fail_by_place() -> None:
    """One finding a line."""
    lines = SEEN.configuration.lines + parse("install x modprobe -i sctp", "/etc/modprobe.d/z.conf")
    one = judged(replace(SEEN, configuration=Configuration(lines)))["sctp/loader/etc/modprobe.d/z.conf:1"]
    assert (one.status, one.source) == (Status.FAIL, "/etc/modprobe.d/z.conf:1")


def test_the_kernels_own_settings_are_told() -> None:
    """Each is information but a helper that is not modprobe: nobody knows what that one does."""
    seen = running(disabled=True, selinux=True, helper="/opt/loader", without_modules=True)
    expected = {
        "modules_disabled": Status.INFO,
        "selinux": Status.INFO,
        "kernel": Status.INFO,
        "helper": Status.UNKNOWN,
    }
    found = judged(seen)
    assert expected == {name: found[name].status for name in expected}
    assert Status.INFO is judged(running(helper=""))["helper"].status


@pytest.mark.parametrize(
    ("said", "stopped", "expected"),
    [
        (ShowDepends(("sctp",)), False, LoadOutcome.LOADS),
        (
            ShowDepends(("sctp",), ("/bin/false",)),
            False,
            LoadOutcome.LOADS,
        ),  # a soft dependency is refused, sctp is not
        (ShowDepends(("sctp",), ("/bin/false",)), True, LoadOutcome.REFUSED),  # a hard one is
        (ShowDepends(("libcrc32c",), ("/bin/false",)), False, LoadOutcome.REFUSED),
        (ShowDepends((), ("/bin/true",)), False, LoadOutcome.PRETENDED),
        (ShowDepends((), ("/sbin/modprobe -i sctp",)), False, LoadOutcome.RUNS),
        (ShowDepends((), (), (), ("sctp",)), False, LoadOutcome.NOWHERE),
        (ShowDepends(), False, LoadOutcome.NOWHERE),
    ],
)
def test_what_modprobe_prints_is_judged(said: ShowDepends, stopped: bool, expected: LoadOutcome) -> None:
    """Exit codes are 0 for all of these."""
    assert expected is judge("sctp", said, Effective(), stopped=stopped).outcome
