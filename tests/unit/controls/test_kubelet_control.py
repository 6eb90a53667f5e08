"""The kubelet control as a whole: which process is meant, what is said of it, what is skipped, what drifted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config import schema
from agent.controls import base
from agent.controls.kubelet import CHECK_IDS, KubeletControl, files
from agent.controls.probe import Response
from agent.errors import HostError, KubeError
from agent.host import Host, Process
from agent.model import Severity, Status
from tests.support.kubelets import (
    CONFIG,
    DROP_INS,
    HARDENED,
    QUIET,
    StagedHost,
    StagedProber,
    audit,
    config,
    plant,
    process,
)


def hardened(root: Path) -> Path:
    return plant(root, {CONFIG: HARDENED, "/var/lib/kubelet/ca.crt": "CA"})


# -- which process ----------------------------------------------------------------------------------------------------


def test_a_hardened_kubelet_passes_all_that_can_pass(tmp_path: Path) -> None:
    """No setting, answer or drift check fails or is unknown; every known id has its finding."""
    found = audit(hardened(tmp_path), [process("/usr/bin/kubelet", f"--config={CONFIG}")])
    settings = {id_: finding.status for id_, finding in found.items() if id_ not in files.IDS}
    assert {id_ for id_, status in settings.items() if status is Status.INFO} == {"4.2.5"}
    assert not [id_ for id_, status in settings.items() if status in (Status.FAIL, Status.UNKNOWN)]
    assert set(found) == set(CHECK_IDS)
    assert "kubelet (pid 812), since 2096-" in found["process"].observed


def test_no_kubelet_is_unknown_with_what_was_looked_for(tmp_path: Path) -> None:
    """No check of settings passes, and the files at the usual places are checked all the same."""
    found = audit(plant(tmp_path, {"/etc/kubernetes/kubelet.conf": ""}), [])
    assert found["process"].status is Status.UNKNOWN
    programs = "kubelet, k3s server or agent, microshift run, MicroK8s' kubelite"
    assert f"none of {programs} among 0 processes" in found["process"].observed
    assert "4.2.1" not in found
    assert "live" not in found
    assert found["4.1.5"].status is Status.FAIL
    assert found["4.1.9"].status is Status.NOT_APPLICABLE
    assert found["4.3.1"].status is Status.NOT_APPLICABLE


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/kubelet", "--anonymous-auth=false"),
        ("kubelet", "--anonymous-auth=false"),
        ("/bin/sh", "/opt/bin/kubelet", "--anonymous-auth=false"),
        ("/hyperkube", "kubelet", "--anonymous-auth=false"),
    ],
)
def test_flags_begin_after_the_kubelets_name(argv: tuple[str, ...], tmp_path: Path) -> None:
    """By path, by name, through a wrapper script, inside hyperkube."""
    assert audit(tmp_path, [process(*argv)])["4.2.1"].source == "flag --anonymous-auth"


def test_a_kubelet_that_ends_between_two_reads_is_unknown(tmp_path: Path) -> None:
    """Nothing that was read of it is believed: its files were gone half-way, as like as not."""
    dying = process("/usr/bin/kubelet", f"--config={CONFIG}")
    found = audit(hardened(tmp_path), [dying], [])
    assert found["process"].status is Status.UNKNOWN
    assert "kubelet (pid 812) ended during the check" in found["process"].observed
    assert "4.2.1" not in found


def test_several_kubelets_are_said_and_the_worst_answer_counts(tmp_path: Path) -> None:
    """One good and one bad kubelet: the bad one is not hidden behind the other."""
    good = process("/usr/bin/kubelet", f"--config={CONFIG}", pid=10)
    bad = process("/usr/bin/kubelet", pid=20)
    found = audit(hardened(tmp_path), [good, bad])
    assert found["process"].status is Status.INFO
    assert "2 kubelets: kubelet (pid 10), kubelet (pid 20)" in found["process"].observed
    assert found["4.2.1"].status is Status.FAIL
    assert found["4.2.1"].observed.startswith("pid 20: ")


# -- what runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "severity"),
    [
        (Response(401), Status.PASS, Severity.CRITICAL),
        (Response(403), Status.FAIL, Severity.HIGH),
        (Response(200), Status.FAIL, Severity.CRITICAL),
        (Response(404), Status.UNKNOWN, Severity.CRITICAL),
        (Response(error="refused"), Status.UNKNOWN, Severity.CRITICAL),
        (Response(error="no answer in time"), Status.UNKNOWN, Severity.CRITICAL),
    ],
)
def test_three_live_answers_are_read_apart(
    answer: Response, status: Status, severity: Severity, tmp_path: Path
) -> None:
    """401 is off, 403 on behind authorization, 200 open; all else says nothing. What answers decides 4.2.1."""
    found = audit(
        hardened(tmp_path),
        [process("kubelet", f"--config={CONFIG}")],
        prober=StagedProber(answer, Response(error="refused")),
    )
    assert (found["live"].status, found["live"].severity) == (status, severity)
    assert found["live"].source == "https://127.0.0.1:10250/pods"
    assert found["4.2.1"].status is (Status.FAIL if answer.status in (200, 403) else Status.PASS)
    assert found["live-read-only"].status is (Status.PASS if answer.status else Status.UNKNOWN)


@pytest.mark.parametrize(
    ("plain", "status"),
    [
        (Response(error="refused"), Status.PASS),
        (Response(200), Status.FAIL),
        (Response(404), Status.FAIL),
        (Response(error="no answer in time"), Status.UNKNOWN),
    ],
)
def test_whatever_answers_on_the_read_only_port_fails(plain: Response, status: Status, tmp_path: Path) -> None:
    """Only a refusal is good news."""
    found = audit(
        hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], prober=StagedProber(Response(401), plain)
    )
    assert found["live-read-only"].status is status


def test_the_ports_asked_are_the_kubelets_own(tmp_path: Path) -> None:
    """address, port and readOnlyPort of the effective configuration; an address for all is this machine's loopback."""
    body = 'address: "::"\nport: 10400\n'
    found = audit(
        plant(tmp_path, {CONFIG: config(body)}), [process("kubelet", f"--config={CONFIG}", "--read-only-port=9")]
    )
    assert found["live"].source == "https://[::1]:10400/pods"
    assert found["live-read-only"].source == "http://[::1]:9/pods"
    for odd in ("--address=nowhere", "--port=70000", "--port=many", "--read-only-port=-5"):
        found = audit(tmp_path, [process("kubelet", odd)])
        assert {found["live"].status, found["live-read-only"].status} == {Status.UNKNOWN}
        assert "not asked" in found["live"].observed
    failing = StagedProber(Response(403), Response(error="refused"))
    legacy = audit(tmp_path, [process("kubelet")], prober=failing)["4.2.1"]
    assert legacy.source == "default (flags only)"
    assert legacy.observed.endswith("without credentials: HTTP 403)")


def test_probing_can_be_turned_off(tmp_path: Path) -> None:
    """It is said, and it is no pass."""
    found = audit(hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], probe=False)
    assert {found["live"].status, found["live-read-only"].status} == {Status.INFO}


def test_a_newer_file_is_unknown_until_the_running_kubelet_is_compared(tmp_path: Path) -> None:
    """Config, drop-ins, unit and kubeadm's flags count; where /configz has the same values nothing has changed."""
    unit = "/etc/systemd/system/kubelet.service"
    plant(tmp_path, {CONFIG: HARDENED, f"{DROP_INS}/10-a.conf": config(""), unit: "", f"{unit}.d/10-kubeadm.conf": ""})
    old = process("kubelet", f"--config={CONFIG}", f"--config-dir={DROP_INS}", started=1e9)
    found = audit(tmp_path, [old])["drift"]
    assert found.status is Status.UNKNOWN
    for path in (CONFIG, f"{DROP_INS}/10-a.conf", unit, f"{unit}.d/10-kubeadm.conf"):
        assert path in found.observed
    assert "changed after it started (2001-09-09T01:46:40Z)" in found.observed
    for path in (unit, f"{unit}.d/10-kubeadm.conf"):
        (tmp_path / path[1:]).unlink()
    plant(tmp_path, {CONFIG: config("podPidsLimit: 7\n")})
    assert audit(tmp_path, [old], configz=lambda: running(podPidsLimit=7))["drift"].status is Status.PASS


SIX = "# the kubelet's\nvm.overcommit_memory = 1\nkernel.panic=10\nkernel/panic_on_oops = 1\n-vm.panic_on_oom=0\n"


def test_kernel_settings_come_before_the_kubelets_refusal_of_others(tmp_path: Path) -> None:
    """What sysctl.d leaves at the kernel's default is named first; the last file by name wins."""
    plant(tmp_path, {CONFIG: HARDENED.replace("protectKernelDefaults: true", "protectKernelDefaults: false")})
    kubelet = process("kubelet", f"--config={CONFIG}")
    first = audit(tmp_path, [kubelet])["defaults"].remediation
    assert first.startswith(
        "First write vm.overcommit_memory=1, kernel.panic=10, kernel.panic_on_oops=1 into /etc/sysct"
    )
    plant(tmp_path, {"/usr/lib/sysctl.d/90-kubelet.conf": SIX, "/etc/sysctl.d/10-other.conf": "kernel.panic=0\n"})
    assert audit(tmp_path, [kubelet])["defaults"].remediation.startswith("Set `protectKernelDefaults: true` at")
    plant(tmp_path, {"/etc/sysctl.d/90-kubelet.conf": "kernel.panic=0\n"})
    assert "kernel.panic=10" in audit(tmp_path, [kubelet])["defaults"].remediation


def running(**settings: object) -> dict[str, object]:
    """What a kubelet's /configz answers: defaults filled in, zero values left out."""
    known: dict[str, object] = {
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {}},
        "authorization": {"mode": "Webhook"},
        "eventRecordQPS": 50,
        "makeIPTablesUtilChains": True,
        "podPidsLimit": -1,
        "enableProfilingHandler": True,
        "enableDebugFlagsHandler": True,
    }
    return {"kubeletconfig": {**known, **settings}}


def test_the_running_kubelets_own_answer_counts_more_than_files(tmp_path: Path) -> None:
    """configz is the truth about what runs, and where files say otherwise that is drift."""
    plant(tmp_path, {CONFIG: config("readOnlyPort: 10255\npodPidsLimit: 100\n")})
    found = audit(tmp_path, [process("kubelet", f"--config={CONFIG}")], configz=lambda: running(podPidsLimit=7))
    assert (found["4.2.4"].status, found["4.2.4"].source) == (Status.PASS, "configz")
    assert found["4.2.13"].observed == "podPidsLimit: 7"
    assert found["drift"].status is Status.FAIL
    assert f"podPidsLimit is 7 in the running kubelet and 100 by {CONFIG}:4" in found["drift"].observed
    assert f"readOnlyPort is 0 in the running kubelet and 10255 by {CONFIG}:3" in found["drift"].observed


def test_configz_helps_where_files_cannot_be_read(tmp_path: Path) -> None:
    """A broken file is no matter while the kubelet answers for itself, except for what it does not say."""
    plant(tmp_path, {CONFIG: "]"})
    found = audit(tmp_path, [process("kubelet", f"--config={CONFIG}")], configz=running)
    assert found["4.2.1"].status is Status.PASS
    assert found["healthz"].status is Status.UNKNOWN, "its default is not zero, so it is not among what was left out"


def test_an_answer_nested_too_deeply_is_not_believed_and_ends_no_pass(tmp_path: Path) -> None:
    """json.loads takes what is nested nearly as deeply as Python calls functions."""
    deep = json.loads('{"a":' * 700 + "1" + "}" * 700)
    found = audit(hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], configz=lambda: running(deep=deep))
    assert "configz: nested deeper than 64 levels" in found["config"].observed
    assert found["4.2.4"].source != "configz"


def test_the_seccomp_flag_is_not_in_configz(tmp_path: Path) -> None:
    """The flag or the field: a false field in configz takes nothing from the flag."""
    kubelet = process("kubelet", "--seccomp-default")
    found = audit(tmp_path, [kubelet], configz=running)
    assert (found["4.2.14"].status, found["4.2.14"].source) == (Status.PASS, "flag --seccomp-default")
    assert "seccompDefault" not in found["drift"].observed
    assert (
        audit(tmp_path, [process("kubelet")], configz=lambda: running(seccompDefault=True))["4.2.14"].source
        == "configz"
    )


def test_a_refused_configz_is_said_and_files_count(tmp_path: Path) -> None:
    """No permission for nodes/configz is no reason to say nothing."""

    def refused() -> Mapping[str, Any] | None:
        raise KubeError("403: nodes/configz is forbidden")

    found = audit(hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], configz=refused)
    assert found["4.2.13"].source == f"{CONFIG}:6"
    assert "403: nodes/configz is forbidden" in found["config"].observed
    nothing = audit(hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], configz=lambda: None)
    assert nothing["4.2.13"].source == f"{CONFIG}:6"


@pytest.mark.parametrize("answer", [{"podPidsLimit": "many"}, {"kubeletconfig": {"podPidsLimit": "many"}}])
def test_a_configz_that_makes_no_sense_is_unknown(answer: dict[str, object], tmp_path: Path) -> None:
    """With and without its wrapping, a wrong type is named; no mapping at all is no answer."""
    kubelet = process("kubelet", f"--config={CONFIG}")
    found = audit(hardened(tmp_path), [kubelet], configz=lambda: answer)["4.2.13"]
    assert (found.status, found.observed.startswith("configz: podPidsLimit is 'many'")) == (Status.UNKNOWN, True)
    none = audit(tmp_path, [kubelet], configz=lambda: {"kubeletconfig": []})["4.2.13"]
    assert none.source == f"{CONFIG}:6"


def test_files_are_the_nodes_where_the_kubelets_own_view_is_closed(tmp_path: Path) -> None:
    """Without the right to look through /proc/PID/root the node's own tree is the next best."""

    class Closed(StagedHost):
        def view_of(self, process: Process) -> Host:
            raise HostError(f"/proc/{process.pid}/root: not a folder")

    host = Closed(
        hardened(tmp_path), [process("kubelet", f"--config={CONFIG}"), process("kube-proxy", name="kube-proxy")]
    )
    control = KubeletControl(schema.Kubelet(), host, prober=QUIET)
    found = {finding.id: finding for finding in control.judge(control.observe())}
    assert found["kubelet/4.2.13"].source == f"{CONFIG}:6"
    assert (found["kubelet/4.3.1"].status, found["kubelet/4.3.1"].source) == (Status.PASS, "default")


def test_what_cannot_be_looked_into_is_unknown(tmp_path: Path) -> None:
    """Symlinks in circles in place of the CA, the certificate, the unit and the folders: each finding says so."""
    loops = ("ca", "crt", "pki", "etc/systemd/system/kubelet.service", "var/lib/kubelet/kubeadm-flags.env")
    for path in loops:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(f"/{path}")
    kubelet = process(
        "kubelet", "--client-ca-file=/ca", "--tls-cert-file=/crt", "--tls-private-key-file=/key", "--cert-dir=/pki"
    )
    found = audit(tmp_path, [kubelet])
    assert {found[id_].status for id_ in ("4.2.3", "4.2.9", "4.1.1", "4.1.7", "file/pki", "drift")} == {Status.UNKNOWN}
    assert "too many levels of symbolic links" in found["4.2.3"].observed


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("metricsBindAddress: 0.0.0.0\n", Status.FAIL),
        ('metricsBindAddress: ""\nclientConnection: {kubeconfig: kubeconfig.conf}\n', Status.PASS),
        ("metricsBindAddress: 7\n", Status.UNKNOWN),
        ("metricsBindAddress: here\n", Status.UNKNOWN),
        ("kind: Other\n", Status.UNKNOWN),
        ("]", Status.UNKNOWN),
    ],
)
def test_kube_proxys_file_is_judged(text: str, status: Status, tmp_path: Path) -> None:
    """Value, default, and what it would refuse; its kubeconfig is looked at where the file names one."""
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    plant(tmp_path, {"/p/config.conf": head + text, "/p/kubeconfig.conf": ""})
    proxy = process("kube-proxy", "--config=config.conf", name="kube-proxy", cwd="/p")
    found = audit(tmp_path, [proxy])
    assert found["4.3.1"].status is status
    known = "clientConnection" in text
    assert ("/p/kubeconfig.conf is 0644" in found["4.1.3"].observed) is known


# -- skipping ----------------------------------------------------------------------------------------------------------


def test_a_skipped_check_is_shown_as_skipped_and_never_as_pass(tmp_path: Path) -> None:
    """With the reason that the policy gives, for ids with and without the control's name."""
    found = audit(tmp_path, [process("kubelet")], skip={"4.2.6": "no kube-proxy here", "kubelet/4.2.1": "lab"})
    for id_, reason in (("4.2.6", "no kube-proxy here"), ("4.2.1", "lab")):
        assert (found[id_].status, found[id_].observed) == (Status.INFO, f"skipped: {reason}")


def test_an_id_that_is_no_check_is_said_with_what_was_meant(tmp_path: Path) -> None:
    """A typing error in the policy must not look like a skipped check."""
    found = audit(tmp_path, [process("kubelet")], skip={"4.2.66": "x", "zzz": "y"})
    assert found["skip/4.2.66"].remediation == "Did you mean 4.2.6?"
    assert found["skip/4.2.66"].status is Status.UNKNOWN
    assert "4.2.14" in found["skip/zzz"].remediation


def test_the_document_of_every_finding_is_plain(tmp_path: Path) -> None:
    """-o json can print all of them, whatever bytes the node holds."""
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    (tmp_path / CONFIG.lstrip("/")).write_bytes(b"\xff\xfe\x00")
    found = audit(tmp_path, [process("kubelet", f"--config={CONFIG}", "--hostname-override=\udcff\x1b[2J")])
    text = json.dumps([finding.document() for finding in found.values()], ensure_ascii=False)
    assert text.encode()
    assert "\x1b" not in text
    assert found["4.2.7"].observed == "--hostname-override= [2J"


def test_the_runner_gives_findings_and_no_changes(tmp_path: Path) -> None:
    """Audit only: apply acts on nothing."""
    control = KubeletControl(schema.Kubelet(), StagedHost(hardened(tmp_path), [process("kubelet")]), prober=QUIET)
    assert base.apply(control).changes == ()
    assert base.apply(control).findings == base.audit(control).findings
