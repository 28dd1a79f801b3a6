"""The outboxes of a machine, for whoever looks after it: what waits in them, and on its way if its bot does not run.

Looking takes nothing from a running bot; only `flush` owns an outbox for as long as it sends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tradetape.console.errors import UsageError
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.errors import OutboxUnavailable
from tradetape.producers.market import Fate
from tradetape.producers.outbox.owner import owner_of
from tradetape.producers.outbox.pump import Pump
from tradetape.producers.outbox.reading import OutboxReader
from tradetape.producers.outbox.salvage import Salvage, copy_of, is_sound
from tradetape.producers.outbox.store import FILE, Durability, OutboxStore, Totals, files, folder_name


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox. The numbers are None where the file cannot be read, which `trouble` explains."""

    source: str
    path: str
    events: int | None
    parked: int | None
    bytes: int | None
    oldest_age_s: float | None
    owner: str | None
    """The producer that runs: name, process, since when."""
    set_aside: list[str]
    """Files that were corrupt."""
    trouble: str | None


class Flushed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an outbox: events that arrived, that still wait and why, and that their topics refused now."""

    source: str
    delivered: int
    waiting: int
    refused: int
    parked_before: int
    why: str | None
    set_aside: list[str]
    """Files that turned out to be corrupt only now."""


def outboxes(root: Path) -> list[Path]:
    """The folders of all outboxes below `root`."""
    return sorted({file.parent for file in files(root)})


def outbox_of(root: Path, source: str) -> Path:
    """The folder of a source's outbox; the source is given by its name or as `list` shows it. Raises UsageError."""
    found = {folder.name: folder for folder in outboxes(root)}
    folder = found.get(folder_name(source)) or found.get(source)
    if folder is None:
        there = f"there are {', '.join(found)}" if found else "there is none"
        raise UsageError(f"no outbox of {source!r} in {root} (TRADETAPE_OUTBOX_DIR says where); {there}")
    return folder


def file_of(root: Path, source: str | None, file: str | None) -> Path:
    """Which file is meant; a bare name that is no file here is looked for in the source's folder. Raises UsageError."""
    if file is None:
        if source is None:
            raise UsageError("name a source, or a file with --file")
        return outbox_of(root, source) / FILE
    given = Path(file)
    candidates = [given, *([outbox_of(root, source) / file] if source is not None and given.name == file else [])]
    found = next((one for one in candidates if one.is_file()), None)
    if found is None:
        raise UsageError(f"there is no file {file}")
    return found


@contextmanager
def opened(path: Path) -> Iterator[OutboxReader | Salvage]:
    """Read an outbox; one that is damaged, set aside, or no source's own from a copy. Raises OutboxUnavailable."""
    if path.name == FILE and is_sound(path):
        with OutboxReader(path) as reader:
            yield reader
    else:
        with copy_of(path) as copied:
            yield copied


def summary(folder: Path) -> Summary:
    """What is known of an outbox."""
    totals, owner, trouble = Totals(0, 0, 0, None), None, None
    try:
        owner = owner_of(folder)
        if (folder / FILE).exists():
            with OutboxReader(folder / FILE) as reader:
                totals = reader.totals()
    except OutboxUnavailable as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"the outbox {folder} cannot be read: {error.strerror}"
    is_known = trouble is None
    return Summary(
        source=folder.name,
        path=str(folder / FILE),
        events=totals.events if is_known else None,
        parked=totals.parked if is_known else None,
        bytes=totals.bytes if is_known else None,
        oldest_age_s=None if totals.oldest_ms is None else max(time.time() - totals.oldest_ms / 1e3, 0.0),
        owner=owner,
        set_aside=[str(one) for one in _set_aside(folder)],
        trouble=trouble,
    )


def flush(
    folder: Path, kafka: KafkaSettings, *, unpark: bool, timeout_s: float, durability: Durability = "process"
) -> Flushed:
    """Send what waits, in order, as the source's producer would. What does not arrive in time stays where it is.

    Raises OutboxInUse while its bot runs, OutboxUnavailable, SettingsError.
    """
    known_corrupt = set(_set_aside(folder))
    # Its limit is for those who add.
    store = OutboxStore(folder, name="`tradetape outbox flush`", durability=durability, max_bytes=1)
    try:
        if unpark:
            store.unpark()
        before = store.totals()
        pump = Pump(store, kafka, fate_of=_unknown, on_arrival=_nothing)
        try:
            is_all = pump.wait_for(store.last_number(), timeout_s)
            why = None if is_all else _why(pump)
        finally:
            pump.stop()
        after = store.totals()
    finally:
        store.close()
    return Flushed(
        source=folder.name,
        delivered=pump.delivered,
        waiting=after.events,
        refused=after.parked - before.parked,
        parked_before=before.parked,
        why=why if after.events else None,
        set_aside=[str(one) for one in _set_aside(folder) if one not in known_corrupt],
    )


def _why(pump: Pump) -> str:
    held = [f"{topic}: {cause}" for topic, cause in pump.held().items()]
    return "; ".join(held) or pump.client.last_error or "time is up"


def _set_aside(folder: Path) -> Sequence[Path]:
    return [file for file in files(folder.parent) if file.parent == folder and file.name != FILE]


def _unknown(_: str) -> Fate:
    """Of a market update that a decision names, nobody knows any more whether it arrived: it is sent."""
    return Fate.LOST


def _nothing(_: str, __: str) -> None:
    """An arrival is counted by the pump."""
