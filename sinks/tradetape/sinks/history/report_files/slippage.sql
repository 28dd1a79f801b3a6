-- What the entry of a trade cost against what was planned, as a fraction: positive is worse, for long and short alike.
SELECT t.event_time, t.run_mode, t.venue, t.symbol, t.strategy_id, t.trade_id, t.direction, t.planned_entry_price,
       f.entry_price_avg,
       ((f.entry_price_avg / t.planned_entry_price - 1) * CASE t.direction WHEN 'SHORT' THEN -1 ELSE 1 END)::double precision
           AS slippage_ratio
FROM tradetape.trades t
CROSS JOIN LATERAL (
    SELECT sum(f.amount_quote) / nullif(sum(f.quantity), 0) AS entry_price_avg
    FROM tradetape.fills f
    WHERE f.trade_id = t.trade_id AND f.side = CASE t.direction WHEN 'SHORT' THEN 'SELL' ELSE 'BUY' END
) f
WHERE t.action IN ('ENTER', 'ADD') AND t.planned_entry_price > 0 AND f.entry_price_avg IS NOT NULL
