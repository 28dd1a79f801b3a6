-- Views over the history, joined by ids alone, and the indexes that such walks take.
--
-- Only tables of decisions and money get indexes: they are small beside the market's, which are written at full speed.
CREATE INDEX ON tradetape.trade_signals (signal_id);
CREATE INDEX ON tradetape.signal_decisions (signal_id);
CREATE INDEX ON tradetape.trades (trade_id);
CREATE INDEX ON tradetape.trades (signal_id);
CREATE INDEX ON tradetape.trade_dispatches (trade_id);
CREATE INDEX ON tradetape.fills ((coalesce(trade_id, position_ref)));
CREATE INDEX ON tradetape.closed_trades (trade_id);

CREATE VIEW tradetape.trade_journal AS
SELECT j.event_time, j.run_mode, j.venue, j.symbol, j.strategy_id, j.signal_id, j.signal_time, j.action, j.direction,
       j.input_event_ids, d.decisions, j.trade_id, j.position_id, j.account_id, j.approved_at, x.dispatches,
       f.fills, f.fill_ids, f.filled_quantity, f.filled_quote,
       c.event_id AS close_id, c.opened_at, c.closed_at, c.close_status, c.exit_reason, c.entry_price_avg, c.exit_price_avg,
       c.quantity, c.fees_quote, c.pnl_quote, c.pnl_ratio
FROM (
    SELECT s.event_time, s.run_mode, s.venue, s.symbol, s.strategy_id, s.signal_id, s.event_time AS signal_time, s.action,
           s.direction, s.input_event_ids, t.trade_id, coalesce(t.position_ref, t.trade_id) AS position_id, t.account_id,
           t.approved_at
    FROM tradetape.trade_signals s LEFT JOIN tradetape.trades t ON t.signal_id = s.signal_id
    UNION ALL
    SELECT t.event_time, t.run_mode, t.venue, t.symbol, t.strategy_id, t.signal_id, NULL, t.action, t.direction, NULL,
           t.trade_id, coalesce(t.position_ref, t.trade_id), t.account_id, t.approved_at
    FROM tradetape.trades t
    WHERE NOT EXISTS (SELECT FROM tradetape.trade_signals s WHERE s.signal_id = t.signal_id)
    UNION ALL
    SELECT c.event_time, c.run_mode, c.venue, c.symbol, c.strategy_id, c.signal_id, NULL, NULL, c.direction, NULL,
           c.trade_id, c.trade_id, NULL, NULL
    FROM tradetape.closed_trades c
    WHERE NOT EXISTS (SELECT FROM tradetape.trades t WHERE t.trade_id = c.trade_id)
) j
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('decision_id', d.event_id, 'stage', d.stage, 'outcome', d.outcome,
                                        'reasons', d.reasons) ORDER BY d.emitted_at, d.stage) AS decisions
    FROM tradetape.signal_decisions d WHERE d.signal_id = j.signal_id
) d
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('dispatch_id', x.event_id, 'leg_index', x.leg_index, 'attempt', x.attempt,
                                        'outcome', x.outcome, 'executor', x.executor, 'external_id', x.external_id)
                     ORDER BY x.leg_index, x.attempt, x.emitted_at) AS dispatches
    FROM tradetape.trade_dispatches x WHERE x.trade_id = j.trade_id
) x
CROSS JOIN LATERAL (
    SELECT count(*) AS fills, jsonb_agg(f.fill_id ORDER BY f.event_time, f.fill_id) AS fill_ids,
           sum(f.quantity) AS filled_quantity, sum(f.amount_quote) AS filled_quote
    FROM tradetape.fills f WHERE coalesce(f.trade_id, f.position_ref) = j.trade_id
) f
LEFT JOIN tradetape.closed_trades c ON c.trade_id = j.trade_id;
COMMENT ON VIEW tradetape.trade_journal IS 'From a signal to its end, by ids alone: decisions, trade, dispatches, fills and close. One row for each signal and each trade made of it, also where a step before or behind is missing.';
COMMENT ON COLUMN tradetape.trade_journal.event_time IS 'Time of the first step that is known: the signal''s, else the trade''s, else the close''s, UTC.';
COMMENT ON COLUMN tradetape.trade_journal.run_mode IS 'Run mode of that step.';
COMMENT ON COLUMN tradetape.trade_journal.venue IS 'Where it is traded.';
COMMENT ON COLUMN tradetape.trade_journal.symbol IS 'The venue''s own name of what is traded.';
COMMENT ON COLUMN tradetape.trade_journal.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.trade_journal.signal_id IS 'The signal; null for a close that names none.';
COMMENT ON COLUMN tradetape.trade_journal.signal_time IS 'The signal''s event_time, UTC; null where the history does not hold it.';
COMMENT ON COLUMN tradetape.trade_journal.action IS 'ENTER, ADD, REDUCE, EXIT or CANCEL; null where only the close is known.';
COMMENT ON COLUMN tradetape.trade_journal.direction IS 'LONG, SHORT or FLAT.';
COMMENT ON COLUMN tradetape.trade_journal.input_event_ids IS 'The indicator updates and other events that the signal rests on; null where the signal is not known.';
COMMENT ON COLUMN tradetape.trade_journal.decisions IS 'What each stage decided about the signal, in the order they were made; null for none.';
COMMENT ON COLUMN tradetape.trade_journal.trade_id IS 'The trade; null for a signal that became none.';
COMMENT ON COLUMN tradetape.trade_journal.position_id IS 'The trade that opened the position which this one belongs to: itself for one that opens.';
COMMENT ON COLUMN tradetape.trade_journal.account_id IS 'The account; null for the only one.';
COMMENT ON COLUMN tradetape.trade_journal.approved_at IS 'When the trade was approved, UTC.';
COMMENT ON COLUMN tradetape.trade_journal.dispatches IS 'How it was handed to executors, in order; null for not at all.';
COMMENT ON COLUMN tradetape.trade_journal.fills IS 'Number of fills that name the trade, or its position where they know no trade.';
COMMENT ON COLUMN tradetape.trade_journal.fill_ids IS 'Their ids, in order of time; null for none.';
COMMENT ON COLUMN tradetape.trade_journal.filled_quantity IS 'Sum of their quantities in base currency, whichever their side; null for none.';
COMMENT ON COLUMN tradetape.trade_journal.filled_quote IS 'Sum of their amounts in quote currency, whichever their side; null for none.';
COMMENT ON COLUMN tradetape.trade_journal.close_id IS 'The event that closed the position; only on the row of the trade that opened it, so that sums count it once.';
COMMENT ON COLUMN tradetape.trade_journal.opened_at IS 'Time of the position''s first fill, UTC.';
COMMENT ON COLUMN tradetape.trade_journal.closed_at IS 'When the position was closed, UTC; null while it is open.';
COMMENT ON COLUMN tradetape.trade_journal.close_status IS 'How it ended.';
COMMENT ON COLUMN tradetape.trade_journal.exit_reason IS 'Why, in the strategy''s own words.';
COMMENT ON COLUMN tradetape.trade_journal.entry_price_avg IS 'Average entry price in quote currency.';
COMMENT ON COLUMN tradetape.trade_journal.exit_price_avg IS 'Average exit price in quote currency.';
COMMENT ON COLUMN tradetape.trade_journal.quantity IS 'Largest quantity held, in base currency.';
COMMENT ON COLUMN tradetape.trade_journal.fees_quote IS 'Fees in quote currency, positive when paid.';
COMMENT ON COLUMN tradetape.trade_journal.pnl_quote IS 'Profit in quote currency after fees.';
COMMENT ON COLUMN tradetape.trade_journal.pnl_ratio IS 'Profit as a fraction of what the entries cost.';

CREATE VIEW tradetape.daily_pnl AS
SELECT (closed_at AT TIME ZONE 'UTC')::date AS day, run_mode, venue, symbol, strategy_id, count(*) AS trades,
       count(*) FILTER (WHERE pnl_quote > 0) AS wins, count(*) FILTER (WHERE pnl_quote < 0) AS losses,
       sum(pnl_quote) AS pnl_quote, sum(fees_quote) AS fees_quote, sum(entry_cost_quote) AS entry_cost_quote,
       (sum(pnl_quote) / nullif(sum(entry_cost_quote), 0))::double precision AS pnl_ratio
FROM tradetape.closed_trades
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW tradetape.daily_pnl IS 'Profit of the positions closed on each UTC day, for each symbol: amounts in different quote currencies do not add up.';
COMMENT ON COLUMN tradetape.daily_pnl.day IS 'The UTC day of closed_at.';
COMMENT ON COLUMN tradetape.daily_pnl.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY.';
COMMENT ON COLUMN tradetape.daily_pnl.venue IS 'Where it was traded.';
COMMENT ON COLUMN tradetape.daily_pnl.symbol IS 'What was traded.';
COMMENT ON COLUMN tradetape.daily_pnl.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.daily_pnl.trades IS 'Number of positions closed.';
COMMENT ON COLUMN tradetape.daily_pnl.wins IS 'Of these, how many with a profit.';
COMMENT ON COLUMN tradetape.daily_pnl.losses IS 'Of these, how many with a loss.';
COMMENT ON COLUMN tradetape.daily_pnl.pnl_quote IS 'Profit in quote currency after fees, exact.';
COMMENT ON COLUMN tradetape.daily_pnl.fees_quote IS 'Fees in quote currency.';
COMMENT ON COLUMN tradetape.daily_pnl.entry_cost_quote IS 'What the entries cost in quote currency.';
COMMENT ON COLUMN tradetape.daily_pnl.pnl_ratio IS 'Profit as a fraction of that cost; null where nothing was filled.';

CREATE VIEW tradetape.decision_rates AS
SELECT (event_time AT TIME ZONE 'UTC')::date AS day, run_mode, venue, symbol, stage, count(*) AS decisions,
       count(*) FILTER (WHERE outcome = 'PASSED') AS passed, count(*) FILTER (WHERE outcome = 'REJECTED') AS rejected,
       count(*) FILTER (WHERE outcome = 'SKIPPED') AS skipped, count(*) FILTER (WHERE outcome = 'ERROR') AS errors,
       count(*) FILTER (WHERE outcome = 'PASSED')::double precision / count(*) AS passed_ratio
FROM tradetape.signal_decisions
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW tradetape.decision_rates IS 'How many signals each stage let pass, by UTC day and symbol.';
COMMENT ON COLUMN tradetape.decision_rates.day IS 'The UTC day of the decision.';
COMMENT ON COLUMN tradetape.decision_rates.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY.';
COMMENT ON COLUMN tradetape.decision_rates.venue IS 'Where the signals wished to trade.';
COMMENT ON COLUMN tradetape.decision_rates.symbol IS 'What they wished to trade.';
COMMENT ON COLUMN tradetape.decision_rates.stage IS 'The stage that decided, such as approval.';
COMMENT ON COLUMN tradetape.decision_rates.decisions IS 'Number of decisions.';
COMMENT ON COLUMN tradetape.decision_rates.passed IS 'Of these, how many let the signal pass.';
COMMENT ON COLUMN tradetape.decision_rates.rejected IS 'How many refused it.';
COMMENT ON COLUMN tradetape.decision_rates.skipped IS 'How many passed it over.';
COMMENT ON COLUMN tradetape.decision_rates.errors IS 'How many failed.';
COMMENT ON COLUMN tradetape.decision_rates.passed_ratio IS 'Fraction that passed.';

CREATE VIEW tradetape.signal_latency AS
SELECT s.event_time, s.run_mode, s.venue, s.symbol, s.strategy_id, s.signal_id, t.trade_id,
       extract(epoch FROM s.emitted_at - s.event_time) AS event_to_signal_s,
       extract(epoch FROM d.decided_at - s.emitted_at) AS signal_to_decision_s,
       extract(epoch FROM t.emitted_at - s.emitted_at) AS signal_to_trade_s,
       extract(epoch FROM x.sent_at - s.emitted_at) AS signal_to_dispatch_s,
       extract(epoch FROM f.filled_at - s.emitted_at) AS signal_to_fill_s
FROM tradetape.trade_signals s
LEFT JOIN tradetape.trades t ON t.signal_id = s.signal_id
CROSS JOIN LATERAL (
    SELECT max(d.emitted_at) AS decided_at FROM tradetape.signal_decisions d WHERE d.signal_id = s.signal_id
) d
CROSS JOIN LATERAL (
    SELECT min(x.emitted_at) AS sent_at FROM tradetape.trade_dispatches x
    WHERE x.trade_id = t.trade_id AND x.outcome IN ('SENT', 'ACKED')
) x
CROSS JOIN LATERAL (
    SELECT min(f.event_time) AS filled_at FROM tradetape.fills f WHERE coalesce(f.trade_id, f.position_ref) = t.trade_id
) f;
COMMENT ON VIEW tradetape.signal_latency IS 'How long each step took from a signal to its first fill, in seconds. Steps are timed by different clocks, so a small one may be negative.';
COMMENT ON COLUMN tradetape.signal_latency.event_time IS 'The signal''s event_time, UTC.';
COMMENT ON COLUMN tradetape.signal_latency.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY.';
COMMENT ON COLUMN tradetape.signal_latency.venue IS 'Where it wished to trade.';
COMMENT ON COLUMN tradetape.signal_latency.symbol IS 'What it wished to trade.';
COMMENT ON COLUMN tradetape.signal_latency.strategy_id IS 'Name of the strategy.';
COMMENT ON COLUMN tradetape.signal_latency.signal_id IS 'The signal.';
COMMENT ON COLUMN tradetape.signal_latency.trade_id IS 'The trade made of it; null for none.';
COMMENT ON COLUMN tradetape.signal_latency.event_to_signal_s IS 'From what it is about, such as the close of a bar, until it was emitted.';
COMMENT ON COLUMN tradetape.signal_latency.signal_to_decision_s IS 'From there until its last decision was emitted; null for none.';
COMMENT ON COLUMN tradetape.signal_latency.signal_to_trade_s IS 'Until its trade was emitted; null for none.';
COMMENT ON COLUMN tradetape.signal_latency.signal_to_dispatch_s IS 'Until an executor was first said to have it; null for none.';
COMMENT ON COLUMN tradetape.signal_latency.signal_to_fill_s IS 'Until the first fill at the venue, by the venue''s clock; null for none.';

CREATE FUNCTION tradetape.indicator_values(update_row tradetape.indicator_updates) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(to_jsonb(update_row) - ARRAY[
               'event_id', 'event_time', 'emitted_at', 'producer', 'producer_run_id', 'producer_seq', 'run_mode',
               'correlation_id', 'causation_id', 'venue', 'symbol', 'tags', 'timeframe', 'indicator_set', 'bar_open_time',
               'bar_close_time', 'is_final', 'bars_used', 'close', 'extra', 'invalid', 'candle_event_id', 'topic',
               'partition', 'offset'])
           || coalesce(update_row.extra, '{}')
$$;
COMMENT ON FUNCTION tradetape.indicator_values(tradetape.indicator_updates) IS 'All indicators of an update by name, whether they have a column of their own or lie in extra.';

CREATE VIEW tradetape.latest_indicators AS
SELECT DISTINCT ON (u.venue, u.symbol, u.timeframe, u.indicator_set)
       u.event_time, u.run_mode, u.venue, u.symbol, u.timeframe, u.indicator_set, u.event_id, u.bar_close_time, u.close,
       tradetape.indicator_values(u) AS "values", u.invalid
FROM tradetape.indicator_updates u
WHERE u.is_final AND u.event_time >= (SELECT max(event_time) FROM tradetape.indicator_updates) - interval '62 days'
ORDER BY u.venue, u.symbol, u.timeframe, u.indicator_set, u.event_time DESC, u."partition", u."offset" DESC;
COMMENT ON VIEW tradetape.latest_indicators IS 'The newest finished update of each series, with all of its indicators, among those of the 62 days before the newest of all: two bars of a month.';
COMMENT ON COLUMN tradetape.latest_indicators.event_time IS 'The close of the bar, UTC.';
COMMENT ON COLUMN tradetape.latest_indicators.run_mode IS 'LIVE, PAPER, BACKTEST or REPLAY.';
COMMENT ON COLUMN tradetape.latest_indicators.venue IS 'Where it is traded.';
COMMENT ON COLUMN tradetape.latest_indicators.symbol IS 'What is traded.';
COMMENT ON COLUMN tradetape.latest_indicators.timeframe IS 'Length of the bar, such as 1h.';
COMMENT ON COLUMN tradetape.latest_indicators.indicator_set IS 'Which set of indicators.';
COMMENT ON COLUMN tradetape.latest_indicators.event_id IS 'The update.';
COMMENT ON COLUMN tradetape.latest_indicators.bar_close_time IS 'End of the bar, UTC.';
COMMENT ON COLUMN tradetape.latest_indicators.close IS 'Its closing price in quote currency; null when unknown.';
COMMENT ON COLUMN tradetape.latest_indicators."values" IS 'All of its indicators by name.';
COMMENT ON COLUMN tradetape.latest_indicators.invalid IS 'Indicators that could not be computed.';
