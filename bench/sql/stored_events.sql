-- Different events in the history, over the tables that the promises are about.
SELECT count(DISTINCT event_id) FROM (
    SELECT event_id FROM tradetape.indicator_updates
    UNION ALL SELECT event_id FROM tradetape.candles
    UNION ALL SELECT event_id FROM tradetape.trade_signals
) AS stored
