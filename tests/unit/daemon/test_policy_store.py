"""The policy in force on one node: its labels, what is held back, and what a restart and a bad disk leave of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.controls.registry import with_folders
from agent.daemon.config_store import PolicyStore, fingerprint
from agent.daemon.node_labels import PATH as LABELS
from agent.daemon.profile_copies import COPIES
from agent.daemon.staging import LAST_GOOD, STATE, Document
from agent.host import Host
from agent.model import Condition
from agent.report.node_status import NodeView
from agent.rollout.decision import Canary, Observation, Order, Phase, Verdict
from agent.rollout.reports import Report, report

GPU = {"metadata": {"labels": {"pool": "gpu", "node-hardening.io/hardened": "true"}}}
ROLLOUT: dict[str, Any] = {"canary": "canary=true", "soak": "10m"}


class Site:
    """A node's disk and its ConfigMap; `store` is the agent's process, which may be started again."""

    def __init__(self, folder: Path) -> None:
        self.file, self.root, self.now = folder / "config.yaml", folder / "root", 1000.0
        self.root.mkdir()
        self.restart()

    def restart(self) -> None:
        self.store = PolicyStore(self.file, Host(self.root), explicit=True, wall=lambda: self.now)

    def write(self, **policy: Any) -> None:
        self.file.write_text(json.dumps(policy))

    def interval(self) -> float | None:
        config = self.store.load().config
        return config.interval if config else None

    @property
    def target(self) -> str:
        pending = self.store.staging.pending
        return pending[0].target if pending else ""

    def poll(self, *canaries: Canary, order: Order | None = None) -> None:
        assert self.store.staging.observe(self.target, Observation(canaries, order=order)) is not None

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def profile(self, content: str, name: str = "p.json") -> dict[str, Any]:
        """Changes a file in the folder of profiles; the policy's section that names the folder."""
        folder = self.file.parent / "profiles"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)
        return {"seccomp": {"profiles": str(folder)}}

    def report(self) -> Report:
        """What other nodes and the plugin read of this one."""
        return report({"metadata": {"annotations": dict(self._shown().annotations)}})

    @property
    def condition(self) -> Condition:
        (found,) = self._shown().conditions
        return found

    def _shown(self) -> NodeView:
        views: dict[str, NodeView] = {}
        self.store.staging.show(views.__setitem__)
        return views["rollout"]

    def used(self) -> str:
        """The profile that the controls of this node read."""
        policy = self.store.load()
        assert policy.config is not None
        folder = with_folders(policy.config, policy.places).seccomp.profiles
        return (Path(folder) / "p.json").read_text()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_node_without_labels_uses_the_policy_and_then_its_own(site: Site) -> None:
    site.write(overrides=[{"name": "gpu", "nodeSelector": "pool=gpu", "interval": "1m"}])
    assert site.interval() == 300.0
    assert site.store.take_labels(GPU)
    assert site.interval() == 60.0


def test_the_last_labels_outlive_the_process_and_the_agents_own_are_none_of_them(site: Site) -> None:
    site.write(overrides=[{"name": "gpu", "nodeSelector": "pool=gpu", "interval": "1m"}])
    site.store.take_labels(GPU)
    site.restart()
    assert site.interval() == 60.0
    assert json.loads(site.at(LABELS).read_text()) == {"pool": "gpu"}
    assert not site.store.take_labels(GPU)


def test_a_label_of_a_user_below_the_agents_prefix_selects_as_any_other(site: Site) -> None:
    """The other nodes, the plugin and `validate` see it: a canary by it must know that it is one."""
    site.write(interval="1m", rollout=ROLLOUT | {"canary": "node-hardening.io/canary"})
    site.store.load()
    assert site.store.take_labels({"metadata": {"labels": {"node-hardening.io/canary": ""}}})
    site.write(interval="2m", rollout=ROLLOUT | {"canary": "node-hardening.io/canary"})
    assert site.interval() == 120.0


def test_labels_that_select_nothing_else_reload_nothing(site: Site) -> None:
    site.write(overrides=[{"name": "gpu", "nodeSelector": "pool=gpu", "interval": "1m"}], rollout=ROLLOUT)
    site.store.take_labels(GPU)
    site.store.load()
    labels = {**GPU["metadata"]["labels"], "zone": "a"}
    assert not site.store.take_labels({"metadata": {"labels": labels}})
    assert site.store.take_labels({"metadata": {"labels": {**labels, "canary": "true"}}})


def test_labels_that_an_exception_selects_are_a_reason_to_load_again(site: Site) -> None:
    """So that it holds, or no longer does, with the next pass and not with the next change of the file."""
    one = {"id": "kubelet/4.2.6", "selector": {"labels": "spot"}, "reason": "r", "owner": "o", "expires": "2020-01-01"}
    site.write(exceptions=[one])
    site.store.load()
    assert site.store.take_labels({"metadata": {"labels": {"spot": "true"}}})
    assert site.store.labels == {"spot": "true"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"pool": 3}', "\0"])
def test_labels_that_cannot_be_read_are_none(site: Site, content: str) -> None:
    site.at(LABELS).parent.mkdir(parents=True)
    site.at(LABELS).write_text(content)
    site.write(overrides=[{"name": "gpu", "nodeSelector": "pool", "interval": "1m"}])
    assert site.interval() == 300.0


def test_overrides_that_contradict_each_other_leave_the_last_valid_policy_in_force(site: Site) -> None:
    site.write(interval="2m")
    assert site.interval() == 120.0
    overrides = [
        {"name": "a", "nodeSelector": "pool", "modprobe": {"deny": ["udf"]}},
        {"name": "b", "nodeSelector": "pool=gpu", "modprobe": {"allow": ["udf"]}},
    ]
    site.write(overrides=overrides)
    assert site.interval() == 300.0  # without labels nothing contradicts
    site.store.take_labels(GPU)
    policy = site.store.load()
    assert policy.clashes
    assert "overrides a, b together" in policy.problem
    assert policy.config is not None
    assert policy.config.modprobe.deny == ()
    site.restart()
    assert site.store.load().config is not None  # the policy without overrides: hardened rather than not


def test_a_changed_policy_is_held_back_also_across_a_restart_and_by_a_broken_file(site: Site) -> None:
    site.write(interval="1m", rollout=ROLLOUT)
    assert (site.interval(), site.target) == (60.0, "")
    site.write(interval="2m", rollout=ROLLOUT)
    assert site.interval() == 60.0
    assert site.store.staging.held_back() == Phase.WAITING
    since = site.store.staging.pending
    site.now += 500
    site.restart()
    assert site.interval() == 60.0
    assert site.store.staging.pending == since
    site.file.write_text("interval: 7")
    assert site.interval() == 60.0
    site.restart()
    assert site.interval() == 60.0


def test_it_is_taken_when_the_canaries_have_verified_it_and_not_again_without_them(site: Site) -> None:
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    site.write(interval="2m", rollout=ROLLOUT)
    site.store.load()
    site.now += 700
    target = site.target
    site.poll(Canary("c", target, Verdict.VERIFIED, 1000.0, 1.0))
    assert site.interval() == 120.0
    assert site.target == ""
    assert site.at(LAST_GOOD).read_text() == site.file.read_text()
    site.write(interval="1m", rollout=ROLLOUT)
    assert site.interval() == 120.0  # a policy of before is a change like any other
    site.write(interval="2m", rollout=ROLLOUT)
    assert (site.interval(), site.target) == (120.0, "")


def test_a_canary_tries_it_at_once_and_an_abort_brings_it_back(site: Site) -> None:
    site.store.take_labels({"metadata": {"labels": {"canary": "true"}}})
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    assert not site.store.staging.judge(failed=[], unknown=[])
    site.write(interval="2m", rollout=ROLLOUT)
    assert site.interval() == 120.0
    assert site.store.staging.judge(failed=["x"], unknown=[])
    assert site.store.staging.held_back() == ""
    assert not site.store.staging.judge(failed=["x"], unknown=[])  # one Event
    site.restart()
    assert site.interval() == 120.0
    assert not site.store.staging.judge(failed=[], unknown=[])
    site.poll(order=Order.ABORT)
    assert [site.store.staging.runs_aborted, site.interval(), site.store.staging.runs_aborted] == [True, 60.0, False]
    site.write(interval="1m", rollout=ROLLOUT)
    assert site.interval() == 60.0
    assert site.store.staging.ended()
    assert not site.store.staging.ended()


def test_what_failed_before_the_first_rollout_is_not_its_fault(site: Site) -> None:
    """Canaries and the first change for them may come together."""
    site.store.take_labels({"metadata": {"labels": {"canary": "true"}}})
    site.write(interval="1m")
    site.store.load()
    site.store.staging.judge(failed=["old"], unknown=[])
    site.write(interval="2m", rollout=ROLLOUT)
    assert site.interval() == 120.0
    assert not site.store.staging.judge(failed=["old"], unknown=[])
    assert site.store.staging.judge(failed=["old", "new"], unknown=[])


def test_a_poll_of_what_is_held_back_no_more_has_no_effect(site: Site) -> None:
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    assert site.store.staging.observe("b" * 12, Observation((), order=Order.PROMOTE)) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pending": {}, "assessment": {}}', '{"pending": 1}'])
def test_a_state_that_cannot_be_read_begins_the_wait_again(site: Site, content: str) -> None:
    """It never lets the policy pass: the last accepted one is in a file of its own."""
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    site.write(interval="2m", rollout=ROLLOUT)
    site.store.load()
    site.at(STATE).write_text(content)
    site.restart()
    assert site.interval() == 60.0
    pending = site.store.staging.pending
    assert pending is not None
    assert pending[0].phase is Phase.WAITING


def test_without_a_last_policy_there_is_nothing_to_hold_back(site: Site) -> None:
    """A new node, or one whose disk lost it, is hardened first."""
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    site.write(interval="2m", rollout=ROLLOUT)
    site.store.load()
    for path in (LAST_GOOD, STATE):
        site.at(path).unlink(missing_ok=True)
    site.restart()
    assert site.interval() == 120.0


def test_how_it_is_rolled_out_is_no_change_that_is_rolled_out(site: Site) -> None:
    site.write(interval="1m", rollout=ROLLOUT)
    site.store.load()
    site.write(interval="1m", rollout={**ROLLOUT, "soak": "1h"})
    site.store.load()
    assert site.target == ""


def test_a_changed_profile_is_held_back_as_a_changed_policy_is(site: Site) -> None:
    """Also across a restart, with a broken policy, and by a node whose pass begins before it has seen the change."""
    site.write(**site.profile("old"), rollout=ROLLOUT)
    assert (site.used(), site.target) == ("old", "")
    before = site.store.load()
    site.profile("new")
    assert before.config is not None
    assert (Path(with_folders(before.config, before.places).seccomp.profiles) / "p.json").read_text() == "old"
    assert site.used() == "old"
    assert site.target != ""
    site.restart()
    assert site.used() == "old"
    valid = site.file.read_text()
    site.file.write_text("interval: 7")
    site.restart()
    assert site.used() == "old"
    site.file.write_text(valid)
    assert site.used() == "old"
    site.now += 700
    site.poll(Canary("c", site.target, Verdict.VERIFIED, 1000.0, 1.0))
    assert (site.used(), site.target) == ("new", "")
    site.restart()
    assert (site.used(), site.target) == ("new", "")


def test_a_canary_tries_a_changed_profile_immediately_and_an_abort_brings_the_last_one_back(site: Site) -> None:
    site.store.take_labels({"metadata": {"labels": {"canary": "true"}}})
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.load()
    site.store.staging.judge(failed=[], unknown=[])
    site.profile("new")
    assert site.used() == "new"
    assert site.store.staging.judge(failed=["seccomp/profile/p.json"], unknown=[])
    site.poll(order=Order.ABORT)
    assert site.used() == "old"


@pytest.mark.parametrize("rollout", [{}, {**ROLLOUT, "urgent": True}])
def test_a_profile_is_not_held_back_without_canaries_or_when_it_is_urgent(site: Site, rollout: dict[str, Any]) -> None:
    site.write(**site.profile("old"), rollout=rollout)
    site.store.load()
    site.profile("new")
    assert (site.used(), site.target) == ("new", "")


def test_canaries_and_the_first_changed_profile_may_come_together(site: Site) -> None:
    site.write(**site.profile("old"))
    site.store.load()
    site.write(**site.profile("new"), rollout=ROLLOUT)
    assert site.used() == "old"


def test_a_new_node_takes_the_profiles_that_are_there(site: Site) -> None:
    site.write(**site.profile("new"), rollout=ROLLOUT)
    assert (site.used(), site.target) == ("new", "")


def test_an_agent_that_kept_no_profiles_before_counts_those_that_are_there(site: Site) -> None:
    """An upgrade holds nothing back."""
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.load()
    site.at(f"{COPIES}/accepted.json").unlink()
    site.restart()
    assert (site.used(), site.target) == ("old", "")
    site.profile("new")
    assert site.used() == "old"


def test_a_disk_that_takes_no_copy_does_not_keep_a_node_from_its_profiles(site: Site) -> None:
    site.at(COPIES).parent.mkdir(parents=True)
    site.at(COPIES).write_text("in the way")
    site.write(**site.profile("old"), rollout=ROLLOUT)
    assert site.used() == "old"


def _lose(site: Site) -> None:
    shutil.rmtree(site.at(COPIES))


def _damage_record(site: Site) -> None:
    site.at(f"{COPIES}/accepted.json").write_text("[]")


def _damage_copy(site: Site) -> None:
    for place in site.at(COPIES).glob("*/p.json"):
        place.write_text("changed")


@pytest.mark.parametrize(
    ("happens", "restarts"),
    [(_lose, True), (_lose, False), (_damage_record, True), (_damage_copy, True), (_damage_copy, False)],
)
@pytest.mark.parametrize("changes", [{}, {"interval": "2m"}])
def test_a_node_without_copies_reports_the_profiles_that_it_uses(
    site: Site, happens: Callable[[Site], None], restarts: bool, changes: dict[str, Any]
) -> None:
    """The controls read the changed folder then: the node must not report that it holds the change back."""
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.load()
    happens(site)
    if restarts:
        site.restart()
    site.write(**site.profile("new"), **changes, rollout=ROLLOUT)
    assert site.used() == "new"
    newest = Document.of(site.file.read_text(), "f").revision
    assert site.report().revision.partition("-")[2] == newest.partition("-")[2]
    assert (site.report().revision == newest) == (site.store.staging.held_back() == "")


def test_a_changed_policy_is_held_back_without_copies_as_long_as_its_profiles_are_the_same(site: Site) -> None:
    """The folder itself is what was accepted; once it changes too, the node takes all of it."""
    site.at(COPIES).parent.mkdir(parents=True)
    site.at(COPIES).write_text("in the way")
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.load()
    assert (site.report().is_kept, site.condition.reason, site.condition.status) == (False, "NotKept", "True")
    site.write(interval="2m", **site.profile("old"), rollout=ROLLOUT)
    assert (site.used(), site.store.staging.held_back()) == ("old", Phase.WAITING)
    assert (site.condition.reason, site.condition.status) == (Phase.WAITING, "False")
    site.profile("new")
    assert (site.used(), site.target, site.condition.reason) == ("new", "", "NotKept")
    site.at(COPIES).unlink()
    site.store.staging.judge(failed=[], unknown=[])
    assert (site.report().is_kept, site.condition.reason) == (True, Phase.CURRENT)
    site.profile("newer")
    assert site.used() == "new"


def test_with_a_broken_policy_too_a_node_without_copies_reports_what_it_uses(site: Site) -> None:
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.load()
    _damage_copy(site)
    site.profile("new")
    valid = site.file.read_text()
    site.file.write_text("interval: 7")
    site.restart()
    assert site.used() == "new"
    assert site.report().revision == Document.of(valid, "f").revision


def test_what_the_disk_did_not_take_is_written_later(site: Site) -> None:
    """Else a restart begins with what was accepted before it, although the disk has long been well."""
    folder = site.at(COPIES).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    site.write(**site.profile("old"), rollout=ROLLOUT)
    site.store.take_labels(GPU)
    site.store.load()
    site.store.staging.judge(failed=["one"], unknown=[])
    folder.unlink()
    site.store.staging.judge(failed=["one"], unknown=[])
    assert not site.store.take_labels(GPU)
    assert [path for path in (COPIES, LAST_GOOD, STATE, LABELS) if not site.at(path).exists()] == []


def test_nodes_with_the_same_profiles_have_the_same_hash_wherever_they_read_them(site: Site) -> None:
    site.write(**site.profile("old"), rollout=ROLLOUT)
    policy = site.store.load()
    assert policy.config is not None
    assert policy.places
    assert fingerprint(policy.config, policy.places) == fingerprint(policy.config)
