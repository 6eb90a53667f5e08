"""The emulator as one object: a server in a thread of its own, with handles for tests on everything inside.

    with Sandbox(Settings()) as sandbox:
        sandbox.add_node("node-1")
        requests.get(f"{sandbox.url}/api/v1/nodes", headers={"Authorization": f"Bearer {sandbox.token}"})

The methods may be called from any thread: they run in the server's event loop and wait for it. The state is in memory
and ends with the process.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from agent.sandbox import builders, wire
from agent.sandbox.cluster import Cluster
from agent.sandbox.settings import Settings

_HOST = "127.0.0.1"
_ACCEPTED_SECONDS = 0.05
_START_SECONDS = 10.0


class Sandbox(Cluster):
    """One emulated cluster and its server. ``url`` is known once it is started."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Nothing listens before ``start``."""
        super().__init__(settings or Settings())
        self.url = ""
        self._web: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._hold: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def start(self) -> Self:
        """Listen; returns when requests are answered. Raises OSError: the certificate cannot be read."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="sandbox", daemon=True)
        self._thread.start()
        ready.result(_START_SECONDS)
        return self

    def stop(self) -> None:
        """Cut every connection and end the thread; a second time is nothing to do."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        self._loop = self._thread = None

    def __enter__(self) -> Self:
        """Start, unless that was done."""
        return self if self._loop is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _run(self, ready: Future[None]) -> None:
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._open())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            ready.set_exception(error)
            loop.close()
            return
        self._loop = loop
        ready.set_result(None)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._close())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _open(self) -> None:
        # The port stays bound, without a listener, while the server is absent: clients find the server where it was.
        self._hold = socket.socket()
        self._hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._hold.bind((_HOST, 0))
        self._port = self._hold.getsockname()[1]
        self.url = f"{'https' if self.settings.certificate else 'http'}://{_HOST}:{self._port}"
        make = partial(_request, loop=asyncio.get_running_loop())
        self._web = web.Server(
            self._gateway.handle, request_factory=make, handler_cancellation=True, access_log=None,
            keepalive_timeout=300.0,
        )  # fmt: skip
        await self._listen()
        self._kubelets.start()
        for controller in self._controllers:
            controller.start()

    def _tls(self) -> ssl.SSLContext | None:
        if self.settings.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.settings.certificate, self.settings.key)
        return context

    async def _listen(self) -> None:
        if self._web is None or self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._web, _HOST, self._port, ssl=self._tls(), reuse_address=True, reuse_port=True, backlog=1024
        )

    async def _close(self) -> None:
        for controller in self._controllers:
            controller.close()
        self._kubelets.close()
        self._abort()
        if self._hold is not None:
            self._hold.close()
        if self._web is not None:
            await self._web.shutdown(0.1)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _abort(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._cut()
        # What was accepted just before becomes a connection in one of the loop's next turns.
        asyncio.get_running_loop().call_later(_ACCEPTED_SECONDS, self._cut_while_away)

    def _cut_while_away(self) -> None:
        if self._listener is None:
            self._cut()

    def _cut(self) -> None:
        for connection in list(self._web.connections) if self._web else []:
            if connection.transport is not None:
                connection.transport.abort()

    def away(self, seconds: float | None = None) -> None:
        """Cut every connection and refuse new ones, for so long or until ``back``; the port stays the same."""

        def leave() -> None:
            self._abort()
            if seconds is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(seconds, lambda: loop.create_task(self._listen()))

        self.call(leave)

    def back(self) -> None:
        """Listen again after ``away``."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_SECONDS)

    def kubeconfig(self, path: Path, *, ca: Path | None = None, token: str = "") -> Path:
        """Write a kubeconfig for this server; kubectl sends the token over https only."""
        document = builders.kubeconfig(self.url, token or self.token, ca)
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        path.chmod(0o600)
        return path


def _request(
    message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: asyncio.Task[None], *, loop: Any
) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=wire.BODY_LIMIT + 1)
