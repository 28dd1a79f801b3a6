-- name: topics
SELECT id, name FROM topics

-- name: waiting_totals
SELECT count(*), coalesce(sum(length(key) + length(payload)), 0) FROM waiting

-- name: parked_totals
SELECT count(*), coalesce(sum(length(key) + length(payload)), 0) FROM parked

-- name: first
SELECT timestamp_ms FROM waiting WHERE topic = ? ORDER BY number LIMIT 1

-- name: waiting_from
SELECT number, topic, event_id, key, payload, timestamp_ms, NULL
FROM waiting
WHERE topic = ? AND number >= ?
ORDER BY number
LIMIT ?

-- name: parked_from
SELECT number, topic, event_id, key, payload, timestamp_ms, cause
FROM parked
WHERE number >= ?
ORDER BY number
LIMIT ?
