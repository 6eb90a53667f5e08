"""API servers for the integration tests: ``api`` is the emulator and, when it is there, a real kube-apiserver too.

``sandbox`` is an emulator of its own for each test, with controllers and kubelets, for what only the emulator has.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support import agents, apiservers
from tests.support.apiservers import ApiServer, Client

NO_ASSETS = "no real control plane: KUBEBUILDER_ASSETS does not name a folder with etcd and kube-apiserver"


class _Servers:
    """Starts each kind of server once, when it is first asked for."""

    def __init__(self, stack: ExitStack, factory: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._factory = factory
        self._running: dict[str, ApiServer] = {}

    def running(self) -> list[ApiServer]:
        return [*self._running.values()]

    def get(self, kind: str) -> ApiServer:
        if kind not in self._running:
            folder: Path = self._factory.mktemp(kind)
            if kind == "emulator":
                server = self._stack.enter_context(apiservers.emulator(folder))
            else:
                assets = apiservers.assets()
                if assets is None:
                    pytest.skip(NO_ASSETS)
                server = self._stack.enter_context(apiservers.control_plane(assets, folder))
            self._running[kind] = server
        return self._running[kind]


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Servers]:
    with ExitStack() as stack:
        yield _Servers(stack, tmp_path_factory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``api`` runs on the emulator and, where there is one, on a real kube-apiserver.

    Marked ``emulator_only`` or ``real_only`` it runs on one; the latter is skipped with a reason where it is missing.
    """
    if "api" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    kinds = ["emulator"] if "real_only" not in marks else []
    if "emulator_only" not in marks and (apiservers.assets() is not None or not kinds):
        kinds.append("real")
    metafunc.parametrize("api", kinds, indirect=True)


def pytest_report_header() -> str:
    """Say which servers the tests run on."""
    return f"API servers: emulator, {apiservers.assets() or NO_ASSETS}"


@pytest.fixture
def api(request: pytest.FixtureRequest, _servers: _Servers, _no_policy_outlives_its_file: None) -> ApiServer:
    """A bare API server over https: ``url``, ``token``, ``ca``."""
    return _servers.get(request.param)


@pytest.fixture(scope="module")
def _no_policy_outlives_its_file(_servers: _Servers) -> Iterator[None]:
    """Admission policies count in the whole server, for the agents of the next file too."""
    yield
    for server in _servers.running():
        admin = server.client()
        agents.remove_admission(admin)
        admin.close()


@pytest.fixture
def client(api: ApiServer) -> Iterator[Client]:
    """An administrator's client of ``api``."""
    made = api.client()
    yield made
    made.close()


@pytest.fixture
def unique() -> str:
    """A name that no other test uses: the servers live as long as the session."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def namespace(client: Client, unique: str) -> str:
    """A namespace of this test's own."""
    answer = client.post("/api/v1/namespaces", {"metadata": {"name": unique}})
    assert answer.status_code == 201, answer.text
    return unique


@pytest.fixture
def node(client: Client, unique: str) -> str:
    """A node of this test's own, without taints."""
    path = "/api/v1/nodes"
    assert client.post(path, {"metadata": {"name": unique}}).status_code == 201
    # The server gives new nodes the not-ready taint; here is no controller to take it away.
    assert client.patch(f"{path}/{unique}", {"spec": {"taints": None}}).status_code == 200
    return unique


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """An emulator over http with controllers and fast kubelets, and nobody else in it."""
    kubelet = KubeletSettings(heartbeat_seconds=0.2, start_seconds=0.0, termination_seconds=0.05)
    with Sandbox(Settings(kubelet=kubelet, node_grace_seconds=0.6)) as made:
        yield made
