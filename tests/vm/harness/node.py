"""The agent in a machine, as a person would run it there: a policy file, a command, its document and exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from agent.config.schema_tree import camel
from agent.controls import registry
from tests.vm.harness.machine import Machine

PROGRAM = "/usr/local/bin/node-hardening-agent"
POLICY = "/etc/node-hardening/config.yaml"
OFF = {"mode": "off"}
SECTIONS = [camel(name.replace("-", "_")) for name in registry.names()]
EVERYTHING_OFF: dict[str, Any] = dict.fromkeys((*SECTIONS, "reboot"), OFF)


@dataclass(frozen=True, slots=True)
class Said:
    """What one run of the agent said: its exit code and its document."""

    code: int
    document: Mapping[str, Any]
    err: str

    def finding(self, name: str) -> dict[str, Any]:
        """The finding of that id. Fails when it is not there."""
        found = {one["id"]: one for one in self.document["findings"]}
        assert name in found, f"{name} is not among {sorted(found)}"
        result: dict[str, Any] = found[name]
        return result

    def status(self, name: str) -> str:
        """Its status."""
        return str(self.finding(name)["status"])


def policy(machine: Machine, **controls: Mapping[str, Any]) -> None:
    """Writes the policy; every control that is not named is off."""
    machine.put(POLICY, yaml.safe_dump({**EVERYTHING_OFF, **controls}))


def agent(machine: Machine, *words: str, seconds: float = 180.0) -> Said:
    """Runs `node-hardening-agent WORDS -o json`. Fails when it prints no document."""
    done = machine.run([PROGRAM, *words, "-o", "json"], check=False, seconds=seconds)
    try:
        document = json.loads(done.out)
    except ValueError:
        raise AssertionError(f"{' '.join(words)}: exit {done.code}, no document:\n{done.text[-3000:]}") from None
    return Said(done.code, document, done.err)


def apply(machine: Machine, *words: str) -> Said:
    """One pass that changes the node."""
    return agent(machine, "apply", *words)


def audit(machine: Machine, *words: str) -> Said:
    """One look."""
    return agent(machine, "audit", *words)
