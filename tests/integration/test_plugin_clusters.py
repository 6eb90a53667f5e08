"""`status --contexts` and `report --contexts` on real servers: one table, one page, gaps named."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.plugin import clusters
from agent.plugin.main import main
from agent.plugin.session import COULD_NOT, NOT_WELL, OK, USAGE, Session
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support import plugin_crowd
from tests.support.html import Sound
from tests.support.plugin_fleet import Staged

SETTINGS = Settings(controllers=False, kubelet=KubeletSettings(enabled=False))
Contexts = Callable[..., str]


@pytest.fixture(scope="module")
def crowd() -> Iterator[Sandbox]:
    """Thirty nodes, and something of everything the matter."""
    with Sandbox(SETTINGS) as made:
        plugin_crowd.put_on(made, plugin_crowd.crowd())
        yield made


@pytest.fixture(scope="module")
def calm() -> Iterator[Sandbox]:
    """Three hardened nodes."""
    with Sandbox(SETTINGS) as made:
        Staged().put_on(made)
        yield made


@pytest.fixture
def kubeconfig(crowd: Sandbox, calm: Sandbox, tmp_path: Path) -> Contexts:
    """Writes one whose contexts name these servers; port 1 stands for a cluster that is away."""

    def write(**contexts: Sandbox | None) -> str:
        names = {name.replace("_", "-"): server for name, server in contexts.items()}
        urls = {name: server.url if server else "http://127.0.0.1:1" for name, server in names.items()}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "",
            "clusters": [{"name": name, "cluster": {"server": url}} for name, url in urls.items()],
            "users": [{"name": name, "user": {"token": one.token if one else "t"}} for name, one in names.items()],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
        }  # fmt: skip
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(document))
        return str(path)

    return write


def run(config: str, *line: str) -> int:
    """Exit code of the plugin; a server that is away is given up soon."""
    return main(["--kubeconfig", config, "--request-timeout", "3s", *line])


def test_status_shows_clusters_in_one_table_worst_first(
    kubeconfig: Contexts, crowd: Sandbox, calm: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that match; the one that is away is named, with the reason, and the exit code says so."""
    config = kubeconfig(prod_a=calm, prod_b=crowd, prod_c=None, test=calm)
    assert run(config, "status", "--contexts", "prod-*") == COULD_NOT
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["CONTEXT", "prod-c", "prod-b", "prod-a"]
    assert "127.0.0.1:1" in lines[1]
    assert lines[2].split()[1] == "30"
    assert lines[5].startswith("3 clusters: 1 not readable, 1 needs attention, 1 healthy; 33 nodes: ")
    assert "  -> kubectl node-hardening status --context prod-b" in lines


def test_the_exit_code_is_that_of_the_worst(
    kubeconfig: Contexts, crowd: Sandbox, calm: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `status` of one has it."""
    config = kubeconfig(calm_1=calm, calm_2=calm, crowd=crowd)
    for patterns, code in ((("calm-*",), OK), (("calm-?", "crowd"), NOT_WELL)):
        words = [word for pattern in patterns for word in ("--contexts", pattern)]
        assert run(config, "status", *words, "-o", "json") == code
        document = json.loads(capsys.readouterr().out)
        assert document["well"] is (code == OK)
        for one in document["clusters"]:
            expected = (30, False) if one["context"] == "crowd" else (3, True)
            assert (one["nodes"], one["well"], one["error"]) == (*expected, None)


def test_report_is_one_page_of_all_clusters(
    kubeconfig: Contexts, crowd: Sandbox, calm: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings of all together, with each node's cluster; next steps name the context; a gap is on the page."""
    config = kubeconfig(prod_a=calm, prod_b=crowd, prod_c=None)
    target = tmp_path / "fleet.html"
    assert run(config, "report", "--contexts", "prod-*", "-O", str(target)) == COULD_NOT
    found = Sound.of(target.read_text())
    assert found.wrong == []
    for words in (
        "prod-c",
        "not readable",
        "127.0.0.1:1: connection refused",
        "prod-b/",
        "kubelet/4.2.1",
        "3 clusters: 1 not readable",
    ):
        assert words in found.words
    assert "kubectl node-hardening status --context prod-b" in found.words
    assert "3 clusters" in capsys.readouterr().err
    assert run(config, "report", "--contexts", "prod-[ab]", "-o", "json") == OK
    document = json.loads(capsys.readouterr().out)
    assert [one["context"] for one in document["clusters"]] == ["prod-b", "prod-a"]
    assert document["findings"][0]["nodes"]["names"][0].startswith("prod-b/")


def test_a_cluster_that_fails_midway_never_counts_as_well(
    kubeconfig: Contexts, calm: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal in the middle of its reads is its error."""
    with Sandbox(SETTINGS) as refusing:
        refusing.add_fault(Fault(FaultKind.STATUS, path="/nodes", code=403, reason="Forbidden"))
        config = kubeconfig(a=refusing, b=calm)
        assert run(config, "status", "--contexts", "*", "-o", "json") == COULD_NOT
    refused, other = json.loads(capsys.readouterr().out)["clusters"]
    assert (refused["well"], refused["nodes"], other["well"]) == (False, None, True)
    assert "403" in refused["error"] or "forbidden" in refused["error"].lower()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("status", "--contexts", "stage-*"), "no context matches stage-*; there are: prod-a"),
        (("status", "node-1", "--contexts", "*"), "name one with --context"),
        (("report", "--contexts", "*", "--cluster"), "with --context instead of --contexts"),
        (("status", "--contexts", "*", "--context", "prod-a"), "leave --context and --cluster out"),
    ],
)
def test_what_does_not_go_together_is_refused(
    kubeconfig: Contexts, calm: Sandbox, capsys: pytest.CaptureFixture[str], line: tuple[str, ...], words: str
) -> None:
    """With what there is."""
    assert run(kubeconfig(prod_a=calm), *line) == USAGE
    assert words in capsys.readouterr().err


def test_few_clusters_are_read_at_the_same_time(kubeconfig: Contexts, calm: Sandbox, monkeypatch: Any) -> None:
    """However many there are; and each result is a row, not its nodes."""
    lock, running, most = threading.Lock(), 0, 0
    read = clusters.read_fleet

    def counted(session: Session, selector: str) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return read(session, selector)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(clusters, "read_fleet", counted)
    config = kubeconfig(**{f"c{number}": calm for number in range(20)})
    assert run(config, "status", "--contexts", "c*", "-o", "json") == OK
    assert 1 <= most <= 6
