-- Rows · different candles among them · in a file and not stored · stored and in no file · with another number.
SELECT (SELECT count(*) FROM tradetape.candles),
       (SELECT count(*) FROM (SELECT DISTINCT venue, symbol, timeframe, open_time FROM tradetape.candles) AS one_each),
       count(*) FILTER (WHERE c.event_id IS NULL),
       count(*) FILTER (WHERE f.symbol IS NULL),
       count(*) FILTER (WHERE c.event_id IS NOT NULL AND f.symbol IS NOT NULL
                          AND (c."open", c.high, c.low, c."close", c.volume)
                              IS DISTINCT FROM (f."open", f.high, f.low, f."close", f.volume))
FROM bench.files AS f
FULL JOIN tradetape.candles AS c
  ON c.symbol = f.symbol AND c.open_time = timestamptz '1970-01-01Z' + f.open_time_ms * interval '1 millisecond'
