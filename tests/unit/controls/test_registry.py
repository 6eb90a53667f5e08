"""One row in the registry is all that the rest of the agent needs to know of a control."""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cli.validate import validate
from agent.config import choices, fields, schema
from agent.config.recognition import Claim
from agent.config.scalar_types import Path as NodePath
from agent.config.schema_tree import keys
from agent.controls import registry
from agent.controls.base import FileType, Step
from agent.controls.registry import Act, ControlSpec
from agent.daemon.config_store import fingerprint
from agent.errors import Problem
from agent.host import Host
from agent.model import Finding, Severity, Status
from agent.report import exposition
from agent.report.metrics import Metrics

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp:
    """A section of the policy."""

    mode: choices.Mode = fields.key(choices.Mode.ENFORCE, "enforce, audit or off")
    profiles: NodePath = fields.key("/etc/lamps", "folder of lamps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(schema.Config):
    """The policy with one more section."""

    lamp: Lamp = fields.section(Lamp, "lamps")


class LampControl:
    """A control without anything to do."""

    name = "lamp"

    def __init__(self, policy: Lamp) -> None:
        self.policy = policy

    def watched(self) -> Sequence[str]:
        """The node's lamps."""
        return ("/etc/lamp",)

    def observe(self) -> str:
        """Dark."""
        return "off"

    def judge(self, seen: str) -> Sequence[Finding]:
        """One finding."""
        return (Finding("lamp/on", "lamp", "The lamp is on", Status.FAIL, Severity.LOW, seen),)

    def plan(self, _seen: str) -> Sequence[Step]:
        """Nothing."""
        return ()


LAMP = ControlSpec(
    "lamp",
    lambda section, _host, _configz: LampControl(section),
    FileType(
        "lamp file",
        claim=lambda _content, path: Claim.CERTAIN if path.endswith(".lamp") else Claim.NONE,
        lint=lambda _content, path, _host: [Problem(path, 1, "", "it is dark")],
    ),
)


@pytest.fixture
def lamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry with the dummy control in its first place."""
    monkeypatch.setattr(registry, "CONTROLS", (LAMP, *registry.CONTROLS))
    monkeypatch.setattr(registry, "Config", Config)


@pytest.mark.usefixtures("lamp")
def test_a_new_control_is_found_everywhere(tmp_path: Path) -> None:
    """Passes, metrics, watches, the policy's hash and validate."""
    folder = tmp_path / "lamps"
    folder.mkdir()
    config = Config(lamp=Lamp(profiles=str(folder)))
    host = Host(tmp_path)
    assert registry.names()[0] == "lamp"
    assert registry.enforced(config)[0] == "lamp"
    assert registry.profile_kinds()[0] == "lamp"
    controls = registry.controls_of(config, host)
    report = registry.run("n", controls[:1], Act.AUDIT)
    assert [finding.id for finding in report.findings] == ["lamp/on"]
    assert b'node_hardening_changes_total{control="lamp"}' in exposition.exposition(Metrics().registry)
    before = fingerprint(config)
    (folder / "one").write_text("x")
    assert fingerprint(config) != before
    assert str(folder) in registry.profile_folders(config)
    assert str(folder) not in registry.profile_folders(Config(lamp=Lamp(mode=choices.Mode.OFF, profiles=str(folder))))
    (tmp_path / "hall.lamp").write_text("dark")
    result = validate([str(tmp_path / "hall.lamp")], host)
    assert [(one.file, one.kind) for one in result.checked] == [(str(tmp_path / "hall.lamp"), "lamp file")]
    assert result.problems[0].message == "it is dark"


@pytest.mark.usefixtures("lamp")
def test_a_new_control_may_be_off(tmp_path: Path) -> None:
    """It is then neither made nor enforced."""
    config = Config(lamp=Lamp(mode=choices.Mode.OFF))
    assert "lamp" not in [control.name for control in registry.controls_of(config, Host(tmp_path))]
    assert "lamp" not in registry.enforced(config)


def test_the_policy_has_a_section_and_the_docs_a_page_for_each_control() -> None:
    """What a control touches beside its own package."""
    for spec in registry.CONTROLS:
        assert any(key.attribute == spec.name.replace("-", "_") for key in keys(schema.Config).values())
        assert (ROOT / "docs/controls" / f"{spec.name}.md").is_file()


def test_the_manifest_has_a_config_map_for_each_folder_of_profiles() -> None:
    """`make manifest` writes it from profiles/."""
    kinds = runpy.run_path(str(ROOT / "tools/sync-manifest"))["KINDS"]
    assert kinds == registry.profile_kinds()
    manifest = (ROOT / "daemonset.yaml").read_text()
    for kind in kinds:
        assert (ROOT / "profiles" / kind).is_dir()
        assert re.search(rf"^  name: node-hardening-{kind}$", manifest, re.MULTILINE)


def test_nothing_above_the_registry_names_a_control() -> None:
    """A list written by hand elsewhere is one that a new control is missing from."""
    names = "|".join(registry.names())
    listed = re.compile(rf'"(?:{names})"[^\n]*"(?:{names})"|config\.(?:{names})\b')
    above = [path for folder in ("daemon", "cli", "report") for path in (ROOT / "agent" / folder).rglob("*.py")]
    assert [path.name for path in above if listed.search(path.read_text())] == []


def test_a_control_whose_section_is_the_same_is_used_again(tmp_path: Path) -> None:
    """With other labels or another policy, only what differs is made again: a control may cache."""
    host, before = Host(tmp_path), schema.Config()
    after = schema.Config(modprobe=schema.Modprobe(deny=("hfs",)))
    controls = registry.controls_of(before, host)
    kept = {one.name: one for one in controls if one.name in registry.unchanged(before, after)}
    made = registry.controls_of(after, host, kept=kept)
    assert [one.name for one in made if one not in controls] == ["modprobe"]
    assert list(registry.unchanged(None, after)) == []
