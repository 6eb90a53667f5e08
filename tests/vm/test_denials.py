"""Denials: what a real kernel records of AppArmor and seccomp, who is named, and what is said when none arrives."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import annotations as keys
from agent.controls.seccomp.refusal_records import FLAGS
from agent.plugin.record.profile import make
from agent.plugin.record.recordings import RecordingRow, recordings_of
from tests.support.daemons import get
from tests.vm.conftest import Boot
from tests.vm.harness import container
from tests.vm.harness.cluster import UNIT, ClusterOfMachines, cluster, eventually
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import apply, policy
from tests.vm.test_in_container import CAPABILITIES, MOUNTS
from tests.vm.test_in_container import contained as agent_in_container

_PYTHON = "/opt/node-hardening/bin/python"
DENY_WRITE = "k8s-apparmor-example-deny-write"
UID = "11111111-2222-3333-4444-555555555555"
ID = "ab" * 32
LINK = f"/var/log/containers/web-0_shop_nginx-{ID}.log"
CGROUP = f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice"
SCOPE = f"/sys/fs/cgroup{CGROUP}/cri-containerd-{ID}.scope"
ENTER = f"echo $$ > {SCOPE}/cgroup.procs; exec"  # as one of the container's processes
OBSERVE = (Path(__file__).parent / "programs/observe.py").read_text()
GETPPID, GETPGRP, GETGID = 110, 111, 104
# Seconds in which a busy machine too reads a record and whose process it is: so long a process waits before it starts
# others, or before it ends.
LINGER = 15
# COUNT NUMBER PAUSE LINGER: so many calls of one syscall, each of which is logged.
LOGGED = """
import ctypes, struct, sys, time
number, pause = int(sys.argv[2]), float(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
program = b"".join(struct.pack("HBBI", *one) for one in [(32, 0, 0, 0), (21, 0, 1, number), (6, 0, 0, 0x7ffc0000),
                                                        (6, 0, 0, 0x7fff0000)])
held = ctypes.create_string_buffer(program, len(program))
assert libc.prctl(22, 2, struct.pack("HP", 4, ctypes.addressof(held)), 0, 0) == 0
for _ in range(int(sys.argv[1])): libc.syscall(number); pause and time.sleep(pause)
time.sleep(float(sys.argv[4]))
"""
# AUDIT_ADD_RULE and AUDIT_SET, as auditctl sends them; the agent never does.
AUDITCTL = """
import socket, struct, sys
kind, body = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as s:
    s.sendto(struct.pack("IHHII", 16 + len(body), kind, 5, 1, 0) + body, (0, 0))
    print(struct.unpack_from("i", s.recv(9000), 16)[0])
"""


@pytest.fixture(scope="module")
def pods(node: Machine) -> Machine:
    """The shipped profiles in the kernel, and a cgroup like a container's, which the kubelet's link names."""
    policy(node, apparmor={}, seccomp={})
    assert apply(node).code == 0
    node.sh(f"mkdir -p {SCOPE} /var/log/containers && ln -sf /nowhere {LINK}")
    return node


@pytest.fixture
def refused(pods: Machine) -> Iterator[Machine]:
    """A container's process that is refused a write every half second."""
    pods.sh("rm -f /run/refused.pid")
    pods.sh(
        f"nohup sh -c 'echo $$ > {SCOPE}/cgroup.procs; echo $$ > /run/refused.pid; exec aa-exec -p {DENY_WRITE} -- "
        'sh -c "while :; do echo x > /tmp/refused; sleep 0.5; done"\' >/dev/null 2>&1 &'
    )
    pods.eventually("test -s /run/refused.pid")
    yield pods
    pods.sh("kill $(cat /run/refused.pid)")


def contained(machine: Machine, until: str, **more: Any) -> dict[str, Any]:
    """What the observer shows from a container as daemonset.yaml's."""
    argv = [_PYTHON, "-c", OBSERVE, "/host", until, "0", "yes"]
    done = container.run(machine, argv, mounts=MOUNTS, privileged=True, **more)
    assert done.code == 0, done.text
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])["denials"]
    return found


@contextmanager
def observed(machine: Machine, *, buffer: int = 0, events: str = "yes") -> Iterator[dict[str, Any]]:
    """The observer on the node while the block runs; what it shows is in the dictionary afterwards."""
    machine.put("/run/observe.py", OBSERVE)
    machine.sh("rm -f /run/observe-end /run/observing /run/observed /var/lib/node-hardening/recordings.json")
    machine.sh(
        f"nohup {_PYTHON} /run/observe.py / end {buffer} {events} >/run/observed 2>/run/observed.err & "
        "echo $! > /run/observer.pid"
    )
    machine.eventually("test -s /run/observing")
    found: dict[str, Any] = {}
    yield found
    machine.sh("touch /run/observe-end")
    machine.eventually("tail -n 1 /run/observed | grep '^{' || { cat /run/observed.err; false; }")
    found.update(json.loads(machine.get("/run/observed").splitlines()[-1]))


def test_a_refused_write_names_pod_profile_and_operation(refused: Machine) -> None:
    """From the agent's container: UID by the cgroup, names by the kubelet's link, and nothing of the file."""
    seen = contained(refused, "first")
    assert seen["state"] == "seeing"
    row = next(one for one in seen["rows"] if one[2] == UID)
    assert row[:10] == ["shop", "web-0", UID, "nginx", DENY_WRITE, "apparmor", row[6], row[7], "refused", ""]
    assert (row[6], row[7][0]) in (("mknod", "c"), ("open", "w"))
    assert "refused" not in json.dumps([[word for word in one if word != "refused"] for one in seen["rows"]])


def test_in_its_own_network_namespace_it_cannot_see(refused: Machine) -> None:
    """`bind` succeeds there and nothing ever arrives: that is not "no denials"."""
    seen = contained(refused, "state", network=False)
    assert (seen["state"], seen["reason"], seen["rows"]) == ("blind", "network-namespace", [])


@pytest.mark.parametrize("buffer", [0, 4096], ids=["default", "small"])
def test_a_flood_is_received_or_counted_as_lost(pods: Machine, buffer: int) -> None:
    """20,000 records: what came and what is counted as lost add up, with the agent's own queue and with a small one."""
    with observed(pods, buffer=buffer) as seen:
        pods.put("/run/logged.py", LOGGED)
        pods.sh(f"{ENTER} python3 -I /run/logged.py 20000 {GETPPID} 0 0", seconds=240)
    found = seen["denials"]
    assert found["received"] + found["lost"] == 20000
    assert found["lost"] > 0 or not buffer


@pytest.mark.parametrize("events", ["yes", "no"])
def test_short_processes_are_attributed(pods: Machine, events: str) -> None:
    """`sh -c` 50 times under LOG, read only when they have ended: with the kernel's process events all of it is the
    container's; without, what its first process did not do itself is not, and is counted."""
    loop = f"i=0; while [ $i -lt 50 ]; do sh -c :; i=$((i+1)); done; touch /var/ended; sleep {LINGER}"
    logging = {"defaultAction": "SCMP_ACT_ALLOW",
               "syscalls": [{"names": ["execve", "getuid"], "action": "SCMP_ACT_LOG"}]}  # fmt: skip
    resume = "until test -e /var/ended; do sleep 0.2; done; kill -CONT $(cat /run/observer.pid)"
    pods.put("/run/logged.py", LOGGED)
    with observed(pods, events=events) as seen:
        # From the first call that is logged on, processes are followed.
        pods.sh(f"rm -f /var/ended; {ENTER} python3 -I /run/logged.py 1 {GETPPID} 0 {LINGER}")
        pods.sh(f"kill -STOP $(cat /run/observer.pid); nohup sh -c '{resume}' >/dev/null 2>&1 &")
        cgroup = f"/kubepods/besteffort/pod{UID}/{ID}"
        done = container.run(pods, ["/bin/sh", "-c", loop], seccomp=logging, cgroup=cgroup)
        pods.sh("touch /var/ended")
        assert done.code == 0, done.text
    unattributed = seen["denials"]["unattributed"]
    assert unattributed == 0 if events == "yes" else unattributed >= 50, seen
    (recording,) = [one for one in seen["recordings"]["recordings"] if one[2] == UID]
    assert int(recording[6], 16) >> 59 & 1, "execve"


SHELL = f"""
import subprocess, time
try: subprocess.run(["/bin/sh", "-c", ":"])
except PermissionError: print("refused")
time.sleep({LINGER})
"""
WORK = f"""
import os, subprocess, sys, time
if "linger" in sys.argv: time.sleep({LINGER})
open("/tmp/f", "w").close()
subprocess.run(["/bin/true"], check=True)
if "chmod" in sys.argv:
    try: os.chmod("/tmp/f", 0o600)
    except PermissionError: print("EPERM")
"""


CONTAINERS = [(runtime, flag) for runtime in ("runc", "crun") for flag in (False, True)]
ERRNO = "SCMP_ACT_ERRNO"


def works(machine: Machine, profile: dict[str, Any], runtime: str, no_new_privs: bool, *more: str) -> Any:
    """The workload in a container under that profile."""
    number = CONTAINERS.index((runtime, no_new_privs))
    return container.run(
        machine, ["/usr/bin/python3", "-I", "-c", WORK, *more], seccomp=container.as_containerd(profile),
        cgroup=f"/kubepods/besteffort/pod{UID}/{number:x}{ID[1:]}", no_new_privs=no_new_privs, runtime=runtime,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(pods: Machine) -> dict[str, RecordingRow]:
    """What each kind of container called under the shipped logging profile, by the container's name."""
    logging = json.loads(pods.get("/var/lib/kubelet/seccomp/audit.json"))
    for number, (runtime, flag) in enumerate(CONTAINERS):
        pods.sh(f"ln -sf /nowhere /var/log/containers/web-0_shop_{runtime}-{flag:d}-{number:x}{ID[1:]}.log")
    with observed(pods) as seen:
        for runtime, flag in CONTAINERS:
            done = works(pods, logging, runtime, flag, "linger")
            assert done.code == 0, done.text
    return recordings(seen["recordings"])


def recordings(annotation: dict[str, Any]) -> dict[str, RecordingRow]:
    """What the plugin reads of it, by the container's name."""
    notes = {keys.RECORDINGS: json.dumps(annotation)}
    rows = recordings_of({"metadata": {"name": "node", "annotations": notes}})
    return {row.container: row for row in rows}


@pytest.mark.parametrize(("runtime", "no_new_privs"), CONTAINERS)
def test_a_recorded_profile_is_enforced_and_refuses_what_was_not_recorded(
    pods: Machine, recorded: dict[str, RecordingRow], runtime: str, no_new_privs: bool
) -> None:
    """Record under the shipped logging profile, export, enforce: it works, and chmod is EPERM. What the application
    alone calls starts with the runtimes' own calls, which the export adds, and without them not."""

    def exported(name: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(make([recorded[name]], default=ERRNO, existing=None, by="test").text)
        return made

    done = works(pods, exported(f"{runtime}-{no_new_privs:d}"), runtime, no_new_privs, "chmod")
    assert (done.code, done.out) == (0, "EPERM\n"), done.text
    # crun sets the filter last when no_new_privs allows it: recorded there is the application alone.
    application = exported("crun-1")
    assert works(pods, application, runtime, no_new_privs).code == 0
    application["syscalls"] = application["syscalls"][:1]
    assert (works(pods, application, runtime, no_new_privs).code == 0) == ((runtime, no_new_privs) == ("crun", True))


def test_a_kernel_without_audit_is_named(boot: Boot) -> None:
    """audit=0: the socket does not open, and no record exists."""
    machine = boot("no-audit", append="audit=0")
    machine.put("/run/observe.py", OBSERVE)
    done = machine.run([_PYTHON, "/run/observe.py", "/", "state", "0", "yes"])
    seen = json.loads(done.out.splitlines()[-1])["denials"]
    assert (seen["state"], seen["reason"]) == ("blind", "audit-off")


def test_each_reason_for_seeing_nothing_is_named(pods: Machine) -> None:
    """An exclude rule, and actions_logged without log; each undone."""
    values = (5, 2, 1, *[0xFFFFFFFF] * 64, 12, *[0] * 63, 1326, *[0] * 63, 0x40000000, *[0] * 63, 0)
    rule = struct.pack("=260I", *values).hex()
    pods.put("/run/auditctl.py", AUDITCTL)
    assert pods.sh(f"python3 -I /run/auditctl.py 1011 {rule}").out.strip() == "0"
    try:
        seen = contained(pods, "state")
        assert (seen["state"], seen["reason"]) == ("blind", "excluded")
    finally:
        pods.sh(f"python3 -I /run/auditctl.py 1012 {rule}")
    before = pods.get("/proc/sys/kernel/seccomp/actions_logged").strip()
    pods.sh("echo errno trap > /proc/sys/kernel/seccomp/actions_logged")
    try:
        seen = contained(pods, "state")
        assert (seen["state"], seen["reason"]) == ("blind", "actions-logged")
    finally:
        pods.sh(f"echo {before} > /proc/sys/kernel/seccomp/actions_logged")


@pytest.mark.parametrize("visible", [False, True])
def test_a_shell_that_web_service_refuses_is_seen_where_the_policy_has_it_visible(pods: Machine, visible: bool) -> None:
    """`deny` is silent, `audit deny` is not. runc 1.1 takes no flags: none is written, and the container starts."""
    policy(pods, apparmor={}, seccomp={}, denials={"visible": visible})
    said = apply(pods)
    assert said.code == 0
    pods.put("/run/shell.py", SHELL)
    with observed(pods) as seen:
        confined = "aa-exec -p k8s-web-service -- /usr/bin/python3 -I /run/shell.py"
        assert pods.sh(f"{ENTER} {confined}").out == "refused\n"
    rows = [
        row for row in seen["denials"]["rows"] if (row[4], row[6], row[8]) == ("k8s-web-service", "exec", "refused")
    ]
    assert [row[1] for row in rows] == (["web-0"] if visible else [])
    installed = json.loads(pods.get("/var/lib/kubelet/seccomp/prevent-chmod.json"))
    assert not installed.get("flags")
    assert container.run(pods, ["/bin/true"], seccomp=container.as_containerd(installed)).code == 0
    if visible:
        assert said.finding("seccomp/visible")["observed"].startswith("not visible on this runtime: /usr/sbin/runc")


PARAMETER = "/sys/module/apparmor/parameters/audit"


def test_a_silent_deny_rule_of_any_profile_leaves_a_row_only_while_the_policy_has_noquiet(pods: Machine) -> None:
    """From the agent's container with its seven capabilities, for profiles that are not the agent's; the node's
    parameter then has its old value again."""
    before, phases = pods.get(PARAMETER).strip(), {"before": False, "during": True, "after": False}
    pods.put("/run/theirs", "".join(f"profile theirs-{when} {{ file, deny /run/denied w, }}\n" for when in phases))
    pods.sh("apparmor_parser -K -r /run/theirs")
    values = []
    with observed(pods) as seen:
        for when, noquiet in phases.items():
            policy(pods, apparmor={}, seccomp={}, denials={"noquiet": noquiet})
            said = agent_in_container(pods, "apply", capabilities=CAPABILITIES)
            values.append(pods.get(PARAMETER).strip())
            confined = f"aa-exec -p theirs-{when} -- sh -c 'echo x > /run/denied; is=$?; sleep {LINGER}; exit $is'"
            refused = pods.sh(f"{ENTER} {confined}", check=False)
            assert (refused.code != 0, "Permission denied" in refused.text) == (True, True), refused.text
            assert ("apparmor/noquiet" in [one["id"] for one in said.document["findings"]]) == noquiet
    pods.sh("apparmor_parser -R /run/theirs")
    rows = [(row[1], row[4], row[8]) for row in seen["denials"]["rows"] if row[4].startswith("theirs")]
    assert (rows, values) == ([("web-0", "theirs-during", "refused")], [before, "noquiet", before])


CHMOD = f"""
import os, time
try: os.chmod("/tmp", 0o600)
except PermissionError: print("EPERM")
time.sleep({LINGER})
"""
# crun answers so since 1.9; Debian 12's takes the flags and does not know the command.
FEATURES = {"linux": {"seccomp": {"enabled": True, "supportedFlags": list(FLAGS)}}}


def test_what_seccomp_refuses_is_seen_where_the_runtime_takes_the_flag(pods: Machine) -> None:
    """On a node with crun alone the agent writes the flag, and the refusal is a row; runc 1.1 starts no such container,
    which is why it gets none there."""
    pods.put("/run/features.json", json.dumps(FEATURES))
    answers = '#!/bin/sh\n[ "$1" = features ] && exec cat /run/features.json\nexec /usr/bin/crun.away "$@"\n'
    policy(pods, apparmor={}, seccomp={}, denials={"visible": True})
    try:
        pods.sh("mv /usr/sbin/runc /usr/sbin/runc.away; mv /usr/bin/crun /usr/bin/crun.away")
        pods.put("/usr/bin/crun", answers, 0o755)
        said = apply(pods)
    finally:
        pods.sh("mv /usr/sbin/runc.away /usr/sbin/runc; mv /usr/bin/crun.away /usr/bin/crun")
    assert said.status("seccomp/visible") == "pass"
    handed = container.as_containerd(json.loads(pods.get("/var/lib/kubelet/seccomp/prevent-chmod.json")))
    chmod, cgroup = ["/usr/bin/python3", "-I", "-c", CHMOD], f"/kubepods/besteffort/pod{UID}/{ID}"
    with observed(pods) as seen:
        done = container.run(pods, chmod, seccomp=handed, cgroup=cgroup, runtime="crun")
        assert (done.code, done.out) == (0, "EPERM\n"), done.text
    rows = [row[:9] for row in seen["denials"]["rows"] if row[2] == UID]
    assert rows == [["shop", "web-0", UID, "nginx", "", "seccomp", "chmod", "", "refused"]]
    refuses = container.run(pods, ["/bin/true"], seccomp=handed)
    assert (refuses.code != 0, "flags" in refuses.text) == (True, True), refuses.text


SECRET = "s3cret-word"
SECRETS = (SECRET, SECRET.encode().hex(), SECRET.encode().hex().upper())


@dataclass(frozen=True, slots=True)
class Served:
    """The agent as a service that observes, beside auditd, and the API server that it reports to."""

    machine: Machine
    api: ClusterOfMachines

    def denials(self) -> dict[str, Any]:
        """What the Node shows."""
        return dict(json.loads(self.api.annotation(self.machine.name, "denials") or "{}"))

    def recorded(self) -> frozenset[str]:
        """What the Node shows of the container's calls."""
        shown = json.loads(self.api.annotation(self.machine.name, "recordings") or "{}")
        return frozenset[str]().union(*(row.syscalls for row in recordings(shown).values() if row.uid == UID))


@pytest.fixture(scope="module")
def served(pods: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Once records arrive. auditd enables auditing: with each refusal the kernel then adds the command line."""
    pods.sh("rm -f /var/lib/node-hardening/recordings.json; systemctl start auditd")
    pods.put("/run/logged.py", LOGGED)
    with cluster(tmp_path_factory.mktemp("api")) as api:
        made = Served(pods, api)
        api.join(pods, {"apparmor": {}, "denials": {"mode": "observe"}})
        eventually(lambda: made.denials().get("state") == "seeing", what="records")
        yield made
        pods.sh(f"systemctl stop {UNIT}; kill $(cat /run/auditd.pid); auditctl -e 0")


def test_beside_auditd_both_read_everything_and_a_command_line_is_nowhere(served: Served) -> None:
    """The refusal is on the Node and the calls are recorded; audit.log has every one of them, and the command line; no
    output, log or state file of the agent has that."""
    machine, name = served.machine, served.machine.name
    machine.sh(f"{ENTER} python3 -I /run/logged.py 500 {GETGID} 0.005 {LINGER}", seconds=240)
    confined = f"aa-exec -p {DENY_WRITE} -- sh -c ': {SECRET}; echo x > /tmp/refused; sleep {LINGER}'"
    machine.sh(f"{ENTER} {confined}")
    rows = eventually(lambda: [row for row in served.denials()["rows"] if row[4] == DENY_WRITE], what="the refusal")
    assert [row[1:3] for row in rows] == [["web-0", UID]]
    assert served.denials()["notes"] == ["auditd"]
    eventually(lambda: "getgid" in served.recorded(), what="the recording")
    log = "/var/log/audit/audit.log"
    machine.eventually(f"test $(grep -c 'type=SECCOMP.* syscall={GETGID} ' {log}) = 500")
    assert machine.sh(f"grep -l 'type=PROCTITLE.*{SECRETS[2]}' {log}").out, "no secret to keep"
    shown = [
        json.dumps([served.api.node(name), served.api.client.get("/api/v1/events").json()]),
        machine.sh("cd /var/lib/node-hardening && test -s recordings.json && cat $(find . -type f)").out,
        machine.get("/var/log/agent.log"),
        get(f"http://127.0.0.1:{machine.metrics_port}/metrics").text,
    ]
    assert all(shown)
    assert [secret for secret in SECRETS for text in shown if secret in text] == []


def test_a_kill_during_a_recording_loses_no_name_of_the_checkpoint(served: Served) -> None:
    """SIGKILL while the container calls; what it never calls again is still there when the next agent records."""
    calls = f"{ENTER} python3 -I /run/logged.py 100000"
    machine = served.machine
    machine.sh(f"systemd-run -q --unit=before sh -c '{calls.replace('$', '$$')} {GETPPID} 0.05 0'")
    eventually(lambda: "getppid" in served.recorded(), what="the first name")
    machine.sh(
        f"systemctl kill -s KILL {UNIT}; systemctl stop before; "
        f"systemd-run -q --unit=after sh -c '{calls.replace('$', '$$')} {GETPGRP} 0.05 0'"
    )
    try:
        eventually(lambda: "getpgrp" in served.recorded(), what="the name after it")
        assert "getppid" in served.recorded()
    finally:
        machine.sh("systemctl stop after")
