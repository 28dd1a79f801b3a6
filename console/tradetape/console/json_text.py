"""What commands print with --json: one document, indented."""

from __future__ import annotations


def print_json(found: object) -> None:
    """Print it to stdout."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(found)).decode())
