"""Follows the trading of a run while it goes on, and says what of it is still to come: a run ends when that is nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import psycopg

from tradetape.console.demo import rows
from tradetape.console.demo.topic_content import contents_of
from tradetape.console.demo.trading import RECORDS, Trading, still_to_come
from tradetape.schemas import Codec
from tradetape.streams.topic_reader import Offsets, TopicReader


class Course:
    """Reads the topics of decisions and money of one venue, from the run's start on."""

    def __init__(
        self,
        *,
        codec: Codec,
        reader: TopicReader,
        history: psycopg.Connection,
        venue: str,
        made: Collection[str],
        starts: Offsets,
    ) -> None:
        """`made` names the records that somebody at work makes."""
        self._catalogue = codec.catalogue
        self._reader = reader
        self._history = history
        self._made = made
        self._contents = contents_of(codec, venue)
        topics = {self._catalogue.topic_name(self._catalogue.by_record(record)) for record in RECORDS}
        self._reached = {one: offset for one, offset in starts.items() if one.topic in topics}

    def still_to_come(self, market_end_us: int) -> Counter[str]:
        """How many of each record have to follow what is on the tape now."""
        ends = self._reader.ends(list(self._reached))
        for record in self._reader.read(self._reached, ends):
            self._contents[record.topic].add(record)
        self._reached = ends
        trading = Trading.of(self._contents, self._catalogue)
        book = rows.paper_orders(self._history, trading.trades)
        return still_to_come(trading, book, made=self._made, market_end_us=market_end_us)
