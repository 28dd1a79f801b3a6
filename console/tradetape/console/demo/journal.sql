-- The newest signal of a venue, the indicator update that it names, and the candle which that one names: by ids alone.
SELECT s.event_id::text, s.strategy_id, s.symbol, s.action, s.direction, s.event_time, s.reference_price, s.reasons,
       u.event_id::text, u.timeframe, u.rsi_14, u.ema_50, u.ema_200,
       c.event_id::text, c.open_time, c.close, c.volume
FROM tradetape.trade_signals s
JOIN tradetape.indicator_updates u ON u.event_id = (s.input_event_ids ->> 0)::uuid
JOIN tradetape.candles c ON c.event_id = u.candle_event_id::uuid
WHERE s.venue = %(venue)s
ORDER BY s.event_time DESC
LIMIT 1
