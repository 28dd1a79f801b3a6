-- A copy of the history's widest table for each peer, with its primary key and the month that the sample lies in.
CREATE SCHEMA bench;
CREATE TABLE bench.quixstreams (LIKE tradetape.indicator_updates INCLUDING ALL) PARTITION BY RANGE (event_time);
CREATE TABLE bench.quixstreams_month PARTITION OF bench.quixstreams FOR VALUES FROM ('2025-05-01Z') TO ('2025-06-01Z');
CREATE TABLE bench.faust (LIKE tradetape.indicator_updates INCLUDING ALL) PARTITION BY RANGE (event_time);
CREATE TABLE bench.faust_month PARTITION OF bench.faust FOR VALUES FROM ('2025-05-01Z') TO ('2025-06-01Z');
