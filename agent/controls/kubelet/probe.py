"""Asks the running kubelet, without credentials, what it gives away. Only ever the node's own ports.

The certificate is not verified on purpose: nothing secret is sent, nothing that is answered is trusted, and a kubelet's
serving certificate is self-signed more often than not. Proxies are never used.
"""

from __future__ import annotations

import errno
import http.client
import ssl
from dataclasses import dataclass
from typing import Protocol

TIMEOUT_SECONDS = 2.0
PATH = "/pods"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came back. status: of HTTP, None when there was none. refused: nothing listens there. error: why not."""

    status: int | None = None
    refused: bool = False
    error: str = ""

    def __str__(self) -> str:
        return f"HTTP {self.status}" if self.status is not None else "refused" if self.refused else self.error


class Prober(Protocol):
    """Sends one anonymous GET /pods."""

    def secure(self, address: str, port: int, /) -> ProbeResult:
        """Over TLS, as to port 10250. Never raises."""

    def plain(self, address: str, port: int, /) -> ProbeResult:
        """Over plain HTTP, as to port 10255. Never raises."""


class HttpProber:
    """The real one."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds

    def secure(self, address: str, port: int) -> ProbeResult:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return _ask(http.client.HTTPSConnection(address, port, timeout=self._timeout, context=context))

    def plain(self, address: str, port: int) -> ProbeResult:
        return _ask(http.client.HTTPConnection(address, port, timeout=self._timeout))


def _ask(connection: http.client.HTTPConnection) -> ProbeResult:
    try:
        connection.request("GET", PATH, headers={"Connection": "close", "User-Agent": "node-hardening-agent"})
        return ProbeResult(connection.getresponse().status)
    except ConnectionRefusedError:
        return ProbeResult(refused=True, error="refused")
    except TimeoutError:
        return ProbeResult(error="no answer in time")
    except ssl.SSLError as error:
        return ProbeResult(error=f"TLS: {error.reason or error}")
    except OSError as error:
        return ProbeResult(error=errno.errorcode.get(error.errno or 0, type(error).__name__))
    except (http.client.HTTPException, ValueError) as error:
        return ProbeResult(error=f"not HTTP ({type(error).__name__})")
    finally:
        connection.close()
