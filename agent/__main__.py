"""`python -m agent`: the same as `node-hardening-agent`."""

from __future__ import annotations

import sys

from agent.cli import main

sys.exit(main())
