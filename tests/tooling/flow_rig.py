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
from tradetape.schemas import Action, Candle, Direction, Fill, RunMode, Side, TradeSignal

VENUE = "binance-usdm"
MINUTE = timedelta(minutes=1)


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
    """A worker of the flow: its name and its command."""

    name: str
    words: tuple[str, ...]


class Crew:
    """The workers, two of each role, of which chance kills and pauses some; whoever has ended is started again."""

    def __init__(
        self, roles: Sequence[Role], *, environment: Mapping[str, str], folder: Path, chance: random.Random
    ) -> None:
        self.struck: list[str] = []
        """What was done to whom."""
        self._roles = [role for role in roles for _ in range(2)]
        self._environment = environment
        self._folder = folder
        self._chance = chance
        self._workers = [self._started(role) for role in self._roles]
        self._paused: dict[int, float] = {}
        """By place, and until when."""
        self._next_at = time.monotonic() + START_S

    def _started(self, role: Role) -> WorkerProcess:
        words = ["-m", "tradetape.console", "work", *role.words]
        return WorkerProcess(words, environment=self._environment, log=self._folder / f"{role.name}.log")

    def step(self) -> None:
        """Wake whom it is time for, start who has ended, and strike somebody now and then."""
        now = time.monotonic()
        for place in [one for one, until in self._paused.items() if until <= now]:
            self._wake(place)
        self.mend()
        if now >= self._next_at:
            self._next_at = now + self._chance.uniform(*BETWEEN_S)
            self._strike(self._chance.randrange(len(self._workers)), now)

    def _strike(self, place: int, now: float) -> None:
        name = self._roles[place].name
        if place in self._paused or self._chance.random() < 0.5:
            self._paused.pop(place, None)
            self._workers[place].kill()
            self.struck.append(f"{name} killed")
        else:
            self._workers[place].signal("STOP")
            self._paused[place] = now + self._chance.uniform(*PAUSE_S)
            self.struck.append(f"{name} paused")

    def _wake(self, place: int) -> None:
        del self._paused[place]
        self._workers[place].signal("CONT")

    def mend(self) -> None:
        """What a supervisor does."""
        for place, worker in enumerate(self._workers):
            if worker.has_ended:
                self._workers[place] = self._started(self._roles[place])

    def wake_all(self) -> None:
        """No more pauses."""
        for place in list(self._paused):
            self._wake(place)

    def kill(self) -> None:
        """For the way out."""
        for worker in self._workers:
            if not worker.has_ended:
                worker.kill()


class Shifts(Crew):
    """The workers as replicas that come and go in order: of each role one at least, and `MOST_REPLICAS` at most."""

    def _strike(self, place: int, now: float) -> None:
        role = self._roles[place]
        count = sum(one is role for one in self._roles)
        if count == 1 or (count < MOST_REPLICAS and self._chance.random() < 0.5):
            self._roles.append(role)
            self._workers.append(self._started(role))
            self.struck.append(f"{role.name} came")
        else:
            worker = self._workers.pop(place)
            self._roles.pop(place)
            assert worker.stop() == 0, worker.log.read_text()[-3_000:]
            self.struck.append(f"{role.name} went")


MOST_REPLICAS = 3
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
        self._redis_url = redis_url

    def tape_of_bot(self) -> Producer:
        """What the bot and the exchange emit by."""
        return Producer(
            bootstrap_servers=self.kafka.bootstrap_servers, source="bot", catalogue=self.catalogue, overflow="wait",
            run_mode=RunMode.PAPER,
        )  # fmt: skip

    def crew(self, server: OrderServer, chance: random.Random, kind: type[Crew] = Crew) -> Crew:
        """The workers of approval, dispatch to this far side, and positions."""
        prefix = self.catalogue.prefix
        roles = [
            Role("approval", ("approval", "--group", f"{prefix}approval")),
            Role("dispatch", ("dispatch", "--group", f"{prefix}dispatch", "--executor", "webhook", "--webhook-url", server.url)),
            Role("positions", ("positions", "--group", f"{prefix}positions")),
        ]  # fmt: skip
        environment = {
            **self.worker_environment(), "REDIS_URL": self._redis_url, "TRADETAPE_REDIS_PREFIX": prefix.rstrip("."),
            "TRADETAPE_POLICY_FILE": str(self.policy),
        }  # fmt: skip
        return kind(roles, environment=environment, folder=self._folder, chance=chance)


def real_bars(folder: Path, symbols: Sequence[str], count: int) -> Iterator[Sequence[Candle]]:
    """The first one-minute candles of these symbols, minute by minute."""
    return zip(*(list(islice(_candles(folder, symbol), count)) for symbol in symbols), strict=True)


def _candles(folder: Path, symbol: str) -> Iterator[Candle]:
    with gzip.open(folder / "klines" / f"{VENUE}_{symbol}_1m.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            opened = datetime.fromtimestamp(int(line["open_time_ms"]) // 1_000, UTC)
            yield Candle(
                venue=VENUE, symbol=symbol, timeframe="1m", open_time=opened, close_time=opened + MINUTE, is_final=True,
                open=line["open"], high=line["high"], low=line["low"], close=line["close"], volume=line["volume"],
            )  # fmt: skip
