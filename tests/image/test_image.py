"""The image as a node runs it: privileged, read-only, in the host's PID namespace, by podman and runc."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from agent import __version__
from agent.sandbox.noderoot import NodeRoot
from bench.resident import Resident
from tests.image.conftest import BASE, ROOT, TAG, Image
from tests.integration.hostile.files import FILES
from tests.support import agents, apiservers
from tests.support.agents import eventually
from tests.support.apiservers import ApiServer, Client
from tests.support.cli import agent as checkout
from tests.support.cyclonedx import sbom_problems

# The first test waits for the image, which takes minutes.
pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

NODE = "node-1"
POLICY = "kubelet: {probe: false}\n"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
LIMIT_MIB = 32.0
HOSTILE_LIMIT_MIB = 96.0
SBOM = "/usr/share/sbom/node-hardening-agent.cdx.json"


@pytest.fixture
def node(tmp_path: Path) -> NodeRoot:
    """A sandboxed node; its folder is the container's /host."""
    return NodeRoot.make(tmp_path / "root", NODE)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that asks no port of a sandboxed kubelet."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def mounted(*pairs: tuple[Path, str]) -> tuple[str, ...]:
    """Options that mount these folders and files."""
    return tuple(word for here, there in pairs for word in ("--volume", f"{here}:{there}"))


def test_it_holds_what_controls_need_and_nothing_to_build_with(image: Image) -> None:
    """The node's tools are there; compiler, pip, package manager and perl are not; the emulator stays at home."""
    names = ["apparmor_parser", "modprobe", "nsenter", "gcc", "cc", "make", "pip", "pip3", "apt-get", "dpkg", "perl"]
    found = json.loads(
        image.python(f"import json, shutil; print(json.dumps([bool(shutil.which(n)) for n in {names}]))")
    )
    assert dict(zip(names, found, strict=True)) == {
        name: name in ("apparmor_parser", "modprobe", "nsenter") for name in names
    }
    code = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('pip', 'ensurepip', 'agent.sandbox')])"
    assert image.python(code).strip() == "[False, False, False]"


def test_the_command_is_on_the_path(image: Image) -> None:
    """As docs write it, for `kubectl exec`."""
    done = image.run("-c", "node-hardening-agent --version", options=("--entrypoint", "/bin/sh"))
    assert (done.returncode, __version__ in done.stdout) == (0, True), done.stderr


def test_the_tools_in_it_work(image: Image) -> None:
    """modprobe, nsenter, time zones and certificates are whole, and every shipped profile parses with its includes."""
    done = image.run(
        "-ec",
        "modprobe --version; nsenter --version; "
        "for one in /opt/node-hardening/agent/profiles/apparmor/*; do "
        "apparmor_parser -QTK $one; apparmor_parser -N $one; done",
        options=("--entrypoint", "/bin/sh"),
    )
    assert done.returncode == 0, done.stderr
    assert "k8s-apparmor-example-deny-write" in done.stdout
    assert image.python("import zoneinfo; print(zoneinfo.ZoneInfo('Europe/Berlin'))").strip() == "Europe/Berlin"
    code = (
        "import requests, ssl; trust = ssl.create_default_context(cafile=requests.certs.where()); "
        "print(len(trust.get_ca_certs()) > 50)"
    )
    assert image.python(code).strip() == "True"


def test_byte_code_is_used_and_never_written(image: Image) -> None:
    """Every module of ours, of packages and of Python comes from byte code without docstrings, whatever its time."""
    code = """
import agent.daemon, agent.kube, agent.reboot.coordinator, json, sys
bad = []
for name, module in sys.modules.items():
    spec = getattr(module, '__spec__', None)
    if spec is None or spec.origin in (None, 'built-in', 'frozen') or spec.origin.endswith('.so') or not spec.cached:
        continue
    try:
        head = open(spec.cached, 'rb').read(8)
    except OSError as error:
        bad.append([name, str(error)])
        continue
    # PEP 552: bit 0 hash-based, bit 1 check_source
    if not spec.cached.endswith('.opt-2.pyc') or head[4:] != bytes([1, 0, 0, 0]):
        bad.append([name, spec.cached, head.hex()])
print(json.dumps([sys.flags.optimize, sys.dont_write_bytecode, bad]))
"""
    assert json.loads(image.python(code)) == [2, True, []]


def test_audit_says_what_the_checkout_says(image: Image, node: NodeRoot, policy: Path) -> None:
    """The same node, the same findings, the same exit code: nothing that was taken out of the image was needed."""
    told = image.run(
        "audit", "--host-root", "/host", "--node-name", NODE, "--config", "/policy.yaml", "-o", "json",
        options=mounted((node.path, "/host"), (policy, "/policy.yaml")),
    )  # fmt: skip
    here = checkout("audit", "--host-root", str(node.path), "--node-name", NODE, "--config", str(policy), "-o", "json")
    assert told.returncode == here.returncode == 1, told.stderr
    assert _statuses(told.stdout) == _statuses(here.stdout)


def test_validate_lints_what_is_mounted(image: Image, tmp_path: Path) -> None:
    """The shipped profiles pass in the image's own parser; a broken one is refused with its line."""
    good = image.run("validate", "/profiles", options=mounted((ROOT / "profiles", "/profiles")))
    assert good.returncode == 0, good.stdout + good.stderr
    broken = tmp_path / "apparmor"
    broken.mkdir()
    (broken / "broken").write_text("profile broken {\n  file\n}\n")
    bad = image.run("validate", "/profiles", options=mounted((tmp_path, "/profiles")))
    assert bad.returncode == 2
    assert "broken:" in bad.stdout


def test_a_usage_error_is_one_line(image: Image) -> None:
    """Exit code 2 and what is wrong, without a traceback and without warnings of libraries."""
    done = image.run("audit", "--host-root", "/nowhere")
    assert (done.returncode, done.stderr) == (2, "node-hardening-agent: --host-root /nowhere: not a folder\n")


def test_run_keeps_a_node_within_its_memory(
    image: Image, node: NodeRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In-cluster credentials, TLS, every feature on: ready, annotated, 32 MiB at most, and gone on SIGTERM with 0."""
    with apiservers.emulator(tmp_path) as api, _client(api) as client:
        port = _free_port()
        pod = tmp_path / "pod"
        _service_account(api, client, pod)
        (tmp_path / "run.yaml").write_text(f'{POLICY}metrics: {{address: "127.0.0.1:{port}"}}\n')
        url = urlsplit(api.url)
        options = (
            "--detach", "--env", f"NODE_NAME={NODE}", "--env", f"POD_NAMESPACE={agents.NAMESPACE}",
            "--env", f"KUBERNETES_SERVICE_HOST={url.hostname}", "--env", f"KUBERNETES_SERVICE_PORT={url.port}",
            *mounted(
                (node.path, "/host"), (tmp_path / "run.yaml", "/etc/node-hardening/config.yaml"), (pod, SERVICE_ACCOUNT)
            ),
        )  # fmt: skip
        with _container(image, "run", "--host-root", "/host", options=options) as name:
            eventually(lambda: _status(port, "/readyz") == 200, what="ready")
            eventually(lambda: _annotation(client, "status") == "hardened", what="status annotation")
            eventually(lambda: "not required" in _annotation(client, "reboot"), what="reboot annotation")
            assert _status(port, "/metrics") == 200
            inspected = json.loads(_podman(image, "inspect", name).stdout)[0]
            resident = Resident.of(inspected["State"]["Pid"])
            _flood(port)
            attacked = Resident.of(inspected["State"]["Pid"])
            with capsys.disabled():
                sys.stdout.write(f"\nresident in the image: {resident}; with a flood of requests: {attacked}\n")
            stopped = _podman(image, "stop", "--time", "10", name)
            assert stopped.returncode == 0, stopped.stderr
            waited = _podman(image, "wait", name)
            log = _podman(image, "logs", name).stderr
        assert waited.stdout.strip() == "0", log
        assert [line for line in log.splitlines() if not line.startswith("{")] == [], "not a line of JSON"
        assert resident.total_mib <= LIMIT_MIB, log
        assert attacked.total_mib <= HOSTILE_LIMIT_MIB, log


PEAKS = """
import json, os, subprocess, sys
found = {}
for name in sorted(os.listdir("/nodes")):
    argv = [sys.executable, "-m", "agent", "audit", "--host-root", f"/nodes/{name}", "--node-name", "n", "-o", "json"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE)
    findings = json.loads(child.stdout.read())["findings"]
    _, status, usage = os.wait4(child.pid, 0)
    unknown = [one["id"] for one in findings if one["status"] == "unknown"]
    found[name] = usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status), unknown
print(json.dumps(found))
"""


def test_hostile_nodes_are_audited_within_the_memory(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The highest resident size of an audit with every control, for each node of tests/integration/hostile/files.py."""
    for name, hostile in FILES.items():
        hostile.node(tmp_path / name, Path("/nodes") / name)
    done = image.run("-c", PEAKS, options=("--entrypoint", "/usr/bin/python3", *mounted((tmp_path, "/nodes"))))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == sorted(FILES)
    highest = max(mib for mib, _, _ in found.values())
    with capsys.disabled():
        sys.stdout.write(f"\nhighest resident in the image, of {len(FILES)} hostile nodes: {highest:.1f} MiB\n")
    for name, (mib, code, unknown) in found.items():
        assert (code, mib <= HOSTILE_LIMIT_MIB) == (1, True), (name, mib, code)
        for id_, (status, _) in FILES[name].findings.items():
            assert status != "unknown" or f"kubelet/{id_}" in unknown, (name, id_)


ANSWERS = r"""
import json, os, sys, threading
import agent.daemon.main, agent.reboot.coordinator
from agent.bounded_http import DOCUMENT_BYTES, TooLarge, memory_of, parse_json

SHAPES = ('[' * 9 + ']' * 9, '{}', '{"a":1}', '"a\U0001f600"', '"\U0001f600' + 'a' * (1 << 20) + '"')
if len(sys.argv) == 1:
    found = []
    for number in range(len(SHAPES)):
        child = os.posix_spawn(sys.executable, [sys.executable, sys.argv[0], str(number)], os.environ)
        _, status, usage = os.wait4(child, 0)
        found.append([usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)])
    print(json.dumps(found))
else:
    shape = SHAPES[int(sys.argv[1])].encode() + b','
    body = b'{"items":[' + shape * ((DOCUMENT_BYTES - 1000) // (memory_of(shape) + 1)) + b'0]}'
    taken, found = threading.Barrier(3), []
    def take():
        try:
            kept = parse_json(body)
        except TooLarge:
            kept = None
        found.append(kept is not None)
        taken.wait()
    threads = [threading.Thread(target=take) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    sys.exit(found.count(True) != 1)
"""


def test_hostile_answers_are_parsed_within_the_memory(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """About the largest JSON of each costly shape that is not refused, three at the same time, beside everything that
    the daemon loads."""
    code = tmp_path / "code.py"
    code.write_text(ANSWERS)
    done = image.run("/code.py", options=("--entrypoint", "/usr/bin/python3", *mounted((code, "/code.py"))))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    highest = max(mib for mib, _ in found)
    with capsys.disabled():
        sys.stdout.write(f"\nhighest resident in the image, of {len(found)} hostile answers: {highest:.1f} MiB\n")
    assert [code for _, code in found] == [0] * len(found)
    assert highest <= HOSTILE_LIMIT_MIB


def _statuses(text: str) -> dict[str, str]:
    return {finding["id"]: finding["status"] for finding in json.loads(text)["findings"]}


def _status(port: int, path: str) -> int:
    try:
        return requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code
    except requests.ConnectionError:
        return 0


def _flood(port: int) -> None:
    """40 connections that send 98 headers of 64 KiB each; all of them are open at the end."""
    headers = b"GET /metrics HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 65000) for n in range(98))
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.settimeout(1)
            with suppress(OSError):
                client.sendall(headers)
        assert _status(port, "/healthz") == 200


def _annotation(client: Client, name: str) -> str:
    annotations = client.get(f"/api/v1/nodes/{NODE}").json()["metadata"].get("annotations", {})
    return str(annotations.get(f"node-hardening.io/{name}", ""))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def _client(api: ApiServer) -> Iterator[Client]:
    """An administrator, with daemonset.yaml's rights installed and the node registered."""
    client = api.client()
    agents.install(client)
    node: dict[str, Any] = {"metadata": {"name": NODE}}
    assert client.post("/api/v1/nodes", node).status_code == 201
    try:
        yield client
    finally:
        client.close()


def _service_account(api: ApiServer, client: Client, folder: Path) -> None:
    """The folder that the kubelet mounts into a pod."""
    folder.mkdir()
    assert api.ca is not None
    shutil.copy(api.ca, folder / "ca.crt")
    (folder / "token").write_text(agents.token(client, NODE))
    (folder / "namespace").write_text(agents.NAMESPACE)


@contextmanager
def _container(image: Image, *words: str, options: tuple[str, ...]) -> Iterator[str]:
    """A running container's id; removed afterwards, with its log shown when the test fails."""
    started = subprocess.run(
        image.command(*words, options=options), capture_output=True, text=True, timeout=120, check=False
    )
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    try:
        yield name
    except BaseException:
        sys.stderr.write(_podman(image, "logs", name).stderr[-4000:])
        raise
    finally:
        _podman(image, "rm", "--force", name)


def _podman(image: Image, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(image.engine.podman(*words), capture_output=True, text=True, timeout=120, check=False)


def test_the_default_command_is_the_daemonsets(image: Image) -> None:
    """The image alone starts what daemonset.yaml starts."""
    inspected = json.loads(_podman(image, "image", "inspect", TAG).stdout)[0]
    documents = yaml.safe_load_all((ROOT / "daemonset.yaml").read_text())
    daemonset = next(one for one in documents if one and one["kind"] == "DaemonSet")
    container = daemonset["spec"]["template"]["spec"]["containers"][0]
    assert inspected["Config"]["Cmd"] == container["args"]
    assert inspected["Config"]["Entrypoint"] == ["/usr/bin/python3", "-m", "agent"]


# -- what it says of itself --------------------------------------------------------------------------------------------


def test_its_labels_say_what_and_whence_it_is(image: Image) -> None:
    """OCI's annotations: this version, this commit, and a time that does not move from build to build."""
    inspected = json.loads(_podman(image, "image", "inspect", TAG).stdout)[0]
    labels = {
        name.removeprefix("org.opencontainers.image."): value for name, value in inspected["Config"]["Labels"].items()
    }
    assert "io.buildah.version" not in labels  # the same image by another builder
    assert labels["title"] == "node-hardening-agent"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    if labels["revision"] != "unknown":
        # Of this history; the checkout may have moved on while the image was built.
        commit = labels["revision"].removesuffix("-dirty")
        known = subprocess.run(["git", "merge-base", "--is-ancestor", commit, "HEAD"], cwd=ROOT, check=False)
        assert (len(commit), known.returncode) == (40, 0)
    assert labels["created"] == "2026-01-01T00:00:00Z"
    assert labels["base.name"] == f"localhost/{BASE}"
    assert "node" in labels["description"]
    assert "@" not in labels.get("source", "")
    # Podman prints fractions or none, by version.
    assert inspected["Created"].startswith("2026-01-01T00:00:00")


def test_its_sbom_is_valid_and_lies_beside_it(image: Image) -> None:
    """CycloneDX's own schema, strictly; dist/ has the same file."""
    text = image.run("-c", f"print(open({SBOM!r}).read(), end='')", options=("--entrypoint", "/usr/bin/python3")).stdout
    assert image.sbom.read_text() == text
    assert sbom_problems(text) == ""
    assert json.loads(text)["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"


def test_its_sbom_names_what_is_in_it_and_no_more(image: Image) -> None:
    """Python's distributions with their wheels' hashes, Debian's packages with their versions; what was taken out is
    told apart."""
    code = """
import importlib.metadata as m, json, pathlib, re
status = pathlib.Path('/var/lib/dpkg/status').read_text().split('\\n\\n')
fields = [dict(re.findall(r'^(Package|Version|Status): (.*)$', one, re.M)) for one in status]
print(json.dumps([
    {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions(path=['/opt/node-hardening'])},
    {f['Package']: f['Version'] for f in fields if f.get('Status', '').endswith(' installed')},
]))
"""
    distributions, packages = json.loads(image.python(code))
    document = json.loads(image.sbom.read_text())
    told: dict[str, dict[str, Any]] = {}
    for one in document["components"]:
        kind, _, name = one["bom-ref"].partition(":")
        told.setdefault(kind, {})[name] = one
    assert {name: one["version"] for name, one in told["pypi"].items()} == distributions
    locked = (ROOT / "requirements/run.txt").read_text()
    for name, one in told["pypi"].items():
        assert f"sha256:{one['hashes'][0]['content']}" in locked, name
    gone = document["metadata"]["properties"][0]["value"].split()
    assert {
        **{name: one["version"] for name, one in told["deb"].items()},
        **{name: packages[name] for name in gone},
    } == packages
    assert "perl-base" in gone
    left, _, before = told["deb"]["apt"]["properties"][1]["value"].split(" ")
    assert 0 < int(left) < int(before)
    assert {"python3.11-minimal", "apparmor", "kmod", "libc6"} <= set(told["deb"])
    assert [one for one in told["deb"].values() if not one.get("licenses")] == []
    assert "changed" in told["pypi"]["certifi"]["pedigree"]["notes"]
    assert told["agent"]["node-hardening-agent"]["version"] == __version__
    assert told["os"]["debian-12"]["name"] == "debian"
