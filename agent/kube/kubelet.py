"""The node's own kubelet, asked for the configuration that it runs with: `GET https://NODE:10250/configz`.

The service account's token goes over the line only after the kubelet's certificate has verified against the cluster's
authority, for the node's address or name: whoever listens on that port without such a certificate learns nothing. It
refuses access without an authority, or one that is not to be verified, and to ask again before the kubelet has
restarted: its configuration cannot change while it runs, and each question costs the API server a TokenReview.
https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.errors import KubeError
from agent.kube.client import Kube
from agent.kube.credentials import Access, Trust
from agent.kube.errors import Malformed, NoCredentials, Operation, Unreachable
from agent.kube.request import ClientContext, Log, RetryPolicy

PATH = "/configz"
# One try: the pass over the node waits for it, and there is a next pass.
_PATIENCE = RetryPolicy(seconds=6.0, attempts=1, connect_seconds=2.0, read_seconds=5.0)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60.0, 3600.0
_OPERATION = Operation("GET", "get", "nodes/configz", "the kubelet's /configz", PATH)


class KubeletConfigz:
    """Gives the running kubelet's configuration; one request for each run of the kubelet that answers."""

    def __init__(self, access: Access, node: str, address: str, *, clock: Callable[[], float], log: Log) -> None:
        """access: to the API server; its authority and credentials are used. address: the node's. clock: monotonic."""
        self._access, self._node, self._address = access, node, address
        self._clock, self._log = clock, log
        self._run = ""
        self._answer: Mapping[str, Any] | None = None
        self._error: KubeError | None = None
        self._said = ""
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0

    def __call__(self, port: int, run: str) -> Mapping[str, Any]:
        """The document `{"kubeletconfig": …}`. Raises KubeError, the last one again until it is worth a new try.

        port: where that kubelet serves. run: names this one run of it; another run has another answer.
        """
        if run != self._run:
            self._run, self._answer, self._error = run, None, None
            self._pause = _FIRST_PAUSE_SECONDS
        if self._answer is not None:
            return self._answer
        if self._error is not None and self._clock() < self._not_before:
            raise self._error.with_traceback(None)  # it would grow with each time
        try:
            self._answer = self._ask(port)
        except KubeError as error:
            self._error = error
            self._not_before = self._clock() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
            if str(error) != self._said:
                self._said = str(error)
                self._log.warning("configz_unavailable", error=self._said)
            raise
        self._said = ""
        return self._answer

    def _ask(self, port: int) -> Mapping[str, Any]:
        trust = self._access.trust
        if trust.insecure or trust.authority is None:
            raise NoCredentials("the kubelet is not asked: there is no authority that its certificate could be held to")
        # A serving certificate from the cluster carries the node's addresses and names; which, the cloud decides.
        # https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation
        try:
            return self._ask_as(port, "")
        except Unreachable as error:
            if error.repeatable:
                raise
            first = error
        try:
            return self._ask_as(port, self._node)
        except Unreachable:
            raise first from None

    def _ask_as(self, port: int, name: str) -> Mapping[str, Any]:
        """One request, to the address alone or under a name."""
        server = f"https://{_host(self._address)}:{port}"
        trust = Trust(self._access.trust.authority, server_name=name)
        kubelet = Kube(
            replace(self._access, server=server, trust=trust, proxy="", source="the node's kubelet"),
            node=self._node,
            patience=_PATIENCE,
            around=ClientContext(clock=self._clock, log=self._log),
        )
        try:
            document = kubelet.get_raw(PATH)
        finally:
            # One connection in the life of a kubelet is not worth keeping, nor is its TLS context.
            kubelet.close()
        if not isinstance(document, dict) or not isinstance(document.get("kubeletconfig"), dict):
            raise Malformed(_OPERATION, "the answer has no kubeletconfig")
        return document


def _host(address: str) -> str:
    """As it stands in a URL."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return f"[{ip}]" if ip.version == 6 else str(ip)
