-- Trades that opened a position which has not been closed yet.
SELECT t.event_time, t.run_mode, t.venue, t.symbol, t.strategy_id, t.direction, t.trade_id, t.account_id, t.approved_at,
       t.planned_entry_price, f.filled_quantity, f.entry_price_avg
FROM tradetape.trades t
CROSS JOIN LATERAL (
    SELECT sum(f.quantity) AS filled_quantity, sum(f.amount_quote) / nullif(sum(f.quantity), 0) AS entry_price_avg
    FROM tradetape.fills f WHERE coalesce(f.trade_id, f.position_ref) = t.trade_id
) f
WHERE t.action = 'ENTER' AND NOT EXISTS (SELECT FROM tradetape.closed_trades c WHERE c.trade_id = t.trade_id)
