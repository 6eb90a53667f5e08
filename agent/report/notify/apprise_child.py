"""The child: one message from standard input through Apprise, one exit code. It prints nothing: URLs are secrets."""

from __future__ import annotations

import json
import logging
import sys

SENT, NOT_SENT, NOT_UNDERSTOOD, NO_APPRISE = 0, 10, 11, 12


def main() -> int:
    """Reads `{"url", "title", "body", "kind"}` and sends it."""
    logging.disable(logging.CRITICAL)
    try:
        import apprise  # noqa: PLC0415 - whether it is installed is one of the results
    except ImportError:
        return NO_APPRISE
    message = json.load(sys.stdin)
    service = apprise.Apprise()
    if not service.add(message["url"]):
        return NOT_UNDERSTOOD
    sent = service.notify(
        title=message["title"], body=message["body"], notify_type=message["kind"], body_format=apprise.NotifyFormat.TEXT
    )
    return SENT if sent else NOT_SENT


if __name__ == "__main__":
    sys.exit(main())
