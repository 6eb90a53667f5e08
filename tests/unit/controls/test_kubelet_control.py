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
from agent.controls.kubelet.probe import Answer
from agent.errors import KubeError
from agent.host import Process
from agent.model import Finding, Severity, Status
from tests.support.kubelets import CONFIG, DROP_INS, StagedHost, StagedProber, config, plant, process

QUIET = StagedProber(Answer(401), Answer(refused=True))
GOOD = config(
    "authentication: {x509: {clientCAFile: ca.crt}}\nrotateCertificates: true\nserverTLSBootstrap: true\n"
    "podPidsLimit: 4096\nseccompDefault: true\nprotectKernelDefaults: true\nenableProfilingHandler: false\n"
    "enableDebugFlagsHandler: false\ntlsCipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
)


def audit(
    root: Path,
    *passes: list[Process],
    skip: Mapping[str, str] | None = None,
    prober: StagedProber = QUIET,
    configz: Any = None,
    probe: bool = True,
) -> dict[str, Finding]:
    """The control's findings by id, without its name. passes: what each look at the processes gives."""
    policy = schema.Kubelet(skip=skip or {}, probe=probe)
    control = KubeletControl(policy, StagedHost(root, *(passes or ([],))), configz=configz, prober=prober)
    seen = control.observe()
    found = list(control.judge(seen))
    assert control.plan(seen) == ()
    assert len({finding.id for finding in found}) == len(found)
    for finding in found:
        assert finding.control == "kubelet"
        assert finding.observed
        assert finding.status in (Status.PASS, Status.INFO, Status.NOT_APPLICABLE) or finding.remediation, finding
    return {finding.id.removeprefix("kubelet/"): finding for finding in found}


def hardened(root: Path) -> Path:
    return plant(root, {CONFIG: GOOD, "/var/lib/kubelet/ca.crt": "CA"})


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
    """No check of settings passes, and the files at the usual places are looked at all the same."""
    found = audit(
        plant(tmp_path, {"/etc/kubernetes/kubelet.conf": ""}), [process("/usr/bin/vim", "kubelet", name="vim")]
    )
    assert found["process"].status is Status.UNKNOWN
    assert "none of kubelet, k3s server or agent, MicroK8s' kubelite among 1 processes" in found["process"].observed
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
def test_every_way_to_call_a_kubelet_is_one(argv: tuple[str, ...], tmp_path: Path) -> None:
    """By path, by name, through a wrapper script, inside hyperkube."""
    name = "hyperkube" if "hyperkube" in argv[0] else "kubelet"
    assert audit(tmp_path, [process(*argv, name=name)])["4.2.1"].source == "flag --anonymous-auth"


def test_a_kubelet_that_ends_between_two_reads_is_unknown(tmp_path: Path) -> None:
    """Nothing that was read of it is believed: its files were gone half-way, as like as not."""
    dying = process("/usr/bin/kubelet", f"--config={CONFIG}")
    found = audit(hardened(tmp_path), [dying], [])
    assert found["process"].status is Status.UNKNOWN
    assert "kubelet (pid 812) ended while it was being looked at" in found["process"].observed
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


def test_a_users_program_called_kubelet_is_not_the_nodes(tmp_path: Path) -> None:
    """Anybody may call a program so, and its arguments would say which files root reads."""
    real, fake = process("/usr/bin/kubelet", f"--config={CONFIG}"), process("/tmp/kubelet", pid=99, uid=1000)
    found = audit(hardened(tmp_path), [fake, real])
    assert found["4.2.1"].status is Status.PASS
    assert found["process"].observed.endswith("pid 99 belongs to uid 1000")


# -- inside other programs ---------------------------------------------------------------------------------------------


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
    found = audit(tmp_path, [process("/usr/local/bin/k3s server", "", "", name="k3s-server")])
    assert found["4.2.1"].status is Status.FAIL
    assert found["4.2.1"].source == "flag --anonymous-auth (kubelet-arg of k3s)"
    assert found["4.2.2"].source == f"drop-in {K3S_NEW}:4"
    assert found["4.2.4"].source == "flag --read-only-port (set by k3s)"
    assert found["process"].observed.startswith("the kubelet in k3s (pid 812)")


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
        plant(tmp_path, {"/var/lib/rancher/rke2/agent/etc/kubelet.conf.d/00-rke2-defaults.conf": GOOD}), [rke2, child]
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


# -- what runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "severity"),
    [
        (Answer(401), Status.PASS, Severity.CRITICAL),
        (Answer(403), Status.FAIL, Severity.HIGH),
        (Answer(200), Status.FAIL, Severity.CRITICAL),
        (Answer(404), Status.UNKNOWN, Severity.CRITICAL),
        (Answer(refused=True), Status.UNKNOWN, Severity.CRITICAL),
        (Answer(error="no answer in time"), Status.UNKNOWN, Severity.CRITICAL),
    ],
)
def test_three_live_answers_are_read_apart(answer: Answer, status: Status, severity: Severity, tmp_path: Path) -> None:
    """401 is off, 403 on behind authorization, 200 open; all else says nothing. What answers decides 4.2.1."""
    found = audit(
        hardened(tmp_path),
        [process("kubelet", f"--config={CONFIG}")],
        prober=StagedProber(answer, Answer(refused=True)),
    )
    assert (found["live"].status, found["live"].severity) == (status, severity)
    assert found["live"].source == "https://127.0.0.1:10250/pods"
    assert found["4.2.1"].status is (Status.FAIL if answer.status in (200, 403) else Status.PASS)
    assert found["live-read-only"].status is (Status.PASS if answer.status else Status.UNKNOWN)


@pytest.mark.parametrize(
    ("plain", "status"),
    [
        (Answer(refused=True), Status.PASS),
        (Answer(200), Status.FAIL),
        (Answer(404), Status.FAIL),
        (Answer(error="no answer in time"), Status.UNKNOWN),
    ],
)
def test_whatever_answers_on_the_read_only_port_fails(plain: Answer, status: Status, tmp_path: Path) -> None:
    """Only a refusal is good news."""
    found = audit(
        hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], prober=StagedProber(Answer(401), plain)
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
    odd = audit(tmp_path, [process("kubelet", "--address=nowhere")])
    assert odd["live"].status is Status.UNKNOWN


def test_probing_can_be_turned_off(tmp_path: Path) -> None:
    """It is said, and it is no pass."""
    found = audit(hardened(tmp_path), [process("kubelet", f"--config={CONFIG}")], probe=False)
    assert {found["live"].status, found["live-read-only"].status} == {Status.INFO}


def test_a_file_changed_since_the_start_is_drift(tmp_path: Path) -> None:
    """The kubelet reads its files once; config, drop-ins, unit and kubeadm's flags count."""
    unit = "/etc/systemd/system/kubelet.service"
    plant(tmp_path, {CONFIG: GOOD, f"{DROP_INS}/10-a.conf": config(""), unit: "", f"{unit}.d/10-kubeadm.conf": ""})
    old = process("kubelet", f"--config={CONFIG}", f"--config-dir={DROP_INS}", started=1e9)
    found = audit(tmp_path, [old])["drift"]
    assert found.status is Status.FAIL
    for path in (CONFIG, f"{DROP_INS}/10-a.conf", unit, f"{unit}.d/10-kubeadm.conf"):
        assert f"{path} was changed after it started (2001-09-09T01:46:40Z)" in found.observed


def test_what_k3s_writes_itself_at_each_start_is_no_drift(tmp_path: Path) -> None:
    """k3s starts, writes its drop-in, then starts the kubelet in the same process."""
    plant(tmp_path, {K3S_NEW: K3S_DEFAULTS})
    old = Process(pid=1, name="k3s-server", argv=("k3s", "server", "-d"), exe="", cwd="/", uid=0, started=1e9)
    assert audit(tmp_path, [old])["drift"].status is Status.PASS


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
    assert found["4.2.7"].observed == "--hostname-override=\ufffd\ufffd[2J"


def test_the_runner_gives_findings_and_no_changes(tmp_path: Path) -> None:
    """Audit only: apply acts on nothing."""
    control = KubeletControl(schema.Kubelet(), StagedHost(hardened(tmp_path), [process("kubelet")]), prober=QUIET)
    assert base.apply(control).changes == ()
    assert base.apply(control).findings == base.audit(control).findings
