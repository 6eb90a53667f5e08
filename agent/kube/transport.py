"""The connections: one requests session whose TLS, pool and sockets are ours alone.

It refuses what requests does by default: environment variables that override the CA or add a proxy, redirects, cookies,
certifi's authorities beside a private one, connections that have idled so long that a middlebox has forgotten them.
Every socket is known, so that another thread can end a wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy

import requests
import urllib3

from agent.bounded_http import BoundedConnection, OwnTrustAdapter, bounded_session
from agent.bounded_socket import with_deadline
from agent.kube.credentials import Access, ClientCertificate, Trust
from agent.kube.errors import NoCredentials

_POOL_SIZE = 4
_CHUNK = 1 << 16
# Load balancers drop an idle connection silently (AWS's after 350 s); a write sent into it would be ambiguous.
_IDLE_SECONDS = 60.0
# A peer that is gone is noticed within a minute, even by a watch on which nothing happens.
_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
)


class Lifeline:
    """The open sockets of one session; `cut` ends whatever waits on them, from any thread."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.RLock()  # re-entrant: a signal handler may cut while its own thread adds
        self.is_cut = False

    def add(self, connected: socket.socket) -> None:
        """A new socket; it ends immediately when `cut` was called already."""
        with self._lock:
            self._sockets.add(connected)
            if self.is_cut:
                shut(connected)

    def cut(self) -> None:
        """Ends every read and write, now and from now on."""
        with self._lock:
            self.is_cut = True
            for connected in list(self._sockets):
                shut(connected)


def shut(connected: socket.socket) -> None:
    """Ends reads and writes that wait on a socket, from any thread; one that is closed already is nothing to do."""
    with contextlib.suppress(OSError):
        # `.socket`: under TLS inside a proxy's TLS. The plain socket's shutdown even under TLS, because SSLSocket's
        # would take the TLS object from under its reader.
        socket.socket.shutdown(getattr(connected, "socket", connected), socket.SHUT_RDWR)


class Stream:
    """An answer without a fixed end, such as a watch. Read by one thread; any other may cut it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, silence_seconds: float) -> None:
        """silence_seconds: the longest from now on."""
        self._raw = raw
        # The response's own socket: http.client takes it from a connection that is not to be kept.
        self._socket: socket.socket | None = getattr(raw.connection, "plugged", None)
        if self._socket is not None:
            self._socket.settimeout(silence_seconds)

    def read(self) -> bytes:
        """What has arrived, as soon as anything has; empty at the end. Raises what `NETWORK` lists."""
        return self._raw.read1(_CHUNK, decode_content=False)

    def cut(self) -> None:
        """Ends a read that waits, and all that follow."""
        if self._socket is not None:
            shut(self._socket)

    def close(self) -> None:
        """Returns the connection to the pool, or ends it where the answer has not ended."""
        self._raw.close()


class Tls:
    """The TLS context of an access, made again when its authority or client certificate has changed.

    One for all sessions: a context costs half a megabyte.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._identity: tuple[bytes, ClientCertificate | None] | None = None
        self._context: ssl.SSLContext | None = None

    def present(self) -> ssl.SSLContext | None:
        """The context for connections made now; None for plain HTTP. Raises NoCredentials."""
        if not self._access.server.startswith("https:"):
            return None
        trust = self._access.trust
        identity = (trust.authority.read() if trust.authority else b"", self._access.credentials.certificate())
        with self._lock:
            if identity != self._identity:
                self._context = tls_context(trust, identity[1])
                self._identity = identity
            return self._context


class HttpSession:
    """A session of requests to one server. Safe for several threads, each with its own connection."""

    def __init__(self, access: Access, tls: Tls, user_agent: str) -> None:
        self.lifeline = Lifeline()
        self._access = access
        self._tls = tls
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._adapter = _Adapter(self.lifeline)
        self._session = bounded_session(self._adapter)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if access.proxy:
            self._session.proxies = {"http": access.proxy, "https": access.proxy}
        self._session.headers.clear()
        # Compression would cost more memory and CPU, on both sides, than the bytes are worth inside a data centre.
        self._session.headers.update(
            {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        )

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, timeout: tuple[float, float]
    ) -> requests.Response:
        """Sends one request and returns when the answer's headers are there; its body is read from `.raw`.

        timeout: seconds to connect, and the longest silence. Raises NoCredentials and what requests raises.
        """
        self._follow_tls()
        request = requests.Request(method, self._access.server + path, headers=dict(headers), data=body)
        prepared = self._session.prepare_request(request)
        if impersonated := self._access.impersonation.headers():
            # requests' own dictionary holds each name once, and a user may have several groups.
            prepared.headers = urllib3.HTTPHeaderDict([*prepared.headers.items(), *impersonated])  # type: ignore[assignment]
        return self._session.send(prepared, stream=True, timeout=timeout, allow_redirects=False)

    def close(self) -> None:
        """Ends everything that waits and frees the connections."""
        self.lifeline.cut()
        self._session.close()

    def _follow_tls(self) -> None:
        """New connections when the context has changed; running answers continue."""
        context = self._tls.present()
        with self._lock:
            if context is not self._context:
                self._adapter.start_over(context, self._access.trust)
                self._context = context


def tls_context(trust: Trust, certificate: ClientCertificate | None) -> ssl.SSLContext:
    """The certificates that a connection trusts and presents. Raises NoCredentials for invalid PEM."""
    context = with_deadline(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    # An authority may be an intermediate one, as Go takes it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if trust.insecure or trust.fingerprint:  # the adapter compares the fingerprint, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.authority is None:
        context.load_default_certs()
    else:
        try:
            # Comments between certificates may hold anything; ssl takes ASCII alone.
            context.load_verify_locations(cadata=trust.authority.read().decode("ascii", errors="backslashreplace"))
        except ssl.SSLError as error:
            raise NoCredentials(f"the API server's certificate authority ({trust.authority}) is not PEM") from error
    if certificate is not None:
        try:
            # A file with both, as the kubelet has, is used once.
            both = certificate.certificate
            if certificate.key != both:
                both += b"\n" + certificate.key
            with _as_file(both) as path:
                # Without a password OpenSSL would prompt on the terminal.
                context.load_cert_chain(path, password=b"")
        except OSError as error:  # ssl.SSLError is one
            message = "the client certificate and key cannot be used: they have to be PEM, belong together, unencrypted"
            raise NoCredentials(message) from error
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path that OpenSSL can read while it needs it; in memory where that can be, so that no key is on a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile() as file:  # created 0600
            file.write(content)
            file.flush()
            yield file.name


class _Adapter(OwnTrustAdapter):
    """Connections with our TLS context, known to a lifeline."""

    def __init__(self, lifeline: Lifeline) -> None:
        super().__init__(pool_size=_POOL_SIZE, connection=_connection(lifeline), socket_options=_SOCKET_OPTIONS)

    def start_over(self, context: ssl.SSLContext | None, trust: Trust) -> None:
        """New connections from now on; answers on old ones continue."""
        self._options = {"socket_options": _SOCKET_OPTIONS}
        if context is not None:
            self._options["ssl_context"] = context
            if trust.server_name:
                self._options["server_hostname"] = trust.server_name
            if trust.fingerprint:
                self._options["assert_fingerprint"] = trust.fingerprint
            if trust.insecure:
                # Configured on purpose; once per request is more than anyone reads.
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        old, proxies = self.poolmanager, self.proxy_manager
        self.proxy_manager = {}
        self.init_poolmanager(1, _POOL_SIZE)
        for manager in (old, *proxies.values()):
            manager.clear()


def _connection(lifeline: Lifeline) -> type[BoundedConnection]:
    """Connections that report to a lifeline and are not used again after a long idle time."""

    class Known(BoundedConnection):
        used_at = 0.0
        plugged: socket.socket | None = None

        def connect(self) -> None:
            super().connect()
            self.plugged = self.sock
            lifeline.add(self.sock)
            self.used_at = time.monotonic()

        @property
        def is_connected(self) -> bool:
            """Asked once, when a connection is taken out of the pool."""
            now, since = time.monotonic(), self.used_at
            self.used_at = now
            return now - since < _IDLE_SECONDS and super().is_connected

    return Known
