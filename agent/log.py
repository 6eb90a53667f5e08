"""The agent's own log: structlog, one line an event, JSON unless a terminal reads it.

It goes to standard error, because standard output has the result. Nothing is configured at import.
"""

from __future__ import annotations

import sys
from typing import TextIO

import structlog

from agent.config.choices import LogFormat, LogLevel

_NUMBERS = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}


def configure(level: LogLevel, form: LogFormat, node: str, stream: TextIO | None = None) -> None:
    """Sets the log up once for the process; every line carries the node's name."""
    out = stream or sys.stderr
    text = form is LogFormat.TEXT or (form is LogFormat.AUTO and out.isatty())
    renderer = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if text
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            lambda _logger, _method, fields: {"node": node, **fields},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
