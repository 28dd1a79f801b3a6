"""The whole flow of trading for tests: a bot on real candles, the workers as processes, and a venue that fills what it is sent.

The venue takes orders in a process of its own (OrderServer), which has each one on disk before it answers; what was
really handed over is told by that book alone.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from dispatch_rig import DispatchRig, OrderServer
from streams_rig import WorkerProcess
from tradetape.producers import Producer
from tradetape.schemas import Action, Candle, Direction, Fill, RunMode, Side, TradeSignal, names

VENUE = "binance-usdm"


class Exchange:
    """What the far side did with the orders of its book: all filled at once, at the newest close, one unit each."""

    def __init__(self, server: OrderServer) -> None:
        self.orders: list[Mapping[str, Any]] = []
        """As they were posted."""
        self.entries: dict[str, Decimal] = {}
        """The price at which each position was entered."""
        self.exits: dict[str, Decimal] = {}
        """The price at which each was left."""
        self._server = server

    def fills(self, closes: Mapping[str, Candle]) -> Iterator[Fill]:
        """Of the orders that are new in the book."""
        for call in self._server.calls()[len(self.orders) :]:
            order = json.loads(call["body"])
            self.orders.append(order)
            bar, is_entry = closes[order["symbol"]], order["action"] == "ENTER"
            price = Decimal(str(bar.close))
            (self.entries if is_entry else self.exits)[order["trade_id" if is_entry else "position_ref"]] = price
            yield Fill(
                venue=VENUE, symbol=order["symbol"], event_time=bar.close_time, trade_id=order["trade_id"],
                position_ref=order["position_ref"], venue_order_id=call["key"], venue_trade_id=call["key"],
                side=Side.BUY if is_entry else Side.SELL, price=price, quantity=Decimal(1), amount_quote=price,
            )  # fmt: skip


class Bot:
    """Emits bars at a pace, signals to enter on some of them, and one to leave each position some bars after its entry."""

    def __init__(
        self, tape: Producer, exchange: Exchange, bars: Iterator[Sequence[Candle]], *, bars_per_s: float
    ) -> None:
        self.signal_ids: set[str] = set()
        self.exchange = exchange
        self.is_done = False
        self._tape = tape
        self._bars = bars
        self._bars_per_s = bars_per_s
        self._number = 0
        self._began = time.monotonic()
        self._closes: dict[str, Candle] = {}
        self._leaving: dict[str, int] = {}
        """Positions, and the bar at which each is to be left."""

    def step(self) -> None:
        """Do what is due by now."""
        while self._number < (time.monotonic() - self._began) * self._bars_per_s and not self.is_done:
            self._number += 1
            bars = next(self._bars, ())
            self.is_done = not bars
            for bar in bars:
                self._closes[bar.symbol] = bar
                self._tape.emit(bar)
                if self._number % ENTER_EVERY_BARS == 0:
                    self._signal(bar, Action.ENTER, valid_until=bar.close_time + VALID_FOR)
            self.trade()

    def trade(self) -> None:
        """Fill what was ordered, and leave what was held for long enough: one position of a symbol at each bar."""
        for fill in self.exchange.fills(self._closes):
            self._tape.emit(fill)
            if fill.side is Side.BUY:
                self._leaving[str(fill.trade_id)] = self._number + HOLD_BARS
        asked = set[str]()
        for order in self.exchange.orders:
            due = self._leaving.get(order["trade_id"])
            if due is not None and due <= self._number and order["symbol"] not in asked:
                asked.add(order["symbol"])
                del self._leaving[order["trade_id"]]
                self._signal(self._closes[order["symbol"]], Action.EXIT, position_ref=order["trade_id"])

    def _signal(self, bar: Candle, action: Action, **more: Any) -> None:
        body = abs(Decimal(str(bar.close)) - Decimal(str(bar.open)))
        spread = Decimal(str(bar.high)) - Decimal(str(bar.low))
        signal = TradeSignal(
            venue=VENUE, symbol=bar.symbol, strategy_id="bodies", timeframe="1m", bar_close_time=bar.close_time,
            action=action, direction=Direction.LONG, quantity=Decimal(1), reference_price=bar.close,
            score=float(body / spread) if spread else 0.0, **more,
        )  # fmt: skip
        self.signal_ids.add(str(self._tape.emit(signal).signal_id))


ENTER_EVERY_BARS = 4
HOLD_BARS = 15
VALID_FOR = timedelta(minutes=240)


class Role(NamedTuple):
    """A worker of the flow: its name, its command, and what its environment has besides the others'."""

    name: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Crew:
    """The workers, two of each role; whoever has ended is started again, as a supervisor would."""

    def __init__(self, roles: Sequence[Role], *, environment: Mapping[str, str], folder: Path) -> None:
        self.struck: list[str] = []
        """What was done to whom."""
        self.roles = [role for role in roles for _ in range(2)]
        self._environment = environment
        self._folder = folder
        self._workers = [self._started(role) for role in self.roles]
        self._paused: dict[int, float] = {}
        """By place, and until when."""

    def _started(self, role: Role) -> WorkerProcess:
        words = ["-m", "tradetape.console", "work", *role.words]
        environment = {**self._environment, **role.environment}
        return WorkerProcess(words, environment=environment, log=self._folder / f"{role.name}.log")

    def kill_one(self, place: int) -> None:
        """kill -9."""
        self._paused.pop(place, None)
        self._workers[place].kill()
        self.struck.append(f"{self.roles[place].name} killed")

    def pause(self, place: int, for_s: float) -> None:
        """SIGSTOP, as a machine is suspended; whoever is paused already is killed."""
        if place in self._paused:
            self.kill_one(place)
            return
        self._workers[place].signal("STOP")
        self._paused[place] = time.monotonic() + for_s
        self.struck.append(f"{self.roles[place].name} paused")

    def rebalance(self, place: int) -> None:
        """TERM: it leaves its group in order, and comes back."""
        if place in self._paused:
            self._wake(place)
        self._workers[place].signal("TERM")
        self.struck.append(f"{self.roles[place].name} rebalanced")

    def mend(self) -> None:
        """Wake whom it is time for, and start whoever has ended."""
        now = time.monotonic()
        for place in [one for one, until in self._paused.items() if until <= now]:
            self._wake(place)
        for place, worker in enumerate(self._workers):
            if worker.has_ended:
                self._workers[place] = self._started(self.roles[place])

    def _wake(self, place: int) -> None:
        del self._paused[place]
        self._workers[place].signal("CONT")

    def wake_all(self) -> None:
        """No more pauses."""
        for place in list(self._paused):
            self._wake(place)

    def kill(self) -> None:
        """For the way out."""
        for worker in self._workers:
            if not worker.has_ended:
                worker.kill()


class Chance:
    """Kills and pauses workers of a crew at random moments."""

    def __init__(self, crew: Crew, chance: random.Random) -> None:
        self._crew = crew
        self._chance = chance
        self._next_at = time.monotonic() + START_S

    def step(self) -> None:
        """Mend the crew, and strike somebody now and then."""
        self._crew.mend()
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + self._chance.uniform(*BETWEEN_S)
            place = self._chance.randrange(len(self._crew.roles))
            if self._chance.random() < 0.5:
                self._crew.kill_one(place)
            else:
                self._crew.pause(place, self._chance.uniform(*PAUSE_S))


START_S = 8.0
"""Left in peace at first, to come to work."""
BETWEEN_S = (0.5, 3.0)
PAUSE_S = (0.3, 12.0)
"""Also longer than a session lasts, so that others take over what the paused one holds."""


class FlowRig(DispatchRig):
    """One test's topics, database, Redis and policy."""

    def __init__(self, *, kafka: str, prefix: str, dsn: str, redis_url: str, folder: Path, policy: str) -> None:
        super().__init__(kafka=kafka, prefix=prefix, dsn=dsn)
        self.policy = folder / "policy.toml"
        self.policy.write_text(policy)
        self._folder = folder
        self.redis_url = redis_url
        self.redis_prefix = prefix.rstrip(".")

    def tape_of_bot(self) -> Producer:
        """What the bot and the exchange emit by."""
        return Producer(
            bootstrap_servers=self.kafka.bootstrap_servers, source="bot", catalogue=self.catalogue, overflow="wait",
            run_mode=RunMode.PAPER,
        )  # fmt: skip

    def is_stored(self) -> bool:
        """Whether the history has come to the end of the tape."""
        rows = self.rows("SELECT topic, partition, next_offset FROM tradetape.sink_offsets WHERE sink = 'history'")
        stored = {(row["topic"], row["partition"]): row["next_offset"] or 0 for row in rows}
        return all(stored.get(place, 0) >= end for place, end in self.ends().items())

    def crew(self, server: OrderServer, *options: str, keeps: bool = False) -> Crew:
        """The workers of approval, dispatch to this far side, and positions; those that keep history and state as well."""
        prefix = self.catalogue.prefix
        roles = [
            Role("approval", ("approval", "--group", f"{prefix}approval")),
            Role("dispatch", ("dispatch", "--group", f"{prefix}dispatch", "--executor", "webhook",
                              "--webhook-url", server.url, *options)),
            Role("positions", ("positions", "--group", f"{prefix}positions")),
        ]  # fmt: skip
        if keeps:
            roles.append(Role("history", ("history", "--group", f"{prefix}history"), {"DATABASE_URL": self.sink_dsn}))
            roles.append(Role("state", ("state", "--group", f"{prefix}state")))
        environment = {
            **self.worker_environment(), "REDIS_URL": self.redis_url, "TRADETAPE_REDIS_PREFIX": self.redis_prefix,
            "TRADETAPE_POLICY_FILE": str(self.policy),
        }  # fmt: skip
        return Crew(roles, environment=environment, folder=self._folder)


def real_bars(folder: Path, symbols: Sequence[str], count: int, timeframe: str = "1m") -> Iterator[Sequence[Candle]]:
    """The first candles of these symbols, bar by bar."""
    return zip(*(list(islice(_candles(folder, symbol, timeframe), count)) for symbol in symbols), strict=True)


def _candles(folder: Path, symbol: str, timeframe: str) -> Iterator[Candle]:
    length = timedelta(microseconds=names.timeframe_us(timeframe))
    path = folder / "klines" / f"{VENUE}_{symbol}_{timeframe}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            opened = datetime.fromtimestamp(int(line["open_time_ms"]) // 1_000, UTC)
            yield Candle(
                venue=VENUE, symbol=symbol, timeframe=timeframe, open_time=opened, close_time=opened + length,
                is_final=True, open=line["open"], high=line["high"], low=line["low"], close=line["close"],
                volume=line["volume"],
            )  # fmt: skip
