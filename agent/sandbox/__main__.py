"""``python -m agent.sandbox``: the emulator as a process, for users with kubectl and for tests that need one.

Prints one line of JSON (url, token, kubeconfig) once it answers, then runs until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.sandbox.authn import ADMIN, MASTERS, User
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(prog="python -m agent.sandbox", description=__doc__)
    result.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    result.add_argument("--port", type=int, default=0, help="port; 0, the default, takes a free one")
    result.add_argument(
        "--token-file", type=Path, help="lines of TOKEN,USER,GROUP…; the first one's token is the one printed"
    )
    result.add_argument("--nodes", type=int, default=0, help="how many nodes to start with: node-1, node-2 …")
    result.add_argument("--tls-cert", type=Path, help="certificate; serves https together with --tls-key")
    result.add_argument("--tls-key", type=Path, help="its key")
    result.add_argument("--ca", type=Path, help="CA to name in the kubeconfig (default: the certificate)")
    result.add_argument("--kubeconfig", type=Path, help="where to write a kubeconfig for this server")
    result.add_argument(
        "--anonymous-admin", action="store_true", help="requests without a token may do everything (kubectl over http)"
    )
    result.add_argument("--no-rbac", action="store_true", help="every known user may do everything")
    result.add_argument("--no-controllers", action="store_true", help="no workloads, budgets, collection, node taints")
    result.add_argument("--no-kubelet", action="store_true", help="pods and heartbeats are left alone")
    result.add_argument(
        "--heartbeat", type=float, default=10.0, help="seconds between renewals of node leases; 0: none"
    )
    result.add_argument("--seed", type=int, default=0, help="of the faults' chance")
    return result


def read_tokens(path: Path) -> dict[str, User]:
    """The users of a token file by their tokens.

    Raises:
        ValueError: a line has no user, or there is no line at all.
    """
    users: dict[str, User] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = [part.strip() for part in line.split(",")]
        if not line.strip() or line.startswith("#"):
            continue
        if len(parts) < 2 or not all(parts):
            raise ValueError(f"{path}:{number}: expected TOKEN,USER,GROUP…")
        users[parts[0]] = User(parts[1], tuple(parts[2:]))
    if not users:
        raise ValueError(f"{path}: no token in it; expected lines of TOKEN,USER,GROUP…, an admin's group is {MASTERS}")
    return users


def settings(options: argparse.Namespace) -> Settings:
    """The sandbox that the options ask for.

    Raises:
        OSError: the token file cannot be read.
        ValueError: it has no tokens, or a certificate came without its key.
    """
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    tokens = read_tokens(options.token_file) if options.token_file else {}
    return Settings(
        host=options.host,
        port=options.port,
        token=next(iter(tokens), ""),
        tokens=tokens,
        anonymous=ADMIN if options.anonymous_admin else None,
        rbac=not options.no_rbac,
        certificate=options.tls_cert,
        key=options.tls_key,
        controllers=not options.no_controllers,
        kubelet=KubeletSettings(enabled=not options.no_kubelet, heartbeat_seconds=options.heartbeat),
        seed=options.seed,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal stops it: 0, or 2 for options that do not fit."""
    options = parser().parse_args(arguments)
    try:
        sandbox = Sandbox(settings(options))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    # Blocked before the server's thread begins, so that the signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        sandbox.start()
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot listen on {options.host}:{options.port}: {error}\n")
        return 2
    with sandbox:
        for number in range(1, options.nodes + 1):
            sandbox.add_node(f"node-{number}")
        kubeconfig = ""
        if options.kubeconfig is not None:
            kubeconfig = str(sandbox.kubeconfig(options.kubeconfig, ca=options.ca or options.tls_cert))
        sys.stdout.write(json.dumps({"url": sandbox.url, "token": sandbox.token, "kubeconfig": kubeconfig}) + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
