-- name: columns
-- The columns of a table in their order: name, type, whether it may be null, whether it fills itself.
SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, atthasdef OR attidentity <> ''
FROM pg_attribute
WHERE attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum

-- name: keys
-- Whether a table is partitioned by its events' time, and whether an event can be in it only once.
SELECT coalesce(pg_get_partkeydef(c.oid) = 'RANGE (event_time)', false),
       EXISTS (SELECT FROM pg_index i
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                 AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) = ARRAY['event_id', 'event_time'])
FROM pg_class c
WHERE c.oid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))

-- name: session
-- What tells this session from every other one.
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: owners
-- The sessions that own these partitions now and still live, other than this one.
SELECT DISTINCT a.pid, a.backend_start
FROM tradetape.sink_offsets o
JOIN pg_stat_activity a ON a.pid = o.owner_pid AND a.backend_start = o.owner_backend_start
WHERE o.sink = %(sink)s AND (o.topic_uuid, o.partition) IN (SELECT * FROM unnest(%(uuids)s::text[], %(partitions)s::int[]))
  AND a.pid <> pg_backend_pid()

-- name: terminate
-- End a session, if it is still the same one, and wait until it is gone (at most five seconds).
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %(pid)s AND backend_start = %(backend_start)s

-- name: claim
-- Take a partition: whoever held it before may write no more.
INSERT INTO tradetape.sink_offsets AS o (sink, topic, topic_uuid, partition, epoch, owner_pid, owner_backend_start)
VALUES (%(sink)s, %(topic)s, %(uuid)s, %(partition)s, 1, %(pid)s, %(backend_start)s)
ON CONFLICT (sink, topic, topic_uuid, partition) DO UPDATE
SET epoch = o.epoch + 1, owner_pid = excluded.owner_pid, owner_backend_start = excluded.owner_backend_start, updated_at = now()
RETURNING epoch, next_offset

-- name: retake
-- Go on after a mere reconnect: only where nobody else has taken it meanwhile. An epoch that we do not know is ours all
-- the same when one of our sessions raised it: then only the answer to its COMMIT was lost.
UPDATE tradetape.sink_offsets
SET epoch = epoch + 1, owner_pid = %(pid)s, owner_backend_start = %(backend_start)s, updated_at = now()
WHERE sink = %(sink)s AND topic_uuid = %(uuid)s AND partition = %(partition)s
  AND (epoch = %(epoch)s OR (owner_pid, owner_backend_start)
       IN (SELECT * FROM unnest(%(tried_pids)s::int[], %(tried_starts)s::timestamptz[])))
RETURNING epoch, next_offset

-- name: epoch
-- What tells a partition that somebody took from a database that has forgotten who had it.
SELECT epoch FROM tradetape.sink_offsets WHERE sink = %(sink)s AND topic_uuid = %(uuid)s AND partition = %(partition)s

-- name: release
-- Nobody owns these partitions, unless another sink took them meanwhile: no session has to end for the next one's claim.
UPDATE tradetape.sink_offsets o
SET owner_pid = 0, owner_backend_start = 'epoch', updated_at = now()
FROM unnest(%(uuids)s::text[], %(partitions)s::int[], %(epochs)s::bigint[]) AS n (uuid, partition, epoch)
WHERE o.sink = %(sink)s AND o.topic_uuid = n.uuid AND o.partition = n.partition AND o.epoch = n.epoch

-- name: advance
-- The fence, last statement of every write: one row for each partition written, or nothing is.
UPDATE tradetape.sink_offsets o
SET next_offset = n.new, updated_at = now()
FROM unnest(%(uuids)s::text[], %(partitions)s::int[], %(epochs)s::bigint[], %(olds)s::bigint[], %(news)s::bigint[])
     AS n (uuid, partition, epoch, old, new)
WHERE o.sink = %(sink)s AND o.topic_uuid = n.uuid AND o.partition = n.partition AND o.epoch = n.epoch
  AND o.next_offset IS NOT DISTINCT FROM n.old

-- name: ensure_month
-- Make the partition that holds this month.
SELECT tradetape.ensure_month(%(table)s, %(month)s)

-- name: offsets
-- How far each sink has come.
SELECT sink, topic, topic_uuid, partition, next_offset, epoch, updated_at
FROM tradetape.sink_offsets ORDER BY sink, topic, partition, updated_at

-- name: tables
-- Each table of the history with its number of monthly partitions, its estimated rows and its size in bytes.
SELECT c.relname, count(i.inhrelid), coalesce(sum(greatest(k.reltuples, 0)), 0)::bigint,
       coalesce(sum(pg_relation_size(k.oid)), 0)::bigint
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhparent = c.oid
LEFT JOIN pg_class k ON k.oid = i.inhrelid
WHERE c.relnamespace = to_regnamespace('tradetape') AND c.relkind = 'p'
GROUP BY c.relname ORDER BY c.relname

-- name: views
-- Each view of the history with its comment.
SELECT relname, coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class
WHERE relnamespace = to_regnamespace('tradetape') AND relkind = 'v' ORDER BY relname

-- name: partitions
-- Each month of each table: its partition, estimated rows (-1 where nobody has looked yet), bytes with its indexes.
SELECT c.relname, to_date(substring(k.relname FROM '_y([0-9]{4}m[0-9]{2})$'), 'YYYY"m"MM'), k.relname, k.reltuples::bigint,
       pg_total_relation_size(k.oid), pg_relation_size(k.oid)
FROM pg_class c
JOIN pg_inherits i ON i.inhparent = c.oid
JOIN pg_class k ON k.oid = i.inhrelid
WHERE c.relnamespace = to_regnamespace('tradetape') AND c.relkind = 'p'
  AND (%(table)s::text IS NULL OR c.relname = %(table)s)
ORDER BY c.relname, k.relname

-- name: retention
-- The tables whose months may be dropped, and how many months before the current one are always kept.
SELECT table_name, least_months FROM tradetape.retention ORDER BY table_name

-- name: oldest_kept
-- The first month that is kept when so many before the current one are.
SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %(months)s))::date

-- name: drop_month
-- Drop the partition of a month; false where there is none.
SELECT tradetape.drop_month(%(table)s, %(month)s)

-- name: dropped_months
-- What retention has dropped of a table.
SELECT month FROM tradetape.dropped_months WHERE table_name = %(table)s

-- name: has_extra
-- Whether any update has an indicator without a column of its own.
SELECT 1 FROM tradetape.indicator_updates WHERE extra ? %(name)s LIMIT 1

-- name: end_sinks
-- End the sessions of all sinks that are at work, and wait until each is gone; they make another one at once.
SELECT coalesce(pg_terminate_backend(s.owner_pid, 5000), false)
FROM (SELECT DISTINCT o.owner_pid, o.owner_backend_start FROM tradetape.sink_offsets o) s
JOIN pg_stat_activity a ON a.pid = s.owner_pid AND (a.backend_start = s.owner_backend_start OR a.backend_start IS NULL)

-- name: month_span
-- The first and the last event of a month, asked of its table, which a reader may read.
SELECT min(event_time), max(event_time) FROM {table}
WHERE event_time >= %(month)s::timestamp AT TIME ZONE 'UTC'
  AND event_time < (%(month)s::timestamp + interval '1 month') AT TIME ZONE 'UTC'

-- name: month_count
-- The number of events of a month.
SELECT count(*) FROM {table}
WHERE event_time >= %(month)s::timestamp AT TIME ZONE 'UTC'
  AND event_time < (%(month)s::timestamp + interval '1 month') AT TIME ZONE 'UTC'

-- name: reached
-- How far a sink has come on each partition of a topic.
SELECT partition, coalesce(next_offset, 0) FROM tradetape.sink_offsets
WHERE sink = %(sink)s AND topic = %(topic)s AND topic_uuid = %(uuid)s

-- name: rows
-- The rows of a stretch of time in the order of the primary key.
SELECT * FROM {table}
WHERE (%(start)s::timestamptz IS NULL OR event_time >= %(start)s) AND (%(end)s::timestamptz IS NULL OR event_time < %(end)s)
ORDER BY event_time, event_id

-- name: row
-- One row by its key.
SELECT * FROM {table} WHERE event_time = %(event_time)s AND event_id = %(event_id)s
