-- The files' text, read as numbers by PostgreSQL and by nothing of ours.
CREATE SCHEMA bench;
CREATE TABLE bench.files (
    symbol text NOT NULL, open_time_ms bigint NOT NULL,
    "open" numeric NOT NULL, high numeric NOT NULL, low numeric NOT NULL, "close" numeric NOT NULL, volume numeric NOT NULL)
