"""Which access an environment offers: a kubeconfig that was named, the pod's service account, ~/.kube/config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.kube.credentials import SERVICE_ACCOUNT, Access, Runner, in_cluster, is_in_cluster


def find(
    environment: Mapping[str, str],
    *,
    kubeconfig: str = "",
    context: str = "",
    runner: Runner | None = None,
    folder: Path = SERVICE_ACCOUNT,
) -> Access:
    """The access that an environment offers. Raises ConfigError.

    A kubeconfig named by the caller or by KUBECONFIG goes first, as with kubectl: it was set on purpose, while those
    of the pod are always there, and a demo or test inside a pod must never reach that pod's cluster. Then the pod's
    service account (in `folder`), then ~/.kube/config. runner: starts exec plugins; without one they are refused.
    """
    named = kubeconfig or context or environment.get("KUBECONFIG")
    if not named and is_in_cluster(environment, folder):
        return in_cluster(environment, folder)
    from agent.kube import kubeconfig as files  # noqa: PLC0415 - the daemon in its pod never pays for it

    return files.load(environment, kubeconfig=kubeconfig, context=context, runner=runner)
