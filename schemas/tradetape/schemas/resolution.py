"""Reads with fastavro what the generated readers do not: records of another schema than the newest, and damaged ones."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro

from tradetape.schemas import avro_schema
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import DecodeError


class Resolution:
    """Avro's schema resolution from what wrote a record to what reads it, None where that is the same."""

    def __init__(self, writer: Schema, reader: Schema | None) -> None:
        """Both have to be safe to parse, as released schemas are, and those that a registry's reader lets pass."""
        self._writer = _parsed(writer)
        self._reader = None if reader is None else _parsed(reader)

    def read(self, payload: bytes, *, start: int) -> dict[str, Any]:
        """The plain fields of a record that begins at a byte and ends with the payload. Raises DecodeError."""
        source = BytesIO(payload)
        source.seek(start)
        try:
            plain = fastavro.schemaless_reader(source, self._writer, self._reader)
        except EOFError as error:
            raise DecodeError("truncated", "the payload ends inside of a field") from error
        except (ValueError, ArithmeticError, LookupError, TypeError, fastavro.read.SchemaResolutionError) as error:
            if isinstance(error, IndexError) and source.tell() == len(payload):
                # So fastavro ends where an integer is cut off between its bytes.
                raise DecodeError("truncated", "the payload ends inside of a number") from error
            raise DecodeError("invalid_value", f"{type(error).__name__}: {error}") from error
        if source.tell() != len(payload):
            raise DecodeError("trailing_bytes", f"{len(payload) - source.tell()} bytes after the end of the event")
        assert isinstance(plain, dict)
        return plain


def _parsed(schema: Schema) -> Schema:
    parsed: Schema = fastavro.parse_schema(avro_schema.without_logical_types(schema))  # type: ignore[assignment]
    return parsed
