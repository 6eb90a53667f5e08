"""What pods reach of a metadata service: real network namespaces, real nftables, a real server behind the node.

    pod-1, pod-2 -- node (forwards) -- meta: 169.254.169.254, and other ports and addresses that must stay reachable

Pods are processes in a cgroup that is called as the kubelet calls them, so that the node is surveyed as on a cluster.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from agent.config.choices import Mode
from agent.config.node_sections import MetadataAccess
from agent.controls import base
from agent.controls.metadata_access import MetadataAccessControl
from agent.host import Host, netns
from agent.host.netns import Result
from agent.model import Finding, Severity, Status

TOOLS = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
CGROUPS = next((path for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if Path(path, "cgroup.procs").exists()), "")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(bool(TOOLS), reason=f"needs {', '.join(TOOLS)}: Debian's packages iproute2 and nftables"),
    pytest.mark.skipif(not CGROUPS or not os.access(CGROUPS, os.W_OK), reason="needs a cgroup hierarchy to write to"),
]

Answer = TypeVar("Answer")
AWS = {"sys_vendor": "Amazon EC2"}
IMDS = "169.254.169.254"
SERVER = """
import http.server, sys, threading
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Handler(http.server.BaseHTTPRequestHandler):
    def version_string(self): return {"interceptor": "kiam"}.get(kind, "EC2ws")
    def log_message(self, *a): pass
    def do_GET(self):
        self.send_response(401 if kind.startswith("v2") else 200); self.end_headers(); self.wfile.write(b"x" * 65536)
    def do_PUT(self):
        if kind == "v2-hop1": threading.Event().wait(30)
        self.send_response(200); self.end_headers(); self.wfile.write(b"token")
server = http.server.ThreadingHTTPServer((address, port), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=300)


def remove_cgroup(folder: Path) -> None:
    """Once the kernel has let go of its last process."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.01)
    folder.rmdir()


class Net:
    """The namespaces of one test, all of them gone afterwards."""

    def __init__(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        self.tmp_path, self.stack = tmp_path, stack
        self.prefix = f"nh{os.getpid()}"
        self.root = tmp_path / "root"
        (self.root / "sys/class/dmi/id").mkdir(parents=True)
        self.cloud(AWS)
        for name in ("node", "meta", "pod1", "pod2"):
            run("ip", "netns", "add", f"{self.prefix}{name}")
            stack.callback(run, "ip", "netns", "del", f"{self.prefix}{name}")
            self.ip(name, "link", "set", "lo", "up")
        for number, name in enumerate(("meta", "pod1", "pod2"), 1):
            self.ip(
                "node", "link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", f"{self.prefix}{name}"
            )
            self.ip("node", "addr", "add", f"10.0.{number}.1/24", "dev", f"to-{name}")
            self.ip("node", "link", "set", f"to-{name}", "up")
            self.ip(name, "addr", "add", f"10.0.{number}.2/24", "dev", "eth0")
            self.ip(name, "link", "set", "eth0", "up")
            self.ip(name, "route", "add", "default", "via", f"10.0.{number}.1")
        self.ip("meta", "addr", "add", f"{IMDS}/32", "dev", "eth0")
        self.ip("node", "route", "add", f"{IMDS}/32", "via", "10.0.1.2")
        self.inside("node", lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        self.cgroups: list[Path] = []
        stack.callback(lambda: list(map(remove_cgroup, self.cgroups)))  # after PID 1 has ended all
        self.boot()

    def boot(self) -> None:
        """The node's own PID 1 in the node's network, and the procfs that shows it and the pods."""
        child = self.spawn(
            "node", "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 600"
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        init = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0]
        self.pids = f"--pid=/proc/{init}/ns/pid"
        proc = self.root / "proc"
        proc.mkdir()
        run("nsenter", self.pids, "mount", "-t", "proc", "proc", str(proc))
        self.stack.callback(run, "umount", "--lazy", str(proc))

    def ip(self, name: str, *argv: str) -> None:
        run("ip", "-n", f"{self.prefix}{name}", *argv)

    def nft(self, script: str) -> None:
        subprocess.run(
            ["ip", "netns", "exec", f"{self.prefix}node", "nft", "-f", "-"],
            input=script.encode(),
            check=True,
            timeout=300,
        )

    def cloud(self, values: Mapping[str, str]) -> None:
        for path in (self.root / "sys/class/dmi/id").iterdir():
            path.unlink()
        for name, value in values.items():
            (self.root / "sys/class/dmi/id" / name).write_text(f"{value}\n")

    def spawn(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        return self.start("ip", "netns", "exec", f"{self.prefix}{name}", *argv)

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

        def end() -> None:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

        self.stack.callback(end)
        return child

    def serve(self, address: str = IMDS, port: int = 80, kind: str = "v1", at: str = "meta") -> None:
        child = self.spawn(at, sys.executable, "-c", SERVER, address, str(port), kind)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"

    def pod(self, name: str) -> None:
        """A process in the pod's network, in a cgroup of its own."""
        folder = Path(CGROUPS) / f"kubepods-{self.prefix}{name}"
        folder.mkdir()
        self.cgroups.append(folder)
        inside = f"ip netns exec {self.prefix}{name} sh -c 'echo ready; exec sleep 600'"
        child = self.start("nsenter", self.pids, "sh", "-c", f"echo 0 > {folder}/cgroup.procs; exec {inside}")
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"

    def inside(self, name: str, call: Callable[[], Answer]) -> Answer:
        """Runs in a thread that is in the namespace; threads and commands that it starts are too."""
        found: list[Answer] = []

        def enter() -> None:
            with open(f"/run/netns/{self.prefix}{name}", "rb") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.setns(namespace.fileno(), 0x40000000) == 0
            found.append(call())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return found[0]

    def control(self, mode: Mode = Mode.AUDIT, **policy: bool) -> MetadataAccessControl:
        return MetadataAccessControl(MetadataAccess(mode=mode, **policy), Host(self.root))

    def audit(self) -> Mapping[str, Finding]:
        found = self.inside("node", lambda: base.audit(self.control()))
        return {one.id.removeprefix("metadata-access/"): one for one in found.findings}

    def apply(self, mode: Mode = Mode.ENFORCE) -> tuple[Mapping[str, Finding], list[str]]:
        done = self.inside("node", lambda: base.apply(self.control(mode)))
        return {one.id.removeprefix("metadata-access/"): one for one in done.findings}, [
            f"{one.action} {one.outcome}" for one in done.changes
        ]

    def reaches(self, name: str, address: str, port: int = 80) -> Result:
        """What a plain connection from a namespace gives."""
        path = f"/run/netns/{self.prefix}{name}"
        return netns.exchange([path], address, port, b"", timeout_seconds=2)[path].result


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Two pods, a node, the service's machine."""
    with contextlib.ExitStack() as stack:
        yield Net(tmp_path, stack)


def test_open_to_pods_is_critical_and_the_worst_counts(net: Net) -> None:
    net.serve()
    net.pod("pod1")
    net.pod("pod2")
    net.ip("pod2", "route", "add", "prohibit", IMDS)
    found = net.audit()["imds"]
    assert (found.status, found.severity) == (Status.FAIL, Severity.CRITICAL), found.observed
    assert found.observed.startswith("2 of 2 pods asked: ")
    assert "1 IMDSv1 answers 200" in found.observed
    assert found.section == "K9"


def test_enforce_refuses_pods_and_nothing_else(net: Net) -> None:
    """The resolver's port, another address of the service's machine, and the node's own traffic stay."""
    for port in (80, 53):
        net.serve(port=port)
    net.serve("10.0.1.2")
    net.serve("10.0.3.2", 8000, at="pod2")
    net.pod("pod1")
    before = [net.reaches("pod1", *target) for target in ((IMDS, 53), ("10.0.1.2", 80), ("10.0.3.2", 8000))]
    found, changes = net.apply()
    assert (changes, found["imds"].status, found["rules"].status) == (["write done"], Status.PASS, Status.PASS)
    assert "refused" in found["imds"].observed
    assert before == [Result.OPEN] * 3
    assert [net.reaches("pod1", *at) for at in ((IMDS, 53), ("10.0.1.2", 80), ("10.0.3.2", 8000))] == before
    assert net.reaches("node", IMDS) is Result.OPEN
    assert net.apply()[1] == []
    found, changes = net.apply(Mode.AUDIT)
    assert (changes, found["imds"].status) == (["remove done"], Status.FAIL)
    assert net.apply(Mode.AUDIT)[1] == []


def test_flushed_rules_are_drift(net: Net) -> None:
    net.serve()
    net.pod("pod1")
    net.apply()
    net.nft("flush ruleset")
    found, changes = net.apply()
    assert (changes, found["imds"].status) == (["write done"], Status.PASS)


@pytest.mark.parametrize(
    "script",
    [
        "insert rule inet node_hardening_metadata forward accept",
        "add chain inet node_hardening_metadata other { type filter hook forward priority -300; }",
        "flush chain inet node_hardening_metadata forward",
    ],
)
def test_a_table_that_others_changed_is_replaced(net: Net, script: str) -> None:
    net.serve()
    net.pod("pod1")
    net.apply()
    net.nft(script)
    seen = net.inside("node", lambda: base.audit(net.control(Mode.ENFORCE)))
    assert {one.id: one.status for one in seen.findings}["metadata-access/rules"] is Status.FAIL
    found, changes = net.apply()
    assert (changes, found["imds"].status, found["rules"].status) == (["write done"], Status.PASS, Status.PASS)


def test_an_accept_above_in_another_table_changes_nothing(net: Net) -> None:
    net.serve()
    net.pod("pod1")
    net.nft("table inet other { chain c { type filter hook forward priority -300; policy accept; accept\n }\n }")
    found, _ = net.apply()
    assert found["imds"].status is Status.PASS


def test_an_interceptor_is_named_and_keeps_working(net: Net) -> None:
    """kiam's way: pods' connections are rewritten to an agent on the node; what is rewritten is not forwarded there."""
    net.serve()
    net.serve("10.0.2.1", 8181, "interceptor", at="node")
    net.pod("pod1")
    net.nft(
        "table ip kiam { chain p { type nat hook prerouting priority -100; "
        f"iifname to-pod1 ip daddr {IMDS} tcp dport 80 dnat to 10.0.2.1:8181\n }}\n }}"
    )
    assert net.audit()["imds"].status is Status.INFO
    found, _ = net.apply()
    assert (found["imds"].status, found["rules"].status) == (Status.INFO, Status.PASS)
    assert "Server: kiam" in found["imds"].observed


def test_what_goes_around_the_node_is_said_and_not_believed(net: Net) -> None:
    """A pod on the service's own segment, as with macvlan: the table is there, and does not hold."""
    net.serve()
    run("ip", "link", "add", f"{net.prefix}x", "netns", f"{net.prefix}pod1", "type", "veth", "peer", "name", "side",
        "netns", f"{net.prefix}meta")  # fmt: skip
    net.ip("meta", "addr", "add", "10.9.0.1/24", "dev", "side")
    net.ip("meta", "link", "set", "side", "up")
    net.ip("pod1", "addr", "add", "10.9.0.2/24", "dev", f"{net.prefix}x")
    net.ip("pod1", "link", "set", f"{net.prefix}x", "up")
    net.ip("pod1", "route", "add", IMDS, "via", "10.9.0.1")
    net.pod("pod1")
    found, _ = net.apply()
    assert (found["rules"].status, found["imds"].status) == (Status.PASS, Status.FAIL)
    assert "goes around" in found["imds"].remediation


@pytest.mark.parametrize(
    ("kind", "status", "severity"), [("v2", Status.FAIL, Severity.HIGH), ("v2-hop1", Status.PASS, Severity.HIGH)]
)
def test_imdsv2_depends_on_the_hop_limit(net: Net, kind: str, status: Status, severity: Severity) -> None:
    net.serve(kind=kind)
    net.pod("pod1")
    found = net.audit()["imds"]
    assert (found.status, found.severity) == (status, severity)


def test_azure_has_two_services_and_google_tells_its_own_server(net: Net) -> None:
    net.cloud({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"})
    net.serve()
    net.ip("meta", "addr", "add", "168.63.129.16/32", "dev", "eth0")
    net.ip("node", "route", "add", "168.63.129.16/32", "via", "10.0.1.2")
    net.serve("168.63.129.16")
    net.pod("pod1")
    found = net.audit()
    assert (found["imds"].status, found["wireserver"].severity) == (Status.FAIL, Severity.CRITICAL)
    assert {one.status for one in net.apply()[0].values()} == {Status.PASS}


def test_without_pods_without_a_cloud_and_without_nft(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    assert net.audit()["imds"].status is Status.NOT_APPLICABLE
    monkeypatch.setattr("agent.host._TOOL_FOLDERS", ("/nonexistent",))
    found, changes = net.apply()
    assert (found["rules"].status, changes) == (Status.UNKNOWN, ["write failed"])
    assert "nftables" in found["rules"].observed
    net.cloud({"sys_vendor": "QEMU"})
    found, changes = net.apply()
    assert ([one.status for one in found.values()], changes) == ([Status.NOT_APPLICABLE], [])


def test_the_probe_leaves_every_thread_where_it_was(net: Net) -> None:
    net.pod("pod1")
    before = namespaces()
    net.audit()
    assert namespaces() == before


def namespaces() -> set[str]:
    """The network namespaces of this process's threads."""
    return {str(Path(f"/proc/self/task/{one.native_id}/ns/net").readlink()) for one in threading.enumerate()}
