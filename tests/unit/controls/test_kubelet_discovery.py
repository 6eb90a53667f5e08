"""Kubelets inside other programs: K3s, RKE2 and MicroK8s, and systemd where it has to be asked for their arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import schema
from agent.controls.kubelet import KubeletControl
from agent.host import Completed, Host, HostExec, Process
from agent.model import Finding, Status
from tests.support.kubelets import CONFIG, HARDENED, QUIET, StagedHost, audit, config, plant, process

K3S_DROP_INS = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"
K3S_UNIT = "/etc/systemd/system/k3s.service"
K3S_NEW = f"{K3S_DROP_INS}/00-k3s-defaults.conf"
K3S_DEFAULTS = config("authentication: {anonymous: {enabled: false}}\nauthorization: {mode: Webhook}\n")


def k3s(*args: str, name: str = "k3s-server") -> Process:
    return process("/usr/local/bin/k3s", "server", *args, name=name)


def test_k3s_hides_its_arguments_so_those_of_the_unit_count(tmp_path: Path) -> None:
    """The title that k3s writes over its arguments says nothing; ExecStart does."""
    unit = "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--kubelet-arg=anonymous-auth=true' \\\n"
    plant(tmp_path, {K3S_UNIT: unit, K3S_NEW: K3S_DEFAULTS})
    found = audit(tmp_path, [k3s()])
    assert found["4.2.1"].status is Status.FAIL
    assert found["4.2.1"].source == "flag --anonymous-auth (kubelet-arg of k3s)"
    assert found["4.2.2"].source == f"drop-in {K3S_NEW}:4"
    assert found["4.2.4"].source == "flag --read-only-port (set by k3s)"
    assert found["process"].observed.startswith("the kubelet in k3s (pid 812)")


def test_systemd_is_asked_where_the_node_runs_it(tmp_path: Path) -> None:
    """`systemctl show` on the node knows the unit's files, wherever they are, and its arguments."""
    unit = "snapd-k3s.service"
    shown = {
        "ExecStart": "{ path=/k3s ; argv[]=/k3s server --kubelet-arg=event-qps=0 ; ignore_errors=no ; pid=0 }",
        "FragmentPath": "/opt/units/k3s.service",
        "DropInPaths": "/opt/units/a.conf /opt/units/b.conf",
    }

    class Systemd(StagedHost):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            assert [*argv[:2], *argv[-2:]] == ["/usr/bin/systemctl", "show", "--", unit]
            wanted = argv[2].removeprefix("--property=").split(",")
            return Completed(tuple(argv), 0, "".join(f"{name}={shown[name]}\n" for name in wanted), "")

    plant(
        tmp_path,
        {"/usr/bin/systemctl": "", "/run/systemd/system/x": ""}
        | dict.fromkeys(("/opt/units/k3s.service", "/opt/units/a.conf", "/opt/units/b.conf"), ""),
    )
    host = Systemd(tmp_path, [replace(k3s(), unit=unit)])
    host.how = HostExec.NSENTER
    control = KubeletControl(schema.Kubelet(), host, prober=QUIET)
    found = {finding.id: finding for finding in control.judge(control.observe())}
    assert found["kubelet/4.2.8"].source == "flag --event-qps (kubelet-arg of k3s)"
    for path in ("/opt/units/k3s.service", "/opt/units/a.conf", "/opt/units/b.conf"):
        assert f"{path} is 0644" in found["kubelet/4.1.1"].observed


def test_k3s_arguments_with_variables_are_unknown(tmp_path: Path) -> None:
    """What systemd puts in for $ARGS cannot be read from the unit."""
    plant(tmp_path, {K3S_UNIT: "[Service]\nExecStart=/usr/local/bin/k3s server $ARGS\n", K3S_NEW: K3S_DEFAULTS})
    finding = audit(tmp_path, [k3s()])["4.2.1"]
    assert finding.status is Status.UNKNOWN
    assert "variables" in finding.observed


def test_arguments_in_files_that_are_newer_are_unknown(tmp_path: Path) -> None:
    """What is shown stands in the file; what runs was started before it was changed."""
    path = "/var/snap/microk8s/current/args/kubelet"
    plant(tmp_path, {path: "--anonymous-auth=false\n"})
    finding = audit(tmp_path, [process("/snap/kubelite", name="kubelite", started=1e9)])["drift"]
    assert finding.status is Status.UNKNOWN
    assert path in finding.observed


def test_k3s_without_readable_arguments_is_unknown(tmp_path: Path) -> None:
    """A flag that nobody can see may undo every file: nothing passes."""
    found = audit(plant(tmp_path, {K3S_NEW: K3S_DEFAULTS}), [k3s()])
    assert found["4.2.1"].status is Status.UNKNOWN
    assert "k3s hides its arguments" in found["4.2.1"].observed
    assert found["config"].status is Status.UNKNOWN


def test_older_k3s_passes_everything_as_flags(tmp_path: Path) -> None:
    """Without its own drop-in the flags of k3s before 1.32 are what the kubelet got."""
    found = audit(tmp_path, [k3s("--write-kubeconfig-mode", "644")])
    assert found["4.2.1"].source == "flag --anonymous-auth (set by k3s)"
    assert found["4.2.3"].observed.endswith("/var/lib/rancher/k3s/agent/client-ca.crt is not there")
    assert {found[id_].status for id_ in ("4.2.1", "webhook", "4.2.2", "4.2.4")} == {Status.PASS}


@pytest.mark.parametrize(
    ("args", "content", "status"),
    [
        ((), "{}\n", Status.FAIL),
        (("--protect-kernel-defaults",), "{}\n", Status.PASS),
        (("--protect-kernel-defaults", "agent"), "{}\n", Status.PASS),
        (("--protect-kernel-defaults=false",), "protect-kernel-defaults: true\n", Status.FAIL),
        (("--debug",), "protect-kernel-defaults: true\n", Status.PASS),
        (("--debug",), "protect-kernel-defaults: true\nkubelet-arg: protect-kernel-defaults=false\n", Status.FAIL),
    ],
)
def test_older_k3s_hands_its_own_protect_kernel_defaults_on(
    args: tuple[str, ...], content: str, status: Status, tmp_path: Path
) -> None:
    """A flag of k3s itself, by its command line or its file; a kubelet-arg counts more."""
    unit = f"[Service]\nExecStart=/usr/local/bin/k3s server {' '.join(args)}\n"
    plant(tmp_path, {K3S_UNIT: unit, "/etc/rancher/k3s/config.yaml": content})
    assert audit(tmp_path, [k3s()])["defaults"].status is status


def test_what_the_configuration_of_k3s_turns_off_is_not_judged(tmp_path: Path) -> None:
    """disable-agent: no kubelet; disable-kube-proxy: no kube-proxy."""
    path = "/etc/rancher/k3s/config.yaml"
    plant(tmp_path, {K3S_NEW: K3S_DEFAULTS, path: "disable-agent: true\n"})
    assert audit(tmp_path, [k3s("--debug")])["process"].status is Status.UNKNOWN
    plant(tmp_path, {path: "disable-kube-proxy: true\n"})
    assert audit(tmp_path, [k3s("--debug")])["4.3.1"].status is Status.NOT_APPLICABLE


def test_k3s_configuration_files_give_arguments_with_their_line(tmp_path: Path) -> None:
    """config.yaml, then config.yaml.d: a key replaces, `key+` appends; names of flags lose a trailing sign."""
    plant(
        tmp_path,
        {
            K3S_NEW: K3S_DEFAULTS,
            "/etc/rancher/k3s/config.yaml": "kubelet-arg:\n- anonymous-auth=true\n- pod-max-pids=10\n",
            "/etc/rancher/k3s/config.yaml.d/10-a.yaml": "kubelet-arg:\n- pod-max-pids=20\n",
            "/etc/rancher/k3s/config.yaml.d/20-b.yml": "kubelet-arg+: seccomp-default\n",
        },
    )
    found = audit(tmp_path, [k3s("--token", "x")])
    assert found["4.2.1"].status is Status.PASS
    assert found["4.2.13"].source == "flag --pod-max-pids (/etc/rancher/k3s/config.yaml.d/10-a.yaml:2)"
    assert found["4.2.14"].source == "flag --seccomp-default (/etc/rancher/k3s/config.yaml.d/20-b.yml:1)"
    shadowed = audit(tmp_path, [k3s("--kubelet-arg", "event-qps=0")])
    assert shadowed["4.2.13"].status is Status.FAIL, "arguments of the command line replace the whole list"
    assert shadowed["4.2.8"].status is Status.FAIL


def test_k3s_arguments_can_come_before_and_after_its_own(tmp_path: Path) -> None:
    """`name-=` goes before what k3s sets, `name+=` after it, a bare name is true: util.GetArgs."""
    found = audit(tmp_path, [k3s("--kubelet-arg=read-only-port-=1", "--kubelet-arg=anonymous-auth+=true")])
    assert found["4.2.4"].source == "flag --read-only-port (set by k3s)"
    assert found["4.2.1"].status is Status.FAIL
    twice = audit(tmp_path, [k3s("--kubelet-arg=--event-qps=5", "--kubelet-arg=event-qps=0")])
    assert twice["4.2.8"].status is Status.FAIL


def test_k3s_repeated_arguments_add_up(tmp_path: Path) -> None:
    """Two gates in two arguments are both set; the second does not replace the first."""
    gates = ("RotateKubeletServerCertificate=false", "NodeSwap=true")
    found = audit(tmp_path, [k3s(*(f"--kubelet-arg=feature-gates={gate}" for gate in gates))])
    assert found["4.2.11"].observed == "feature gate RotateKubeletServerCertificate: false"


def test_newer_k3s_copies_config_into_its_own_folder(tmp_path: Path) -> None:
    """kubelet-arg=config=… is not a --config there: the copy counts, and so do the legacy defaults below it."""
    copy = f"{K3S_DROP_INS}/10-cli-config.conf"
    plant(
        tmp_path, {K3S_NEW: K3S_DEFAULTS, copy: config("podPidsLimit: 5\n"), "/etc/k.yaml": config("podPidsLimit: 0\n")}
    )
    found = audit(tmp_path, [k3s("--kubelet-arg=config=/etc/k.yaml")])
    assert found["4.2.13"].source == f"drop-in {copy}:3"


def test_broken_k3s_configuration_is_unknown(tmp_path: Path) -> None:
    """The file and its line are named."""
    plant(tmp_path, {K3S_NEW: K3S_DEFAULTS, "/etc/rancher/k3s/config.yaml": "token: x\nkubelet-arg: ]\n"})
    finding = audit(tmp_path, [k3s("--debug")])["4.2.1"]
    assert finding.status is Status.UNKNOWN
    assert "/etc/rancher/k3s/config.yaml:2: not YAML" in finding.observed


def test_a_k3s_server_without_agent_has_no_kubelet(tmp_path: Path) -> None:
    """--disable-agent: that node runs none."""
    assert audit(tmp_path, [k3s("--disable-agent")])["process"].status is Status.UNKNOWN


def test_rke2_without_its_kubelet_says_so(tmp_path: Path) -> None:
    """RKE2 starts a kubelet of its own below it; with that gone there is nothing to read."""
    rke2 = process("/usr/local/bin/rke2 server", name="rke2", pid=5)
    assert "rke2 (pid 5) runs without a kubelet below it" in audit(tmp_path, [rke2])["process"].observed
    child = process("kubelet", "--config-dir=/var/lib/rancher/rke2/agent/etc/kubelet.conf.d", "--read-only-port=0")
    found = audit(
        plant(tmp_path, {"/var/lib/rancher/rke2/agent/etc/kubelet.conf.d/00-rke2-defaults.conf": HARDENED}),
        [rke2, child],
    )
    assert found["4.2.13"].source == "drop-in /var/lib/rancher/rke2/agent/etc/kubelet.conf.d/00-rke2-defaults.conf:6"


def test_microk8s_keeps_its_arguments_in_a_file(tmp_path: Path) -> None:
    """Lines with comments, quotes and ${SNAP_DATA}; the source is the line."""
    folder = "/var/snap/microk8s/7/args"
    plant(
        tmp_path,
        {
            f"{folder}/kubelet": '# mine\n--anonymous-auth=false\n--client-ca-file="${SNAP_DATA}/certs/ca.crt"\n',
            "/var/snap/microk8s/7/certs/ca.crt": "CA",
            f"{folder}/kube-proxy": "--metrics-bind-address=0.0.0.0:10249\n",
        },
    )
    kubelite = process(
        "/snap/microk8s/7/kubelite", f"--kubelet-args-file={folder}/kubelet", f"--proxy-args-file={folder}/kube-proxy",
        name="kubelite",
    )  # fmt: skip
    found = audit(tmp_path, [kubelite])
    assert found["4.2.1"].source == f"flag --anonymous-auth ({folder}/kubelet:2)"
    assert found["4.2.3"].status is Status.PASS
    assert found["4.2.3"].observed.endswith("/var/snap/microk8s/7/certs/ca.crt")
    assert (found["4.3.1"].status, found["4.3.1"].source) == (
        Status.FAIL,
        f"flag --metrics-bind-address ({folder}/kube-proxy:1)",
    )
    (tmp_path / f"{folder}/kubelet".lstrip("/")).unlink()
    assert audit(tmp_path, [kubelite])["4.2.1"].status is Status.UNKNOWN


def test_what_k3s_writes_itself_at_each_start_is_no_drift(tmp_path: Path) -> None:
    """k3s starts, writes its drop-in, then starts the kubelet in the same process."""
    plant(tmp_path, {K3S_NEW: K3S_DEFAULTS})
    old = process("k3s", "server", "-d", name="k3s", started=1e9)
    assert audit(tmp_path, [old])["drift"].status is Status.PASS


# -- a tree that no kernel runs on -------------------------------------------------------------------------------------

# As kubeadm's packages install them (kubelet.service, 10-kubeadm.conf) and as `kubeadm init` writes them.
UNIT = "[Unit]\nDescription=kubelet\n\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n"
KUBEADM = """\
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime.
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""  # noqa: E501 - as it is
FLAGS_ENV = 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/c.sock --read-only-port=1"\n'
NODE = {
    "/usr/lib/systemd/system/kubelet.service": UNIT,
    "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": KUBEADM,
    "/var/lib/kubelet/kubeadm-flags.env": FLAGS_ENV,
    "/etc/default/kubelet": "KUBELET_EXTRA_ARGS=--event-qps=0\n",
    CONFIG: config("authentication: {anonymous: {enabled: true}}\n"),
}


def stored(root: Path) -> dict[str, Finding]:
    """The findings about a tree, through the real host."""
    control = KubeletControl(schema.Kubelet(), Host(root))
    return {one.id.removeprefix("kubelet/"): one for one in control.judge(control.observe())}


def test_a_tree_is_judged_as_its_unit_would_start_the_kubelet(tmp_path: Path) -> None:
    """kubeadm's unit, drop-in, flags and extra arguments; no process of this machine is looked at, no port asked."""
    found = stored(plant(tmp_path, NODE))
    sources = {id_: (found[id_].status, found[id_].source) for id_ in ("4.2.1", "4.2.4", "4.2.8", "4.2.10")}
    assert sources == {
        "4.2.1": (Status.FAIL, f"{CONFIG}:3"),
        "4.2.4": (Status.FAIL, "flag --read-only-port"),
        "4.2.8": (Status.FAIL, "flag --event-qps"),
        "4.2.10": (Status.FAIL, "default (with --config)"),
    }
    assert {found[id_].status for id_ in ("process", "drift")} == {Status.NOT_APPLICABLE}
    assert found["process"].observed == "no kernel runs on this tree: judged as kubelet.service would start it"
    assert found["live"].status is Status.INFO


def test_a_later_drop_in_replaces_the_command(tmp_path: Path) -> None:
    """An empty ExecStart= resets it; a variable inside a word is put in, one that is not set is nothing."""
    drop_in = (
        "[Service]\nEnvironment=CONF=/etc/x.yaml\nExecStart=\n"
        "ExecStart=-/opt/bin/kubelet --config=${CONF} $NOTHING \\\n  --read-only-port=0\n"
    )
    found = stored(plant(tmp_path, NODE | {"/etc/systemd/system/kubelet.service.d/20-own.conf": drop_in}))
    assert (found["4.2.4"].status, found["4.2.4"].source) == (Status.PASS, "flag --read-only-port")
    assert "/etc/x.yaml" in found["config"].observed


def test_drift_is_a_change_of_content(tmp_path: Path) -> None:
    """Units and flags that give the command line that runs are no drift, however new; another command line is."""
    plant(tmp_path, NODE)
    argv = (
        "/usr/bin/kubelet", "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "--kubeconfig=/etc/kubernetes/kubelet.conf", f"--config={CONFIG}",
        "--container-runtime-endpoint=unix:///run/c.sock", "--read-only-port=1", "--event-qps=0",
    )  # fmt: skip
    for path in NODE.keys() - {CONFIG}:
        os.utime(tmp_path / path[1:], (4e9, 4e9))
    assert audit(tmp_path, [process(*argv, started=3e9)])["drift"].status is Status.PASS
    plant(tmp_path, {"/etc/default/kubelet": ""})
    one = audit(tmp_path, [process(*argv, started=3e9)])["drift"]
    assert one.status is Status.FAIL
    assert "/var/lib/kubelet/kubeadm-flags.env was changed after it started (2065-01-24T05:20:00Z)" in one.observed


@pytest.mark.parametrize("start", ["/bin/sh -c 'exec kubelet'", "/usr/bin/kubelet --node-ip=%i", "/usr/bin/kubelet 'a"])
def test_a_command_that_only_systemd_or_a_shell_knows_is_no_kubelet(start: str, tmp_path: Path) -> None:
    """Unknown, and no setting passes."""
    found = stored(plant(tmp_path, {"/etc/systemd/system/kubelet.service": f"[Service]\nExecStart={start}\n"}))
    assert found["process"].status is Status.UNKNOWN
    assert "4.2.1" not in found
