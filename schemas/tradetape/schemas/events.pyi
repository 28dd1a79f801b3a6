"""Types of the event classes. Made from avro/*.avsc by `tradetape schemas stubs`; do not edit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

_Number = Decimal | int | str | float
"""How a price or quantity may be given; a float is taken by its shortest text."""

class RunMode(StrEnum):
    """Whether real money stood behind the event."""

    UNKNOWN = "UNKNOWN"
    LIVE = "LIVE"
    PAPER = "PAPER"
    BACKTEST = "BACKTEST"
    REPLAY = "REPLAY"

class Action(StrEnum):
    """What a signal asks for."""

    UNKNOWN = "UNKNOWN"
    ENTER = "ENTER"
    ADD = "ADD"
    REDUCE = "REDUCE"
    EXIT = "EXIT"
    CANCEL = "CANCEL"

class Direction(StrEnum):
    """Direction of the position, never of the order."""

    UNKNOWN = "UNKNOWN"
    LONG = "LONG"
    SHORT = "SHORT"
    FLAT = "FLAT"

class OrderType(StrEnum):
    """How the order is to be placed."""

    UNKNOWN = "UNKNOWN"
    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"

class DecisionOutcome(StrEnum):
    """How a stage decided."""

    UNKNOWN = "UNKNOWN"
    PASSED = "PASSED"
    REJECTED = "REJECTED"
    SKIPPED = "SKIPPED"
    ERROR = "ERROR"

class DispatchOutcome(StrEnum):
    """What became of an attempt."""

    UNKNOWN = "UNKNOWN"
    INTENDED = "INTENDED"
    SENT = "SENT"
    ACKED = "ACKED"
    REJECTED = "REJECTED"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"
    SKIPPED_DUPLICATE = "SKIPPED_DUPLICATE"
    IN_DOUBT = "IN_DOUBT"

class Side(StrEnum):
    """Side of an order."""

    UNKNOWN = "UNKNOWN"
    BUY = "BUY"
    SELL = "SELL"

class Liquidity(StrEnum):
    """Whether the order rested in the book."""

    UNKNOWN = "UNKNOWN"
    MAKER = "MAKER"
    TAKER = "TAKER"

class CloseStatus(StrEnum):
    """How a position ended."""

    UNKNOWN = "UNKNOWN"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    EXPIRED = "EXPIRED"
    FORCED = "FORCED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"

class TakeProfit(msgspec.Struct, frozen=True, kw_only=True):
    """One price at which a part of the position is closed."""

    price: Decimal
    """Price in quote currency."""

    close_ratio: float
    """Fraction of the position to close there, 0.5 is half."""

    def __init__(
        self,
        *,
        price: _Number,
        close_ratio: float,
    ) -> None: ...

class TrailingStop(msgspec.Struct, frozen=True, kw_only=True):
    """A stop that follows the price."""

    activation_price: Decimal
    """Price in quote currency from which the stop follows."""

    delta_ratio: float
    """Distance to the best price seen, as a fraction of it."""

    def __init__(
        self,
        *,
        activation_price: _Number,
        delta_ratio: float,
    ) -> None: ...

class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One planned order of a position that is built in steps (dollar-cost averaging)."""

    leg_index: int
    """Number of the leg, from 0."""

    trigger_price: Decimal | None
    """Price in quote currency at which the leg is placed; null for at once."""

    deviation_ratio: float | None
    """Distance of the trigger to the first entry as a fraction, negative below it."""

    amount_quote: Decimal | None
    """Size in quote currency; null when unknown."""

    def __init__(
        self,
        *,
        leg_index: int,
        trigger_price: _Number | None = ...,
        deviation_ratio: float | None = ...,
        amount_quote: _Number | None = ...,
    ) -> None: ...

class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event has. The producer stamps all but event_time, venue, symbol and tags."""

    event_id: str
    """UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a
    crash has the same id."""

    event_time: datetime
    """When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists."""

    emitted_at: datetime
    """The producer's clock when the event was emitted, UTC. May run behind event_time."""

    producer: str
    """Name of the source that emitted the event, such as rsi-bot."""

    producer_run_id: str
    """UUID of the producer's run, new at each start."""

    producer_seq: int
    """Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate."""

    run_mode: RunMode
    """LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause's."""

    correlation_id: str
    """The chain that the event belongs to: the signal's event_id for all that follows a signal."""

    causation_id: str | None
    """The event_id of the direct parent; null where there is none."""

    venue: str
    """Where it is traded, lower case, such as binance or binance-usdm."""

    symbol: str
    """The venue's own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole
    venue."""

    tags: dict[str, str]
    """Free labels of the producer."""

class Candle(Event, frozen=True, kw_only=True):
    """One bar of a market: finished, or still in progress."""

    timeframe: str
    """Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo."""

    open_time: datetime
    """Start of the bar, inclusive, UTC."""

    close_time: datetime
    """End of the bar, exclusive, UTC: open_time + timeframe."""

    open: Decimal
    """First price in quote currency."""

    high: Decimal
    """Highest price in quote currency."""

    low: Decimal
    """Lowest price in quote currency."""

    close: Decimal
    """Last price in quote currency."""

    volume: Decimal
    """Traded quantity in base currency."""

    quote_volume: Decimal | None
    """Traded amount in quote currency; null when unknown."""

    taker_buy_volume: Decimal | None
    """Quantity bought by takers, in base currency; null when unknown."""

    trade_count: int | None
    """Number of trades in the bar; null when unknown."""

    is_final: bool
    """True when the bar is finished and will not change."""

    source: str | None
    """Where the bar was taken from; null when unknown."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        timeframe: str,
        open_time: datetime,
        close_time: datetime,
        open: _Number,
        high: _Number,
        low: _Number,
        close: _Number,
        volume: _Number,
        quote_volume: _Number | None = ...,
        taker_buy_volume: _Number | None = ...,
        trade_count: int | None = ...,
        is_final: bool,
        source: str | None = ...,
    ) -> None: ...

class IndicatorUpdate(Event, frozen=True, kw_only=True):
    """The indicators of one bar, computed together."""

    timeframe: str
    """Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo."""

    indicator_set: str
    """Which set of indicators it is; two sources that compute different ones for one symbol use two sets."""

    bar_open_time: datetime | None
    """Start of the bar, inclusive, UTC; null when unknown."""

    bar_close_time: datetime
    """End of the bar, exclusive, UTC."""

    is_final: bool
    """True when the bar is finished, so that the values will not change."""

    bars_used: int | None
    """Number of bars the values rest on (warm-up); null when unknown."""

    close: Decimal | None
    """Close of the bar in quote currency; null when unknown."""

    values: dict[str, float]
    """Finite values by canonical name (ema_50, rsi_14), in the indicator's own unit."""

    invalid: tuple[str, ...]
    """Names of indicators that have no value yet or were not a number."""

    candle_event_id: str | None
    """The event_id of the candle they were computed from; null when unknown."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        timeframe: str,
        indicator_set: str = ...,
        bar_open_time: datetime | None = ...,
        bar_close_time: datetime,
        is_final: bool = ...,
        bars_used: int | None = ...,
        close: _Number | None = ...,
        values: Mapping[str, float | None],
        invalid: Sequence[str] = ...,
        candle_event_id: str | None = ...,
    ) -> None: ...

class MarketCondition(Event, frozen=True, kw_only=True):
    """The state of a market as a whole or of one symbol, by name."""

    scope: str
    """What the condition speaks of, such as btc or market."""

    condition: str
    """Name of the condition, such as bullish."""

    score: float | None
    """Strength on the source's own scale; null when unknown."""

    values: dict[str, float]
    """Finite values behind the condition by name."""

    valid_until: datetime | None
    """Until when it may be acted on, UTC; null for no limit of its own."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        scope: str,
        condition: str,
        score: float | None = ...,
        values: Mapping[str, float | None] = ...,
        valid_until: datetime | None = ...,
    ) -> None: ...

class TradeSignal(Event, frozen=True, kw_only=True):
    """A strategy's wish to trade, before anything has judged it."""

    signal_id: str
    """The event_id of this event, under the name by which later records refer to it."""

    strategy_id: str
    """Name of the strategy."""

    strategy_version: str | None
    """Version of the strategy; null when unknown."""

    timeframe: str
    """Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo."""

    bar_close_time: datetime | None
    """End of the bar that triggered it, exclusive, UTC; null when no bar did."""

    action: Action
    """ENTER, ADD, REDUCE, EXIT or CANCEL."""

    direction: Direction
    """LONG, SHORT or FLAT: of the position."""

    confidence: float | None
    """Probability the strategy gives it, 0 to 1; null when unknown."""

    score: float | None
    """Strength on the strategy's own scale; null when unknown."""

    magnitude_ratio: float | None
    """Expected move as a fraction of the price, 0.01 is 1 %; null when unknown."""

    weight: float | None
    """Wished share of the portfolio as a fraction; null when unknown."""

    score_components: dict[str, float]
    """Parts of the score by name."""

    multiplier: float | None
    """Factor that the market's state put on the score; null when none did."""

    reference_price: Decimal | None
    """Price at the decision in quote currency; null when unknown, never 0."""

    order_type: OrderType
    """MARKET, LIMIT, STOP or STOP_LIMIT."""

    entry_price: Decimal | None
    """Limit or trigger price in quote currency; null for a market order."""

    stop_loss_price: Decimal | None
    """Price in quote currency at which the position is given up; null for none."""

    take_profits: tuple[TakeProfit, ...]
    """Prices at which parts of the position are closed."""

    trailing_stop: TrailingStop | None
    """A stop that follows the price; null for none."""

    legs: tuple[Leg, ...]
    """Planned further orders of the position."""

    quantity: Decimal | None
    """Size in base currency; null when left to the sizing."""

    amount_quote: Decimal | None
    """Size in quote currency; null when left to the sizing."""

    leverage: float | None
    """Factor of leverage, 1 is none; null when left open."""

    valid_until: datetime | None
    """Until when it may be acted on, UTC; null for no limit of its own."""

    position_ref: str | None
    """The trade_id of the position that ADD, REDUCE and EXIT speak of; null for ENTER."""

    input_event_ids: tuple[str, ...]
    """The event_ids of the indicator updates and candles it was computed from."""

    indicators: dict[str, float]
    """Finite indicator values at the decision by canonical name."""

    reasons: tuple[str, ...]
    """Why, in words."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        signal_id: str | None = ...,
        strategy_id: str,
        strategy_version: str | None = ...,
        timeframe: str,
        bar_close_time: datetime | None = ...,
        action: Action,
        direction: Direction,
        confidence: float | None = ...,
        score: float | None = ...,
        magnitude_ratio: float | None = ...,
        weight: float | None = ...,
        score_components: Mapping[str, float | None] = ...,
        multiplier: float | None = ...,
        reference_price: _Number | None = ...,
        order_type: OrderType = ...,
        entry_price: _Number | None = ...,
        stop_loss_price: _Number | None = ...,
        take_profits: Sequence[TakeProfit] = ...,
        trailing_stop: TrailingStop | None = ...,
        legs: Sequence[Leg] = ...,
        quantity: _Number | None = ...,
        amount_quote: _Number | None = ...,
        leverage: float | None = ...,
        valid_until: datetime | None = ...,
        position_ref: str | None = ...,
        input_event_ids: Sequence[str] = ...,
        indicators: Mapping[str, float | None] = ...,
        reasons: Sequence[str] = ...,
    ) -> None: ...

class SignalDecision(Event, frozen=True, kw_only=True):
    """What one stage decided about a signal, and the facts it rested on."""

    signal_id: str
    """The signal that was judged."""

    stage: str
    """Which stage judged it, such as tech_filter or approval."""

    outcome: DecisionOutcome
    """PASSED, REJECTED, SKIPPED or ERROR."""

    score: float | None
    """The score that was judged, on the stage's own scale; null when there was none."""

    threshold: float | None
    """What the score was compared with; null when there was none."""

    components: dict[str, float]
    """Parts of the score by name."""

    facts: dict[str, str]
    """What the decision rested on, by name, as text; enough to take it again."""

    policy_version: str | None
    """Version of the policy that decided; null when there is none."""

    reasons: tuple[str, ...]
    """Why, in words; a refusal names its rule."""

    trade_id: str | None
    """The trade that a passed signal became; null for none."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        signal_id: str,
        stage: str,
        outcome: DecisionOutcome,
        score: float | None = ...,
        threshold: float | None = ...,
        components: Mapping[str, float | None] = ...,
        facts: Mapping[str, str] = ...,
        policy_version: str | None = ...,
        reasons: Sequence[str] = ...,
        trade_id: str | None = ...,
    ) -> None: ...

class Trade(Event, frozen=True, kw_only=True):
    """An approved trade, ready to be dispatched."""

    trade_id: str
    """The event_id of this event, under the name by which later records refer to it."""

    signal_id: str
    """The signal it came from."""

    strategy_id: str
    """Name of the strategy."""

    account_id: str | None
    """The account it is for; null for the only one."""

    action: Action
    """ENTER, ADD, REDUCE, EXIT or CANCEL."""

    direction: Direction
    """LONG, SHORT or FLAT: of the position."""

    order_type: OrderType
    """MARKET, LIMIT, STOP or STOP_LIMIT."""

    planned_entry_price: Decimal | None
    """Expected, limit or trigger price in quote currency; null when unknown."""

    quantity: Decimal | None
    """Size in base currency; null when given in quote currency."""

    amount_quote: Decimal | None
    """Size in quote currency; null when given in base currency."""

    leverage: float | None
    """Factor of leverage, 1 is none; null when left open."""

    stop_loss_price: Decimal | None
    """Price in quote currency at which the position is given up; null for none."""

    take_profits: tuple[TakeProfit, ...]
    """Prices at which parts of the position are closed."""

    trailing_stop: TrailingStop | None
    """A stop that follows the price; null for none."""

    legs: tuple[Leg, ...]
    """Planned further orders of the position, after sizing."""

    position_ref: str | None
    """The trade_id of the position that ADD, REDUCE and EXIT speak of; null for ENTER."""

    approved_at: datetime
    """When it was approved, UTC."""

    approved_by: str
    """Who or what approved it."""

    valid_until: datetime | None
    """Until when it may be dispatched, UTC; null for no limit."""

    idempotency_key: str
    """The key under which an executor must take it once at most."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        trade_id: str | None = ...,
        signal_id: str,
        strategy_id: str,
        account_id: str | None = ...,
        action: Action,
        direction: Direction,
        order_type: OrderType = ...,
        planned_entry_price: _Number | None = ...,
        quantity: _Number | None = ...,
        amount_quote: _Number | None = ...,
        leverage: float | None = ...,
        stop_loss_price: _Number | None = ...,
        take_profits: Sequence[TakeProfit] = ...,
        trailing_stop: TrailingStop | None = ...,
        legs: Sequence[Leg] = ...,
        position_ref: str | None = ...,
        approved_at: datetime,
        approved_by: str,
        valid_until: datetime | None = ...,
        idempotency_key: str,
    ) -> None: ...

class TradeDispatch(Event, frozen=True, kw_only=True):
    """One step of handing a trade to an executor: the intent, then what became of it."""

    trade_id: str
    """The trade that is dispatched."""

    leg_index: int
    """Which leg of it, from 0."""

    attempt: int
    """Which attempt, from 1."""

    outcome: DispatchOutcome
    """INTENDED before the call; what became of it after."""

    executor: str
    """Name of the executor."""

    external_id: str | None
    """The id that the far side gave; null when unknown."""

    error: str | None
    """What went wrong, in words; null when nothing did."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        trade_id: str,
        leg_index: int,
        attempt: int,
        outcome: DispatchOutcome,
        executor: str,
        external_id: str | None = ...,
        error: str | None = ...,
    ) -> None: ...

class Fill(Event, frozen=True, kw_only=True):
    """An execution at the venue."""

    fill_id: str
    """The event_id of this event, under the name by which later records refer to it."""

    trade_id: str | None
    """The trade it belongs to; null when unknown."""

    leg_index: int | None
    """Which leg of it, from 0; null when unknown."""

    account_id: str | None
    """The account it was made in; null for the only one."""

    client_order_id: str | None
    """The order's id as the client gave it; null when unknown."""

    venue_order_id: str
    """The order's id at the venue."""

    venue_trade_id: str
    """The execution's id at the venue."""

    strategy_id: str | None
    """Name of the strategy; null when unknown."""

    position_ref: str | None
    """The trade_id of the position it belongs to; null when unknown."""

    side: Side
    """BUY or SELL."""

    price: Decimal
    """Price in quote currency."""

    quantity: Decimal
    """Quantity in base currency."""

    amount_quote: Decimal
    """Amount in quote currency: price times quantity."""

    fee: Decimal | None
    """Fee in fee_asset, positive when paid; null when unknown."""

    fee_asset: str | None
    """The asset the fee was paid in; null when unknown."""

    liquidity: Liquidity
    """MAKER, TAKER or UNKNOWN."""

    is_reconciliation: bool
    """True when it was found by comparing with the venue, not reported by it as it happened."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        fill_id: str | None = ...,
        trade_id: str | None = ...,
        leg_index: int | None = ...,
        account_id: str | None = ...,
        client_order_id: str | None = ...,
        venue_order_id: str,
        venue_trade_id: str,
        strategy_id: str | None = ...,
        position_ref: str | None = ...,
        side: Side,
        price: _Number,
        quantity: _Number,
        amount_quote: _Number,
        fee: _Number | None = ...,
        fee_asset: str | None = ...,
        liquidity: Liquidity = ...,
        is_reconciliation: bool = ...,
    ) -> None: ...

class TradeClosed(Event, frozen=True, kw_only=True):
    """A position that has come to its end, with its result."""

    trade_id: str
    """The trade that opened the position."""

    signal_id: str | None
    """The signal it came from; null when unknown."""

    strategy_id: str
    """Name of the strategy."""

    direction: Direction
    """LONG or SHORT."""

    leverage: float | None
    """Factor of leverage, 1 is none; null when unknown."""

    opened_at: datetime | None
    """Time of the first fill, UTC; null when nothing was filled."""

    closed_at: datetime
    """Time of the closing fill, or of the outcome that ended it, UTC."""

    entry_price_avg: Decimal | None
    """Average entry price in quote currency; null when nothing was filled."""

    exit_price_avg: Decimal | None
    """Average exit price in quote currency; null when nothing was closed."""

    quantity: Decimal
    """Largest quantity held, in base currency."""

    entry_cost_quote: Decimal
    """What the entries cost in quote currency, before fees."""

    exit_value_quote: Decimal
    """What the exits brought in quote currency, before fees."""

    fees_quote: Decimal
    """Fees in quote currency, positive when paid."""

    pnl_quote: Decimal
    """Profit in quote currency after fees, negative for a loss."""

    pnl_ratio: float | None
    """pnl_quote as a fraction of entry_cost_quote; null when nothing was filled."""

    min_price: Decimal | None
    """Lowest price seen while it was open, in quote currency; null when candles are missing."""

    max_price: Decimal | None
    """Highest price seen while it was open, in quote currency; null when candles are missing."""

    legs_filled: int
    """Number of legs that were filled."""

    legs_max: int
    """Number of legs that were planned."""

    fill_ids: tuple[str, ...]
    """The fills it is made of."""

    close_status: CloseStatus
    """How it ended."""

    exit_reason: str | None
    """Why, in the strategy's own words; null when unknown."""

    def __init__(
        self,
        *,
        event_id: str | None = ...,
        event_time: datetime | None = ...,
        emitted_at: datetime | None = ...,
        producer: str | None = ...,
        producer_run_id: str | None = ...,
        producer_seq: int | None = ...,
        run_mode: RunMode | None = ...,
        correlation_id: str | None = ...,
        causation_id: str | None = ...,
        venue: str,
        symbol: str,
        tags: Mapping[str, str] = ...,
        trade_id: str,
        signal_id: str | None = ...,
        strategy_id: str,
        direction: Direction,
        leverage: float | None = ...,
        opened_at: datetime | None = ...,
        closed_at: datetime,
        entry_price_avg: _Number | None = ...,
        exit_price_avg: _Number | None = ...,
        quantity: _Number,
        entry_cost_quote: _Number,
        exit_value_quote: _Number,
        fees_quote: _Number,
        pnl_quote: _Number,
        pnl_ratio: float | None = ...,
        min_price: _Number | None = ...,
        max_price: _Number | None = ...,
        legs_filled: int,
        legs_max: int,
        fill_ids: Sequence[str] = ...,
        close_status: CloseStatus,
        exit_reason: str | None = ...,
    ) -> None: ...
