"""The agent's own HTTP server, asked over sockets."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
import requests
from prometheus_client import CollectorRegistry

from agent.report.http import StatusServer

WELL = (True, "well")


def test_who_hangs_up_before_the_answer_is_no_news(capfd: pytest.CaptureFixture[str]) -> None:
    """A scrape that timed out leaves no traceback in the log, and the next one is answered."""
    asked, gone = threading.Event(), threading.Event()

    def slow() -> tuple[bool, str]:
        asked.set()
        gone.wait(30)
        return WELL

    server = StatusServer("127.0.0.1:0", CollectorRegistry(), healthy=slow, ready=lambda: WELL)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            # Closing is a reset then, which the next write runs into.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert asked.wait(30)
        gone.set()
        assert requests.get(f"http://127.0.0.1:{server.port}/readyz", timeout=30).text == "well\n"
        _joined()
    finally:
        server.close()
    assert capfd.readouterr().err == ""


def _joined() -> None:
    """Waits for the threads that answer."""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(30)
