"""The gate before a release: what is on the tape stays readable, and what is released is what the package holds.

Every check takes a `Package`, which is what one folder holds, and gives one line for each problem. None writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

from tradetape.schemas import avro_schema, compatibility, golden, lint
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.released import Archive, Version


@dataclass(frozen=True, kw_only=True)
class Package:
    """The head schemas by record, as text and parsed; the released versions; the stub as it lies there."""

    texts: dict[str, bytes]
    heads: dict[str, Schema]
    archive: Archive
    stub: str

    def has_unreleased_head(self, record: str) -> bool:
        """Whether the head differs from the last released version; words in `doc` do not count."""
        versions = self.archive.versions(record)
        return not versions or versions[-1].schema_id != avro_schema.content_id(self.heads[record])

    def lineage(self, record: str) -> list[tuple[str, Schema]]:
        """Every version of a record, named and oldest first, with the head last where it differs."""
        versions = [(f"{record} v{one.number}", one.schema) for one in self.archive.versions(record)]
        return [*versions, (f"{record} head", self.heads[record])] if self.has_unreleased_head(record) else versions


def read(folder: Path) -> Package:
    """What lies in a folder that is laid out as this package is."""
    files = sorted(
        (one for one in folder.joinpath("avro").iterdir() if one.name.endswith(".avsc")), key=lambda f: f.name
    )
    texts = {one.name.removesuffix(".avsc"): one.read_bytes() for one in files}
    return Package(
        texts=texts,
        heads={record: json.loads(text) for record, text in texts.items()},
        archive=Archive(folder.joinpath("released")),
        stub=folder.joinpath("events.pyi").read_text(encoding="utf-8"),
    )


def problems(package: Package, *, stub: str) -> list[str]:
    """Everything that is wrong; `stub` is what the stub has to be. Raises CheckerMissing without the avro package."""
    return [*before_release(package), *unreleased(package), *stale_stub(package, stub=stub)]


def before_release(package: Package) -> list[str]:
    """What must be mended before anything may be released."""
    checks = (frozen_files, golden_events, schema_rules, lineage_rules, compatible_both_ways)
    return [line for check in checks for line in check(package)]


def frozen_files(package: Package) -> Iterator[str]:
    """A released file is what the lock says, and the lock knows every released file."""
    lock = package.archive.lock()
    for record in package.archive.records():
        locked, found = lock.get(record, []), package.archive.versions(record)
        for number, (entry, version) in enumerate(zip(locked, found, strict=False), start=1):
            if version.locked() != entry:
                yield f"{record} v{number}: the released file has been changed; released files stay as they are"
        for entry in locked[len(found) :]:
            yield f"{record} v{entry['version']}: the released file is missing"
        for version in found[len(locked) :]:
            yield f"{record} v{version.number}: the file lies among the released ones, but the lock does not know it"


def unreleased(package: Package) -> Iterator[str]:
    """The head of each record is its last released version."""
    for record in package.heads:
        if package.has_unreleased_head(record):
            yield f"{record}: the head differs from the last released version; `tradetape schemas freeze` releases it"
    for record in package.archive.records():
        if record not in package.heads:
            yield f"{record}: was released but has no head; events of it are on the tape"


def stale_stub(package: Package, *, stub: str) -> Iterator[str]:
    """Type checkers see the classes as the schemas make them."""
    if package.stub != stub:
        yield "events.pyi: differs from the schemas; `tradetape schemas stubs` writes it"


def golden_events(package: Package) -> Iterator[str]:
    """What each version wrote says the same to a reader of today."""
    for record, head in package.heads.items():
        for version in package.archive.versions(record):
            found = _golden_difference(package.archive, record, version, head)
            if found:
                yield f"{record} v{version.number}: the golden event {found}"


def _golden_difference(archive: Archive, record: str, version: Version, head: Schema) -> str | None:
    payload, sample = archive.golden(record, version.number), archive.sample(record, version.number)
    if payload is None or sample is None:
        return "is missing"
    return golden.difference(payload, sample, writer=version.schema, head=head)


def schema_rules(package: Package) -> Iterator[str]:
    """Each head keeps our rules, and all heads agree in what they share."""
    found = [line for record, head in package.heads.items() for line in lint.problems(record, head)]
    yield from found
    if not found:
        yield from lint.shared(package.heads)


def lineage_rules(package: Package) -> Iterator[str]:
    """No version changes what an earlier one said, nor renames anything."""
    for record in package.heads:
        lineage = package.lineage(record)
        for (older, earlier), (newer, later) in combinations(lineage, 2):
            yield from (f"{newer} against {older}: {line}" for line in lint.changes(earlier, later))
        for (older, earlier), (newer, later) in pairwise(lineage):
            yield from (f"{newer} against {older}: {line}" for line in lint.renames(earlier, later))


def compatible_both_ways(package: Package) -> Iterator[str]:
    """Every version reads every other one (FULL_TRANSITIVE)."""
    for record in package.heads:
        yield from compatibility.incompatibilities(package.lineage(record))
