-- Why signals were refused, by UTC day: a decision with several reasons counts for each of them.
SELECT (d.event_time AT TIME ZONE 'UTC')::date AS day, d.run_mode, d.venue, d.symbol, d.stage, r.reason, count(*) AS decisions
FROM tradetape.signal_decisions d
CROSS JOIN LATERAL jsonb_array_elements_text(d.reasons) AS r (reason)
WHERE d.outcome = 'REJECTED'
GROUP BY 1, 2, 3, 4, 5, 6
