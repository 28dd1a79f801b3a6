-- Stretches without a finished candle between two of a series: from the end of the one to the beginning of the next.
SELECT event_time, venue, symbol, timeframe, gap_start, open_time AS gap_end, open_time - gap_start AS gap
FROM (
    SELECT event_time, venue, symbol, timeframe, open_time,
           lag(close_time) OVER (PARTITION BY venue, symbol, timeframe ORDER BY open_time) AS gap_start
    FROM tradetape.candles WHERE is_final
) c
WHERE open_time > gap_start
