-- The newest closed position of a venue, and each of its trades with the signal, the indicator update and the candle that
-- it rests on, and what became of it: by ids alone, in the order of the trades.
SELECT c.event_id::text AS close_id, c.symbol, c.closed_at, c.close_status, c.exit_reason, c.entry_price_avg,
       c.exit_price_avg, c.fees_quote, c.pnl_quote, c.pnl_ratio, c.min_price, c.max_price,
       k.event_id::text AS candle_id, k.timeframe, k.close,
       u.event_id::text AS update_id, u.rsi_14,
       s.event_id::text AS signal_id, s.event_time, s.action, s.direction, s.reasons,
       d.event_id::text AS decision_id, d.outcome, d.stage,
       t.trade_id, t.planned_entry_price,
       x.event_id::text AS dispatch_id, x.outcome AS dispatch_outcome, x.executor,
       f.event_id::text AS fill_id, f.side, f.quantity, f.price
FROM (
    SELECT * FROM tradetape.closed_trades
    WHERE venue = %(venue)s AND opened_at IS NOT NULL
    ORDER BY closed_at DESC, event_id
    LIMIT 1
) c
JOIN tradetape.fills f ON f.position_ref = c.trade_id
JOIN tradetape.trades t ON t.trade_id = f.trade_id
JOIN tradetape.trade_dispatches x ON x.trade_id = t.trade_id AND x.external_id = f.venue_order_id
JOIN tradetape.signal_decisions d ON d.trade_id = t.trade_id
JOIN tradetape.trade_signals s ON s.signal_id = d.signal_id
JOIN tradetape.indicator_updates u ON u.event_id = (s.input_event_ids ->> 0)::uuid
JOIN tradetape.candles k ON k.event_id = u.candle_event_id::uuid
ORDER BY t.event_time, f.event_time, f.venue_trade_id
