-- What is stored of the events at or after an instant; the sample gives each its own.
SELECT event_time FROM tradetape.indicator_updates WHERE event_time >= %s
