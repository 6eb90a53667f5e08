"""Records of what the shipped profiles refuse: `denials.visible`, where every runtime of the node takes the flag.

Without SECCOMP_FILTER_FLAG_LOG the kernel records no refusal. runc before 1.2 does not start a container whose profile
has flags, so it refuses to set them before each runtime that is found has listed both among those that it supports.
https://github.com/opencontainers/runtime-spec/blob/v1.2.0/features-linux.md#seccomp
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.bundled_profiles import is_shipped
from agent.controls.seccomp import runtimes
from agent.controls.seccomp.profile_dir import Source
from agent.errors import HostError
from agent.host import Host

# Flags replace runc's default, which is SPEC_ALLOW: without it a container would be slower.
FLAGS: Final = ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whether refusals leave a record. problem: why not; empty when they do. runtimes: their paths."""

    problem: str
    runtimes: tuple[str, ...] = ()


class RuntimeFlags:
    """What the node's runtimes list as supported; each is run once for a version of its file."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[tuple[int, int], str] = {}

    def visibility(self) -> Visibility:
        """Over every runtime of the node: one that does not take the flags is enough for "not visible"."""
        if not self._host.can_start_programs:
            return Visibility("the runtimes of a tree cannot be run on this machine")
        try:
            found = runtimes.find(self._host)
        except HostError as error:
            return Visibility(str(error))
        if not found:
            return Visibility("no container runtime is found in the node's usual folders")
        self._known = {key: text for key, text in self._known.items() if key in found}
        problems = [problem for key, path in found.items() if (problem := self._problem(key, path))]
        return Visibility("; ".join(problems), tuple(found.values()))

    def _problem(self, key: tuple[int, int], path: str) -> str:
        try:
            if key not in self._known:
                takes = takes_flags(runtimes.ask(self._host, path, "features"))
                self._known[key] = "" if takes else f"{path} does not list these flags as supported"
            return self._known[key]
        except HostError as error:
            return str(error)


def takes_flags(features: str) -> bool:
    """Whether a runtime's `features` lists both flags. Pure."""
    try:
        document = json.loads(features)
        supported = document["linux"]["seccomp"]["supportedFlags"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
    return isinstance(supported, list) and set(FLAGS) <= {one for one in supported if isinstance(one, str)}


def with_flags(source: Source) -> Source:
    """A shipped profile as it is, with the flags; any other file, and one that refuses nothing, unchanged."""
    if not is_shipped("seccomp", source.name, source.content):
        return source
    document: dict[str, Any] = json.loads(source.content)
    actions = {document.get("defaultAction"), *(rule.get("action") for rule in document.get("syscalls", []))}
    if "SCMP_ACT_ERRNO" not in actions:
        return source
    return replace(source, content=json.dumps({**document, "flags": list(FLAGS)}, indent=2).encode())
