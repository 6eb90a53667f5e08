"""Whether libseccomp itself takes a profile, where this machine has one: each rule is added and the filter is built."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
from pathlib import Path
from typing import Final

from agent.errors import AgentError
from agent.plugin.record.profile import names_of

_ERRNO, _LOG, _ALLOW, _KILL_PROCESS = 0x00050001, 0x7FFC0000, 0x7FFF0000, 0x80000000
_ACTIONS: Final = {
    "SCMP_ACT_ERRNO": _ERRNO, "SCMP_ACT_LOG": _LOG, "SCMP_ACT_ALLOW": _ALLOW, "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
}  # fmt: skip


class ProfileRefused(AgentError):
    """libseccomp does not take the profile."""


def load(text: str) -> bool:
    """Whether libseccomp was there and took it; False where there is none. Raises ProfileRefused.

    Rules with arguments and other actions are the lint's to judge: they are left out here.
    """
    name = ctypes.util.find_library("seccomp")
    if name is None:
        return False
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    profile = json.loads(text)
    context = library.seccomp_init(ctypes.c_uint32(_ACTIONS.get(profile["defaultAction"], _ERRNO)))
    if not context:
        raise ProfileRefused(f"libseccomp refuses the default action {profile['defaultAction']}")
    try:
        for rule in profile["syscalls"]:
            action = _ACTIONS.get(rule["action"])
            if action is None or rule.get("args") or rule["action"] == profile["defaultAction"]:
                continue
            for one in names_of(rule):
                number = library.seccomp_syscall_resolve_name(one.encode())
                code = library.seccomp_rule_add(ctypes.c_void_p(context), ctypes.c_uint32(action), number, 0)
                if code:
                    raise ProfileRefused(f"libseccomp refuses the rule for {one}: error {-code}")
        with Path(os.devnull).open("wb") as nowhere:
            if code := library.seccomp_export_bpf(ctypes.c_void_p(context), nowhere.fileno()):
                raise ProfileRefused(f"libseccomp cannot build the filter: error {-code}")
    finally:
        library.seccomp_release(ctypes.c_void_p(context))
    return True
