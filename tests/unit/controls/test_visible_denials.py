"""`denials.visible`: refusals of shipped profiles leave a record, no others', and only where the runtime allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.config import loads, schema
from agent.controls import base, registry
from agent.controls.apparmor import profile_dir
from agent.controls.seccomp import SeccompControl
from agent.controls.seccomp.refusal_records import FLAGS, RuntimeFlags, Visibility, takes_flags
from agent.controls.seccomp.runtimes import libseccomp_of
from agent.host import Host
from agent.host.command import Completed
from agent.model import Status

SHIPPED = shipped_profiles("apparmor")
TAKES = json.dumps({"linux": {"seccomp": {"enabled": True, "supportedFlags": list(FLAGS)}}})
OLD = json.dumps({"linux": {"seccomp": {"enabled": True, "actions": ["SCMP_ACT_LOG"]}}})


def test_deny_rules_of_shipped_profiles_are_audited_and_nobody_elses(tmp_path: Path) -> None:
    """Unchanged ones, wherever they stand; a profile of the user's own may be quiet on purpose."""
    (tmp_path / "web-service").write_bytes((SHIPPED / "web-service").read_bytes())
    (tmp_path / "mine").write_text("profile mine {\n  deny /x w,\n}\n")
    (tmp_path / "hardened-default").write_bytes((SHIPPED / "hardened-default").read_bytes() + b"# ours\n")
    found = {one.name: one.content for one in profile_dir.read(str(tmp_path), audited=True).files}
    assert b"\n  audit deny mount,\n" in found["web-service"]
    assert b"\n  deny " not in found["web-service"]
    assert b"audit deny" not in found["mine"] + found["hardened-default"]
    assert all(b"audit deny" not in one.content for one in profile_dir.read(str(tmp_path)).files)


class RuntimeHost(Host):
    """A node whose runtimes are files, with what `features` answers in them."""

    can_start_programs = True
    cut = False

    def __init__(self, root: Path, **runtimes: str) -> None:
        super().__init__(root)
        self.ran: list[str] = []
        (root / "usr/sbin").mkdir(parents=True, exist_ok=True)
        for name, features in runtimes.items():
            (root / "usr/sbin" / name).write_text(features)

    def run(self, argv: Any, **_: Any) -> Completed:
        """The file's content."""
        self.ran.append(argv[0])
        return Completed(tuple(argv), 0, self.read_text(argv[0]), "", cut=self.cut)


@pytest.mark.parametrize(
    ("runtimes", "visible"),
    [({}, False), ({"runc": OLD}, False), ({"runc": TAKES}, True), ({"runc": TAKES, "crun": OLD}, False),
     ({"runc": "unknown command features"}, False)],
)  # fmt: skip
def test_flags_are_written_only_where_every_runtime_takes_them(
    tmp_path: Path, runtimes: dict[str, str], visible: bool
) -> None:
    """Else the container would not start: the finding says "not visible on this runtime"."""
    host = RuntimeHost(tmp_path, **runtimes)
    config = schema.Seccomp(profiles=str(tmp_path / "none"), directory="/var/lib/kubelet/seccomp")
    done = base.apply(SeccompControl(config, host, visible=True))
    finding = {one.id: one for one in done.findings}["seccomp/visible"]
    assert finding.status is (Status.PASS if visible else Status.INFO)
    assert finding.observed.startswith("not visible on this runtime") is not visible
    installed = json.loads((tmp_path / "var/lib/kubelet/seccomp/prevent-chmod.json").read_text())
    assert installed.get("flags", []) == (list(FLAGS) if visible else [])
    assert "flags" not in json.loads((tmp_path / "var/lib/kubelet/seccomp/audit.json").read_text())


def test_the_runtimes_of_this_machine_are_not_a_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of a node is built on a machine whose runtime takes the flags; the node's own may not."""
    host = RuntimeHost(tmp_path, runc=TAKES)
    assert RuntimeFlags(host).visibility().problem == ""
    monkeypatch.setattr(RuntimeHost, "can_start_programs", Host.can_start_programs)
    ran = len(host.ran)
    assert RuntimeFlags(host).visibility() == Visibility("the runtimes of a tree cannot be run on this machine")
    assert len(host.ran) == ran


def test_a_runtime_is_asked_once_for_each_version(tmp_path: Path) -> None:
    host = RuntimeHost(tmp_path, runc=OLD)
    flags = RuntimeFlags(host)
    assert flags.visibility().problem == flags.visibility().problem != ""
    (tmp_path / "usr/sbin/runc").unlink()
    (tmp_path / "usr/sbin/runc").write_text(f"{TAKES} ")
    assert (flags.visibility().problem, len(host.ran)) == ("", 2)


@pytest.mark.parametrize(
    "folder", ["usr/libexec/crio", "usr/local/bin", "var/lib/k0s/bin", "var/lib/rancher/rke2/bin",
               "var/lib/rancher/k3s/data/current/bin", "snap/microk8s/current/bin", "snap/k8s/current/bin"],
)  # fmt: skip
def test_every_runtime_of_the_node_is_asked(tmp_path: Path, folder: str) -> None:
    """The most limited one counts, whichever distribution of Kubernetes brought it; one that is unknown counts too."""
    host = RuntimeHost(tmp_path, runc=f"{TAKES}\nlibseccomp: 2.6.0\n")
    assert libseccomp_of(host) == ((2, 6, 0), "/usr/sbin/runc")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "crun").write_text('{"annotations": {"io.github.seccomp.libseccomp.version": "2.5.4"}}')
    assert libseccomp_of(host) == ((2, 5, 4), f"/{folder}/crun")
    assert f"/{folder}/crun does not list" in RuntimeFlags(host).visibility().problem
    (tmp_path / folder / "crun").write_text("crun version 1.8.1\n")
    assert libseccomp_of(host) is None


def test_what_a_runtime_says_in_part_is_not_judged(tmp_path: Path) -> None:
    """Output that was cut is no answer, and is asked for again at the next pass."""
    host = RuntimeHost(tmp_path, runc=TAKES)
    flags = RuntimeFlags(host)
    host.cut = True
    assert "printed more than is read" in flags.visibility().problem
    host.cut = False
    assert flags.visibility().problem == ""


def test_a_runtime_that_cannot_be_looked_at_is_not_absent(tmp_path: Path) -> None:
    """Neither for the flags nor for the version."""
    host = RuntimeHost(tmp_path, runc=TAKES)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/crun").symlink_to("crun")
    assert "/usr/bin/crun" in RuntimeFlags(host).visibility().problem
    assert libseccomp_of(host) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"linux": {"seccomp": null}}', '{"linux": {"seccomp": {"supportedFlags": 1}}}']
)
def test_an_answer_of_another_form_is_no(text: str) -> None:
    assert not takes_flags(text)


def test_the_policy_turns_it_on(tmp_path: Path) -> None:
    """Both controls of profiles, and no other."""
    for text, visible in (("{}", False), ("denials: {visible: true}", True)):
        made = {one.name: one for one in registry.controls_of(loads(text, "c"), Host(tmp_path))}
        assert bool(vars(made["apparmor"])["_visible"]) is visible
        assert (vars(made["seccomp"])["_flags"] is not None) is visible
