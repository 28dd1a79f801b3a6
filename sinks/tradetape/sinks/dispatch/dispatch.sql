-- name: durable
-- Whatever the database's own setting: an intent that is committed survives the server.
SET synchronous_commit = on

-- name: intend
-- Write an attempt down, as the owner of its partition. No row: it is there already, or another sink owns the partition.
INSERT INTO tradetape.dispatch_intents
    (trade_id, leg_index, attempt, intended_at, executor, outcome, error, run_mode, correlation_id, venue, symbol)
SELECT %(trade_id)s, %(leg_index)s, %(attempt)s, %(intended_at)s, %(executor)s, %(outcome)s, %(error)s, %(run_mode)s,
       %(correlation_id)s, %(venue)s, %(symbol)s
FROM tradetape.sink_offsets o
WHERE o.sink = %(sink)s AND o.topic_uuid = %(uuid)s AND o.partition = %(partition)s AND o.epoch = %(epoch)s
ON CONFLICT DO NOTHING
RETURNING *

-- name: intend_again
-- An attempt that certainly was not taken is sent once more.
UPDATE tradetape.dispatch_intents i SET is_refused = false, updated_at = now()
FROM tradetape.sink_offsets o
WHERE o.sink = %(sink)s AND o.topic_uuid = %(uuid)s AND o.partition = %(partition)s AND o.epoch = %(epoch)s
  AND i.trade_id = %(trade_id)s AND i.leg_index = %(leg_index)s AND i.attempt = %(attempt)s
  AND i.outcome IS NULL AND i.is_refused
RETURNING i.*

-- name: note
-- What became of an attempt, as the owner of its partition.
UPDATE tradetape.dispatch_intents i
SET outcome = %(outcome)s, external_id = %(external_id)s, error = %(error)s, is_refused = %(is_refused)s, is_on_tape = false,
    updated_at = now()
FROM tradetape.sink_offsets o
WHERE o.sink = %(sink)s AND o.topic_uuid = %(uuid)s AND o.partition = %(partition)s AND o.epoch = %(epoch)s
  AND i.trade_id = %(trade_id)s AND i.leg_index = %(leg_index)s AND i.attempt = %(attempt)s
  AND (i.outcome IS NULL OR i.outcome = 'TIMEOUT')
RETURNING i.*

-- name: owned
-- Whether a partition is still ours.
SELECT FROM tradetape.sink_offsets o
WHERE o.sink = %(sink)s AND o.topic_uuid = %(uuid)s AND o.partition = %(partition)s AND o.epoch = %(epoch)s

-- name: last_attempt
-- The newest attempt of a leg.
SELECT * FROM tradetape.dispatch_intents
WHERE trade_id = %(trade_id)s AND leg_index = %(leg_index)s ORDER BY attempt DESC LIMIT 1

-- name: on_tape
-- The outcomes of these attempts are acknowledged.
UPDATE tradetape.dispatch_intents i SET is_on_tape = true
FROM unnest(%(trade_ids)s::text[], %(leg_indexes)s::int[], %(attempts)s::int[], %(outcomes)s::text[])
     AS d (trade_id, leg_index, attempt, outcome)
WHERE i.trade_id = d.trade_id AND i.leg_index = d.leg_index AND i.attempt = d.attempt AND i.outcome = d.outcome

-- name: complete
-- What the tape says of an attempt. An outcome that is known already is only replaced by one that came later on the tape:
-- what was in doubt or timed out and is settled since.
INSERT INTO tradetape.dispatch_intents AS i
    (trade_id, leg_index, attempt, intended_at, executor, outcome, external_id, error, is_on_tape, resolved_why, run_mode,
     correlation_id, venue, symbol)
VALUES (%(trade_id)s, %(leg_index)s, %(attempt)s, %(event_time)s, %(executor)s, %(outcome)s::text, %(external_id)s, %(error)s,
        %(outcome)s::text IS NOT NULL, %(why)s, %(run_mode)s, %(correlation_id)s, %(venue)s, %(symbol)s)
ON CONFLICT (trade_id, leg_index, attempt) DO UPDATE
SET outcome = excluded.outcome, external_id = excluded.external_id, error = excluded.error, is_refused = false,
    is_on_tape = true, resolved_why = excluded.resolved_why, updated_at = now()
WHERE excluded.outcome IS NOT NULL AND (i.outcome IS NULL OR i.outcome IN ('TIMEOUT', 'IN_DOUBT'))
  AND i.outcome IS DISTINCT FROM excluded.outcome

-- name: in_doubt
-- How many orders wait for a person.
SELECT count(*) FROM tradetape.dispatch_intents WHERE outcome = 'IN_DOUBT'

-- name: listed
-- The newest attempts, those in doubt or without an outcome first.
SELECT intended_at, venue, symbol, trade_id, leg_index, attempt, executor,
       coalesce(outcome, CASE WHEN is_refused THEN 'REFUSED' ELSE 'OPEN' END) AS outcome, external_id, error, resolved_why
FROM tradetape.dispatch_intents
WHERE NOT %(in_doubt)s OR outcome = 'IN_DOUBT'
ORDER BY (outcome IS NULL OR outcome = 'IN_DOUBT') DESC, intended_at DESC, trade_id, leg_index, attempt DESC
LIMIT %(limit)s

-- name: resolve
-- A person says what became of an order in doubt; the same word again is harmless.
UPDATE tradetape.dispatch_intents
SET outcome = %(outcome)s, external_id = coalesce(%(external_id)s, external_id), resolved_why = %(why)s, is_on_tape = false,
    updated_at = now()
WHERE trade_id = %(trade_id)s AND leg_index = %(leg_index)s AND attempt = %(attempt)s
  AND (outcome = 'IN_DOUBT' OR (outcome = %(outcome)s AND resolved_why IS NOT NULL AND NOT is_on_tape))
RETURNING *

-- name: open_paper_order
-- Take an order of the paper executor; nothing where it is known.
INSERT INTO tradetape.paper_orders (trade_id, leg_index, partition, trade, position_id, side, is_opening, size)
VALUES (%(trade_id)s, %(leg_index)s, %(partition)s, %(trade)s, %(position_id)s, %(side)s, %(is_opening)s, %(size)s)
ON CONFLICT DO NOTHING
RETURNING trade_id

-- name: open_paper_orders
-- What candles may still fill.
SELECT * FROM tradetape.paper_orders WHERE NOT is_done AND partition = ANY (%(partitions)s) ORDER BY opened_at

-- name: paper_position
-- Each order of a position that opens it, and what the others have closed.
SELECT * FROM tradetape.paper_orders WHERE position_id = %(position_id)s

-- name: fill_paper_order
-- How far an order is filled.
UPDATE tradetape.paper_orders
SET size = %(size)s, filled_quantity = %(filled_quantity)s, fills = %(fills)s, candle_offset = %(candle_offset)s,
    is_done = %(is_done)s
WHERE trade_id = %(trade_id)s AND leg_index = %(leg_index)s
