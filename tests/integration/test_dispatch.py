"""From a trade on the tape to its executor and back: each order once, what became of it on the tape and in the table."""

from __future__ import annotations

import json
import sys
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from dispatch_rig import NOON, DispatchRig, Scripted, bar, trade
from positions_rig import Run
from tradetape.console.cli import main
from tradetape.console.errors import UsageError
from tradetape.schemas import Action, DispatchOutcome, Event, Fill, Leg, RunMode, Side, Trade, TradeDispatch
from tradetape.sinks.dispatch.executor import Answer, Order, OrderNotTaken, load
from tradetape.sinks.dispatch.telling import Telling
from tradetape.sinks.errors import ExecutorUnusable
from tradetape.streams.effects import KafkaEffects
from tradetape.streams.errors import EffectsRefused
from tradetape.streams.topic_reader import TopicReader
from waiting import eventually


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> DispatchRig:
    return DispatchRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def test_a_trade_is_dispatched_on_paper_filled_by_the_first_candle_behind_it_and_stands_in_history(
    rig: DispatchRig,
) -> None:
    rig.emit(bar(-1, open="99"))
    (one,) = rig.emit(trade(quantity="2", account_id="main"))
    with rig.dispatching(rig.sink_by("--executor", "paper", "--paper-fee-ratio", "0.002")):
        eventually("the order is acknowledged", lambda: rig.outcomes(one.trade_id) == ["INTENDED", "ACKED"])
        rig.emit(bar(0, open="101"), bar(1, open="102"), source="market")
        eventually("it is filled", lambda: len(rig.fills()) == 1)

    (fill,) = rig.fills()
    assert (fill["price"], fill["quantity"], fill["amount_quote"]) == (101, 2, 202)
    assert (fill["fee"], fill["fee_asset"], fill["side"]) == (Decimal("0.404"), "USDT", "BUY")
    assert (fill["event_time"], fill["trade_id"], fill["position_ref"]) == (NOON, one.trade_id, one.trade_id)
    assert (fill["run_mode"], fill["correlation_id"], fill["causation_id"]) == ("PAPER", one.signal_id, one.event_id)
    rig.store()
    journal = rig.rows("SELECT dispatches, fill_ids FROM tradetape.trade_journal WHERE trade_id = %s", one.trade_id)
    assert [step["outcome"] for step in journal[0]["dispatches"]] == ["INTENDED", "ACKED"]
    assert journal[0]["fill_ids"] == [fill["fill_id"]]


def test_a_trade_that_comes_late_is_filled_by_the_candle_that_has_gone_by(rig: DispatchRig) -> None:
    rig.emit(*(bar(minute, open=str(95 + minute)) for minute in range(10)))
    with rig.dispatching(rig.sink_by("--executor", "paper")):
        rig.emit(trade(61))
        eventually("it is filled", lambda: len(rig.fills()) == 1)
    assert (rig.fills()[0]["price"], rig.fills()[0]["event_time"]) == (97, NOON + timedelta(minutes=2))


def test_paper_orders_go_on_where_a_dispatcher_was_stopped_in_the_middle_of_filling_them(rig: DispatchRig) -> None:
    (one,) = rig.emit(trade(quantity="25"))
    rig.emit(bar(0, open="100", volume="10"), source="market")
    with rig.dispatching(rig.sink_by("--executor", "paper")):
        eventually("a part is filled", lambda: len(rig.fills()) == 1)
    rig.emit(bar(1, open="104", volume="10"), bar(2, open="106", volume="10"), source="market")
    with rig.dispatching(rig.sink_by("--executor", "paper")):
        eventually("all of it is filled", lambda: len(rig.fills()) == 3)
    assert [(fill["price"], fill["quantity"]) for fill in rig.fills()] == [(100, 10), (104, 10), (106, 5)]
    assert rig.rows("SELECT is_done FROM tradetape.paper_orders")[0]["is_done"]
    assert set(rig.repeats(TradeDispatch).values()) == {1}
    assert rig.outcomes(one.trade_id) == ["INTENDED", "ACKED"]


def test_only_trades_of_the_own_mode_are_dispatched_and_none_that_was_replayed(rig: DispatchRig) -> None:
    executor = Scripted()
    modes = (RunMode.LIVE, RunMode.BACKTEST, RunMode.REPLAY, RunMode.PAPER)
    rig.emit(*(trade(number, run_mode=mode) for number, mode in enumerate(modes)))
    sink = rig.sink_of(executor)
    rig.dispatch_all(sink)
    assert executor.calls == ["key-BTCUSDT-3:0"]
    assert sink.counts["other_mode"] == 3


def test_a_trade_that_was_replayed_onto_the_topic_is_not_dispatched(rig: DispatchRig) -> None:
    effects, executor = KafkaEffects(worker="approval", codec=rig.codec, kafka=rig.kafka), Scripted()
    for_once, replayed = effects.stamped([trade(0, correlation_id="c"), trade(1, correlation_id="c")])
    effects.close()
    rig.put(for_once.topic, [(for_once.key, for_once.value)])
    rig.put(replayed.topic, [(replayed.key, replayed.value)], headers=[("x-replay", b"a-run")])
    sink = rig.sink_of(executor)
    rig.dispatch_all(sink)
    assert executor.calls == ["key-BTCUSDT-0:0"]
    assert sink.counts["replayed"] == 1


def test_live_trades_are_not_filled_on_paper(rig: DispatchRig) -> None:
    with pytest.raises(UsageError, match="LIVE"):
        rig.sink_by("--executor", "paper", run_mode="LIVE")


def test_the_offsets_leave_the_session_to_the_order_at_hand_and_move_with_the_next_tick(rig: DispatchRig) -> None:
    rig.emit(trade())
    topic, sink, reader = rig.topic(Trade), rig.sink_of(Scripted()), TopicReader(rig.kafka)
    partitions, ends = reader.partitions([topic]), rig.ends(topic)
    sink.assigned(partitions)
    sink.process(list(reader.read(reader.begins(partitions), reader.ends(partitions))))
    eventually("the order is over", lambda: not sink.lanes.in_flight())
    sink.process([])
    assert not rig.has_come_to(ends)
    sink.tick(0)
    assert rig.has_come_to(ends)
    sink.close()
    reader.close()


def test_each_leg_is_an_order_of_its_own_under_its_own_key(rig: DispatchRig) -> None:
    executor = Scripted()
    legs = [Leg(leg_index=number, trigger_price=str(100 - number), amount_quote="50") for number in (2, 1)]
    (one,) = rig.emit(trade(legs=legs))
    rig.dispatch_all(rig.sink_of(executor))
    assert executor.calls == [f"{one.idempotency_key}:{number}" for number in (0, 1, 2)]
    assert rig.outcomes(one.trade_id, 2) == ["INTENDED", "ACKED"]


def test_what_is_valid_no_longer_is_expired_and_never_sent(rig: DispatchRig) -> None:
    executor = Scripted()
    stale, fresh = rig.emit(
        trade(0, valid_until=NOON + timedelta(minutes=60)), trade(1, valid_until=NOON + timedelta(minutes=61))
    )
    rig.dispatch_all(rig.sink_of(executor))
    assert executor.calls == [f"{fresh.idempotency_key}:0"]
    assert rig.outcomes(stale.trade_id) == ["EXPIRED"]


def test_on_paper_the_clock_is_the_markets_own(rig: DispatchRig) -> None:
    rig.emit(bar(0), bar(1), bar(30, symbol="ETHUSDT"))
    until = NOON + timedelta(minutes=10)
    btc, eth = rig.emit(trade(0, valid_until=until), trade(0, symbol="ETHUSDT", valid_until=until))
    rig.dispatch_all(rig.sink_by("--executor", "paper"))
    assert (rig.outcomes(btc.trade_id), rig.outcomes(eth.trade_id)) == (["INTENDED", "ACKED"], ["EXPIRED"])


def test_a_symbol_whose_executor_hangs_holds_up_no_other_symbol_and_keeps_its_own_order(rig: DispatchRig) -> None:
    gate = threading.Event()

    def act(order: Order) -> Answer:
        if order.trade.symbol == "BTCUSDT":
            gate.wait(30)
        return Answer()

    executor = Scripted(act)
    with rig.dispatching(rig.sink_of(executor)):
        rig.emit(trade(0), trade(1))
        eventually("the first one hangs", lambda: len(executor.calls) == 1)
        rig.emit(trade(0, symbol="ETHUSDT"), trade(1, symbol="ETHUSDT"), source="later")
        eventually("the others go on", lambda: len(executor.calls) == 3)
        assert executor.calls == ["key-BTCUSDT-0:0", "key-ETHUSDT-0:0", "key-ETHUSDT-1:0"]
        gate.set()
        eventually("then its next one goes", lambda: executor.calls[3:] == ["key-BTCUSDT-1:0"])


def test_no_answer_is_in_doubt_and_sent_once_where_repeats_are_not_told_and_again_where_they_are(
    rig: DispatchRig,
) -> None:
    def act(_: Order) -> Answer:
        raise TimeoutError("no answer")

    (one,) = rig.emit(trade())
    careful = Scripted(act)
    rig.dispatch_all(rig.sink_of(careful))
    rig.dispatch_all(rig.sink_of(careful))
    assert (len(careful.calls), rig.outcomes(one.trade_id)) == (1, ["INTENDED", "IN_DOUBT"])
    (two,) = rig.emit(trade(1))
    tireless = Scripted(act, is_idempotent=True)
    rig.dispatch_all(rig.sink_of(tireless))
    assert tireless.calls == ["key-BTCUSDT-1:0"] * 3
    assert rig.outcomes(two.trade_id) == ["INTENDED", "TIMEOUT"] * 3 + ["IN_DOUBT"]


def test_a_definite_refusal_is_sent_again_under_the_same_attempt(rig: DispatchRig) -> None:
    def act(_: Order) -> Answer:
        if len(executor.calls) < 3:
            raise OrderNotTaken("too many requests")
        return Answer()

    executor = Scripted(act)
    (one,) = rig.emit(trade())
    rig.dispatch_all(rig.sink_of(executor))
    assert len(executor.calls) == 3
    assert rig.outcomes(one.trade_id) == ["INTENDED", "ACKED"]
    assert set(rig.repeats(TradeDispatch).values()) == {1}


def test_a_rejected_order_is_final(rig: DispatchRig) -> None:
    executor = Scripted(lambda _: Answer(DispatchOutcome.REJECTED, None, "no such symbol"))
    (one,) = rig.emit(trade())
    rig.dispatch_all(rig.sink_of(executor))
    assert rig.outcomes(one.trade_id) == ["INTENDED", "REJECTED"]
    assert rig.intents()[0]["error"] == "no such symbol"


@pytest.mark.parametrize("is_gone", [False, True], ids=["restored", "lost"])
def test_a_database_that_was_restored_or_lost_sends_no_trade_again(rig: DispatchRig, is_gone: bool) -> None:
    executor = Scripted()
    rig.emit(trade(0), trade(1))
    rig.dispatch_all(rig.sink_of(executor))
    with going_back(rig.dsn, is_gone=is_gone) as restore:
        rig.emit(trade(2), trade(0, symbol="ETHUSDT"), source="second")
        rig.dispatch_all(rig.sink_of(executor))
        assert len(executor.calls) == 4
        restore()
    assert len(rig.intents()) == (0 if is_gone else 2)
    rig.emit(trade(3), source="third")
    rig.dispatch_all(rig.sink_of(executor))
    assert sorted(executor.calls) == [f"key-BTCUSDT-{number}:0" for number in range(4)] + ["key-ETHUSDT-0:0"]
    assert {row["outcome"] for row in rig.intents()} == {"ACKED"}
    assert len(rig.intents()) == 5
    assert set(rig.repeats(TradeDispatch).values()) == {1}


def test_what_cannot_be_read_is_a_dead_letter_and_what_follows_goes_on(rig: DispatchRig) -> None:
    executor = Scripted()
    rig.put(rig.topic(type(trade())), [(b"v:BTCUSDT", b"\x00nonsense")])
    rig.emit(trade())
    sink = rig.sink_of(executor)
    rig.dispatch_all(sink)
    assert len(executor.calls) == 1
    assert sum(sink._dead_letters.refused.values()) == 1


def test_a_person_resolves_an_order_in_doubt_in_the_table_and_on_the_tape(
    rig: DispatchRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(_: Order) -> Answer:
        raise ConnectionResetError("reset by peer")

    executor = Scripted(act)
    (one,) = rig.emit(trade())
    rig.dispatch_all(rig.sink_of(executor))
    for name, value in rig.worker_environment().items():
        monkeypatch.setenv(name, value)

    assert main(["dispatch", "list", "--in-doubt"]) == 0
    (listed,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["trade_id"], listed["outcome"]) == (one.trade_id, "IN_DOUBT")
    words = ["dispatch", "resolve", one.trade_id, "0", "--as", "failed", "--why", "not in the order list"]
    assert main(words) == 0
    assert main(words) == 1
    assert "is not in doubt: REJECTED" in capsys.readouterr().err
    assert main(["dispatch", "list", "--in-doubt"]) == 0
    assert capsys.readouterr().out == ""
    last = rig.on_tape(TradeDispatch)[-1]
    assert (last["outcome"], last["tags"]) == ("REJECTED", {"resolved_why": "not in the order list"})
    assert rig.intents()[0]["resolved_why"] == "not in the order list"

    with going_back(rig.dsn, is_gone=True) as restore:
        restore()
    rig.dispatch_all(rig.sink_of(executor))
    assert (len(executor.calls), rig.intents()[0]["outcome"]) == (1, "REJECTED")


DESK = """
from tradetape.sinks.dispatch.executor import Answer

class Desk:
    name, is_idempotent = "desk", False
    def __init__(self):
        self.taken = []
    def submit(self, order):
        self.taken.append((order.key, order.trade.quantity))
        return Answer(external_id=f"desk-{len(self.taken)}")

class Silent:
    name, is_idempotent = "silent", False

desk = Desk()
"""


@pytest.mark.parametrize("name", ["Desk", "desk"])
def test_an_executor_of_ones_own_is_named_by_module_and_class_or_object(
    rig: DispatchRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "own_desk.py").write_text(DESK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_desk", raising=False)
    (one,) = rig.emit(trade())
    sink = rig.sink_by("--executor", f"own_desk:{name}")
    rig.dispatch_all(sink)
    assert sink._executor.taken == [("key-BTCUSDT-0:0", 2)]  # type: ignore[attr-defined]
    last = rig.on_tape(TradeDispatch)[-1]
    assert (last["trade_id"], last["executor"], last["external_id"]) == (one.trade_id, "desk", "desk-1")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own_desk", "names no executor"),
        ("own_desk:", "names no executor"),
        ("no_such_desk:Desk", "No module named 'no_such_desk'"),
        ("own_desk:Nobody", "has no attribute 'Nobody'"),
        ("own_desk:Silent", "has no submit"),
    ],
)
def test_an_executor_that_is_none_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    (tmp_path / "own_desk.py").write_text(DESK)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExecutorUnusable, match=why):
        load(name)


def test_an_order_that_turns_out_to_be_filled_gets_its_fill_and_its_position_can_be_closed(
    rig: DispatchRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(order: Order) -> Answer:
        if order.trade.action is Action.EXIT:
            return Answer()
        raise ConnectionResetError("reset by peer")

    (enter,) = rig.emit(trade(account_id="main", direction="SHORT"))
    (leave,) = rig.emit(
        trade(1, account_id="main", direction="SHORT", action="EXIT", position_ref=enter.trade_id), source="second"
    )
    rig.dispatch_all(rig.sink_of(Scripted(act)))
    for name, value in rig.worker_environment().items():
        monkeypatch.setenv(name, value)

    words = ["dispatch", "resolve", enter.trade_id, "0", "--why", "order 4711 there", "--external-id", "4711"]
    assert main([*words, "--as", "filled"]) == 2
    assert "--as accepted" in capsys.readouterr().err
    assert main([*words, "--as", "failed", "--price", "100", "--quantity", "2"]) == 2
    assert rig.intents()[0]["outcome"] == "IN_DOUBT"

    words += ["--as", "filled", "--price", "100.5", "--quantity", "2", "--fee", "0.2"]
    with monkeypatch.context() as broken:
        # The fill is on the tape, and the person's machine dies before the outcome is.
        tell = Telling.tell

        def dies(self: Telling, event: Event) -> None:
            if isinstance(event, TradeDispatch):
                raise EffectsRefused("the machine is gone")
            tell(self, event)

        broken.setattr(Telling, "tell", dies)
        assert main(words) == 3
    assert rig.outcomes(enter.trade_id)[-1] == "IN_DOUBT"
    assert main(words) == 0
    assert main(words) == 1, "it is resolved"
    assert rig.outcomes(enter.trade_id)[-1] == "ACKED"
    (fill,) = rig.fills()
    assert (fill["side"], fill["price"], fill["quantity"], fill["amount_quote"]) == ("SELL", Decimal("100.5"), 2, 201)
    assert (fill["fee"], fill["fee_asset"], fill["account_id"]) == (Decimal("0.2"), "USDT", "main")
    assert (fill["trade_id"], fill["position_ref"], fill["venue_order_id"]) == (enter.trade_id, enter.trade_id, "4711")
    assert (fill["event_time"], fill["correlation_id"]) == (rig.intents()[0]["intended_at"], enter.signal_id)

    out = Fill(
        venue="v", symbol="BTCUSDT", event_time=fill["event_time"] + timedelta(minutes=1), trade_id=leave.trade_id,
        position_ref=enter.trade_id, account_id="main", venue_order_id="4712", venue_trade_id="1", side=Side.BUY,
        price="90.5", quantity="2", amount_quote="181",
    )  # fmt: skip
    rig.emit(out, source="venue")
    positions = Run(rig.tape(*(rig.topic(one) for one in (Trade, TradeDispatch, Fill))), rig.codec)
    positions.deliver(positions.tape)
    (closed,) = positions.closes()
    assert (closed.trade_id, closed.pnl_quote) == (enter.trade_id, Decimal("19.8"))


class going_back:  # noqa: N801  # reads as what it does
    """A copy of a database (or an empty one), and how to put it in the database's place."""

    def __init__(self, dsn: str, *, is_gone: bool) -> None:
        self._name = str(conninfo_to_dict(dsn)["dbname"])
        self._dsn = dsn
        self._copy = f"{self._name}_copy"
        self._is_gone = is_gone

    def __enter__(self):  # type: ignore[no-untyped-def]
        self._run("CREATE DATABASE {copy} TEMPLATE {name}")
        if self._is_gone:
            with psycopg.connect(make_conninfo(self._dsn, dbname=self._copy), autocommit=True) as connection:
                connection.execute(
                    "TRUNCATE tradetape.sink_offsets, tradetape.dispatch_intents, tradetape.paper_orders"
                )
        return self._restore

    def _restore(self) -> None:
        self._run("DROP DATABASE {name} WITH (FORCE)")
        self._run("ALTER DATABASE {copy} RENAME TO {name}")

    def _run(self, statement: str) -> None:
        names = {"name": Identifier(self._name), "copy": Identifier(self._copy)}
        with psycopg.connect(make_conninfo(self._dsn, dbname="postgres"), autocommit=True) as connection:
            connection.execute(SQL(statement).format(**names))

    def __exit__(self, *_: object) -> None:
        """The test's own database goes with the test."""
