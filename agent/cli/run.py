"""`run`: the daemon, started so that it loads no more than it needs (agent/lean).

The order of imports is part of that, and measured: docs/performance.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agent.cli import common
from agent.cli.common import CliArgs
from agent.lean import lazy_import, shared_methods

if TYPE_CHECKING:
    from agent.daemon.staging import Reader
    from agent.denials.observer import Sources

_NAMESPACE = "node-hardening"  # daemonset.yaml's

# Ordered so that each leaves the most freed memory to the next.
PACKAGES = (
    "agent.config", "agent.controls.registry", "agent.kube", "agent.report.metrics", "agent.reboot.coordinator",
    "agent.daemon",
)  # fmt: skip
# Only the start needs the parser and what it imports.
_UNLOADED = ("agent.cli.options", "argparse", "gettext", "locale", "shutil", "textwrap")


def run(argv: Sequence[str]) -> int:
    """Runs until a signal ends it. Returns the exit code; argv begins with the command."""
    given = parsed(argv)
    return common.answer(lambda: serve(given))


def parsed(argv: Sequence[str]) -> CliArgs:
    """The command line; its parser is unloaded afterwards."""
    try:
        return _parsed(argv)
    finally:
        lazy_import.unload(*_UNLOADED)


def _parsed(argv: Sequence[str]) -> CliArgs:
    from agent.cli import options  # noqa: PLC0415 - a reference here would keep it loaded

    return options.run_args(options.parser(os.environ, daemon=True).parse_args(argv))


def serve(given: CliArgs, *, read: Reader | None = None, kernel: Callable[[], Sources] | None = None) -> int:
    """The daemon, wired; returns its exit code. read, kernel: see PolicyStore and daemon.serve. Raises AgentError."""
    shared_methods.load(*PACKAGES)
    from agent import daemon, kube  # noqa: PLC0415
    from agent.config.schema import Config, Log  # noqa: PLC0415
    from agent.controls import registry  # noqa: PLC0415

    host = common.node_host(given.host_root, given.host_exec)
    common.set_up_log(Log(), given.node, level=given.log_level, form=given.log_format)
    store = daemon.PolicyStore(given.config, host, explicit=given.is_named, read=read)
    policy = store.load().config or Config()
    shared_methods.load(*registry.modules(policy))  # what the policy has switched on
    common.set_up_log(policy.log, given.node, level=given.log_level, form=given.log_format)
    access = kube.find(os.environ, runner=host.run)
    return daemon.serve(
        host,
        given.node,
        access,
        store,
        address=policy.metrics.address,
        namespace=os.environ.get("POD_NAMESPACE", _NAMESPACE),
        node_address=os.environ.get("HOST_IP", ""),  # the downward API's status.hostIP
        kernel=kernel,
    )
