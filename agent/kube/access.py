"""Which access an environment offers: a kubeconfig that was named, the pod's service account, ~/.kube/config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent.errors import ConfigError, Problem
from agent.kube.credentials import AS_ONESELF, SERVICE_ACCOUNT, Access, Impersonation, Runner, in_cluster, is_in_cluster


def find(
    environment: Mapping[str, str],
    *,
    kubeconfig: str = "",
    context: str = "",
    cluster: str = "",
    user: str = "",
    impersonation: Impersonation = AS_ONESELF,
    runner: Runner | None = None,
    folder: Path = SERVICE_ACCOUNT,
) -> Access:
    """The access that an environment offers. Raises ConfigError.

    A kubeconfig named by the caller or by KUBECONFIG goes first, as with kubectl: it was set on purpose, while those
    of the pod are always there, and a demo or test inside a pod must never reach that pod's cluster. Then the pod's
    service account (in `folder`), then ~/.kube/config. cluster, user: instead of the context's. impersonation: instead
    of the user's. runner: starts exec plugins; without one they are refused.
    """
    if wrong := impersonation.problem():
        raise ConfigError([Problem("command line", 0, "--as, --as-group", wrong)])
    named = kubeconfig or context or cluster or user or environment.get("KUBECONFIG")
    if not named and is_in_cluster(environment, folder):
        return replace(in_cluster(environment, folder), impersonation=impersonation)
    from agent.kube import kubeconfig as files  # noqa: PLC0415 - the daemon in its pod never pays for it

    access = files.load(environment, kubeconfig=kubeconfig, context=context, cluster=cluster, user=user, runner=runner)
    return replace(access, impersonation=impersonation) if impersonation.user else access
