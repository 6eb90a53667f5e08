"""CycloneDX's own schema, as its maintainers' library carries it."""

from __future__ import annotations

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def sbom_problems(text: str) -> str:
    """What the schema of version 1.6 says against a document, or nothing."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    # Its own words go on with the whole schema.
    return "" if found is None else str(found.data)[:500]
