-- Which tables may lose their old months, and the one way to do it without being their owner.
CREATE TABLE tradetape.retention (
    table_name   text PRIMARY KEY,
    least_months integer NOT NULL CHECK (least_months >= 1)
);
COMMENT ON TABLE tradetape.retention IS 'The tables whose old months may be dropped; of all others every month is kept for ever.';
COMMENT ON COLUMN tradetape.retention.table_name IS 'A table of the history.';
COMMENT ON COLUMN tradetape.retention.least_months IS 'How many months before the current one are never dropped.';
INSERT INTO tradetape.retention VALUES ('candles', 1), ('indicator_updates', 1), ('market_conditions', 1);

CREATE TABLE tradetape.dropped_months (
    table_name text NOT NULL,
    month      date NOT NULL,
    dropped_at timestamptz NOT NULL,
    dropped_by text NOT NULL,
    PRIMARY KEY (table_name, month)
);
COMMENT ON TABLE tradetape.dropped_months IS 'What retention has dropped, so that nobody takes it for lost.';
COMMENT ON COLUMN tradetape.dropped_months.table_name IS 'The table.';
COMMENT ON COLUMN tradetape.dropped_months.month IS 'First day of the month, UTC.';
COMMENT ON COLUMN tradetape.dropped_months.dropped_at IS 'When it was dropped last, UTC.';
COMMENT ON COLUMN tradetape.dropped_months.dropped_by IS 'Who did it.';

-- A month goes in one statement: detached first and dropped afterwards, it would for a while be neither a partition nor
-- out of the way of a new one, and a late event of that month could not be stored.
CREATE FUNCTION tradetape.drop_month(history_table text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    part text := history_table || to_char(first, '"_y"YYYY"m"MM');
    least integer := (SELECT r.least_months FROM tradetape.retention r WHERE r.table_name = history_table);
BEGIN
    IF least IS NULL THEN
        RAISE EXCEPTION '% is kept for ever: it is not in tradetape.retention', history_table
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF first >= (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => least))::date THEN
        RAISE EXCEPTION '% of % is too young to be dropped: the current month and % before it are kept',
            to_char(first, 'YYYY-MM'), history_table, least USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- In turn with ensure_month, which a sink calls for a late event.
    PERFORM pg_advisory_xact_lock(hashtext('tradetape.ensure_month'), hashtext(part));
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(format('tradetape.%I', part))
                   AND inhparent = to_regclass(format('tradetape.%I', history_table))) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE tradetape.%I', part);
    INSERT INTO tradetape.dropped_months AS d VALUES (history_table, first, now(), session_user)
        ON CONFLICT ON CONSTRAINT dropped_months_pkey DO UPDATE SET dropped_at = excluded.dropped_at, dropped_by = excluded.dropped_by;
    RETURN true;
END $$;
COMMENT ON FUNCTION tradetape.drop_month(text, date) IS 'Drop the partition of an old month of a table that is in tradetape.retention; gives up after a second of waiting for it.';
REVOKE ALL ON FUNCTION tradetape.drop_month(text, date) FROM PUBLIC;
