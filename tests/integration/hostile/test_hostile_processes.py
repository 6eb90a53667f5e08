"""Processes that call themselves the node's kubelet, k3s or kube-proxy: none of them is read, and no verdict changes.

Each case was seen to decide an audit, or to make the agent open a device, before host/identity.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import schema
from agent.controls import base
from agent.controls.kubelet import KubeletControl
from agent.controls.seccomp import SeccompControl
from agent.host import Completed, Host, HostExec, Program
from agent.host.identity import CONTROL_PLANE_PROGRAMS
from agent.model import Finding, Status
from tests.support.kubelets import CONFIG, HARDENED, QUIET, plant
from tests.support.node_tree import KUBELET_CGROUP, NodeTree

POD = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-{}.scope\n".format(
    "a" * 64
)
OTHER_MOUNTS = "mnt:[4026533001]"
REAL = ("/usr/bin/kubelet", f"--config={CONFIG}", "--root-dir=/data/kubelet")
Impostor = Callable[[NodeTree, Path], None]

_opened: list[str] | None = None


def _record(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(os.fsdecode(args[0]) if isinstance(args[0], str | bytes) else str(args[0]))


sys.addaudithook(_record)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The paths that this process opens meanwhile; those below a descriptor by their last parts."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be taken out again, so it is switched
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture
def node(tmp_path: Path) -> NodeTree:
    """A hardened node with its kubelet, and a user's and a container's root beside it."""
    tree = NodeTree(plant(tmp_path / "node", {CONFIG: HARDENED, "/var/lib/kubelet/ca.crt": "CA", "/etc/shadow": "x"}))
    tree.add("kubelet", *REAL)
    (tmp_path / "container").mkdir()
    return tree


def audit(root: Path) -> Mapping[str, Finding]:
    control = KubeletControl(schema.Kubelet(), Host(root), prober=QUIET)
    return {one.id.removeprefix("kubelet/"): one for one in control.judge(control.observe())}


def user(name: str, *argv: str, pid: int = 20) -> Impostor:
    """A process of uid 65534, on the node itself."""
    return lambda tree, _: tree.add(name, *argv, pid=pid, uid=65534, cgroup="0::/user.slice\n")


def container(name: str, *argv: str, cgroup: str = POD) -> Impostor:
    """Root, in a container."""

    def add(tree: NodeTree, root: Path) -> None:
        tree.add(name, *argv, pid=20, cgroup=cgroup, mounts=OTHER_MOUNTS, root=root)

    return add


BAD = ("--anonymous-auth=true", "--authorization-mode=AlwaysAllow", "--read-only-port=10255", "--root-dir=/etc")
IMPOSTORS: Mapping[str, Impostor] = {
    "kubelite of a user": user("kubelite", "kubelite", "--kubelet-args-file=/dev/hwrng"),
    "k3s of a user": user("k3s-server", "k3s", "server", "--config=/dev/loop-control"),
    "kubelet of a user": user("kubelet", "kubelet", *BAD),
    "kube-proxy of a user": user("kube-proxy", "kube-proxy", "--kubeconfig=/etc/shadow", "--metrics-bind-address=::"),
    "set-user-id program": lambda tree, _: tree.add("kubelet", "kubelet", *BAD, pid=20, uid=(1000, 0, 0, 0)),
    "root in a pod": container("kubelet", "kubelet", *BAD),
    "vcluster": container("k3s-server", "/bin/k3s", "server", "--kubelet-arg=anonymous-auth=true"),
    "kind": container(
        "kubelet", "/usr/bin/kubelet", *BAD,
        cgroup=f"0::/system.slice/docker-{'b' * 64}.scope/kubelet.slice/kubelet.service\n",
    ),
    "pod that mounts the node": lambda tree, _: tree.add("kubelet", "kubelet", *BAD, pid=20, cgroup=POD),
    "chroot": lambda tree, root: tree.add("kubelet", "kubelet", *BAD, pid=20, root=root),
    "own mount namespace": lambda tree, _: tree.add("kubelet", "kubelet", *BAD, pid=20, mounts=OTHER_MOUNTS),
    "program in memory": lambda tree, _: tree.add(
        "kubelet", "kubelet", *BAD, pid=20, executable="/memfd:kubelet (deleted)"
    ),
    "editor": lambda tree, _: tree.add("vi", "vi", "kubelet", "--anonymous-auth", pid=20),
    "k3s kubectl": lambda tree, _: tree.add("k3s", "k3s", "kubectl", "--config=/dev/loop-control", pid=20),
    "k3s's containerd": lambda tree, _: tree.add("containerd", "containerd", "-c", "x", pid=20, executable="/opt/k3s"),
    "unit with an option for a name": lambda tree, _: tree.add(
        "kubelet", "kubelet", *BAD, pid=20, mounts=OTHER_MOUNTS, cgroup="0::/user.slice/-Hroot@host.service\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSTORS)
def test_an_impostor_changes_no_verdict_and_is_not_read(node: NodeTree, tmp_path: Path, name: str) -> None:
    """The findings are those of the node alone; neither its arguments nor what they name is opened."""
    with opened() as before:
        alone = audit(node.root)
    assert (alone["process"].status, alone["4.2.1"].status) == (Status.PASS, Status.PASS)
    IMPOSTORS[name](node, tmp_path / "container")
    with opened() as paths:
        beside = audit(node.root)
    assert beside == alone
    named = [path for path in paths if path in ("/dev/hwrng", "hwrng", "loop-control", "shadow")]
    assert named == []
    in_another_role = name in ("k3s kubectl", "k3s's containerd")  # the node's own: its arguments may be read
    assert paths.count("cmdline") == before.count("cmdline") + in_another_role


@pytest.mark.parametrize("name", IMPOSTORS)
def test_an_impostor_without_a_kubelet_is_unknown_and_moves_no_profile(
    node: NodeTree, tmp_path: Path, name: str
) -> None:
    """While the kubelet restarts: its directory stays, the profiles in it stay, and nothing is audited in its place."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "p.json").write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}')
    control = SeccompControl(schema.Seccomp(profiles=str(profiles)), Host(node.root))
    base.apply(control)
    installed = node.root / "data/kubelet/seccomp/p.json"
    before = installed.read_bytes()
    node.remove(812)
    IMPOSTORS[name](node, tmp_path / "container")
    assert base.apply(control).changes == ()
    assert installed.read_bytes() == before
    assert not (node.root / "etc/seccomp").exists()
    found = audit(node.root)
    assert found["process"].status is Status.UNKNOWN
    assert "4.2.1" not in found


@pytest.mark.parametrize(
    "cgroup",
    [
        "0::/kubepods/besteffort/pod1/x",
        "0::/kubepods.slice/kubepods-pod1.slice/crio-1.scope",
        "0::/docker/1",
        "0::/machine.slice/libpod-1.scope/container",
        "0::/system.slice/kubelet.service/libpod-payload-1",
        "0::/machine.slice/machine-x.scope",
        "0::/lxc.payload.x",
        "0::/k8s.io/1",
        f"0::/x/{'0' * 64}",
        "0::/user.slice/../../kubepods/pod1",
        "4:memory:/kubepods/pod1/x\n1:name=systemd:/system.slice/kubelet.service",
        "",
    ],
)
def test_a_containers_cgroup_is_known_by_its_name(tmp_path: Path, cgroup: str) -> None:
    """Of every runtime, on both versions of cgroups; a process without any cgroup is none of the node's."""
    tree = NodeTree(tmp_path / "node")
    tree.add("kubelet", *REAL, cgroup=f"{cgroup}\n")
    assert Host(tree.root).processes().processes == ()


@pytest.mark.parametrize(
    ("cgroup", "is_own"),
    [
        ("/../../../system.slice/kubelet.service", True),
        ("/../../../kubelet.slice/kubelet.service", True),
        ("/", False),
        ("/../cri-containerd-2.scope", False),
        ("/../../kubepods-pod2.slice/cri-containerd-3.scope", False),
        ("/../../../kubepods.slice/x", False),
    ],
)
def test_cgroups_are_compared_with_that_of_pid_1(tmp_path: Path, cgroup: str, is_own: bool) -> None:
    """From inside a pod with a cgroup namespace of its own every path is relative to the agent's."""
    tree = NodeTree(tmp_path / "node")
    (tree.root / "proc/1/cgroup").write_text("0::/../../../init.scope\n")
    tree.add("kubelet", *REAL, cgroup=f"0::{cgroup}\n")
    assert bool(Host(tree.root).processes().processes) is is_own


@pytest.mark.parametrize(
    ("cgroup", "is_own"),
    [
        ("/../kubelet.service", True),
        ("/../system-kubelet.slice/kubelet.service", True),
        ("/../kubelet.service/sub", True),
        ("/../../user.slice/x", True),
        ("/kubelet.service", False),
        ("/", False),
        ("/..", False),
        ("/../kubelet", False),
        (f"/../docker-{'1' * 64}.scope/system.slice/kubelet.service", False),
        (f"/../nerdctl-{'1' * 64}.scope/kubelet.service", False),
        (f"/../{'1' * 64}/kubelet.service", False),
        ("/../kubelet.service/libpod-payload-1", False),
        ("/../systemd-nspawn@x.service/payload/system.slice/kubelet.service", False),
        ("/../x/../kubelet.service", False),
    ],
)
def test_services_beside_an_agent_that_docker_started_are_the_nodes(
    tmp_path: Path, cgroup: str, *, is_own: bool
) -> None:
    """`docker run` puts it into system.slice, beside them: what is above both is hidden from it."""
    tree = NodeTree(tmp_path / "node")
    (tree.root / "proc/1/cgroup").write_text("0::/../../init.scope\n")
    tree.add("kubelet", *REAL, cgroup=f"0::{cgroup}\n")
    assert bool(Host(tree.root).processes().processes) is is_own


def test_containers_beside_an_agent_that_docker_started_are_counted_alone(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path / "node")
    (tree.root / "proc/1/cgroup").write_text("0::/../../init.scope\n")
    for pid, path in enumerate(("/../kubelet.service", "/../systemd-udevd.service/udev", "/../docker.service",
                                f"/../docker-{'2' * 64}.scope", "/", "/../../user.slice/s.scope"), 20):  # fmt: skip
        tree.add("x", "x", pid=pid, cgroup=f"0::{path}\n")
    for process in tree.root.glob("proc/[0-9]*"):
        (process / "ns/net").symlink_to("net:[1]")
    assert sorted(one.pid for one in Host(tree.root).containers()) == [23, 24]


def test_static_pods_are_seen_from_a_pod_with_a_cgroup_namespace_of_its_own(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path / "node")
    (tree.root / "proc/1/cgroup").write_text("0::/../../../../init.scope\n")
    pods = {"0123456789abcdef" * 2: True, "01234567_89ab_4cde_8123_456789abcdef": False}
    for pid, uid in enumerate(pods, 30):
        scope = f"kubepods-burstable-pod{uid}.slice/cri-containerd-{'a' * 64}.scope"
        tree.add("etcd", "etcd", pid=pid, cgroup=f"0::/../../{scope}\n", mounts=OTHER_MOUNTS)
    found = Host(tree.root).processes(CONTROL_PLANE_PROGRAMS)
    assert [one.pid for one in found.processes] == [30]


def test_a_program_that_cannot_be_looked_at_is_unverified(tmp_path: Path) -> None:
    """It may be a kubelet of another name, and so may one whose file cannot be reached."""
    tree = NodeTree(tmp_path / "node")
    tree.add("sh", "sh", pid=20)
    (tree.root / "proc/20/exe").unlink()
    (tree.root / "proc/20/exe").write_text("")  # readlink fails, and not because it has ended
    assert "process 20 cannot be looked at" in Host(tree.root).processes().unverified
    tree.remove(20)
    (tree.root / "loop").symlink_to("loop")
    tree.add("kubelet", "kubelet", pid=21, executable="/loop/kubelet (deleted)")
    (tree.root / "proc/21/exe").unlink()
    (tree.root / "proc/21/exe").symlink_to("/loop/kubelet")
    found = Host(tree.root).processes()
    assert (found.processes, found.others, "/loop/kubelet" in found.unverified) == ((), 0, True)


def test_a_static_pod_that_starts_processes_without_end_is_read_to_a_limit(tmp_path: Path) -> None:
    """Its containers may name them as they like; the arguments of all of them would fill the agent's memory."""
    tree = NodeTree(tmp_path / "node")
    scope = f"kubepods-pod{'0123456789abcdef' * 2}.slice/cri-containerd-{'a' * 64}.scope"
    words = ["x" * 60_000]
    for pid in range(100, 400):
        tree.add("etcd", "etcd", *words, pid=pid, cgroup=f"0::/{scope}\n", mounts=OTHER_MOUNTS)
    found = Host(tree.root).processes(CONTROL_PLANE_PROGRAMS)
    assert sum(len(word) for one in found.processes for word in one.argv) < 4 << 20
    assert "more than" in found.unverified


@pytest.mark.parametrize("control_group", ["/system.slice/kubelet.service", "/a/system.slice/kubelet.service", ""])
def test_systemd_names_a_unit_beside_the_agent_at_its_depth(tmp_path: Path, control_group: str) -> None:
    class Systemd(Host):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            return Completed(tuple(argv), 0, f"ControlGroup={control_group}\n", "")

    tree = NodeTree(plant(tmp_path / "node", {"/usr/bin/systemctl": "", "/run/systemd/system/x": ""}))
    (tree.root / "proc/1/cgroup").write_text("0::/../../init.scope\n")
    tree.add("kubelet", *REAL, cgroup="0::/../kubelet.service\n", mounts=OTHER_MOUNTS)
    found = Systemd(tree.root, how=HostExec.NSENTER).processes()
    assert len(found.processes) == (control_group == "/system.slice/kubelet.service")


@pytest.mark.parametrize("control_group", ["/system.slice/kubelet.service", "/elsewhere/kubelet.service", ""])
def test_a_unit_may_have_mounts_of_its_own_when_systemd_names_it(tmp_path: Path, control_group: str) -> None:
    """PrivateTmp=, ProtectSystem=: the same root, other mounts. systemd is asked with `--` before the name."""
    asked: list[Sequence[str]] = []

    class Systemd(Host):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            asked.append(argv)
            return Completed(tuple(argv), 0, f"ControlGroup={control_group}\n", "")

    tree = NodeTree(plant(tmp_path / "node", {"/usr/bin/systemctl": "", "/run/systemd/system/x": ""}))
    tree.add("kubelet", *REAL, mounts=OTHER_MOUNTS)
    found = Systemd(tree.root, how=HostExec.NSENTER).processes()
    assert len(found.processes) == (control_group == "/system.slice/kubelet.service")
    assert [argv[-2:] for argv in asked] == [["--", "kubelet.service"]]


def test_an_upgraded_program_is_still_the_kubelet(tmp_path: Path) -> None:
    """The package was replaced and the kubelet not restarted: its file is deleted."""
    tree = NodeTree(tmp_path / "node")
    tree.add("kubelet", *REAL, executable="/usr/bin/kubelet (deleted)")
    assert [one.program for one in Host(tree.root).processes().processes] == [Program.KUBELET]


def test_a_wrapper_and_its_child_are_one_kubelet(node: NodeTree) -> None:
    """A shell script called kubelet that does not exec, even with a process between them: the child is the kubelet."""
    node.remove(812)
    node.add("kubelet", "/bin/sh", "/opt/bin/kubelet", "--read-only-port=10255", pid=800, executable="/bin/sh")
    node.add("tee", "tee", "/var/log/kubelet.log", pid=805, parent=800)
    node.add("kubelet", *REAL, pid=812, parent=805)
    found = audit(node.root)
    assert found["process"].observed.startswith("kubelet (pid 812), since")
    assert found["4.2.4"].status is Status.PASS


def test_two_kubelets_of_the_node_are_both_judged(node: NodeTree) -> None:
    """No silent choice: reported, and the worse answer counts."""
    node.add("kubelet", "/usr/bin/kubelet", "--read-only-port=10255", pid=20, started=10)
    found = audit(node.root)
    assert "2 kubelets" in found["process"].observed
    assert found["4.2.4"].observed.startswith("pid 20: ")


def test_a_kube_proxy_with_a_lower_pid_hides_none(node: NodeTree) -> None:
    """The node's own one is judged; and of two of its own the worse."""
    node.add("kube-proxy", "kube-proxy", "--metrics-bind-address=0.0.0.0", pid=900)
    user("kube-proxy", "kube-proxy", "--metrics-bind-address=127.0.0.1", pid=2)(node, node.root)
    node.add("kube-proxy", "kube-proxy", "--metrics-bind-address=127.0.0.1", pid=30)
    assert audit(node.root)["4.3.1"].status is Status.FAIL


@pytest.mark.parametrize(
    ("sockets", "status"),
    [
        ("0100007F:2809 00000000:0000 0A 0:0 0:0 0 0", Status.PASS),
        ("00000000:2809 00000000:0000 0A 0:0 0:0 0 0", Status.FAIL),
        ("00000000:2809 00000000:0000 0A 0:0 0:0 0 65534", Status.NOT_APPLICABLE),
        ("00000000:2710 00000000:0000 0A 0:0 0:0 0 0", Status.NOT_APPLICABLE),
        ("00000000:2809 00000000:0000 01 0:0 0:0 0 0", Status.NOT_APPLICABLE),
        ("zz:2809 00000000:0000 0A 0:0 0:0 0 0", Status.UNKNOWN),
    ],
)
def test_kube_proxy_in_a_container_is_judged_by_what_the_kernel_says(
    node: NodeTree, sockets: str, status: Status
) -> None:
    """kubeadm's kube-proxy is a pod: its arguments are any container's, its open port is a fact."""
    plant(node.root, {"/proc/1/net/tcp": f"  sl  local_address\n   0: {sockets} 0 1\n"})
    container("kube-proxy", "kube-proxy", "--metrics-bind-address=0.0.0.0")(node, node.root)
    assert audit(node.root)["4.3.1"].status is status


def test_more_sockets_than_are_read_hide_no_kube_proxy(node: NodeTree) -> None:
    """A pod on the node's network may listen on as many ports as it likes: that none was seen means nothing then."""
    sockets = "".join(f"   {at}: 0100007F:{at:04X} 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n" for at in range(20000, 25000))
    proxy = "   1: 00000000:2809 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n"
    plant(node.root, {"/proc/1/net/tcp": f"  sl  local_address\n{sockets}{proxy}"})
    found = audit(node.root)["4.3.1"]
    assert (found.status, "more than 4096 listening sockets" in found.observed) == (Status.UNKNOWN, True)


def test_an_identity_that_cannot_be_checked_is_unknown(node: NodeTree) -> None:
    """Without the right to look at PID 1's namespaces nothing qualifies, and the finding says what is missing."""
    (node.root / "proc/1/ns/mnt").unlink()
    found = audit(node.root)["process"]
    assert found.status is Status.UNKNOWN
    assert "run as root" in found.observed


GOOD = {
    "uid": 0,
    "cgroup": KUBELET_CGROUP,
    "mounts": "mnt:[4026531841]",
    "root": None,
    "executable": "/usr/bin/kubelet",
}
OTHERS: Mapping[str, Sequence[object]] = {
    "uid": [1, 65534, (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0)],
    "cgroup": [POD, "0::/docker/x\n", "0::/../x\n", "\n", "x\n", "0::/machine.slice\n"],
    "mounts": ["mnt:[1]", "mnt:[]", "x"],
    "root": [Path("/"), Path("/nowhere")],
    "executable": ["/memfd:kubelet", "(unreachable)/x", "relative"],
}


@given(st.data())
def test_one_wrong_property_is_enough(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any mixture: the process counts exactly when every property is the node's."""
    tree = NodeTree(tmp_path_factory.mktemp("node") / "root")
    wrong = data.draw(st.sets(st.sampled_from(sorted(OTHERS))))
    values: dict[str, Any] = {
        key: data.draw(st.sampled_from(OTHERS[key])) if key in wrong else good for key, good in GOOD.items()
    }
    tree.add("kubelet", "kubelet", **values)
    assert bool(Host(tree.root).processes().processes) is not bool(wrong)
