"""The kubelet's effective configuration: its command line, config file and drop-ins put together in its own order.

(1) --config over the defaults of v1beta1, or, without it, the legacy defaults of the flags; (2) each `*.conf` below
--config-dir in path order, RFC 7386; (3) defaults for what is unset then; (4) flags. A file that the kubelet would
refuse is not what the running one works with, so nothing but flags is believed then.
https://github.com/kubernetes/kubernetes/blob/master/cmd/kubelet/app/server.go
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.controls.kubelet import fields, yaml_tree
from agent.controls.kubelet.fields import FIELDS, TYPED, Field, Kind, Wrong
from agent.controls.kubelet.flags import Flags
from agent.controls.kubelet.yaml_tree import DocumentRefused, Tree, Value
from agent.errors import HostError
from agent.host import Host

UNSET = "default"
FLAGS_ONLY = "default (flags only)"
WITH_CONFIG = "default (with --config)"
VERSIONED = "default (v1beta1, a null took the value out)"
CONFIGZ = "configz"

_MAX_DROP_INS = 200
_MAX_FOLDERS = 50


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value. problem: why it is unknown, empty when it is not. folder: where a relative path starts."""

    value: Any
    source: str
    problem: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Effective:
    """The configuration of one kubelet. files: the configuration files read, in order. trouble: why they do not count.

    doubt: why even the command line is not known; then nothing is.
    """

    flags: Flags
    cwd: str = "/"
    config: str = ""
    config_dir: str = ""
    files: tuple[str, ...] = ()
    tree: Tree = field(default_factory=dict)
    trouble: str = ""
    doubt: str = ""
    configz: Tree | None = None

    @property
    def problem(self) -> str:
        """Why not all of it is known, empty when it is."""
        return self.doubt or self.trouble

    def get(self, key: Field) -> Setting:
        """The value that counts: the running kubelet's own answer where there is one, else flags and files."""
        return self._running(key) or self.configured(key)

    def configured(self, key: Field) -> Setting:
        """The value by flags and files."""
        if self.doubt:
            return Setting(None, "", self.doubt)
        if key is fields.SECCOMP:
            return self._either(key)
        if key is fields.GATES:
            return self._gates(key)
        return self._by_flag(key) or self._by_file(key)

    def gate(self, name: str) -> Setting:
        """One feature gate, with the place that decides it; None when it is not set."""
        gates = self.get(fields.GATES)
        if gates.problem or name not in gates.value:
            return replace(gates, value=None)
        return Setting(gates.value[name], self._gate_source(name, gates.source))

    def beta_gate(self, name: str) -> tuple[str, Setting]:
        """The gate that decides about a feature which is beta, with its place; its value is None when none is set."""
        gates = self.get(fields.GATES)
        key = name if gates.problem else fields.deciding_gate(gates.value, name)
        return key, self.gate(key)

    def _gate_source(self, name: str, source: str) -> str:
        last = self.flags.last(fields.GATES.flag)
        if source == CONFIGZ:
            return source
        if last is not None and name in fields.from_flags(fields.GATES, self.flags):
            return last.source
        found = yaml_tree.find(self.tree, fields.GATES.path)
        below = found.data if found is not None and isinstance(found.data, Mapping) else {}
        return below[name].source if name in below else source

    def path(self, key: Field) -> str:
        """A setting that is a path, made absolute; empty when it is unset or unknown."""
        setting = self.get(key)
        return self.absolute(setting.value, setting.folder) if setting.value and not setting.problem else ""

    def absolute(self, path: str, folder: str = "") -> str:
        """A path as the kubelet opens it: relative ones start in its working directory, or the config file's folder."""
        return posixpath.normpath(posixpath.join("/", self.cwd, folder, path))

    def differences(self) -> tuple[str, ...]:
        """Where the running kubelet's own answer is not what its command line and files say."""
        found = []
        for key in FIELDS if self.configz is not None else ():
            running, set_ = self._running(key), self.configured(key)
            if running is None or running.problem or set_.problem or _same(key, running.value, set_.value):
                continue
            by_files = f"{fields.spelled(set_.value)} by {set_.source}"
            found.append(f"{key.path} is {fields.spelled(running.value)} in the running kubelet and {by_files}")
        return tuple(found)

    # -- the layers ------------------------------------------------------------------------------------------------

    def _running(self, key: Field) -> Setting | None:
        if self.configz is None or not key.path:
            return None
        found = yaml_tree.find(self.configz, key.path)
        if found is None:
            # omitempty leaves out what is zero; a field whose default is not zero would be there if it were known.
            setting = None if key.default else Setting(_zero(key), CONFIGZ)
        else:
            try:
                setting = Setting(fields.from_file(key, found), CONFIGZ)
            except Wrong as error:
                setting = Setting(None, CONFIGZ, f"configz: {error}")
        if key is fields.SECCOMP and setting is not None and setting.value is False:
            flag = self.configured(key)  # the flag is not in /configz: either of them is enough
            return flag if flag.problem or flag.source.startswith("flag") else setting
        return setting

    def _by_flag(self, key: Field) -> Setting | None:
        last = self.flags.last(key.flag) if key.flag else None
        if last is None:
            return None
        try:
            return Setting(fields.from_flags(key, self.flags), last.source)
        except Wrong as error:
            return Setting(None, last.source, f"{last.source}: {error}; the kubelet refuses it")

    def _by_file(self, key: Field) -> Setting:
        if not key.path:
            return Setting(key.default, UNSET)
        if self.trouble:
            return Setting(None, "", self.trouble)
        found = yaml_tree.find(self.tree, key.path)
        if found is not None:
            value = fields.from_file(key, found)  # cannot be wrong: that would be trouble
            if value or not key.zero_is_unset:
                return Setting(value, found.source, folder=found.folder)
        if self.config:
            return Setting(key.default, WITH_CONFIG)
        # The legacy value stands in the tree; where it does not, a drop-in has taken it out and v1beta1 fills the gap.
        return Setting(key.default, VERSIONED if key.legacy is not None else FLAGS_ONLY)

    def _either(self, key: Field) -> Setting:
        """seccompDefault: the flag and the field are or-ed, so --seccomp-default=false never overrules the field."""
        flag = self._by_flag(key)
        if flag is not None and (flag.problem or flag.value):
            return flag
        by_file = self._by_file(key)
        return flag if flag is not None and not by_file.problem and not by_file.value else by_file

    def _gates(self, key: Field) -> Setting:
        """Feature gates merge by key; a flag's key wins."""
        flag, by_file = self._by_flag(key), self._by_file(key)
        if flag is None or flag.problem:
            return flag or by_file
        if by_file.problem:
            return by_file
        sources = [by_file.source, flag.source] if by_file.value else [flag.source]
        return Setting({**by_file.value, **flag.value}, ", ".join(sources))


def read(view: Host, flags: Flags, cwd: str, *, doubt: str = "") -> Effective:
    """Reads what the command line points to. view: the files as the kubelet sees them. Never raises."""
    effective = Effective(flags, cwd or "/", flags.text("config"), flags.text("config-dir"), doubt=doubt)
    if doubt:
        return effective
    files: list[str] = []
    tree = _legacy()
    relative = [path for path in (effective.config, effective.config_dir) if path and not path.startswith("/")]
    if relative and not cwd:
        unread = f"{relative[0]} is relative and the kubelet's working directory cannot be read"
        return replace(effective, tree=tree, trouble=unread)
    try:
        if effective.config:
            path = effective.absolute(effective.config)
            files.append(path)
            tree = yaml_tree.merge({}, _load(view, path, "", posixpath.dirname(path)))  # nulls are unset
        for path in _drop_ins(view, effective):
            files.append(path)
            tree = yaml_tree.merge(tree, _load(view, path, "drop-in ", ""))
        trouble = _trouble(tree)
    except (HostError, DocumentRefused) as error:
        trouble = str(error)
    return replace(effective, files=tuple(files), tree=tree, trouble=trouble)


def _drop_ins(view: Host, effective: Effective) -> Iterator[str]:
    """Every `*.conf` below --config-dir as Go's filepath.WalkDir finds them: depth first, names in byte order.

    It enters no symlinked folder, and passes over one that is given without a word. Raises HostError, DocumentRefused.
    """
    given = effective.config_dir
    top = effective.absolute(given)
    pending = [top] if given and (given.endswith("/") or not _is_symlink(view, top)) else []
    folders = files = 0
    while pending:
        path = pending.pop()
        if path == top or (not _is_symlink(view, path) and view.stat(path).kind == "directory"):
            folders += 1
            if folders > _MAX_FOLDERS:
                raise DocumentRefused(f"{top}: more than {_MAX_FOLDERS} folders below it")
            pending += reversed([f"{path.rstrip('/')}/{name}" for name in view.names(path)])
        elif posixpath.basename(path).endswith(".conf"):
            files += 1
            if files > _MAX_DROP_INS:
                raise DocumentRefused(f"{top}: more than {_MAX_DROP_INS} drop-ins below it")
            yield path


def with_configz(effective: Effective, answer: Mapping[str, Any] | None) -> Effective:
    """With the running kubelet's own answer, `{"kubeletconfig": …}` or what is in it. Raises DocumentRefused."""
    if answer is None:
        return effective
    inner = answer.get("kubeletconfig", answer)
    grafted = yaml_tree.graft(inner, CONFIGZ).data
    return replace(effective, configz=grafted) if isinstance(grafted, Mapping) else effective


def _load(view: Host, path: str, label: str, folder: str) -> Tree:
    tree = yaml_tree.read(view, path, label=label, folder=folder)
    yaml_tree.require_kind(tree, path)
    return tree


def _legacy() -> Tree:
    """What applyLegacyDefaults sets before the flags are read; --config replaces it, --config-dir alone does not."""
    tree: Tree = {}
    for known in FIELDS:
        if known.legacy is None:
            continue
        value = Value(known.legacy, FLAGS_ONLY)
        for key in reversed(known.path.split(".")):
            value = Value({key: value}, FLAGS_ONLY)
        assert isinstance(value.data, Mapping)  # noqa: S101 - wrapped in a mapping just above
        tree = yaml_tree.merge(tree, value.data)
    return tree


def _trouble(tree: Tree) -> str:
    """What the kubelet would refuse in the merged configuration, or reads where we would not."""
    refused = []
    for known in TYPED:
        parent = yaml_tree.find(tree, known.path.rpartition(".")[0]) if "." in known.path else None
        if parent is not None and not isinstance(parent.data, Mapping):
            refused.append(f"{parent.source}: the parent of {known.path} has to be a mapping")
        elif (value := yaml_tree.find(tree, known.path)) is not None:
            try:
                fields.from_file(known, value)
            except Wrong as error:
                refused.append(f"{value.source}: {error}")
    if refused:
        reasons = "; ".join(refused[:3])
        return f"{reasons}; the kubelet refuses such a file, so what it runs with is not on disk"
    return "; ".join(dict.fromkeys(line for known in FIELDS for line in _other_case(tree, known.path)))


def _other_case(tree: Tree, path: str) -> Iterator[str]:
    """Keys of drop-ins that differ in case only: Go's encoding/json, which reads the merged result, takes them too."""
    for key in path.split("."):
        for other, value in tree.items():
            if other != key and other.casefold() == key.casefold() and value.source.startswith("drop-in "):
                yield f"{value.source}: {other} is read as {key}, which may be set elsewhere too"
        below = tree.get(key)
        if below is None or not isinstance(below.data, Mapping):
            return
        tree = below.data


def _same(key: Field, one: Any, other: Any) -> bool:
    if key.kind is Kind.DURATION:
        return True  # 4h, 4h0m0s and 240m are one; the field has no effect anyway
    if key.kind is Kind.LIST:
        return sorted(one) == sorted(other)
    return bool(one == other)


def _zero(key: Field) -> Any:
    return {Kind.BOOLEAN: False, Kind.INT32: 0, Kind.INT64: 0, Kind.LIST: (), Kind.GATES: {}}.get(key.kind, "")


def _is_symlink(view: Host, path: str) -> bool:
    try:
        view.read_link(path)
    except HostError:
        return False
    return True
