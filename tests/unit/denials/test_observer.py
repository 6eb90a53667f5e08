"""The observer: what the Node shows for records, for none, and for lost ones; on a node's tree, without a kernel."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.annotations import DENIALS, RECORDINGS
from agent.config.choices import DenialsMode
from agent.config.node_sections import Denials
from agent.denials import attribution, document
from agent.denials.announcer import Announcer
from agent.denials.attribution import NODE, ContainerNames, Names, Place, Processes, place_of
from agent.denials.document import LIMIT_BYTES, Reason
from agent.denials.netlink import EXEC, FORK, AuditSocket, AuditState, AuditUnavailable, ProcessEvents
from agent.denials.observer import Observer, Sources
from agent.denials.recording import PATH, Recorder
from agent.denials.records import APPARMOR, SECCOMP, Kind, Outcome, Record
from agent.denials.table import ROWS, ROWS_OF_A_POD, DenialTable, Key
from agent.host import Host
from agent.report.events import Regarding
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.report.publisher import NodePublisher
from tests.unit.denials import samples

UID, ID = "11111111-2222-3333-4444-555555555555", "ab" * 32
PLACE = Place(UID, ID)
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (f"0::{SLICE}/cri-containerd-{ID}.scope", PLACE),
        (f"0::{SLICE}/crio-{ID}.scope/container", PLACE),
        (f"0::/../..{SLICE}/cri-containerd-{ID}.scope", PLACE),
        (f"0::/kubelet.slice/kubelet{SLICE.replace('/', '-', 1)}/cri-containerd-{ID}.scope", PLACE),
        (f"0::/../../pod{UID}/{ID}", PLACE),
        (f"0::/kubepods/besteffort/pod{UID}/{ID}", PLACE),
        (f"4:memory:/kubepods/pod{'0' * 32}/{ID}\n0::/\n", Place("0" * 32, ID)),
        (f"0::{SLICE}/crio-conmon-{ID}.scope", NODE),
        (f"0::{SLICE}", NODE),
        ("0::/system.slice/containerd.service", NODE),
        (f"0::{SLICE}/cri-containerd-{ID}.scope/kubepods/pod{'0' * 32}/{'c' * 64}", PLACE),
        ("", NODE),
    ],
)
def test_places_in_every_form_of_cgroup(path: str, place: Place) -> None:
    """systemd's and cgroupfs' names, from inside a cgroup namespace, below --cgroup-root; the container's own do not
    count."""
    assert place_of(path.encode()) == place


class Events(ProcessEvents):
    """Process events that a test hands out."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, int, int]] = []
        self.is_closed = False

    def fileno(self) -> int:
        """None of the kernel's."""
        return -1

    def drain(self) -> Iterator[tuple[int, int, int]]:
        """What is pending."""
        taken, self.pending = self.pending, []
        return iter(taken)

    def close(self) -> None:
        """Remembers it."""
        self.is_closed = True


class Clock:
    """Both clocks, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A tree with a kernel: process 9 is in the container, process 1 is the node's."""
    (tmp_path / "proc/sys/kernel/seccomp").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/seccomp/actions_logged").write_text("kill_process kill_thread trap errno trace log\n")
    process(tmp_path, 1, "0::/init.scope\n")
    process(tmp_path, 9, f"0::{SLICE}/cri-containerd-{ID}.scope\n")
    (tmp_path / f"var/log/containers/web-0_shop_nginx-{ID}.log").parent.mkdir(parents=True)
    (tmp_path / f"var/log/containers/web-0_shop_nginx-{ID}.log").touch()
    return tmp_path


def process(root: Path, pid: int, cgroup: str) -> None:
    """One that runs, in that cgroup."""
    (root / f"proc/{pid}").mkdir(parents=True)
    (root / f"proc/{pid}/cgroup").write_text(cgroup)


def end(root: Path, pid: int) -> None:
    """It ends."""
    (root / f"proc/{pid}/cgroup").unlink()


# -- attribution -------------------------------------------------------------------------------------------------------


def test_a_profile_attributes_nothing_where_processes_are_too_many(
    node: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ones that were not read may be of another container under the same profile."""
    (node / "proc/9/attr").mkdir()
    (node / "proc/9/attr/current").write_text("web (enforce)\n")
    monkeypatch.setattr(attribution, "_PROCESSES_READ", 2)
    assert Processes(f"{node}/proc", clock, Events).of(77, "web") == PLACE
    process(node, 10, f"0::{SLICE}/cri-containerd-{ID}.scope\n")
    assert Processes(f"{node}/proc", clock, Events).of(77, "web").uid == ""


def test_a_process_that_ended_is_its_parents(node: Path, clock: Clock) -> None:
    """After the first miss the kernel's events are followed; a program that started was read while it lived."""
    events = Events()
    found = Processes(f"{node}/proc", clock, lambda: events)
    assert found.of(77).uid == ""
    assert found.missed == 1
    events.pending = [(FORK, 9, 78), (FORK, 78, 79), (EXEC, 9, 0)]
    assert (found.of(79), found.missed) == (PLACE, 1)
    process(node, 80, f"0::{SLICE}/cri-containerd-{ID}.scope\n")
    events.pending = [(FORK, 1, 80), (EXEC, 80, 0)]
    found.drain()
    end(node, 80)
    clock.now += 30
    assert found.of(80) == PLACE
    found.unfollow()
    assert events.is_closed


def test_nothing_is_inherited_from_a_process_of_the_node(node: Path, clock: Clock) -> None:
    """A runtime's first process is forked in the host's cgroup: its child may be a container's."""
    events = Events()
    found = Processes(f"{node}/proc", clock, lambda: events)
    found.follow()
    events.pending = [(FORK, 1, 81)]
    assert (found.of(81).uid, found.missed) == ("", 1)


def test_a_process_that_ended_is_the_only_containers_under_its_profile(node: Path, clock: Clock) -> None:
    """A refused exec's child is gone at once. With two containers under the profile it stays unknown."""
    for pid in (1, 9):
        (node / f"proc/{pid}/attr").mkdir()
        (node / f"proc/{pid}/attr/current").write_text("unconfined\n" if pid == 1 else "k8s-web (enforce)\n")
    found = Processes(f"{node}/proc", clock, Events)
    assert (found.of(77, "k8s-web"), found.of(78, "k8s-web").uid, found.missed) == (PLACE, "", 1)
    other = ID.replace("ab", "cd")
    process(node, 10, f"0::{SLICE}/cri-containerd-{other}.scope\n")
    (node / "proc/10/attr").mkdir()
    (node / "proc/10/attr/current").write_text("k8s-web (enforce)\n")
    clock.now += 20
    assert found.of(79, "k8s-web").uid == ""


def test_a_number_that_was_given_away_again_is_read_again(node: Path, clock: Clock) -> None:
    """A fork forgets what was known of the number; time does too."""
    found = Processes(f"{node}/proc", clock, Events)
    assert found.of(9) == PLACE
    (node / "proc/9/cgroup").write_text("0::/init.scope\n")
    assert found.of(9) == PLACE
    clock.now += 1.5
    assert found.of(9) == NODE


def test_names_come_from_the_kubelets_folders(node: Path, clock: Clock) -> None:
    """The link of a container's log; without one the pod's folder; else nothing, and it is not read each time."""
    names = ContainerNames(Host(node), clock)
    assert names.of(PLACE) == Names("shop", "web-0", "nginx")
    other = Place("99999999-2222-3333-4444-555555555555", "cd" * 32)
    (node / f"var/log/pods/jobs_batch-1_{other.uid}").mkdir(parents=True)
    assert names.of(other) == Names()
    clock.now += 3
    assert names.of(other) == Names("jobs", "batch-1", "")


# -- rows --------------------------------------------------------------------------------------------------------------


def key(pod: int, number: int) -> Key:
    """One of many."""
    return Key(Place(f"pod-{pod}", ID), "p", Kind.SECCOMP, f"call-{number}", "", Outcome.REFUSED)


def test_rows_are_bounded_and_what_goes_is_counted() -> None:
    """A pod that is refused ever new things pushes out its own rows and nobody else's."""
    table = DenialTable()
    table.add(key(0, 0), 1.0)
    for number in range(5000):
        table.add(key(1, number), 2.0 + number)
    rows = list(table.newest_first())
    assert (len(rows), table.other) == (ROWS_OF_A_POD + 1, 5000 - ROWS_OF_A_POD)
    assert rows[-1][0] == key(0, 0)
    for pod in range(2, 1000):
        table.add(key(pod, 0), 10_000.0 + pod)
    assert len(list(table.newest_first())) == ROWS


def test_the_annotation_is_bounded() -> None:
    """What does not fit is counted."""
    row: list[str | int] = ["n" * 63, "p" * 63, UID, *["x" * 60] * 7, 10**9, 10**10, 10**10]
    text = document.encode(document.Summary(document.State.SEEING), [row] * 300)
    assert len(text) <= LIMIT_BYTES
    shown = json.loads(text)
    assert shown["more"] + len(shown["rows"]) == 300


# -- the observer ------------------------------------------------------------------------------------------------------


class Audit(AuditSocket):
    """An audit socket that a test fills; an OSError is raised in its turn."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, bytes] | OSError] = []

    def fileno(self) -> int:
        """Always readable."""
        return self._ready

    def read(self) -> tuple[int, bytes] | None:
        """The next."""
        if not self.pending:
            return None
        first = self.pending.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    def close(self) -> None:
        """Nothing to close."""

    _ready = -1


class Shown:
    """What an observer reported: stands for the publisher, and has its metrics."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.denials: dict[str, Any] = {}
        self.recordings: dict[str, Any] = {}
        self.writes = 0
        self.events: list[tuple[str, str, Regarding | None]] = []

    def offer(self, part: str, view: NodeView) -> None:
        """As the Node would."""
        assert part == "denials"
        self.denials = json.loads(view.annotations[DENIALS] or "")
        self.recordings = json.loads(view.annotations[RECORDINGS] or "{}")
        self.writes += 1

    def event(self, reason: str, message: str, regarding: Regarding | None = None) -> None:
        """As an Event would."""
        self.events.append((reason, message, regarding))

    @property
    def counts(self) -> dict[tuple[str, ...], float]:
        """By kind, profile and namespace."""
        (family,) = self.metrics.denials.collect()
        some = (sample for sample in family.samples if sample.name.endswith("_total"))
        return {
            tuple(sample.labels[name] for name in ("kind", "profile", "namespace")): sample.value for sample in some
        }

    @property
    def lost(self) -> float | None:
        return self._value("denials_lost_total")

    @property
    def unattributed(self) -> float | None:
        return self._value("denials_unattributed_total")

    @property
    def seeing(self) -> bool | None:
        """None until it is known."""
        is_known = self.denials.get("state", "starting") != "starting"
        return bool(self._value("denials_visible")) if is_known else None

    def _value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"node_hardening_{name}")


class Scene:
    """An observer on a node, one turn at a time; time moves by itself where it would wait."""

    def __init__(self, node: Path, clock: Clock, state: AuditState | None = None, **policy: bool) -> None:
        self.audit, self.shown, self.clock, self.node = Audit(), Shown(), clock, node
        self.canaries = 0
        self.observer = Observer(
            Host(node), Denials(mode=DenialsMode.OBSERVE, **policy), cast("NodePublisher", self.shown),
            self.shown.metrics, sources=Sources(lambda: self.audit, Events, lambda: state), clock=clock,
            wall=lambda: 1e9,
        )  # fmt: skip
        self.observer._own_record.send = self._send  # type: ignore[method-assign]
        self.observer._wait = lambda: None  # type: ignore[method-assign]

    def _send(self) -> None:
        self.canaries += 1
        self.observer._own_record._name = "nha-0"

    def own_record(self, serial: int) -> tuple[int, bytes]:
        """The record of the agent's own."""
        text = samples.SECCOMP_LOG.replace(b'comm="sh"', b'comm="nha-0"').replace(b"syscall=59", b"syscall=16383")
        return SECCOMP, text.replace(b":30574)", b":%d)" % serial)

    def turns(self, *records: tuple[int, bytes] | OSError, seconds: float = 20.0) -> dict[str, Any]:
        """These records, then so much time; what the Node shows afterwards."""
        self.audit.pending += records
        self.observer.turn()
        self.clock.now += seconds
        self.observer.turn()
        return self.shown.denials


def test_a_refused_write_is_a_row_with_names_and_without_the_file(node: Path, clock: Clock) -> None:
    """And with the first two components of its path where the policy asks for them."""
    scene = Scene(node, clock)
    seen = scene.turns(scene.own_record(1), (APPARMOR, samples.FILE.replace(b":30577)", b":2)")))
    assert (seen["state"], seen["received"], seen["lost"], scene.shown.seeing) == ("seeing", 1, 0, True)
    (row,) = seen["rows"]
    assert row[:10] == ["shop", "web-0", UID, "nginx", "k8s-deny", "apparmor", "mknod", "c", "refused", ""]
    assert scene.shown.counts == {("apparmor", "k8s-deny", "shop"): 1}
    named = Scene(node, clock, file_names=True)
    assert named.turns(named.own_record(1), (APPARMOR, samples.FILE))["rows"][0][9] == "/etc/ssl"


def test_without_its_own_record_it_does_not_say_none(node: Path, clock: Clock) -> None:
    """Starting, then blind; and seeing again at the next check."""
    scene = Scene(node, clock)
    seen = scene.turns()
    assert (seen["state"], seen["rows"], scene.shown.seeing) == ("blind", [], False)
    scene.observer.check()
    assert scene.turns(scene.own_record(5))["state"] == "seeing"


def test_a_test_record_that_comes_too_late_is_no_denial(node: Path, clock: Clock) -> None:
    """Nor is that of another agent on this node, while one replaces the other."""
    scene = Scene(node, clock)
    number, text = scene.own_record(1)
    seen = scene.turns((number, text.replace(b"nha-0", b"nha-f")), scene.own_record(2))
    assert (seen["state"], seen["received"], seen["unattributed"], seen["rows"]) == ("seeing", 0, 0, [])


@pytest.mark.parametrize(
    ("actions", "state", "reason"),
    [
        ("errno trap\n", None, Reason.ACTIONS_LOGGED),
        ("log\n", AuditState(0, 0, frozenset({SECCOMP})), Reason.EXCLUDED),
        ("log\n", None, Reason.NO_RECORD),
    ],
)
def test_why_nothing_arrives(node: Path, clock: Clock, actions: str, state: AuditState | None, reason: Reason) -> None:
    """Each with its own word."""
    (node / "proc/1/ns").mkdir()
    (node / "proc/1/ns/net").symlink_to("/proc/self/ns/net")
    (node / "proc/sys/kernel/seccomp/actions_logged").write_text(actions)
    assert Scene(node, clock, state).turns()["reason"] == reason.value


def test_actions_that_cannot_be_read_are_not_all_actions(node: Path, clock: Clock) -> None:
    """Records arrive, and whether all of them do is unknown; a kernel without the sysctl leaves out none."""
    file = node / "proc/sys/kernel/seccomp/actions_logged"
    file.unlink()
    scene = Scene(node, clock)
    assert scene.turns(scene.own_record(1))["notes"] == []
    file.mkdir()
    scene = Scene(node, clock)
    assert scene.turns(scene.own_record(1))["notes"] == ["actions-unknown"]


def test_another_network_namespace_is_named(node: Path, clock: Clock) -> None:
    (node / "proc/1/ns").mkdir()
    (node / "proc/1/ns/net").touch()
    assert Scene(node, clock).turns()["reason"] == "network-namespace"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(errno.EPROTONOSUPPORT, "audit-off"), (errno.EPERM, "not-permitted"), (errno.EMFILE, "no-record")],
)
def test_a_socket_that_does_not_open_is_named(node: Path, clock: Clock, error: int, reason: str) -> None:
    """audit=0 on the kernel's command line, and a missing capability."""

    def refuse() -> AuditSocket:
        raise AuditUnavailable(OSError(error, "no"))

    scene = Scene(node, clock)
    scene.observer._sources = Sources(refuse, Events, lambda: None)
    assert (scene.turns()["state"], scene.shown.denials["reason"]) == ("blind", reason)


def test_what_limits_it_is_noted(node: Path, clock: Clock) -> None:
    """auditd, a rate limit, a rule for AppArmor's records alone."""
    scene = Scene(node, clock, AuditState(400, 10, frozenset({APPARMOR})))
    assert scene.turns(scene.own_record(1))["notes"] == ["auditd", "rate-limit", "excluded-apparmor"]


def test_an_overflow_is_settled_by_a_record_of_its_own(node: Path, clock: Clock) -> None:
    """What was lost last shows only in the next number."""
    scene = Scene(node, clock)
    log = samples.SECCOMP_LOG.replace(b"pid=27324", b"pid=9")
    scene.turns(scene.own_record(1), (SECCOMP, log.replace(b":30574)", b":2)")), OSError(errno.ENOBUFS, "full"))
    assert scene.canaries == 1
    scene.observer.turn()
    assert scene.canaries == 2
    seen = scene.turns(scene.own_record(103), seconds=20.0)
    assert (seen["received"], seen["lost"], scene.shown.lost, seen["state"]) == (1, 100, 100, "seeing")


def test_a_container_that_is_named_after_its_record_has_a_name_at_once(node: Path, clock: Clock) -> None:
    """A row of counts alone is not written again for five minutes, so names are looked for when rows are written."""
    log = node / f"var/log/containers/web-0_shop_nginx-{ID}.log"
    scene = Scene(node, clock)
    log.unlink()
    scene.turns(scene.own_record(1))
    scene.audit.pending.append((APPARMOR, samples.FILE.replace(b":30577)", b":2)")))
    scene.observer.turn()
    log.touch()
    (row,) = scene.turns(seconds=1.0)["rows"]
    assert row[:4] == ["shop", "web-0", UID, "nginx"]


def test_counts_alone_are_written_rarely(node: Path, clock: Clock) -> None:
    """A container that is refused all day costs a write in five minutes, and nothing new costs none."""
    scene = Scene(node, clock)
    write = (APPARMOR, samples.FILE)
    scene.turns(scene.own_record(30576), write)
    before = scene.shown.writes
    for _ in range(105):
        scene.turns(write, seconds=3.0)
    assert scene.shown.writes - before == 1
    for _ in range(100):
        scene.turns(seconds=60.0)
    assert scene.shown.writes - before == 2


def test_metric_labels_are_bounded(node: Path, clock: Clock) -> None:
    """A node with ever new profiles counts the rest as other."""
    scene = Scene(node, clock)
    for number in range(300):
        scene.turns((APPARMOR, samples.FILE.replace(b"k8s-deny", b"k8s-%d" % number)), seconds=0.0)
    assert len(scene.shown.counts) == 65
    assert scene.shown.counts["apparmor", "other", "other"] == 236


def test_an_event_for_the_first_of_a_row_then_every_ten_minutes(node: Path, clock: Clock) -> None:
    """Of the pod, with what was refused; none in complain mode, and none unless the policy has them."""
    scene = Scene(node, clock, events=True)
    for _ in range(100):
        scene.turns((APPARMOR, samples.FILE), (APPARMOR, samples.COMPLAIN), seconds=9.0)
    message = "refused by profile k8s-deny: mknod c of container nginx"
    assert scene.shown.events == [("ProfileDenied", message, Regarding("Pod", "web-0", UID, "shop"))] * 2
    quiet = Scene(node, clock)
    quiet.turns((APPARMOR, samples.FILE))
    assert quiet.shown.events == []


def test_events_of_a_node_are_bounded() -> None:
    """Sixty an hour, whatever there is."""
    announcer = Announcer()
    due = [announcer.is_due(key(second, second), float(second)) for second in range(7200)]
    assert (sum(due[:3600]), sum(due)) == (60, 120)


# -- recordings --------------------------------------------------------------------------------------------------------


def call(number: int) -> Record:
    """One that was logged."""
    return Record(Kind.SECCOMP, 9, "sh", "", "", "", Outcome.LOGGED, "", 0xC000003E, number)


def test_a_logged_call_is_recorded_and_no_denial(node: Path, clock: Clock) -> None:
    """One bit for each syscall, whoever made it in the container."""
    scene = Scene(node, clock)
    log = samples.SECCOMP_LOG.replace(b"pid=27324", b"pid=9")
    scene.turns(scene.own_record(1), (SECCOMP, log), (SECCOMP, log.replace(b"syscall=59", b"syscall=2")))
    assert scene.shown.denials["rows"] == []
    (row,) = scene.shown.recordings["recordings"]
    assert row[:8] == ["shop", "web-0", UID, "nginx", ID[:12], "c000003e", f"{1 << 59 | 1 << 2:x}", 2]


def test_a_checkpoint_is_continued_after_a_restart(node: Path) -> None:
    """SIGKILL loses no name that was written."""
    first = Recorder(Host(node))
    first.add(PLACE, Names("shop", "web-0", "nginx"), call(59), 1.0)
    first.save(7, 1.0)
    again = Recorder(Host(node))
    assert not again.add(PLACE, Names("shop", "web-0", "nginx"), call(59), 1.0)
    assert again.add(PLACE, Names("shop", "web-0", "nginx"), call(60), 1.0)
    (row,) = json.loads(again.document())["recordings"]
    assert (int(row[6], 16), row[7]) == (1 << 59 | 1 << 60, 3)


def test_what_was_lost_is_in_the_checkpoint_too(node: Path) -> None:
    """Although no call came since the one before."""
    names = Names("shop", "web-0", "nginx")
    first = Recorder(Host(node))
    first.add(PLACE, names, call(59), 1000.0)
    first.save(7, 1000.0)
    first.lost(12, 1100.0)
    first.save(20, 1100.0)
    assert [row[8] for row in json.loads(Recorder(Host(node)).document())["recordings"]] == [12]


def test_a_checkpoint_that_the_disk_did_not_take_is_written_later(node: Path) -> None:
    """Although no new call comes meanwhile."""
    path = node / PATH.lstrip("/")
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.write_text("in the way")
    recorder = Recorder(Host(node))
    recorder.add(PLACE, Names("shop", "web-0", "nginx"), call(59), 1000.0)
    recorder.save(7, 1000.0)
    path.parent.unlink()
    recorder.save(7, 1300.0)
    assert path.is_file()


@pytest.mark.parametrize(("boot", "serial", "lost"), [("a", 8, 0), ("a", 50, 42), ("b", 50, 0)])
def test_what_was_made_while_no_agent_read_is_lost(node: Path, boot: str, serial: int, lost: int) -> None:
    """By the kernel's numbers of the same boot, for what still ran; a container that was done before has all of it."""
    boot_id = node / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text(f"{'a' * 8}-0000-0000-0000-{'0' * 12}\n")
    first = Recorder(Host(node))
    first.add(PLACE, Names("shop", "web-0", "nginx"), call(59), 1000.0)
    first.add(Place(UID, "c" * 64), Names("shop", "web-0", "done"), call(59), 10.0)
    first.save(7, 1010.0, is_last=True)
    boot_id.write_text(f"{boot * 8}-0000-0000-0000-{'0' * 12}\n")
    again = Recorder(Host(node))
    again.resume(serial)
    assert {row[3]: row[8] for row in json.loads(again.document())["recordings"]} == {"nginx": lost, "done": 0}


def test_a_logged_call_of_an_unknown_container_makes_recordings_incomplete(node: Path, clock: Clock) -> None:
    """It may have been any container's; the profile must not claim that nothing was lost."""
    scene = Scene(node, clock)
    log = samples.SECCOMP_LOG.replace(b"pid=27324", b"pid=9")
    scene.observer._wall = lambda: 1795877818.0
    scene.turns(scene.own_record(1), (SECCOMP, log.replace(b":30574)", b":2)")))
    assert [row[8] for row in scene.shown.recordings["recordings"]] == [0]
    scene.turns((SECCOMP, samples.SECCOMP_LOG.replace(b":30574)", b":3)")), seconds=400.0)
    assert scene.shown.unattributed == 1
    assert [row[8] for row in scene.shown.recordings["recordings"]] == [1]


_INFINITE = '{"recordings": [["n", "p", "u", "c", "i", "c000003e", "1", 1e999, 0, 0, 0]]}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"recordings": [[1]]}', '{"recordings": 7}', '{"recordings": [7]}', _INFINITE]
)
def test_a_broken_checkpoint_costs_what_it_held(node: Path, text: str) -> None:
    (node / PATH.lstrip("/")).parent.mkdir(parents=True)
    (node / PATH.lstrip("/")).write_text(text)
    assert Recorder(Host(node)).document() == ""


def test_recordings_are_bounded(node: Path) -> None:
    """The oldest goes; numbers that no table has are left out."""
    recorder = Recorder(Host(node))
    for number in range(500):
        recorder.add(Place(UID, f"{number:064x}"[::-1]), Names(), call(1), float(number))
    document = json.loads(recorder.document())
    assert document["more"] + len(document["recordings"]) == 64
    assert document["recordings"][0][-1] == 499
    assert not recorder.add(PLACE, Names(), call(16383), 1.0)
