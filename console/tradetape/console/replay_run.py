"""One replay put together: the environment's services in, reading and target out, with its entry in the book of runs."""

from __future__ import annotations

import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from tradetape.console.errors import UsageError
from tradetape.console.record_text import RecordText
from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings
from tradetape.schemas.stamping import wall_clock_us
from tradetape.sinks.replay.pace import Pace
from tradetape.sinks.replay.plan import (
    HISTORY,
    STATE,
    STDOUT,
    TOPIC,
    TOPICS,
    Progress,
    Request,
    make_plan,
    refuse_other_topics,
)
from tradetape.sinks.replay.reading import Reading, Tell
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.replay import Entry, Summary, carry_out, counts_to_keep
from tradetape.sinks.replay.runs import RunBook
from tradetape.sinks.replay.targets.dry import DryTarget
from tradetape.sinks.replay.targets.lines import LinesTarget
from tradetape.sinks.replay.targets.target import Target
from tradetape.streams.groups import TopicIds
from tradetape.streams.topic_reader import TopicReader


class ReplayRun:
    """A replay that is about to go on. `run_id` is None where no database keeps a book of it."""

    def __init__(self, settings: Settings, *, is_dry: bool = False) -> None:
        """Raises SettingsError."""
        self.run_id: str | None = None
        self._settings = settings
        self._is_dry = is_dry
        self._kafka = KafkaSettings.of(settings)
        self._codec = codec_of(settings)
        self._catalogue = self._codec.catalogue
        self._refusals = Refusals()
        self._opened = ExitStack()
        self._reader = self._opened.enter_context(closing(TopicReader(self._kafka)))
        self._topic_uuid = TopicIds(self._kafka)
        self._entry: Entry | None = None

    def begin(self, request: Request) -> None:
        """Plan a new replay and enter it into the book. Raises ReplayRefused, TopicMissing, SchemaBehind."""
        self.plan = make_plan(
            request, catalogue=self._catalogue, reader=self._reader, topic_uuid=self._topic_uuid
        )  # fmt: skip
        self._progress = Progress.none(self.plan)
        run_id = str(uuid.uuid4())
        self._target = self._opened.enter_context(closing(self._made_target(run_id, is_new=True)))
        if self._settings.database_url and not self._is_dry:
            book = self._book()
            book.begin(run_id, self.plan)
            self.run_id, self._entry = run_id, Entry(book, run_id, Counter())

    def resume(self, run_id: str) -> None:
        """Go on with a run. Raises ReplayRefused, SchemaBehind."""
        book = self._book()
        self.plan, self._progress, counts = book.resume(run_id)
        refuse_other_topics(self.plan, self._topic_uuid)
        self._target = self._opened.enter_context(closing(self._made_target(run_id, is_new=False)))
        self.run_id = run_id
        self._entry = Entry(book, run_id, counts_to_keep(counts, self.plan, self._target))

    def carry_out(self, *, stop: threading.Event, tell: Tell) -> Summary:
        """Replay what is left. Raises ReplayStopped, and what the services raise when they go away."""
        speed = self.plan.request.speed
        pace = None if speed is None or self._is_dry else Pace(speed, sleep=stop.wait)
        reading = Reading(plan=self.plan, reader=self._reader, codec=self._codec, pace=pace, stop=stop, tell=tell)
        return carry_out(
            reading=reading, target=self._target, refusals=self._refusals, progress=self._progress, entry=self._entry
        )

    def _book(self) -> RunBook:
        return self._opened.enter_context(closing(RunBook(self._settings.required("DATABASE_URL"))))

    def _made_target(self, run_id: str, *, is_new: bool) -> Target:
        made: dict[str, Callable[[str], Target]] = {
            HISTORY: self._history, STATE: self._state, TOPIC: self._topics, TOPICS: self._topics, STDOUT: self._lines
        }  # fmt: skip
        # Made even for a dry run: what would be refused is refused.
        target = made[self.plan.request.kind](run_id)
        if is_new:
            target.check()
        if not self._is_dry:
            return target
        target.close()
        return DryTarget()

    def _history(self, _: str) -> Target:
        from tradetape.sinks.replay.targets.history import HistoryTarget

        return HistoryTarget(
            dsn=self._settings.required("DATABASE_URL"), codec=self._codec, plan=self.plan,
            schema=self.plan.request.schema, refusals=self._refusals,
        )  # fmt: skip

    def _state(self, _: str) -> Target:
        from tradetape.sinks.replay.targets.state import LiveStateTarget, PastStateTarget

        request, url, live = self.plan.request, self._settings.required("REDIS_URL"), self._settings.redis_prefix
        if request.prefix is None:
            return LiveStateTarget(url=url, codec=self._codec, prefix=live, refusals=self._refusals)
        return PastStateTarget(
            url=url, codec=self._codec, prefix=request.prefix, live_prefix=live,
            at_us=request.at_us, now_us=wall_clock_us, refusals=self._refusals,
        )  # fmt: skip

    def _topics(self, run_id: str) -> Target:
        from tradetape.sinks.replay.targets.topics import TopicsTarget

        return TopicsTarget(
            kafka=self._kafka, codec=self._codec, plan=self.plan, run_id=run_id,
            refusals=self._refusals,
        )  # fmt: skip

    def _lines(self, _: str) -> Target:
        def write_text(text: str) -> None:
            sys.stdout.write(text)
            # On return it is out of our hands: a run that is resumed does not repeat it.
            sys.stdout.flush()

        return LinesTarget(show=RecordText(self._codec).document, write_text=write_text)

    def close(self) -> None:
        """Let go of every connection."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def refuse_unfit(request: Request) -> None:
    """Options that do not go together. Raises UsageError."""
    if request.schema is not None and request.kind != HISTORY:
        raise UsageError("--schema goes with --into history")
    if (request.prefix is not None or request.at_us is not None) and request.kind != STATE:
        raise UsageError("--prefix and --at go with --into state")
    if request.at_us is not None and request.prefix is None:
        raise UsageError(
            "--at builds a state of the past: give it a --prefix of its own, the live one holds the present"
        )
    if request.at_us is not None and request.speed is not None:
        raise UsageError("--at is one instant: leave out --speed")
    if request.verbatim and request.kind in (HISTORY, STATE, STDOUT):
        raise UsageError("--verbatim goes with --into topic:NAME or topics:PREFIX")
    start_us, end_us = request.stretch
    if start_us is not None and end_us is not None and start_us >= end_us:
        raise UsageError("nothing lies between --from and --to")
