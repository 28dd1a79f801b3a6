-- Whether an event is there, by its primary key.
SELECT 1 FROM tradetape.{table} WHERE event_time = %(event_time)s AND event_id = %(event_id)s::uuid
