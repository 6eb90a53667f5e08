"""Nodes whose files are huge or many, for audits that must stay small: here, and in the image (tests/image).

They took 234 to 881 MiB before limits and a budget.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.kubelets import CONFIG, DROP_INS, HARDENED, config, plant
from tests.support.node_tree import NodeTree


@dataclass(frozen=True, slots=True)
class HostileFiles:
    """make: writes the files and starts the kubelet that reads them. findings: status (one of several words) and a part
    of what is observed, by the id below `kubelet/`."""

    make: Callable[[NodeTree], None]
    findings: Mapping[str, tuple[str, str]]

    def node(self, root: Path, mounted_at: Path | None = None) -> NodeTree:
        """A hardened node with these files."""
        plant(root, {CONFIG: HARDENED, "/var/lib/kubelet/ca.crt": "CA"})
        node = NodeTree(root, mounted_at=mounted_at)
        self.make(node)
        return node


def _arguments_files(node: NodeTree) -> None:
    """8 MiB of MicroK8s' arguments: 881 MiB and 18.7 s before."""
    plant(node.root, {"/args/kubelet": "--a=b\n" * (1 << 20), "/args/kube-proxy": "--a=b\n" * (1 << 20)})
    node.add("kubelite", "/snap/kubelite", "--kubelet-args-file=/args/kubelet", "--proxy-args-file=/args/kube-proxy")


def _command_line(node: NodeTree) -> None:
    """A process may have megabytes of arguments: its identity is known and its words are not."""
    node.add("kubelet", "kubelet", *["--a=b"] * 20_000)


def _names(node: NodeTree) -> None:
    """220,000 names in --cert-dir: 234 MiB before."""
    folder = node.root / "certs"
    folder.mkdir()
    first = folder / "0.pem"
    first.write_text("")
    for number in range(1, 60_000):  # links cost no inodes, and a link may have 65,000 names
        os.link(first, folder / f"{number}.pem")
    node.add("kubelet", "kubelet", f"--config={CONFIG}", "--cert-dir=/certs")


def _drop_ins(values: int) -> Callable[[NodeTree], None]:
    """40 drop-ins of 40,000 values each: 514 MiB before. Below the limit of one file the pass's own limit holds."""

    def make(node: NodeTree) -> None:
        body = config("allowedUnsafeSysctls: [" + "a.b," * values + "]\n")
        plant(node.root, {f"{DROP_INS}/{number:02}.conf": body for number in range(40)})
        node.add("kubelet", "kubelet", f"--config={CONFIG}", f"--config-dir={DROP_INS}")

    return make


def _directories(node: NodeTree) -> None:
    """More drop-in directories than a kubelet is ever given."""
    for number in range(600):
        (node.root / f"drop/{number}").mkdir(parents=True)
    node.add("kubelet", "kubelet", "--config-dir=/drop")


def _document(body: str) -> Callable[[NodeTree], None]:
    def make(node: NodeTree) -> None:
        plant(node.root, {CONFIG: body})
        node.add("kubelet", "kubelet", f"--config={CONFIG}")

    return make


def _certificates(node: NodeTree) -> None:
    """What is only looked at is not read; what is parsed is bounded."""
    plant(node.root, {"/big.crt": "x" * (9 << 20)})
    node.add("kubelet", "kubelet", "--client-ca-file=/big.crt", "--tls-cert-file=/big.crt", "--tls-private-key-file=/k")


_ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 20}]\n" for n in range(1, 20))
_ANY = {"4.2.14": ("unknown fail", "")}
FILES: Mapping[str, HostileFiles] = {
    "arguments files": HostileFiles(
        _arguments_files, {"4.2.1": ("unknown", "larger than 65536 bytes"), "4.3.1": ("unknown", "")}
    ),
    "command line": HostileFiles(_command_line, {"process": ("unknown", "larger than 65536 bytes")}),
    "names": HostileFiles(_names, {"file/pki": ("unknown", "more than 8192 names"), "4.2.1": ("pass", "")}),
    "large drop-ins": HostileFiles(_drop_ins(40_000), {"config": ("unknown", "values"), "sysctls": ("unknown", "")}),
    "many drop-ins": HostileFiles(_drop_ins(15_000), {"config": ("unknown", "values"), "sysctls": ("unknown", "")}),
    "directories": HostileFiles(_directories, {"config": ("unknown", "")}),
    "deep YAML": HostileFiles(_document(config("[" * 100_000)), _ANY),
    "aliases of aliases": HostileFiles(_document(config(_ALIASES)), _ANY),
    "one endless word": HostileFiles(_document(config("x: " + "a" * 400_000)), _ANY),
    "deep JSON": HostileFiles(_document('{"a":' * 50_000), _ANY),
    "deep lists": HostileFiles(_document("- " * 100_000), _ANY),
    "certificates": HostileFiles(_certificates, {"4.2.3": ("pass", ""), "4.2.9": ("unknown", "larger than")}),
}
