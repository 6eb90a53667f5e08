"""Whole cycles whose policy, rights or environment change on the way: nothing is left behind, repeated or kept.

A cordon of the agent ends within its deadlines, and no guard counts what the cycle itself caused.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.reboot.status import RebootStatus, parse
from agent.sandbox import builders
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from agent.text import format_rfc3339
from tests.support.agents import NAMESPACE
from tests.support.sites import LONGER, Site, one_site, pod_on

MakeSite = Callable[..., Site]
TAINT = "example.com/reboot-soon"
NEVER_OPEN = [{"days": ["mon"], "start": "00:00", "end": "00:01"}]
BINDING = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings/node-hardening-agent"
FIELDS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/node-hardening-agent-node-fields"
MODPROBE_FILE = "etc/modprobe.d/kubernetes-blacklist.conf"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site on an emulator."""
    with one_site("emulator", tmp_path) as make:
        yield make


@pytest.fixture(params=["emulator", "real"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes one site, on an emulator and on a kube-apiserver of its own."""
    with one_site(request.param, tmp_path) as make:
        yield make


def _status(site: Site, node: str = "node-1") -> RebootStatus | None:
    return parse(site.annotation(node, "reboot-status"))


def _reason_is(site: Site, reason: str, node: str = "node-1") -> None:
    site.until(lambda: (status := _status(site, node)) is not None and status.reason == reason, f"{node}: {reason}")


def _allow(site: Site, **variables: list[str]) -> None:
    """Adds keys of the policy to the admission policy, as docs/install.md asks."""
    found = site.client.get(FIELDS).json()
    for one in found["spec"]["variables"]:
        if one["name"] in variables:
            one["expression"] = json.dumps(variables[one["name"]])
    assert site.client.put(FIELDS, found).status_code == 200


def _held_drain(site: Site) -> None:
    """A drain of node-1 that a budget holds up."""
    site.create("api/v1", "pods", pod_on("node-1", "held", labels={"app": "held"}))
    site.create("apis/policy/v1", "poddisruptionbudgets", builders.budget("never", {"app": "held"}, max_unavailable=0))
    site.start()
    site.require()
    _reason_is(site, "DrainBlocked")


def _release_drain(site: Site) -> None:
    """The pod and its budget go; on a bare API server no kubelet would end an evicted pod."""
    site.client.delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/never")
    site.client.delete("/api/v1/namespaces/default/pods/held", {"gracePeriodSeconds": 0})


def _is_released(site: Site, node: str = "node-1") -> bool:
    """No cordon, no lock, no cycle."""
    state = json.loads(site.annotation(node, "reboot-state") or "{}")
    return not site.is_cordoned(node) and not site.holder() and state.get("phase", "idle") == "idle"


def _taints(site: Site) -> list[str]:
    return [taint["key"] for taint in site.node("node-1")["spec"].get("taints") or ()]


def _wait_for_policy(site: Site, before: str) -> None:
    site.until(lambda: site.annotation("node-1", "policy") != before, "the new policy in force")


# -- the policy changes in mid-cycle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["audit", "off"])
def test_a_drain_ends_when_reboots_are_no_longer_enforced(either: MakeSite, mode: str) -> None:
    """`off` ends where `audit` ends: everything of the cycle is removed, and only the pause between drains is left."""
    marks = {"before": {"example.com/maintenance": "true"}}
    site = either(retryAfter="5s", nodeLabels=marks, nodeAnnotations=marks)
    site.add("node-1")
    _allow(site, moreLabels=["example.com/maintenance"], moreAnnotations=["example.com/maintenance"])
    _held_drain(site)
    site.configure("node-1", mode=mode)
    site.until(lambda: _is_released(site), "no cordon and no lock")
    ends = ("RebootFailed", "NodeUncordoned", "RebootLockReleased")
    assert sorted(site.history.told("node-1", ends)) == ["NodeUncordoned", "RebootLockReleased"]
    meta = site.node("node-1")["metadata"]
    assert "example.com/maintenance" not in meta["labels"] | meta["annotations"]
    assert site.machines["node-1"].reboots == 0
    site.until(lambda: (status := _status(site)) is not None and status.mode == mode, "the mode in the status")
    _release_drain(site)
    site.configure("node-1")
    site.until(site.all_rebooted, "the reboot once they are enforced again")


def test_a_label_that_admission_refuses_does_not_keep_the_cordon(either: MakeSite) -> None:
    """The cycle ends with the key that the admission policy knows, and an Event names the other one."""
    labels = {"after": {"example.com/known": "1", "example.com/unknown": "1"}}
    site = either(nodeLabels=labels, nodeAnnotations=labels)
    site.expects_refusals = True
    site.add("node-1")
    _allow(site, moreLabels=["example.com/known"], moreAnnotations=["example.com/known"])
    site.start()
    site.require()
    site.until(site.all_rebooted, "the reboot")
    site.until(lambda: _is_released(site), "no cordon and no lock")
    meta = site.node("node-1")["metadata"]
    for found in (meta["labels"], meta["annotations"]):
        assert (found["example.com/known"], "example.com/unknown" in found) == ("1", False)
    site.until(lambda: len(site.history.messages("node-1", "NodeKeyRefused")) == 2, "the Events")
    said = sorted(site.history.messages("node-1", "NodeKeyRefused"))
    assert [text.split(" of the policy")[0] for text in said] == [
        "The annotation example.com/unknown",
        "The label example.com/unknown",
    ]


def test_a_verification_is_finished_although_reboots_are_switched_off(either: MakeSite) -> None:
    """The node went down already: only its cordon and its lock are left to remove."""
    site = either(hooks={"postReboot": [{"command": ["/bin/false"]}]})
    site.add("node-1")
    site.start()
    site.require()
    _reason_is(site, "VerificationFailed")
    site.configure("node-1", mode="off", hooks={"postReboot": []})
    site.until(lambda: _is_released(site), "no cordon and no lock")
    assert site.reboots("node-1") == 1
    assert len(site.history.messages("node-1", "RebootSucceeded")) == 1


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"mode": "off"}, []),
        ({"preferNoScheduleTaint": ""}, []),
        ({"preferNoScheduleTaint": "example.com/other"}, ["example.com/other"]),
    ],
    ids=["off", "emptied", "renamed"],
)
def test_the_taint_of_a_waiting_node_follows_the_policy(
    either: MakeSite, change: dict[str, Any], left: list[str]
) -> None:
    """Also the one of a key that the policy does not have any more."""
    site = either(preferNoScheduleTaint=TAINT, windows=NEVER_OPEN)
    site.add("node-1")
    _allow(site, taints=["node-hardening.io/not-hardened", TAINT, "example.com/other"])
    site.start()
    site.require()
    site.until(lambda: _taints(site) == [TAINT], "the taint")
    site.configure("node-1", **change)
    site.until(lambda: _taints(site) == left, f"the taints {left}")


@pytest.mark.parametrize("what", ["nodes/node-1", "leases"])
@pytest.mark.parametrize("waits", [True, False])
def test_what_is_left_of_a_reboot_is_removed_although_writes_conflict(make: MakeSite, what: str, waits: bool) -> None:
    """Another writer is faster while reboots are switched off: neither taint, cordon nor lock may stay."""
    site = make(preferNoScheduleTaint=TAINT, **({"windows": NEVER_OPEN} if waits else {}))
    site.add("node-1")
    _allow(site, taints=["node-hardening.io/not-hardened", TAINT])
    if waits:
        site.start()
        site.require()
        site.until(lambda: TAINT in _taints(site), "the taint")
    else:
        _held_drain(site)
    verbs = frozenset({"patch", "update"})
    site.sandbox.add_fault(Fault(FaultKind.STATUS, verbs=verbs, path=what, code=409, reason="Conflict", count=6))
    site.configure("node-1", mode="off")
    site.until(lambda: _is_released(site) and not _taints(site), "no taint, no cordon and no lock")


def test_a_hook_that_runs_outlives_changes_of_other_keys(either: MakeSite, tmp_path: Path) -> None:
    """It has begun once when it ends, whatever changed meanwhile."""
    mark, go, receiver = tmp_path / "mark", tmp_path / "go", tmp_path / "url"
    receiver.write_text("http://127.0.0.1:9/x")
    script = f"echo begin >> {mark}; until [ -e {go} ]; do sleep 0.1; done; echo end >> {mark}"
    hooks = {"preDrain": [{"command": ["/bin/sh", "-c", script], "timeout": LONGER}]}
    site = either(hooks=hooks)
    machine = site.add("node-1")
    site.start()
    site.require()
    site.until(mark.exists, "the hook")
    notify = {"notify": [{"type": "webhook", "urlFile": str(receiver), "events": ["RebootFailed"]}]}
    changes: list[dict[str, Any]] = [{"retryAfter": "2h"}, {"delay": "1s"}, {"blockers": {"minimumGap": "1s"}}]
    for policy in (site.policy_of("node-1") | notify, *(site.policy_of("node-1", **change) for change in changes)):
        before = site.annotation("node-1", "policy")
        machine.configure(policy)
        _wait_for_policy(site, before)
    go.touch()
    site.until(site.all_rebooted, "the reboot")
    assert mark.read_text().split() == ["begin", "end"]


def test_a_drain_outlives_changes_of_other_keys(make: MakeSite) -> None:
    """It still knows what it evicted before the change."""
    site = make()
    site.add("node-1")
    site.sandbox.create("pods", pod_on("node-1", "web"))
    _held_drain(site)
    site.until(lambda: len(site.sandbox.list("pods")) == 1, "the other pod gone")
    before = site.annotation("node-1", "policy")
    site.configure("node-1", retryAfter="2h", delay="1s")
    _wait_for_policy(site, before)
    site.sandbox.delete("poddisruptionbudgets", "never")
    site.until(site.all_rebooted, "the reboot")
    assert json.loads(site.annotation("node-1", "reboot-history"))[0]["pods"] == 2
    assert site.history.cordons("node-1") == [False, True, False]


# -- guards do not count what the cycle itself caused ------------------------------------------------------------------


@contextmanager
def _prometheus(firing: Callable[[], list[dict[str, str]] | None]) -> Iterator[str]:
    """Answers with alerts of these labels, each active since it was first seen; None: it closes the connection."""
    since: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = firing()
            if found is None:
                self.close_connection = True
                return
            body = json.dumps({"status": "success", "data": {"alerts": [_alert(labels) for labels in found]}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    def _alert(labels: dict[str, str]) -> dict[str, Any]:
        active = since.setdefault(labels["alertname"], format_rfc3339(time.time()))
        return {"labels": labels, "annotations": {}, "state": "firing", "activeAt": active, "value": "1"}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _while_cordoned(site: list[Site], during: list[dict[str, str]] | None) -> list[dict[str, str]] | None:
    return during if site and site[0].is_cordoned("node-1") else []


OURS = [{"alertname": "KubeNodeUnschedulable", "node": "node-1", "severity": "warning"}]
THEIRS = [{"alertname": "StorageDegraded", "severity": "critical"}]


@pytest.mark.parametrize("during", [OURS, None], ids=["an-alert-about-the-node", "prometheus-evicted"])
def test_what_the_drain_itself_causes_does_not_hold_the_reboot(
    make: MakeSite, during: list[dict[str, str]] | None
) -> None:
    """An alert about the cordoned node, or a Prometheus that ran on it and is away now: one drain, one reboot."""
    seen: list[Site] = []
    with _prometheus(lambda: _while_cordoned(seen, during)) as url:
        site = make(drain={"timeout": LONGER}, retryAfter="5s", blockers={"prometheus": {"url": url, "timeout": "2s"}})
        seen.append(site)
        site.add("node-1")
        site.sandbox.create("pods", pod_on("node-1", "web"))
        site.start()
        site.require()
        site.until(site.all_rebooted, "the reboot")
        assert site.history.cordons("node-1") == [False, True, False]
        assert site.history.messages("node-1", "RebootFailed") == []


def test_a_drain_is_not_repeated_for_the_same_answer(make: MakeSite) -> None:
    """Another alert that fires only then ends the cycle; after the second time the node waits for an operator."""
    seen: list[Site] = []
    with _prometheus(lambda: _while_cordoned(seen, THEIRS)) as url:
        site = make(drain={"timeout": "2s"}, retryAfter="1s", blockers={"prometheus": {"url": url}})
        seen.append(site)
        site.add("node-1")
        site.sandbox.create("pods", pod_on("node-1", "web"))
        site.start()
        site.require()

        def rests() -> bool:
            status = _status(site)
            return status is not None and status.phase == "rolled-back" and status.until - time.time() > 3600

        site.until(rests, "a back-off that does not repeat the drain")
        assert site.history.cordons("node-1") == [False, True, False, True, False]
        assert site.machines["node-1"].reboots == 0
        site.until(lambda: not site.holder(), "the lock released")
        seen.clear()
        site.annotate("node-1", "reboot-request", "the storage is well again")
        site.until(site.all_rebooted, "the reboot that an operator asked for")


# -- a number for a fleet on few nodes ---------------------------------------------------------------------------------


def test_a_fleets_concurrency_does_not_apply_to_the_control_plane(make: MakeSite) -> None:
    """Three at once would be etcd's quorum."""
    site = make(concurrency=3, maxUnavailable="3")
    for number in (1, 2, 3):
        site.add(f"cp-{number}", control_plane=True)
    site.start()
    site.require()
    site.until(site.all_rebooted, "three reboots")
    lock = "node-hardening-reboot-control-plane-0"
    assert site.history.most_cordoned() == 1
    assert site.history.reboots_without_lock(lock) == []
    assert sorted(holder for holder in site.history.holders(lock) if holder) == ["cp-1", "cp-2", "cp-3"]


# -- rights that are missing or lost -----------------------------------------------------------------------------------


def test_a_slot_that_could_not_be_released_is_not_acquired(make: MakeSite) -> None:
    """daemonset.yaml's Role names slot 0 alone: a policy with two slots cordons nothing by the second."""
    site = make(concurrency=2, maxUnavailable="2", drain={"timeout": LONGER})
    for name in ("node-1", "node-2"):
        site.add(name)
        site.sandbox.create("pods", pod_on(name, f"web-{name}"))
    site.start()
    site.require()

    def is_named() -> bool:
        found = [status for name in site.machines if (status := _status(site, name)) is not None]
        return any(one.reason == "LockForbidden" and "workers-1" in one.message for one in found)

    site.until(is_named, "the Lease that RBAC does not cover, by its name")
    assert site.lease("node-hardening-reboot-workers-1") == {}
    for name in site.machines:
        assert site.history.messages(name, "RebootFailed") == []
        assert site.history.cordons(name)[:1] == [False]
    site.sandbox.clear_requests()  # what was refused is the test's subject


def test_a_cordon_ends_at_its_deadline_without_rights_on_the_lock(either: MakeSite) -> None:
    """The Role goes in mid-drain: the roll-back needs the Node alone."""
    site = either(drain={"timeout": "6s"})
    machine = site.add("node-1")
    _held_drain(site)
    binding = site.client.get(BINDING).json()
    site.client.delete(BINDING)
    site.until(lambda: not site.is_cordoned("node-1"), "the cordon removed")
    site.until(lambda: site.history.messages("node-1", "RebootFailed"), "RebootFailed")
    assert machine.reboots == 0
    meta = {key: binding["metadata"][key] for key in ("name", "namespace", "labels")}
    body = {"metadata": meta, "roleRef": binding["roleRef"], "subjects": binding["subjects"]}
    assert site.client.post(BINDING.rpartition("/")[0], body).status_code == 201
    site.until(lambda: not site.holder(), "the lock released once it may be")
    if isinstance(site.surroundings, Sandbox):
        site.sandbox.clear_requests()  # what was refused is the test's subject


@pytest.mark.parametrize("code", [403, 422])
def test_a_cordon_ends_at_its_deadline_although_evictions_are_refused(make: MakeSite, code: int) -> None:
    """Permanently, by RBAC or a webhook."""
    site = make(drain={"timeout": "4s"})
    site.add("node-1")
    site.sandbox.create("pods", pod_on("node-1", "web"))
    site.sandbox.add_fault(Fault(FaultKind.STATUS, path="/eviction$", code=code, message="denied by policy"))
    site.start()
    site.require()
    site.until(lambda: site.history.messages("node-1", "RebootFailed"), "RebootFailed")
    site.until(lambda: not site.is_cordoned("node-1") and not site.holder(), "no cordon and no lock")
    assert site.machines["node-1"].reboots == 0
    site.sandbox.clear_requests()  # what was refused is the test's subject


# -- hardening before and after ----------------------------------------------------------------------------------------


def _break_hardening(root: Path) -> None:
    """A folder stands where the agent's file has to be."""
    (root / MODPROBE_FILE).unlink(missing_ok=True)
    (root / MODPROBE_FILE).mkdir(parents=True)
    (root / MODPROBE_FILE / "x").touch()


def test_a_node_that_was_not_hardened_before_its_reboot_is_released(either: MakeSite) -> None:
    """It is no worse than before, and the pool continues."""
    site = either(verifyTimeout="15s")
    for name in ("node-1", "node-2"):
        site.add(name)
    _break_hardening(site.machines["node-1"].root.path)
    site.start()
    site.until(lambda: site.annotation("node-1", "status") not in ("", "hardened"), "a node that is not hardened")
    site.require()
    site.until(site.all_rebooted, "both reboots")
    assert site.history.messages("node-1", "RebootFailed") == []
    assert site.annotation("node-1", "status") != "hardened"


def test_a_node_that_lost_its_hardening_by_the_reboot_is_kept(either: MakeSite) -> None:
    """Cordon and lock stay, the reason is reported, and the cycle ends well when the cause is gone."""
    site = either(verifyTimeout="3s")
    machine = site.add("node-1")
    machine.down_seconds = 600.0
    site.start()
    site.require()
    site.until(lambda: machine.reboots, "the machine down")
    _break_hardening(machine.root.path)
    machine.come_up()
    _reason_is(site, "VerificationFailed")
    assert (site.is_cordoned("node-1"), site.holder()) == (True, "node-1")
    (machine.root.path / MODPROBE_FILE / "x").unlink()
    (machine.root.path / MODPROBE_FILE).rmdir()
    site.until(site.all_rebooted, "the verified reboot")
