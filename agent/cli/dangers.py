"""Values of a valid policy that `validate` warns about: each may be meant, and each has taken a cluster down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent import config
from agent.bundled_profiles import shipped_profiles
from agent.config import Config
from agent.config.choices import Mode, OnTimeout
from agent.config.overrides import merged
from agent.config.schema import Modprobe
from agent.config.units import spell_duration
from agent.controls.modprobe.denylists import load_list, normal_name
from agent.errors import Problem

_SHORT_SECONDS = 900.0
_PLATFORM = ("squashfs", "udf")
Danger = Iterator[tuple[str, str]]  # (key path, message)


def advise(content: str, file: str) -> Sequence[Problem]:
    """The warnings of a policy that validates, those of each override at its own keys."""
    made, lines = config.read(content, file)
    found = list(_dangers(merged(made, ())))
    for index, override in enumerate(made.overrides):
        of_all = set(found)
        found += [
            (f"overrides[{index}].{key}", message)
            for key, message in _dangers(merged(made, [override]))
            if (key, message) not in of_all
        ]
    return [Problem(file, _line(lines, key), key, message) for key, message in found]


def _line(lines: Mapping[str, int], key: str) -> int:
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key, 0)


def _dangers(made: Config) -> Danger:
    if made.modprobe.mode is Mode.ENFORCE:
        yield from _platform(made.modprobe)
    reboot = made.reboot
    if reboot.mode is Mode.OFF:
        return
    if reboot.drain.on_timeout is OnTimeout.FORCE and reboot.drain.timeout < _SHORT_SECONDS:
        short, longer = spell_duration(reboot.drain.timeout), spell_duration(_SHORT_SECONDS)
        why = f"force reboots after {short} with pods still running, disruption budgets or not"
        yield "reboot.drain.onTimeout", f"{why}: write abort, or a drain.timeout of {longer} or more"
    if reboot.max_unavailable == "100%":
        yield "reboot.maxUnavailable", "100% lets a node reboot while all others of its pool are down"


def _platform(modprobe: Modprobe) -> Danger:
    """Modules that the platforms below some nodes need; what breaks stands in the bundled list."""
    allowed = {normal_name(name) for name in modprobe.allow}
    denied = {normal_name(name): "deny" for name in (*modprobe.deny, *modprobe.force)}
    breaks = {}
    for path in sorted(shipped_profiles("modprobe").glob("*.yaml")):
        for one in load_list(path.read_text(), str(path)):
            breaks[one.name] = one.breaks
            if path.stem in modprobe.lists:
                denied.setdefault(one.name, "lists")
    for name in _PLATFORM:
        if name in denied and name not in allowed:
            yield f"modprobe.{denied[name]}", f"{name} is denied: {breaks[name]}"
