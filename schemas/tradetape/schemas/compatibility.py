"""Whether every version of a record reads every other one, by Avro's own rules (FULL_TRANSITIVE).

The verdict is the official `avro` package's, not ours: it comes with the development dependencies and is imported
only here. What Avro's rules let pass though it changes a meaning is `lint`'s matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import SchemasError


class CheckerMissing(SchemasError):
    """Compatibility cannot be judged: the official avro package is not installed; `pip install avro` mends it."""


def incompatibilities(versions: Sequence[tuple[str, Schema]]) -> Iterator[str]:
    """Each pair of named versions of which the second cannot read what the first wrote.

    Raises CheckerMissing where the avro package is not installed.
    """
    checker, parse = _official()
    parsed = []
    for name, schema in versions:
        try:
            parsed.append((name, parse(json.dumps(schema))))
        except Exception as error:  # noqa: BLE001 - the package raises many kinds; each means an invalid schema
            yield f"{name} is no schema for the avro package: {error}"
    for (writer_name, writer), (reader_name, reader) in permutations(parsed, 2):
        found = checker().get_compatibility(reader, writer)
        if found.compatibility.value != "compatible":
            kinds = ", ".join(kind.value.replace("_", " ") for kind in found.incompatibilities)
            where, what = ", ".join(sorted(found.locations)), ", ".join(sorted(found.messages))
            yield f"{reader_name} cannot read what {writer_name} wrote: {kinds} at {where}: {what}"


def _official() -> tuple[Any, Any]:
    try:
        from avro.compatibility import ReaderWriterCompatibilityChecker
        from avro.schema import parse
    except ModuleNotFoundError as error:
        raise CheckerMissing(CheckerMissing.__doc__ or "") from error
    return ReaderWriterCompatibilityChecker, parse
