"""The kubelet control on a live process that is called kubelet, with real arguments, files and ports."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.config import schema
from agent.controls import base, probe
from agent.controls.kubelet import KubeletControl
from agent.controls.kubelet.http_findings import PATH
from agent.host import Host
from agent.model import Finding, Status
from agent.sandbox.noderoot import NodeRoot
from tests.support.kubelets import config, plant
from tests.support.node_tree import NodeTree, end


class Node(NodeTree):
    """A node of real processes."""

    def audit(self, *, probe: bool = False) -> Mapping[str, Finding]:
        """The control's findings by id."""
        control = KubeletControl(schema.Kubelet(probe=probe), Host(self.root))
        return {finding.id.removeprefix("kubelet/"): finding for finding in base.audit(control).findings}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "node", real=True)
    yield one
    one.close()


@contextmanager
def answering(status: int, *, tls: bool) -> Iterator[int]:
    """A server on loopback that answers GET /pods with the status and everything else with 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/pods" and "Authorization" not in self.headers else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("somewhere.else.example").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_live_kubelet_is_read_from_its_arguments_config_and_drop_ins(node: Node, tmp_path: Path) -> None:
    """Real argv with both spellings, a config file named relative to the working directory, drop-ins in path order."""
    work = tmp_path / "work"
    drop_ins = tmp_path / "drop-ins"
    plant(
        tmp_path,
        {
            "work/kubelet.yaml": config(
                "readOnlyPort: 10255\nserverTLSBootstrap: true\nauthentication: {x509: {clientCAFile: ca.crt}}\n"
            ),
            "work/ca.crt": "CA",
            "drop-ins/20-x.conf": config("podPidsLimit: 10\n"),
            "drop-ins/sub/10-y.conf": config("podPidsLimit: 0\n"),
            "drop-ins/99-not.txt": "]",
        },
    )
    arguments = (
        "--config",
        "kubelet.yaml",
        f"--config-dir={drop_ins}",
        "--read_only_port",
        "0",
        "--seccomp-default",
        "--v=2",
    )
    child = node.start("kubelet", *arguments, cwd=work)
    found = node.audit()
    assert found["process"].observed.startswith(f"kubelet (pid {child.pid}), since ")
    expected = {
        "4.2.1": (Status.PASS, "default (with --config)"),
        "4.2.3": (Status.PASS, f"{work}/kubelet.yaml:5"),
        "4.2.4": (Status.PASS, "flag --read-only-port"),
        "4.2.11": (Status.PASS, f"{work}/kubelet.yaml:4"),
        "4.2.13": (Status.FAIL, f"drop-in {drop_ins}/sub/10-y.conf:3"),
        "4.2.14": (Status.PASS, "flag --seccomp-default"),
        "drift": (Status.PASS, f"kubelet (pid {child.pid})"),
        "config": (Status.PASS, f"kubelet (pid {child.pid})"),
    }
    assert {id_: (found[id_].status, found[id_].source) for id_ in expected} == expected


def test_a_live_kubelet_without_config_runs_with_the_legacy_defaults(node: Node) -> None:
    """Flags only: anonymous on, everything allowed, 10255 open."""
    node.start("kubelet", "--kubeconfig=/nowhere")
    found = node.audit()
    assert {found[id_].status for id_ in ("4.2.1", "webhook", "4.2.2", "4.2.4")} == {Status.FAIL}
    assert {found[id_].source for id_ in ("4.2.1", "webhook", "4.2.2", "4.2.4")} == {"default (flags only)"}


def test_a_newer_configuration_is_unknown_until_the_restart(node: Node, tmp_path: Path) -> None:
    """The file is newer than the process, and without /configz what it said before is not known."""
    file = tmp_path / "kubelet.yaml"
    file.write_text(config(""))
    node.start("kubelet", f"--config={file}")
    assert node.audit()["drift"].status is Status.PASS
    later = time.time() + 60
    os.utime(file, (later, later))
    finding = node.audit()["drift"]
    assert finding.status is Status.UNKNOWN
    assert f"{file} changed after it started" in finding.observed


def test_an_unreadable_configuration_is_unknown(node: Node, tmp_path: Path) -> None:
    """A FIFO in the file's place neither blocks nor passes; a file that is gone does not either."""
    os.mkfifo(tmp_path / "kubelet.yaml")
    node.start("kubelet", f"--config={tmp_path}/kubelet.yaml")
    finding = node.audit()["4.2.1"]
    assert finding.status is Status.UNKNOWN
    assert "not a regular file" in finding.observed
    (tmp_path / "kubelet.yaml").unlink()
    assert node.audit()["4.2.1"].status is Status.UNKNOWN


def test_a_kubelet_that_ended_is_unknown(node: Node) -> None:
    """Killed and reaped: looked for and not found. Killed and not reaped: no arguments are left to read."""
    child = node.start("kubelet", "--anonymous-auth=false")
    child.kill()
    while b"Z" not in Path(f"/proc/{child.pid}/stat").read_bytes().rpartition(b")")[2]:
        time.sleep(0.01)
    assert node.audit()["process"].status is Status.UNKNOWN
    child.wait()
    found = node.audit()
    assert found["process"].status is Status.UNKNOWN
    assert "4.2.1" not in found


def test_two_live_kubelets_are_said(node: Node) -> None:
    """The worse one is not hidden."""
    node.start("kubelet", "--read-only-port=0")
    worse = node.start("kubelet")
    found = node.audit()
    assert "2 kubelets" in found["process"].observed
    assert found["4.2.4"].observed == f"pid {worse.pid}: readOnlyPort: 10255"


@pytest.mark.parametrize(
    ("status", "live", "anonymous"),
    [(401, Status.PASS, Status.PASS), (403, Status.FAIL, Status.FAIL), (200, Status.FAIL, Status.FAIL)],
)
def test_a_real_tls_port_is_asked_without_credentials(
    node: Node, tmp_path: Path, status: int, live: Status, anonymous: Status
) -> None:
    """A certificate that nobody vouches for is no obstacle, and what answers decides over what files say."""
    with answering(status, tls=True) as port:
        file = tmp_path / "kubelet.yaml"
        file.write_text(config(f"port: {port}\nreadOnlyPort: {free_port()}\n"))
        node.start("kubelet", f"--config={file}")
        found = node.audit(probe=True)
    assert (found["live"].status, found["4.2.1"].status) == (live, anonymous)
    assert f"HTTP {status}" in found["live"].observed
    assert found["live-read-only"].status is Status.PASS


def test_an_open_read_only_port_fails(node: Node, tmp_path: Path) -> None:
    """Plain HTTP answers: everybody on the network reads every pod."""
    with answering(401, tls=True) as secure, answering(200, tls=False) as plain:
        node.start("kubelet", f"--port={secure}", f"--read-only-port={plain}", "--anonymous-auth=false")
        found = node.audit(probe=True)
    assert (found["live"].status, found["live-read-only"].status) == (Status.PASS, Status.FAIL)


def test_nothing_listening_is_unknown_not_pass(node: Node) -> None:
    """A process called kubelet without ports: nothing was proved, on neither of them."""
    node.start("kubelet", f"--port={free_port()}", f"--read-only-port={free_port()}", "--anonymous-auth=false")
    found = node.audit(probe=True)
    assert {found["live"].status, found["live-read-only"].status} == {Status.UNKNOWN}


def test_a_tree_without_kubelet_is_not_probed(node: Node) -> None:
    """No process, no live finding: whatever else listens on this machine is not the tree's."""
    node.start("bystander", "kubelet", "--anonymous-auth")
    found = node.audit(probe=True)
    assert found["process"].status is Status.UNKNOWN
    assert "live" not in found


def silent() -> tuple[socket.socket, int]:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken, taken.getsockname()[1]


def probed(port: int, *, tls: bool, seconds: float = 0.2) -> probe.Response:
    return probe.get("127.0.0.1", port, PATH, tls=tls, timeout_seconds=seconds)


def test_a_port_that_says_nothing_or_nonsense_is_no_answer() -> None:
    """A timeout, and TLS where plain HTTP was meant and the other way round, are errors with words."""
    listening, port = silent()
    with listening:
        assert probed(port, tls=False) == probe.Response(error="no answer in time")
        assert probed(port, tls=True) == probe.Response(error="no answer in time")
    with answering(200, tls=False) as plain:
        assert probed(plain, tls=True).error.startswith("TLS: ")
    with answering(200, tls=True) as secure:
        assert probed(secure, tls=False).status is None
    assert probed(free_port(), tls=False).error == probe.REFUSED
    assert probed(0, tls=False).error  # no port at all: the kernel's own word
    talking, port = silent()
    with talking:

        def greet() -> None:
            with talking.accept()[0] as guest:
                guest.recv(1 << 12)
                guest.sendall(b"SSH-2.0-OpenSSH\r\n")

        speaker = threading.Thread(target=greet)
        speaker.start()
        assert probed(port, tls=False).error.startswith("not HTTP")
        speaker.join()


@contextmanager
def dripping(chunk: bytes, *, first: bytes = b"") -> Iterator[int]:
    """A server that sends a little for ever, as often as the other side will have it."""
    stop = threading.Event()
    listening, port = silent()

    def serve() -> None:
        while not stop.is_set():
            with suppress(OSError), listening.accept()[0] as guest:
                guest.sendall(first)
                while not stop.wait(0.02):
                    guest.sendall(chunk)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield port
    finally:
        stop.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        server.join()


@pytest.mark.parametrize(
    ("first", "chunk"),
    [(b"", b"H"), (b"HTTP/1.1 ", b"\0"), (b"", b"\x16\x03\x03"), (b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\0")],
    ids=["letters", "no status", "records", "handshake"],
)
@pytest.mark.parametrize("way", ["plain", "secure"])
def test_a_byte_at_a_time_holds_no_probe(way: str, first: bytes, chunk: bytes) -> None:
    """One deadline covers the exchange, inside TLS too: a timeout that begins again with each byte never ends."""
    with dripping(chunk, first=first) as port:
        found = probed(port, tls=way == "secure", seconds=0.5)  # it ends
    assert found.status is None
    assert found.error


def test_only_the_nodes_own_addresses_are_probed(node: Node) -> None:
    """A kubelet's --address that is somebody else's is not connected to."""
    node.start("kubelet", "--address=192.0.2.77", "--port=9", "--read-only-port=9")
    found = node.audit(probe=True)
    assert {found["live"].status, found["live-read-only"].status} == {Status.UNKNOWN}
    assert "not one of this node's" in found["live"].observed


def test_a_live_kube_proxy_is_read_too(node: Node, tmp_path: Path) -> None:
    """Flags count only without --config; the file's line is the source."""
    file = tmp_path / "proxy.yaml"
    file.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n"
        "kind: KubeProxyConfiguration\n"
        "metricsBindAddress: 0.0.0.0:10249\n"
    )
    first = node.start("kube-proxy", f"--config={file}", "--metrics-bind-address=127.0.0.1:10249")
    found = node.audit()["4.3.1"]
    assert (found.status, found.source) == (Status.FAIL, f"{file}:3")
    end(first)
    node.start("kube-proxy", "--metrics-bind-address", "127.0.0.1:10249")
    found = node.audit()["4.3.1"]
    assert (found.status, found.source) == (Status.PASS, "flag --metrics-bind-address")


def issued(folder: Path) -> tuple[Path, Path]:
    cert = trustme.CA().issue_cert("node.example")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    cert.cert_chain_pems[0].write_to_path(certificate)
    cert.private_key_pem.write_to_path(key)
    return certificate, key


def self_signed(folder: Path) -> tuple[Path, Path]:
    authority = trustme.CA()
    certificate, key = folder / "tls.crt", folder / "tls.key"
    authority.cert_pem.write_to_path(certificate)
    authority.private_key_pem.write_to_path(key)
    return certificate, key


def made_by_the_kubelet(folder: Path) -> tuple[Path, Path]:
    """As client-go's certutil makes it: a throw-away CA `HOST-ca@SECONDS` signs a certificate `HOST@SECONDS`."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def called(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    built = x509.CertificateBuilder(issuer_name=called("n1-ca@1700000000"), subject_name=called("n1@1700000000"))
    built = built.public_key(private.public_key()).serial_number(1)
    built = built.not_valid_before(now).not_valid_after(now + timedelta(days=365))
    signed = built.sign(private, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(b"")
    return certificate, key


@pytest.mark.parametrize(
    ("make", "status"), [(issued, Status.PASS), (self_signed, Status.FAIL), (made_by_the_kubelet, Status.FAIL)]
)
def test_a_serving_certificate_is_looked_into(
    node: Node, tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], status: Status
) -> None:
    """That a certificate is configured says little: who signed it decides."""
    certificate, key = make(tmp_path)
    node.start("kubelet", f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}")
    found = node.audit()
    assert (found["4.2.9"].status, found["4.2.9"].source) == (status, "flag --tls-cert-file")
    assert found["4.2.11"].status is Status.PASS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees sockets of root")
def test_a_real_socket_for_everybody_fails(node: Node, tmp_path: Path) -> None:
    """The runtime's socket is root for whoever may write to it."""
    path = tmp_path / "runtime.sock"
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.bind(str(path))
        path.chmod(0o666)
        node.start("kubelet", f"--container-runtime-endpoint=unix://{path}")
        finding = node.audit()["file/socket"]
        assert stat.S_ISSOCK(path.stat().st_mode)
    open_path = all(folder.stat().st_mode & 0o001 for folder in path.parents)
    assert finding.status is (Status.FAIL if open_path else Status.PASS)
    assert f"{path} is 0666" in finding.observed


def test_nothing_of_a_new_sandbox_has_changed_since_its_kubelet_started(tmp_path: Path) -> None:
    """Its files have today's times, which no program can set back."""
    control = KubeletControl(schema.Kubelet(probe=False), Host(NodeRoot.make(tmp_path / "node").path))
    assert {one.id: one.status for one in base.audit(control).findings}["kubelet/drift"] is Status.PASS
