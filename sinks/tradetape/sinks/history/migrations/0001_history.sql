-- The history: one table for each record, an event in it exactly once, partitioned by the month of its event_time.
--
-- Columns are named as the fields of the records (see their .avsc for units) and followed by where on the tape the event lies.
-- A new month is made by tradetape.ensure_month, so that whoever writes rows needs no right to change tables.

CREATE SCHEMA IF NOT EXISTS tradetape;
COMMENT ON SCHEMA tradetape IS 'Durable history of a trading system, written from its tape, each event exactly once.';

CREATE TABLE tradetape.candles (
    event_id         uuid NOT NULL,
    event_time       timestamptz NOT NULL,
    emitted_at       timestamptz NOT NULL,
    producer         text NOT NULL,
    producer_run_id  text NOT NULL,
    producer_seq     bigint NOT NULL,
    run_mode         text NOT NULL,
    correlation_id   text NOT NULL,
    causation_id     text,
    venue            text NOT NULL,
    symbol           text NOT NULL,
    tags             jsonb NOT NULL,
    timeframe        text NOT NULL,
    open_time        timestamptz NOT NULL,
    close_time       timestamptz NOT NULL,
    "open"           numeric(38,18) NOT NULL,
    high             numeric(38,18) NOT NULL,
    low              numeric(38,18) NOT NULL,
    "close"          numeric(38,18) NOT NULL,
    volume           numeric(38,18) NOT NULL,
    quote_volume     numeric(38,18),
    taker_buy_volume numeric(38,18),
    trade_count      bigint,
    is_final         boolean NOT NULL,
    source           text,
    topic            text NOT NULL,
    "partition"      integer NOT NULL,
    "offset"         bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.candles IS 'One bar of a market: finished, or still in progress.';
COMMENT ON COLUMN tradetape.candles.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.candles.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.candles.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.candles.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.candles.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.candles.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.candles.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.candles.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.candles.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.candles.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.candles.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.candles.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.candles.timeframe IS 'Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo.';
COMMENT ON COLUMN tradetape.candles.open_time IS 'Start of the bar, inclusive, UTC.';
COMMENT ON COLUMN tradetape.candles.close_time IS 'End of the bar, exclusive, UTC: open_time + timeframe.';
COMMENT ON COLUMN tradetape.candles."open" IS 'First price in quote currency.';
COMMENT ON COLUMN tradetape.candles.high IS 'Highest price in quote currency.';
COMMENT ON COLUMN tradetape.candles.low IS 'Lowest price in quote currency.';
COMMENT ON COLUMN tradetape.candles."close" IS 'Last price in quote currency.';
COMMENT ON COLUMN tradetape.candles.volume IS 'Traded quantity in base currency.';
COMMENT ON COLUMN tradetape.candles.quote_volume IS 'Traded amount in quote currency; null when unknown.';
COMMENT ON COLUMN tradetape.candles.taker_buy_volume IS 'Quantity bought by takers, in base currency; null when unknown.';
COMMENT ON COLUMN tradetape.candles.trade_count IS 'Number of trades in the bar; null when unknown.';
COMMENT ON COLUMN tradetape.candles.is_final IS 'True when the bar is finished and will not change.';
COMMENT ON COLUMN tradetape.candles.source IS 'Where the bar was taken from; null when unknown.';
COMMENT ON COLUMN tradetape.candles.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.candles."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.candles."offset" IS 'Its offset there.';

CREATE TABLE tradetape.indicator_updates (
    event_id        uuid NOT NULL,
    event_time      timestamptz NOT NULL,
    emitted_at      timestamptz NOT NULL,
    producer        text NOT NULL,
    producer_run_id text NOT NULL,
    producer_seq    bigint NOT NULL,
    run_mode        text NOT NULL,
    correlation_id  text NOT NULL,
    causation_id    text,
    venue           text NOT NULL,
    symbol          text NOT NULL,
    tags            jsonb NOT NULL,
    timeframe       text NOT NULL,
    indicator_set   text NOT NULL,
    bar_open_time   timestamptz,
    bar_close_time  timestamptz NOT NULL,
    is_final        boolean NOT NULL,
    bars_used       integer,
    "close"         numeric(38,18),
    ema_50          double precision,
    ema_200         double precision,
    rsi_14          double precision,
    adx_14          double precision,
    qqe             double precision,
    psar            double precision,
    atr_14          double precision,
    stochrsi_k      double precision,
    stochrsi_d      double precision,
    macd            double precision,
    macd_signal     double precision,
    macd_hist       double precision,
    macd_hist_prev  double precision,
    macd_lift       double precision,
    extra           jsonb,
    invalid         jsonb NOT NULL,
    candle_event_id text,
    topic           text NOT NULL,
    "partition"     integer NOT NULL,
    "offset"        bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.indicator_updates IS 'The indicators of one bar, computed together.';
COMMENT ON COLUMN tradetape.indicator_updates.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.indicator_updates.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.indicator_updates.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.indicator_updates.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.indicator_updates.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.indicator_updates.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.indicator_updates.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.indicator_updates.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.indicator_updates.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.indicator_updates.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.indicator_updates.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.indicator_updates.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.indicator_updates.timeframe IS 'Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo.';
COMMENT ON COLUMN tradetape.indicator_updates.indicator_set IS 'Which set of indicators it is; two sources that compute different ones for one symbol use two sets.';
COMMENT ON COLUMN tradetape.indicator_updates.bar_open_time IS 'Start of the bar, inclusive, UTC; null when unknown.';
COMMENT ON COLUMN tradetape.indicator_updates.bar_close_time IS 'End of the bar, exclusive, UTC.';
COMMENT ON COLUMN tradetape.indicator_updates.is_final IS 'True when the bar is finished, so that the values will not change.';
COMMENT ON COLUMN tradetape.indicator_updates.bars_used IS 'Number of bars the values rest on (warm-up); null when unknown.';
COMMENT ON COLUMN tradetape.indicator_updates."close" IS 'Close of the bar in quote currency; null when unknown.';
COMMENT ON COLUMN tradetape.indicator_updates.ema_50 IS 'Exponential moving average of 50 bars, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.ema_200 IS 'Exponential moving average of 200 bars, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.rsi_14 IS 'Relative strength index of 14 bars, 0 to 100.';
COMMENT ON COLUMN tradetape.indicator_updates.adx_14 IS 'Average directional index of 14 bars, 0 to 100.';
COMMENT ON COLUMN tradetape.indicator_updates.qqe IS 'Quantitative qualitative estimation, 0 to 100.';
COMMENT ON COLUMN tradetape.indicator_updates.psar IS 'Parabolic stop and reverse, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.atr_14 IS 'Average true range of 14 bars, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.stochrsi_k IS 'Stochastic RSI, the fast line, 0 to 100.';
COMMENT ON COLUMN tradetape.indicator_updates.stochrsi_d IS 'Stochastic RSI, the slow line, 0 to 100.';
COMMENT ON COLUMN tradetape.indicator_updates.macd IS 'Moving average convergence divergence, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.macd_signal IS 'Signal line of the MACD, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.macd_hist IS 'MACD less its signal line, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.macd_hist_prev IS 'macd_hist of the bar before, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.macd_lift IS 'macd_hist less macd_hist_prev, in quote currency.';
COMMENT ON COLUMN tradetape.indicator_updates.extra IS 'Indicators that have no column of their own, by canonical name.';
COMMENT ON COLUMN tradetape.indicator_updates.invalid IS 'Names of indicators that have no value yet or were not a number.';
COMMENT ON COLUMN tradetape.indicator_updates.candle_event_id IS 'The event_id of the candle they were computed from; null when unknown.';
COMMENT ON COLUMN tradetape.indicator_updates.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.indicator_updates."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.indicator_updates."offset" IS 'Its offset there.';

CREATE TABLE tradetape.market_conditions (
    event_id        uuid NOT NULL,
    event_time      timestamptz NOT NULL,
    emitted_at      timestamptz NOT NULL,
    producer        text NOT NULL,
    producer_run_id text NOT NULL,
    producer_seq    bigint NOT NULL,
    run_mode        text NOT NULL,
    correlation_id  text NOT NULL,
    causation_id    text,
    venue           text NOT NULL,
    symbol          text NOT NULL,
    tags            jsonb NOT NULL,
    scope           text NOT NULL,
    condition       text NOT NULL,
    score           double precision,
    "values"        jsonb NOT NULL,
    valid_until     timestamptz,
    topic           text NOT NULL,
    "partition"     integer NOT NULL,
    "offset"        bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.market_conditions IS 'The state of a market as a whole or of one symbol, by name.';
COMMENT ON COLUMN tradetape.market_conditions.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.market_conditions.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.market_conditions.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.market_conditions.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.market_conditions.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.market_conditions.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.market_conditions.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.market_conditions.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.market_conditions.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.market_conditions.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.market_conditions.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.market_conditions.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.market_conditions.scope IS 'What the condition speaks of, such as btc or market.';
COMMENT ON COLUMN tradetape.market_conditions.condition IS 'Name of the condition, such as bullish.';
COMMENT ON COLUMN tradetape.market_conditions.score IS 'Strength on the source''s own scale; null when unknown.';
COMMENT ON COLUMN tradetape.market_conditions."values" IS 'Finite values behind the condition by name.';
COMMENT ON COLUMN tradetape.market_conditions.valid_until IS 'Until when it may be acted on, UTC; null for no limit of its own.';
COMMENT ON COLUMN tradetape.market_conditions.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.market_conditions."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.market_conditions."offset" IS 'Its offset there.';

CREATE TABLE tradetape.trade_signals (
    event_id         uuid NOT NULL,
    event_time       timestamptz NOT NULL,
    emitted_at       timestamptz NOT NULL,
    producer         text NOT NULL,
    producer_run_id  text NOT NULL,
    producer_seq     bigint NOT NULL,
    run_mode         text NOT NULL,
    correlation_id   text NOT NULL,
    causation_id     text,
    venue            text NOT NULL,
    symbol           text NOT NULL,
    tags             jsonb NOT NULL,
    signal_id        text NOT NULL,
    strategy_id      text NOT NULL,
    strategy_version text,
    timeframe        text NOT NULL,
    bar_close_time   timestamptz,
    action           text NOT NULL,
    direction        text NOT NULL,
    confidence       double precision,
    score            double precision,
    magnitude_ratio  double precision,
    weight           double precision,
    score_components jsonb NOT NULL,
    multiplier       double precision,
    reference_price  numeric(38,18),
    order_type       text NOT NULL,
    entry_price      numeric(38,18),
    stop_loss_price  numeric(38,18),
    take_profits     jsonb NOT NULL,
    trailing_stop    jsonb,
    legs             jsonb NOT NULL,
    quantity         numeric(38,18),
    amount_quote     numeric(38,18),
    leverage         double precision,
    valid_until      timestamptz,
    position_ref     text,
    input_event_ids  jsonb NOT NULL,
    indicators       jsonb NOT NULL,
    reasons          jsonb NOT NULL,
    topic            text NOT NULL,
    "partition"      integer NOT NULL,
    "offset"         bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.trade_signals IS 'A strategy''s wish to trade, before anything has judged it.';
COMMENT ON COLUMN tradetape.trade_signals.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.trade_signals.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.trade_signals.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.trade_signals.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.trade_signals.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.trade_signals.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.trade_signals.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.trade_signals.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.trade_signals.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.trade_signals.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.trade_signals.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.trade_signals.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.trade_signals.signal_id IS 'The event_id of this event, under the name by which later records refer to it.';
COMMENT ON COLUMN tradetape.trade_signals.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.trade_signals.strategy_version IS 'Version of the strategy; null when unknown.';
COMMENT ON COLUMN tradetape.trade_signals.timeframe IS 'Length of the bar in canonical form, such as 1m, 4h, 1d or 1mo.';
COMMENT ON COLUMN tradetape.trade_signals.bar_close_time IS 'End of the bar that triggered it, exclusive, UTC; null when no bar did.';
COMMENT ON COLUMN tradetape.trade_signals.action IS 'ENTER, ADD, REDUCE, EXIT or CANCEL.';
COMMENT ON COLUMN tradetape.trade_signals.direction IS 'LONG, SHORT or FLAT: of the position.';
COMMENT ON COLUMN tradetape.trade_signals.confidence IS 'Probability the strategy gives it, 0 to 1; null when unknown.';
COMMENT ON COLUMN tradetape.trade_signals.score IS 'Strength on the strategy''s own scale; null when unknown.';
COMMENT ON COLUMN tradetape.trade_signals.magnitude_ratio IS 'Expected move as a fraction of the price, 0.01 is 1 %; null when unknown.';
COMMENT ON COLUMN tradetape.trade_signals.weight IS 'Wished share of the portfolio as a fraction; null when unknown.';
COMMENT ON COLUMN tradetape.trade_signals.score_components IS 'Parts of the score by name.';
COMMENT ON COLUMN tradetape.trade_signals.multiplier IS 'Factor that the market''s state put on the score; null when none did.';
COMMENT ON COLUMN tradetape.trade_signals.reference_price IS 'Price at the decision in quote currency; null when unknown, never 0.';
COMMENT ON COLUMN tradetape.trade_signals.order_type IS 'MARKET, LIMIT, STOP or STOP_LIMIT.';
COMMENT ON COLUMN tradetape.trade_signals.entry_price IS 'Limit or trigger price in quote currency; null for a market order.';
COMMENT ON COLUMN tradetape.trade_signals.stop_loss_price IS 'Price in quote currency at which the position is given up; null for none.';
COMMENT ON COLUMN tradetape.trade_signals.take_profits IS 'Prices at which parts of the position are closed.';
COMMENT ON COLUMN tradetape.trade_signals.trailing_stop IS 'A stop that follows the price; null for none.';
COMMENT ON COLUMN tradetape.trade_signals.legs IS 'Planned further orders of the position.';
COMMENT ON COLUMN tradetape.trade_signals.quantity IS 'Size in base currency; null when left to the sizing.';
COMMENT ON COLUMN tradetape.trade_signals.amount_quote IS 'Size in quote currency; null when left to the sizing.';
COMMENT ON COLUMN tradetape.trade_signals.leverage IS 'Factor of leverage, 1 is none; null when left open.';
COMMENT ON COLUMN tradetape.trade_signals.valid_until IS 'Until when it may be acted on, UTC; null for no limit of its own.';
COMMENT ON COLUMN tradetape.trade_signals.position_ref IS 'The trade_id of the position that ADD, REDUCE and EXIT speak of; null for ENTER.';
COMMENT ON COLUMN tradetape.trade_signals.input_event_ids IS 'The event_ids of the indicator updates and candles it was computed from.';
COMMENT ON COLUMN tradetape.trade_signals.indicators IS 'Finite indicator values at the decision by canonical name.';
COMMENT ON COLUMN tradetape.trade_signals.reasons IS 'Why, in words.';
COMMENT ON COLUMN tradetape.trade_signals.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.trade_signals."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.trade_signals."offset" IS 'Its offset there.';

CREATE TABLE tradetape.signal_decisions (
    event_id        uuid NOT NULL,
    event_time      timestamptz NOT NULL,
    emitted_at      timestamptz NOT NULL,
    producer        text NOT NULL,
    producer_run_id text NOT NULL,
    producer_seq    bigint NOT NULL,
    run_mode        text NOT NULL,
    correlation_id  text NOT NULL,
    causation_id    text,
    venue           text NOT NULL,
    symbol          text NOT NULL,
    tags            jsonb NOT NULL,
    signal_id       text NOT NULL,
    stage           text NOT NULL,
    outcome         text NOT NULL,
    score           double precision,
    threshold       double precision,
    components      jsonb NOT NULL,
    facts           jsonb NOT NULL,
    policy_version  text,
    reasons         jsonb NOT NULL,
    trade_id        text,
    topic           text NOT NULL,
    "partition"     integer NOT NULL,
    "offset"        bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.signal_decisions IS 'What one stage decided about a signal, and the facts it rested on.';
COMMENT ON COLUMN tradetape.signal_decisions.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.signal_decisions.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.signal_decisions.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.signal_decisions.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.signal_decisions.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.signal_decisions.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.signal_decisions.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.signal_decisions.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.signal_decisions.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.signal_decisions.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.signal_decisions.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.signal_decisions.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.signal_decisions.signal_id IS 'The signal that was judged.';
COMMENT ON COLUMN tradetape.signal_decisions.stage IS 'Which stage judged it, such as tech_filter or approval.';
COMMENT ON COLUMN tradetape.signal_decisions.outcome IS 'PASSED, REJECTED, SKIPPED or ERROR.';
COMMENT ON COLUMN tradetape.signal_decisions.score IS 'The score that was judged, on the stage''s own scale; null when there was none.';
COMMENT ON COLUMN tradetape.signal_decisions.threshold IS 'What the score was compared with; null when there was none.';
COMMENT ON COLUMN tradetape.signal_decisions.components IS 'Parts of the score by name.';
COMMENT ON COLUMN tradetape.signal_decisions.facts IS 'What the decision rested on, by name, as text; enough to take it again.';
COMMENT ON COLUMN tradetape.signal_decisions.policy_version IS 'Version of the policy that decided; null when there is none.';
COMMENT ON COLUMN tradetape.signal_decisions.reasons IS 'Why, in words; a refusal names its rule.';
COMMENT ON COLUMN tradetape.signal_decisions.trade_id IS 'The trade that a passed signal became; null for none.';
COMMENT ON COLUMN tradetape.signal_decisions.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.signal_decisions."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.signal_decisions."offset" IS 'Its offset there.';

CREATE TABLE tradetape.trades (
    event_id            uuid NOT NULL,
    event_time          timestamptz NOT NULL,
    emitted_at          timestamptz NOT NULL,
    producer            text NOT NULL,
    producer_run_id     text NOT NULL,
    producer_seq        bigint NOT NULL,
    run_mode            text NOT NULL,
    correlation_id      text NOT NULL,
    causation_id        text,
    venue               text NOT NULL,
    symbol              text NOT NULL,
    tags                jsonb NOT NULL,
    trade_id            text NOT NULL,
    signal_id           text NOT NULL,
    strategy_id         text NOT NULL,
    account_id          text,
    action              text NOT NULL,
    direction           text NOT NULL,
    order_type          text NOT NULL,
    planned_entry_price numeric(38,18),
    quantity            numeric(38,18),
    amount_quote        numeric(38,18),
    leverage            double precision,
    stop_loss_price     numeric(38,18),
    take_profits        jsonb NOT NULL,
    trailing_stop       jsonb,
    legs                jsonb NOT NULL,
    position_ref        text,
    approved_at         timestamptz NOT NULL,
    approved_by         text NOT NULL,
    valid_until         timestamptz,
    idempotency_key     text NOT NULL,
    topic               text NOT NULL,
    "partition"         integer NOT NULL,
    "offset"            bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.trades IS 'An approved trade, ready to be dispatched.';
COMMENT ON COLUMN tradetape.trades.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.trades.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.trades.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.trades.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.trades.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.trades.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.trades.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.trades.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.trades.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.trades.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.trades.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.trades.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.trades.trade_id IS 'The event_id of this event, under the name by which later records refer to it.';
COMMENT ON COLUMN tradetape.trades.signal_id IS 'The signal it came from.';
COMMENT ON COLUMN tradetape.trades.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.trades.account_id IS 'The account it is for; null for the only one.';
COMMENT ON COLUMN tradetape.trades.action IS 'ENTER, ADD, REDUCE, EXIT or CANCEL.';
COMMENT ON COLUMN tradetape.trades.direction IS 'LONG, SHORT or FLAT: of the position.';
COMMENT ON COLUMN tradetape.trades.order_type IS 'MARKET, LIMIT, STOP or STOP_LIMIT.';
COMMENT ON COLUMN tradetape.trades.planned_entry_price IS 'Expected, limit or trigger price in quote currency; null when unknown.';
COMMENT ON COLUMN tradetape.trades.quantity IS 'Size in base currency; null when given in quote currency.';
COMMENT ON COLUMN tradetape.trades.amount_quote IS 'Size in quote currency; null when given in base currency.';
COMMENT ON COLUMN tradetape.trades.leverage IS 'Factor of leverage, 1 is none; null when left open.';
COMMENT ON COLUMN tradetape.trades.stop_loss_price IS 'Price in quote currency at which the position is given up; null for none.';
COMMENT ON COLUMN tradetape.trades.take_profits IS 'Prices at which parts of the position are closed.';
COMMENT ON COLUMN tradetape.trades.trailing_stop IS 'A stop that follows the price; null for none.';
COMMENT ON COLUMN tradetape.trades.legs IS 'Planned further orders of the position, after sizing.';
COMMENT ON COLUMN tradetape.trades.position_ref IS 'The trade_id of the position that ADD, REDUCE and EXIT speak of; null for ENTER.';
COMMENT ON COLUMN tradetape.trades.approved_at IS 'When it was approved, UTC.';
COMMENT ON COLUMN tradetape.trades.approved_by IS 'Who or what approved it.';
COMMENT ON COLUMN tradetape.trades.valid_until IS 'Until when it may be dispatched, UTC; null for no limit.';
COMMENT ON COLUMN tradetape.trades.idempotency_key IS 'The key under which an executor must take it once at most.';
COMMENT ON COLUMN tradetape.trades.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.trades."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.trades."offset" IS 'Its offset there.';

CREATE TABLE tradetape.trade_dispatches (
    event_id        uuid NOT NULL,
    event_time      timestamptz NOT NULL,
    emitted_at      timestamptz NOT NULL,
    producer        text NOT NULL,
    producer_run_id text NOT NULL,
    producer_seq    bigint NOT NULL,
    run_mode        text NOT NULL,
    correlation_id  text NOT NULL,
    causation_id    text,
    venue           text NOT NULL,
    symbol          text NOT NULL,
    tags            jsonb NOT NULL,
    trade_id        text NOT NULL,
    leg_index       integer NOT NULL,
    attempt         integer NOT NULL,
    outcome         text NOT NULL,
    executor        text NOT NULL,
    external_id     text,
    error           text,
    topic           text NOT NULL,
    "partition"     integer NOT NULL,
    "offset"        bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.trade_dispatches IS 'One step of handing a trade to an executor: the intent, then what became of it.';
COMMENT ON COLUMN tradetape.trade_dispatches.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.trade_dispatches.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.trade_dispatches.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.trade_dispatches.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.trade_dispatches.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.trade_dispatches.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.trade_dispatches.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.trade_dispatches.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.trade_dispatches.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.trade_dispatches.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.trade_dispatches.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.trade_dispatches.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.trade_dispatches.trade_id IS 'The trade that is dispatched.';
COMMENT ON COLUMN tradetape.trade_dispatches.leg_index IS 'Which leg of it, from 0.';
COMMENT ON COLUMN tradetape.trade_dispatches.attempt IS 'Which attempt, from 1.';
COMMENT ON COLUMN tradetape.trade_dispatches.outcome IS 'INTENDED before the call; what became of it after.';
COMMENT ON COLUMN tradetape.trade_dispatches.executor IS 'Name of the executor.';
COMMENT ON COLUMN tradetape.trade_dispatches.external_id IS 'The id that the far side gave; null when unknown.';
COMMENT ON COLUMN tradetape.trade_dispatches.error IS 'What went wrong, in words; null when nothing did.';
COMMENT ON COLUMN tradetape.trade_dispatches.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.trade_dispatches."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.trade_dispatches."offset" IS 'Its offset there.';

CREATE TABLE tradetape.fills (
    event_id          uuid NOT NULL,
    event_time        timestamptz NOT NULL,
    emitted_at        timestamptz NOT NULL,
    producer          text NOT NULL,
    producer_run_id   text NOT NULL,
    producer_seq      bigint NOT NULL,
    run_mode          text NOT NULL,
    correlation_id    text NOT NULL,
    causation_id      text,
    venue             text NOT NULL,
    symbol            text NOT NULL,
    tags              jsonb NOT NULL,
    fill_id           text NOT NULL,
    trade_id          text,
    leg_index         integer,
    account_id        text,
    client_order_id   text,
    venue_order_id    text NOT NULL,
    venue_trade_id    text NOT NULL,
    strategy_id       text,
    position_ref      text,
    side              text NOT NULL,
    price             numeric(38,18) NOT NULL,
    quantity          numeric(38,18) NOT NULL,
    amount_quote      numeric(38,18) NOT NULL,
    fee               numeric(38,18),
    fee_asset         text,
    liquidity         text NOT NULL,
    is_reconciliation boolean NOT NULL,
    topic             text NOT NULL,
    "partition"       integer NOT NULL,
    "offset"          bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.fills IS 'An execution at the venue.';
COMMENT ON COLUMN tradetape.fills.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.fills.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.fills.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.fills.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.fills.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.fills.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.fills.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.fills.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.fills.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.fills.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.fills.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.fills.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.fills.fill_id IS 'The event_id of this event, under the name by which later records refer to it.';
COMMENT ON COLUMN tradetape.fills.trade_id IS 'The trade it belongs to; null when unknown.';
COMMENT ON COLUMN tradetape.fills.leg_index IS 'Which leg of it, from 0; null when unknown.';
COMMENT ON COLUMN tradetape.fills.account_id IS 'The account it was made in; null for the only one.';
COMMENT ON COLUMN tradetape.fills.client_order_id IS 'The order''s id as the client gave it; null when unknown.';
COMMENT ON COLUMN tradetape.fills.venue_order_id IS 'The order''s id at the venue.';
COMMENT ON COLUMN tradetape.fills.venue_trade_id IS 'The execution''s id at the venue.';
COMMENT ON COLUMN tradetape.fills.strategy_id IS 'Name of the strategy; null when unknown.';
COMMENT ON COLUMN tradetape.fills.position_ref IS 'The trade_id of the position it belongs to; null when unknown.';
COMMENT ON COLUMN tradetape.fills.side IS 'BUY or SELL.';
COMMENT ON COLUMN tradetape.fills.price IS 'Price in quote currency.';
COMMENT ON COLUMN tradetape.fills.quantity IS 'Quantity in base currency.';
COMMENT ON COLUMN tradetape.fills.amount_quote IS 'Amount in quote currency: price times quantity.';
COMMENT ON COLUMN tradetape.fills.fee IS 'Fee in fee_asset, positive when paid; null when unknown.';
COMMENT ON COLUMN tradetape.fills.fee_asset IS 'The asset the fee was paid in; null when unknown.';
COMMENT ON COLUMN tradetape.fills.liquidity IS 'MAKER, TAKER or UNKNOWN.';
COMMENT ON COLUMN tradetape.fills.is_reconciliation IS 'True when it was found by comparing with the venue, not reported by it as it happened.';
COMMENT ON COLUMN tradetape.fills.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.fills."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.fills."offset" IS 'Its offset there.';

CREATE TABLE tradetape.closed_trades (
    event_id         uuid NOT NULL,
    event_time       timestamptz NOT NULL,
    emitted_at       timestamptz NOT NULL,
    producer         text NOT NULL,
    producer_run_id  text NOT NULL,
    producer_seq     bigint NOT NULL,
    run_mode         text NOT NULL,
    correlation_id   text NOT NULL,
    causation_id     text,
    venue            text NOT NULL,
    symbol           text NOT NULL,
    tags             jsonb NOT NULL,
    trade_id         text NOT NULL,
    signal_id        text,
    strategy_id      text NOT NULL,
    direction        text NOT NULL,
    leverage         double precision,
    opened_at        timestamptz,
    closed_at        timestamptz NOT NULL,
    entry_price_avg  numeric(38,18),
    exit_price_avg   numeric(38,18),
    quantity         numeric(38,18) NOT NULL,
    entry_cost_quote numeric(38,18) NOT NULL,
    exit_value_quote numeric(38,18) NOT NULL,
    fees_quote       numeric(38,18) NOT NULL,
    pnl_quote        numeric(38,18) NOT NULL,
    pnl_ratio        double precision,
    min_price        numeric(38,18),
    max_price        numeric(38,18),
    legs_filled      integer NOT NULL,
    legs_max         integer NOT NULL,
    fill_ids         jsonb NOT NULL,
    close_status     text NOT NULL,
    exit_reason      text,
    topic            text NOT NULL,
    "partition"      integer NOT NULL,
    "offset"         bigint NOT NULL,
    PRIMARY KEY (event_time, event_id)
) PARTITION BY RANGE (event_time);
COMMENT ON TABLE tradetape.closed_trades IS 'A position that has come to its end, with its result.';
COMMENT ON COLUMN tradetape.closed_trades.event_id IS 'UUID of the event: version 5 of the natural key where the record has one, else version 7. A repeat after a crash has the same id.';
COMMENT ON COLUMN tradetape.closed_trades.event_time IS 'When it is true in the market, UTC. Part of the natural key, so never the wall clock where one exists.';
COMMENT ON COLUMN tradetape.closed_trades.emitted_at IS 'The producer''s clock when the event was emitted, UTC. May run behind event_time.';
COMMENT ON COLUMN tradetape.closed_trades.producer IS 'Name of the source that emitted the event, such as rsi-bot.';
COMMENT ON COLUMN tradetape.closed_trades.producer_run_id IS 'UUID of the producer''s run, new at each start.';
COMMENT ON COLUMN tradetape.closed_trades.producer_seq IS 'Number of the event within its run, from 1, +1 each: a gap shows loss, a repeat shows a duplicate.';
COMMENT ON COLUMN tradetape.closed_trades.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY; a derived event copies its cause''s.';
COMMENT ON COLUMN tradetape.closed_trades.correlation_id IS 'The chain that the event belongs to: the signal''s event_id for all that follows a signal.';
COMMENT ON COLUMN tradetape.closed_trades.causation_id IS 'The event_id of the direct parent; null where there is none.';
COMMENT ON COLUMN tradetape.closed_trades.venue IS 'Where it is traded, lower case, such as binance or binance-usdm.';
COMMENT ON COLUMN tradetape.closed_trades.symbol IS 'The venue''s own upper-case name without separators, such as BTCUSDT; MARKET where it concerns the whole venue.';
COMMENT ON COLUMN tradetape.closed_trades.tags IS 'Free labels of the producer.';
COMMENT ON COLUMN tradetape.closed_trades.trade_id IS 'The trade that opened the position.';
COMMENT ON COLUMN tradetape.closed_trades.signal_id IS 'The signal it came from; null when unknown.';
COMMENT ON COLUMN tradetape.closed_trades.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.closed_trades.direction IS 'LONG or SHORT.';
COMMENT ON COLUMN tradetape.closed_trades.leverage IS 'Factor of leverage, 1 is none; null when unknown.';
COMMENT ON COLUMN tradetape.closed_trades.opened_at IS 'Time of the first fill, UTC; null when nothing was filled.';
COMMENT ON COLUMN tradetape.closed_trades.closed_at IS 'Time of the closing fill, or of the outcome that ended it, UTC.';
COMMENT ON COLUMN tradetape.closed_trades.entry_price_avg IS 'Average entry price in quote currency; null when nothing was filled.';
COMMENT ON COLUMN tradetape.closed_trades.exit_price_avg IS 'Average exit price in quote currency; null when nothing was closed.';
COMMENT ON COLUMN tradetape.closed_trades.quantity IS 'Largest quantity held, in base currency.';
COMMENT ON COLUMN tradetape.closed_trades.entry_cost_quote IS 'What the entries cost in quote currency, before fees.';
COMMENT ON COLUMN tradetape.closed_trades.exit_value_quote IS 'What the exits brought in quote currency, before fees.';
COMMENT ON COLUMN tradetape.closed_trades.fees_quote IS 'Fees in quote currency, positive when paid.';
COMMENT ON COLUMN tradetape.closed_trades.pnl_quote IS 'Profit in quote currency after fees, negative for a loss.';
COMMENT ON COLUMN tradetape.closed_trades.pnl_ratio IS 'pnl_quote as a fraction of entry_cost_quote; null when nothing was filled.';
COMMENT ON COLUMN tradetape.closed_trades.min_price IS 'Lowest price seen while it was open, in quote currency; null when candles are missing.';
COMMENT ON COLUMN tradetape.closed_trades.max_price IS 'Highest price seen while it was open, in quote currency; null when candles are missing.';
COMMENT ON COLUMN tradetape.closed_trades.legs_filled IS 'Number of legs that were filled.';
COMMENT ON COLUMN tradetape.closed_trades.legs_max IS 'Number of legs that were planned.';
COMMENT ON COLUMN tradetape.closed_trades.fill_ids IS 'The fills it is made of.';
COMMENT ON COLUMN tradetape.closed_trades.close_status IS 'How it ended.';
COMMENT ON COLUMN tradetape.closed_trades.exit_reason IS 'Why, in the strategy''s own words; null when unknown.';
COMMENT ON COLUMN tradetape.closed_trades.topic IS 'The topic the event lies on.';
COMMENT ON COLUMN tradetape.closed_trades."partition" IS 'Its partition.';
COMMENT ON COLUMN tradetape.closed_trades."offset" IS 'Its offset there.';

-- How far each sink has come. Written in the same transaction as the rows, compared as its last statement: whoever is
-- not the owner of the epoch any more, or finds another next_offset than it left, writes nothing.
CREATE TABLE tradetape.sink_offsets (
    sink                text NOT NULL,
    topic               text NOT NULL,
    topic_uuid          text NOT NULL,
    partition           integer NOT NULL,
    next_offset         bigint,
    epoch               bigint NOT NULL,
    owner_pid           integer NOT NULL,
    owner_backend_start timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, topic_uuid, partition)
);
COMMENT ON TABLE tradetape.sink_offsets IS 'How far each sink has come on each partition, and which session may go on.';
COMMENT ON COLUMN tradetape.sink_offsets.sink IS 'Name of the sink.';
COMMENT ON COLUMN tradetape.sink_offsets.topic IS 'The topic.';
COMMENT ON COLUMN tradetape.sink_offsets.topic_uuid IS 'Kafka''s own id of the topic: a topic that was made anew is another one.';
COMMENT ON COLUMN tradetape.sink_offsets.partition IS 'Its partition.';
COMMENT ON COLUMN tradetape.sink_offsets.next_offset IS 'The first offset that is not yet in the history; null before the first.';
COMMENT ON COLUMN tradetape.sink_offsets.epoch IS 'Raised by one each time the partition is taken; only the holder of the newest may write.';
COMMENT ON COLUMN tradetape.sink_offsets.owner_pid IS 'Process of the owner''s session on this server.';
COMMENT ON COLUMN tradetape.sink_offsets.owner_backend_start IS 'When that session began; tells it from a later one with the same process id.';
COMMENT ON COLUMN tradetape.sink_offsets.updated_at IS 'When the row was last written.';

CREATE FUNCTION tradetape.ensure_month(history_table text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    part text := history_table || to_char(first, '"_y"YYYY"m"MM');
BEGIN
    IF first < date '2009-01-01' OR first > (now() + interval '2 months')::date THEN
        RAISE EXCEPTION 'no history is kept for %: not between 2009-01 and two months from now', to_char(first, 'YYYY-MM')
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
                   WHERE c.relname = history_table AND c.relnamespace = 'tradetape'::regnamespace) THEN
        RAISE EXCEPTION '% is not a table of the history', history_table USING ERRCODE = 'undefined_table';
    END IF;
    -- Two sinks may meet a new month at once.
    PERFORM pg_advisory_xact_lock(hashtext('tradetape.ensure_month'), hashtext(part));
    IF to_regclass(format('tradetape.%I', part)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE tradetape.%I PARTITION OF tradetape.%I FOR VALUES FROM (%L) TO (%L)',
                   part, history_table, first::timestamp AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
    RETURN true;
END $$;
COMMENT ON FUNCTION tradetape.ensure_month(text, date) IS 'Make the partition of a month, when it is not there; within sane bounds.';
REVOKE ALL ON FUNCTION tradetape.ensure_month(text, date) FROM PUBLIC;
