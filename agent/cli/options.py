"""Arguments: one parser, the common options on every command, and their defaults from the environment."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from agent import __version__
from agent.cli.common import CliArgs
from agent.config.choices import LogFormat, LogLevel
from agent.host import HostExec

# Of agent.report.formats and benchmark, which the audit alone loads.
FINDING_FORMATS = ("junit", "kube-bench", "policyreport")
BENCHMARK = "cis-1.12"
DEFAULT_CONFIG = "/etc/node-hardening/config.yaml"

_EPILOG = """exit codes:
  0  the node complies
  1  something does not comply, or is unknown
  2  usage or configuration error
  3  could not do the work
"""


def parser(environment: Mapping[str, str], *, daemon: bool = False) -> argparse.ArgumentParser:
    """The whole command line. `environment` gives NODE_NAME. daemon: `run` alone, without what the others import."""
    top = argparse.ArgumentParser(
        prog="node-hardening-agent",
        description="Hardens one Kubernetes node: denies kernel modules, installs AppArmor and seccomp profiles, "
        "audits the kubelet's configuration.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, about: str, outputs: Iterable[str] | None = ()) -> argparse.ArgumentParser:
        # outputs: formats besides the usual; None for a command that is about no node, without the common options.
        return commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            parents=[] if outputs is None else [_common(environment, outputs)],
            epilog=None if outputs is None else _EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    command("run", "the daemon: what the DaemonSet starts")
    if not daemon:
        _others(command)
    return top


def _others(command: Callable[..., argparse.ArgumentParser]) -> None:
    from agent.cli.lint_output import FORMATS  # noqa: PLC0415 - `run` never loads it

    audit = command(
        "audit", "report what does not comply on this node; changes nothing, needs no cluster", FINDING_FORMATS
    )
    audit.add_argument(
        "--benchmark", choices=[BENCHMARK], default="", help="by number: what is checked, by what, what is not"
    )
    apply = command("apply", "one pass over this node: apply the policy, verify, report")
    apply.add_argument("--dry-run", action="store_true", help="stop after the plan; changes nothing")
    validate = command("validate", "lint configuration and profiles, for the CI of a platform team", FORMATS)
    _validate(validate)
    about = "hardening and rolling reboots on sandboxed nodes: no root, no cluster, about a minute"
    demo = command("demo", about, None)
    demo.add_argument("--nodes", type=int, choices=range(2, 10), default=3, help="number of nodes (default 3)")
    demo.add_argument("--keep", action="store_true", help="keep the sandbox and print where it is")
    stay = "run a cluster for kubectl until Ctrl-C instead, its nodes' files in DIR"
    demo.add_argument("--stay", metavar="DIR", help=stay)


def _validate(validate: argparse.ArgumentParser) -> None:
    from agent.cli.validate import file_types  # noqa: PLC0415 - `run` never loads it

    validate.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder that is walked, or - for stdin")
    validate.add_argument(
        "--as", choices=[*file_types()], default="", dest="type", help="what the files are, if they do not say so"
    )
    validate.add_argument(
        "--target", action="append", default=[], metavar="ARCH[/KERNEL]",
        help="the nodes that the files are for, with the oldest kernel, such as amd64/5.15; may be repeated "
        "(default: amd64 and arm64, any kernel)",
    )  # fmt: skip
    validate.add_argument(
        "--labels", metavar="A=B,…", help="show the policy of a node with these labels, and where each value comes from"
    )
    validate.add_argument("--strict", action="store_true", help="fail also on what may be ours and was not judged")
    validate.add_argument("-v", "--verbose", action="store_true", help="list what was skipped, and why")


def _common(environment: Mapping[str, str], outputs: Iterable[str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    shared = common.add_argument_group("common options")
    shared.add_argument("--config", metavar="FILE", help=f"the policy (default {DEFAULT_CONFIG}, or the built-in one)")
    shared.add_argument("--host-root", metavar="DIR", default="/", help="the node's root folder (default /)")
    shared.add_argument(
        "--host-exec", choices=[how.value for how in HostExec], default=HostExec.DIRECT.value,
        help="how a command runs on the node: in PID 1's namespaces, or as a plain child (default)",
    )  # fmt: skip
    shared.add_argument(
        "--node-name", metavar="NAME", default=environment.get("NODE_NAME") or socket.gethostname(),
        help="the Node's name (default: NODE_NAME, else the host's name)",
    )  # fmt: skip
    shared.add_argument(
        "-o", "--output", choices=["table", "json", "yaml", *outputs], default="table", help="default table"
    )
    shared.add_argument("--log-level", choices=[level.value for level in LogLevel], help="default: the policy's")
    shared.add_argument("--log-format", choices=[form.value for form in LogFormat], help="default: the policy's")
    return common


def run_args(words: argparse.Namespace) -> CliArgs:
    """The parsed command line of `run`, without the parser."""
    path, named = config_path(words.config)
    return CliArgs(path, named, words.host_root, words.host_exec, words.node_name, words.log_level, words.log_format)


def config_path(given: str | None) -> tuple[Path, bool]:
    """The policy's file, and whether the user named it (then it has to exist)."""
    return Path(given or DEFAULT_CONFIG), given is not None
