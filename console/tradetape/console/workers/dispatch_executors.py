"""The executors that `tradetape work dispatch` offers: their options, and the sink they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from tradetape.console.errors import UsageError

if TYPE_CHECKING:
    from tradetape.producers.connection import KafkaSettings
    from tradetape.producers.settings import Settings
    from tradetape.schemas import Codec, Event, RunMode
    from tradetape.sinks.dispatch.executor import Executor, Order
    from tradetape.sinks.dispatch.intents import Intents
    from tradetape.sinks.dispatch.market_time import MarketTime
    from tradetape.sinks.dispatch.sink import DispatchSink
    from tradetape.streams.dead_letters import KafkaDeadLetters
    from tradetape.streams.progress import Progress

PAPER, WEBHOOK = "paper", "webhook"
SECONDS_TO_DRAIN = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who carries orders out, and how."""
    parser.add_argument(
        "--executor", required=True, metavar="EXECUTOR",
        help="who carries orders out: paper, webhook, or package.module:name of your own",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=_count, default=16, metavar="N",
        help="orders on their way at once, one of each symbol (default: %(default)s)",
    )  # fmt: skip
    webhook = parser.add_argument_group(
        "webhook", "signed with TRADETAPE_WEBHOOK_SECRET, or what TRADETAPE_WEBHOOK_SECRET_FILE holds, where one is set"
    )
    webhook.add_argument("--webhook-url", metavar="URL", help="where each order is posted as JSON")
    webhook.add_argument(
        "--webhook-idempotent", action="store_true",
        help="the far side takes an Idempotency-Key once: only then is an order without an answer sent again",
    )  # fmt: skip
    webhook.add_argument(
        "--webhook-lookup-url", metavar="URL", help="where it can be asked for an order, ?idempotency_key=…"
    )
    webhook.add_argument(
        "--webhook-timeout-s", type=_seconds, default=5.0, metavar="S", help="for an answer (default: %(default)s)"
    )
    paper = parser.add_argument_group("paper")
    paper.add_argument(
        "--paper-fee-ratio", type=_ratio, default=Decimal("0.001"), metavar="R",
        help="fee as a fraction of the amount (default: %(default)s)",
    )  # fmt: skip
    paper.add_argument(
        "--paper-volume-ratio", type=_ratio, default=Decimal(1), metavar="R",
        help="how much of a candle's volume an order may take; the rest waits for the next (default: %(default)s)",
    )  # fmt: skip


def sink_of(
    args: argparse.Namespace,
    settings: Settings,
    kafka: KafkaSettings,
    codec: Codec,
    dead_letters: KafkaDeadLetters,
    progress: Progress,
) -> DispatchSink:
    """The sink that the options describe. Raises UsageError, SettingsError, ExecutorUnusable."""
    from tradetape.schemas import RunMode, Trade
    from tradetape.schemas.stamping import wall_clock_us
    from tradetape.sinks.dispatch.dispatcher import Dispatcher
    from tradetape.sinks.dispatch.intents import Intents
    from tradetape.sinks.dispatch.market_time import MarketTime
    from tradetape.sinks.dispatch.sink import NAME, DispatchSink
    from tradetape.sinks.dispatch.telling import Telling
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.groups import TopicIds
    from tradetape.streams.topic_reader import TopicReader

    mode = settings.mode()
    if mode not in (RunMode.LIVE, RunMode.PAPER):
        raise UsageError(f"trades of a {mode.value} are never dispatched; TRADETAPE_RUN_MODE has to be LIVE or PAPER")
    if mode is RunMode.LIVE and args.executor == PAPER:
        raise UsageError(
            "LIVE trades are not filled on paper: set TRADETAPE_RUN_MODE=PAPER, or name another --executor"
        )
    reader = TopicReader(kafka)
    intents = Intents(
        dsn=settings.required("DATABASE_URL"), sink=NAME, topic_uuid=TopicIds(kafka),
        trades_topic=codec.catalogue.topic_name(codec.catalogue.by_class(Trade)),
    )  # fmt: skip
    telling = Telling(KafkaEffects(worker=NAME, codec=codec, kafka=kafka))
    needs_candles = mode is not RunMode.LIVE or args.executor == PAPER
    market = MarketTime(kafka=kafka, codec=codec, reader=reader, now_us=wall_clock_us) if needs_candles else None
    executor = _executor(args, settings, intents=intents, tell=telling.tell, market=market, codec=codec)
    dispatcher = Dispatcher(
        intents=intents, tell=telling.tell, executor=executor, clock=_clock(mode, market), now_us=wall_clock_us
    )
    return DispatchSink(
        codec=codec, intents=intents, dispatcher=dispatcher, executor=executor, reader=reader, telling=telling,
        dead_letters=dead_letters, run_mode=mode, market=market, progress=progress, parallel=args.parallel,
    )  # fmt: skip


def _executor(
    args: argparse.Namespace,
    settings: Settings,
    *,
    intents: Intents,
    tell: Callable[[Event], None],
    market: MarketTime | None,
    codec: Codec,
) -> Executor:
    if args.executor == PAPER:
        from tradetape.sinks.dispatch.paper import PaperExecutor
        from tradetape.sinks.dispatch.paper_fills import PaperTerms

        assert market is not None
        terms = PaperTerms(fee_ratio=args.paper_fee_ratio, volume_ratio=args.paper_volume_ratio)
        return PaperExecutor(intents=intents, tell=tell, market=market, codec=codec, terms=terms)
    if args.executor == WEBHOOK:
        return _webhook(args, settings)
    from tradetape.sinks.dispatch.executor import load

    return load(args.executor)


def _webhook(args: argparse.Namespace, settings: Settings) -> Executor:
    from tradetape.sinks.dispatch.webhook import AskableWebhook, WebhookExecutor

    if not args.webhook_url:
        raise UsageError("--executor webhook needs --webhook-url")
    secret = settings.secret("webhook_secret")
    given = {
        "url": args.webhook_url, "is_idempotent": args.webhook_idempotent, "timeout_s": args.webhook_timeout_s,
        "secret": secret.encode() if secret else None,
    }  # fmt: skip
    if args.webhook_lookup_url:
        return AskableWebhook(lookup_url=args.webhook_lookup_url, **given)
    return WebhookExecutor(**given)


def _clock(mode: RunMode, market: MarketTime | None) -> Callable[[Order], int | None]:
    """By what time orders expire: money's by the wall clock, all others by the time of their market."""
    from tradetape.schemas import RunMode
    from tradetape.schemas.stamping import wall_clock_us

    if mode is RunMode.LIVE or market is None:
        return lambda _: wall_clock_us()
    return lambda order: market.time_us(order.trade.venue, order.trade.symbol)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 256")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= SECONDS_TO_DRAIN:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds up to {SECONDS_TO_DRAIN:.0f}: a worker drains in ten"
        )
    return value


def _ratio(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1")
    return value
