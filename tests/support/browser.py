"""A real browser, where there is one: Debian's chromium without a window, spoken to over its DevTools socket.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_SECONDS = 180.0
_ANSWER_SECONDS = 120.0
NO_BROWSER = "no browser: Debian's chromium is not installed (some 400 MB, so tools/test-packages leaves it out)"


def program() -> str | None:
    """The browser's path."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@dataclass
class Page:
    """One tab. complaints: what the browser said on the console, errors of the page and refused requests."""

    socket: aiohttp.ClientWebSocketResponse
    loop: asyncio.AbstractEventLoop
    complaints: list[str] = field(default_factory=list)
    _loaded: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; events that come meanwhile are looked at."""
        return self.loop.run_until_complete(self._call(method, parameters))

    def show(self, path: Path, *, width: int, dark: bool = False, scale: float = 1.0) -> None:
        """Loads a file at a width (CSS pixels), light or dark; below 600 as a phone."""
        size = {"width": width, "height": 900, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.loop.run_until_complete(self._until_loaded())

    def evaluate(self, script: str) -> Any:
        """The value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path, *, height: int | None = None) -> None:
        """A PNG from the top down to `height` CSS pixels; the whole page without one."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        part = {
            "x": 0,
            "y": 0,
            "width": size["width"],
            "height": min(height or size["height"], size["height"]),
            "scale": 1,
        }
        shot = self.call("Page.captureScreenshot", format="png", clip=part, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path: Path) -> None:
        """A PDF, as somebody prints it on A4."""
        made = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(made["data"]))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_ANSWER_SECONDS):
            while True:
                heard = await self.socket.receive_json()
                if heard.get("id") == number:
                    assert "error" not in heard, f"{method}: {heard['error']}"
                    return dict(heard["result"])
                self._hear(heard)

    async def _until_loaded(self) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            while not self._loaded:
                self._hear(await self.socket.receive_json())

    def _hear(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Log.entryAdded":
                self.complaints.append(f"{told['entry']['level']}: {told['entry']['text']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"].get("text")))
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console: {told['type']}")
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith("file:"):
                self.complaints.append(f"request: {told['request']['url']}")


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a browser of its own, which ends with it."""
    found = program()
    assert found is not None, NO_BROWSER
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        argv = [
            found, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--disable-dev-shm-usage", f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            port = _port(Path(folder), process)
            yield from _tab(loop, port)
        finally:
            loop.close()
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tab(loop: asyncio.AbstractEventLoop, port: int) -> Iterator[Page]:
    session = loop.run_until_complete(_session())
    try:
        page = loop.run_until_complete(_open(session, port, loop))
        for room in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{room}.enable")
        yield page
        loop.run_until_complete(page.socket.close())
    finally:
        loop.run_until_complete(session.close())


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _open(session: aiohttp.ClientSession, port: int, loop: asyncio.AbstractEventLoop) -> Page:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = [one for one in await answer.json() if one["type"] == "page"]
    return Page(await session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0), loop)


def _port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Chromium writes down where it listens."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the browser ended at once"
        try:
            return int((folder / "DevToolsActivePort").read_text().split("\n")[0])
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise AssertionError("the browser does not listen")
