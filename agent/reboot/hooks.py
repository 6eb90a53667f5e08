"""Commands on the node around a reboot: before the drain, before the reboot, and after it.

They run beside the coordinator, which renews the lock meanwhile, in the node's own namespaces where the Host is set so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.config.schema import Hook
from agent.config.schema import Hooks as HooksPolicy
from agent.errors import AgentError, CommandError, CommandMissing, CommandTimeout
from agent.host import Host
from agent.reboot.interfaces import HookProgress, HookStage
from agent.text import sanitize

_OUTPUT_LIMIT = 1 << 16
_WORDS = 200


@dataclass(slots=True)
class _Running:
    """One stage under way."""

    progress: HookProgress = field(default_factory=lambda: HookProgress(done=False))
    cancelled: threading.Event = field(default_factory=threading.Event)


class HostHooks:
    """Runs the hooks of a stage one after another, in a thread of its own; satisfies interfaces.Hooks.

    Each gets NODE_NAME, REBOOT_STAGE and REBOOT_CYCLE in its environment. The first one that fails ends the stage.
    """

    def __init__(self, policy: HooksPolicy, host: Host, *, node: str, wake: Callable[[], None] = lambda: None) -> None:
        """wake: called in the stage's thread when it has ended."""
        self._hooks: Mapping[HookStage, tuple[Hook, ...]] = {
            HookStage.PRE_DRAIN: policy.pre_drain,
            HookStage.PRE_REBOOT: policy.pre_reboot,
            HookStage.POST_REBOOT: policy.post_reboot,
        }
        self._host = host
        self._node = node
        self._wake = wake
        self._stages: dict[tuple[HookStage, str], _Running] = {}

    def step(self, stage: HookStage, cycle: str) -> HookProgress:
        """See interfaces.Hooks."""
        hooks = self._hooks[stage]
        if not hooks:
            return HookProgress(done=True)
        running = self._stages.get((stage, cycle))
        if running is None:
            running = self._stages[stage, cycle] = _Running()
            environment = {"NODE_NAME": self._node, "REBOOT_STAGE": stage.value, "REBOOT_CYCLE": cycle}
            threading.Thread(target=self._run, args=(running, hooks, environment), name="hooks", daemon=True).start()
        return running.progress

    def reset(self) -> None:
        """See interfaces.Hooks. A hook that runs is killed within a few seconds; this does not wait for it."""
        for running in self._stages.values():
            running.cancelled.set()
        self._stages.clear()

    def _run(self, running: _Running, hooks: tuple[Hook, ...], environment: Mapping[str, str]) -> None:
        # Whatever ends this thread, no stage may stay without an end.
        ended = HookProgress(done=False, error="the hooks' thread died; see the agent's log")
        try:
            ended = run_hooks(hooks, self._host, environment=environment, cancelled=running.cancelled.is_set)
        finally:
            running.progress = ended
            if not running.cancelled.is_set():
                self._wake()


def run_hooks(
    hooks: tuple[Hook, ...],
    host: Host,
    *,
    environment: Mapping[str, str],
    cancelled: Callable[[], bool] = lambda: False,
) -> HookProgress:
    """Runs hooks in order, to the first that fails. The error names the hook, how it ended and its last line."""
    for hook in hooks:
        name = sanitize(" ".join(hook.command), 100)
        try:
            host.run(
                hook.command,
                timeout_seconds=hook.timeout,
                limit_bytes=_OUTPUT_LIMIT,
                environment=environment,
                cancelled=cancelled,
            ).check()
        except CommandMissing as error:
            return HookProgress(done=False, error=sanitize(f"{name}: {error}", _WORDS))
        except CommandTimeout:
            return HookProgress(done=False, error=f"{name}: killed after {hook.timeout:g} s")
        except CommandError as error:
            return HookProgress(done=False, error=sanitize(str(error), _WORDS + len(name)))
        except AgentError as error:
            return HookProgress(done=False, error=sanitize(f"{name}: {error}", _WORDS))
    return HookProgress(done=True)
