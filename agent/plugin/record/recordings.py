"""The annotation `recordings` of Nodes as rows. Whoever can write the Node may have written it: all is bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent import annotations as keys
from agent.denials import syscall_names
from agent.denials.document import RECORDING_FIELDS, RECORDING_VERSION
from agent.plugin.cluster import values
from agent.reboot.kube.views import node_view

_KEPT = 200
_BITMAP = re.compile(r"[0-9a-f]{1,256}")
_WORDS = RECORDING_FIELDS[:5]


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """One container on one architecture (SCMP_ARCH_*). syscalls: names. lost: records of its node that were lost while
    it was recorded. first, last: epoch seconds."""

    node: str
    namespace: str
    pod: str
    uid: str
    container: str
    id: str
    architecture: str
    syscalls: frozenset[str]
    calls: int
    lost: int
    first: float
    last: float


def recordings_of(node: Mapping[str, Any]) -> Iterator[RecordingRow]:
    """A Node's. Pure; what is malformed is left out."""
    view = node_view(node)
    document = values.mapping(view.annotations.get(keys.RECORDINGS, ""))
    listed = document.get("recordings") if document.get("v") == RECORDING_VERSION else None
    for one in listed[:_KEPT] if isinstance(listed, list) else ():
        if not isinstance(one, list) or len(one) != len(RECORDING_FIELDS):
            continue
        arch, bitmap = values.text(one[5], 8), values.text(one[6], 256)
        architecture = syscall_names.ARCHITECTURES.get(int(arch, 16)) if _BITMAP.fullmatch(arch) else None
        if architecture is None or not _BITMAP.fullmatch(bitmap):
            continue
        words = {name: values.text(value, 128) for name, value in zip(_WORDS, one, strict=False)}
        found = frozenset(_named(int(arch, 16), int(bitmap, 16)))
        calls, lost = int(values.number(one[7])), int(values.number(one[8]))
        first, last = values.timestamp(one[9]), values.timestamp(one[10])
        yield RecordingRow(
            node=values.name(view.name), **words, architecture=architecture, syscalls=found, calls=calls, lost=lost,
            first=first, last=last,
        )  # fmt: skip


def _named(arch: int, bitmap: int) -> Iterator[str]:
    """Names of the bits; a number without a name is of a newer kernel than the table."""
    table = syscall_names.names(arch)
    yield from (table[number] for number in range(bitmap.bit_length()) if bitmap >> number & 1 and number in table)
