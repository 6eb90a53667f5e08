"""Commands on the node around a reboot: before the drain, before the reboot, and after it.

They run beside the coordinator, which renews the lock meanwhile, in the node's own namespaces where the Host is set so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from agent.config.schema import Hook
from agent.config.schema import Hooks as HooksPolicy
from agent.errors import AgentError, CommandError, CommandMissing, CommandTimeout
from agent.host import Host
from agent.reboot.interfaces import HookProgress, HookStage
from agent.text import sanitize

_OUTPUT_LIMIT = 1 << 16
_WORDS = 200


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
            environment = {"NODE_NAME": self._node, "REBOOT_STAGE": stage.value, "REBOOT_CYCLE": cycle}
            running = self._stages[stage, cycle] = _Running(hooks, self._host, environment, self._wake)
        return running.progress

    def reset(self) -> None:
        """See interfaces.Hooks. A hook that runs is killed within a few seconds; this does not wait for it."""
        for running in self._stages.values():
            running.cancel()
        self._stages.clear()


class _Running:
    """One stage under way."""

    def __init__(
        self, hooks: tuple[Hook, ...], host: Host, environment: Mapping[str, str], wake: Callable[[], None]
    ) -> None:
        self.progress = HookProgress(done=False)
        self._cancelled = threading.Event()
        self._work = lambda: self._run(hooks, host, environment, wake)
        threading.Thread(target=self._work, name="hooks", daemon=True).start()

    def cancel(self) -> None:
        self._cancelled.set()

    def _run(
        self, hooks: tuple[Hook, ...], host: Host, environment: Mapping[str, str], wake: Callable[[], None]
    ) -> None:
        # Whatever ends this thread, no stage may stay without an end.
        ended = HookProgress(done=False, error="the hooks' thread died; see the agent's log")
        try:
            ended = run_hooks(hooks, host, environment=environment, cancelled=self._cancelled.is_set)
        finally:
            self.progress = ended
            if not self._cancelled.is_set():
                wake()


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
