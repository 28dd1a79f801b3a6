"""Every container of the set crashes, is frozen, cut off and starved under load, and comes back without a hand; the ledger
then finds nothing lost and nothing doubled, from the bot's events to the orders that came of them."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product

import psycopg
import pytest

from compose_set import SERVICES, WORKERS, ComposeSet
from evidence import HistoryEvidence
from history_rig import HistoryRig
from history_workers import START, SYMBOLS, Load
from ledger import Ledger
from tradetape.schemas import Action, Direction, RunMode, TradeSignal
from waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(5_400)]

EVENTS_PER_S = 300
RUBBISH_EVERY = 500
SIGNAL_EVERY = 60
FREEZE_S = 8.0
SETTLE_S = 300.0
OF_BOT = ("Candle", "IndicatorUpdate", "MarketCondition", "TradeSignal")
OF_WORKERS = ("SignalDecision", "Trade", "TradeDispatch", "Fill")


class PaperRig(HistoryRig):
    """The tape and the history of a running set, read and written from this machine."""

    source = "bot"
    run_mode = RunMode.PAPER

    def __init__(self, running: ComposeSet) -> None:
        super().__init__(kafka=running.kafka, prefix="tradetape.", dsn=running.database_url)
        self.evidence = HistoryEvidence(
            self.kafka, self.catalogue, dsn=self.dsn, registered=registered_ids(running, self.catalogue)
        )

    def number(self, query: str) -> int:
        """One number of the database, asked anew each time: the server may have been away."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return int(row[0])


class TradingLoad(Load):
    """The load of the history's tests, and a signal to enter now and then."""

    def _emit(self) -> None:
        super()._emit()
        if self.count % SIGNAL_EVERY == 0:
            self.count += 1
            at = START + timedelta(milliseconds=50 * self.count)
            signal = TradeSignal(
                venue="v", symbol=SYMBOLS[self.count % len(SYMBOLS)], strategy_id="s", timeframe="1m", bar_close_time=at,
                action=Action.ENTER, direction=Direction.LONG, quantity="1", reference_price="1",
                valid_until=at + timedelta(days=1),
            )  # fmt: skip
            self._ledger.emitted(self._tape.emit(signal))


def registered_ids(running: ComposeSet, catalogue: object) -> dict[str, int]:
    """The ids of the set's registry by record, asked by plain HTTP."""
    base = f"http://127.0.0.1:{running.environment['REGISTRY_PORT']}/apis/ccompat/v7/subjects"
    ids = {}
    for one in catalogue:  # type: ignore[attr-defined]
        with urllib.request.urlopen(f"{base}/{catalogue.subject(one)}/versions/latest", timeout=30) as answer:  # type: ignore[attr-defined]
            ids[one.record] = int(json.load(answer)["id"])
    return ids


@pytest.fixture
def rig(running: ComposeSet) -> PaperRig:
    return PaperRig(running)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def load(rig: PaperRig, ledger: Ledger) -> Iterator[TradingLoad]:
    made = TradingLoad(rig, ledger, events_per_s=EVENTS_PER_S, rubbish_every=RUBBISH_EVERY)
    yield made
    made.close()


def crash(running: ComposeSet, service: str) -> None:
    before = running.container(service)
    running.crash(service)
    running.until(service, f"{service} is started again", lambda: running.container(service).restarts > before.restarts)


def freeze(running: ComposeSet, service: str) -> None:
    running.pause(service)
    threading.Event().wait(FREEZE_S)
    running.go_on(service)


def cut_off(running: ComposeSet, service: str) -> None:
    running.disconnect(service)
    threading.Event().wait(FREEZE_S)
    running.connect(service)


def starve(running: ComposeSet, service: str) -> None:
    before = running.container(service)
    running.starve(service)
    running.until(service, f"{service} is started again", lambda: running.container(service).restarts > before.restarts)


FAULTS: dict[str, Callable[[ComposeSet, str], None]] = {
    "crash": crash, "freeze": freeze, "cut off": cut_off, "starve": starve,
}  # fmt: skip


def test_whatever_befalls_a_container_it_comes_back_and_nothing_is_lost_or_doubled(
    running: ComposeSet, rig: PaperRig, load: TradingLoad, ledger: Ledger
) -> None:
    strikes = list(product(FAULTS, (*SERVICES, *WORKERS)))
    ledger.rng.shuffle(strikes)
    for fault, service in strikes:
        FAULTS[fault](running, service)
        print(f"{fault} {service}: all healthy after {running.await_health():.0f} s", flush=True)
    emitted = load.end()
    ends = rig.ends()
    eventually("the history has caught up", lambda: rig.has_come_to(ends), timeout_s=SETTLE_S)
    signals = len(ledger.said["TradeSignal"])
    eventually("each signal has come to an order", lambda: orders(rig) == signals, timeout_s=SETTLE_S)
    ends = rig.ends()
    eventually("the history has that too", lambda: rig.has_come_to(ends), timeout_s=SETTLE_S)
    judge_all(rig, ledger, emitted, signals)


def orders(rig: PaperRig) -> int:
    return rig.number("SELECT count(*) FROM tradetape.dispatch_intents")


def judge_all(rig: PaperRig, ledger: Ledger, emitted: int, signals: int) -> None:
    """The bot's events by the ledger, the workers' by the tape, and each signal by what came of it."""
    told = rig.evidence.verdict(ledger, records=OF_BOT)
    made = rig.evidence.verdict(records=OF_WORKERS)
    print(told, made, sep="\n")
    assert told.is_right, told
    assert told.counts["emitted"] == told.counts["stored"] == emitted
    assert made.is_right, made
    counts = Counter({table: rig.number(f"SELECT count(*) FROM tradetape.{table}") for table in TABLES})  # noqa: S608
    assert counts == dict.fromkeys(TABLES, signals)
    for table, one in TABLES.items():
        assert rig.number(f"SELECT count(DISTINCT {one}) FROM tradetape.{table}") == signals  # noqa: S608


TABLES = {"signal_decisions": "signal_id", "trades": "signal_id"}
