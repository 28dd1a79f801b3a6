"""`tradetape work …`: one worker process. This is the composition: settings in, processor and engine out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tradetape.console import dispatch_worker

if TYPE_CHECKING:
    from tradetape.producers.connection import KafkaSettings
    from tradetape.producers.settings import Settings
    from tradetape.schemas import Catalogue, Codec
    from tradetape.streams.dead_letters import KafkaDeadLetters
    from tradetape.streams.processor import Processor
    from tradetape.streams.progress import Progress
    from tradetape.streams.worker import Engine

_RAW = argparse.RawDescriptionHelpFormatter
HISTORY_BATCH_RECORDS = 5_000
SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
REGISTRY_TIMEOUT_S = 20.0
"""A worker has more time than a bot: a registry that has just started answers slowly, and all workers ask it at once."""
STALL_US = 5 * SECOND_US
"""A worker whose clock jumps by more than so much was stopped, or its machine was asleep."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the workers."""
    work = commands.add_parser(
        "work", help="run a worker", formatter_class=_RAW,
        description="Run a worker until TERM or Ctrl-C. Settings come from the environment; see the README's table.",
        epilog="examples:\n  tradetape work state --engine kafka\n  TRADETAPE_HTTP_PORT=8080 tradetape work history",
    )  # fmt: skip
    workers = work.add_subparsers(title="workers", metavar="WORKER", required=True)
    state = workers.add_parser(
        "state",
        help="keep current state in Redis",
        formatter_class=_RAW,
        epilog="example:\n  tradetape work state --engine faust",
    )
    _add_engine(state)
    state.add_argument("--group", default="tradetape-state", help="consumer group (default: %(default)s)")
    state.set_defaults(run=_state)
    history = workers.add_parser(
        "history", help="write history to PostgreSQL", formatter_class=_RAW, epilog="example:\n  tradetape work history"
    )
    history.add_argument("--group", default="tradetape-history", help="consumer group (default: %(default)s)")
    history.set_defaults(run=_history)
    approval = workers.add_parser(
        "approval", help="turn signals into trades, or refuse them", formatter_class=_RAW,
        description="Answer every signal of this run mode with a decision, and with a trade where it passes the policy.",
        epilog="example:\n  tradetape work approval --policy policy.toml",
    )  # fmt: skip
    _add_engine(approval)
    approval.add_argument("--policy", metavar="FILE", help="the policy file (default: TRADETAPE_POLICY_FILE)")
    approval.add_argument("--group", default="tradetape-approval", help="consumer group (default: %(default)s)")
    approval.set_defaults(run=_approval)
    positions = workers.add_parser(
        "positions", help="turn trades and fills into closed trades", formatter_class=_RAW,
        description="Fold trades, dispatches and fills into closed trades with their profit. It remembers nothing: what is "
        "on the tape is read again at each start.",
        epilog="example:\n  tradetape work positions",
    )  # fmt: skip
    _add_engine(positions, default="kafka")
    positions.add_argument("--group", default="tradetape-positions", help="consumer group (default: %(default)s)")
    positions.set_defaults(run=_positions)
    dispatch = workers.add_parser(
        "dispatch", help="hand approved trades to an executor", formatter_class=_RAW,
        description="Hand each order of this run mode's trades to an executor, once at most unless it tells repeats.",
        epilog="examples:\n  tradetape work dispatch --executor paper\n"
        "  tradetape work dispatch --executor webhook --webhook-url https://orders.example/new --webhook-idempotent",
    )  # fmt: skip
    dispatch_worker.add_arguments(dispatch)
    dispatch.set_defaults(run=_dispatch)
    staleness = workers.add_parser(
        "staleness", help="raise the alarm when a series falls silent", formatter_class=_RAW,
        description="Emit a market condition `stale` when no bar of a series has come by its close + timeframe + grace, "
        "and `fresh` when it is back.",
        epilog="example:\n  tradetape work staleness --grace-s 30",
    )  # fmt: skip
    staleness.add_argument("--grace-s", type=float, default=10.0, help="how late a bar may be (default: %(default)s)")
    staleness.add_argument(
        "--lookback-h", type=float, default=26.0,
        help="how much is read again at the start: longer than the longest timeframe (default: %(default)s)",
    )  # fmt: skip
    staleness.add_argument("--group", default="tradetape-staleness", help="consumer group (default: %(default)s)")
    staleness.set_defaults(run=_staleness)


def _add_engine(worker: argparse.ArgumentParser, *, default: str = "faust") -> None:
    worker.add_argument(
        "--engine",
        choices=("faust", "kafka"),
        default=default,
        help="what feeds it (default: %(default)s; kafka above about 3,000 events/s)",
    )


def _state(args: argparse.Namespace) -> int:
    from tradetape.streams.groups import forget_offsets
    from tradetape.streams.patience import awaited
    from tradetape.streams.processors.current_state import CurrentState
    from tradetape.streams.state.store import StateStore
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed("REDIS_URL")
    progress, dead_letters = _parts("state", kafka, codec.catalogue)
    store = StateStore.from_url(settings.required("REDIS_URL"), prefix=settings.redis_prefix)
    # A Redis that is new or was flushed is filled again from the tape, unless other workers of the group are at work.
    is_filled = awaited(lambda: store.is_filled() or forget_offsets(kafka, args.group))
    processor = CurrentState(
        catalogue=codec.catalogue, codec=codec, store=store, dead_letters=dead_letters, may_mark=is_filled
    )
    engine = _engine(args, processor, kafka, dead_letters, progress)
    close_page = _page(settings, "state", progress, dead_letters, {"state_writes": lambda: store.results})

    def close() -> None:
        close_page()
        store.close()

    return run_worker(engine, name="state", close=close)


def _history(args: argparse.Namespace) -> int:
    from tradetape.sinks.history.sink import HistorySink
    from tradetape.streams.engines.kafka import KafkaEngine, Limits
    from tradetape.streams.groups import TopicIds
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed("DATABASE_URL")
    progress, dead_letters = _parts("history", kafka, codec.catalogue)
    sink = HistorySink(
        dsn=settings.required("DATABASE_URL"),
        catalogue=codec.catalogue,
        codec=codec,
        dead_letters=dead_letters,
        topic_uuid=TopicIds(kafka),
    )
    limits = Limits(max_batch_records=HISTORY_BATCH_RECORDS)
    engine = KafkaEngine(
        processor=sink, kafka=kafka, group=args.group, dead_letters=dead_letters, progress=progress, limits=limits
    )
    close_page = _page(settings, "history", progress, dead_letters, {"history_rows": lambda: sink.counts})

    def close() -> None:
        close_page()
        sink.close()

    return run_worker(engine, name="history", close=close)


def _approval(args: argparse.Namespace) -> int:
    from tradetape.streams.approval import policy_file
    from tradetape.streams.approval.memory import Memory
    from tradetape.streams.approval.tape_memory import TapeMemory
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.processors.approval import Approval
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed("REDIS_URL")
    named = args.policy or settings.policy_file
    policy = policy_file.load(named) if named else None
    progress, dead_letters = _parts("approval", kafka, codec.catalogue)
    memory = Memory.from_url(settings.required("REDIS_URL"), prefix=settings.redis_prefix)
    tape = TapeMemory(kafka=kafka, codec=codec, run_mode=settings.mode())
    effects = KafkaEffects(worker="approval", codec=codec, kafka=kafka)
    processor = Approval(
        codec=codec,
        memory=memory,
        tape=tape,
        effects=effects,
        dead_letters=dead_letters,
        run_mode=settings.mode(),
        policy=policy,
    )
    engine = _engine(args, processor, kafka, dead_letters, progress)
    counters = {"approval_records": lambda: processor.results, "approval_refusals": lambda: processor.refusals}
    close_page = _page(settings, "approval", progress, dead_letters, counters)

    def close() -> None:
        close_page()
        effects.close()
        tape.close()
        memory.close()

    return run_worker(engine, name="approval", close=close)


def _positions(args: argparse.Namespace) -> int:
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.positions.past import Past
    from tradetape.streams.processors.positions import Positions
    from tradetape.streams.topic_reader import TopicReader
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed()
    progress, dead_letters = _parts("positions", kafka, codec.catalogue)
    reader, effects = TopicReader(kafka), KafkaEffects(worker="positions", codec=codec, kafka=kafka)
    processor = Positions(
        codec=codec,
        past=Past(reader=reader, codec=codec),
        effects=effects,
        dead_letters=dead_letters,
        run_mode=settings.mode(),
    )
    engine = _engine(args, processor, kafka, dead_letters, progress)
    close_page = _page(settings, "positions", progress, dead_letters, {"positions": lambda: processor.counts})

    def close() -> None:
        close_page()
        effects.close()
        reader.close()

    return run_worker(engine, name="positions", close=close)


def _staleness(args: argparse.Namespace) -> int:
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.engines.kafka import KafkaEngine
    from tradetape.streams.processors.staleness import Staleness
    from tradetape.streams.processors.staleness_past import KafkaPast
    from tradetape.streams.topic_reader import TopicReader
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed()
    progress, dead_letters = _parts("staleness", kafka, codec.catalogue)
    effects, reader = KafkaEffects(worker="staleness", codec=codec, kafka=kafka), TopicReader(kafka)
    conditions_topic = codec.catalogue.topic_name(codec.catalogue.by_record("MarketCondition"))
    processor = Staleness(
        codec=codec,
        effects=effects,
        dead_letters=dead_letters,
        past=KafkaPast(reader, conditions_topic=conditions_topic, lookback_us=int(args.lookback_h * HOUR_US)),
        is_behind=lambda partition: progress.lag.get(partition, 0) > 0,
        grace_us=int(args.grace_s * SECOND_US),
        stall_us=STALL_US,
    )
    engine = KafkaEngine(
        processor=processor, kafka=kafka, group=args.group, dead_letters=dead_letters, progress=progress
    )
    close_page = _page(settings, "staleness", progress, dead_letters, {"staleness_alarms": lambda: processor.counts})

    def close() -> None:
        close_page()
        effects.close()
        reader.close()

    return run_worker(engine, name="staleness", close=close)


def _dispatch(args: argparse.Namespace) -> int:
    from tradetape.streams.engines.kafka import KafkaEngine
    from tradetape.streams.worker import run_worker

    settings, kafka, codec = _composed("DATABASE_URL")
    progress, dead_letters = _parts("dispatch", kafka, codec.catalogue)
    sink = dispatch_worker.sink_of(args, settings, kafka, codec, dead_letters, progress)
    engine = KafkaEngine(processor=sink, kafka=kafka, group=args.group, dead_letters=dead_letters, progress=progress)
    gauges = {
        "dispatch_in_doubt": lambda: sink.in_doubt,
        "dispatch_in_flight": sink.lanes.in_flight,
        "dispatch_lanes_held_back": lambda: sink.lanes.reached,
    }
    close_page = _page(settings, "dispatch", progress, dead_letters, {"dispatches": lambda: sink.counts}, gauges)

    def close() -> None:
        close_page()
        sink.close()

    return run_worker(engine, name="dispatch", close=close)


def _engine(
    args: argparse.Namespace,
    processor: Processor,
    kafka: KafkaSettings,
    dead_letters: KafkaDeadLetters,
    progress: Progress,
) -> Engine:
    """The engine that the command line names."""
    if args.engine == "faust":
        from tradetape.streams.engines.faust import FaustEngine

        return FaustEngine(
            processor=processor, kafka=kafka, group=args.group, dead_letters=dead_letters, progress=progress
        )
    from tradetape.streams.engines.kafka import KafkaEngine

    return KafkaEngine(processor=processor, kafka=kafka, group=args.group, dead_letters=dead_letters, progress=progress)


def _composed(*services: str) -> tuple[Settings, KafkaSettings, Codec]:
    """What every worker begins with, once Kafka and the services of these variables let it in. Raises Denied."""
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.first_contact import let_in
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings
    from tradetape.streams import logs
    from tradetape.streams.patience import awaited

    settings = effective_settings()
    logs.configure(level=settings.log_level, style=settings.log_format)
    kafka = KafkaSettings.of(settings)
    let_in(settings, services)
    return settings, kafka, awaited(lambda: codec_of(settings, answer_timeout_s=REGISTRY_TIMEOUT_S))


def _parts(name: str, kafka: KafkaSettings, catalogue: Catalogue) -> tuple[Progress, KafkaDeadLetters]:
    from tradetape.streams.dead_letters import KafkaDeadLetters
    from tradetape.streams.progress import Progress

    return Progress(), KafkaDeadLetters(worker=name, topic=catalogue.dead_letters_topic, kafka=kafka)


def _page(
    settings: Settings,
    name: str,
    progress: Progress,
    dead_letters: KafkaDeadLetters,
    results: Mapping[str, Callable[[], Mapping[str, int]]],
    gauges: Mapping[str, Callable[[], float]] | None = None,
) -> Callable[[], None]:
    """Start the health page, where a port is set; how to close it."""
    from tradetape.streams.health import WorkerMetrics, start_health_server

    metrics = WorkerMetrics(name, progress, dead_letters=lambda: dead_letters.refused, results=results, gauges=gauges)
    server = start_health_server(host=settings.http_host, port=settings.http_port, progress=progress, metrics=metrics)
    return server.close if server else lambda: None
