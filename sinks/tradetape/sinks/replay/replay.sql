-- name: compare
-- Rows that are the same, missing in the copy, extra in it, and different. Only live rows count whose records the replay
-- could read: not deleted by retention before it was planned, not written after its end.
SELECT count(*) FILTER (WHERE live.event_id IS NOT NULL AND copy.event_id IS NOT NULL
                          AND (NOT live.was_readable OR {live_row} IS NOT DISTINCT FROM {copy_row})),
       count(*) FILTER (WHERE copy.event_id IS NULL AND live.was_readable),
       count(*) FILTER (WHERE live.event_id IS NULL),
       count(*) FILTER (WHERE live.event_id IS NOT NULL AND copy.event_id IS NOT NULL
                          AND live.was_readable AND {live_row} IS DISTINCT FROM {copy_row})
FROM (SELECT l.*, place.partition IS NOT NULL AS was_readable
      FROM {live} l
      LEFT JOIN unnest(%(partitions)s::int[], %(begins)s::bigint[], %(ends)s::bigint[])
                AS place (partition, oldest, behind)
             ON l.topic = %(topic)s AND place.partition = l.partition
            AND l."offset" >= place.oldest AND l."offset" < place.behind
      WHERE (%(start)s::timestamptz IS NULL OR l.event_time >= %(start)s::timestamptz)
        AND (%(end)s::timestamptz IS NULL OR l.event_time < %(end)s::timestamptz)) live
FULL JOIN (SELECT c.* FROM {copy} c
           WHERE (%(start)s::timestamptz IS NULL OR c.event_time >= %(start)s::timestamptz)
             AND (%(end)s::timestamptz IS NULL OR c.event_time < %(end)s::timestamptz)) copy
       ON live.event_time = copy.event_time AND live.event_id = copy.event_id

-- name: begin
INSERT INTO tradetape.replay_runs (run_id, target, range_start, range_end, topics, plan, progress, counts)
VALUES (%(run_id)s, %(target)s, %(start)s, %(end)s, %(topics)s, %(plan)s, %(progress)s, %(counts)s)

-- name: lock
-- A run has one process: it holds this lock as long as it lives.
SELECT pg_try_advisory_lock(724185, hashtext(%(run_id)s::text))

-- name: find
SELECT outcome, plan, progress, counts FROM tradetape.replay_runs WHERE run_id = %(run_id)s

-- name: again
UPDATE tradetape.replay_runs SET outcome = 'RUNNING', finished_at = NULL, updated_at = now() WHERE run_id = %(run_id)s

-- name: advance
UPDATE tradetape.replay_runs SET progress = %(progress)s, counts = %(counts)s, updated_at = now() WHERE run_id = %(run_id)s

-- name: end
UPDATE tradetape.replay_runs
SET outcome = %(outcome)s, counts = %(counts)s, finished_at = now(), updated_at = now() WHERE run_id = %(run_id)s

-- name: list
-- The newest runs. One that is RUNNING and whose lock nobody holds was killed.
SELECT r.run_id::text, r.started_at, r.finished_at,
       CASE WHEN r.outcome = 'RUNNING' AND NOT EXISTS (
                SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND l.classid = 724185 AND l.objid = (hashtext(r.run_id::text)::bigint & 4294967295)::oid)
            THEN 'INTERRUPTED' ELSE r.outcome END,
       r.target, r.range_start, r.range_end, r.topics, r.counts
FROM tradetape.replay_runs r ORDER BY r.started_at DESC, r.run_id LIMIT %(limit)s
