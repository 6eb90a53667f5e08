"""Arguments: one parser, the common options on every command, and what they default to from the environment."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Mapping
from pathlib import Path

from agent import __version__
from agent.config.schema import LogFormat, LogLevel
from agent.host import HostExec

DEFAULT_CONFIG = "/etc/node-hardening/config.yaml"

_EPILOG = """exit codes:
  0  all well
  1  something does not comply, or cannot be told
  2  usage or configuration error
  3  could not do the work
"""


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The whole command line. `environment` gives NODE_NAME."""
    top = argparse.ArgumentParser(
        prog="node-hardening-agent",
        description="Keeps one Kubernetes node hard: kernel modules denied, AppArmor and seccomp profiles in place, "
        "the kubelet's configuration audited.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common = _common(environment)

    def command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            parents=[common],
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    command("run", "the daemon: what the DaemonSet starts")
    command("audit", "look at this node and say what does not comply; changes nothing, needs no cluster")
    apply = command("apply", "one pass over this node: make it so, verify, report")
    apply.add_argument("--dry-run", action="store_true", help="stop after the plan; changes nothing")
    validate = command("validate", "lint configuration and profiles, for the CI of a platform team")
    validate.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder that is walked")
    demo = command("demo", "the main job on throw-away sandboxed nodes: no root, no cluster, about a minute")
    demo.add_argument("--nodes", type=int, choices=range(2, 10), default=3, help="how many go one by one (default 3)")
    demo.add_argument("--keep", action="store_true", help="leave the sandbox in place and say where it is")
    demo.add_argument(
        "--stay",
        metavar="DIR",
        help="no story: a cluster to try things in with kubectl, its nodes' files in DIR, until Ctrl-C",
    )
    return top


def _common(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    shared = common.add_argument_group("common options")
    shared.add_argument("--config", metavar="FILE", help=f"the policy (default {DEFAULT_CONFIG}, or the built-in one)")
    shared.add_argument("--host-root", metavar="DIR", default="/", help="the folder that is the node's / (default /)")
    shared.add_argument(
        "--host-exec",
        choices=[how.value for how in HostExec],
        default=HostExec.DIRECT.value,
        help="how a command runs on the node: in PID 1's namespaces, or as a plain child (default)",
    )
    shared.add_argument(
        "--node-name",
        metavar="NAME",
        default=environment.get("NODE_NAME") or socket.gethostname(),
        help="the Node's name (default: NODE_NAME, else the host's name)",
    )
    shared.add_argument("-o", "--output", choices=["table", "json", "yaml"], default="table", help="default table")
    shared.add_argument("--log-level", choices=[level.value for level in LogLevel], help="default: the policy's")
    shared.add_argument("--log-format", choices=[form.value for form in LogFormat], help="default: the policy's")
    return common


def config_path(given: str | None) -> tuple[Path, bool]:
    """The policy's file, and whether a person named it (then it has to be there)."""
    return Path(given or DEFAULT_CONFIG), given is not None
