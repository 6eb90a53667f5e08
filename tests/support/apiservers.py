"""An API server to test against: the emulator, or a real etcd and kube-apiserver when KUBEBUILDER_ASSETS names them.

Both serve https on loopback with an administrator's bearer token, RBAC on, no controllers and no kubelets, so that the
same assertions hold against both.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import trustme
import urllib3

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support.daemons import free_ports

READY_SECONDS = 240.0
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a throw-away CA and a server certificate."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, *names: str) -> Certificates:
    """Issue them into ``folder``, for this host's loopback and, it may be, more names."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost", "::1", *names)
    result = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    authority.cert_pem.write_to_path(str(result.ca))
    result.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(result.key))
    return result


@dataclass(frozen=True, slots=True)
class ApiServer:
    """One that runs. ``ca`` is None where it speaks plain http, ``sandbox`` for the real one."""

    url: str
    token: str
    ca: Path | None
    sandbox: Sandbox | None = None

    @classmethod
    def of(cls, sandbox: Sandbox) -> ApiServer:
        """A sandbox without TLS as such a server."""
        return cls(sandbox.url, sandbox.token, None, sandbox)

    @property
    def is_real(self) -> bool:
        """Whether this is a real kube-apiserver."""
        return self.sandbox is None

    def client(self, token: str | None = None) -> Client:
        """A client with the administrator's token, or another; an empty one sends none."""
        return Client(self, self.token if token is None else token)

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """Write a kubeconfig."""
        cluster = {"server": self.url}
        if self.ca is not None:
            cluster["certificate-authority"] = str(self.ca)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token or self.token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        return path


class Client:
    """Plain HTTP against an API server, without the agent's own code in between."""

    def __init__(self, server: ApiServer, token: str) -> None:
        """Proxies and CA variables of the environment are left out."""
        self.server = server
        self.session = requests.Session()
        self.session.trust_env = False
        if server.ca is not None:
            self.session.verify = str(server.ca)
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Any request; thirty seconds at most."""
        return self.session.request(method, self.server.url + path, **{"timeout": 30, **options})

    def get(self, path: str, **query: Any) -> requests.Response:
        """GET with a query."""
        return self.request("GET", path, params=query)

    def post(self, path: str, body: Any, **query: Any) -> requests.Response:
        """POST of a JSON body."""
        return self.request("POST", path, json=body, params=query)

    def put(self, path: str, body: Any, **query: Any) -> requests.Response:
        """PUT of a JSON body."""
        return self.request("PUT", path, json=body, params=query)

    def patch(self, path: str, body: Any, kind: str = "merge", **query: Any) -> requests.Response:
        """PATCH; ``kind`` is merge, strategic, apply, or a media type."""
        headers = {"Content-Type": PATCHES.get(kind, kind)}
        return self.request("PATCH", path, data=json.dumps(body), headers=headers, params=query)

    def delete(self, path: str, body: Any = None, **query: Any) -> requests.Response:
        """DELETE, perhaps with options."""
        return self.request("DELETE", path, json=body, params=query)

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The events of a watch until it ends; give timeoutSeconds or stop reading."""
        with self.request("GET", path, params={"watch": "1", **query}, stream=True) as answer:
            assert answer.status_code == 200, answer.text
            pending = b""
            try:
                # Not iter_lines: an object of a megabyte, byte by byte, takes minutes.
                while chunk := answer.raw.read1(1 << 16, decode_content=True):
                    *lines, pending = (pending + chunk).split(b"\n")
                    yield from map(json.loads, lines)
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError from error

    def close(self) -> None:
        """Give the connections back."""
        self.session.close()


@contextmanager
def emulator(folder: Path, settings: Mapping[str, Any] | None = None, *names: str) -> Iterator[ApiServer]:
    """A bare emulator over https; ``settings`` change that (``controllers``, ``kubelet`` …), names its certificate."""
    certificates = make_certificates(folder, *names)
    bare: dict[str, Any] = {"controllers": False, "kubelet": KubeletSettings(enabled=False)}
    wanted = Settings(certificate=certificates.certificate, key=certificates.key, **{**bare, **(settings or {})})
    with Sandbox(wanted) as sandbox:
        yield ApiServer(sandbox.url, sandbox.token, certificates.ca, sandbox)


@contextmanager
def control_plane(assets: Path, folder: Path, *names: str, flags: Sequence[str] = ()) -> Iterator[ApiServer]:
    """A real etcd and kube-apiserver from ``assets`` (envtest's folder), with their state in ``folder``. Its
    certificate is good for these names too. flags: more of kube-apiserver's."""
    certificates = make_certificates(folder, *names)
    signing, public = folder / "sa.key", folder / "sa.pub"
    subprocess.run(
        ["/usr/bin/openssl", "genrsa", "-out", signing, "2048"], check=True, capture_output=True, timeout=300
    )
    subprocess.run(
        ["/usr/bin/openssl", "rsa", "-in", signing, "-pubout", "-out", public],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (folder / "tokens.csv").write_text('admin-token,admin,admin-uid,"system:masters"\n', encoding="utf-8")
    client, peer, secure = (f"127.0.0.1:{port}" for port in free_ports(3))
    etcd = [
        str(assets / "etcd"),
        "--name=e",
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=http://{client}",
        f"--advertise-client-urls=http://{client}",
        f"--listen-peer-urls=http://{peer}",
        f"--initial-advertise-peer-urls=http://{peer}",
        f"--initial-cluster=e=http://{peer}",
    ]
    server = [
        str(assets / "kube-apiserver"),
        f"--etcd-servers=http://{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={secure.rpartition(':')[2]}",
        f"--tls-cert-file={certificates.certificate}",
        f"--tls-private-key-file={certificates.key}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={signing}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        *flags,
    ]
    result = ApiServer(f"https://{secure}", "admin-token", certificates.ca)
    with _running(etcd, folder / "etcd.log"), _running(server, folder / "kube-apiserver.log") as process:
        _await_ready(result, process, folder / "kube-apiserver.log")
        yield result


@contextmanager
def _running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=subprocess.STDOUT, env={"HOME": str(log.parent)})
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(server: ApiServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    client = server.client()
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                # The four namespaces come a moment after readyz.
                if client.get("/readyz").ok and client.get("/api/v1/namespaces/kube-node-lease").ok:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.2)
    finally:
        client.close()
    raise RuntimeError(f"kube-apiserver did not get ready; its log ends with: {log.read_text()[-2000:]}")


def assets() -> Path | None:
    """Where envtest's binaries are, or None when KUBEBUILDER_ASSETS does not name both."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder or not all((Path(folder) / name).is_file() for name in ("etcd", "kube-apiserver")):
        return None
    return Path(folder)
