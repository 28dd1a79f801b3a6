-- The event ids of one venue in a table of the history. A doubled event shows as an id that comes twice.
SELECT event_id::text FROM tradetape.{table} WHERE venue = %(venue)s
