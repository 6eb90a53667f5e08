"""Prints what docs/ holds of the configuration: `python -m agent.config [schema|reference]`."""

from __future__ import annotations

import argparse
import json
import sys

from agent.config.jsonschema import schema
from agent.config.reference import reference


def main() -> None:
    """Writes one generated document to standard output."""
    parser = argparse.ArgumentParser(prog="python -m agent.config", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["schema", "reference"], default="schema")
    chosen = parser.parse_args().what
    text = reference() if chosen == "reference" else json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
