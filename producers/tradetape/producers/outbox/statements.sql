-- name: create
CREATE TABLE IF NOT EXISTS topics (
    id integer PRIMARY KEY,
    name text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS waiting (
    topic integer NOT NULL,
    number integer NOT NULL,
    event_id text NOT NULL,
    key blob NOT NULL,
    payload blob NOT NULL,
    timestamp_ms integer NOT NULL,
    is_input integer NOT NULL,
    PRIMARY KEY (topic, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (
    number integer PRIMARY KEY,
    topic integer NOT NULL,
    event_id text NOT NULL,
    key blob NOT NULL,
    payload blob NOT NULL,
    timestamp_ms integer NOT NULL,
    cause text NOT NULL
);

-- name: add_topic
INSERT INTO topics (name) VALUES (:name) ON CONFLICT DO NOTHING

-- name: topics
SELECT id, name FROM topics

-- name: last_number
SELECT max(coalesce((SELECT max(number) FROM waiting), 0), coalesce((SELECT max(number) FROM parked), 0))

-- name: waiting_totals
SELECT topics.name, count(*), sum(length(key) + length(payload))
FROM waiting JOIN topics ON topics.id = waiting.topic
GROUP BY topics.name

-- name: parked_totals
SELECT count(*), coalesce(sum(length(key) + length(payload)), 0) FROM parked

-- name: add
INSERT INTO waiting (topic, number, event_id, key, payload, timestamp_ms, is_input) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: oldest
SELECT number, event_id, key, payload, timestamp_ms, is_input
FROM waiting
WHERE topic = ? AND number > ?
ORDER BY number
LIMIT ?

-- name: first
SELECT number, timestamp_ms FROM waiting WHERE topic = ? ORDER BY number LIMIT 1

-- name: remove
DELETE FROM waiting WHERE topic = ? AND number IN (SELECT value FROM json_each(?))

-- name: park
INSERT INTO parked (number, topic, event_id, key, payload, timestamp_ms, cause)
SELECT number, topic, event_id, key, payload, timestamp_ms, :cause
FROM waiting
WHERE topic = :topic AND number = :number

-- name: parked_topics
SELECT topics.name FROM parked JOIN topics ON topics.id = parked.topic

-- name: unpark
INSERT INTO waiting (topic, number, event_id, key, payload, timestamp_ms, is_input)
SELECT topic, number, event_id, key, payload, timestamp_ms, 0 FROM parked

-- name: empty_parked
DELETE FROM parked

-- name: everything
SELECT waiting.number, topics.name, event_id, key, payload, timestamp_ms, NULL AS cause
FROM waiting JOIN topics ON topics.id = waiting.topic
UNION ALL
SELECT parked.number, topics.name, event_id, key, payload, timestamp_ms, cause
FROM parked JOIN topics ON topics.id = parked.topic
ORDER BY 1
