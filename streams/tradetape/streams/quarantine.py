"""Finds the record that kills whoever decodes it, by letting a child process decode it first.

A record that ends the process itself (a crash in C code, a memory of gigabytes) raises nothing that could be caught: its
worker dies, is started again, reads it again, and dies again. So after such a death a worker has the records that its
predecessor may have died of decoded by a child, which shares nothing with it but a number: how far it has come. What
the child dies of is a dead letter, and is never decoded again. Two processes have died of it by then, and the second
one did nothing else at that moment, so a kill from outside never convicts a record.

Only deaths count: what an examination raises, the worker would raise too, and handles as its contract says. A child
that takes too long is given up, and nobody is convicted: a hanging worker is found by its health page.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import resource
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.errors import BadRecord, KillsEverything
from tradetape.streams.processor import Examining, Processor, attempt
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

REASON = "crash"
STAGE = "VALUE_CONVERTER"
MAX_KILLERS = 100
"""A few records are poison. If everything kills, the installation is broken, and the worker halts."""
EXAMINE_TIMEOUT_S = 10.0
"""For one record."""
EXAMINE_BYTES = 128 * 1024 * 1024
"""What one record may take to be decoded; a container needs so much more than its worker uses."""
EXIT_OUT_OF_MEMORY = 77
_ENDED_BY_US = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)
_PLACE = struct.Struct("q")
_NOT_BEGUN = -1

Examine = Callable[[Record], object]


class Death(NamedTuple):
    """Which record of those examined a child died of, and how."""

    number: int
    how: str


FindDeath = Callable[[Sequence[Record], Examine], Death | None]


class Quarantine:
    """What a worker looks at more closely, and what of that it may not decode. Used by one thread."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._killers = 0

    def killers(self, records: Sequence[Record]) -> list[BadRecord]:
        """Those of the records that kill whoever decodes them. Raises KillsEverything."""
        found: list[BadRecord] = []
        if not isinstance(self._processor, Examining):
            return found
        for number, how in deaths(records, self._processor.examine):
            why = f"a worker died, and then a child process that decoded it: {how}"
            found.append(BadRecord(records[number], REASON, why))
            self._killers += 1
            if self._killers > MAX_KILLERS:
                raise KillsEverything(
                    f"{self._killers} records killed a process that decoded them; is the installation broken?"
                )
        return found

    def attempt(
        self, batch: Sequence[Record], killers: list[BadRecord], buried: list[Record], dead_letters: DeadLetters
    ) -> None:
        """Process a batch without its killers; these go to the dead letters first, and from one list into the other.

        Raises what `processor.attempt` raises. Called again after a Transient, it repeats no letter that was acknowledged.
        """
        if killers:
            for one in killers:
                dead_letters.send(one.record, one.reason, one, stage=STAGE)
            dead_letters.flush()
            buried += [one.record for one in killers]
            killers.clear()
        if not buried:
            attempt(self._processor, batch, dead_letters)
            return
        places = {one.place for one in buried}
        attempt(self._processor, [one for one in batch if one.place not in places], dead_letters)
        assert isinstance(self._processor, Examining)
        self._processor.pass_over([one for one in batch if one.place in places])


def first_death(records: Sequence[Record], examine: Examine) -> Death | None:
    """The first of the records that a child process dies of; None where none does, or that cannot be found out."""
    if not records:
        return None
    with mmap.mmap(-1, _PLACE.size) as reached:
        _PLACE.pack_into(reached, 0, _NOT_BEGUN)
        with warnings.catch_warnings(), _no_collection():
            # Newer Pythons warn that other threads may hold locks. The child takes none but the allocator's, which
            # survives a fork; should it hang all the same, its alarm ends it.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                _examine_all(records, examine, reached)
        _, status = os.waitpid(child, 0)
        (index,) = _PLACE.unpack_from(reached, 0)
    return _judged(status, index)


def deaths(records: Sequence[Record], examine: Examine, *, find: FindDeath = first_death) -> Iterator[Death]:
    """Every one of the records that a child process dies of, in order."""
    start = 0
    while (death := find(records[start:], examine)) is not None:
        yield Death(start + death.number, death.how)
        start += death.number + 1


@contextmanager
def _no_collection() -> Iterator[None]:
    """A child that collected its parent's garbage would destroy Kafka clients whose threads it does not have, and die."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _judged(status: int, index: int) -> Death | None:
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if index == _NOT_BEGUN or -code in _ENDED_BY_US:
        logger.warning("records could not be examined: the child ended with %d", code, extra={"action": "quarantine"})
        return None
    if code == EXIT_OUT_OF_MEMORY:
        return Death(index, f"it took more than {EXAMINE_BYTES >> 20} MiB")
    return Death(index, signal.Signals(-code).name if code < 0 else f"exit code {code}")


def _examine_all(records: Sequence[Record], examine: Examine, reached: mmap.mmap) -> NoReturn:
    """The child. It leaves without tidying up: all that it holds is its parent's."""
    try:
        for number in _ENDED_BY_US:
            signal.signal(number, signal.SIG_DFL)
        _limit_memory()
        for index, record in enumerate(records):
            signal.setitimer(signal.ITIMER_REAL, EXAMINE_TIMEOUT_S)
            _PLACE.pack_into(reached, 0, index)
            _examine_one(record, examine)
        os._exit(0)
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    finally:
        _PLACE.pack_into(reached, 0, _NOT_BEGUN)
        os._exit(1)


def _examine_one(record: Record, examine: Examine) -> None:
    try:
        examine(record)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  the worker will meet it again, and is not killed by it
        logger.debug("%s: %s", record.place, error)


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + EXAMINE_BYTES
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
