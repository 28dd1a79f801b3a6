-- What was handed to executors: the memory of the dispatcher. It is completed from trade-dispatches whenever a partition
-- is taken, so a database that was lost or restored sends nothing again.

CREATE TABLE tradetape.dispatch_intents (
    trade_id       text NOT NULL,
    leg_index      integer NOT NULL,
    attempt        integer NOT NULL CHECK (attempt >= 1),
    intended_at    timestamptz NOT NULL,
    executor       text NOT NULL,
    outcome        text CHECK (outcome IN ('SENT', 'ACKED', 'REJECTED', 'TIMEOUT', 'EXPIRED', 'SKIPPED_DUPLICATE', 'IN_DOUBT')),
    external_id    text,
    error          text,
    is_refused     boolean NOT NULL DEFAULT false,
    is_on_tape     boolean NOT NULL DEFAULT false,
    resolved_why   text,
    run_mode       text NOT NULL,
    correlation_id text NOT NULL,
    venue          text NOT NULL,
    symbol         text NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (trade_id, leg_index, attempt)
);
COMMENT ON TABLE tradetape.dispatch_intents IS 'Each attempt to hand an order to an executor, written before the call; a row without an outcome may or may not have been sent.';
COMMENT ON COLUMN tradetape.dispatch_intents.trade_id IS 'The trade.';
COMMENT ON COLUMN tradetape.dispatch_intents.leg_index IS 'Which leg of it, from 0.';
COMMENT ON COLUMN tradetape.dispatch_intents.attempt IS 'Which attempt, from 1.';
COMMENT ON COLUMN tradetape.dispatch_intents.intended_at IS 'When it was to be sent, UTC: the event_time of all that the tape says of this attempt.';
COMMENT ON COLUMN tradetape.dispatch_intents.executor IS 'Name of the executor.';
COMMENT ON COLUMN tradetape.dispatch_intents.outcome IS 'What became of it; null while that is not known. IN_DOUBT waits for `tradetape dispatch resolve`.';
COMMENT ON COLUMN tradetape.dispatch_intents.external_id IS 'The id that the far side gave; null when unknown.';
COMMENT ON COLUMN tradetape.dispatch_intents.error IS 'What went wrong, in words; null when nothing did.';
COMMENT ON COLUMN tradetape.dispatch_intents.is_refused IS 'True while it certainly was not taken and may be sent again under the same attempt.';
COMMENT ON COLUMN tradetape.dispatch_intents.is_on_tape IS 'True once the outcome is known to be on the tape.';
COMMENT ON COLUMN tradetape.dispatch_intents.resolved_why IS 'Why a person gave this outcome; null where the executor did.';
COMMENT ON COLUMN tradetape.dispatch_intents.run_mode IS 'LIVE or PAPER, the trade''s.';
COMMENT ON COLUMN tradetape.dispatch_intents.correlation_id IS 'The chain that the trade belongs to.';
COMMENT ON COLUMN tradetape.dispatch_intents.venue IS 'Where it is traded.';
COMMENT ON COLUMN tradetape.dispatch_intents.symbol IS 'What is traded.';
COMMENT ON COLUMN tradetape.dispatch_intents.updated_at IS 'When the row was last written.';
CREATE INDEX dispatch_intents_open ON tradetape.dispatch_intents (intended_at) WHERE outcome IS NULL OR outcome = 'IN_DOUBT';

CREATE TABLE tradetape.paper_orders (
    trade_id         text NOT NULL,
    leg_index        integer NOT NULL,
    partition        integer NOT NULL,
    trade            bytea NOT NULL,
    position_id      text NOT NULL,
    side             text NOT NULL CHECK (side IN ('BUY', 'SELL')),
    is_opening       boolean NOT NULL,
    size             numeric,
    filled_quantity  numeric NOT NULL DEFAULT 0,
    fills            integer NOT NULL DEFAULT 0,
    candle_offset    bigint NOT NULL DEFAULT -1,
    is_done          boolean NOT NULL DEFAULT false,
    opened_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (trade_id, leg_index)
);
COMMENT ON TABLE tradetape.paper_orders IS 'The orders of the paper executor, and how far candles have filled them.';
COMMENT ON COLUMN tradetape.paper_orders.trade_id IS 'The trade.';
COMMENT ON COLUMN tradetape.paper_orders.leg_index IS 'Which leg of it, from 0.';
COMMENT ON COLUMN tradetape.paper_orders.partition IS 'The partition of its trade, and of its candles.';
COMMENT ON COLUMN tradetape.paper_orders.trade IS 'The trade as it lies on the tape.';
COMMENT ON COLUMN tradetape.paper_orders.position_id IS 'The trade that opened the position which it belongs to: itself for one that opens.';
COMMENT ON COLUMN tradetape.paper_orders.side IS 'BUY or SELL.';
COMMENT ON COLUMN tradetape.paper_orders.is_opening IS 'Whether it makes the position larger.';
COMMENT ON COLUMN tradetape.paper_orders.size IS 'What is to be filled in base currency; null until a price says it.';
COMMENT ON COLUMN tradetape.paper_orders.filled_quantity IS 'What is filled, in base currency.';
COMMENT ON COLUMN tradetape.paper_orders.fills IS 'Number of its fills.';
COMMENT ON COLUMN tradetape.paper_orders.candle_offset IS 'The candle that filled it last, by its offset; -1 for none.';
COMMENT ON COLUMN tradetape.paper_orders.is_done IS 'True once no candle will fill it any more.';
COMMENT ON COLUMN tradetape.paper_orders.opened_at IS 'When it was taken, UTC.';
CREATE INDEX paper_orders_open ON tradetape.paper_orders (partition) WHERE NOT is_done;
CREATE INDEX paper_orders_position ON tradetape.paper_orders (position_id);
