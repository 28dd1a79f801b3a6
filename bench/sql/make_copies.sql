-- Two copies of the history's widest table, with its primary key and the month that the sample lies in.
CREATE SCHEMA bench;
CREATE TABLE bench.bare (LIKE tradetape.indicator_updates INCLUDING ALL) PARTITION BY RANGE (event_time);
CREATE TABLE bench.bare_month PARTITION OF bench.bare FOR VALUES FROM ('2025-05-01Z') TO ('2025-06-01Z');
CREATE TABLE bench.raw (LIKE tradetape.indicator_updates INCLUDING ALL) PARTITION BY RANGE (event_time);
CREATE TABLE bench.raw_month PARTITION OF bench.raw FOR VALUES FROM ('2025-05-01Z') TO ('2025-06-01Z');
