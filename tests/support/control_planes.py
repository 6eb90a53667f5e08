"""A control-plane node in a directory: its processes as a captured /proc has them, its files, and real ports."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from agent.config import node_sections
from agent.controls import base
from agent.controls.control_plane import ControlPlaneControl
from agent.host import Host
from agent.model import Finding, Status
from tests.support.kubelets import plant
from tests.support.node_tree import NodeTree

HASH = "0123456789abcdef0123456789abcdef"
_POD = f"kubepods-burstable-pod{HASH}.slice/cri-containerd-{'a' * 64}.scope"
STATIC_POD = f"0::/kubepods.slice/kubepods-burstable.slice/{_POD}\n"
API_POD = STATIC_POD.replace(HASH, "01234567_89ab_4cde_8123_456789abcdef")
PKI = "/etc/kubernetes/pki"

# What kubeadm writes, hardened where that costs nothing.
API_SERVER = (
    "--anonymous-auth=false", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
    f"--client-ca-file={PKI}/ca.crt", f"--etcd-cafile={PKI}/etcd/ca.crt",
    f"--etcd-certfile={PKI}/apiserver-etcd-client.crt", f"--etcd-keyfile={PKI}/apiserver-etcd-client.key",
    "--etcd-servers=https://127.0.0.1:2379", f"--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt",
    f"--kubelet-client-key={PKI}/apiserver-kubelet-client.key", f"--kubelet-certificate-authority={PKI}/ca.crt",
    "--profiling=false", f"--service-account-key-file={PKI}/sa.pub", "--requestheader-allowed-names=front-proxy-client",
    f"--requestheader-client-ca-file={PKI}/front-proxy-ca.crt", f"--tls-cert-file={PKI}/apiserver.crt",
    f"--tls-private-key-file={PKI}/apiserver.key", "--service-account-extend-token-expiration=false",
)  # fmt: skip
MANAGER = (
    "--bind-address=127.0.0.1", "--profiling=false", "--use-service-account-credentials=true",
    f"--service-account-private-key-file={PKI}/sa.key", f"--root-ca-file={PKI}/ca.crt",
)  # fmt: skip
SCHEDULER = ("--bind-address=127.0.0.1", "--profiling=false")
ETCD = (
    "--listen-client-urls=https://127.0.0.1:2379", "--listen-peer-urls=https://127.0.0.1:2380",
    "--listen-metrics-urls=http://127.0.0.1:2381", f"--cert-file={PKI}/etcd/server.crt",
    f"--key-file={PKI}/etcd/server.key", "--client-cert-auth=true", f"--trusted-ca-file={PKI}/etcd/ca.crt",
    f"--peer-cert-file={PKI}/etcd/peer.crt", f"--peer-key-file={PKI}/etcd/peer.key", "--peer-client-cert-auth=true",
    f"--peer-trusted-ca-file={PKI}/etcd/ca.crt", "--data-dir=/var/lib/etcd",
)  # fmt: skip


class ControlPlane:
    """The node. Each component is a static pod unless a test says something else."""

    def __init__(self, root: Path) -> None:
        self.node = NodeTree(root)
        self._pid = 900

    @property
    def root(self) -> Path:
        """The directory that is the node's `/`."""
        return self.node.root

    def files(self, files: Mapping[str, str]) -> None:
        """Writes files that are root's alone."""
        plant(self.root, files)
        for path in files:
            (self.root / path.lstrip("/")).chmod(0o600)

    def pki(self, **shared: str) -> None:
        """A PKI as kubeadm makes it: three CAs, and the API server's certificate. shared: another CA to use instead."""
        authorities = {name: trustme.CA() for name in ("ca", "front-proxy-ca", "etcd/ca")}
        for name, authority in authorities.items():
            used = authorities[shared.get(name.replace("-", "_").replace("/", "_"), name)]
            self.files({f"{PKI}/{name}.crt": used.cert_pem.bytes().decode()})
            del authority
        issued = authorities["ca"].issue_cert("kubernetes", common_name="kube-apiserver")
        self.files({f"{PKI}/apiserver.crt": issued.cert_chain_pems[0].bytes().decode()})

    def run(
        self, program: str, *args: str, pid: int = 0, environment: Sequence[str] = (), listen: Sequence[int] = (),
        uid: int = 0, cgroup: str = STATIC_POD, everywhere: bool = False, mounts: str = "mnt:[4026532999]",
    ) -> int:  # fmt: skip
        """A process of that program. listen: ports of this machine's loopback that it is said to listen on."""
        self._pid = pid or self._pid + 1
        self.node.add(program, program, *args, pid=self._pid, uid=uid, cgroup=cgroup, mounts=mounts,
                      executable=f"/usr/local/bin/{program}", started=1e9)  # fmt: skip
        folder = self.root / f"proc/{self._pid}"
        (folder / "environ").write_bytes(b"".join(one.encode() + b"\0" for one in environment))
        (folder / "ns/net").symlink_to(Path("/proc/self/ns/net").readlink())
        (folder / "fd").mkdir()
        (folder / "net").mkdir()
        lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"]
        address = "00000000" if everywhere else "0100007F"
        for number, port in enumerate(listen):
            inode = self._pid * 100 + number
            (folder / f"fd/{number}").symlink_to(f"socket:[{inode}]")
            lines.append(f"   {number}: {address}:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 {inode} 1\n")
        (folder / "net/tcp").write_text("".join(lines))
        return self._pid

    def show(self, pid: int) -> None:
        """A process of this machine as the node's static pod."""
        folder = self.root / f"proc/{pid}"
        (folder / "ns").mkdir(parents=True)
        (folder / "status").write_text("Uid:\t0\t0\t0\t0\n")
        (folder / "cgroup").write_text(STATIC_POD)
        (folder / "ns/mnt").symlink_to("mnt:[4026532999]")
        (folder / "ns/net").symlink_to(Path(f"/proc/{pid}/ns/net").readlink())
        for entry in ("comm", "cmdline", "stat", "environ", "root", "exe", "cwd", "fd", "net"):
            real = Path(f"/proc/{pid}/{entry}")
            (folder / entry).symlink_to(real.readlink() if entry in ("exe", "cwd") else real)

    def audit(
        self,
        *,
        probe: bool = True,
        allows_anything: Callable[[], bool | None] | None = None,
        flags: Callable[[str, int, str], Mapping[str, str]] | None = None,
        today: str = "2026-11-28",
    ) -> dict[str, Finding]:
        """The control's findings by id, without its name."""
        control = ControlPlaneControl(
            node_sections.ControlPlane(probe=probe), Host(self.root), allows_anything=allows_anything, flags=flags,
            wall=datetime.fromisoformat(f"{today}T12:00:00+00:00").timestamp,
        )  # fmt: skip
        found = base.audit(control).findings
        assert len({finding.id for finding in found}) == len(found)
        for finding in found:
            assert finding.control == "control-plane"
            assert finding.observed
            assert finding.section
            assert finding.status not in (Status.FAIL, Status.UNKNOWN) or finding.remediation, finding
        return {finding.id.removeprefix("control-plane/"): finding for finding in found}


@contextmanager
def answering(
    statuses: Mapping[str, tuple[int, str]],
    *,
    context: ssl.SSLContext | None = None,
    seen: list[str | None] | None = None,
) -> Iterator[int]:
    """A server on loopback that answers GET by path with a status and body, 404 for any other path.

    seen: gets the credentials of each request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = statuses.get(self.path, (404, ""))
            if seen is not None:
                seen.append(self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that speaks no TLS is part of the test."""

        def get_request(self) -> tuple[object, object]:  # type: ignore[override]
            channel, address = super().get_request()
            channel.settimeout(5)
            return (channel if context is None else context.wrap_socket(channel, server_side=True)), address

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def server_context() -> ssl.SSLContext:
    """TLS with a certificate of some CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context
