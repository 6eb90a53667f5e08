"""Whatever bytes a node holds and however a kubelet was called: findings, never an exception, nothing written."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import schema
from agent.controls.kubelet import CHECK_IDS, KubeletControl, yaml_tree
from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet.fields import FIELDS
from agent.controls.kubelet.yaml_tree import DocumentRefused
from agent.controls.probe import Response
from agent.controls.x509 import NotACertificate, is_self_signed
from agent.model import Status
from tests.support.kubelets import CONFIG, DROP_INS, StagedHost, StagedProber, config, plant, process, settings

NAMES = sorted(kubelet_flags.BOOLEAN | kubelet_flags.VALUED)
KEYS = sorted({part for field in FIELDS for part in field.path.split(".") if part} | {"apiVersion", "kind", "<<"})
WORDS = st.sampled_from(
    ["true", "false", "0", "-1", "10255", "Webhook", "", "null", "AllAlpha=true", "a,b", '"', "/x", "4h", "::", "~"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), below, max_size=4)
    ),
    max_leaves=6,
)
ARGUMENT = (
    st.builds("--{}={}".format, st.sampled_from(NAMES), WORDS)
    | st.builds("--{}".format, st.sampled_from(NAMES))
    | WORDS
    | st.text(max_size=10)
)
ALWAYS = [CONFIG_FLAG := f"--config={CONFIG}", f"--config-dir={DROP_INS}"]


def dumped(tree: object) -> str:
    return str(yaml.dump(tree, Dumper=yaml.CSafeDumper))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's tree with both files in place; examples write them anew."""
    return plant(tmp_path_factory.mktemp("node"), {CONFIG: "", f"{DROP_INS}/10-a.conf": ""})


@given(st.binary(max_size=200))
def test_any_bytes_as_configuration_are_refused_or_read(root: Path, content: bytes) -> None:
    """Not text, not YAML, not a mapping: nothing of it is believed. No bytes at random have both headers."""
    (root / CONFIG.lstrip("/")).write_bytes(content)
    found = settings(root, [CONFIG_FLAG])
    assert {finding.status for finding in found.values()} == {Status.UNKNOWN, Status.PASS}
    assert [id_ for id_, finding in found.items() if finding.status is Status.PASS] == ["4.2.7"]


@given(TREES, TREES, st.lists(ARGUMENT, max_size=4))
def test_any_configuration_drop_in_and_arguments_are_judged(
    root: Path, main: object, patch: object, args: list[str]
) -> None:
    """Right headers, then anything, with flags in any order over it."""
    (root / CONFIG.lstrip("/")).write_text(config("") + dumped(main))
    (root / f"{DROP_INS}/10-a.conf".lstrip("/")).write_text(config("") + dumped(patch))
    for finding in settings(root, [*args, *ALWAYS]).values():
        assert finding.observed
        assert (finding.remediation == "") == (finding.status in (Status.PASS, Status.INFO))


@given(st.lists(ARGUMENT, max_size=6))
def test_any_kubelet_gives_every_finding_and_writes_nothing(root: Path, args: list[str]) -> None:
    """The control as a whole over one staged kubelet: every id once, the tree the same afterwards."""
    before = sorted(root.rglob("*"))
    prober = StagedProber(Response(401), Response(error="refused"))
    control = KubeletControl(schema.Kubelet(), StagedHost(root, [process("kubelet", *args)]), prober=prober)
    found = control.judge(control.observe())
    assert sorted(finding.id.removeprefix("kubelet/") for finding in found) == sorted(CHECK_IDS)
    assert sorted(root.rglob("*")) == before


@given(st.text(max_size=300))
def test_any_text_is_a_document_or_refused(text: str) -> None:
    """One kind of error, and it names the file."""
    refused = ""
    try:
        yaml_tree.load(text.encode(), "/f")
    except DocumentRefused as error:
        refused = str(error)
    assert refused.startswith("/f") or not refused


@given(TREES.filter(lambda tree: isinstance(tree, dict)))
def test_what_is_written_as_yaml_is_read_back(tree: dict[str, object]) -> None:
    """Texts stay texts, null stays null; only numbers, y and n may be spelled so that Go and PyYAML read them apart."""

    def same(one: object, other: object) -> bool:
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(same, one, other))
        if other in ("y", "Y", "n", "N"):
            return one is (other in "yY")
        return isinstance(one, float) or isinstance(other, float) or one == other

    tree.pop("<<", None)
    text = dumped(tree)
    try:
        found = {key: yaml_tree.to_json(value) for key, value in yaml_tree.load(text.encode(), "/f").items()}
    except DocumentRefused:
        assert (
            "\\ud" in text.lower()
            or ".inf" in text
            or ".nan" in text
            or any(not char.isprintable() for char in text.replace("\n", ""))
            or "<<" in text
        )
        return
    if "<<" not in text:
        assert same(found, tree)


@given(st.lists(ARGUMENT | st.just("--"), max_size=12))
def test_any_arguments_are_parsed(args: list[str]) -> None:
    """Names are normal, and a bare boolean never takes what comes after it."""
    flags = kubelet_flags.parse(kubelet_flags.arguments(args))
    for name in kubelet_flags.BOOLEAN:
        if f"--{name}" in args and "--" not in args and (found := flags.last(name)) is not None:
            assert found.value in {arg.partition("=")[2] for arg in args if arg.startswith(f"--{name}=")} | {"true"}


@given(st.binary(max_size=80))
def test_any_bytes_are_a_certificate_or_not(content: bytes) -> None:
    """One kind of error."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(content) + b"\n-----END CERTIFICATE-----"
    for candidate in (content, pem):
        try:
            assert is_self_signed(candidate) in (True, False)
        except NotACertificate:
            continue


@pytest.mark.parametrize(
    ("main", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_rfc_7386(main: object, patch: object, merged: object) -> None:
    """The examples of its appendix A that hold mappings."""
    base, over = yaml_tree.graft(main, "x").data, yaml_tree.graft(patch, "y").data
    assert isinstance(base, dict)
    assert isinstance(over, dict)
    assert {key: yaml_tree.to_json(value) for key, value in yaml_tree.merge(base, over).items()} == merged
