"""Real coordinators on the machines of a reboot_world: started, crashed, started again, booted with their node."""

from __future__ import annotations

import random
from collections.abc import Callable

from agent.config.schema import Reboot
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.interfaces import Tick
from tests.support.reboot_interfaces import (
    BlockerOf,
    ClusterOf,
    DrainOf,
    HardeningOf,
    HooksOf,
    RebooterOf,
    ReporterOf,
    SentinelOf,
)
from tests.support.reboot_machine import SimMachine

Make = Callable[[Reboot, Dependencies], Coordinator]


def dependencies_of(machine: SimMachine, rng: random.Random) -> Dependencies:
    """All of the machine's interfaces."""
    return Dependencies(
        cluster=ClusterOf(machine),
        clock=machine,
        machine=machine,
        sentinel=SentinelOf(machine),
        blockers=(BlockerOf(machine),),
        drain=DrainOf(machine),
        hooks=HooksOf(machine),
        rebooter=RebooterOf(machine),
        hardening=HardeningOf(machine),
        reporter=ReporterOf(machine),
        rng=rng,
    )


class Agents:
    """Keeps one agent process running on each machine, as the kubelet does."""

    def __init__(self, policy: Reboot, rng: random.Random, make: Make = Coordinator) -> None:
        self.policy = policy  # another one reaches the running agents at their next tick
        self.rng = rng
        self._make = make

    def _agent(self, machine: SimMachine) -> Callable[[], Tick]:
        policy, dependencies = self.policy, dependencies_of(machine, self.rng)
        coordinator = self._make(policy, dependencies)

        def tick() -> Tick:
            nonlocal policy
            if policy is not self.policy:
                policy = self.policy
                coordinator.configure(policy, dependencies)
            return coordinator.tick()

        return tick

    def on(self, machine: SimMachine) -> None:
        """Starts an agent, and has it started again after crashes and boots."""

        def start() -> None:
            if machine.agent is None and machine.has_kubelet:
                machine.start_agent(self._agent(machine), after=self.rng.uniform(0.0, 1.0))

        def start_later() -> None:
            machine.world.at(machine.world.now + self.rng.uniform(1.0, 20.0), start)

        machine.crashed = machine.came_up = start_later  # type: ignore[method-assign]
        start()
