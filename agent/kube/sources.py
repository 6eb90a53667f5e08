"""Where the access to the API server comes from: a named kubeconfig, the service account of the pod, ~/.kube/config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.errors import ConfigError, Problem
from agent.kube.credentials import Access, FileText, Runner, StoredCredentials, Trust
from agent.kube.errors import NoCredentials

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def is_in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> bool:
    """Whether this process runs in a pod with a service account."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST")) and (folder / "token").exists()


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """The access of a pod, from its kubelet. Raises ConfigError with everything that is missing.

    Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
    """
    problems = [
        Problem("environment", 0, name, "is not set; the kubelet sets it in every pod, so this is not a pod")
        for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
        if not environment.get(name)
    ]
    token, authority = FileText(folder / "token"), FileText(folder / "ca.crt")
    for file in (token, authority):
        try:
            file.read()
        except NoCredentials as error:
            hint = "does the pod have automountServiceAccountToken: true?"
            problems.append(Problem(str(file.path), 0, "", f"{error}; {hint}"))
    if problems:
        raise ConfigError(problems)
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return Access(
        f"https://{host}:{port}",
        Trust(authority),
        StoredCredentials(token),
        namespace or "default",
        source="the pod's service account",
    )


def find(
    environment: Mapping[str, str],
    *,
    kubeconfig: str = "",
    context: str = "",
    runner: Runner | None = None,
    folder: Path = SERVICE_ACCOUNT,
) -> Access:
    """The access that an environment offers. Raises ConfigError.

    A kubeconfig named by the caller or by KUBECONFIG comes first, as with kubectl: it was set on purpose, while a pod's
    variables are always there, and a demo or test inside a pod must never reach that pod's cluster. Then the pod's
    service account (in `folder`), then ~/.kube/config. runner: starts exec plugins; without one they are refused.
    """
    named = kubeconfig or context or environment.get("KUBECONFIG")
    if not named and is_in_cluster(environment, folder):
        return in_cluster(environment, folder)
    from agent.kube import kubeconfig as files  # noqa: PLC0415 - not in the memory of a daemon in its pod

    return files.load(environment, kubeconfig=kubeconfig, context=context, runner=runner)
