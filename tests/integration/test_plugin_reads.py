"""status, why, history and diff over HTTP: in every phase, as kubectl's plugin, live, and in trouble."""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import annotations as keys
from agent.kube import CONFIGMAPS, LEASES, NODES, Change, Kube, Resource
from agent.plugin.commands import COMMANDS
from agent.plugin.main import main, parser, run
from agent.plugin.session import Command, Form, Session
from agent.reboot.phases import Phase
from agent.sandbox.authn import User
from agent.sandbox.server import Sandbox
from tests.support.access import direct
from tests.support.apiservers import ApiServer, Client
from tests.support.kube import client_of
from tests.support.plugin_fleet import NAMESPACE, SCENES, Staged
from tests.support.plugin_screen import Screen, emulator
from tests.support.programs import needed

Object = dict[str, Any]
PROGRAM = Path(sys.executable).parent / "kubectl-node_hardening"
SECONDS = 30.0


@pytest.fixture(scope="module")
def still() -> Iterator[Sandbox]:
    """One emulator for all scenes."""
    with emulator() as sandbox:
        yield sandbox


@pytest.fixture
def kubeconfig(still: Sandbox, tmp_path: Path) -> Path:
    """An administrator's."""
    return still.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def screen(still: Sandbox) -> Screen:
    """Eighty columns, in front of a drain that is held up."""
    staged = SCENES["draining"]()
    staged.put_on(still)
    return Screen(still, staged, width=80)


# -- every phase -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
def test_every_command_in_every_phase(still: Sandbox, scene: str) -> None:
    """Nothing but the answer, within the terminal, with exit codes that scripts can use, and as documents."""
    staged = SCENES[scene]()
    staged.put_on(still)
    lines = ["status", "history", "diff node-2", "history node-1"]
    lines += [f"{verb} {name}" for name in staged.names for verb in ("status", "why")]
    for line in lines:
        shown = Screen(still, staged, 80).type(line)
        if shown.code == 2:
            assert (scene, line, "no agent ever checked" in shown.err) == ("without-agent", "diff node-2", True)
            continue
        assert shown.err == "", line
        assert shown.code in (0, 1), line
        too_long = [one for one in shown.out.splitlines() if len(one) > 80 and "-> kubectl" not in one]
        assert too_long == [], line
        document = json.loads(Screen(still, staged).type(f"{line} -o json").out)
        assert document
    document = json.loads(Screen(still, staged).type("status -o json").out)
    assert yaml.safe_load(Screen(still, staged).type("status -o yaml").out) == document


def test_status_tells_worst_first_and_its_exit_code(still: Sandbox) -> None:
    """1 where a person should look, 0 while reboots go their way."""
    for scene, code in (
        ("calm", 0),
        ("non-compliant", 1),
        ("without-agent", 1),
        ("draining", 0),
        ("stuck", 1),
        ("failed", 1),
    ):
        staged = SCENES[scene]()
        staged.put_on(still)
        shown = Screen(still, staged).type("status")
        assert shown.code == code, scene
    drifted = SCENES["non-compliant"]()
    drifted.put_on(still)
    rows = Screen(still, drifted).type("status").out.splitlines()[1:4]
    assert [row.split()[0] for row in rows] == ["node-2", "node-3", "node-1"]


def test_a_next_step_of_several_findings_is_printed_once(still: Sandbox) -> None:
    """Below the last of those in a row that have it."""
    staged = SCENES["non-compliant"]()
    staged.put_on(still)

    def alike(node: dict[str, Any]) -> None:
        notes = node["metadata"]["annotations"]
        found = json.loads(notes[keys.FINDINGS])
        for one in found:
            one["remediation"] = "Do this."
        notes[keys.FINDINGS] = json.dumps(found)

    still.update("nodes", "node-2", alike)
    for command in ("why", "diff"):
        shown = Screen(still, staged).type(f"{command} node-2").out
        assert (shown.count("modprobe/sctp"), shown.count("kubelet/4.2.1")) == (1, 1), shown
        assert (shown.count("-> Do this."), shown.rstrip().endswith("-> Do this.")) == (1, True), shown


def test_status_of_a_stuck_lock_names_holder_and_command(still: Sandbox) -> None:
    """What on-call looks for first stands first, and below with what to type."""
    staged = SCENES["stuck"]()
    staged.put_on(still)
    shown = Screen(still, staged, 80).type("status").out
    holder = staged.leases()[0]["spec"]["holderIdentity"].partition("/")[0]
    assert shown.splitlines()[1].startswith(f"{holder} ")
    assert "STUCK" in shown.splitlines()[1]
    assert f"-> kubectl node-hardening why {holder}" in shown


def test_the_last_node_of_a_pool_is_stuck_without_a_waiter(still: Sandbox) -> None:
    """In a pool of one: status, why, documents and the page say rebooting, then stuck, with the right next step."""
    staged = Staged(names=("node-1",))
    staged.machine("node-1").down_seconds = 1e9
    staged.want()
    staged.until_phase("node-1", Phase.REBOOTING)
    for seconds, phase, code, step in (
        (60, "rebooting", "Rebooting", ""),
        (3600, "STUCK", "NotBack", "kubectl node-hardening unlock workers/0"),
    ):
        staged.run(seconds)
        staged.put_on(still)
        screen = Screen(still, staged, 100)
        assert phase in screen.type("status").out.splitlines()[1]
        document = json.loads(screen.type("why node-1 -o json").out)
        (reason,) = document["reboot"]["reasons"]
        assert (document["reboot"]["phase"], reason["code"]) == ("rebooting", code)
        assert any(one.startswith(step) for one in reason["next"]) or not step
        assert json.loads(screen.type("report -o json").out)["locks"][0]["stuck"] is (phase == "STUCK")


def test_lease_and_state_beat_an_older_status(still: Sandbox) -> None:
    """The machine is down, and its agent's last status is about the drain."""
    staged = SCENES["rebooting"]()
    staged.put_on(still)
    name = staged.leases()[0]["spec"]["holderIdentity"].partition("/")[0]
    old = {"v": 1, "phase": "draining", "reason": "Draining", "mode": "enforce", "required": True, "message": "1 of 2"}

    def change(node: Object) -> None:
        node["metadata"]["annotations"]["node-hardening.io/reboot-status"] = json.dumps(old)

    still.update("nodes", name, change)
    screen = Screen(still, staged, 100)
    assert json.loads(screen.type("status -o json").out)["reboots"] == {"waiting": 2, "rebooting": 1}
    assert json.loads(screen.type(f"why {name} -o json").out)["reboot"]["reasons"][0]["code"] == "Rebooting"
    assert "it is rebooting" in screen.type(f"why {name}").out


def test_an_older_agents_node_is_shown_beside_newer_ones(still: Sandbox) -> None:
    """With its sentence, and that it is too old for more."""
    staged = SCENES["paused"]()
    staged.put_on(still)

    def change(node: Object) -> None:
        del node["metadata"]["annotations"]["node-hardening.io/reboot-status"]
        node["metadata"]["annotations"]["node-hardening.io/reboot"] = "blocked by something of old"

    still.update("nodes", "node-1", change)
    screen = Screen(still, staged, None)
    assert "1 node with an agent too old to report details" in screen.type("status").out
    for line in ("why node-1", "status node-1"):
        shown = screen.type(line).out
        assert "too old to report details" in shown
        assert "blocked by something of old" in shown
    shown_nodes = json.loads(screen.type("status -o json").out)["nodes"]
    assert [one["node"] for one in shown_nodes if one["reboot"]["outdated"]] == ["node-1"]


def test_selectors_take_part_of_the_fleet(screen: Screen) -> None:
    """As kubectl's -l; a wrong one is refused by the server with its own words."""
    assert "1 node:" in screen.type("status -l kubernetes.io/hostname=node-2").out
    assert "no nodes" in screen.type("status -l kubernetes.io/hostname=none").out
    wrong = screen.type("status -l 'a=='=")
    assert wrong.code == 3
    assert "Traceback" not in wrong.err


def test_wide_has_the_whole_sentence(screen: Screen) -> None:
    """However narrow the terminal is."""
    assert "held by shop/web (Deployment web))" in screen.type("status -o wide").out


def test_quiet_nodes_of_a_big_fleet_are_counted(still: Sandbox) -> None:
    """On a terminal; a pipe and --all get every node."""
    staged = Staged(names=tuple(f"node-{number}" for number in range(1, 61)))
    staged.want("node-7")
    staged.until_phase("node-7", Phase.REBOOTING)
    staged.put_on(still)
    shown = Screen(still, staged, 100).type("status").out
    assert "and 59 nodes hardened, with nothing to do (--all lists them)" in shown
    assert len(shown.splitlines()) < 12
    for everything in (Screen(still, staged, 100).type("status --all"), Screen(still, staged, None).type("status")):
        assert sum(line.startswith("node-") for line in everything.out.splitlines()) == 60


# -- on both API servers -----------------------------------------------------------------------------------------------


def test_why_on_both_api_servers(api: ApiServer, client: Client, namespace: str, unique: str) -> None:
    """The Node, Leases and ConfigMaps as each of them stores them."""
    staged = Staged(names=tuple(f"{unique}-{number}" for number in (1, 2, 3)))
    for name in staged.names:
        staged.machine(name).pdb_until = 1e9
    staged.want()
    first = staged.first()
    staged.until_phase(first, Phase.DRAINING)
    staged.run(300)
    uids = _put(client, staged, namespace)
    waiting = next(name for name in staged.names if name != first)
    kube = client_of(api)
    try:
        code, document = _document(kube, namespace, staged.now, "why", waiting)
        assert (code, document["reboot"]["phase"]) == (1, "waiting")
        assert document["reboot"]["reasons"][0]["code"] == "WaitingForLock"
        assert document["reboot"]["reasons"][0]["next"] == [f"kubectl node-hardening why {first}"]
        code, document = _document(kube, namespace, staged.now, "status", "-l", f"stage={unique}")
        assert document["nodes"][0]["node"] == first
        assert document["reboots"] == {"draining": 1, "waiting": 2}
        assert document["locks"][0]["holder"] == first
        assert set(uids) == set(staged.names)
    finally:
        kube.close()
        for name in staged.names:
            client.delete(f"/api/v1/nodes/{name}")


def _put(client: Client, staged: Staged, namespace: str) -> dict[str, str]:
    """As an administrator; the server gives UIDs of its own, which the leases then name."""
    uids = {}
    unique = staged.names[0].rpartition("-")[0]
    for node in staged.nodes():
        name = node["metadata"]["name"]
        del node["metadata"]["uid"]
        node["metadata"]["labels"]["stage"] = unique
        made = client.post("/api/v1/nodes", node)
        assert made.status_code == 201, made.text
        uids[name] = made.json()["metadata"]["uid"]
        client.patch(f"/api/v1/nodes/{name}/status", {"status": node["status"]}, "merge")
    for lease in staged.leases():
        text = json.dumps(lease)
        for name, uid in uids.items():
            text = text.replace(f"uid-{name}", uid)
        body = json.loads(text)
        body["metadata"]["namespace"] = namespace
        made = client.post(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", body)
        assert made.status_code == 201, made.text
    config = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": staged.policy}}
    assert client.post(f"/api/v1/namespaces/{namespace}/configmaps", config).status_code == 201
    return uids


def _document(kube: Kube, namespace: str, now: float, *argv: str) -> tuple[int, Object]:
    out = io.StringIO()
    options = parser(COMMANDS).parse_args([*argv, "-o", "json"])
    session = Session(lambda: kube, namespace, Form.JSON, out, io.StringIO(), lambda: now)
    return run(options, session), json.loads(out.getvalue())


# -- live --------------------------------------------------------------------------------------------------------------


def test_watch_tells_each_change_as_a_line(screen: Screen, still: Sandbox) -> None:
    """Without a terminal: what was there, then what changed, and nothing is asked for again and again."""
    kube = Kube(direct(still.url, token=still.token), node="watch")
    out = io.StringIO()
    session = Session(lambda: kube, NAMESPACE, Form.TABLE, out, io.StringIO(), lambda: screen.staged.now)
    options = parser(COMMANDS).parse_args(["status", "--watch"])
    thread = threading.Thread(target=run, args=(options, session), daemon=True)
    thread.start()
    _until(lambda: out.getvalue().count("\n") == 3)
    still.clear_requests()
    still.update("nodes", "node-1", _becomes_opted_out)
    _until(lambda: "node-1  Ready  hardened  blocked  OPS-1" in out.getvalue())
    still.delete("nodes", "node-2")
    _until(lambda: "node-2  deleted" in out.getvalue())
    assert [one.path for one in still.requests if "watch" not in one.path and one.method != "GET"] == []
    kube.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()


class _Defective(Kube):
    """Its watch of one resource ends in a defect, as a value that nobody foresaw would make it."""

    broken = NODES

    def follow(self, resource: Resource, namespace: str = "", **selectors: str) -> Any:
        """As the client's own, up to the first change."""
        changes = super().follow(resource, namespace, **selectors)
        return _ends_in_a_defect(changes) if resource is self.broken else changes


def _ends_in_a_defect(changes: Iterable[Change]) -> Iterator[Change]:
    yield next(iter(changes))
    raise TypeError("nobody foresaw this")


@pytest.mark.parametrize("broken", [NODES, LEASES, CONFIGMAPS], ids=lambda resource: resource.plural)
def test_watch_ends_with_the_defect_of_any_of_its_threads(still: Sandbox, broken: Resource) -> None:
    """It would otherwise end, or stand still, as if everything were fine."""
    kube = _Defective(direct(still.url, token=still.token), node="watch")
    kube.broken = broken
    session = Session(lambda: kube, NAMESPACE, Form.TABLE, io.StringIO(), io.StringIO(), time.time)
    with pytest.raises(TypeError, match="nobody foresaw this"):
        run(parser(COMMANDS).parse_args(["status", "--watch"]), session)


def _becomes_opted_out(node: Object) -> None:
    status = {"v": 1, "phase": "blocked", "reason": "OptedOut", "mode": "enforce", "required": True, "message": "OPS-1"}
    node["metadata"]["annotations"]["node-hardening.io/reboot-status"] = json.dumps(status)


def test_watch_on_a_terminal_redraws_and_ends_on_ctrl_c(screen: Screen, still: Sandbox, kubeconfig: Path) -> None:
    """On the terminal's other screen, which is given back; no traceback, exit code 130."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "--kubeconfig", kubeconfig, "status", "--watch"],
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env={**_environment(kubeconfig), "TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()
    reader = threading.Thread(target=_drain, args=(ours, seen), daemon=True)
    reader.start()
    try:
        _until(lambda: b"Ctrl-C ends" in seen)
        still.update("nodes", "node-1", _becomes_opted_out)
        _until(lambda: b"1 blocked" in seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait()
        reader.join(SECONDS)
        os.close(ours)
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert seen.startswith(b"\x1b[?1049h")
    assert b"\x1b[?1049l" in seen


def _drain(descriptor: int, into: bytearray) -> None:
    try:
        while chunk := os.read(descriptor, 65536):
            into += chunk
    except OSError:  # a pty whose other end is closed
        return


def _until(reached: Any) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end, "not reached"
        time.sleep(0.02)


# -- as kubectl's plugin -----------------------------------------------------------------------------------------------


def _environment(kubeconfig: Path) -> dict[str, str]:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(kubeconfig.parent), "KUBECONFIG": str(kubeconfig), "LANG": "C.UTF-8"}


def _kubectl(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [needed("kubectl"), *words],
        env=_environment(kubeconfig), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["status", "status -o json", "history"])
@pytest.mark.usefixtures("screen")
def test_a_result_that_cannot_be_written_is_an_error_without_a_traceback(kubeconfig: Path, line: str) -> None:
    """A full disk behind `>`; closed standard output, as some supervisors start things, costs nothing."""
    done = [
        subprocess.run(
            ["/bin/bash", "-c", f'"$0" {line} {to}', PROGRAM],
            env=_environment(kubeconfig), capture_output=True, text=True, timeout=300, check=False,
        )
        for to in (">/dev/full", ">&-")
    ]  # fmt: skip
    reason = "cannot write to standard output: No space left on device"
    assert (done[0].returncode, done[0].stderr) == (3, f"kubectl node-hardening: {reason}\n")
    assert (done[1].returncode in (0, 1), done[1].stderr) == (True, "")


def test_kubectl_finds_the_plugin(screen: Screen, kubeconfig: Path) -> None:
    """`kubectl node-hardening` is the program, with the kubeconfig that kubectl uses."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not installed: make venv")
    done = _kubectl(kubeconfig, "node-hardening", "why", "node-1", "-o", "json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["reboot"]["reasons"][0]["code"] == "WaitingForLock"
    assert "kubectl-node_hardening" in _kubectl(kubeconfig, "plugin", "list").stdout


def test_kubectl_completes_the_plugins_words(screen: Screen, kubeconfig: Path) -> None:
    """Through kubectl's own hook: commands, options, and nodes of the cluster."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not installed: make venv")
    assert "status\t" in _kubectl(kubeconfig, "__complete", "node-hardening", "st").stdout
    nodes = _kubectl(kubeconfig, "__complete", "node-hardening", "why", "node-").stdout.splitlines()
    assert nodes[:3] == ["node-1", "node-2", "node-3"]
    assert _kubectl(kubeconfig, "__complete", "node-hardening", "status", "-o", "").stdout.splitlines()[0] == "table"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_own_scripts_offer_the_same(screen: Screen, kubeconfig: Path, shell: str) -> None:
    """Each shell reads its script, and bash fills in a word."""
    script = subprocess.run(
        [PROGRAM, "completion", shell], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    assert "kubectl_complete-node_hardening" in script
    if shell != "bash":
        return
    asked = f"{script}\nCOMP_WORDS=(kubectl-node_hardening why node-); COMP_CWORD=2; _kubectl_node_hardening\n"
    done = subprocess.run(
        ["/bin/bash", "-c", asked + 'echo "${COMPREPLY[@]}"'],
        env=_environment(kubeconfig), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout == "node-1 node-2 node-3\n", done.stderr


# -- trouble -----------------------------------------------------------------------------------------------------------


def _run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().err


def test_a_node_that_is_not_there(screen: Screen) -> None:
    """A usage error with what to type, not a 404."""
    shown = screen.type("why node-9")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == "kubectl node-hardening: there is no node 'node-9': kubectl get nodes lists them\n"


def test_a_server_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence that names the server and what to look at."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }  # fmt: skip
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    code, error = _run("--kubeconfig", str(file), "status", capsys=capsys)
    assert code == 3
    assert "127.0.0.1:9" in error
    assert "is this the right cluster?" in error
    assert "Traceback" not in error


def test_a_kubeconfig_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the file's name."""
    code, error = _run("--kubeconfig", str(tmp_path / "none"), "status", capsys=capsys)
    assert code == 2
    assert str(tmp_path / "none") in error


@pytest.mark.parametrize(("token", "words"), [("nobody", "node-hardening-reader"), ("wrong", "log in again")])
def test_a_token_that_may_not(
    screen: Screen, tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str, words: str
) -> None:
    """403 names the role to ask for, 401 the login."""
    screen.sandbox.add_token("nobody", User("nobody"))
    file = screen.sandbox.kubeconfig(tmp_path / "kubeconfig", token=token)
    code, error = _run("--kubeconfig", str(file), "status", capsys=capsys)
    assert code == 3
    assert words in error


def test_a_reader_that_may_only_see_nodes_is_served_what_it_may_see(still: Sandbox, screen: Screen) -> None:
    """Locks, pause and policy that may not be read are reported, and nothing is called well for it."""
    role = {
        "metadata": {"name": "nodes-only"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}],
    }
    if still.get("clusterroles", "nodes-only") is None:
        still.create("clusterroles", role)
        binding = {
            "metadata": {"name": "nodes-only"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nodes-only"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "little"}],
        }
        still.create("clusterrolebindings", binding)
    still.add_token("little", User("little"))
    kube = Kube(direct(still.url, token="little"), node="t")
    code, document = _document(kube, NAMESPACE, screen.staged.now, "status")
    assert (code, len(document["nodes"]), document["well"]) == (1, 3, False)
    assert "cannot be read" in document["policy"]["problem"]
    code, document = _document(kube, NAMESPACE, screen.staged.now, "why", "node-1")
    assert "the locks cannot be read" in document["reboot"]["reasons"][0]["message"]
    kube.close()


def test_a_reader_that_has_seen_enough(screen: Screen, kubeconfig: Path) -> None:
    """A reader that closes the pipe ends it quietly, and not with the code of "everything is fine"."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [PROGRAM, "status", "-o", "json"], stdout=writer, stderr=subprocess.PIPE, env=_environment(kubeconfig),
        text=True, timeout=300, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", 141)


@pytest.mark.parametrize("line", ["status node-1 -l a=b", "status --watch -o json"])
def test_options_that_do_not_go_together(screen: Screen, line: str) -> None:
    """Exit code 2, before anything is asked of the cluster."""
    assert screen.type(line).code == 2


@pytest.mark.parametrize(
    "line", ["status -o html", "nothing", "why", "history --limit -1", "history --limit x", "unlock --watch x"]
)
def test_usage_errors(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, from the parser, in words of the command line."""
    with pytest.raises(SystemExit) as ended:
        parser(COMMANDS).parse_args(line.split())
    assert ended.value.code == 2
    assert "invalid _" not in capsys.readouterr().err


def test_options_stand_before_and_behind_the_command() -> None:
    """As with kubectl."""
    before = parser(COMMANDS).parse_args(["-n", "x", "-o", "json", "status"])
    behind = parser(COMMANDS).parse_args(["status", "-n", "x", "-o", "json"])
    assert (before.namespace, before.output) == (behind.namespace, behind.output) == ("x", "json")
    both = parser(COMMANDS).parse_args(["--as-group", "a", "status", "--as-group", "b", "--request-timeout", "90"])
    assert ([*both.groups, *both.more_groups], both.request_timeout) == (["a", "b"], "90s")


def test_a_flag_of_a_commands_own_leaves_kubectls_before_the_command() -> None:
    """`audit --cluster` is about the cluster; `--cluster NAME audit` chooses one."""

    def configure(own: argparse.ArgumentParser) -> None:
        own.add_argument("--cluster", action="store_true")

    command = Command("look", "looks", configure, lambda *_: 0)
    given = parser([command]).parse_args(["--cluster", "prod", "look", "--cluster"])
    assert (given.kube_cluster, given.cluster) == ("prod", True)
    assert parser(COMMANDS).parse_args(["status", "--cluster", "prod"]).kube_cluster == "prod"
