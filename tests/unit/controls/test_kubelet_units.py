"""Units of a tree, read as systemd reads them: what the kubelet would be started with.

The expected values follow systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7) and env-file.c.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls.kubelet import KubeletControl, environment_file, units
from agent.errors import HostError
from agent.host import Host
from agent.model import Finding, Status
from tests.support.kubelets import audit, plant, process

UNIT = "kubelet.service"
LIB, RUN, ETC = (f"{place}/systemd/system/{UNIT}" for place in ("/usr/lib", "/run", "/etc"))
START = "[Service]\nExecStart=/usr/bin/kubelet $A\n"


def argv(root: Path, files: dict[str, str]) -> tuple[str, ...]:
    """The arguments that the unit would start the kubelet with."""
    return units.command(Host(plant(root, files)), UNIT).argv[1:]


def audited(root: Path) -> dict[str, Finding]:
    """The findings about a tree."""
    control = KubeletControl(schema.Kubelet(), Host(root))
    return {one.id.removeprefix("kubelet/"): one for one in control.judge(control.observe())}


def sets(value: str) -> str:
    """A drop-in that sets the one variable."""
    return f"[Service]\nEnvironment=A={value}\n"


def test_drop_ins_count_by_name_and_an_earlier_folder_hides_its_namesake(tmp_path: Path) -> None:
    """/etc over /run over /usr/lib, whatever the order of the folders; the names decide which counts later."""
    files = {
        LIB: START, f"{ETC}.d/10-a.conf": sets("etc"), f"{LIB}.d/10-a.conf": sets("hidden"),
        f"{RUN}.d/20-b.conf": sets("run"), f"{LIB}.d/20-b.conf": sets("hidden"),
    }  # fmt: skip
    assert argv(tmp_path, files) == ("run",)
    assert argv(tmp_path, {f"{LIB}.d/30-c.conf": sets("lib")}) == ("lib",)
    assert units.files(Host(tmp_path), UNIT).drop_ins == (
        f"{ETC}.d/10-a.conf",
        f"{RUN}.d/20-b.conf",
        f"{LIB}.d/30-c.conf",
    )


@pytest.mark.parametrize("mask", ["/dev/null", "../../../../dev/null", ""])
def test_a_masked_drop_in_hides_its_namesake(mask: str, tmp_path: Path) -> None:
    """A link to /dev/null or an empty file; no wrong pass from a drop-in that systemd does not read."""
    plant(tmp_path, {LIB: START, f"{LIB}.d/10-a.conf": sets("--read-only-port=0"), f"{ETC}.d/10-a.conf": ""})
    if mask:
        path = tmp_path / f"{ETC}.d/10-a.conf".lstrip("/")
        path.unlink()
        path.symlink_to(mask)
    assert units.command(Host(tmp_path), UNIT).argv == ("/usr/bin/kubelet",)
    assert audited(tmp_path)["4.2.4"].status is Status.FAIL


def test_a_masked_unit_starts_no_kubelet(tmp_path: Path) -> None:
    """Its namesake in a later folder does not count."""
    plant(tmp_path, {LIB: START, f"{ETC}.d/x.conf": ""})
    (tmp_path / ETC.lstrip("/")).symlink_to("/dev/null")
    assert audited(tmp_path)["process"].status is Status.UNKNOWN
    with pytest.raises(HostError, match="masked"):
        units.command(Host(tmp_path), UNIT)


def test_drop_ins_of_a_prefix_of_all_services_and_of_an_alias_count(tmp_path: Path) -> None:
    """`a-.service.d`, `service.d`, and those of the unit that a link leads to."""
    folder = "/etc/systemd/system"
    plant(
        tmp_path,
        {
            f"{folder}/own.service": START, f"{folder}/own.service.d/1.conf": sets("alias"),
            f"{folder}/service.d/2.conf": sets("all"), f"{folder}/my-.service.d/3.conf": sets("prefix"),
        },
    )  # fmt: skip
    (tmp_path / f"{folder}/my-kubelet.service".lstrip("/")).symlink_to("own.service")
    found = units.files(Host(tmp_path), "my-kubelet.service")
    assert [path.removeprefix(f"{folder}/") for path in found.drop_ins] == [
        "own.service.d/1.conf", "service.d/2.conf", "my-.service.d/3.conf",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("[Service]\nExecStart=/x\nExecStart=\nExecStart=/usr/bin/kubelet --a\n", ("--a",)),
        ("[Service]\nEnvironment=A=1\nEnvironment=\nExecStart=/usr/bin/kubelet $A\n", ()),
        ("[Service]\nEnvironment=A=1 'B=2 3'\nExecStart=/usr/bin/kubelet $B ${B} x${A}y $$A\n",
         ("2", "3", "2 3", "x1y", "$A")),
        ("[Service]\nEnvironmentFile=/e\nEnvironmentFile=\nExecStart=/usr/bin/kubelet $E\n", ()),
        ("[Service]\nEnvironmentFile=-/none\nEnvironmentFile=/e\nEnvironment=E=no\nExecStart=/usr/bin/kubelet $E\n",
         ("file",)),
        ("[Service]\nEnvironmentFile=/e\nUnsetEnvironment=E\nExecStart=/usr/bin/kubelet $E\n", ()),
        ("[Service]\nExecStart=/usr/bin/kubelet --a \\\n# --b \\\n  ; --c\n --d\n", ("--a", "--d")),
        (("[Unit]\nExecStart=/no\n[X-Service]\nExecStart=/no\n[Service]\nExecStart=/usr/bin/kubelet --a\n"
         "[Install]\nExecStart=/no\n"), ("--a",)),
        ("ExecStart=/no\n[Service]\nExecStart=/usr/bin/kubelet 'a b' \"c\"d e\\x41 f\\g %% \\;\n",
         ("a b", "cd", "eA", "f\\g", "%", ";")),
        ("[Service]\nExecStart=@-/usr/bin/kubelet called --a\n", ("--a",)),
        ("[Service]\nExecStart=:/usr/bin/kubelet $A ${A}\n", ("$A", "${A}")),
    ],
)  # fmt: skip
def test_a_unit_is_read_as_systemd_reads_it(unit: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    """Resets, prefixes, comments in continued lines, sections, quotes, escapes."""
    assert argv(tmp_path, {ETC: unit, "/e": "E=file\n"}) == expected


@pytest.mark.parametrize(
    "unit",
    [
        "[Service]\nExecStart=/usr/bin/kubelet\nExecStart=/usr/bin/other\n",
        "[Service]\nExecStart=/usr/bin/kubelet ; /usr/bin/other\n",
        "[Service]\nEnvironmentFile=/none\nExecStart=/usr/bin/kubelet\n",
        "[Service]\nEnvironmentFile=/etc/*.env\nExecStart=/usr/bin/kubelet\n",
        "[Service]\nEnvironment=A=%H\nExecStart=/usr/bin/kubelet $A\n",
        "[Service\nExecStart=/usr/bin/kubelet\n",
        "[Service]\nRootDirectory=/x\nExecStart=/usr/bin/kubelet\n",
        "[Service]\nPassEnvironment=A\nExecStart=/usr/bin/kubelet $A\n",
        "[Service]\nExecStart=|/usr/bin/kubelet $A\n",
        "[Service]\nExecStart=/bin/sh -c 'kubelet --read-only-port=0'\n",
        "[Service]\nExecStart=/opt/start-kubelet --read-only-port=0\n",
        "[Service]\nExecStart=/usr/bin/env kubelet --read-only-port=0\n",
        "[Service]\nExecStart=/opt/kubelet --read-only-port=0\n",
    ],
)
def test_what_systemd_or_a_script_alone_knows_is_unknown(unit: str, tmp_path: Path) -> None:
    """Nothing passes, and kubelet/process names the unit."""
    plant(tmp_path, {ETC: unit, "/opt/kubelet": "#!/bin/sh\nexec /usr/bin/kubelet --read-only-port=10255\n"})
    found = audited(tmp_path)
    assert found["process"].status is Status.UNKNOWN
    assert any(name in found["process"].observed for name in (UNIT, "/none"))
    assert "4.2.4" not in found


def test_relative_paths_begin_in_the_working_directory_of_the_unit(tmp_path: Path) -> None:
    """WorkingDirectory=, and unknown for the user's home."""
    unit = "[Service]\nWorkingDirectory=/w\nExecStart=/usr/bin/kubelet --config c.yaml\n"
    assert "/w/c.yaml" in audited(plant(tmp_path, {ETC: unit}))["config"].observed
    plant(tmp_path, {ETC: unit.replace("/w", "~")})
    assert "working directory" in audited(tmp_path)["config"].observed


def test_the_unit_that_k3s_installs_is_read(tmp_path: Path) -> None:
    """Its environment files are named after the unit: https://github.com/k3s-io/k3s/blob/master/install.sh."""
    unit = (
        "[Service]\nType=notify\nEnvironmentFile=-/etc/default/%N\nEnvironmentFile=-/etc/sysconfig/%N\n"
        "EnvironmentFile=-/etc/systemd/system/%n.env\nExecStart=/usr/local/bin/k3s \\\n    agent \\\n $MORE\n"
    )
    plant(tmp_path, {"/etc/systemd/system/k3s-agent.service": unit, "/etc/default/k3s-agent": "A=1\n"})
    plant(tmp_path, {"/etc/systemd/system/k3s-agent.service.env": "MORE=--kubelet-arg=event-qps=0\n"})
    assert audited(tmp_path)["4.2.8"].status is Status.FAIL
    plant(tmp_path, {"/etc/default/k3s-agent": "K3S_DATA_DIR=/x\n"})
    assert audited(tmp_path)["4.2.8"].status is Status.UNKNOWN


def test_a_k3s_that_its_environment_leads_elsewhere_is_unknown(tmp_path: Path) -> None:
    """K3S_CONFIG_FILE names another file than the one that would be judged."""
    unit = "[Service]\nEnvironment=K3S_CONFIG_FILE=/x\nExecStart=/usr/local/bin/k3s agent\n"
    plant(tmp_path, {"/etc/systemd/system/k3s.service": unit})
    running = replace(process("/usr/local/bin/k3s", "agent", name="k3s-agent"), unit="k3s.service")
    for found in (audited(tmp_path), audit(tmp_path, [running])):
        assert found["4.2.4"].status is Status.UNKNOWN
        assert "k3s.service sets K3S_CONFIG_FILE" in found["4.2.4"].observed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1\nA=2", "2"), ("# c\n; A=0\n  A = 1  \n", "1"), ("A='x y' \"z\"\n", "x yz"), ('A=x"y"\n', 'x"y"'),
        ('A="a \\"b\\" \\$c \\n"\n', 'a "b" $c \\n'), ("A='a\\b'\n", "a\\b"), ("A=a\\b\\ \n", "ab "),
        ("A=a \\\n b\n", "a  b"), ('A="a\\\nb"\n', "ab"), ('A="a\nb" \n', "a\nb"), ("A=a#b\n", "a#b"), ("A=\n", ""),
        ("export A=1\nA=2\nB\n", "2"), ("A=x y  \r\n", "x y"),
    ],
)  # fmt: skip
def test_an_environment_file_is_read_as_systemd_reads_it(text: str, value: str) -> None:
    """Quotes at the beginning of a value only, escapes by the kind of quote, no export."""
    assert environment_file.parse(text, "/e")["A"] == value


@pytest.mark.parametrize("text", ["# c \\\nA=1\n", "A=\ufffd\n"])
def test_an_environment_file_that_versions_of_systemd_read_differently_is_unknown(text: str) -> None:
    """A comment's backslash, and what is not UTF-8."""
    with pytest.raises(HostError):
        environment_file.parse(text, "/e")
