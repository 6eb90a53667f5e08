"""Reads the configuration that the node's own kubelet runs with: `GET https://NODE:10250/configz`.

Trust is the certificate on the node's disk that this kubelet serves with, exactly that one: whoever listens on the port
without its key never receives the service account's token. (By default the kubelet signs its certificate itself, so
the cluster's authority would vouch for few of them.) It refuses to ask again before the kubelet has restarted: its
configuration cannot change while it runs, and each request costs the API server a TokenReview.
https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.errors import KubeError
from agent.kube.client import Kube
from agent.kube.credentials import Access, Trust
from agent.kube.errors import Malformed, NoCredentials, Operation
from agent.kube.request import ClientContext, Log
from agent.kube.retry import RetryPolicy
from agent.text import url_host

PATH = "/configz"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[^-]{1,65536}-----END CERTIFICATE-----")
# One try: the pass over the node waits for it, and there is a next pass.
_RETRY = RetryPolicy(seconds=6.0, attempts=1, connect_seconds=2.0, read_seconds=5.0)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60.0, 3600.0
_OPERATION = Operation("GET", "get", "nodes/configz", "the kubelet's /configz", PATH)


class KubeletConfigz:
    """Gives the running kubelet's configuration; one request for each run of the kubelet that answers."""

    def __init__(self, access: Access, node: str, address: str, *, clock: Callable[[], float], log: Log) -> None:
        """access: to the API server; its credentials are used. address: the node's. clock: monotonic."""
        self._access, self._node, self._address = access, node, address
        self._clock, self._log = clock, log
        self._run = ""
        self._answer: Mapping[str, Any] | None = None
        self._error: KubeError | None = None
        self._logged = ""
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0

    def __call__(self, port: int, run: str, certificate: bytes) -> Mapping[str, Any]:
        """The document `{"kubeletconfig": …}`. Raises KubeError, the last one again until it is worth a new try.

        port: where that kubelet serves. run: names this one run of it; another run has another answer. certificate: the
        PEM file that it serves with; its first certificate is the only one trusted.
        """
        fingerprint = _fingerprint(certificate)
        key = f"{run} {fingerprint}"
        if key != self._run:
            self._run, self._answer, self._error = key, None, None
            self._pause = _FIRST_PAUSE_SECONDS
        if self._answer is not None:
            return self._answer
        if self._error is not None and self._clock() < self._not_before:
            raise self._error.with_traceback(None)  # it would grow with each time
        try:
            self._answer = self._ask(port, fingerprint)
        except KubeError as error:
            self._error = error
            self._not_before = self._clock() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
            if str(error) != self._logged:
                self._logged = str(error)
                self._log.warning("configz_unavailable", error=self._logged)
            raise
        self._logged = ""
        return self._answer

    def _ask(self, port: int, fingerprint: str) -> Mapping[str, Any]:
        server = f"https://{url_host(self._address)}:{port}"
        trust = Trust(fingerprint=fingerprint)
        kubelet = Kube(
            replace(self._access, server=server, trust=trust, proxy="", source="the node's kubelet"),
            node=self._node,
            retry=_RETRY,
            around=ClientContext(clock=self._clock, log=self._log),
        )
        try:
            document = kubelet.get_raw(PATH)
        finally:
            # One connection in the life of a kubelet is not worth keeping, nor is its TLS context.
            kubelet.close()
        if not isinstance(document.get("kubeletconfig"), dict):
            raise Malformed(_OPERATION, "the answer has no kubeletconfig")
        return document


def _fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate, in hex. Raises NoCredentials."""
    found = _CERTIFICATE.search(pem.decode("ascii", errors="replace"))
    try:
        if found and (der := ssl.PEM_cert_to_DER_cert(found[0])):
            return hashlib.sha256(der).hexdigest()
    except ValueError:
        pass
    raise NoCredentials("the kubelet is not asked: the file of its serving certificate holds none")
