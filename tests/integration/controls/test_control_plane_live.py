"""The control-plane control against real ports: Debian's etcd, and servers that answer like the components."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from agent.controls import probe
from agent.model import Finding, Status
from tests.support.control_planes import API_SERVER, ETCD, MANAGER, SCHEDULER, ControlPlane, answering, server_context
from tests.support.daemons import free_ports
from tests.support.node_tree import end

PASS, FAIL, UNKNOWN, INFO = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.INFO
ETCD_PROGRAM = shutil.which("etcd") or f"{os.environ.get('KUBEBUILDER_ASSETS', '')}/etcd"
needs_etcd = pytest.mark.skipif(not Path(ETCD_PROGRAM).is_file(), reason="no etcd: apt-get install etcd-server")


@pytest.fixture
def node(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path / "node")


def statuses(found: Mapping[str, Finding], *ids: str) -> list[Status]:
    return [found[id_].status for id_ in ids]


# -- etcd --------------------------------------------------------------------------------------------------------------


class Authority:
    """A CA with files of one server certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        issued = trustme.CA()
        server = issued.issue_cert("127.0.0.1", "localhost")
        self.ca, self.certificate, self.key = folder / "ca.crt", folder / "server.crt", folder / "server.key"
        issued.cert_pem.write_to_path(str(self.ca))
        self.certificate.write_bytes(server.cert_chain_pems[0].bytes())
        server.private_key_pem.write_to_path(str(self.key))


@contextmanager
def etcd(folder: Path, *args: str, scheme: str = "https", file: str = "") -> Iterator[tuple[int, int, Sequence[str]]]:
    """A real one: the ports of clients and peers, and its arguments."""
    client, peer = free_ports(2)
    peer_scheme = "https" if any("peer-cert-file" in one or "peer-auto" in one for one in args) else "http"
    words = [
        f"--data-dir={folder / 'data'}", f"--listen-client-urls={scheme}://127.0.0.1:{client}", "--unsafe-no-fsync",
        f"--advertise-client-urls={scheme}://127.0.0.1:{client}", f"--listen-peer-urls={peer_scheme}://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls={peer_scheme}://127.0.0.1:{peer}",
        f"--initial-cluster=default={peer_scheme}://127.0.0.1:{peer}", *args,
    ]  # fmt: skip
    with (folder / "etcd.log").open("w") as log:
        child = subprocess.Popen([ETCD_PROGRAM, *words], stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 60
        while probe.get("127.0.0.1", client, "/version", tls=scheme == "https").error == "refused":
            assert child.poll() is None, (folder / "etcd.log").read_text()[-2000:]
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield client, peer, words
    finally:
        end(child)


def tls(one: Authority, prefix: str = "", *, mutual: bool = True) -> tuple[str, ...]:
    """The flags of one side."""
    files = (f"--{prefix}cert-file={one.certificate}", f"--{prefix}key-file={one.key}")
    return (*files, f"--{prefix}client-cert-auth", f"--{prefix}trusted-ca-file={one.ca}") if mutual else files


CASES = {
    "mutual TLS": (lambda one: (*tls(one), *tls(one, "peer-")), "https", [PASS, PASS, PASS, PASS]),
    "a CA alone still asks": (
        lambda one: (*tls(one), "--client-cert-auth=false", *tls(one, "peer-")), "https", [PASS, PASS, PASS, PASS]),
    "no client certificates": (lambda one: (*tls(one, mutual=False), *tls(one, "peer-")), "https",
                               [PASS, FAIL, PASS, PASS]),
    "in the clear beside certificates": (lambda one: (*tls(one), *tls(one, "peer-")), "http", [FAIL, FAIL, PASS, PASS]),
    "peers in the clear": (tls, "https", [PASS, PASS, FAIL, FAIL]),
    "auto-tls": (lambda one: ("--auto-tls", *tls(one, "peer-")), "https", [PASS, FAIL, PASS, PASS]),
}  # fmt: skip


@needs_etcd
@pytest.mark.parametrize(("flags", "scheme", "expected"), CASES.values(), ids=CASES.keys())
def test_a_real_etcd_is_judged_by_what_it_answers(
    node: ControlPlane,
    tmp_path: Path,
    flags: Callable[[Authority], tuple[str, ...]],
    scheme: str,
    expected: list[Status],
) -> None:
    one = Authority(tmp_path / "pki")
    with etcd(tmp_path, *flags(one), scheme=scheme) as (client, peer, words):
        node.run("etcd", *words, listen=(client, peer))
        found = node.audit()
    ids = ("etcd/tls", "etcd/client-certificates", "etcd/peer-tls", "etcd/peer-certificates")
    assert statuses(found, *ids) == expected, [found[id_].observed for id_ in ids]


@needs_etcd
def test_what_a_port_answers_goes_before_good_flags(node: ControlPlane, tmp_path: Path) -> None:
    """The process with the good flags is the one that has the open socket."""
    with etcd(tmp_path, scheme="http") as (client, _, _):
        good = [one for one in ETCD if not one.startswith("--listen-client")]
        node.run("etcd", *good, f"--listen-client-urls=https://127.0.0.1:{client}", listen=(client,))
        found = node.audit()
    assert statuses(found, "etcd/tls", "etcd/client-certificates") == [FAIL, FAIL]
    assert f"GET http://127.0.0.1:{client}/version in the clear: HTTP 200" in found["etcd/tls"].observed


def test_etcd_by_environment_alone_is_read(node: ControlPlane) -> None:
    environment = [
        f"ETCD_{one[2:].partition('=')[0].upper().replace('-', '_')}={one.partition('=')[2]}" for one in ETCD
    ]
    node.run("etcd", environment=environment)
    found = node.audit()
    assert statuses(found, "etcd/tls", "etcd/client-certificates", "etcd/peer-tls") == [PASS, PASS, PASS]
    assert "environment" in found["etcd/tls"].source


@pytest.mark.parametrize(("mutual", "expected"), [(True, PASS), (False, UNKNOWN)])
def test_the_nodes_of_dqlite_need_their_certificate(
    node: ControlPlane, tmp_path: Path, *, mutual: bool, expected: Status
) -> None:
    one = Authority(tmp_path / "pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one.certificate, one.key)
    if mutual:
        context.load_verify_locations(one.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    with answering({}, context=context) as port:
        node.run("k8s-dqlite", "--listen=unix:///kine.sock", listen=(port,), mounts="mnt:[4026531841]",
                 cgroup="0::/system.slice/snap.k8s.k8s-dqlite.service\n")  # fmt: skip
        assert node.audit()["k8s-dqlite/peers"].status is expected


# -- answers without credentials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "version", "flags", "expected"),
    [
        (401, 401, ("--anonymous-auth=false",), [PASS, PASS]),
        (403, 200, (), [INFO, FAIL]),
        (200, 200, (), [FAIL, FAIL]),
        (403, 200, ("--anonymous-auth=false",), [INFO, FAIL]),
        (500, 500, ("--anonymous-auth=false",), [UNKNOWN, PASS]),
    ],
)
def test_anonymous_requests_are_tried(
    node: ControlPlane, nodes: int, version: int, flags: tuple[str, ...], expected: list[Status]
) -> None:
    node.pki()
    paths = {"/api/v1/nodes": (nodes, ""), "/version": (version, '{"gitVersion": "v1.36.2"}')}
    arguments = [one for one in API_SERVER if "anonymous" not in one]
    with answering(paths, context=server_context()) as port:
        node.run("kube-apiserver", *arguments, *flags, listen=(port,))
        found = node.audit()
    assert statuses(found, "apiserver/anonymous-live", "apiserver/anonymous") == expected
    if version == 200:
        assert found["apiserver/audit-maxage"].observed.startswith("--audit-log-maxage=366")


def test_a_refusal_on_one_path_does_not_excuse_another_that_is_open(node: ControlPlane) -> None:
    file = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
    node.files({"/etc/a.yaml": file + "anonymous: {enabled: true, conditions: [{path: /metrics}]}\n"})
    with answering({"/api/v1/nodes": (401, ""), "/version": (401, "")}, context=server_context()) as port:
        node.run("kube-apiserver", "--authentication-config=/etc/a.yaml", listen=(port,))
        found = node.audit()
    assert statuses(found, "apiserver/anonymous-live", "apiserver/anonymous") == [PASS, FAIL]
    assert "/metrics" in found["apiserver/anonymous"].observed


def test_flags_come_from_the_api_server_itself_where_the_agent_may_read_them(node: ControlPlane) -> None:
    flags = {"profiling": "true", "authorization-mode": "[Node,AlwaysAllow]", "service-account-key-file": "[]",
             "token-auth-file": "CLASSIFIED"}  # fmt: skip
    asked = []

    def read(address: str, port: int, run: str) -> Mapping[str, str]:
        asked.append((address, port, run.partition(" ")[0]))
        return flags

    with answering({"/version": (401, "")}, context=server_context()) as port:
        pid = node.run("kube-apiserver", *API_SERVER, listen=(port,))
        found = node.audit(flags=read)
        assert asked == [("127.0.0.1", port, str(pid))]
    ids = ("apiserver/profiling", "apiserver/always-allow", "apiserver/token-key", "apiserver/token-file")
    assert statuses(found, *ids) == [FAIL, FAIL, FAIL, PASS]
    assert "flagz" in found["apiserver/profiling"].source
    assert "flagz" not in found["apiserver/token-file"].source


def test_nothing_is_asked_of_a_server_without_tls(node: ControlPlane) -> None:
    def read(address: str, port: int, run: str) -> Mapping[str, str]:
        raise AssertionError(port)

    with answering({"/version": (200, "{}")}) as port:
        node.run("kube-apiserver", *API_SERVER, listen=(port,))
        assert node.audit(flags=read)["apiserver/profiling"].status is PASS


@pytest.mark.parametrize(
    ("pprof", "flag", "expected"),
    [(404, "--profiling=true", PASS), (403, "--profiling=true", FAIL), (403, "--profiling=false", PASS),
     (200, "--profiling=false", FAIL)],
)  # fmt: skip
def test_an_answer_of_pprof_goes_before_the_flag(node: ControlPlane, pprof: int, flag: str, expected: Status) -> None:
    paths = {"/healthz": (200, "ok"), "/metrics": (403, ""), "/debug/pprof/": (pprof, "")}
    with answering(paths, context=server_context()) as port:
        node.run("kube-controller-manager", *MANAGER, flag, listen=(port,))
        found = node.audit()
    assert found["controller-manager/profiling"].status is expected
    assert found["controller-manager/open-paths"].status is (FAIL if pprof == 200 else PASS)


def test_sockets_decide_where_a_scheduler_listens(node: ControlPlane) -> None:
    with answering({}, context=server_context()) as port:
        node.run("kube-scheduler", *SCHEDULER, listen=(port,), everywhere=True)
        found = node.audit()
        assert found["scheduler/bind"].status is FAIL
        assert f"0.0.0.0:{port}" in found["scheduler/bind"].observed


def test_without_probes_no_port_is_dialled(node: ControlPlane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        node.run("kube-apiserver", *API_SERVER, listen=(server.getsockname()[1],))
        found = node.audit(probe=False)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert found["apiserver/anonymous-live"].status is UNKNOWN
    assert "controlPlane.probe is false" in found["apiserver/anonymous-live"].observed


@pytest.mark.parametrize(("allowed", "expected"), [(True, FAIL), (False, PASS), (None, PASS)])
def test_a_made_up_verb_shows_that_everything_is_allowed(
    node: ControlPlane, allowed: bool | None, expected: Status
) -> None:
    node.run("kube-apiserver", *API_SERVER)
    found = node.audit(allows_anything=lambda: allowed)
    assert found["apiserver/always-allow"].status is expected


def test_tls_1_3_is_not_open_before_the_first_byte(tmp_path: Path) -> None:
    """The handshake is over before the server has looked for a client's certificate."""
    one = Authority(tmp_path / "pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(one.certificate, one.key)
    context.load_verify_locations(one.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with answering({"/version": (200, "{}")}, context=context) as port:
        found = probe.get("127.0.0.1", port, "/version", tls=True)
    assert found.certificate is not None
    assert found.status is None
    assert found.error


def test_a_worker_loads_none_of_the_checks(node: ControlPlane) -> None:
    """What has nothing to do here costs no memory."""
    program = (
        "import sys; from agent.config.schema import Config; from agent.controls import registry; "
        "from agent.host import Host; "
        "report = registry.run('n', registry.controls_of(Config(), Host(sys.argv[1])), registry.Act.AUDIT); "
        "print(*(one for one in sys.modules if one.startswith(('agent.controls.control_plane.', "
        "'agent.controls.certificates.'))))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(node.root)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("oldest", "expected"), [(ssl.TLSVersion.TLSv1_2, PASS), (ssl.TLSVersion.TLSv1, FAIL)])
def test_an_attempt_with_tls_1_1_decides(node: ControlPlane, oldest: ssl.TLSVersion, expected: Status) -> None:
    """--tls-min-version=VersionTLS10 does not bring back what Go refuses by itself."""
    context = server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = oldest
    with answering({"/version": (200, "{}")}, context=context) as port:
        node.run("kube-apiserver", *API_SERVER, "--tls-min-version=VersionTLS10", listen=(port,))
        found = node.audit()
    assert found["apiserver/tls-minimum"].status is expected
